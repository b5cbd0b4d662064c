//! The client's body to the upstream, piece by piece.
//!
//! A small body is read before anything is sent, so that it can go out again: to another key, or to
//! the next place that may have what it is about. A larger one, or one of unknown length, is read
//! while the upstream takes it, and no faster; a few pieces of it are here at a time, leased like any
//! body. Reading stops where the client's clock, the limit or the framing says so, and then the
//! exchange is given up: the upstream sees a request that broke off.

use crate::answer::Trouble;
use crate::attempt::Stop;
use crate::decode::{Body, DecodeEnd};
use crate::house::House;
use crate::reply::{Interrupt, Reply};
use bytes::{Bytes, BytesMut};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use tidegate_base::{ByteLease, Moment};
use tidegate_transport::ServerStream;
use tidegate_transport::http1::HeadEnd;
use tidegate_upstream::{Upload, UploadSink, upload};
use tidegate_wire::http::{Framing, RequestHead};

/// Bodies up to this size are held, so that they can be sent again.
const HELD_BYTES_MAX: u64 = 64 * 1024;
/// What is leased for a body on its way: the pieces between the two sides, and one at either.
const LEASED_BYTES: u64 = 6 * 64 * 1024;

/// A body that still comes.
pub(super) struct Feed {
    sink: UploadSink,
    limit: u64,
    read: u64,
    is_whole: bool,
    continued: bool,
    _lease: ByteLease,
}

impl Feed {
    /// Whether all of it was read.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Reads it to its end. Cancel-safe: what was not put in yet is not read yet.
    async fn run(&mut self, house: &House, conn: &mut ServerStream, head: &RequestHead) -> Result<(), DecodeEnd> {
        if !std::mem::replace(&mut self.continued, true)
            && head.expects_continue()
            && !conn.body_read()
            && conn.send_continue().await.is_err()
        {
            return Err(DecodeEnd::Left);
        }
        while !self.is_whole {
            // Nobody takes it any more: then the exchange has something to say.
            let Some(room) = self.sink.room().await else { return std::future::pending().await };
            let mut piece = BytesMut::new();
            let n = read(house, conn, &mut piece).await?;
            self.read += n as u64;
            if self.read > self.limit {
                return Err(Trouble::BodyTooLarge { limit: self.limit }.into());
            }
            self.is_whole = n == 0;
            room.put(piece.freeze());
        }
        Ok(())
    }
}

/// One piece of a body, under the client's clock; 0 bytes at its end.
async fn read(house: &House, conn: &mut ServerStream, into: &mut BytesMut) -> Result<usize, DecodeEnd> {
    let read = house.clock.within(house.settings.clocks.client_body_stall, conn.read_body(into)).await;
    match read {
        None => {
            house.metrics.clock_expired("client_body_stall");
            Err(Trouble::BodySlow.into())
        }
        Some(Ok(n)) => Ok(n),
        Some(Err(HeadEnd::Closed | HeadEnd::Http2 | HeadEnd::Io(_))) => Err(DecodeEnd::Left),
        Some(Err(HeadEnd::Bad(e))) => Err(Trouble::Head(e).into()),
        Some(Err(HeadEnd::Body(e))) => Err(Trouble::BodyFraming(e).into()),
    }
}

/// A body as it goes upstream: held, or still to be fed.
type Fed = (Option<Body>, Option<Feed>, Option<Arc<Upload>>);

/// Looks at how the body is framed, and reads it if it is small.
pub(super) async fn feeds(house: &House, reply: &mut Reply<'_>, head: &RequestHead, limit: u64) -> Result<Fed, Stop> {
    let mut lease = house.bodies.empty_lease();
    let declared = match head.framing {
        // To a method that usually has one, no body is one of no length.
        Framing::Empty if !matches!(head.method(), "POST" | "PUT" | "PATCH") => return Ok((None, None, None)),
        Framing::Empty | Framing::Length(0) => return Ok((Some(Body { bytes: Bytes::new(), lease }), None, None)),
        Framing::Length(n) if n > limit => return Err(Trouble::BodyTooLarge { limit }.into()),
        Framing::Length(n) => Some(n),
        Framing::Chunked | Framing::UntilClose => None,
    };
    let held = declared.filter(|n| *n <= HELD_BYTES_MAX);
    if !lease.resize(held.unwrap_or(LEASED_BYTES)) {
        return Err(Trouble::BodyBudget.into());
    }
    if held.is_none() {
        let (sink, upload) = upload(declared);
        let feed = Feed { sink, limit, read: 0, is_whole: false, continued: false, _lease: lease };
        return Ok((None, Some(feed), Some(Arc::new(upload))));
    }
    let live = reply.live().clone();
    let reading = async {
        let conn = reply.conn();
        if head.expects_continue() && !conn.body_read() && conn.send_continue().await.is_err() {
            return Err(DecodeEnd::Left);
        }
        let mut bytes = BytesMut::new();
        while read(house, conn, &mut bytes).await? > 0 {}
        Ok(bytes.freeze())
    };
    let bytes = tokio::select! {
        biased;
        () = poll_fn(|cx| live.poll_cancelled(cx)) => return Err(Interrupt::Cancelled.into()),
        read = reading => read.map_err(stop)?,
    };
    Ok((Some(Body { bytes, lease }), None, None))
}

fn stop(end: DecodeEnd) -> Stop {
    match end {
        DecodeEnd::Trouble(trouble) => trouble.into(),
        DecodeEnd::Left => Interrupt::ClientLeft.into(),
    }
}

/// Feeds `exchanging` until the body is whole, or until that has an answer, which it gives.
pub(super) async fn fed<T>(
    house: &House,
    reply: &mut Reply<'_>,
    head: &RequestHead,
    feed: &mut Feed,
    exchanging: Pin<&mut impl Future<Output = T>>,
) -> Result<Option<T>, Stop> {
    let live = reply.live().clone();
    // Bytes that keep coming and going are watched by their own clocks; only the client's own word
    // ends them.
    let until = if reply.deadline.is_clients() { reply.deadline.at() } else { Moment::NEVER };
    let fed = tokio::select! {
        biased;
        () = poll_fn(|cx| live.poll_cancelled(cx)) => return Err(Interrupt::Cancelled.into()),
        sent = exchanging => return Ok(Some(sent)),
        fed = house.clock.by(until, feed.run(house, reply.conn(), head)) => fed,
    };
    match fed {
        Some(Ok(())) => {
            reply.renew_deadline();
            Ok(None)
        }
        Some(Err(end)) => Err(stop(end)),
        None => Err(Interrupt::Deadline.into()),
    }
}
