//! Any conversation under any budget gives a valid window: checked by rules written apart from the
//! room (`checker.rs`), and by the simulated API's validator.
//!
//! A run is seeds `TIDEGATE_TALKS_FROM` (0) to as many as `TIDEGATE_TALKS` says (400 if unset). Each
//! seed is a conversation of some twenty requests with a budget of its own; after each request the
//! window is made with the view of the one before. A failure prints its seed.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene should stop")]

mod checker;
mod talk;

use bytes::Bytes;
use checker::{Tally, Verdict};
use serde_json::Value;
use std::collections::BTreeSet;
use talk::{MARK, Payload};
use tidegate_base::{Moment, Prng};
use tidegate_conversation::budget::{Budget, Rules};
use tidegate_conversation::history::History;
use tidegate_conversation::message::Message;
use tidegate_conversation::recall::{self, Index};
use tidegate_conversation::valid::{self, End};
use tidegate_conversation::window::{Fate, Standing, TooLarge, View, Wanted, What, Window, build};
use tidegate_simulator::{Action, Opening, RequestFacts, Scenario, Simulator};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[test]
fn any_conversation_under_any_budget_gives_valid_windows() {
    let (from, count) = (number("TIDEGATE_TALKS_FROM", 0), number("TIDEGATE_TALKS", 400));
    let payloads = talk::payloads();
    let mut judge = Judge::new();
    let mut tally = Tally::new();
    for seed in from..from + count {
        if let Err(why) = run(seed, &payloads, &mut judge, &mut tally) {
            panic!("seed {seed}: {why}\nagain with TIDEGATE_TALKS_FROM={seed} TIDEGATE_TALKS=1");
        }
    }
    println!("{count} conversations from seed {from}: {tally:?}");
    // A run in which nothing was cut, elided or refused has shown nothing.
    for what in ["windows", "cuts", "elided", "thoughtless", "dropped", "summaries", "recalled", "pinned", "refused"] {
        assert!(count < 400 || tally.get(what).is_some_and(|n| *n > 0), "no {what} in {tally:?}");
    }
}

/// The simulated API, asked to count tokens: it validates first.
struct Judge(Simulator, u64);

impl Judge {
    fn new() -> Self {
        Judge(Simulator::new(Scenario::parse("[quota]\ntier = \"unlimited\"\n").unwrap(), 1, 0), 0)
    }

    fn accepts(&mut self, body: &[u8]) -> Verdict {
        let whole = [br#"{"model":"claude-opus-4-8","messages":"#, body, b"}"].concat();
        let headers = [("x-api-key", "sk-ant-test-1"), ("anthropic-version", "2026-10-21")];
        let facts =
            RequestFacts { method: "POST", target: "/v1/messages/count_tokens", headers: &headers, body: &whole };
        let mut exchange = self.0.begin(Moment::ZERO, &facts);
        self.0.ended(Moment::ZERO, exchange.ordinal, exchange.playback.progress());
        self.1 += 1;
        if self.1.is_multiple_of(1_000) {
            self.0.reset_truth(Moment::ZERO);
        }
        let Opening::Head(head) = &exchange.opening else { return Err("no answer".into()) };
        if head.status == 200 {
            return Ok(());
        }
        let mut text = Vec::new();
        for step in exchange.playback.by_ref() {
            if let Action::Send(bytes) = step.action {
                text.extend_from_slice(&bytes);
            }
        }
        Err(format!("the simulator says {}: {}", head.status, String::from_utf8_lossy(&text)))
    }
}

/// One conversation with its own budget.
struct Case<'a> {
    payloads: &'a [Payload; 2],
    rules: Rules,
    budget: Budget,
    per_token: u64,
    elsewhere: usize,
    texts: Vec<String>,
    said: Vec<Value>,
    history: History,
    index: Index,
    view: View,
    before: Option<Window>,
    sent_before: Vec<Value>,
    pins: BTreeSet<usize>,
}

fn run(seed: u64, payloads: &[Payload; 2], judge: &mut Judge, tally: &mut Tally) -> Verdict {
    let talk = talk::talk(seed, payloads);
    let mut prng = Prng::new(seed).fork("budget");
    let per_token = prng.between(1, 5);
    let whole: u64 = talk.steps.iter().flatten().map(|text| cost(text, payloads, per_token)).sum();
    let room = (whole as f64 * (0.05 + 1.2 * prng.unit())) as u64 + 300;
    let rules = Rules { keep_groups: prng.between(1, 4) as usize, ..Rules::default() };
    let (max_tokens, margin, fixed) = (prng.below(5_000), prng.below(500), prng.below(3_000));
    let budget = Budget { window: room + max_tokens + margin + fixed, max_tokens, margin, fixed };
    let mut case = Case {
        payloads,
        rules,
        budget,
        per_token,
        elsewhere: prng.below(3) as usize,
        texts: Vec::new(),
        said: Vec::new(),
        history: History::default(),
        index: Index::new(200_000),
        view: View::default(),
        before: None,
        sent_before: Vec::new(),
        pins: BTreeSet::new(),
    };
    let pinning = prng.chance(0.15);
    for step in &talk.steps {
        let new = case.add(step);
        if pinning && prng.chance(0.1) {
            let id = prng.below(case.texts.len() as u64) as usize;
            case.pins.insert(id);
            case.history.pin(id);
            *tally.entry("pinned").or_default() += 1;
        }
        let summary = prng.chance(0.3).then(|| case.summary(&mut prng));
        match case.window(seed, summary.as_ref(), prng.chance(0.5)) {
            Ok(window) => {
                let sent = case.check(&window, new, judge, &mut prng, tally);
                case.sent_before = sent.map_err(|why| format!("{} messages: {why}", case.texts.len()))?;
                case.view = window.view.clone();
                case.before = Some(window);
            }
            Err(error) => {
                *tally.entry("refused").or_default() += 1;
                return case.justified(&error);
            }
        }
    }
    Ok(())
}

/// Tokens by the documentation: text by its length, what is base64 by pixel and page.
fn cost(text: &str, payloads: &[Payload; 2], per_token: u64) -> u64 {
    let mut sum = 0;
    let mut pieces = vec![text];
    let has_data = memchr::memmem::find(text.as_bytes(), b"\"base64\"").is_some();
    for payload in payloads.iter().filter(|_| has_data) {
        let mut next = Vec::new();
        for piece in pieces {
            let parts: Vec<&str> = piece.split(payload.base64.as_str()).collect();
            sum += (parts.len() as u64 - 1) * payload.tokens;
            next.extend(parts);
        }
        pieces = next;
    }
    sum + pieces.iter().map(|piece| (piece.len() as u64).div_ceil(per_token)).sum::<u64>()
}

impl Case<'_> {
    fn add(&mut self, step: &[String]) -> u64 {
        let mut new = 0;
        for text in step {
            let tokens = cost(text, self.payloads, self.per_token);
            let message = Message::read(Bytes::copy_from_slice(text.as_bytes())).unwrap();
            let per_token = self.per_token;
            let estimated = message.tokens(&|text| (text.len() as u64).div_ceil(per_token));
            assert_eq!(estimated, tokens, "the estimate of a message is not what the documentation says");
            self.history.push(message, estimated).unwrap();
            self.said.push(checker::plain(serde_json::from_str(text).unwrap()));
            self.texts.push(text.clone());
            new += tokens;
        }
        self.index.add(&self.history);
        new
    }

    /// A summary for some of the groups: often one that can be used, sometimes one that cannot.
    fn summary(&self, prng: &mut Prng) -> Standing {
        let until = prng.below(self.texts.len() as u64 + 1) as usize;
        let group = checker::groups(&self.said).into_iter().find(|group| group.contains(&until));
        let until = if prng.chance(0.8) { group.map_or(until, |group| group.start) } else { until };
        let from = if prng.chance(0.5) { 0 } else { self.view.cut.min(until) };
        Standing { from, until, text: "<conversation-summary>short</conversation-summary>".into() }
    }

    fn window(&self, seed: u64, summary: Option<&Standing>, recalling: bool) -> Result<Window, TooLarge> {
        let per_token = self.per_token;
        let estimate = move |text: &[u8]| (text.len() as u64).div_ceil(per_token);
        let query = recall::query(&self.history);
        let found = recall::recall(&self.index, &self.history, &self.view, &query, self.budget.room() / 10, &estimate);
        build(&Wanted {
            history: &self.history,
            view: &self.view,
            budget: self.budget,
            rules: self.rules,
            conversation: seed,
            summary,
            recalled: found.as_ref().filter(|_| recalling).map(|found| found.text.as_str()),
            marks_elsewhere: self.elsewhere,
            set_marks: true,
            estimate: &estimate,
        })
    }

    fn check(
        &self,
        window: &Window,
        new: u64,
        judge: &mut Judge,
        prng: &mut Prng,
        tally: &mut Tally,
    ) -> Result<Vec<Value>, String> {
        let body: Value = serde_json::from_slice(&window.body).map_err(|error| error.to_string())?;
        let raw = body.as_array().ok_or("no list")?;
        let clients = self.texts.iter().any(|text| text.contains(MARK));
        checker::marked(raw, self.elsewhere, !clients)?;
        let sent: Vec<Value> = raw.iter().cloned().map(checker::plain).collect();
        checker::well_formed(&sent)?;
        // Pins hold from the next cut on: until then, those of the view.
        let pinned = if window.is_cut { &self.pins } else { &window.view.pinned };
        let account = checker::faithful(&sent, &self.said, pinned)?;
        judge.accepts(&window.body)?;
        valid::check(&window.body, End::User, self.elsewhere).map_err(|broken| broken.to_string())?;
        self.notices(raw, judge, prng, tally)?;

        let tokens: u64 = window.messages.iter().map(|text| self.cost(&String::from_utf8_lossy(text))).sum();
        // A client's marks that were too many are counted and not sent.
        let marks = (self.texts.iter().filter(|text| text.contains(MARK)).count() * MARK.len()) as u64;
        if tokens > window.tokens || tokens + marks < window.tokens {
            return Err(format!("{tokens} tokens, and it says {}", window.tokens));
        }
        let budget = self.budget;
        if tokens + budget.fixed + budget.max_tokens + budget.margin > budget.window {
            return Err(format!("{tokens} tokens are over {budget:?}"));
        }
        self.no_media_unsaid(window, &sent)?;
        self.prefix_holds(window, &sent, new)?;

        let mut count = |what, holds: bool| *tally.entry(what).or_default() += u64::from(holds);
        count("windows", true);
        count("cuts", window.is_cut);
        count("elided", !window.view.elided.is_empty());
        count("thoughtless", window.view.thinking_before > window.view.cut);
        count("dropped", window.view.cut > 0);
        count("summaries", window.view.summary.is_some());
        count("recalled", sent.iter().any(checker::is_recalled));
        *tally.entry("messages").or_default() += account.from.len() as u64;
        Ok(sent)
    }

    /// Breaks a window and sees whether the room's last look notices whatever the rules here or the
    /// simulator do, and nothing else.
    fn notices(&self, sent: &[Value], judge: &mut Judge, prng: &mut Prng, tally: &mut Tally) -> Verdict {
        let mut broken = sent.to_vec();
        let at = prng.below(sent.len() as u64) as usize;
        let other = prng.below(sent.len() as u64) as usize;
        match prng.below(4) {
            0 => drop(broken.remove(at)),
            1 => broken.insert(other, sent[at].clone()),
            2 => broken.swap(at, other),
            _ => {
                let Some(blocks) = broken[at]["content"].as_array_mut().filter(|blocks| blocks.len() > 1) else {
                    return Ok(());
                };
                blocks.remove(prng.below(blocks.len() as u64) as usize);
            }
        }
        let plain: Vec<Value> = broken.iter().cloned().map(checker::plain).collect();
        let rules = checker::well_formed(&plain).and(checker::marked(&broken, self.elsewhere, false));
        let text = Value::Array(broken).to_string();
        let look = valid::check(text.as_bytes(), End::User, self.elsewhere);
        if rules.is_ok() != look.is_ok() {
            return Err(format!(
                "broken on purpose: the rules say {rules:?}, the last look says {look:?}: {text:.3000}"
            ));
        }
        if look.is_ok()
            && let Err(why) = judge.accepts(text.as_bytes())
        {
            return Err(format!("broken on purpose and not noticed: {why}"));
        }
        *tally.entry("broken and noticed").or_default() += u64::from(look.is_err());
        Ok(())
    }

    fn cost(&self, text: &str) -> u64 {
        cost(text, self.payloads, self.per_token)
    }

    /// Each image and document is in a line of the account, and those that are sent are in one that
    /// says so.
    fn no_media_unsaid(&self, window: &Window, sent: &[Value]) -> Verdict {
        let said: usize = self.said.iter().map(checker::media).sum();
        let lines: usize = window.parts.iter().map(|part| part.media).sum();
        if said != lines {
            return Err(format!("{said} images and documents were said, {lines} are accounted for"));
        }
        let whole = window.parts.iter().filter(|part| matches!(part.fate, Fate::In(_)));
        let whole: usize = whole.map(|part| part.media).sum();
        let sent: usize = sent.iter().map(checker::media).sum();
        if sent < whole {
            return Err(format!("{sent} images and documents are sent, {whole} are said to be in"));
        }
        let covered: BTreeSet<usize> = window
            .parts
            .iter()
            .flat_map(|part| match part.what {
                What::Messages { from, until } => from..until,
                _ => 0..0,
            })
            .collect();
        if covered.len() != self.said.len() { Err("messages without a line".into()) } else { Ok(()) }
    }

    /// Between cuts each window begins with the one before, byte for byte but for marks; and a cut
    /// is made only past the high mark.
    fn prefix_holds(&self, window: &Window, sent: &[Value], new: u64) -> Verdict {
        let Some(before) = &self.before else { return Ok(()) };
        let texts = |window: &Window| -> Vec<String> {
            let texts = window.messages.iter().map(|text| String::from_utf8_lossy(text).replace(MARK, ""));
            texts.filter(|text| !text.contains("\"text\":\"<recalled>")).collect()
        };
        if window.is_cut {
            let grown: u64 = texts(before).iter().map(|text| self.cost(text)).sum::<u64>() + new;
            // The marks of a client are counted in `new` and not in what is left of them.
            let marks = (self.texts.len() * MARK.len()) as u64;
            let high = self.budget.room() * 75 * 949 / 100_000;
            return if grown + marks < high { Err(format!("cut at {grown} of {high}")) } else { Ok(()) };
        }
        if !texts(window).starts_with(&texts(before)) {
            return Err("the prefix has changed without a cut".into());
        }
        let lasting = |sent: &[Value]| -> Vec<Value> {
            sent.iter().filter(|message| !checker::is_recalled(message)).cloned().collect()
        };
        let same = lasting(sent).starts_with(&lasting(&self.sent_before));
        if same { Ok(()) } else { Err("the body's prefix has changed".into()) }
    }

    /// A refusal is right only if what must be sent does not fit, give or take what stands for what
    /// is gone.
    fn justified(&self, error: &TooLarge) -> Verdict {
        let least = checker::least(&self.said, &self.texts, &self.pins, &|text| self.cost(text));
        let ours = 400 / self.per_token + self.texts.len() as u64;
        if least + ours <= self.budget.room() {
            return Err(format!("refused ({error}), but {least} tokens would do"));
        }
        Ok(())
    }
}
