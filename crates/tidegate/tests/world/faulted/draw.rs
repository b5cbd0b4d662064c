//! How one stream, its faults and its readers are drawn.

use crate::world::faulted::fault::{Drawn, Harm};
use crate::world::faulted::plan::{Ask, Back, Class, Door, Leave, Recover, SLOTS, Slot, Spoken, Visit};
use crate::world::scene::ms;
use serde_json::{Value, json};
use std::time::Duration;
use tidegate_base::Prng;

impl Visit {
    fn drawn(prng: &mut Prng) -> Visit {
        let door = match prng.below(10) {
            0..4 => Door::Http1,
            4..6 => Door::Http2,
            _ => Door::Socket(prng.below(SLOTS)),
        };
        let pause_max = if prng.chance(0.2) { 8_000 } else { 500 };
        Visit {
            door,
            pause: ms(prng, 0, pause_max),
            leave: None,
            resets: prng.chance(0.5),
            back: match prng.below(10) {
                0 => Back::Beginning,
                1..4 => Back::Older(prng.next_u64()),
                _ => Back::Last,
            },
            by_header: prng.chance(0.5),
            slow: prng.chance(0.15).then(|| (prng.between(20, 3_000) as usize, ms(prng, 1, 200))),
            credit: prng.chance(0.4).then(|| prng.between(1, 4_000)),
            cancel: None,
        }
    }

    fn leaving(prng: &mut Prng) -> Visit {
        let early = prng.chance(0.5);
        let leave = match prng.below(4) {
            0 => Leave::After(ms(prng, 0, 4_000)),
            _ => Leave::AtBytes(prng.below(if early { 1_500 } else { 8_000 }) as usize),
        };
        Visit { leave: Some(leave), ..Visit::drawn(prng) }
    }
}

pub(crate) fn slot(prng: &mut Prng) -> Slot {
    let lives = if prng.chance(0.5) { prng.between(1, 8) } else { 0 };
    Slot {
        lives: (0..lives).map(|_| ms(prng, 50, 6_000)).collect(),
        resets: prng.chance(0.5),
        slow: prng.chance(0.15).then(|| (prng.between(200, 4_000) as usize, ms(prng, 1, 60))),
    }
}

/// A fault of a stream in such a world.
fn fault(spoken: Spoken, gentle: bool, prng: &mut Prng) -> Drawn {
    loop {
        let mut fault = Drawn::any(spoken == Spoken::Socket, prng);
        if spoken == Spoken::Socket && fault.kind == "goaway-at" {
            // A WebSocket has no farewell but its close.
            fault.harm = Harm::Breaks;
        }
        let breaks = fault.harm == Harm::Breaks || fault.kind.ends_with("before-head");
        if !(gentle && breaks) {
            return fault;
        }
    }
}

/// One request and its readers.
pub(crate) fn ask(number: u64, spoken: Spoken, tight: bool, gentle: bool, prng: &mut Prng) -> Ask {
    let mut faults = vec![fault(spoken, gentle, prng)];
    if prng.chance(0.08) {
        faults.push(fault(spoken, gentle, prng));
    }
    let class = if prng.chance(0.7) { Class::Memory } else { Class::Plain };
    let recover = [Recover::Never, Recover::Never, Recover::Restart, Recover::Continue][prng.below(4) as usize];
    let mut visits = Vec::new();
    let leaves = match class {
        Class::Memory => [0, 1, 1, 2, 3, 5][prng.below(6) as usize],
        Class::Plain => u64::from(prng.chance(0.1)),
    };
    visits.extend((0..leaves).map(|_| Visit::leaving(prng)));
    if class == Class::Memory || visits.is_empty() {
        visits.push(Visit::drawn(prng));
    }
    if prng.chance(0.05) {
        visits[0].cancel = Some(ms(prng, 0, 3_000));
    }
    let mut twin = Vec::new();
    if class == Class::Memory && prng.chance(0.3) {
        twin.extend((0..prng.below(2)).map(|_| Visit::leaving(prng)));
        twin.push(Visit::drawn(prng));
        twin[0].back = if tight { Back::Last } else { Back::Beginning };
    }
    let model = match prng.below(20) {
        // Only over HTTP: the faults go in a header.
        0 | 1 if spoken != Spoken::Socket && !matches!(visits[0].door, Door::Socket(_)) => {
            "claude-haiku-4-5".to_owned()
        }
        2 if spoken != Spoken::Socket && !matches!(visits[0].door, Door::Socket(_)) => "claude-sonnet-5-5".to_owned(),
        _ => format!("echo-{number:08}"),
    };
    let struck = if prng.chance(0.12) { prng.between(2, 4) } else { 1 };
    let simulate = (!model.starts_with("echo")).then(|| {
        let faults: Vec<_> = faults.iter().map(|fault| format!("fault={}", fault.text)).collect();
        format!("attempts={struck}, {}", faults.join(", "))
    });
    let body = body(number, &model, &faults, prng);
    Ask {
        number,
        tenant: 0,
        begins: Duration::ZERO,
        model,
        body,
        simulate,
        faults,
        struck,
        class,
        recover,
        visits,
        twin,
        deleted: (class == Class::Memory && prng.chance(0.05)).then(|| ms(prng, 0, 4_000)),
        misused: class == Class::Memory && prng.chance(0.05),
        talk: None,
        durable: false,
    }
}

/// What is odd to write, in JSON or in UTF-8.
const ODD: [&str; 12] = [
    "naïve",
    "façade",
    "漢字",
    "潮汐",
    "🌊🌊",
    "\"quoted\"",
    "back\\slash",
    "line\nbreak",
    "tab\there",
    "—",
    "a\n\nb",
    "Ω",
];
const BEGINS: [&str; 12] = ["ti", "har", "moo", "ebb", "flo", "ga", "li", "sha", "cur", "drif", "ne", "spri"];
const ENDS: [&str; 12] = ["de", "bour", "ning", "ing", "od", "te", "ght", "llow", "rent", "ted", "ap", "ng"];

/// A word: texts of a few words said over and over would make every joint a riddle.
fn word(prng: &mut Prng) -> String {
    let mut part = |parts: &[&str]| prng.pick(parts).copied().unwrap_or_default().to_owned();
    let said = part(&BEGINS) + &part(&ENDS);
    match prng.below(8) {
        0 => (*prng.pick(&ODD).unwrap_or(&"—")).to_owned(),
        1 => said + ",",
        2 => said + ".",
        3 => format!("{said}{}", prng.below(1_000)),
        _ => said,
    }
}

fn body(number: u64, model: &str, faults: &[Drawn], prng: &mut Prng) -> Value {
    let long = prng.chance(0.1);
    let count = prng.between(2, if long { 500 } else { 100 });
    let words: Vec<_> = (0..count).map(|_| word(prng)).collect();
    let mut text = format!("{number}: {}", words.join(" "));
    let at = |place: &str| faults.iter().any(|fault| fault.place.as_deref() == Some(place));
    let two = at("between-tools");
    let tools = two || if at("in-tool") { prng.chance(0.9) } else { prng.chance(0.15) };
    if two {
        text += " now measure and weigh";
    } else if tools {
        text += " now use a tool";
    }
    let max_tokens = if prng.chance(0.1) { prng.between(5, 60) } else { 8_192 };
    let mut body = json!({"model": model, "max_tokens": max_tokens, "stream": true,
        "messages": [{"role": "user", "content": text}]});
    if tools {
        let tool = |name: &str| {
            json!({"name": name, "description": "Looks.", "input_schema": {"type": "object",
                "properties": {"place": {"type": "string"}, "depth": {"type": "number"}}, "required": ["place"]}})
        };
        body["tools"] = json!([tool("measure"), tool("weigh")]);
    }
    let thinks = if at("in-thinking") { prng.chance(0.9) } else { prng.chance(0.1) };
    if thinks && model.starts_with("echo") {
        let display = if prng.chance(0.5) { "summarized" } else { "omitted" };
        body["thinking"] = json!({"type": "adaptive", "display": display});
    }
    body
}
