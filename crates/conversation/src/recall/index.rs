//! A conversation's passages, searchable: an inverted index that only grows at its end and forgets
//! at its beginning.
//!
//! A passage is a piece of a message of at most some 1,200 bytes. Ranking is BM25 (Robertson and
//! Zaragoza, 2009; k1 = 1.2, b = 0.75, idf as Lucene has it, never negative):
//! ```text
//! score = sum over the query's terms of  ln(1 + (N - df + 0.5) / (df + 0.5))
//!                                        * tf (k1 + 1) / (tf + k1 (1 - b + b len / avglen))
//! ```
//! Passages of one atomic group lend each other a share of their best score (session-level pooling):
//! an answer often stands beside the words that were asked for, and not in them.
//!
//! The index knows terms and places and no text; texts are read from the history when they are
//! needed. It has a bound in bytes; past it the oldest quarter is forgotten.

use super::words::terms;
use crate::history::History;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes one conversation's index may take: some 20,000 passages, a book of 4,000 pages.
pub const INDEX_BYTES_MAX: usize = 16 << 20;
/// A passage ends at the first blank after so many bytes.
const PASSAGE_BYTES: usize = 1_200;
/// Bytes of one message that are indexed: a log file that was read is found by its first part.
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Different terms of a query that count.
const QUERY_TERMS_MAX: usize = 200;
/// The share of a group's best score that its other passages get.
const LENT: f64 = 0.25;
const K1: f64 = 1.2;
const B: f64 = 0.75;
/// What a term and a posting take, for the bound: key, vector and the tree's share; and a pair.
const TERM_BYTES: usize = 64;
const POSTING_BYTES: usize = 8;

/// Where a passage stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// In which message.
    pub message: usize,
    /// Its number in that message.
    pub nth: usize,
}

/// A passage that suits a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// Where it stands.
    pub place: Place,
    /// Its BM25 score, with what its group lends it.
    pub score: f64,
    /// The score as a part of what a passage of usual length would have that says each word of the
    /// query once, words that no wanted passage says left out. It tells how much of a query is met,
    /// however long that is; a short passage may have more than 1, and a query of nothing but frequent
    /// words is never met.
    pub share: f64,
}

#[derive(Clone, Copy, Debug)]
struct Passage {
    place: Place,
    group: usize,
    terms: u32,
}

/// The index of one conversation.
#[derive(Clone, Debug)]
pub struct Index {
    /// Term to passages (by number) and how often it is there, ascending.
    postings: BTreeMap<u64, Vec<(u32, u32)>>,
    passages: Vec<Passage>,
    /// Number of the first passage that is not forgotten.
    first: u32,
    /// Messages that were added.
    messages: usize,
    terms: u64,
    bytes: usize,
    bytes_max: usize,
}

impl Default for Index {
    fn default() -> Self {
        Index::new(INDEX_BYTES_MAX)
    }
}

impl Index {
    /// An empty index of at most so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Index { postings: BTreeMap::new(), passages: Vec::new(), first: 0, messages: 0, terms: 0, bytes: 0, bytes_max }
    }

    /// Adds the messages of a history that are not in it yet.
    pub fn add(&mut self, history: &History) {
        for id in self.messages..history.len() {
            let group = history.group_of(id);
            passages(history, id, &mut |nth, text| self.add_passage(Place { message: id, nth }, group, text));
        }
        self.messages = self.messages.max(history.len());
    }

    fn add_passage(&mut self, place: Place, group: usize, text: &str) {
        let number = self.first + self.passages.len() as u32;
        let mut found = Vec::new();
        terms(text, &mut |term| found.push(term));
        if found.is_empty() {
            return;
        }
        found.sort_unstable();
        for same in found.chunk_by(|a, b| a == b) {
            let postings = self.postings.entry(same[0]).or_insert_with(|| {
                self.bytes += TERM_BYTES;
                Vec::new()
            });
            postings.push((number, same.len() as u32));
            self.bytes += POSTING_BYTES;
        }
        self.bytes += size_of::<Passage>();
        self.terms += found.len() as u64;
        self.passages.push(Passage { place, group, terms: found.len() as u32 });
        while self.bytes > self.bytes_max && !self.passages.is_empty() {
            self.forget(self.passages.len().div_ceil(4));
        }
    }

    fn forget(&mut self, count: usize) {
        for passage in self.passages.drain(..count) {
            self.terms -= u64::from(passage.terms);
            self.bytes -= size_of::<Passage>();
        }
        self.first += count as u32;
        let (first, bytes) = (self.first, &mut self.bytes);
        self.postings.retain(|_, postings| {
            let gone = postings.partition_point(|(number, _)| *number < first);
            postings.drain(..gone);
            *bytes -= gone * POSTING_BYTES;
            if postings.is_empty() {
                *bytes -= TERM_BYTES;
            }
            !postings.is_empty()
        });
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many passages it holds.
    pub fn len(&self) -> usize {
        self.passages.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.passages.is_empty()
    }

    /// The passages that suit a query best, the best first; only of messages that `wanted` names.
    pub fn find(&self, query: &str, most: usize, wanted: &dyn Fn(usize) -> bool) -> Vec<Found> {
        let mut asked = BTreeSet::new();
        terms(query, &mut |term| {
            if asked.len() < QUERY_TERMS_MAX {
                asked.insert(term);
            }
        });
        let count = self.passages.len() as f64;
        let length = (self.terms as f64 / count.max(1.0)).max(1.0);
        let mut scores: BTreeMap<u32, f64> = BTreeMap::new();
        // At the least one word that is said only once: "thank you" asks for nothing.
        let least = (1.0 + (count - 0.5) / 1.5).ln();
        let mut asked_for: f64 = 0.0;
        for postings in asked.iter().filter_map(|term| self.postings.get(term)) {
            let df = postings.len() as f64;
            let idf = (1.0 + (count - df + 0.5) / (df + 0.5)).ln();
            // A word that is said nowhere but in the question tells nothing of an answer.
            if postings.iter().any(|(number, _)| wanted(self.passage(*number).place.message)) {
                asked_for += idf;
            }
            for (number, tf) in postings {
                let tf = f64::from(*tf);
                let terms = f64::from(self.passage(*number).terms);
                *scores.entry(*number).or_default() +=
                    idf * tf * (K1 + 1.0) / (tf + K1 * (1.0 - B + B * terms / length));
            }
        }
        let mut best: BTreeMap<usize, f64> = BTreeMap::new();
        for (number, score) in &scores {
            let of_group = best.entry(self.passage(*number).group).or_default();
            *of_group = of_group.max(*score);
        }
        let ranked = scores.into_iter().map(|(number, score)| {
            let passage = self.passage(number);
            let lent = best.get(&passage.group).map_or(0.0, |best| LENT * (best - score));
            (passage.place, score + lent)
        });
        let mut ranked: Vec<(Place, f64)> = ranked.filter(|(place, _)| wanted(place.message)).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(b.0.cmp(&a.0)));
        ranked.truncate(most);
        ranked.into_iter().map(|(place, score)| Found { place, score, share: score / asked_for.max(least) }).collect()
    }

    fn passage(&self, number: u32) -> &Passage {
        &self.passages[(number - self.first) as usize]
    }
}

/// The passages of a message, numbered.
pub(super) fn passages(history: &History, id: usize, each: &mut dyn FnMut(usize, &str)) {
    let Some(entry) = history.entries().get(id) else { return };
    let (mut nth, mut left) = (0, MESSAGE_BYTES_MAX);
    entry.message.texts(&mut |_, text| {
        let mut rest = text;
        while !rest.trim().is_empty() && left > 0 {
            let (passage, after) = rest.split_at(passage_end(rest));
            rest = after;
            left = left.saturating_sub(passage.len());
            each(nth, passage);
            nth += 1;
        }
    });
}

/// Where a passage that begins here ends: at a blank or a stop, or where it has grown by half.
fn passage_end(text: &str) -> usize {
    if text.len() <= PASSAGE_BYTES + PASSAGE_BYTES / 2 {
        return text.len();
    }
    let ends = |c: char| c.is_whitespace() || matches!(c, '。' | '，' | '、' | '！' | '？');
    let from = text.floor_char_boundary(PASSAGE_BYTES);
    let to = text.floor_char_boundary(PASSAGE_BYTES + PASSAGE_BYTES / 2);
    text[from..to].char_indices().find(|(_, c)| ends(*c)).map_or(to, |(at, c)| from + at + c.len_utf8())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use bytes::Bytes;

    fn history(texts: &[String]) -> History {
        let mut history = History::default();
        for (nth, text) in texts.iter().enumerate() {
            let role = if nth % 2 == 0 { "user" } else { "assistant" };
            let message = serde_json::json!({"role": role, "content": text}).to_string();
            history.push(Message::read(Bytes::from(message)).unwrap(), 10).unwrap();
        }
        history
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn the_rarer_word_and_the_shorter_passage_win() {
        let filler = "the plan for the week and the plan for the day ".repeat(4);
        let long = format!("the harbour {filler}");
        let h = history(&texts(&["the plan", &filler, "the harbour", &long, "a week"]));
        let mut index = Index::default();
        index.add(&h);
        index.add(&h);
        let found = index.find("The harbour?", 9, &|_| true);
        assert_eq!(found[0].place, Place { message: 2, nth: 0 });
        assert_eq!(found[1].place, Place { message: 3, nth: 0 });
        assert_eq!(index.find("harbour", 9, &|id| id != 2).len(), 1);
        assert!(index.find("nowhere", 9, &|_| true).is_empty());
    }

    #[test]
    fn the_score_is_bm25() {
        let h = history(&texts(&["red red blue", "green", "blue green green green"]));
        let mut index = Index::default();
        index.add(&h);
        let found = index.find("red", 1, &|_| true);
        let want = (1.0f64 + 2.5 / 1.5).ln() * 2.0 * 2.2 / (2.0 + 1.2 * (0.25 + 0.75 * 3.0 / (8.0 / 3.0)));
        assert!((found[0].score - want).abs() < 1e-9, "{found:?} {want}");
    }

    #[test]
    fn a_share_tells_how_much_of_a_query_is_met() {
        let filler = (0..40).map(|n| format!("thank you for the plan number {n} and the wind"));
        let mut all: Vec<String> = filler.collect();
        all.push("the harbour ledger is in the blue cabinet".to_owned());
        let h = history(&all);
        let mut index = Index::default();
        index.add(&h);
        let best = |query: &str| index.find(query, 1, &|_| true)[0];
        assert_eq!(best("where is the harbour ledger").place.message, 40);
        let shares = ["where is the harbour ledger", "harbour plan number 3 and the wind for you", "thank you"];
        let [asked, half, nothing] = shares.map(|query| best(query).share);
        assert!(asked > 0.9 && (0.3..0.9).contains(&half) && nothing < 0.1, "{asked} {half} {nothing}");
    }

    #[test]
    fn neighbours_in_a_group_share_in_its_best() {
        let h = history(&texts(&["where is the key", "under the stone", "where to", "somewhere else entirely the"]));
        let mut index = Index::default();
        index.add(&h);
        let found = index.find("the key", 9, &|_| true);
        let score = |message| found.iter().find(|found| found.place.message == message).unwrap().score;
        assert!(score(1) > score(3));
    }

    #[test]
    fn past_its_bound_the_oldest_is_forgotten() {
        let all: Vec<String> = (0..400).map(|n| format!("needle{n} in passage number {n}")).collect();
        let h = history(&all);
        let mut index = Index::new(20_000);
        index.add(&h);
        assert!(index.bytes() <= 20_000 && index.len() > 50, "{} {}", index.bytes(), index.len());
        assert!(index.find("needle3", 9, &|_| true).is_empty());
        assert_eq!(index.find("needle399", 1, &|_| true)[0].place.message, 399);
        let postings: usize = index.postings.values().map(Vec::len).sum();
        let counted = index.postings.len() * TERM_BYTES + postings * POSTING_BYTES + index.len() * size_of::<Passage>();
        assert_eq!(index.bytes(), counted);
    }

    #[test]
    fn long_texts_are_cut_at_blanks_and_nothing_is_lost() {
        for text in ["word ".repeat(2_000), "字".repeat(3_000), "一二三，".repeat(900), "x".repeat(5_000)] {
            let h = history(std::slice::from_ref(&text));
            let mut joined = String::new();
            passages(&h, 0, &mut |_, passage| {
                assert!(passage.len() <= PASSAGE_BYTES + PASSAGE_BYTES / 2 + 4);
                joined.push_str(passage);
            });
            assert_eq!(joined.trim(), text.trim());
        }
    }
}
