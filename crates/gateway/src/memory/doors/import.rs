//! `POST /v1/conversations` with JSON Lines: read as they come, and written some at a time.
//!
//! Each batch of whole lines is written or not; what was written before a line that is refused stays.
//! An import that broke off is run again: what is there already is passed over. The client is not
//! read while a batch is being written, so a disk that is slow slows it down. A packed body is
//! unpacked first, and is bounded like any other.

use super::lines::masked;
use super::turns::{forget_all, take_all};
use super::{check_headers, shape};
use crate::answer::Trouble;
use crate::attempt::Stop;
use crate::decode::{DecodeEnd, decode};
use crate::house::House;
use crate::identify::Caller;
use crate::memory::TurnTrouble;
use crate::reply::{Interrupt, Reply};
use crate::settle::End;
use bytes::BytesMut;
use serde_json::json;
use std::future::poll_fn;
use tidegate_base::ByteLease;
use tidegate_store::{IMPORT_BYTES_MAX, Imported, StoreError};
use tidegate_transport::http1::HeadEnd;
use tidegate_wire::http::RequestHead;

/// Bytes of a batch, but for the line that goes past: one sync of the disk each.
const BATCH_BYTES: usize = 1 << 20;
/// Steps in which what waits is leased, bytes.
const LEASE_STEP: u64 = 64 * 1024;

/// Whether it is an import, whose body is not held whole.
pub(crate) fn is_import(head: &RequestHead) -> bool {
    head.method() == "POST" && super::Place::of(head.path()) == Some(super::Place::All) && is_lines(head)
}

fn is_lines(head: &RequestHead) -> bool {
    let kind = head.headers.text("content-type").unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/x-ndjson")
}

/// A body of another kind.
pub(super) fn not_lines() -> Stop {
    let expected = "`application/x-ndjson`: this path takes JSON Lines as an export gives them";
    Trouble::Header { name: "content-type".to_owned(), expected }.into()
}

/// What has come and is not written yet.
struct Coming {
    bytes: BytesMut,
    /// Up to here they are whole lines.
    whole: usize,
    lease: ByteLease,
    /// Lines that were written, and what became of them.
    lines: u64,
    done: Imported,
}

/// The door. `close` is whether the connection ends after a body that was read whole.
pub(crate) async fn import(
    house: &House,
    reply: &mut Reply<'_>,
    head: &RequestHead,
    caller: &Caller,
    close: bool,
) -> Result<End, Stop> {
    house.memory.owner(caller).map_err(Trouble::from)?;
    check_headers(caller, false)?;
    crate::query::Query::read(head.query(), &[])?;
    let lease = house.bodies.empty_lease();
    let mut coming = Coming { bytes: BytesMut::new(), whole: 0, lease, lines: 0, done: Imported::default() };
    if head.headers.has("content-encoding") {
        let body = decode(house, reply.conn(), head).await.map_err(|end| match end {
            DecodeEnd::Trouble(trouble) => Stop::from(trouble),
            DecodeEnd::Left => Interrupt::ClientLeft.into(),
        })?;
        coming.whole = body.bytes.len();
        (coming.bytes, coming.lease) = (BytesMut::from(&body.bytes[..]), body.lease);
    } else {
        if head.expects_continue() && !reply.conn().body_read() && reply.conn().send_continue().await.is_err() {
            return Err(Interrupt::ClientLeft.into());
        }
        while coming.more(house, reply).await? {
            if coming.bytes.len() >= BATCH_BYTES && coming.whole > 0 {
                coming.write(house, reply, caller).await?;
            }
        }
        coming.whole = coming.bytes.len();
    }
    coming.write(house, reply, caller).await?;
    reply.close = close;
    let Imported { added, known } = coming.done;
    reply.whole_of_ours(&shape::json(&json!({"type": "conversations_imported", "added": added, "known": known})));
    Ok(End::Answered)
}

impl Coming {
    /// Reads a piece; false at the body's end.
    async fn more(&mut self, house: &House, reply: &mut Reply<'_>) -> Result<bool, Stop> {
        let live = reply.live().clone();
        let before = self.bytes.len();
        let reading =
            house.clock.within(house.settings.clocks.client_body_stall, reply.conn().read_body(&mut self.bytes));
        let read = tokio::select! {
            biased;
            () = poll_fn(|cx| live.poll_cancelled(cx)) => return Err(Interrupt::Cancelled.into()),
            read = reading => read,
        };
        match read {
            None => {
                house.metrics.clock_expired("client_body_stall");
                return Err(Trouble::BodySlow.into());
            }
            Some(Err(HeadEnd::Closed | HeadEnd::Http2 | HeadEnd::Io(_))) => return Err(Interrupt::ClientLeft.into()),
            Some(Err(HeadEnd::Bad(e))) => return Err(Trouble::Head(e).into()),
            Some(Err(HeadEnd::Body(e))) => return Err(Trouble::BodyFraming(e).into()),
            Some(Ok(0)) => return Ok(false),
            Some(Ok(_)) => {}
        }
        if let Some(at) = memchr::memrchr(b'\n', &self.bytes[before..]) {
            self.whole = before + at + 1;
        }
        let held = self.bytes.len() as u64;
        if held - self.whole as u64 > IMPORT_BYTES_MAX {
            let what = "bytes of a line";
            return Err(self.refused(StoreError::TooLarge { what, size: held, max: IMPORT_BYTES_MAX }, 1));
        }
        if held > self.lease.held() && !self.lease.resize(held.next_multiple_of(LEASE_STEP)) {
            return Err(Trouble::BodyBudget.into());
        }
        Ok(true)
    }

    /// Writes the whole lines that are there.
    async fn write(&mut self, house: &House, reply: &mut Reply<'_>, caller: &Caller) -> Result<(), Stop> {
        loop {
            self.write_some(house, reply, caller).await?;
            if self.whole == 0 {
                return Ok(());
            }
        }
    }

    /// How much of the whole lines is written at once: of a body that was packed, all are there.
    fn batch(&self) -> usize {
        let lines = &self.bytes[..self.whole];
        let last = lines.get(..BATCH_BYTES).and_then(|some| memchr::memrchr(b'\n', some));
        let end = last.or_else(|| memchr::memchr(b'\n', lines.get(BATCH_BYTES..)?).map(|at| BATCH_BYTES + at));
        end.map_or(self.whole, |at| at + 1)
    }

    /// Writes a batch, with the turns of all its conversations taken: a turn that begins meanwhile waits,
    /// and finds what was written.
    async fn write_some(&mut self, house: &House, reply: &mut Reply<'_>, caller: &Caller) -> Result<(), Stop> {
        let batch = self.bytes.split_to(self.batch());
        self.whole -= batch.len();
        let count = memchr::memchr_iter(b'\n', &batch).count() as u64;
        let store = house.memory.store().map_err(Trouble::from)?;
        let tenant = &*caller.tenant.name;
        let masked = masked(house, reply, tenant, &batch).await?;
        let reading = store.read_lines(tenant, masked.as_ref().map_or(&batch[..], |masked| &masked.lines).to_vec());
        drop(batch);
        reply.renew_deadline();
        let mut lines = reply.attend(reading).await?.map_err(|error| self.refused(error, 0))?;
        masked.into_iter().for_each(|masked| masked.tell(&mut lines));
        let about = lines.conversations();
        let mut taken = take_all(house, reply, about.clone()).await?;
        forget_all(&house.memory, &mut taken);
        // Not attended: what was asked of the log is done.
        let written = store.import_lines(lines).await;
        drop(taken);
        house.memory.shelf.forget_idle(&about);
        let written = written.map_err(|error| self.refused(error, 0))?;
        self.done.added += written.added;
        self.done.known += written.known;
        self.lines += count;
        // Shrinking always succeeds.
        let _ = self.lease.resize(self.bytes.len() as u64);
        Ok(())
    }

    /// A refusal, with the line as the client counts it; the storage's own errors concern none.
    fn refused(&self, error: StoreError, line: u64) -> Stop {
        let (line, error) = match error {
            StoreError::AtLine { line, why } => (line as u64, *why),
            StoreError::TooLarge { .. } if line > 0 => (line, error),
            other => return Trouble::from(TurnTrouble::from(other)).into(),
        };
        Trouble::from(TurnTrouble::Line { line: self.lines + line, error, added: self.done.added }).into()
    }
}
