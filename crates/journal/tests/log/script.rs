//! Replies made of dice: blocks of every kind, cut into deltas anywhere, with pings, comments,
//! events of the future and deltas in another spelling among them, and an end of some kind or none.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use tidegate_base::Prng;
use tidegate_journal::End;
use tidegate_wire::event::Kind;

/// One event, with what the oracle wants to know of it.
#[derive(Clone)]
pub(crate) struct Said {
    pub(crate) event: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) end: Option<End>,
    /// Of a delta in the usual spelling: block, field, text as it stands between the quotes.
    pub(crate) delta: Option<(usize, String, String)>,
}

pub(crate) struct Reply {
    events: Vec<Said>,
    at: usize,
    dice: Prng,
    /// By block, what its deltas say together.
    truth: BTreeMap<usize, String>,
    /// A crash made another reply of it: what is true of blocks is not known as a whole.
    spliced: bool,
}

fn said(kind: Kind, name: &str, data: &str) -> Said {
    Said { event: format!("event: {name}\ndata: {data}\n\n").into_bytes(), kind, end: None, delta: None }
}

impl Reply {
    pub(crate) fn new(mut dice: Prng) -> Self {
        let (mut events, mut truth) = (Vec::new(), BTreeMap::new());
        let start = json!({"type": "message_start", "message": {"id": "msg_1", "content": []}});
        events.push(said(Kind::MessageStart, "message_start", &start.to_string()));
        for block in 0..dice.between(1, 4) as usize {
            let (kind, field, text) = content(&mut dice);
            let opened = json!({"type": "content_block_start", "index": block, "content_block": {"type": kind}});
            events.push(said(Kind::BlockStart, "content_block_start", &opened.to_string()));
            for piece in pieces(&mut dice, &text) {
                noise(&mut dice, &mut events);
                events.push(delta(&mut dice, block, field, &piece));
            }
            truth.insert(block, text);
            let closed = json!({"type": "content_block_stop", "index": block});
            events.push(said(Kind::BlockStop, "content_block_stop", &closed.to_string()));
        }
        let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}).to_string();
        let end = |end, said| Said { end: Some(end), ..said };
        match dice.below(10) {
            0 => events.push(end(End::Error, said(Kind::Error, "error", &error))),
            1 => events.push(end(End::Cancelled, said(Kind::Error, "error", &error))),
            2 => {}
            _ => {
                events.push(said(Kind::MessageDelta, "message_delta", "{\"type\":\"message_delta\"}"));
                events.push(end(End::Stopped, said(Kind::MessageStop, "message_stop", "{\"type\":\"message_stop\"}")));
            }
        }
        Reply { events, at: 0, dice, truth, spliced: false }
    }

    pub(crate) fn next(&mut self) -> Option<Said> {
        let said = self.events.get(self.at).cloned();
        self.at += 1;
        said
    }

    /// Only `kept` events with a number were not forgotten: what follows is said anew, otherwise.
    pub(crate) fn go_back(&mut self, kept: u64, seed: u64) {
        let mut left = kept;
        let counts = |said: &Said| !matches!(said.kind, Kind::Ping | Kind::Comment);
        let at = self.events.iter().position(|said| {
            let found = left == 0;
            left = left.saturating_sub(u64::from(counts(said)));
            found
        });
        let Some(at) = at.filter(|at| *at < self.at) else { return };
        let last = self.events.split_off(at);
        self.at = at;
        self.dice = Prng::new(seed);
        self.events.extend(last.into_iter().filter(|_| self.dice.chance(0.9)).map(|said| match &said.delta {
            Some((block, field, _)) => plain(*block, field, "said anew"),
            None => said,
        }));
        self.spliced = true;
    }

    /// Holds `stream`, all events as somebody read them, against what was meant.
    pub(crate) fn check(&self, stream: &[u8]) {
        if self.spliced {
            return;
        }
        let mut got: BTreeMap<usize, String> = BTreeMap::new();
        for event in String::from_utf8(stream.to_vec()).unwrap().split_terminator("\n\n") {
            let Some((_, rest)) = event.split_once("\"index\":") else { continue };
            let block = rest.trim_start().split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
            let into = got.entry(block).or_default();
            for field in ["text", "thinking", "partial_json"] {
                if let Some((_, text)) = rest.split_once(&format!("\"{field}\":\"")) {
                    into.push_str(text.strip_suffix("\"}}").unwrap());
                }
            }
        }
        assert_eq!(got.len(), self.truth.len());
        for (block, text) in got {
            let text: String = serde_json::from_str(&format!("\"{text}\"")).unwrap();
            let truth = &self.truth[&block];
            assert_eq!(&text, truth, "byte for byte");
            if truth.starts_with('{') {
                assert_eq!(
                    serde_json::from_str::<Value>(&text).unwrap(),
                    serde_json::from_str::<Value>(truth).unwrap()
                );
            }
        }
    }
}

/// A block's kind, its deltas' field, and all its text.
fn content(dice: &mut Prng) -> (&'static str, &'static str, String) {
    let words = ["tide ", "\n```rust\n", "港口", "\"quoted\"", "\\back", "\u{1}", "😀", "a", "", "  ", "}}", "\r\n\n"];
    let longest = if dice.chance(0.1) { 8_000 } else { 200 };
    let mut text: String = (0..dice.between(0, longest)).filter_map(|_| dice.pick(&words).copied()).collect();
    match dice.below(4) {
        0 => ("thinking", "thinking", text),
        1 => {
            text = json!({"x": text, "n": [1.5, null, {"deep": true}]}).to_string();
            ("tool_use", "partial_json", text)
        }
        _ => ("text", "text", text),
    }
}

/// The text between quotes, in pieces that are cut between two escapes or characters; a pair of
/// surrogates may be cut in two.
fn pieces(dice: &mut Prng, text: &str) -> Vec<String> {
    let ascii = dice.chance(0.3);
    let mut atoms: Vec<String> = Vec::new();
    for c in text.chars() {
        if ascii && !c.is_ascii() {
            let mut units = [0; 2];
            atoms.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            let quoted = serde_json::to_string(&c.to_string()).unwrap();
            atoms.push(quoted[1..quoted.len() - 1].to_owned());
        }
    }
    let longest = dice.between(1, 10 + atoms.len() as u64 / 20);
    let mut pieces = Vec::new();
    let mut left = &atoms[..];
    while !left.is_empty() {
        let (now, later) = left.split_at((dice.between(0, longest) as usize).min(left.len()));
        pieces.push(now.concat());
        left = later;
    }
    pieces
}

fn plain(block: usize, field: &str, text: &str) -> Said {
    let kind = if field == "partial_json" { "input_json_delta".to_owned() } else { format!("{field}_delta") };
    let data = format!(
        "{{\"type\":\"content_block_delta\",\"index\":{block},\"delta\":{{\"type\":\"{kind}\",\"{field}\":\"{text}\"}}}}"
    );
    let delta = Some((block, field.to_owned(), text.to_owned()));
    Said { delta, ..said(Kind::BlockDelta, "content_block_delta", &data) }
}

/// A delta, now and then in a spelling that is not the API's.
fn delta(dice: &mut Prng, block: usize, field: &str, text: &str) -> Said {
    let said = plain(block, field, text);
    if !dice.chance(0.02) {
        return said;
    }
    let odd = String::from_utf8(said.event).unwrap().replacen("\"index\":", "\"index\": ", 1);
    Said { event: odd.into_bytes(), delta: None, ..said }
}

fn noise(dice: &mut Prng, events: &mut Vec<Said>) {
    match dice.below(60) {
        0 => events.push(said(Kind::Ping, "ping", "{\"type\":\"ping\"}")),
        1 => events.push(Said { event: b": alive\n\n".to_vec(), ..said(Kind::Comment, "", "") }),
        2 => events.push(said(Kind::Other, "brand_new", "{\"type\":\"brand_new\"}")),
        _ => {}
    }
}
