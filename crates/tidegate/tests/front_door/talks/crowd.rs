//! A thousand conversations at once, and what each of them knows: what it asked and what it was told.
//!
//! They are clients as the SDKs are: one request at a time, the same body again with
//! `x-stainless-retry-count` if the connection broke. Half of them stream; a third send the whole
//! history each time and the others what is new; some think, some are slow enough to be met in
//! mid-stream.

use super::heard::{Heard, without_nulls};
use super::line::{Answer, Line};
use super::{ANSWER_MAX, TENANT};
use crate::wire::post;
use serde_json::{Value, json};
use std::cell::Cell;
use std::io::Result;
use std::net::SocketAddr;
use std::rc::Rc;
use tidegate_store::{Status, Turn};
use tokio::task::LocalSet;

/// Conversations.
pub(super) const CROWD: usize = 1_000;

/// What a client has in its hands of an answer it read to the end.
enum Told {
    /// The JSON, byte for byte.
    Json(Vec<u8>),
    /// The message its events made.
    Stream(Value),
}

impl Told {
    fn message(&self) -> Value {
        match self {
            Told::Json(bytes) => serde_json::from_slice(bytes).unwrap(),
            Told::Stream(message) => message.clone(),
        }
    }
}

/// A turn that its client saw the end of.
struct Acknowledged {
    /// Its new message.
    asked: String,
    told: Told,
}

/// A turn whose end was not seen.
struct UnderWay {
    asked: String,
    body: String,
    /// Whether it was found in the file.
    is_kept: bool,
}

/// One conversation.
pub(super) struct Talk {
    nth: usize,
    acknowledged: Vec<Acknowledged>,
    under_way: Option<UnderWay>,
}

/// What happened, summed up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) acknowledged: u64,
    /// In the file though nobody was told.
    pub(super) ahead: u64,
    /// Found again by a retry.
    pub(super) replayed: u64,
    /// Asked again since nothing was kept.
    pub(super) again: u64,
}

impl Talk {
    pub(super) fn new(nth: usize) -> Self {
        Talk { nth, acknowledged: Vec::new(), under_way: None }
    }

    pub(super) fn name(&self) -> String {
        format!("talk-{}", self.nth)
    }

    fn streams(&self) -> bool {
        self.nth.is_multiple_of(2)
    }

    /// The next turn: its message, and the body that carries it.
    fn next(&self) -> UnderWay {
        let number = self.acknowledged.len() + 1;
        let text = format!("Turn {number} of talk {}: \u{6f6e}\u{6c50} \"{}\"", self.nth, "tide ".repeat(number % 7));
        let asked = json!({"role": "user", "content": text}).to_string();
        let mut messages = Vec::new();
        if self.nth.is_multiple_of(3) {
            for turn in &self.acknowledged {
                let content = turn.told.message()["content"].clone();
                messages.push(turn.asked.clone());
                messages.push(json!({"role": "assistant", "content": content}).to_string());
            }
        }
        messages.push(asked.clone());
        let thinking =
            if self.nth.is_multiple_of(5) { ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024}" } else { "" };
        let body = format!(
            "{{\"model\":\"claude-haiku-4-5\",\"max_tokens\":2000,\"stream\":{}{thinking},\"messages\":[{}]}}",
            self.streams(),
            messages.join(",")
        );
        UnderWay { asked, body, is_kept: false }
    }

    /// Takes turns until the connection breaks.
    async fn go_on(&mut self, at: SocketAddr, tally: &Rc<Cell<Tally>>) {
        let again = self.under_way.is_some();
        if let Err(error) = self.turns(at, again, tally).await {
            assert_ne!(error.kind(), std::io::ErrorKind::TimedOut, "{} waits for ever", self.name());
        }
    }

    async fn turns(&mut self, at: SocketAddr, mut again: bool, tally: &Rc<Cell<Tally>>) -> Result<()> {
        let mut line = Line::to(at).await?;
        loop {
            if self.under_way.is_none() {
                self.under_way = Some(self.next());
            }
            let Some(turn) = &self.under_way else { continue };
            let (number, name) = ((self.acknowledged.len() + 1).to_string(), self.name());
            let pace = if self.nth.is_multiple_of(7) { "event_ms=4" } else { "event_ms=0" };
            let simulate = format!("output_tokens=5-30, thinking_tokens=5-20, head_ms=0, first_ms=0, {pace}");
            let lines = [
                ("tidegate-conversation", name.as_str()),
                ("tidegate-turn", &number),
                ("x-stainless-retry-count", if again { "1" } else { "0" }),
                ("simulate", &simulate),
            ];
            line.send(&post(&lines, &turn.body)).await?;
            let heard = tokio::time::timeout(ANSWER_MAX, read(&mut line, self.streams())).await;
            let (answer, told) = heard.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
            assert_eq!(answer.status, 200, "{name}, {number}: {}", String::from_utf8_lossy(&answer.body));
            assert_eq!(answer.header("tidegate-turn"), Some(number.as_str()));
            let mut sums = tally.get();
            let replayed = answer.header("tidegate-replayed") == Some("true");
            assert_eq!(replayed, turn.is_kept, "{name}, {number}: what is in the file is given again, and only that");
            sums.replayed += u64::from(replayed);
            sums.again += u64::from(again && !replayed);
            sums.acknowledged += 1;
            tally.set(sums);
            self.acknowledged.extend(self.under_way.take().map(|turn| Acknowledged { asked: turn.asked, told }));
            again = false;
            // Where the answer's framing did not come to its end, the next request has to wait for it.
            let mut answer = answer;
            while line.more(&mut answer).await? {}
        }
    }

    /// Compares the file with what the client knows.
    pub(super) fn verify(&mut self, found: &[Turn], tally: &mut Tally, when: &str) {
        let name = self.name();
        let known = self.acknowledged.len();
        assert!(found.len() >= known, "{when}: {name} was told of {known} turns, {} are there", found.len());
        for (nth, (turn, known)) in found.iter().zip(&self.acknowledged).enumerate() {
            check(turn, nth, &known.asked, &format!("{when}, {name}"));
            let answer = turn.content.answer.as_deref().expect("an answer");
            match &known.told {
                Told::Json(bytes) => assert!(answer == &bytes[..], "{when}, {name}, turn {nth}: other bytes"),
                Told::Stream(message) => {
                    let stored: Value = serde_json::from_slice(answer).unwrap();
                    assert_eq!(without_nulls(&stored), without_nulls(message), "{when}, {name}, turn {nth}");
                }
            }
        }
        match (&found[known..], &mut self.under_way) {
            ([], _) => {}
            ([ahead], Some(turn)) => {
                check(ahead, known, &turn.asked, &format!("{when}, {name}"));
                tally.ahead += u64::from(!turn.is_kept);
                turn.is_kept = true;
            }
            (more, _) => panic!("{when}: {name} asked for {known} turns, and there are {} more", more.len()),
        }
    }
}

fn check(turn: &Turn, nth: usize, asked: &str, whose: &str) {
    assert_eq!(turn.number as usize, nth + 1, "{whose}: dense from 1");
    assert_eq!(turn.content.status, Status::Complete, "{whose}");
    assert_eq!(String::from_utf8_lossy(&turn.content.request), format!("[{asked}]"), "{whose}: what was asked");
}

/// Reads an answer until its client knows that it is over.
async fn read(line: &mut Line, streams: bool) -> Result<(Answer, Told)> {
    let mut answer = line.head().await?;
    let mut heard = Heard::default();
    loop {
        if streams && answer.status == 200 {
            heard.read(&answer.body);
            assert!(heard.error.is_none(), "{:?}", heard.error);
            if let Some(message) = heard.message() {
                return Ok((answer, Told::Stream(message)));
            }
        }
        if !line.more(&mut answer).await? {
            let json = answer.body.clone();
            return Ok((answer, Told::Json(json)));
        }
    }
}

/// Lets them all go on until `over`, and then until each has noticed that nobody answers. Returns
/// what the round came to.
pub(super) async fn round(
    talks: Vec<Talk>,
    at: SocketAddr,
    over: impl AsyncFnOnce(&Rc<Cell<Tally>>),
) -> (Vec<Talk>, Tally) {
    let tally = Rc::new(Cell::new(Tally::default()));
    let tasks = LocalSet::new();
    let running: Vec<_> = talks
        .into_iter()
        .map(|mut talk| {
            let tally = Rc::clone(&tally);
            tasks.spawn_local(async move {
                talk.go_on(at, &tally).await;
                talk
            })
        })
        .collect();
    tasks.run_until(over(&tally)).await;
    let ended = async {
        let mut talks = Vec::with_capacity(running.len());
        for task in running {
            talks.push(task.await.expect("a client's assertion"));
        }
        talks
    };
    let talks = tokio::time::timeout(ANSWER_MAX, tasks.run_until(ended)).await.expect("every client notices");
    (talks, tally.get())
}

/// Compares all of them with the file.
pub(super) fn verify(talks: &mut [Talk], file: &str, tally: &mut Tally, when: &str) {
    let store = super::open(file);
    for talk in talks {
        talk.verify(&super::turns(&store, &talk.name()), tally, when);
    }
    let findings = store.check().wait().unwrap();
    assert!(findings.is_empty(), "{when}: {findings:?}");
    let stats = store.stats().wait().unwrap();
    assert!(stats.tenants.iter().all(|tenant| tenant.tenant == TENANT), "{when}: {stats:?}");
}
