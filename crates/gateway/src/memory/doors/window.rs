//! `GET /v1/conversations/{id}/window`: what would be sent now, what it costs, and why each part is in
//! or out.
//!
//! The conversation is read from the log anew, so a turn under way neither waits nor is waited for,
//! and is not in it. The system prompt and tools come with each request and are not known here. All
//! tokens are corrected by what the API counted of the conversation's last window.

use super::super::fit::{Frame, Gauge, jitter, plain_window};
use super::super::recall::{fitting, window_of};
use super::super::talk::Talk;
use super::super::wish::{BUDGET_MAX, BUDGET_MIN};
use super::{Asked, Told, ask, shape};
use crate::answer::Trouble;
use crate::attempt::Stop;
use crate::memory::{TurnTrouble, masking};
use crate::reply::Reply;
use serde::Serialize;
use tidegate_conversation::window::{Fate, Part};

/// `max_tokens` of a request of which nothing else is known.
const MAX_TOKENS: u64 = 4_096;
/// Longest name of a model that is asked for, bytes.
const MODEL_BYTES_MAX: usize = 256;

#[derive(Serialize)]
struct WindowShape {
    #[serde(rename = "type")]
    kind: &'static str,
    tokens: u64,
    budget: BudgetShape,
    parts: Vec<Part>,
}

#[derive(Serialize)]
struct BudgetShape {
    window: u64,
    max_tokens: u64,
    margin: u64,
    fixed: u64,
    room: u64,
    low: u64,
    soft: u64,
    high: u64,
}

/// The door.
pub(super) async fn window(asked: &Asked<'_>, reply: &mut Reply<'_>, id: &str) -> Result<Told, Stop> {
    let query = asked.query(&["model", "max_tokens", "budget", "messages"])?;
    let max_tokens = query.number("max_tokens", 1..=BUDGET_MAX)?.unwrap_or(MAX_TOKENS);
    let most = query.number("budget", BUDGET_MIN..=BUDGET_MAX)?;
    let with_messages = query.flag("messages")?;
    let (house, address) = (asked.house, asked.address(id)?);
    let store = house.memory.store().map_err(Trouble::from)?;
    let turns = ask(reply, store.conversation(address.clone())).await?.turns;
    let model = match query.text("model") {
        Some(model) if model.is_empty() || model.len() > MODEL_BYTES_MAX => {
            let why = format!("model: expected the name of a model, 1 to {MODEL_BYTES_MAX} bytes");
            return Err(Trouble::from(TurnTrouble::Query(why)).into());
        }
        Some(model) => model.to_owned(),
        // As the last turn had it.
        None => {
            let (last, _) = ask(reply, store.turns(address.clone(), turns, 1, 0)).await?;
            last.into_iter().next_back().and_then(|turn| turn.content.model).unwrap_or_default()
        }
    };
    let gauge = Gauge::of(house, &model, false);
    let mut caller = asked.caller.clone();
    caller.wish.budget = most;
    let frame = Frame::bare(&model, max_tokens, window_of(house, &caller), &gauge);
    let loaded = reply.attend(Talk::load(store, &address, &gauge, house.settings.conversations.recall)).await?;
    let mut talk = loaded.map_err(|error| Trouble::from(TurnTrouble::from(error)))?;
    let budget = budget(house.settings.conversations.rules, &frame, address.name());
    let (mut out, body) = if talk.history.is_empty() {
        (WindowShape { kind: "window", tokens: 0, budget, parts: Vec::new() }, bytes::Bytes::from_static(b"[]"))
    } else {
        let window = plain_window(&mut talk, address.name(), &frame, fitting(house, &gauge)).map_err(Trouble::from)?;
        (
            WindowShape { kind: "window", tokens: frame.fixed() + window.tokens, budget, parts: window.parts },
            window.body,
        )
    };
    correct(&mut out, talk.ratio());
    let mut json = shape::json(&out);
    if with_messages {
        shape::put(&mut json, "messages", &body);
        let live = reply.attend(masking::live_of(house, &address)).await?.map_err(Trouble::from)?;
        reply.restores(live);
    }
    let lease = house.backlogs.lease(json.len() as u64).ok_or(Trouble::BacklogBudget)?;
    Ok(Told::Leased(json, lease))
}

/// The budget as the API would count it.
fn budget(rules: tidegate_conversation::budget::Rules, frame: &Frame, name: &str) -> BudgetShape {
    let budget = frame.budget(1.0);
    let marks = rules.marks(budget.room(), jitter(name));
    BudgetShape {
        window: budget.window,
        max_tokens: budget.max_tokens,
        margin: budget.margin,
        fixed: budget.fixed,
        room: budget.room(),
        low: marks.low,
        soft: marks.soft,
        high: marks.high,
    }
}

/// Corrects all tokens of messages.
fn correct(window: &mut WindowShape, ratio: f64) {
    let corrected = |tokens: u64| (tokens as f64 * ratio).round() as u64;
    window.tokens = corrected(window.tokens);
    for part in &mut window.parts {
        part.tokens = corrected(part.tokens);
        if let Fate::Elided { tokens_whole, .. } = &mut part.fate {
            *tokens_whole = corrected(*tokens_whole);
        }
    }
}
