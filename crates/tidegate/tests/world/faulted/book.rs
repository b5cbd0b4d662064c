//! What is known of one stream from all of its readings.
//!
//! The story is one string of bytes: texts as they are, and between them, in brackets no text can
//! have, what is no text. Joined deltas say the same in it as single ones. Every event that was told
//! is a place in it, so a reader that comes back goes on writing where its cursor stands, over what
//! is there already: whatever differs there, is missing or is told twice shows at that byte.

use crate::world::story::Story;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// No UTF-8 text has this byte.
const BRACKET: u8 = 0xff;
/// Of an event of a type nobody knows so many bytes are kept.
const KEPT_MAX: usize = 300;

/// What a run of deltas belongs to: block and kind.
type Run = Option<(u64, &'static str)>;

/// Where a reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    at: usize,
    run: Run,
}

/// How a stream ended, in the words of its reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Stop,
    /// The code of ours or, of the upstream's own, its type.
    Error(String),
}

/// A reading on its way.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) seq: u64,
    place: Place,
    pub(crate) ended: bool,
}

/// All that is known.
#[derive(Debug)]
pub(crate) struct Book {
    story: Vec<u8>,
    places: BTreeMap<u64, Place>,
    cursors: BTreeMap<u64, String>,
    pub(crate) ending: Option<Ending>,
    /// The number of the event that ended it.
    last: Option<u64>,
    /// Behind which event it was taken up again.
    pub(crate) recovered: BTreeMap<u64, u64>,
    /// Events told, over all readings, and those that stood for several.
    pub(crate) told: u64,
    pub(crate) joined: u64,
    /// The envelope of the error that it ended with.
    pub(crate) error: Option<Value>,
}

impl Book {
    pub(crate) fn new() -> Book {
        Book {
            story: Vec::new(),
            places: BTreeMap::from([(0, Place { at: 0, run: None })]),
            cursors: BTreeMap::new(),
            ending: None,
            last: None,
            recovered: BTreeMap::new(),
            told: 0,
            joined: 0,
            error: None,
        }
    }

    /// Begins a reading behind event `seq`, which was told before.
    pub(crate) fn open(&self, seq: u64) -> Page {
        Page { seq, place: self.places[&seq], ended: self.last == Some(seq) }
    }

    /// Which events were told, and with which cursors.
    pub(crate) fn cursors(&self) -> Vec<(u64, &str)> {
        self.cursors.iter().map(|(seq, cursor)| (*seq, cursor.as_str())).collect()
    }

    /// The cursor of an event is the same whoever is told it.
    pub(crate) fn cursor(&mut self, seq: u64, cursor: &str) -> Result<(), String> {
        let known = self.cursors.entry(seq).or_insert_with(|| cursor.to_owned());
        if known == cursor { Ok(()) } else { Err(format!("event {seq} had the cursor {known}, now {cursor}")) }
    }

    /// An event is told; `first` is the first it stands for, if that is said.
    pub(crate) fn tell(&mut self, page: &mut Page, first: Option<u64>, seq: u64, event: &Value) -> Result<(), String> {
        if page.ended {
            return Err(format!("event {seq} after the last one"));
        }
        if seq <= page.seq || first.is_some_and(|first| first != page.seq + 1) {
            return Err(format!("event {first:?} to {seq} after {}", page.seq));
        }
        let (said, run) = said(event, page.place.run)?;
        if seq > page.seq + 1 {
            self.joined += 1;
            if run.is_none() {
                return Err(format!("{} stands for {} to {seq}", event["type"], page.seq + 1));
            }
        }
        self.told += 1;
        let from = page.place.at;
        let known = self.story.len().min(from + said.len());
        let (old, new) = said.split_at(known - from);
        if self.story[from..known] != *old {
            let was = String::from_utf8_lossy(&self.story[from..known]);
            return Err(format!("event {seq} says {:?}, before {was:?}", String::from_utf8_lossy(&said)));
        }
        self.story.extend_from_slice(new);
        page.place = Place { at: from + said.len(), run };
        page.seq = seq;
        let place = *self.places.entry(seq).or_insert(page.place);
        if place != page.place {
            return Err(format!("event {seq} ends at {:?}, before at {place:?}", page.place));
        }
        if matches!(event["type"].as_str(), Some("message_stop" | "error")) {
            self.last = Some(seq);
        }
        match event["type"].as_str() {
            Some("message_stop") => self.end(page, Ending::Stop, None),
            Some("error") => {
                let error = &event["error"];
                let code = error["details"]["error_code"].as_str().or(error["type"].as_str()).unwrap_or_default();
                self.end(page, Ending::Error(code.to_owned()), Some(event))
            }
            _ => Ok(()),
        }
    }

    /// A reading came to the stream's end; all come to the same.
    pub(crate) fn end(&mut self, page: &mut Page, ending: Ending, error: Option<&Value>) -> Result<(), String> {
        page.ended = true;
        if let Some(error) = error {
            self.error.get_or_insert_with(|| error.clone());
        }
        let known = self.ending.get_or_insert_with(|| ending.clone());
        if *known == ending { Ok(()) } else { Err(format!("it ended with {known:?}, now with {ending:?}")) }
    }

    /// It was taken up again behind the reading's last event, for the `segment`th time.
    pub(crate) fn recovered(&mut self, page: &Page, segment: u64) -> Result<(), String> {
        let known = *self.recovered.entry(segment).or_insert(page.seq);
        if known == page.seq {
            Ok(())
        } else {
            Err(format!("segment {segment} begins behind {known}, now {}", page.seq))
        }
    }

    /// The last event that anybody was told.
    pub(crate) fn last(&self) -> u64 {
        self.places.keys().next_back().copied().unwrap_or(0)
    }

    /// The whole of it, read as a client would.
    pub(crate) fn read(&self) -> Result<Story, String> {
        let mut story = Story::default();
        let mut rest = &self.story[..];
        let mut run: Option<(u64, &str)> = None;
        while !rest.is_empty() {
            if rest[0] == BRACKET {
                let end = rest[1..].iter().position(|b| *b == BRACKET).ok_or("an open bracket")? + 1;
                let inside = std::str::from_utf8(&rest[1..end]).map_err(|e| e.to_string())?;
                rest = &rest[end + 1..];
                run = None;
                if let Some(head) = inside.strip_prefix("run ") {
                    let (index, kind) = head.split_once(' ').ok_or("a run without a kind")?;
                    run = Some((index.parse().map_err(|_| "a run without an index")?, kind));
                    if rest.first().is_none_or(|b| *b == BRACKET) {
                        give(&mut story, run, "")?;
                    }
                } else {
                    let event: Value = serde_json::from_str(inside).map_err(|e| e.to_string())?;
                    story.take(&event)?;
                }
            } else {
                let end = rest.iter().position(|b| *b == BRACKET).unwrap_or(rest.len());
                let text = std::str::from_utf8(&rest[..end]).map_err(|e| e.to_string())?;
                rest = &rest[end..];
                give(&mut story, run, text)?;
            }
        }
        Ok(story)
    }
}

/// A run as one delta.
fn give(story: &mut Story, run: Option<(u64, &str)>, text: &str) -> Result<(), String> {
    let (index, kind) = run.ok_or("text outside of any block")?;
    let field = RUNS.iter().find(|(name, _)| *name == kind).map_or("text", |(_, field)| *field);
    story.take(&json!({"type": "content_block_delta", "index": index, "delta": {"type": kind, field: text}}))?;
    Ok(())
}

/// Kinds of deltas that are joined, and the field with their text.
const RUNS: [(&str, &str); 3] =
    [("text_delta", "text"), ("thinking_delta", "thinking"), ("input_json_delta", "partial_json")];

/// An event in the story's words, where the one before it belonged to `before`.
fn said(event: &Value, before: Run) -> Result<(Vec<u8>, Run), String> {
    let delta = &event["delta"];
    let run = RUNS.iter().find(|(kind, _)| event["type"] == "content_block_delta" && delta["type"] == *kind);
    if let Some((kind, field)) = run {
        let index = event["index"].as_u64().ok_or("a delta without an index")?;
        let text = delta[*field].as_str().ok_or("a delta without its field")?;
        let run = Some((index, *kind));
        let mut said = Vec::with_capacity(text.len() + 24);
        if run != before {
            said.push(BRACKET);
            said.extend_from_slice(format!("run {index} {kind}").as_bytes());
            said.push(BRACKET);
        }
        said.extend_from_slice(text.as_bytes());
        return Ok((said, run));
    }
    let mut text = event.to_string();
    if text.len() > KEPT_MAX && event["type"] == "content_block_glimmer" {
        text = json!({"type": "content_block_glimmer", "length": text.len()}).to_string();
    }
    let mut said = vec![BRACKET];
    said.extend_from_slice(text.as_bytes());
    said.push(BRACKET);
    Ok((said, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})
    }

    #[test]
    fn joined_or_single_and_from_any_place_the_story_is_one() {
        let mut book = Book::new();
        let mut page = book.open(0);
        for (seq, said) in [(1, "ab"), (2, "c"), (3, ""), (4, "de")] {
            book.tell(&mut page, Some(seq), seq, &text(said)).unwrap();
        }
        let mut again = book.open(0);
        book.tell(&mut again, Some(1), 2, &text("abc")).unwrap();
        book.tell(&mut again, Some(3), 5, &text("def")).unwrap();
        let mut late = book.open(4);
        assert_eq!(book.tell(&mut late, Some(5), 5, &text("f")), Ok(()));
        assert_eq!(book.last(), 5);
    }

    #[test]
    fn what_is_missing_doubled_or_other_is_told() {
        let mut book = Book::new();
        let mut page = book.open(0);
        book.tell(&mut page, Some(1), 1, &text("ab")).unwrap();
        book.tell(&mut page, Some(2), 2, &text("cd")).unwrap();
        let mut other = book.open(0);
        assert!(book.tell(&mut other, Some(1), 1, &text("aX")).unwrap_err().contains("before"));
        let mut short = book.open(0);
        assert!(book.tell(&mut short, Some(1), 1, &text("a")).unwrap_err().contains("ends at"));
        let mut gap = book.open(1);
        assert!(book.tell(&mut gap, Some(3), 3, &text("x")).unwrap_err().contains("after 1"));
        let mut twice = book.open(1);
        assert!(book.tell(&mut twice, Some(2), 2, &text("abcd")).unwrap_err().contains("before"));
        let mut stop = book.open(2);
        book.tell(&mut stop, Some(3), 3, &json!({"type": "message_stop"})).unwrap();
        assert!(book.tell(&mut stop, Some(4), 4, &text("x")).unwrap_err().contains("after the last"));
        assert!(book.end(&mut stop, Ending::Error("x".to_owned()), None).unwrap_err().contains("it ended with"));
    }
}
