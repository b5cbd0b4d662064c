//! Turns that do not come to their end, in every way there is: clients that leave, an upstream that
//! breaks, deadlines, operators, a drain. Then the rule is held against the file (a turn is there as
//! interrupted with what was passed on, or it is not there), and the next turn against the
//! simulator's validator.
//!
//! Each conversation draws its steps from a seed of its own, which a failure names;
//! `TIDEGATE_BROKEN_SEED` and `TIDEGATE_BROKEN_TALKS` choose others and more.

use super::heard::{Heard, without_nulls};
use super::line::{Answer, Line};
use super::{ANSWER_MAX, runtime, turns};
use crate::process::{Folder, Tidegate};
use crate::wire::{bare, post};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tidegate_base::Prng;
use tidegate_store::{Status, Store, Turn};
use tokio::task::LocalSet;

/// Conversations at once.
const TALKS: u64 = 60;
/// Steps of each before the drain, and after it.
const STEPS: usize = 12;
const STEPS_AFTER: usize = 3;

/// What became of a turn, as far as its client can know.
enum Became {
    /// Its end was seen.
    Whole(Value),
    /// It was told that this is all.
    Broken(Vec<Value>),
    /// It was refused, so nothing is there.
    Refused,
    /// The client left, having seen so much; of a buffered answer, nothing.
    Left { streamed: bool, seen: Heard },
}

struct Step {
    what: String,
    asked: String,
    /// The number it was told.
    number: Option<u32>,
    became: Became,
}

/// One client.
struct Client {
    name: String,
    dice: Prng,
    thinks: bool,
    steps: Vec<Step>,
    /// Calls that wait for their results.
    calls: Vec<String>,
}

/// What ends a turn.
#[derive(Clone, Debug, PartialEq)]
enum End {
    Whole,
    Fault(String),
    Deadline,
    /// The client leaves when so many events have come.
    Leaves(usize),
    Operator,
    /// It goes on until the gateway ends it.
    Drain,
}

#[derive(Clone, Copy)]
struct Doors {
    gateway: SocketAddr,
    admin: SocketAddr,
}

impl Client {
    fn new(seed: u64, nth: u64) -> Self {
        let dice = Prng::new(seed).fork(&format!("client {nth}"));
        let name = format!("broken-{nth}");
        Client { name, dice, thinks: nth.is_multiple_of(3), steps: Vec::new(), calls: Vec::new() }
    }

    fn draw(&mut self) -> End {
        let dice = &mut self.dice;
        let event = dice.below(24);
        match dice.below(10) {
            0..3 => End::Whole,
            3 => End::Deadline,
            // Whoever does not know whether its results were taken cannot know what to say next.
            4 | 5 if self.calls.is_empty() => End::Leaves(event as usize),
            6 => End::Operator,
            _ => {
                let kinds = ["reset-at", "close-at", "end-at", "error-at", "garbage-at"];
                let places = ["in-utf8", "in-data", "before-delta", "before-stop", "event"];
                let kind = dice.pick(&kinds).copied().unwrap_or_default();
                let place = dice.pick(&places).copied().unwrap_or_default();
                let place = if place == "event" { format!("event-{event}") } else { place.to_owned() };
                match dice.below(8) {
                    0 => End::Fault("status:500".to_owned()),
                    1 => End::Fault("reset-before-head".to_owned()),
                    // Overloaded, it would be waited for as long as the band may wait.
                    _ if kind == "error-at" => End::Fault(format!("{kind}:{place}:api_error")),
                    _ => End::Fault(format!("{kind}:{place}")),
                }
            }
        }
    }

    fn body(&self, asked: &str, streams: bool, long: bool) -> String {
        let thinking = if self.thinks { ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024}" } else { "" };
        let tools = "[{\"name\":\"look_up\",\"input_schema\":{\"type\":\"object\",\"properties\":{\"key\":{\"type\":\"string\"}},\"required\":[\"key\"]}}]";
        // A long answer that nobody streams is put together; a short one passes through.
        let most = if long { 30_000 } else { 2_000 };
        format!(
            "{{\"model\":\"claude-haiku-4-5\",\"max_tokens\":{most},\"stream\":{streams}{thinking},\"tools\":{tools},\"messages\":[{asked}]}}"
        )
    }

    /// What this client says next: results of the calls it was told of, or something new.
    fn says(&self) -> String {
        let nth = self.steps.len();
        if self.calls.is_empty() {
            return json!({"role": "user", "content": format!("{} says \u{6f6e}\u{6c50}, {nth}", self.name)})
                .to_string();
        }
        let results = self.calls.iter().map(|id| json!({"type":"tool_result","tool_use_id":id,"content":"7"}));
        let mut content: Vec<Value> = results.collect();
        content.push(json!({"type": "text", "text": format!("{nth}")}));
        json!({"role": "user", "content": content}).to_string()
    }

    async fn step(&mut self, doors: Doors, end: End) {
        let (asked, streams, long) = (self.says(), self.dice.chance(0.7), self.dice.chance(0.5));
        let body = self.body(&asked, streams, long);
        // Calls come in turns whose end is heard, or nobody would know that they are to be answered.
        let calls = end == End::Whole && self.dice.chance(0.3);
        let pace = match end {
            End::Whole => "event_ms=0".to_owned(),
            End::Drain => "event_ms=400".to_owned(),
            _ => format!("event_ms={}", self.dice.below(6)),
        };
        let mut simulate =
            format!("output_tokens=20-80, thinking_tokens=5-20, head_ms=0, first_ms=0, jitter_percent=50, {pace}");
        let mut lines = vec![("tidegate-conversation", self.name.clone())];
        if let End::Fault(fault) = &end {
            simulate += &format!(", fault={fault}");
        }
        if calls {
            simulate += ", tool=look_up";
        }
        if end == End::Deadline {
            lines.push(("tidegate-deadline-ms", self.dice.between(20, 200).to_string()));
            simulate += ", fault=stall-at:event-7:20s";
        }
        lines.push(("simulate", simulate));
        let borrowed: Vec<(&str, &str)> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let request = post(&borrowed, &body);
        let what = format!("{}, step {} ({end:?}, stream {streams})", self.name, self.steps.len());
        let done = tokio::time::timeout(ANSWER_MAX, ask(doors, &request, streams, &end, self.dice.chance(0.5))).await;
        let (number, became) = done.unwrap_or_else(|_| panic!("{what}: no end"));
        if end == End::Whole {
            let Became::Whole(message) = &became else { panic!("{what}: a turn that nothing disturbs comes whole") };
            let blocks = message["content"].as_array().unwrap().iter();
            let calls = blocks.filter(|block| block["type"] == "tool_use");
            self.calls = calls.map(|block| block["id"].as_str().unwrap().to_owned()).collect();
        } else if !matches!(&became, Became::Refused) && !matches!(&became, Became::Broken(rest) if rest.is_empty()) {
            self.calls.clear();
        }
        self.steps.push(Step { what, asked, number, became });
    }

    /// Holds the rule against what the file has.
    fn verify(&self, found: &[Turn]) -> [u64; 3] {
        let mut found = found.iter().peekable();
        let (mut complete, mut interrupted, mut absent) = (0, 0, 0);
        for step in &self.steps {
            let what = &step.what;
            let asked = format!("[{}]", step.asked);
            let Some(turn) = found.next_if(|turn| turn.content.request == asked.as_bytes()) else {
                absent += 1;
                match &step.became {
                    Became::Whole(_) => panic!("{what}: its client saw its end, and it is not there"),
                    Became::Broken(rest) => assert!(rest.is_empty(), "{what}: {rest:?} was passed on"),
                    Became::Refused => {}
                    Became::Left { seen, .. } => assert!(seen.rest().is_empty(), "{what}: {:?} was seen", seen.rest()),
                }
                continue;
            };
            let answer: Value = serde_json::from_slice(turn.content.answer.as_deref().expect(what)).unwrap();
            let content = without_nulls(&answer["content"]);
            let text: String = content.as_array().unwrap().iter().filter_map(|b| b["text"].as_str()).collect();
            assert!(step.number.is_none_or(|number| number == turn.number), "{what}: {:?}", step.number);
            let is_whole = turn.content.status == Status::Complete;
            complete += u64::from(is_whole);
            interrupted += u64::from(!is_whole);
            match &step.became {
                Became::Whole(message) => {
                    assert!(is_whole, "{what}: its client saw its end");
                    assert_eq!(without_nulls(&answer), without_nulls(message), "{what}");
                }
                Became::Broken(rest) => {
                    assert!(!is_whole && !rest.is_empty(), "{what}: {:?} is there", turn.content.status);
                    assert_eq!(content, without_nulls(&json!(rest)), "{what}: what was passed on, and no more");
                }
                Became::Refused => panic!("{what}: it was refused, and it is there"),
                Became::Left { streamed, seen } => {
                    assert!(is_whole || *streamed, "{what}: nothing of it was passed on");
                    assert!(text.starts_with(&seen.text()) || seen.rest().is_empty(), "{what}: less than was seen");
                }
            }
        }
        assert!(found.next().is_none(), "{}: a turn that nobody asked for, or out of order", self.name);
        [complete, interrupted, absent]
    }
}

/// Sends a request and reads, or does not read, its answer.
async fn ask(doors: Doors, request: &[u8], streams: bool, end: &End, resets: bool) -> (Option<u32>, Became) {
    let mut line = Line::to(doors.gateway).await.expect("the gateway listens");
    line.send(request).await.expect("a request is taken");
    let mut seen = Heard::default();
    let leaves = |line: Line, number, seen| {
        if resets {
            line.reset();
        }
        (number, Became::Left { streamed: streams, seen })
    };
    if *end == End::Leaves(0) {
        return leaves(line, None, seen);
    }
    let head = match end {
        // A buffered answer's head comes with its end: whoever leaves does so before.
        End::Leaves(events) if !streams => {
            match tokio::time::timeout(Duration::from_millis(2 * *events as u64), line.head()).await {
                Err(_) => return leaves(line, None, seen),
                Ok(head) => head,
            }
        }
        _ => line.head().await,
    };
    let Ok(mut answer) = head else { return (None, Became::Left { streamed: streams, seen }) };
    let number = answer.header("tidegate-turn").map(|number| number.parse().unwrap());
    let mut asked_to_end = false;
    loop {
        if streams && answer.status == 200 {
            seen.read(&answer.body);
            if let Some(message) = seen.message() {
                return (number, Became::Whole(message));
            }
        }
        if matches!(end, End::Leaves(events) if seen.events > *events) {
            return leaves(line, number, seen);
        }
        if *end == End::Operator && !std::mem::replace(&mut asked_to_end, true) {
            cancel(doors.admin, &answer).await;
        }
        match line.more(&mut answer).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(_) => return (number, Became::Left { streamed: streams, seen }),
        }
    }
    let became = match (answer.status, streams) {
        (200, true) => Became::Broken(seen.rest()),
        (200, false) => Became::Whole(serde_json::from_slice(&answer.body).unwrap()),
        (status, _) => {
            assert!(status >= 500 && number.is_none(), "{status}: {}", String::from_utf8_lossy(&answer.body));
            Became::Refused
        }
    };
    (number, became)
}

/// Ends a stream from the operators' door; it may have ended by itself.
async fn cancel(admin: SocketAddr, answer: &Answer) {
    let Some(stream) = answer.header("tidegate-stream") else { return };
    let mut line = Line::to(admin).await.unwrap();
    line.send(bare("DELETE", &format!("/streams/{stream}"), &[]).as_bytes()).await.unwrap();
    assert!([202, 404].contains(&line.head().await.unwrap().status));
}

/// Lets every client take its steps; the last of them is cut by a drain.
fn steps(clients: Vec<Client>, mut tidegate: Tidegate, steps: usize) -> Vec<Client> {
    let doors = Doors { gateway: tidegate.gateway, admin: tidegate.admin };
    let tasks = LocalSet::new();
    let running: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tasks.spawn_local(async move {
                for _ in 0..steps {
                    let end = client.draw();
                    client.step(doors, end).await;
                }
                client
            })
        })
        .collect();
    let runtime = runtime();
    let mut clients = Vec::new();
    runtime.block_on(tasks.run_until(async {
        for client in running {
            clients.push(client.await.expect("a client's assertion"));
        }
    }));
    let truth = tidegate.truth("/truth");
    assert!(truth["statuses"]["400"].is_null(), "the upstream was sent what it cannot take: {truth}");
    let running: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tasks.spawn_local(async move {
                client.step(doors, End::Drain).await;
                client
            })
        })
        .collect();
    let mut clients = Vec::new();
    runtime.block_on(tasks.run_until(async {
        // Most streams have begun by then, and some have not.
        tokio::time::sleep(Duration::from_millis(300)).await;
        tidegate.signal("TERM");
        for client in running {
            clients.push(client.await.expect("a client's assertion"));
        }
    }));
    assert_eq!(tidegate.exit(Duration::from_secs(20)), Some(0), "{}", tidegate.output());
    assert!(!tidegate.output().contains("panicked"), "{}", tidegate.output());
    clients
}

#[test]
fn a_turn_that_broke_off_is_there_as_far_as_it_was_passed_on_and_the_next_one_is_valid() {
    let seed = super::number("TIDEGATE_BROKEN_SEED", 1);
    let talks = super::number("TIDEGATE_BROKEN_TALKS", TALKS);
    println!("{talks} conversations from seed {seed}");
    let folder = Folder::new();
    let file = folder.path("conversations.db");
    let scenario = folder.write("quick.toml", super::QUICK_SCENARIO);
    let config = "[retry]\nattempts_max = 2\nbase = \"1 ms\"\ncap = \"5 ms\"\n[clocks]\ndrain = \"500 ms\"\n";
    let flags = ["--log-level", "error", "--scenario", &scenario, "--conversations", &file];
    let mut clients: Vec<Client> = (0..talks).map(|nth| Client::new(seed, nth)).collect();
    for count in [STEPS, STEPS_AFTER] {
        clients = steps(clients, Tidegate::simulated_with(config, &flags), count);
    }
    let store: Store = super::open(&file);
    let mut sums = [0; 3];
    for client in &clients {
        let found = client.verify(&turns(&store, &client.name));
        sums.iter_mut().zip(found).for_each(|(sum, n)| *sum += n);
    }
    assert_eq!(store.check().wait().unwrap(), Vec::<String>::new());
    let [complete, interrupted, absent] = sums;
    println!("{complete} turns complete, {interrupted} interrupted, {absent} as if they had never been asked");
    assert!(sums.iter().all(|n| *n >= talks / 2), "each of them happened: {sums:?}");
}
