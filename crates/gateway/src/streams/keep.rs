//! A durable stream's checkpoints: what came of it, into the conversation log.
//!
//! ```text
//!   events ─▶ log in memory ─▶ readers
//!                  │ the first at once, then a second after the last one, or at 64 KiB
//!                  ▼
//!              segment ─▶ conversation log ─▶ then only: the last event ─▶ readers
//! ```
//! Events are shown before they are kept, but for the one that ends the stream: whoever has heard the
//! end can come back for all of it after a restart, and nobody who heard of an end is later told that
//! there was none.
//!
//! A checkpoint that fails, or that the disk takes too long for, breaks nothing: the stream goes on as
//! one in memory, its end is shown, and the next checkpoint tries again with all that is not kept.
//! The keeper is a task of its own, as the owner is inside the path while events come; a drain waits for
//! it as for every task of a stream.

use super::Hosted;
use super::hosted::State;
use crate::house::House;
use crate::memory::TurnTrouble;
use crate::plane::Plane;
use bytes::BytesMut;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tidegate_base::StreamId;
use tidegate_store::{Store, StoreError, StreamCheckpoint, StreamHead};
use tidegate_transport::TaskKind;
use tidegate_wire::http::{HeadWriter, ResponseHead};

/// Bytes of events that are not waited with any longer: what a crash takes is bounded in both.
const BYTES_DUE: usize = 64 << 10;
/// From one checkpoint to the next, if there is anything new.
const EVERY: Duration = Duration::from_secs(1);
/// The same after failures, doubled with each up to here: a disk that is full is not asked by every
/// stream every second.
const EVERY_MAX: Duration = Duration::from_secs(30);
/// How long the log may take for one. Two of them, the one under way and that of the end, take less
/// than a drain leaves to streams that were cut.
const TAKES_MAX: Duration = Duration::from_secs(2);
/// Steps of one run of [`forget_old`], of a few hundred streams each.
const STEPS_MAX: usize = 1_024;
/// For how long no new durable stream is begun after the log had no room for one that runs.
const FULL_FOR: Duration = Duration::from_secs(5);

pub(super) const KEEPER: TaskKind = TaskKind {
    name: "stream keeper",
    on_cancel: "the stream goes on as one in memory; what was kept of it stays",
    on_error: "as on cancel",
};

/// What of a durable stream is not in the log.
#[derive(Default)]
pub(super) struct Unkept {
    /// Bytes of events.
    pub(super) bytes: usize,
    /// Who keeps it, and from how many bytes on it wants to be woken.
    keeper: Option<(Waker, usize)>,
}

impl State {
    /// Whoever is to be woken because enough has come, or the end.
    pub(super) fn keeper(&mut self) -> Option<Waker> {
        let over = self.journal.end().is_some() || self.is_over();
        let unkept = self.unkept.as_mut()?;
        let due = over || unkept.keeper.as_ref().is_some_and(|(_, bytes)| unkept.bytes >= *bytes);
        if due { unkept.keeper.take().map(|(waker, _)| waker) } else { None }
    }

    /// Whether the stream ended without a log: its answer was a refusal, which is not kept.
    fn is_over(&self) -> bool {
        self.whole.is_some()
    }
}

impl Hosted {
    /// Ready once `bytes` of events are not kept, or nothing more will come.
    fn poll_unkept(&self, cx: &Context<'_>, bytes: usize) -> Poll<()> {
        let mut state = self.state();
        let over = state.journal.end().is_some() || state.is_over();
        match &mut state.unkept {
            Some(unkept) if !over && unkept.bytes < bytes => {
                unkept.keeper = Some((cx.waker().clone(), bytes));
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }
}

/// Keeps one stream. Dropped, it holds nothing back any more.
struct Keeper {
    hosted: Arc<Hosted>,
    /// The last event the log has.
    kept: u64,
    head: Option<Arc<StreamHead>>,
    every: Duration,
    failures: u32,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.hosted.change(|state| state.unkept = None);
    }
}

/// Keeps `hosted` until its end is kept, or its answer turns out to be none.
pub(super) async fn keep(plane: Arc<Plane>, hosted: Arc<Hosted>) {
    let house = &plane.house;
    let mut keeper = Keeper { hosted, kept: 0, head: None, every: EVERY, failures: 0 };
    loop {
        let hosted = &keeper.hosted;
        poll_fn(|cx| hosted.poll_unkept(cx, 1)).await;
        let is_end = keeper.checkpoint(house).await;
        if is_end {
            return;
        }
        let due = house.clock.now() + keeper.every;
        let bytes = if keeper.every > EVERY { usize::MAX } else { BYTES_DUE };
        let hosted = &keeper.hosted;
        // A while, or until so much has come meanwhile.
        house.clock.by(due, poll_fn(|cx| hosted.poll_unkept(cx, bytes))).await;
    }
}

impl Keeper {
    /// Writes what is not kept; whether that was the end.
    async fn checkpoint(&mut self, house: &House) -> bool {
        let (is_end, segment) = self.take(house);
        let (Some((last, segment)), Some(head)) = (segment, &self.head) else { return is_end };
        let checkpoint = StreamCheckpoint {
            head: Arc::clone(head),
            segment,
            ended: is_end,
            now_ms: house.memory.now_ms(),
            bytes_max: house.settings.limits.journal_bytes,
            all_bytes_max: house.settings.limits.durable_bytes,
        };
        match write(house, checkpoint, Some(&self.hosted)).await {
            Ok(()) => (self.kept, self.every, self.failures) = (last, EVERY, 0),
            Err(error) => self.failed(&error),
        }
        is_end
    }

    /// What is not kept, with its last event; and whether that is the end.
    fn take(&mut self, house: &House) -> (bool, Option<(u64, Vec<u8>)>) {
        let mut state = self.hosted.state();
        state.unkept.iter_mut().for_each(|unkept| unkept.bytes = 0);
        if self.head.is_none() {
            self.head = state.head.as_ref().map(|head| Arc::new(stream_head(house, &self.hosted, &state, head)));
        }
        (state.journal.end().is_some() || state.is_over(), state.journal.checkpoint(self.kept))
    }

    fn failed(&mut self, error: &StoreError) {
        // So that it is tried again also if nothing more comes for a while.
        self.hosted.state().unkept.iter_mut().for_each(|unkept| unkept.bytes += 1);
        self.failures += 1;
        self.every = (self.every * 2).min(EVERY_MAX);
        if self.failures == 1 {
            let (stream, kept) = (self.hosted.stream, self.kept);
            tracing::warn!(target: "tidegate::streams", %stream, kept, %error, "a durable stream could not be kept; it goes on in memory");
        }
    }
}

/// Writes one checkpoint, in so much time, and counts it. Of a stream that was erased nothing is written.
/// Where all that is kept of streams is too much, what ended longest ago makes room.
pub(super) async fn write(
    house: &House,
    checkpoint: StreamCheckpoint,
    hosted: Option<&Hosted>,
) -> Result<(), StoreError> {
    let (stream, again) = (checkpoint.head.stream, checkpoint.clone());
    let ask = |store: &Store, checkpoint| match hosted {
        Some(hosted) => hosted.unless_erased(|| store.checkpoint_stream(checkpoint)),
        None => Some(store.checkpoint_stream(checkpoint)),
    };
    let written = async {
        let store = house.memory.store()?;
        let Some(asked) = ask(store, checkpoint) else { return Ok(()) };
        match asked.await {
            Err(StoreError::StreamsFull { .. }) => make_room(house, store, stream).await?,
            written => return Ok(written?),
        }
        let Some(asked) = ask(store, again) else { return Ok(()) };
        let written = asked.await;
        let full = matches!(written, Err(StoreError::StreamsFull { .. }));
        house.streams.note_log_full(full.then(|| house.clock.now() + FULL_FOR));
        Ok(written?)
    };
    let written = match house.clock.within(TAKES_MAX, written).await {
        Some(Ok(())) => Ok(()),
        Some(Err(TurnTrouble::Log(error))) => Err(error),
        Some(Err(_)) => Err(StoreError::Closed),
        None => Err(StoreError::Busy),
    };
    house.metrics.stream_checkpoint(written.is_ok());
    written
}

/// Deletes from the log the streams that ended longest ago, until there is room for some more.
async fn make_room(house: &House, store: &Store, stream: StreamId) -> Result<(), StoreError> {
    // Less than all, or the next checkpoint would have to do it again.
    let bytes = house.settings.limits.durable_bytes / 10 * 9;
    let mut running = house.streams.running();
    running.insert(stream);
    // The other process of an upgrade has some of its own.
    let only_ended = house.has_handed_over() || house.memory.succession.has_elder();
    for _ in 0..STEPS_MAX {
        let (deleted, more) = store.shed_streams(bytes, running.clone(), only_ended).await?;
        if deleted > 0 {
            tracing::debug!(target: "tidegate::streams", deleted, "durable streams made room for others");
        }
        if !more {
            break;
        }
    }
    Ok(())
}

/// What stands behind the tokens in it, sealed for it alone: it may outlive its conversation, and most
/// streams have none.
fn vault(house: &House, hosted: &Hosted) -> Option<Vec<u8>> {
    let (keys, live) = (house.settings.redaction.keys()?, hosted.live()?);
    let sealed = keys.seal(live, &hosted.owner.tenant, hosted.stream);
    let failed = |error: &_| {
        tracing::warn!(target: "tidegate::streams", stream = %hosted.stream, %error, "what was masked in a durable stream will not be restored after a restart");
    };
    sealed.inspect_err(failed).ok()
}

fn stream_head(house: &House, hosted: &Hosted, state: &State, head: &ResponseHead) -> StreamHead {
    let mut text = BytesMut::new();
    let mut lines = HeadWriter::response(&mut text, head.status);
    for (name, value) in head.headers.iter() {
        lines.header(name, value);
    }
    lines.end();
    StreamHead {
        stream: hosted.stream,
        tenant: hosted.owner.tenant.to_string(),
        own: hosted.owner.own,
        request_id: hosted.request.to_string(),
        head: text.to_vec(),
        end_user: hosted.end_user().map(str::to_owned),
        conversation: hosted.conversation(state),
        vault: vault(house, hosted),
    }
}

/// Deletes from the log what is kept no longer. Those that still run and have said nothing for so long
/// stay.
pub(crate) async fn forget_old(house: &House) -> Result<(), TurnTrouble> {
    let (streams, now_ms) = (&house.streams, house.memory.now_ms());
    let kept_ms = u64::try_from(streams.kept.as_millis()).unwrap_or(u64::MAX);
    for _ in 0..STEPS_MAX {
        let before_ms = now_ms.saturating_sub(kept_ms);
        let (deleted, more) = house.memory.store()?.retain_streams(before_ms, now_ms, streams.running()).await?;
        if deleted > 0 {
            tracing::debug!(target: "tidegate::streams", deleted, "durable streams are kept no longer");
        }
        if !more {
            break;
        }
    }
    Ok(())
}
