//! Dialling for a lane: for everybody who waits, in tasks of their own, or for one request over
//! HTTP/1.1; and what follows from what a dial brought.

use super::lane_pool::{Idle, LanePool};
use super::slots::{Grant, Protocol};
use crate::shelf::failed;
use std::sync::Arc;
use tidegate_transport::http1::ClientConn;
use tidegate_transport::http2::Connection;
use tidegate_transport::{BoxIo, DialError, DialStage, TaskKind};

const DIALLING: TaskKind = TaskKind {
    name: "upstream dial",
    on_cancel: "gives the connection up; nobody waits any more",
    on_error: "those who wait are told; without them the next one waits 1 s, 2 s, 4 s ...",
};

/// What a dial brought.
pub(super) enum Opened {
    Http1(BoxIo),
    Http2(u64, Connection),
}

impl LanePool {
    /// Begins the dials that are needed now.
    pub(super) fn dial_as_needed(self: &Arc<Self>) {
        self.shelf.begin_dials(self.clock.now(), || self.tasks.spawn(&DIALLING, Arc::clone(self).dialled()));
    }

    /// One dial of a task of its own.
    async fn dialled(self: Arc<Self>) {
        let Some(opened) = self.shelf.dialled(self.open()).await else { return };
        if opened.is_ok() { &self.opened } else { &self.failed }.inc();
        match opened {
            Ok(Opened::Http2(id, conn)) => {
                if !self.add(id, conn) {
                    self.dial_failed(&failed(DialStage::Http2, "it closed at once".to_owned()));
                }
            }
            Ok(Opened::Http1(io)) => self.speaks_http1(io),
            Err(e) => self.dial_failed(&e),
        }
        self.serve();
        self.dial_as_needed();
    }

    /// Puts a new HTTP/2 connection on the shelf, unless it closed in the meantime.
    pub(super) fn add(&self, id: u64, conn: Connection) -> bool {
        let (now, streams) = (self.clock.now(), conn.streams_max());
        let mut shelf = self.shelf.lock();
        let added = shelf.add(id, conn, now, self.rules.http2_age);
        if added {
            shelf.policy.protocol = Protocol::Http2;
            shelf.expect(streams);
            shelf.dial_worked(now);
        }
        added
    }

    /// The other side chose HTTP/1.1, now or from now on.
    fn speaks_http1(&self, io: BoxIo) {
        let mut shelf = self.shelf.lock();
        shelf.policy.protocol = Protocol::Http1;
        shelf.retire_all();
        let waiters = shelf.all_waiters();
        drop(shelf);
        let mut io = Some(io);
        for waiter in waiters {
            if let Err(Grant::Http1(back)) = waiter.send(Grant::Http1(io.take())) {
                io = back;
            }
        }
        if let Some(io) = io {
            self.keep(Idle::new(ClientConn::new(io), self.clock.now(), self));
        }
    }

    fn dial_failed(&self, error: &DialError) {
        self.shelf.dial_failed(self.clock.now(), || Grant::Failed(error.clone()));
    }

    /// Dials; over HTTP/2, begins it.
    pub(super) async fn open(self: &Arc<Self>) -> Result<Opened, DialError> {
        let dialled = self.dial.dial(&self.lane.target).await?;
        if !dialled.http2 {
            return Ok(Opened::Http1(dialled.io));
        }
        let id = self.shelf.lock().id();
        let lane = Arc::downgrade(self);
        let changed = move |gone| {
            if let Some(lane) = lane.upgrade() {
                lane.changed(id, gone);
            }
        };
        let span = self.rules.http2_start;
        let opening = Connection::open(dialled.io, self.clock, &self.tasks, changed);
        let conn = match self.clock.within(span, opening).await {
            Some(Ok(conn)) => conn,
            Some(Err(e)) => return Err(failed(DialStage::Http2, e.to_string())),
            None => {
                let message = format!("no SETTINGS within {} s", span.as_secs_f64());
                return Err(DialError { timed_out: true, ..failed(DialStage::Http2, message) });
            }
        };
        if conn.streams_max() == 0 {
            return Err(failed(DialStage::Http2, "the upstream takes no streams".to_owned()));
        }
        Ok(Opened::Http2(id, conn))
    }

    /// A connection takes more or fewer streams than before, or none, or is gone.
    fn changed(self: &Arc<Self>, id: u64, gone: bool) {
        if gone {
            let gone = self.shelf.lock().forget(id);
            drop(gone);
        }
        self.serve();
        self.dial_as_needed();
    }
}
