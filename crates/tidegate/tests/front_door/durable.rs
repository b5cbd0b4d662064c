//! Durable streams: whatever becomes of the process, what was kept is told again, and then how it ended.

use crate::process::{Folder, Tidegate, eventually};
use crate::socket::{code_in, text_of as text_in};
use crate::streams::{again, events, last_cursor, text_of};
use crate::teller::{Teller, told, two_tenants};
use crate::upstream::{Upstream, plain};
use crate::wire::{Answer, Wire, bare, code_of, get, message, post};
use serde_json::json;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
const DURABLE: (&str, &str) = ("tidegate-resume", "durable");

/// The lines of a configuration with a conversation log in `folder`.
fn log_in(folder: &Folder) -> String {
    format!("[conversations]\nfile = \"{}\"\n", folder.path("c.db"))
}

fn asked(lines: &[(&str, &str)]) -> String {
    String::from_utf8(post(&[&[DURABLE], lines].concat(), message(true, 4000, "x"))).unwrap()
}

/// Begins a stream and reads it up to `marker`: its connection, its id, and what was read.
fn begun(tidegate: &Tidegate, marker: &str) -> (Wire, String, String) {
    let mut wire = tidegate.client();
    wire.send(asked(&[]));
    let head = wire.head().unwrap();
    assert_eq!(head.status, 200);
    let id = head.header("tidegate-stream").unwrap().to_owned();
    let seen = String::from_utf8(wire.until(marker).unwrap()).unwrap();
    (wire, id, seen)
}

/// Whether `answer` tells a beginning of what the teller says, and then one error: its code, and the text.
#[track_caller]
fn cut(answer: &Answer) -> (String, String) {
    assert_eq!((answer.status, answer.whole), (200, true), "{}", answer.text());
    let all = events(&answer.text());
    let errors = all.iter().filter(|(_, name, _)| name == "error" || name == "message_stop").count();
    assert_eq!(errors, 1, "{all:?}");
    let cursors: Vec<_> = all.iter().map(|(cursor, ..)| cursor.clone().unwrap()).collect();
    assert!(cursors.is_sorted() && cursors.windows(2).all(|two| two[0] != two[1]), "{cursors:?}");
    let text = text_of(&all);
    assert!(told(4_000).starts_with(&text), "{text}");
    (code_of(&answer.last_error()), text)
}

/// The number in a cursor.
fn seq(cursor: &str) -> u64 {
    u64::from_str_radix(&cursor[cursor.len() - 16..], 16).unwrap()
}

fn killed(mut tidegate: Tidegate) {
    tidegate.signal("KILL");
    assert_eq!(tidegate.exit(SECOND * 5), None);
}

#[test]
fn after_a_drain_that_cut_it_a_stream_is_told_to_its_error_by_the_next_process() {
    let teller = Teller::of(2_000, Duration::from_millis(20));
    let folder = Folder::new();
    let config = log_in(&folder) + "[clocks]\ndrain = \"1 s\"\n";
    let mut tidegate = teller.gateway(&config);
    let (mut read, first, seen) = begun(&tidegate, "word3\"}}\n\n");
    let (unread, second, _) = begun(&tidegate, "word3\"}}\n\n");
    drop(unread);
    tidegate.signal("TERM");
    let (rest, _) = read.rest();
    assert_eq!(tidegate.exit(SECOND * 10), Some(0), "{}", tidegate.output());
    let tidegate = teller.gateway(&config);
    let whole = again(&tidegate, &first, "", &[]);
    let (code, text) = cut(&whole);
    // What the first reader was told after `seen`, in its own framing, is what is told now.
    let heard = String::from_utf8(rest).unwrap();
    assert!(code == "draining" && heard.contains("\"draining\"") && heard.ends_with("0\r\n\r\n"), "{code} {heard}");
    // The drain may have cut it before the log's last event: it goes on from its own last cursor.
    let (_, tail) = heard.rsplit_once("\nid: ").unwrap();
    let (cursor, last) = tail.split_once('\n').unwrap();
    let unheard = text_of(&events(&again(&tidegate, &first, cursor, &[]).text()));
    let told = text.strip_suffix(unheard.as_str()).unwrap_or_else(|| panic!("{unheard} {text}"));
    let last_word = told.rsplit(' ').next().unwrap();
    assert!(last.contains(&format!(" {last_word}\"}}}}")), "{last_word} {heard}");
    let from_there = again(&tidegate, &first, &last_cursor(&seen), &[]);
    assert_eq!(text_of(&events(&seen)) + &text_of(&events(&from_there.text())), text);
    assert_eq!(code_of(&from_there.last_error()), "draining");
    assert_eq!(cut(&again(&tidegate, &second, "", &[])).0, "draining");
    assert_eq!(teller.upstream.seen().len(), 2);
    eventually("both upstreams are let go", SECOND * 5, || (teller.left() == 2).then_some(()));
    assert_eq!(tidegate.metric("tidegate_stream_checkpoints_total{outcome=\"failed\"}"), 0.0);
}

#[test]
fn after_a_kill_what_was_kept_is_told_and_what_was_not_is_gone() {
    let teller = Teller::of(2_000, Duration::from_millis(10));
    let folder = Folder::new();
    let tidegate = teller.gateway(&log_in(&folder));
    let (_long, first, seen) = begun(&tidegate, "word200\"}}\n\n");
    // The second checkpoint comes a second after the first.
    let (_short, second, too_far) = begun(&tidegate, "word20\"}}\n\n");
    // The first is on the disk, however slow that is today.
    std::thread::sleep(Duration::from_millis(300));
    killed(tidegate);
    let tidegate = teller.gateway(&log_in(&folder));
    let whole = again(&tidegate, &first, "", &[]);
    let (code, text) = cut(&whole);
    assert_eq!(code, "stream_lost");
    assert!(text.contains("word20 "), "two seconds were read: {text}");
    let kept = events(&whole.text());
    for (at, (cursor, ..)) in kept.iter().enumerate() {
        let rest = again(&tidegate, &first, cursor.as_deref().unwrap(), &[]);
        assert_eq!((rest.status, text_of(&events(&rest.text()))), (200, text_of(&kept[at + 1..])));
    }
    let after = again(&tidegate, &first, &last_cursor(&seen), &[]);
    let (was_kept, had) = (seq(kept[kept.len() - 2].0.as_deref().unwrap()), seq(&last_cursor(&seen)));
    assert_eq!(after.status, if had > was_kept { 410 } else { 200 }, "{had} {was_kept}");
    let gone = again(&tidegate, &second, &last_cursor(&too_far), &[]);
    assert_eq!((gone.status, &*gone.code()), (410, "cursor_gone"));
    assert_eq!(cut(&again(&tidegate, &second, "", &[])).0, "stream_lost");
    // The end that was made up is kept too: nobody is told another.
    killed(tidegate);
    let tidegate = teller.gateway(&log_in(&folder));
    assert_eq!(again(&tidegate, &first, "", &[]).text(), whole.text());
    assert_eq!(again(&tidegate, &second, &last_cursor(&too_far), &[]).status, 410);
    assert_eq!(teller.upstream.seen().len(), 2);
    assert!(tidegate.metric("tidegate_budget_bytes{budget=\"journals\"}") > 0.0);
}

#[test]
fn whoever_has_heard_the_end_finds_all_of_it_after_a_kill_byte_for_byte() {
    let teller = Teller::by(|nth, _| ([30, 300, 3_000][nth % 3], Duration::from_millis([5, 1, 0][nth % 3])));
    let folder = Folder::new();
    let mut tidegate = teller.gateway(&log_in(&folder));
    for words in [30, 300, 3_000, 30, 300, 3_000] {
        let first = tidegate.ask(asked(&[]));
        let id = first.header("tidegate-stream").unwrap().to_owned();
        let before = again(&tidegate, &id, "", &[]);
        killed(tidegate);
        tidegate = teller.gateway(&log_in(&folder));
        let after = again(&tidegate, &id, "", &[]);
        assert_eq!(text_of(&events(&first.text())), told(words));
        assert_eq!((after.status, after.text()), (200, before.text()));
        let line = |answer: &Answer, name: &str| answer.header(name).map(str::to_owned);
        for name in ["tidegate-stream", "request-id", "tidegate-request-id", "content-type"] {
            assert_eq!(line(&after, name), line(&before, name), "{name}");
        }
    }
    assert_eq!(teller.upstream.seen().len(), 6);
}

#[test]
fn the_end_is_shown_when_it_is_kept_and_not_before() {
    let teller = Teller::of(20, Duration::from_millis(10));
    let folder = Folder::new();
    let tidegate = teller.gateway(&log_in(&folder));
    let other = rusqlite::Connection::open(folder.path("c.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (mut wire, id, seen) = begun(&tidegate, "\"stop_reason\":\"end_turn\"");
    assert!(seen.contains("word19"), "{seen}");
    let release = std::thread::spawn(move || {
        std::thread::sleep(SECOND / 2);
        let at = Instant::now();
        other.execute_batch("ROLLBACK").unwrap();
        at
    });
    let rest = String::from_utf8(wire.until("event: message_stop").unwrap()).unwrap();
    assert!(Instant::now() >= release.join().unwrap(), "it was shown while nothing could be kept");
    assert_eq!(tidegate.metric("tidegate_stream_checkpoints_total{outcome=\"failed\"}"), 0.0);
    killed(tidegate);
    let tidegate = teller.gateway(&log_in(&folder));
    let whole = again(&tidegate, &id, "", &[]);
    assert!(whole.text().contains("event: message_stop") && !rest.contains("event: error"), "{}", whole.text());
    assert_eq!(text_of(&events(&whole.text())), told(20));
}

#[test]
fn after_a_restart_too_a_stream_is_its_tenants_only_and_one_in_memory_is_gone() {
    let teller = Teller::of(5, Duration::ZERO);
    let folder = Folder::new();
    let (keys, [one, two]) = two_tenants();
    let config = keys + &log_in(&folder);
    let (one, two) = ([("x-api-key", &*one)], [("x-api-key", &*two)]);
    let tidegate = teller.gateway(&config);
    let id = tidegate.ask(asked(&one)).header("tidegate-stream").unwrap().to_owned();
    let memory = post(&[("tidegate-resume", "memory"), one[0]], message(true, 4000, "x"));
    let in_memory = tidegate.ask(memory).header("tidegate-stream").unwrap().to_owned();
    killed(tidegate);
    let tidegate = teller.gateway(&config);
    // Before and after its owner came for it.
    for _ in 0..2 {
        for method in ["GET", "DELETE"] {
            let answer = tidegate.ask(bare(method, &format!("/v1/streams/{id}"), &two));
            assert_eq!((answer.status, &*answer.code()), (404, "unknown_stream"));
        }
        assert_eq!(text_of(&events(&again(&tidegate, &id, "", &one).text())), told(5));
    }
    assert_eq!(again(&tidegate, &in_memory, "", &one).code(), "unknown_stream");
    let deleted = tidegate.ask(bare("DELETE", &format!("/v1/streams/{id}"), &one));
    assert_eq!((deleted.status, &deleted.json()["type"]), (200, &json!("stream_ended")));
    assert_eq!(text_of(&events(&again(&tidegate, &id, "", &one).text())), told(5), "it had ended");
}

#[test]
fn after_a_restart_too_upstream_credentials_are_told_apart() {
    let teller = Teller::of(5, Duration::ZERO);
    let folder = Folder::new();
    let config = format!("{}[own_credentials]\nurl = \"http://{}\"\n", log_in(&folder), teller.upstream.at);
    let by = |key: &'static str| [("x-api-key", key)];
    let tidegate = teller.gateway(&config);
    let id = tidegate.ask(asked(&by("sk-ant-one"))).header("tidegate-stream").unwrap().to_owned();
    killed(tidegate);
    let tidegate = teller.gateway(&config);
    assert_eq!(again(&tidegate, &id, "", &by("sk-ant-two")).code(), "unknown_stream");
    assert_eq!(again(&tidegate, &id, "", &[]).code(), "unknown_stream");
    assert_eq!(text_of(&events(&again(&tidegate, &id, "", &by("sk-ant-one")).text())), told(5));
}

#[test]
fn without_a_conversation_log_it_is_refused_on_every_door() {
    let teller = Teller::of(3, Duration::ZERO);
    let tidegate = teller.gateway("");
    let refused = tidegate.ask(asked(&[]));
    assert_eq!((refused.status, &*refused.code()), (400, "invalid_header"));
    assert!(refused.text().contains("durable streams need a conversation log"), "{}", refused.text());
    let mut socket = tidegate.socket();
    socket.create("a", &json!({"resume": "durable"}));
    let frame = socket.frame_of("a");
    assert_eq!((frame["status"].as_u64(), code_in(&frame)), (Some(400), "invalid_header"), "{frame}");
    assert_eq!(tidegate.ask(get("/v1/streams/str_00000000000000000000000000", &[])).status, 404);
    assert_eq!(teller.upstream.seen().len(), 0);
    drop(socket);
    tidegate.comes_to_rest();
}

#[test]
fn a_socket_goes_on_with_what_another_process_began() {
    let teller = Teller::of(40, Duration::from_millis(5));
    let folder = Folder::new();
    let tidegate = teller.gateway(&log_in(&folder));
    let mut socket = tidegate.socket();
    socket.create("a", &json!({"resume": "durable"}));
    let frames = socket.whole("a");
    let stream = frames.iter().find(|f| f["type"] == "stream.open").unwrap()["stream"].clone();
    let shown: Vec<_> = frames.iter().filter(|f| f["type"] == "stream.event").collect();
    let cursor = shown[10]["cursor"].clone();
    killed(tidegate);
    let tidegate = teller.gateway(&log_in(&folder));
    let mut socket = tidegate.socket();
    let resume = |id: &str, stream: &serde_json::Value, more: serde_json::Value| {
        let mut frame = json!({"type": "stream.resume", "id": id, "stream": stream});
        more.as_object().unwrap().iter().for_each(|(name, value)| frame[name] = value.clone());
        frame.to_string()
    };
    // All at once: while one is looked for, its name is taken, and credit and cancel are heard.
    socket.send_all(&[
        resume("b", &stream, json!({"after": cursor})),
        resume("b", &stream, json!({})),
        resume("c", &stream, json!({"credit": 1})),
        json!({"type": "stream.credit", "id": "c", "bytes": 1_000_000}).to_string(),
        resume("d", &stream, json!({})),
        json!({"type": "stream.cancel", "id": "d"}).to_string(),
        resume("e", &json!("str_00000000000000000000000000"), json!({})),
    ]);
    let rest = socket.whole("b");
    assert_eq!(rest.last().unwrap()["type"], "stream.end", "{rest:?}");
    let before: Vec<_> = shown[..=10].iter().map(|&frame| frame.clone()).collect();
    assert_eq!(text_in(&before) + &text_in(&rest), told(40));
    assert_eq!(text_in(&socket.whole("c")), told(40));
    let ended = socket.until("d", "stream.end").pop().unwrap();
    assert_eq!(ended["reason"], "cancelled", "{ended}");
    let unknown = socket.frame_of("e");
    assert_eq!((unknown["status"].as_u64(), code_in(&unknown)), (Some(404), "unknown_stream"));
    assert_eq!(code_in(&socket.any()), "stream_id_in_use");
}

#[test]
fn a_log_that_takes_nothing_breaks_no_stream() {
    let teller = Teller::of(30, Duration::from_millis(10));
    let folder = Folder::new();
    let tidegate = teller.gateway(&log_in(&folder));
    let other = rusqlite::Connection::open(folder.path("c.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let answer = tidegate.ask(asked(&[]));
    assert_eq!(text_of(&events(&answer.text())), told(30));
    assert!(answer.text().contains("event: message_stop"), "{}", answer.text());
    let id = answer.header("tidegate-stream").unwrap();
    assert_eq!(again(&tidegate, id, "", &[]).status, 200, "it is there in memory");
    assert!(tidegate.metric("tidegate_stream_checkpoints_total{outcome=\"failed\"}") >= 1.0);
    tidegate.says("a durable stream could not be kept");
    other.execute_batch("ROLLBACK").unwrap();
    let next = tidegate.ask(asked(&[]));
    assert_eq!(text_of(&events(&next.text())), told(30));
    assert!(tidegate.metric("tidegate_stream_checkpoints_total{outcome=\"kept\"}") >= 1.0);
}

#[test]
fn a_refusal_is_kept_by_nobody_and_what_is_too_old_is_not_found() {
    let refused =
        plain(400, "content-type: application/json\r\n", r#"{"type":"error","error":{"type":"x","message":"no"}}"#);
    let upstream = Upstream::saying(refused);
    let folder = Folder::new();
    let tidegate = Tidegate::before(upstream.at, "k", &log_in(&folder));
    assert_eq!(tidegate.ask(asked(&[])).status, 400);
    assert_eq!(tidegate.metric("tidegate_stream_checkpoints_total{outcome=\"kept\"}"), 0.0);
    killed(tidegate);
    let teller = Teller::of(5, Duration::ZERO);
    let config = log_in(&folder) + "[clocks]\nstream_kept = \"1 s\"\n";
    let tidegate = teller.gateway(&config);
    let id = tidegate.ask(asked(&[])).header("tidegate-stream").unwrap().to_owned();
    killed(tidegate);
    std::thread::sleep(SECOND);
    let tidegate = teller.gateway(&config);
    assert_eq!(again(&tidegate, &id, "", &[]).code(), "unknown_stream");
}

#[test]
fn durable_streams_that_take_all_of_the_log_they_may_make_room_or_are_refused() {
    let teller = Teller::by(|_, asked| {
        let words = asked["max_tokens"].as_u64().unwrap() as usize;
        (words, if words > 1_000 { Duration::from_millis(1) } else { Duration::ZERO })
    });
    let folder = Folder::new();
    let config = log_in(&folder) + "[limits]\njournal_bytes = \"64 KiB\"\ndurable_bytes = \"128 KiB\"\n";
    let tidegate = teller.gateway(&config);
    let ask = |words: u32| post(&[DURABLE], message(true, words, "x"));
    // Some 20 KB each: those that ended first go, the last ones stay.
    let ended: Vec<_> = (0..12).map(|_| tidegate.ask(ask(200)).header("tidegate-stream").unwrap().to_owned()).collect();
    assert_eq!(tidegate.metric("tidegate_stream_checkpoints_total{outcome=\"failed\"}"), 0.0);
    // Two that run for long take all there is.
    let mut running = Vec::new();
    let refused = eventually("no more are taken", SECOND * 30, || {
        let mut wire = tidegate.client();
        wire.send(ask(20_000));
        let head = wire.head().unwrap();
        if head.status != 200 {
            return Some(wire.body_of(head));
        }
        assert!(running.len() < 20, "there is no end of it");
        running.push(wire);
        std::thread::sleep(SECOND);
        None
    });
    assert_eq!((refused.status, &*refused.code()), (529, "streams_budget_spent"), "{}", refused.text());
    assert_eq!(refused.header("retry-after"), Some("5"));
    assert!(refused.text().contains("tidegate-resume: memory") && running.len() >= 2, "{}", running.len());
    // In memory there is room, and those that run go on.
    let memory = tidegate.ask(post(&[("tidegate-resume", "memory")], message(true, 20, "x")));
    assert!(memory.text().contains("message_stop"), "{}", memory.text());
    running.iter_mut().for_each(|wire| drop(wire.until("word2000\"").unwrap()));
    drop(running);
    killed(tidegate);
    let tidegate = teller.gateway(&config);
    let there: Vec<_> = ended.iter().filter(|id| again(&tidegate, id, "", &[]).status != 404).collect();
    assert!(there.is_empty(), "what had ended made room for what ran: {there:?}");
}
