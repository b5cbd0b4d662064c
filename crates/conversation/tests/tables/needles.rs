//! Whether a fact that was said once is still there when it is asked for: facts planted at random
//! depths of conversations of 200 turns, each asked for at the end, and looked for in what is sent,
//! letter by letter. No model judges.
//!
//! Compared at equal tokens: the newest messages that fit (plain truncation), and a window with a
//! tenth of its room for excerpts. The questions share words with the facts, as people's do, and
//! other turns share words with both.

use super::{estimate, talks};
use bytes::Bytes;
use tidegate_base::Prng;
use tidegate_conversation::budget::{Budget, Rules};
use tidegate_conversation::history::History;
use tidegate_conversation::message::Message;
use tidegate_conversation::recall::{Index, query, recall};
use tidegate_conversation::window::{View, Wanted, build};

const TURNS: usize = 200;
const FACTS: usize = 10;
const ROOM: u64 = 20_000;

/// What is said, what is asked, and what has to be found: `{}` is the fact's own number.
const ENGLISH: [(&str, &str); 5] = [
    ("By the way, the access code of the north depot is {}.", "What was the access code of the north depot?"),
    ("Our supplier for oak is Maren Holt, contract {}.", "Which contract do we have with Maren Holt?"),
    ("The pump in hall seven has serial number {}.", "Tell me the serial number of the pump in hall seven."),
    ("I promised the museum delivery under order {}.", "Under which order did I promise the museum delivery?"),
    ("The budget for the quay wall is {} euros.", "How large is the budget for the quay wall?"),
];
const CHINESE: [(&str, &str); 5] = [
    ("顺便说一下，北仓库的门禁密码是{}。", "北仓库的门禁密码是多少？"),
    ("橡木供应商的合同编号是{}。", "橡木供应商的合同编号是什么？"),
    ("七号厂房水泵的序列号为{}。", "请告诉我七号厂房水泵的序列号。"),
    ("博物馆的货在订单{}里。", "博物馆的货在哪个订单里？"),
    ("码头墙的预算是{}欧元。", "码头墙的预算有多少？"),
];

/// Turns around the facts talk of the same things.
const SMALL_TALK: [&str; 8] = [
    "the depot was busy today and the pump made noise in hall seven ",
    "we should order more oak for the wall before the museum opens ",
    "the budget is tight, as every year, and the north wind is cold ",
    "a contract is a contract, said the supplier, and asked for a number ",
    "仓库今天很忙，七号厂房的水泵有噪音。",
    "博物馆开放之前我们要多订一些橡木。",
    "预算和往年一样紧张，码头的北风很冷。",
    "供应商说合同就是合同，然后要了一个编号。",
];

#[derive(Default)]
struct Score {
    asked: u64,
    ours: u64,
    plain: u64,
    excerpts_only: u64,
}

fn say(history: &mut History, index: &mut Index, role: &str, text: &str) {
    let message = serde_json::json!({"role": role, "content": text}).to_string();
    let message = Message::read(Bytes::from(message)).unwrap();
    let tokens = message.tokens(&estimate);
    history.push(message, tokens).unwrap();
    index.add(history);
}

fn small_talk(prng: &mut Prng) -> String {
    (0..prng.between(4, 12)).map(|_| prng.pick(&SMALL_TALK).copied().unwrap_or("x")).collect()
}

fn window<'a>(history: &'a History, view: &'a View, recalled: Option<&'a str>) -> Wanted<'a> {
    Wanted {
        history,
        view,
        budget: Budget { window: ROOM, max_tokens: 0, margin: 0, fixed: 0 },
        rules: Rules::default(),
        conversation: 50,
        summary: None,
        recalled,
        marks_elsewhere: 0,
        set_marks: true,
        estimate: &estimate,
    }
}

/// `amid`: whether the question stands among other talk.
fn run(seed: u64, amid: bool, score: &mut Score) {
    let mut prng = Prng::new(seed).fork("needles");
    let (mut history, mut index, mut view) = (History::default(), Index::default(), View::default());
    let mut facts: Vec<(usize, usize, String)> = (0..FACTS)
        .map(|nth| (prng.below(TURNS as u64) as usize, nth, format!("{}-{}", prng.between(1_000, 9_999), nth)))
        .collect();
    facts.sort();
    for turn in 0..TURNS {
        let mut text = small_talk(&mut prng);
        for (_, nth, value) in facts.iter().filter(|(at, ..)| *at == turn) {
            let (fact, _) = if *nth < 5 { ENGLISH[*nth] } else { CHINESE[nth - 5] };
            text = format!("{text}{} {}", fact.replace("{}", value), small_talk(&mut prng));
        }
        say(&mut history, &mut index, "user", &text);
        view = build(&window(&history, &view, None)).unwrap().view;
        let answer = small_talk(&mut prng);
        say(&mut history, &mut index, "assistant", &answer);
    }
    for (_, nth, value) in &facts {
        let (_, question) = if *nth < 5 { ENGLISH[*nth] } else { CHINESE[nth - 5] };
        let (mut history, mut index) = (history.clone(), index.clone());
        let (before, after) = (small_talk(&mut prng), small_talk(&mut prng));
        let question = if amid { format!("{before}. {question} {after}") } else { question.to_owned() };
        say(&mut history, &mut index, "user", &question);
        let found = recall(&index, &history, &view, &query(&history), ROOM / 10, &estimate);
        let found = found.map(|found| found.text);
        let sent = build(&window(&history, &view, found.as_deref())).unwrap();
        let holds = |text: &[u8]| memchr::memmem::find(text, value.as_bytes()).is_some();
        let mut left = sent.tokens;
        let newest = history.entries().iter().rev().take_while(|entry| {
            let fits = entry.tokens <= left;
            left = left.saturating_sub(entry.tokens);
            fits
        });
        score.asked += 1;
        score.ours += u64::from(holds(&sent.body));
        score.plain += u64::from(newest.into_iter().any(|entry| holds(entry.message.raw())));
        score.excerpts_only += u64::from(found.is_some_and(|text| holds(text.as_bytes())));
    }
}

fn table(amid: bool) -> (f64, f64) {
    let mut score = Score::default();
    (0..talks()).for_each(|seed| run(seed, amid, &mut score));
    let share = |n: u64| 100.0 * n as f64 / score.asked as f64;
    println!("\n{} facts in {} conversations of {TURNS} turns, {ROOM} tokens of room:\n", score.asked, talks());
    println!("| what is sent | facts in it |\n|---|---|");
    println!("| the newest messages that fit in as many tokens | {:.1} % |", share(score.plain));
    println!("| a window and excerpts | {:.1} % |", share(score.ours));
    println!("| (of which in the excerpts) | {:.1} % |", share(score.excerpts_only));
    (share(score.ours), share(score.plain))
}

#[test]
fn a_fact_that_was_said_once_is_found_again() {
    println!("\nAsked alone:");
    let (ours, plain) = table(false);
    assert!(ours >= 97.0, "only {ours:.1} % are found");
    assert!(plain < ours / 2.0);
}

#[test]
fn a_fact_is_found_though_the_question_stands_amid_other_talk() {
    println!("\nAsked amid other talk:");
    let (ours, _) = table(true);
    assert!(ours >= 90.0, "only {ours:.1} % are found");
}
