//! Exports: JSON Lines, some 8 MiB at a time, and the next only when the client has taken them.
//!
//! ```text
//! log ──8 MiB──▶ here ──256 KiB──▶ connection ──as the client reads──▶ client
//! ```
//! So a slow client holds one chunk, and one that leaves or stands still ends it; so does one that takes
//! less than a piece in the time that standing still is given, or it would hold its place for as long as
//! it likes. A tenant has at most half of all places: its slow clients do not keep the others from theirs. An export that fails
//! on its way ends with an error in a line of its own and a body that is broken off: half a backup
//! must not look like a whole one.

use super::lines::Restoring;
use super::{Told, ask};
use crate::answer::Trouble;
use crate::attempt::Stop;
use crate::house::House;
use crate::memory::TurnTrouble;
use crate::reply::Reply;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tidegate_store::Export;

/// Exports at once. Each holds a chunk of some 8 MiB for as long as its client takes to read it.
const AT_ONCE_MAX: usize = 8;
/// Of one tenant: whoever reads slowly stands in nobody's way but its own.
const OF_TENANT_MAX: usize = 4;

/// Bytes that are given to the connection at once, and are taken in `clocks.client_write_stall` (30 s)
/// at the latest: other streams of the thread get their turn between.
const SLICE_BYTES: usize = 256 << 10;

/// The places of exports under way: how many each tenant has.
#[derive(Default)]
pub(in crate::memory) struct Exports(Mutex<BTreeMap<String, usize>>);

/// A place; dropped, it is free again.
struct Place<'a> {
    exports: &'a Exports,
    tenant: &'a str,
}

impl Exports {
    fn taken(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for this tenant, if there is one.
    fn take<'a>(&'a self, tenant: &'a str) -> Option<Place<'a>> {
        let mut taken = self.taken();
        let own = taken.get(tenant).copied().unwrap_or(0);
        if own >= OF_TENANT_MAX || taken.values().sum::<usize>() >= AT_ONCE_MAX {
            return None;
        }
        taken.insert(tenant.to_owned(), own + 1);
        Some(Place { exports: self, tenant })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.exports.taken();
        let left = taken.get(self.tenant).map_or(0, |own| own - 1);
        if left == 0 {
            taken.remove(self.tenant);
        } else if let Some(own) = taken.get_mut(self.tenant) {
            *own = left;
        }
    }
}

fn owner(what: &Export) -> &str {
    match what {
        Export::Conversation(address) => address.tenant(),
        Export::Tenant(tenant) | Export::EndUser { tenant, .. } => tenant,
    }
}

/// Gives everything of `what`.
pub(super) async fn export(house: &House, reply: &mut Reply<'_>, what: Export) -> Result<Told, Stop> {
    let store = house.memory.store().map_err(Trouble::from)?;
    let _place = house.memory.exports.take(owner(&what)).ok_or_else(|| Trouble::from(TurnTrouble::Exports))?;
    // The first chunk before the head: what is not there gets its true status.
    let mut chunk = ask(reply, store.export(what.clone(), None)).await?;
    let mut restoring = Restoring::default();
    let tenant = owner(&what).to_owned();
    // What cannot be restored has its true status as well.
    let mut first = Some(restored(&mut restoring, house, reply, &tenant, &chunk.lines).await?);
    reply.begin_lines();
    loop {
        let lines = match first.take() {
            Some(lines) => lines,
            None => restored(&mut restoring, house, reply, &tenant, &chunk.lines).await?,
        };
        for slice in lines.as_deref().unwrap_or(&chunk.lines).chunks(SLICE_BYTES) {
            reply.push_lines(slice);
            reply.all_taken().await?;
        }
        let Some(next) = chunk.next else { return Ok(Told::Lines) };
        // Before the next one is there.
        drop((chunk.lines, lines));
        reply.renew_deadline();
        chunk = ask(reply, store.export(what.clone(), Some(next))).await?;
    }
}

/// Lines as their owner is to read them, where those are others.
async fn restored(
    restoring: &mut Restoring,
    house: &House,
    reply: &mut Reply<'_>,
    tenant: &str,
    lines: &[u8],
) -> Result<Option<Vec<u8>>, Stop> {
    match reply.attend(restoring.lines(house, tenant, lines)).await?.map_err(Trouble::from)? {
        Cow::Owned(lines) => Ok(Some(lines)),
        Cow::Borrowed(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_half_of_the_places_and_gives_them_back() {
        let exports = Exports::default();
        let mut a: Vec<Place<'_>> = (0..OF_TENANT_MAX).map(|_| exports.take("a").unwrap()).collect();
        assert!(exports.take("a").is_none());
        let b: Vec<Place<'_>> = (0..OF_TENANT_MAX).map(|_| exports.take("b").unwrap()).collect();
        assert!(exports.take("c").is_none(), "all are taken");
        a.pop();
        let c = exports.take("c").unwrap();
        assert!(exports.take("a").is_none());
        drop((a, b, c));
        assert!(exports.taken().is_empty());
    }
}
