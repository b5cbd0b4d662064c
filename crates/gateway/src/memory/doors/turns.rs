//! Taking the turn of conversations that are about to change, and forgetting what memory has of them.
//!
//! Whoever takes several takes them in the order of their addresses, and lets go of all before it
//! takes more: so two who want the same ones never wait for each other for ever. Turns take one.

use super::super::talk::Talk;
use crate::answer::Trouble;
use crate::attempt::Stop;
use crate::house::House;
use crate::memory::{Memory, TurnTrouble};
use crate::reply::Reply;
use crate::succession;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_store::Address;
use tokio::sync::OwnedMutexGuard;

/// A conversation whose turn is taken.
pub(super) type Taken = OwnedMutexGuard<Option<Talk>>;

/// Takes a conversation's turn, after the one under way.
pub(super) async fn take(house: &House, reply: &mut Reply<'_>, address: &Address) -> Result<Taken, Stop> {
    let slot = house.memory.shelf.slot(address).ok_or(TurnTrouble::Budget).map_err(Trouble::from)?;
    let taken = reply.attend(slot.lock_owned()).await?;
    succession::given(&house.memory, address).map_err(Trouble::from)?;
    if taken.is_none() {
        reply.attend(house.memory.succession.own(address)).await?;
    }
    Ok(taken)
}

/// Takes the turns of all of them.
pub(super) async fn take_all(
    house: &House,
    reply: &mut Reply<'_>,
    addresses: BTreeSet<Address>,
) -> Result<BTreeMap<Address, Taken>, Stop> {
    let mut taken = BTreeMap::new();
    for address in addresses {
        let turn = take(house, reply, &address).await?;
        taken.insert(address, turn);
    }
    Ok(taken)
}

/// Forgets what is in memory of conversations whose turns are taken; who comes next reads the log.
/// Before the change is asked for: once it is, nobody may be left to do it.
pub(in crate::memory) fn forget_all(memory: &Memory, taken: &mut BTreeMap<Address, Taken>) {
    for (address, turn) in taken {
        **turn = None;
        memory.shelf.weigh(address, 0);
    }
}
