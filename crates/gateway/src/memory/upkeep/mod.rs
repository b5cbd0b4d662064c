//! Upkeep of the conversation log: what is no longer kept is deleted, and after deletions the file is
//! rewritten.
//!
//! ```text
//! every minute:  durable streams that are kept no longer ─▶ delete
//!                an hour since the last retention?  ─▶ each tenant: pick, take turns, delete
//!                something deleted, and due?         ─▶ rewrite, when nothing is under way or it is
//!                                                       an hour late
//! ```
//! *Retention* never waits for a turn: a conversation in use stays and is looked at an hour later.
//! *Compaction* is the second half of deleting for good (`docs/formats/conversations.md`), and turns wait
//! while it runs, so it does not follow each deletion. Whether something was deleted is not written
//! down: a process that starts takes free pages in the file for a sign that it was.

use super::doors::forget_all;
use super::{Memory, TurnTrouble};
use crate::house::House;
use crate::renewal::Current;
use crate::settings::Keep;
use crate::streams::{self, Erased};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_store::{Retention, Scope, StoreError};
use tidegate_transport::TaskKind;

/// How often is looked whether something is due.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often what is no longer kept is deleted.
const RETAIN_EVERY: Duration = Duration::from_secs(60 * 60);
/// How long a compaction that is due waits for a moment without requests; and one that failed, before
/// it is tried again; and the first, for what a process before this one deleted.
const PATIENCE: Duration = Duration::from_secs(60 * 60);
/// Deletions of up to 1,024 conversations, of one tenant in one run.
const STEPS_MAX: usize = 64;

pub(crate) const UPKEEP: TaskKind = TaskKind {
    name: "conversation upkeep",
    on_cancel: "ends with the process; a deletion or compaction under way is finished or undone by the log",
    on_error: "says so and tries again at the next time",
};

/// Sees to the log until a drain begins.
pub(crate) async fn upkeep(current: Current) {
    let house = current.house();
    let (clock, memory) = (house.clock, &house.memory);
    let began = clock.now();
    let mut retain_at = began;
    let mut compact_at = began + house.settings.conversations.compact_every.min(PATIENCE);
    if size(&house).await.is_ok_and(|free| free > 0) {
        memory.deleted.store(true, Ordering::Relaxed);
    }
    loop {
        tokio::select! {
            biased;
            () = house.leave_begun() => return,
            () = clock.sleep_until(clock.now() + LOOK_EVERY) => {}
        }
        if memory.succession.has_elder() {
            // Rewriting the file would keep the other process from writing to it.
            continue;
        }
        let (now, house) = (clock.now(), current.house());
        told(&house, "streams", streams::forget_old(&house).await);
        if now >= retain_at {
            retain_at = now + RETAIN_EVERY;
            told(&house, "retention", retain(&house).await);
        }
        if is_time(&house, compact_at, now) {
            let done = compact(&house).await;
            compact_at = clock.now() + next_compaction(&house, &done);
            told(&house, "compaction", done);
        }
        // Only for the metrics; whether the log can be read is told by whoever needs it.
        let _ = size(&house).await;
    }
}

/// Whether it is time for a compaction: something was deleted, and it is due, and little goes on.
fn is_time(house: &House, due: Moment, now: Moment) -> bool {
    let wanted = house.memory.deleted.load(Ordering::Relaxed) && now >= due;
    wanted && (house.live.is_empty() || now >= due + PATIENCE)
}

fn next_compaction(house: &House, done: &Result<(), TurnTrouble>) -> Duration {
    let every = house.settings.conversations.compact_every;
    match done {
        Ok(()) => every,
        // A long read was in its way; that has passed soon.
        Err(TurnTrouble::Log(StoreError::Busy)) => Duration::ZERO,
        Err(_) => every.max(PATIENCE),
    }
}

fn told(house: &House, task: &'static str, done: Result<(), TurnTrouble>) {
    match done {
        Ok(()) => house.metrics.conversation_upkeep(task, house.memory.now_ms()),
        Err(error) => {
            house.metrics.conversation_upkeep_failed(task);
            tracing::error!(target: "tidegate::memory", task, ?error, "the conversation log could not be seen to");
        }
    }
}

/// Brings the metrics of the file up to date; the bytes that are free in it.
async fn size(house: &House) -> Result<u64, TurnTrouble> {
    let size = house.memory.store()?.size().await?;
    house.metrics.conversation_log(size.file_bytes, size.free_bytes);
    Ok(size.free_bytes)
}

/// Deletes what every tenant no longer keeps.
async fn retain(house: &House) -> Result<(), TurnTrouble> {
    let rules = Rules::of(house);
    if rules.keep_all() {
        return Ok(());
    }
    for tenant in house.memory.store()?.tenants().await? {
        let keep = rules.of_tenant(&tenant);
        if keep != Retention::default() {
            retain_of(house, &tenant, keep).await?;
        }
    }
    Ok(())
}

async fn retain_of(house: &House, tenant: &str, keep: Retention) -> Result<(), TurnTrouble> {
    let memory = &*house.memory;
    let store = memory.store()?;
    for _ in 0..STEPS_MAX {
        let scope = Scope::Retention { tenant: tenant.to_owned(), keep, now_ms: memory.now_ms() };
        let mut picked = store.pick(scope).await?;
        let mut taken = BTreeMap::new();
        for address in picked.addresses()? {
            // Who has it now keeps it: so does who waits for it.
            if let Some(turn) = memory.shelf.slot(&address).and_then(|slot| slot.try_lock_owned().ok()) {
                taken.insert(address, turn);
            }
        }
        let free: BTreeSet<&str> = taken.keys().map(|address| address.name()).collect();
        picked.only(|name| free.contains(name));
        forget_all(memory, &mut taken);
        let conversations = taken.keys().map(|address| address.name()).collect();
        let (_, held) = streams::erasing(house, &Erased { tenant, end_user: None, conversations }).await;
        let deleted = store.delete_picked(picked).await;
        drop(held);
        let addresses: Vec<_> = taken.into_keys().collect();
        addresses.iter().for_each(|address| memory.shelf.remove(address));
        let deleted = deleted?;
        memory.deleted(&house.metrics, "retention", &deleted);
        if let Some(error) = deleted.stopped_by {
            return Err(error.into());
        }
        // Nothing of those that are picked first may mean that all of them are in use.
        if !deleted.more || deleted.conversations.is_empty() {
            return Ok(());
        }
    }
    Ok(())
}

/// Rewrites the file.
async fn compact(house: &House) -> Result<(), TurnTrouble> {
    let Memory { deleted, clock, .. } = &*house.memory;
    let store = house.memory.store()?;
    let (before, began) = (store.size().await?, clock.now());
    // What is deleted from here on may come too late for it.
    deleted.store(false, Ordering::Relaxed);
    if let Err(error) = store.compact().await {
        deleted.store(true, Ordering::Relaxed);
        return Err(TurnTrouble::Log(error));
    }
    let after = store.size().await?;
    let (freed, took) = (before.file_bytes.saturating_sub(after.file_bytes), clock.now().since(began));
    house.metrics.conversation_log_freed(freed);
    let (bytes, took_ms) = (after.file_bytes, took.as_millis() as u64);
    tracing::info!(target: "tidegate::memory", bytes, freed, took_ms, "the conversation log was compacted");
    Ok(())
}

/// What everybody keeps, and who keeps something else.
struct Rules<'a> {
    all: Keep,
    tenants: BTreeMap<&'a str, Keep>,
}

impl<'a> Rules<'a> {
    fn of(house: &'a House) -> Self {
        let settings = &house.settings;
        let tenants = settings.tenants.iter().map(|tenant| (&*tenant.name, tenant.keep)).collect();
        Rules { all: settings.conversations.keep, tenants }
    }

    fn keep_all(&self) -> bool {
        self.all == Keep::default() && self.tenants.values().all(|keep| *keep == Keep::default())
    }

    fn of_tenant(&self, tenant: &str) -> Retention {
        let own = self.tenants.get(tenant).copied().unwrap_or_default();
        let age = own.age.or(self.all.age);
        Retention {
            age_ms_max: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            conversations_max: own.conversations.or(self.all.conversations),
            bytes_max: own.bytes.or(self.all.bytes),
        }
    }
}

#[cfg(test)]
mod tests;
