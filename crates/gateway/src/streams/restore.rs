//! A stream that is come back to, wherever it is: in memory, or in the conversation log after a
//! restart.
//!
//! What the log has of a stream whose process is gone becomes a journal under a new owner's epoch. The
//! owner's claim is written before anything else: a cursor that a client has of an event which was
//! never kept is then gone for good, and never meets another event of the same number. A reply that had
//! not ended gets one last event, an error. Both are in the log before anybody reads.
//!
//! A stream is restored once, whoever comes for it: places in [`Restoring`] are taken by its id.

use super::hosted::last_event;
use super::keep::write;
use super::{About, Erased, Hosted, Owner, StreamTrouble};
use crate::answer::Trouble;
use crate::house::House;
use crate::memory::TurnTrouble;
use bytes::BytesMut;
use std::sync::Arc;
use std::time::Duration;
use tidegate_base::{RequestId, StreamId};
use tidegate_journal::{Journal, Lost};
use tidegate_redact::restore::Live;
use tidegate_store::{KeptStream, StoreError, StreamCheckpoint, StreamHead};
use tidegate_wire::event::Kind;
use tidegate_wire::http::parse_response;
use tokio::sync::{Mutex, MutexGuard};

/// Streams that are restored at once: enough to share a commit, and each may be as large as a journal.
const AT_ONCE: usize = 16;

/// Who restores a stream holds one of these.
pub(super) struct Restoring([Mutex<()>; AT_ONCE]);

impl Default for Restoring {
    fn default() -> Self {
        Restoring(std::array::from_fn(|_| Mutex::new(())))
    }
}

impl Restoring {
    fn of(&self, id: StreamId) -> &Mutex<()> {
        let sum: usize = id.as_str().bytes().map(usize::from).sum();
        &self.0[sum % AT_ONCE]
    }
}

/// Forgets streams that are erased, in memory; how many. As long as what this returns is there, none
/// comes back from the log: it is to be erased there meanwhile.
pub(crate) async fn erasing<'h>(house: &'h House, of: &Erased<'_>) -> (u64, Vec<MutexGuard<'h, ()>>) {
    let mut held = Vec::with_capacity(AT_ONCE);
    // In order; and whoever restores holds one of them only.
    for place in &house.streams.restoring.0 {
        held.push(place.lock().await);
    }
    (house.streams.erase(of), held)
}

/// `owner`'s stream `id`. Nobody learns whether another tenant has one.
pub(crate) async fn find(house: &House, id: StreamId, owner: &Owner) -> Result<Arc<Hosted>, Trouble> {
    let in_memory = house.streams.find(id, owner);
    if let Ok(hosted) = in_memory {
        return Ok(hosted);
    }
    // What the log has of one that runs is not its end.
    if house.memory.succession.runs_elsewhere(id, owner).await {
        return Err(StreamTrouble::Elsewhere.into());
    }
    let Ok(store) = house.memory.store() else { return Err(StreamTrouble::Unknown.into()) };
    let _alone = house.streams.restoring.of(id).lock().await;
    if let Ok(hosted) = house.streams.find(id, owner) {
        return Ok(hosted);
    }
    let kept = match store.stream(&owner.tenant, owner.own, id).await {
        Ok(kept) => kept,
        Err(StoreError::NotFound) => return Err(StreamTrouble::Unknown.into()),
        Err(error) => return Err(TurnTrouble::Log(error).into()),
    };
    let hosted = Arc::new(restore(house, kept, owner).await?);
    house.streams.add(&hosted);
    Ok(hosted)
}

async fn restore(house: &House, kept: KeptStream, owner: &Owner) -> Result<Hosted, Trouble> {
    let KeptStream { head, updated_ms, segments, .. } = kept;
    let id = head.stream;
    let about = About { end_user: head.end_user.clone(), conversation: head.conversation.clone() };
    let mut age = Duration::from_millis(house.memory.now_ms().saturating_sub(updated_ms));
    let limit = usize::try_from(house.settings.limits.journal_bytes).unwrap_or(usize::MAX);
    let bytes: usize = segments.iter().map(Vec::len).sum();
    if age >= house.streams.kept {
        return Err(StreamTrouble::Unknown.into());
    }
    let live = head.vault.as_ref().and_then(|sealed| opened(house, sealed, &head.tenant, id));
    let restored = Journal::restore(id, limit, segments.iter().map(Vec::as_slice));
    let restored = restored.map_err(|lost| match lost {
        Lost::Nothing => StreamTrouble::Unknown,
        Lost::TooManyOwners => StreamTrouble::Gone,
    })?;
    if restored.unreadable > 0 {
        let unreadable = restored.unreadable;
        tracing::error!(target: "tidegate::streams", stream = %id, bytes, unreadable, "segments of a durable stream cannot be read");
    }
    let mut journal = restored.journal;
    // Of our own making; what cannot be read was not written by us.
    let told = parse_response(&mut BytesMut::from(&head.head[..]), false).ok().flatten();
    let (Some(request), Some(answer)) = (RequestId::parse(&head.request_id), told) else {
        return Err(StreamTrouble::Unknown.into());
    };
    if let Some(claim) = restored.claim {
        // Its end is now.
        age = Duration::ZERO;
        end(house, Arc::new(head), &mut journal, claim, request).await.map_err(TurnTrouble::Log)?;
    }
    let mut lease = house.streams.journals.empty_lease();
    while !lease.resize(journal.bytes() as u64) {
        if !house.streams.make_room() {
            return Err(StreamTrouble::Budget.into());
        }
    }
    let ended_at = house.clock.now() - age;
    let hosted = Hosted::restored((request, id), (owner.clone(), about), answer, journal, (lease, ended_at));
    if let Some(live) = live {
        hosted.restores(Arc::new(live));
    }
    Ok(hosted)
}

/// What its readers get for tokens. Where that cannot be had any more, they get tokens.
fn opened(house: &House, sealed: &[u8], tenant: &str, id: StreamId) -> Option<Live> {
    let Some(keys) = house.settings.redaction.keys() else {
        tracing::warn!(target: "tidegate::streams", stream = %id, "what was masked in a durable stream is not restored: there are no keys");
        return None;
    };
    let failed = |error: &_| {
        tracing::warn!(target: "tidegate::streams", stream = %id, %error, "what was masked in a durable stream is not restored");
    };
    keys.unseal(sealed, tenant, id).inspect_err(failed).ok()
}

/// Ends a reply whose process is gone: first the claim, then the error under the claimed epoch.
async fn end(
    house: &House,
    head: Arc<StreamHead>,
    journal: &mut Journal,
    claim: Vec<u8>,
    request: RequestId,
) -> Result<(), StoreError> {
    let (now_ms, limits) = (house.memory.now_ms(), &house.settings.limits);
    let (bytes_max, all_bytes_max) = (limits.journal_bytes, limits.durable_bytes);
    let of = |segment, ended| {
        let head = Arc::clone(&head);
        StreamCheckpoint { head, segment, ended, now_ms, bytes_max, all_bytes_max }
    };
    write(house, of(claim, false), None).await?;
    let before = journal.last();
    let told = journal.append(journal.epoch(), Kind::Error, &last_event(StreamTrouble::Lost, request));
    debug_assert!(told.is_ok(), "an error event fits always: {told:?}");
    match journal.checkpoint(before) {
        Some((_, segment)) => write(house, of(segment, true), None).await,
        None => Ok(()),
    }
}
