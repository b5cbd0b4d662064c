//! One conversation changed: a turn written without a model, a fork, a deletion.
//!
//! Once the log was asked, its answer is waited for whether or not the client still does: what memory
//! has must not differ from what was done.

use super::super::fit::Gauge;
use super::super::recall::{hold, repeated};
use super::turns::take;
use super::{Asked, Told, ask, shape};
use crate::answer::Trouble;
use crate::attempt::Stop;
use crate::memory::{TurnTrouble, masking};
use crate::reply::{Reply, TurnLines};
use crate::streams::{self, Erased};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use tidegate_conversation::message::read_all;
use tidegate_store::{NewTurn, Status, StoreError, Turn, TurnContent};
use tidegate_wire::request::NotARequest;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppendBody<'a> {
    #[serde(borrow)]
    messages: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForkBody {
    id: String,
    turn: Option<u32>,
}

fn body<'a, T: Deserialize<'a>>(asked: &'a Asked<'_>) -> Result<T, Trouble> {
    let read = serde_json::from_slice(&asked.body.bytes);
    read.map_err(|error| Trouble::Body(NotARequest(format!("the body cannot be read: {error}"))))
}

fn failed(error: StoreError) -> Stop {
    Trouble::from(TurnTrouble::from(error)).into()
}

/// `POST /v1/conversations/{id}/turns`: a turn as if it had been asked, without asking.
pub(super) async fn append(asked: &Asked<'_>, reply: &mut Reply<'_>, id: &str) -> Result<Told, Stop> {
    let (house, caller) = (asked.house, asked.caller);
    asked.query(&[])?;
    let address = asked.address(id)?;
    let said: AppendBody<'_> = body(asked)?;
    let text = Bytes::copy_from_slice(said.messages.get().as_bytes());
    let wrong = |why: String| Stop::from(Trouble::from(TurnTrouble::Messages(why)));
    let messages = read_all(&text).map_err(|error| wrong(error.to_string()))?;
    if messages.is_empty() {
        return Err(wrong("messages: at least one message is required".to_owned()));
    }
    let gauge = Gauge::of(house, "", false);
    let mut held = hold(house, reply, address.clone(), &gauge).await?;
    let tenant = &*caller.tenant.name;
    let filter = house.settings.redaction.filter(tenant);
    let talk = held.guard.as_mut().ok_or(TurnTrouble::Unknown).map_err(Trouble::from)?;
    let text = masking::messages(house, reply, (tenant, filter), talk, text).await?;
    let messages = read_all(&text).map_err(|error| wrong(error.to_string()))?;
    let hash = masking::hash(house, tenant, filter.is_some(), &asked.body.bytes, &text);
    reply.restores(held.talk()?.live());
    let store = house.memory.store().map_err(Trouble::from)?;
    if let Some(turn) = repeated(held.talk()?, &caller.wish, asked.head, &hash) {
        let (turns, _) = ask(reply, store.turns(address, turn.number, 1, 0)).await?;
        let turn = turns.first().ok_or(TurnTrouble::Unknown).map_err(Trouble::from)?;
        reply.turn = Some(TurnLines::again(held.address.name(), turn.number));
        return Ok(Told::Json(shape::turn(turn)));
    }
    let number = held.talk()?.turns() + 1;
    if let Some(expected) = caller.wish.turn.filter(|n| *n != number) {
        return Err(Trouble::from(TurnTrouble::Number { expected, next: number }).into());
    }
    // Out of its place until it is whole again: if anything goes wrong, it is read from the log.
    let mut talk = held.guard.take().ok_or(TurnTrouble::Unknown).map_err(Trouble::from)?;
    house.memory.shelf.weigh(&address, 0);
    for message in messages {
        talk.push(message, &gauge).map_err(wrong)?;
    }
    let mut content = TurnContent::appended(text.to_vec());
    content.request_hash = Some(hash);
    content.request_id = Some(reply.live().request.as_str().to_owned());
    let now_ms = house.memory.now_ms();
    let vault = masking::fresh(house, &mut talk).map_err(Trouble::from)?;
    let (at, said) = (address.clone(), content.clone());
    let new = NewTurn { address: at, expected: Some(number), now_ms, content: said, window: None, vault };
    let began = house.clock.now();
    let appended = store.append(new).await;
    house.metrics.turn_kept_after(house.clock.now().since(began));
    house.metrics.turn(if appended.is_ok() { "appended" } else { "refused" });
    appended.map_err(failed)?;
    talk.ended(number, Some(hash), Status::Appended, false);
    house.memory.shelf.weigh(&address, talk.bytes());
    *held.guard = Some(talk);
    reply.turn = Some(TurnLines::new(address.name(), number));
    Ok(Told::Json(shape::turn(&Turn { number, created_ms: now_ms, content })))
}

/// `POST /v1/conversations/{id}/fork`: another conversation that begins with the same turns.
pub(super) async fn fork(asked: &Asked<'_>, reply: &mut Reply<'_>, id: &str) -> Result<Told, Stop> {
    let house = asked.house;
    asked.query(&[])?;
    let from = asked.address(id)?;
    let wanted: ForkBody = body(asked)?;
    let to = house.memory.address(asked.caller, &wanted.id).map_err(Trouble::from)?;
    let store = house.memory.store().map_err(Trouble::from)?;
    let there = ask(reply, store.conversation(from.clone())).await?.turns;
    let turn = wanted.turn.unwrap_or(there);
    if turn == 0 || turn > there {
        let why = format!("turn: expected a number from 1 to {there}, the conversation's last turn");
        return Err(Trouble::Body(NotARequest(why)).into());
    }
    // Somebody may be about to begin a conversation of that id. What is forked needs no turn: all
    // turns in the log are whole.
    let mut taken = take(house, reply, &to).await?;
    *taken = None;
    house.memory.shelf.weigh(&to, 0);
    store.fork(from, turn, to.name(), house.memory.now_ms()).await.map_err(failed)?;
    let made = store.conversation(to.clone()).await.map_err(failed)?;
    drop(taken);
    Ok(Told::Json(shape::conversation(&made)))
}

/// `DELETE /v1/conversations/{id}`: for good, after the turn under way.
pub(super) async fn delete(asked: &Asked<'_>, reply: &mut Reply<'_>, id: &str) -> Result<Told, Stop> {
    let house = asked.house;
    asked.query(&[])?;
    let address = asked.address(id)?;
    let store = house.memory.store().map_err(Trouble::from)?;
    // Not even a place is made for what is not there.
    ask(reply, store.conversation(address.clone())).await?;
    let mut taken = take(house, reply, &address).await?;
    *taken = None;
    house.memory.shelf.weigh(&address, 0);
    let conversations = BTreeSet::from([address.name()]);
    // Those in the log go with the conversation.
    let erased = Erased { tenant: address.tenant(), end_user: None, conversations };
    let (_, held) = streams::erasing(house, &erased).await;
    let deleted = store.delete(address.clone()).await;
    drop((held, taken));
    house.memory.shelf.remove(&address);
    let deleted = deleted.map_err(failed)?;
    house.memory.deleted(&house.metrics, "door", &deleted);
    let (turns, bytes) = deleted.conversations.first().map_or((0, 0), |gone| (gone.turns, gone.bytes));
    Ok(Told::Json(shape::json(&serde_json::json!({
        "id": address.name(), "type": "conversation_deleted", "turns": turns, "bytes": bytes,
    }))))
}
