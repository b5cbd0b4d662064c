//! Dialling for a lane: for everybody who waits, in tasks of their own, or for one request over
//! HTTP/1.1; and what follows from what a dial brought.

use super::lane_pool::{Idle, LanePool};
use super::shelf::{Grant, Protocol};
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

/// Counts a dial under way, however it ends.
struct Dialing<'a>(&'a LanePool);

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        self.0.shelf().dialing -= 1;
    }
}

impl LanePool {
    /// Begins the dials that are needed now.
    pub(super) fn dial_as_needed(self: &Arc<Self>) {
        let mut shelf = self.shelf();
        for _ in 0..shelf.dials_needed(self.clock.now()) {
            shelf.dialing += 1;
            self.tasks.spawn(&DIALLING, Arc::clone(self).dialled());
        }
    }

    /// One dial of a task of its own.
    async fn dialled(self: Arc<Self>) {
        let dialing = Dialing(&self);
        let closing = self.closing.notified();
        tokio::pin!(closing);
        closing.as_mut().enable();
        if self.shelf().closed {
            return;
        }
        let opened = tokio::select! {
            biased;
            () = &mut closing => return,
            opened = self.open() => opened,
        };
        drop(dialing);
        if opened.is_ok() { &self.opened } else { &self.failed }.inc();
        match opened {
            Ok(Opened::Http2(id, conn)) => {
                let added = self.shelf().add(id, conn, self.clock.now(), self.rules.http2_age);
                if !added {
                    self.dial_failed(&failed(DialStage::Http2, "it closed at once".to_owned()));
                }
            }
            Ok(Opened::Http1(io)) => self.speaks_http1(io),
            Err(e) => self.dial_failed(&e),
        }
        self.serve();
        self.dial_as_needed();
    }

    /// The other side chose HTTP/1.1, now or from now on.
    fn speaks_http1(&self, io: BoxIo) {
        let mut shelf = self.shelf();
        shelf.protocol = Protocol::Http1;
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
        let mut shelf = self.shelf();
        shelf.dial_failed(self.clock.now());
        let waiters = shelf.failed_waiters();
        drop(shelf);
        for waiter in waiters {
            // Whoever left in the meantime need not know.
            let _ = waiter.send(Grant::Failed(error.clone()));
        }
    }

    /// Dials; over HTTP/2, begins it.
    pub(super) async fn open(self: &Arc<Self>) -> Result<Opened, DialError> {
        let dialled = self.dial.dial(&self.lane.target).await?;
        if !dialled.http2 {
            return Ok(Opened::Http1(dialled.io));
        }
        let id = self.shelf().id();
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
            self.shelf().forget(id);
        }
        self.serve();
        self.dial_as_needed();
    }
}

fn failed(stage: DialStage, message: String) -> DialError {
    DialError { stage, timed_out: false, message }
}

pub(super) fn closed() -> DialError {
    failed(DialStage::Connect, "the gateway is closing".to_owned())
}
