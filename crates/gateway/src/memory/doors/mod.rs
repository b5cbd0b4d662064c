//! The conversations' own doors: what is stored is listed, read, added to, forked, carried over and
//! erased (`docs/conversations.md`, section Doors).
//!
//! | file | what it is |
//! |---|---|
//! | `place` | where a path leads |
//! | `shape` | a conversation and a turn as JSON |
//! | `read` | listing, one conversation, its turns |
//! | `window` | what would be sent now |
//! | `change` | a turn without a model, a fork, a deletion |
//! | `erase` | all of an end user's |
//! | `export`, `import` | JSON Lines, as much at a time as the client takes or gives |
//! | `lines` | their lines, where conversations are masked |
//! | `turns` | taking the turn of conversations that are about to change |
//!
//! A request comes here from the path after it was identified and decoded, and is settled like any
//! other. It asks no model and waits for no quota. Whatever changes a conversation takes its turn
//! first, so it waits for one under way, and what is in memory is read again afterwards.

mod change;
mod erase;
mod export;
mod import;
mod lines;
mod place;
mod read;
mod shape;
mod turns;
mod window;

pub(super) use export::Exports;
pub(crate) use import::{import, is_import};
pub(crate) use place::Place;
pub(super) use turns::forget_all;

use super::TurnTrouble;
use crate::answer::Trouble;
use crate::attempt::Stop;
use crate::decode::Body;
use crate::house::House;
use crate::identify::Caller;
use crate::query::Query;
use crate::reply::Reply;
use crate::settle::End;
use tidegate_base::ByteLease;
use tidegate_conversation::history::Form;
use tidegate_store::{Address, Pending};
use tidegate_wire::http::RequestHead;

/// Rows of a page that names no limit, and most.
const ROWS: u64 = 20;
const ROWS_MAX: u64 = 1_000;

/// What an answer here is.
enum Told {
    /// A body of JSON.
    Json(Vec<u8>),
    /// One that is too large to be held without a lease.
    Leased(Vec<u8>, ByteLease),
    /// It was sent already, in lines.
    Lines,
}

/// One request of these doors.
struct Asked<'a> {
    house: &'a House,
    caller: &'a Caller,
    head: &'a RequestHead,
    body: &'a Body,
}

impl Asked<'_> {
    /// The conversation that `id`, as it stands in the path, is.
    fn address(&self, id: &str) -> Result<Address, Stop> {
        let wrong = || TurnTrouble::BadId("the id in the path is not percent-encoded UTF-8".to_owned());
        let name = crate::query::decoded(id, false).ok_or_else(wrong).map_err(Trouble::from)?;
        Ok(self.house.memory.address(self.caller, &name).map_err(Trouble::from)?)
    }

    fn query(&self, known: &[&str]) -> Result<Query, Stop> {
        Ok(Query::read(self.head.query(), known)?)
    }
}

/// Answers a request of these doors.
pub(crate) async fn serve(
    house: &House,
    reply: &mut Reply<'_>,
    head: &RequestHead,
    caller: &Caller,
    body: Body,
) -> Result<End, Stop> {
    house.memory.owner(caller).map_err(Trouble::from)?;
    let asked = &Asked { house, caller, head, body: &body };
    let Some(place) = Place::of(head.path()) else { return Err(Trouble::PathUnknown.into()) };
    let takes_turn = matches!((head.method(), place), ("POST", Place::Turns(_)));
    check_headers(caller, takes_turn)?;
    let told = match (head.method(), place) {
        ("GET", Place::All) => read::all(asked, reply).await?,
        ("DELETE", Place::All) => erase::erase(asked, reply).await?,
        ("POST", Place::All) => return Err(import::not_lines()),
        ("GET", Place::One(id)) => read::one(asked, reply, id).await?,
        ("DELETE", Place::One(id)) => change::delete(asked, reply, id).await?,
        ("GET", Place::Turns(id)) => read::turns(asked, reply, id).await?,
        ("POST", Place::Turns(id)) => change::append(asked, reply, id).await?,
        ("GET", Place::Window(id)) => window::window(asked, reply, id).await?,
        ("POST", Place::Fork(id)) => change::fork(asked, reply, id).await?,
        // The table of doors has sent the others away.
        _ => return Err(Trouble::PathUnknown.into()),
    };
    match told {
        Told::Json(json) => reply.whole_of_ours(&json),
        Told::Leased(json, lease) => {
            reply.whole_of_ours(&json);
            reply.holds(lease);
        }
        Told::Lines => {}
    }
    Ok(End::Answered)
}

/// Our own headers are read or refused: here the path names the conversation, and nothing is sent.
fn check_headers(caller: &Caller, takes_turn: bool) -> Result<(), Trouble> {
    let wish = &caller.wish;
    let meaningless = [
        ("tidegate-conversation", wish.conversation.is_some()),
        ("tidegate-turn", wish.turn.is_some() && !takes_turn),
        ("tidegate-body", wish.form != Form::Unknown),
        ("tidegate-window", wish.window),
        ("tidegate-budget", wish.budget.is_some()),
    ];
    match meaningless.into_iter().find(|(_, is_there)| *is_there) {
        Some((name, _)) => {
            Err(Trouble::Header { name: name.to_owned(), expected: "to be left out: it means nothing at this path" })
        }
        None => Ok(()),
    }
}

/// An answer of the log, while the client is watched.
async fn ask<T>(reply: &mut Reply<'_>, pending: Pending<T>) -> Result<T, Stop> {
    let answer = reply.attend(pending).await?;
    Ok(answer.map_err(|error| Trouble::from(TurnTrouble::from(error)))?)
}
