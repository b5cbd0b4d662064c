//! Conversations of faulted streams: turns one after the other, each with a fault and readers that
//! leave and come back, and what the log has of them in the end.
//!
//! The store works on threads of its own, in real time, and virtual time does not wait for them. So
//! the runtime pauses for a moment before it sleeps: nothing the store is asked for takes much more
//! of virtual time than a slow disk would. Such a world is not the same twice.
//!
//! A turn whose end was told is in the log, once, in order, with the text that was told; one that
//! broke off after its client was told some of it is there as interrupted, with just that; any other
//! is there or not, but with nothing that the model did not say.

use crate::world::faulted::asker::Street;
use crate::world::faulted::case::{Case, Fate};
use crate::world::faulted::plan::{Class, Plan};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;
use tidegate_store::{Durability, Settings, Store};

/// How long the runtime waits for the store before its clock goes on.
const PAUSE: Duration = Duration::from_micros(200);
/// Turns that are read of one conversation; none of these worlds has as many.
const TURNS_MAX: usize = 100;

/// A folder that goes with its world.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tidegate-world-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a folder for the world");
        Folder(path)
    }

    pub(crate) fn store(&self) -> Store {
        let settings = Settings { durability: Durability::None, ..Settings::default() };
        Store::open(&self.0.join("conversations.db"), settings).expect("a log for the world")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Gives the store's threads a moment.
pub(crate) fn pause() {
    static NEVER: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());
    let held = NEVER.0.lock().unwrap_or_else(PoisonError::into_inner);
    drop(NEVER.1.wait_timeout(held, PAUSE));
}

/// The name of a conversation.
pub(crate) fn name(talk: u64) -> String {
    format!("talk-{talk}")
}

/// What the log has of every conversation, and what is wrong with how it says so.
pub(crate) async fn logged(street: &Street, plan: &Plan) -> (BTreeMap<u64, Vec<Value>>, Vec<String>) {
    let mut logs = BTreeMap::new();
    let mut broken = Vec::new();
    let talks: BTreeMap<u64, u64> = plan.asks.iter().filter_map(|ask| Some((ask.talk?, ask.tenant))).collect();
    for (talk, tenant) in talks {
        let path = format!("/v1/conversations/{}", name(talk));
        let (status, body) = street.whole(tenant, "GET", format!("{path}/turns?limit={TURNS_MAX}"), &[]).await;
        let turns = match (status, body["data"].as_array()) {
            (200, Some(turns)) => turns.clone(),
            // Nothing was kept of it.
            (404, _) => Vec::new(),
            _ => {
                broken.push(format!("the turns of {path}: {status} {body}"));
                continue;
            }
        };
        if !turns.is_empty() {
            let (gone, _) = street.whole(tenant, "DELETE", path.clone(), &[]).await;
            let (after, _) = street.whole(tenant, "GET", path.clone(), &[]).await;
            if (gone, after) != (200, 404) {
                broken.push(format!("{path} was deleted: {gone}, and then {after}"));
            }
        }
        logs.insert(talk, turns);
    }
    (logs, broken)
}

/// The texts of a message, joined.
fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => blocks.iter().filter_map(|block| block["text"].as_str()).collect(),
        _ => String::new(),
    }
}

/// Holds a stream that was a turn against its conversation's log.
pub(crate) fn kept(case: &Case<'_>, log: &[Value]) -> Result<(), String> {
    let asked = text(&case.ask.body["messages"][0]["content"]);
    let mine =
        |turn: &&Value| turn["messages"].as_array().is_some_and(|m| m.iter().any(|m| text(&m["content"]) == asked));
    let turns: Vec<&Value> = log.iter().filter(mine).collect();
    let told: String = case.story.blocks.iter().filter(|b| b.kind == "text").map(|b| b.text.as_str()).collect();
    let said: Vec<(&str, String)> = turns
        .iter()
        .map(|turn| (turn["status"].as_str().unwrap_or_default(), text(&turn["answer"]["content"])))
        .collect();
    let truth = case.truth.text();
    // Of joined replies only what was told is known.
    let continued = case.records.iter().any(|record| record.continuation.is_some());
    let true_beginning = |said: &str| continued || case.is_disordered() || truth.starts_with(said);
    match (&case.fate, &said[..]) {
        (Fate::Whole, [("complete", said)]) if *said == told => Ok(()),
        (Fate::Whole, _) => Err(format!("its end was told, with {told:?}; the log has {said:?}")),
        (Fate::Refused(..), []) => Ok(()),
        // A plain one's client is told of it in the end; of others nobody knows what came besides.
        (Fate::Broke(code), [("interrupted", said)])
            if code.starts_with("upstream_") && case.ask.class == Class::Memory =>
        {
            if *said == told {
                Ok(())
            } else {
                Err(format!("{told:?} was told, the log has {said:?}"))
            }
        }
        (Fate::Refused(..) | Fate::Broke(_) | Fate::Left, [] | [_]) => match said.first() {
            Some((_, said)) if !true_beginning(said) => Err(format!("the log has {said:?}, which nobody said")),
            _ => Ok(()),
        },
        _ => Err(format!("it is {} times in the log: {said:?}", said.len())),
    }
}

/// Whether the log has turns in the order in which they were asked, numbered without a gap.
pub(crate) fn in_order(plan: &Plan, talk: u64, log: &[Value]) -> Result<(), String> {
    let asked: Vec<String> = plan
        .asks
        .iter()
        .filter(|ask| ask.talk == Some(talk))
        .map(|ask| text(&ask.body["messages"][0]["content"]))
        .collect();
    let places: Vec<Option<usize>> = log
        .iter()
        .map(|turn| {
            let last = turn["messages"].as_array().and_then(|messages| messages.last())?;
            asked.iter().position(|asked| *asked == text(&last["content"]))
        })
        .collect();
    let rises = places.windows(2).all(|pair| pair[0] < pair[1]) && places.iter().all(Option::is_some);
    let numbered = log.iter().enumerate().all(|(n, turn)| turn["number"].as_u64() == Some(n as u64 + 1));
    if rises && numbered { Ok(()) } else { Err(format!("{places:?} in the log of {talk}")) }
}
