//! `DELETE /v1/conversations?user_id=U`: every conversation in which an end user took part, for good.
//!
//! 1. Who is meant is picked from the log, and from memory: a first turn under way is in no log yet.
//! 2. Their turns are taken, so those under way end first. Then it is picked again, until the turns
//!    of all who are picked are taken.
//! 3. They are forgotten and deleted, up to 1,024 a call; `more` says to call again. With them go the
//!    streams that can be come back to: of those conversations, and of the end user outside of any.

use super::turns::{forget_all, take_all};
use super::{Asked, Told, ask, shape};
use crate::answer::Trouble;
use crate::attempt::Stop;
use crate::house::House;
use crate::memory::TurnTrouble;
use crate::reply::Reply;
use crate::streams::{self, Erased};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_store::{Address, Deleted, Scope};

/// How often it is picked again. Whoever begins a turn for an end user while that is being erased
/// finds it in the next call: `more` is true then.
const ROUNDS_MAX: usize = 4;

/// The door.
pub(super) async fn erase(asked: &Asked<'_>, reply: &mut Reply<'_>) -> Result<Told, Stop> {
    let query = asked.query(&["user_id"])?;
    let missing = || TurnTrouble::Query("user_id is missing: all conversations at once are not deleted".to_owned());
    let user = query.user()?.ok_or_else(missing).map_err(Trouble::from)?;
    let (house, tenant) = (asked.house, &*asked.caller.tenant.name);
    let masked = house.settings.redaction.end_user_sought(tenant, user).map_err(Trouble::Redacted)?;
    let (mut deleted, mut spared) = erase_user(house, reply, tenant, user).await?;
    // What was kept before anything was masked has the id as it is.
    if let Some(masked) = masked {
        let (more, others) = erase_user(house, reply, tenant, &masked).await?;
        deleted.conversations.extend(more.conversations);
        deleted.more |= more.more;
        spared |= others;
    }
    Ok(Told::Json(answer(&deleted, spared)))
}

/// Erases the end user whom the log knows by that id; what was deleted, and whether somebody was spared.
async fn erase_user(house: &House, reply: &mut Reply<'_>, tenant: &str, user: &str) -> Result<(Deleted, bool), Stop> {
    let store = house.memory.store().map_err(Trouble::from)?;
    let scope = Scope::EndUser { tenant: tenant.to_owned(), end_user: user.to_owned() };
    let mut taken = BTreeMap::new();
    let mut round = 0;
    let mut picked = loop {
        let picked = ask(reply, store.pick(scope.clone())).await?;
        let there = picked.addresses().map_err(|error| Trouble::from(TurnTrouble::from(error)))?;
        let wanted: BTreeSet<Address> = there.into_iter().chain(house.memory.shelf.of_user(tenant, user)).collect();
        if round == ROUNDS_MAX || wanted.iter().all(|address| taken.contains_key(address)) {
            break picked;
        }
        // In order, and so all anew.
        taken.clear();
        taken = take_all(house, reply, wanted).await?;
        round += 1;
    };
    let mut spared = false;
    picked.only(|name| {
        let is_taken = Address::new(tenant, name).is_ok_and(|address| taken.contains_key(&address));
        spared |= !is_taken;
        is_taken
    });
    forget_all(&house.memory, &mut taken);
    let conversations = taken.keys().map(Address::name).collect();
    let of = Erased { tenant, end_user: Some(user), conversations };
    let (in_memory, held) = streams::erasing(house, &of).await;
    let in_log = store.erase_streams(tenant, user).await;
    let deleted = store.delete_picked(picked).await;
    drop(held);
    let addresses: Vec<Address> = taken.into_keys().collect();
    addresses.iter().for_each(|address| house.memory.shelf.remove(address));
    let deleted = deleted.map_err(|error| Trouble::from(TurnTrouble::from(error)))?;
    house.memory.deleted(&house.metrics, "erasure", &deleted);
    let in_log = in_log.map_err(|error| Trouble::from(TurnTrouble::from(error)))?;
    house.memory.streams_deleted(in_memory, &in_log);
    Ok((deleted, spared))
}

fn answer(deleted: &Deleted, spared: bool) -> Vec<u8> {
    let gone = deleted.conversations.iter();
    let data: Vec<_> = gone.map(|gone| json!({"id": gone.name, "turns": gone.turns, "bytes": gone.bytes})).collect();
    shape::json(&json!({"type": "conversations_erased", "data": data, "more": deleted.more || spared}))
}
