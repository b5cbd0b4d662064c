//! Streams that are come back to over HTTP: every cursor, every connection, every end of them.

use crate::process::{Folder, Tidegate, eventually};
use crate::teller::{Teller, delta, told, two_tenants};
use crate::upstream::{BEGIN, END, Upstream, chunk, plain, stream_head};
use crate::wire::{Answer, bare, code_of, get, message, post};
use serde_json::Value;
use std::io::{Read, Write};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const KEPT: (&str, &str) = ("tidegate-resume", "memory");

/// An event: its cursor, its name, its data.
pub(crate) type Event = (Option<String>, String, Value);

/// The events of a text, with their cursors.
pub(crate) fn events(text: &str) -> Vec<Event> {
    let line = |block: &str, name: &str| block.lines().find_map(|l| l.strip_prefix(name).map(|v| v.trim().to_owned()));
    let whole = text.split_inclusive("\n\n").filter(|block| block.ends_with("\n\n"));
    whole
        .filter_map(|block| {
            let data = serde_json::from_str(&line(block, "data:")?).unwrap();
            Some((line(block, "id:"), line(block, "event:").unwrap_or_default(), data))
        })
        .collect()
}

pub(crate) fn text_of(events: &[Event]) -> String {
    events.iter().filter_map(|(_, _, data)| data["delta"]["text"].as_str()).collect()
}

/// Whether `events` are a whole message, or the rest of one, with a cursor at each.
#[track_caller]
fn ends_whole(events: &[Event]) {
    assert_eq!(events.iter().filter(|(_, name, _)| name == "message_stop").count(), 1, "{events:?}");
    assert_eq!(events.last().unwrap().1, "message_stop");
    assert!(events.iter().all(|(cursor, ..)| cursor.is_some()), "{events:?}");
    let cursors: Vec<_> = events.iter().map(|(cursor, ..)| cursor.clone()).collect();
    assert!(cursors.is_sorted() && cursors.windows(2).all(|two| two[0] != two[1]), "{cursors:?}");
}

fn ask(tidegate: &Tidegate, lines: &[(&str, &str)]) -> Answer {
    tidegate.ask(post(&[&[KEPT], lines].concat(), message(true, 4000, "x")))
}

pub(crate) fn again(tidegate: &Tidegate, id: &str, after: &str, lines: &[(&str, &str)]) -> Answer {
    tidegate.ask(get(&format!("/v1/streams/{id}?after={after}"), lines))
}

#[test]
fn from_every_cursor_the_rest_is_told_and_nothing_twice() {
    let teller = Teller::of(40, Duration::from_millis(5));
    let tidegate = teller.gateway("");
    let first = ask(&tidegate, &[]);
    assert_eq!((first.status, first.header("request-id")), (200, Some("req_theirs")), "{}", first.text());
    let id = first.header("tidegate-stream").unwrap().to_owned();
    let all = events(&first.text());
    ends_whole(&all);
    assert_eq!(text_of(&all), told(40));
    for (at, (cursor, ..)) in all.iter().enumerate() {
        let cursor = cursor.as_deref().unwrap();
        let rest = again(&tidegate, &id, cursor, &[]);
        assert_eq!((rest.status, rest.header("tidegate-stream")), (200, Some(&*id)));
        assert_eq!(rest.header("request-id"), Some("req_theirs"));
        let rest = events(&rest.text());
        assert_eq!(text_of(&rest), text_of(&all[at + 1..]), "after {cursor}");
        assert_eq!(rest.last().cloned(), all[at + 1..].last().cloned());
    }
    let whole = again(&tidegate, &id, "", &[]);
    ends_whole(&events(&whole.text()));
    assert_eq!(text_of(&events(&whole.text())), told(40));
    let middle = all[20].0.as_deref().unwrap();
    let named = tidegate.ask(get(&format!("/v1/streams/{id}"), &[("last-event-id", middle)]));
    assert_eq!(text_of(&events(&named.text())), text_of(&all[21..]));
    // What the address says goes first.
    let both = again(&tidegate, &id, all[30].0.as_deref().unwrap(), &[("last-event-id", middle)]);
    assert_eq!(text_of(&events(&both.text())), text_of(&all[31..]));
    assert_eq!(teller.upstream.seen().len(), 1);
}

#[test]
fn what_is_no_cursor_of_this_stream_is_refused() {
    let teller = Teller::of(3, Duration::ZERO);
    let (keys, [one, two]) = two_tenants();
    let tidegate = teller.gateway(&keys);
    let (one, two) = ([("x-api-key", &*one)], [("x-api-key", &*two)]);
    let (first, second) = (ask(&tidegate, &one), ask(&tidegate, &one));
    let id = first.header("tidegate-stream").unwrap();
    let last = events(&first.text()).pop().unwrap().0.unwrap();
    let theirs = events(&second.text()).pop().unwrap().0.unwrap();
    let beyond = format!("{}{:016x}", &last[..last.len() - 16], 1000);
    let no_epoch = last.replace(":00000001-", ":00000002-");
    for (cursor, status, code) in [
        (&*beyond, 400, "invalid_cursor"),
        (&*no_epoch, 400, "invalid_cursor"),
        (&*theirs, 400, "invalid_cursor"),
        ("7", 400, "invalid_cursor"),
        (&last.to_uppercase(), 400, "invalid_cursor"),
    ] {
        let answer = again(&tidegate, id, cursor, &one);
        assert_eq!((answer.status, &*answer.code()), (status, code), "{cursor}");
    }
    for unknown in ["str_00000000000000000000000000", "str_1", "", "a/b"] {
        let answer = tidegate.ask(get(&format!("/v1/streams/{unknown}"), &one));
        assert_eq!((answer.status, &*answer.code()), (404, "unknown_stream"), "{unknown}");
    }
    // Nobody else learns that it is there.
    for method in ["GET", "DELETE"] {
        let answer = tidegate.ask(bare(method, &format!("/v1/streams/{id}"), &two));
        assert_eq!((answer.status, &*answer.code()), (404, "unknown_stream"));
    }
    assert_eq!(tidegate.ask(get(&format!("/v1/streams/{id}"), &[])).status, 401);
    let misspelt = tidegate.ask(get(&format!("/v1/streams/{id}?afer=1"), &one));
    assert_eq!((misspelt.status, &*misspelt.code()), (400, "invalid_query"));
    assert_eq!(tidegate.ask(bare("POST", &format!("/v1/streams/{id}"), &one)).status, 405);
    assert_eq!(again(&tidegate, id, &last, &one).status, 200);
}

#[test]
fn a_client_that_was_cut_off_goes_on_elsewhere_and_the_upstream_does_not_notice() {
    let teller = Teller::of(60, Duration::from_millis(15));
    let tidegate = teller.gateway("[listen]\nthreads = 2\n");
    let mut wire = tidegate.client();
    wire.send(post(&[KEPT], message(true, 4000, "x")));
    let head = wire.head().unwrap();
    let id = head.header("tidegate-stream").unwrap().to_owned();
    let mut seen = String::from_utf8(wire.until("word5\"}}\n\n").unwrap()).unwrap();
    drop(wire);
    let mut cursor = last_cursor(&seen);
    // Connections are dealt to the threads in turn; each of these reads a little and is cut off too.
    for marker in ["word15\"}}\n\n", "word25\"}}\n\n", "word40\"}}\n\n"] {
        let mut wire = tidegate.client();
        wire.send(get(&format!("/v1/streams/{id}?after={cursor}"), &[]));
        assert_eq!(wire.head().unwrap().status, 200);
        let more = String::from_utf8(wire.until(marker).unwrap()).unwrap();
        cursor = last_cursor(&more);
        seen += &more;
    }
    seen += &again(&tidegate, &id, &cursor, &[]).text();
    let seen: Vec<Event> = events(&seen);
    ends_whole(&seen);
    assert_eq!(text_of(&seen), told(60));
    assert_eq!((teller.upstream.seen().len(), teller.left()), (1, 0));
}

pub(crate) fn last_cursor(text: &str) -> String {
    events(text).pop().unwrap().0.unwrap()
}

#[test]
fn nobody_coming_back_in_time_ends_it_and_its_upstream() {
    let teller = Teller::of(2_000, Duration::from_millis(10));
    let tidegate = teller.gateway("[clocks]\ndetach_grace = \"500 ms\"\n");
    let mut wire = tidegate.client();
    wire.send(post(&[KEPT], message(true, 4000, "x")));
    let id = wire.head().unwrap().header("tidegate-stream").unwrap().to_owned();
    wire.until("word3").unwrap();
    let mut second = tidegate.client();
    second.send(get(&format!("/v1/streams/{id}"), &[]));
    second.until("word9").unwrap();
    drop(wire);
    // One reader is enough.
    std::thread::sleep(SECOND);
    second.until("word60").unwrap();
    assert_eq!(teller.left(), 0);
    drop(second);
    eventually("the upstream is let go", SECOND * 5, || (teller.left() == 1).then_some(()));
    let late = again(&tidegate, &id, "", &[]);
    assert_eq!(code_of(&late.last_error()), "stream_cancelled");
    assert!(late.text().contains("word60"));
    // Who read it may still be settling.
    eventually("nobody is left", SECOND * 5, || tidegate.streams().is_empty().then_some(()));
}

#[test]
fn whoever_deletes_it_ends_it_for_all() {
    let teller = Teller::of(2_000, Duration::from_millis(10));
    let tidegate = teller.gateway("");
    let mut wire = tidegate.client();
    wire.send(post(&[KEPT], message(true, 4000, "x")));
    let id = wire.head().unwrap().header("tidegate-stream").unwrap().to_owned();
    wire.until("word3").unwrap();
    let deleted = tidegate.ask(bare("DELETE", &format!("/v1/streams/{id}"), &[]));
    assert_eq!((deleted.status, &deleted.json()["id"]), (200, &Value::from(&*id)));
    assert_eq!(deleted.json()["type"], "stream_cancelled");
    wire.until("event: error").unwrap();
    let rest = wire.until("0\r\n\r\n").unwrap();
    assert!(String::from_utf8(rest).unwrap().contains("stream_cancelled"));
    eventually("the upstream is let go", SECOND * 5, || (teller.left() == 1).then_some(()));
    assert_eq!(code_of(&again(&tidegate, &id, "", &[]).last_error()), "stream_cancelled");
    let once_more = tidegate.ask(bare("DELETE", &format!("/v1/streams/{id}"), &[]));
    assert_eq!((once_more.status, &once_more.json()["type"]), (200, &Value::from("stream_ended")));
}

#[test]
fn a_resumable_request_is_one_request() {
    let teller = Teller::of(20, Duration::ZERO);
    let tidegate = teller.gateway("");
    let request = ask(&tidegate, &[]).header("tidegate-request-id").unwrap().to_owned();
    let refused = tidegate.ask(post(&[KEPT], message(false, 4000, "x")));
    assert_eq!(refused.code(), "invalid_header");
    assert_eq!(tidegate.logged("door=\"messages\""), 2);
    assert_eq!(tidegate.logged(&format!("request=\"{request}\"")), 1);
    let page = tidegate.admin("/metrics").text();
    let counted = page.lines().filter(|line| line.starts_with("tidegate_requests_total{door=\"messages\""));
    let counted: f64 = counted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    assert_eq!(counted, 2.0, "the answer and the refusal, once each");
}

#[test]
fn past_its_limit_the_oldest_is_gone_and_its_cursors_with_it() {
    let teller = Teller::of(4_000, Duration::ZERO);
    let tidegate = teller.gateway("[limits]\njournal_bytes = \"8 KiB\"\n");
    let answer = ask(&tidegate, &[]);
    let id = answer.header("tidegate-stream").unwrap();
    // Its own reader may have been too slow for so small a log; the rest is still there.
    let end = again(&tidegate, id, "", &[]);
    assert_eq!((end.status, &*end.code()), (410, "cursor_gone"));
    assert_eq!(end.header("x-should-retry"), Some("false"));
}

#[test]
fn an_event_larger_than_all_that_is_kept_of_a_stream_ends_it() {
    let upstream = Upstream::playing(|_, _, socket| {
        let large = delta(&"x".repeat(20 << 10));
        drop(socket.write_all((stream_head("") + &chunk(BEGIN) + &chunk(&large)).as_bytes()));
        // The end does not come by itself.
        std::thread::sleep(SECOND * 5);
    });
    let config = "[retry]\nattempts_max = 1\n[limits]\njournal_bytes = \"8 KiB\"\n";
    let tidegate = Tidegate::before(upstream.at, "k", config);
    let answer = ask(&tidegate, &[]);
    let id = answer.header("tidegate-stream").unwrap();
    assert_eq!((answer.status, &*code_of(&answer.last_error())), (200, "stream_too_large"));
    assert!(answer.text().contains("\"Hi\"") && !answer.text().contains("xxx"), "what fits is told");
    assert_eq!(code_of(&again(&tidegate, id, "", &[]).last_error()), "stream_too_large");
    eventually("its upstream is let go", SECOND * 5, || tidegate.streams().is_empty().then_some(()));
}

#[test]
fn when_streams_that_run_take_all_there_is_no_more_are_begun() {
    // Each tells more than is kept of it, where deltas lie as one text, and then nothing for as long as
    // somebody is there.
    let words: String = (0..2_000).map(|n| chunk(&delta(&format!(" word{n:060}")))).collect();
    let upstream = Upstream::playing(move |_, _, socket| {
        if socket.write_all((stream_head("") + &chunk(BEGIN) + &words).as_bytes()).is_ok() {
            while matches!(socket.read(&mut [0; 64]), Ok(1..)) {}
        }
    });
    let config = "[limits]\njournal_bytes = \"64 KiB\"\njournals_bytes = \"128 KiB\"\n";
    let tidegate = Tidegate::before(upstream.at, "k", &format!("[retry]\nattempts_max = 1\n{config}"));
    let kept = || tidegate.metric("tidegate_budget_bytes{budget=\"journals\"}");
    // From four fifths on nothing is begun.
    let is_full = || kept() > 0.8 * 131_072.0;
    let mut running = Vec::new();
    let refused = eventually("no more are taken", SECOND * 20, || {
        let (mut wire, before) = (tidegate.client(), kept());
        wire.send(post(&[KEPT], message(true, 4000, "x")));
        let head = wire.head().unwrap();
        if head.status != 200 {
            return Some(wire.body_of(head));
        }
        assert!(running.len() < 20, "there is no end of it");
        running.push(wire);
        eventually("it has told", SECOND * 10, || (is_full() || kept() >= before + 24_000.0).then_some(()));
        None
    });
    assert_eq!((refused.status, &*refused.code()), (529, "streams_budget_spent"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Whoever wants no more than an answer gets one, and so does everybody when those have gone.
    assert!(running.len() >= 2, "{}", running.len());
    let mut plain = tidegate.client();
    plain.send(post(&[], message(true, 4000, "x")));
    assert_eq!(plain.head().unwrap().status, 200);
    drop((running, plain));
}

#[test]
fn what_ended_is_kept_for_a_while_and_not_for_ever() {
    let teller = Teller::of(3, Duration::ZERO);
    let tidegate = teller.gateway("[clocks]\nstream_kept = \"1 s\"\n");
    let id = ask(&tidegate, &[]).header("tidegate-stream").unwrap().to_owned();
    assert_eq!(again(&tidegate, &id, "", &[]).status, 200);
    assert!(tidegate.metric("tidegate_budget_bytes{budget=\"journals\"}") > 0.0);
    // The sweep comes every ten seconds.
    eventually("it is forgotten", SECOND * 25, || (again(&tidegate, &id, "", &[]).status == 404).then_some(()));
    tidegate.comes_to_rest();
}

#[test]
fn a_buffered_request_cannot_be_come_back_to_and_a_refusal_keeps_its_status() {
    let refused = plain(
        400,
        "content-type: application/json\r\nrequest-id: req_theirs\r\n",
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"no"},"request_id":"req_theirs"}"#,
    );
    let upstream = Upstream::saying(refused);
    let tidegate = Tidegate::before(upstream.at, "k", "");
    let buffered = tidegate.ask(post(&[KEPT], message(false, 100, "x")));
    assert_eq!((buffered.status, &*buffered.code()), (400, "invalid_header"));
    assert!(buffered.text().contains("tidegate-resume"), "{}", buffered.text());
    let misspelt = tidegate.ask(post(&[("tidegate-resume", "always")], message(true, 100, "x")));
    assert_eq!((misspelt.status, &*misspelt.code()), (400, "invalid_header"));
    assert_eq!(upstream.seen().len(), 0);
    let said = ask(&tidegate, &[]);
    assert_eq!((said.status, said.header("request-id")), (400, Some("req_theirs")), "{}", said.text());
    assert!(said.whole && said.text().contains("\"no\""));
}

#[test]
fn a_turn_of_a_conversation_is_kept_although_its_reader_has_left() {
    let teller = Teller::of(30, Duration::from_millis(20));
    let folder = Folder::new();
    let tidegate = teller.gateway(&format!("[conversations]\nfile = \"{}\"\n", folder.path("c.db")));
    let mut wire = tidegate.client();
    wire.send(post(&[KEPT, ("tidegate-conversation", "c")], message(true, 4000, "x")));
    let head = wire.head().unwrap();
    assert_eq!((head.header("tidegate-conversation"), head.header("tidegate-turn")), (Some("c"), Some("1")));
    let id = head.header("tidegate-stream").unwrap().to_owned();
    wire.until("word3").unwrap();
    drop(wire);
    let turns = || tidegate.ask(get("/v1/conversations/c/turns", &[])).text();
    eventually("the turn is kept", SECOND * 10, || turns().contains("word29").then_some(()));
    assert!(!turns().contains("interrupted\":true"), "{}", turns());
    let whole = again(&tidegate, &id, "", &[]);
    assert_eq!((text_of(&events(&whole.text())), whole.header("tidegate-turn")), (told(30), Some("1")));
}

#[test]
fn a_stream_that_breaks_breaks_for_whoever_comes_back_too() {
    let upstream = Upstream::playing(|_, _, socket| {
        drop(socket.write_all((stream_head("") + &chunk(BEGIN) + &chunk(&delta(" and")) + END).as_bytes()));
    });
    let tidegate = Tidegate::before(upstream.at, "k", "");
    let first = ask(&tidegate, &[]);
    assert_eq!(code_of(&first.last_error()), "upstream_broken");
    let id = first.header("tidegate-stream").unwrap();
    let second = again(&tidegate, id, "", &[]);
    assert_eq!((second.events(), second.whole), (first.events(), true));
    let cursor = events(&first.text()).pop().unwrap().0.unwrap();
    let nothing = again(&tidegate, id, &cursor, &[]);
    assert_eq!((nothing.status, nothing.events().len()), (200, 0));
}

#[test]
fn going_down_ends_streams_that_nobody_reads_too() {
    let teller = Teller::of(2_000, Duration::from_millis(20));
    let mut tidegate = teller.gateway("[clocks]\ndrain = \"1 s\"\n");
    let mut wire = tidegate.client();
    wire.send(post(&[KEPT], message(true, 4000, "x")));
    wire.until("word3").unwrap();
    let mut other = tidegate.client();
    other.send(post(&[KEPT], message(true, 4000, "x")));
    other.until("word3").unwrap();
    drop(other);
    tidegate.signal("TERM");
    let (rest, _) = wire.rest();
    let rest = String::from_utf8(rest).unwrap();
    assert!(rest.contains("event: error\n") && rest.contains("\"draining\"") && rest.ends_with("0\r\n\r\n"), "{rest}");
    assert_eq!(tidegate.exit(SECOND * 10), Some(0), "{}", tidegate.output());
    eventually("both upstreams are let go", SECOND * 5, || (teller.left() == 2).then_some(()));
}

#[test]
fn a_plain_stream_has_no_cursors_and_is_nowhere_to_be_found() {
    let teller = Teller::of(3, Duration::ZERO);
    let tidegate = teller.gateway("");
    let plain = tidegate.ask(post(&[], message(true, 4000, "x")));
    let off = tidegate.ask(post(&[("tidegate-resume", "off")], message(true, 4000, "x")));
    for answer in [plain, off] {
        assert!(events(&answer.text()).iter().all(|(cursor, ..)| cursor.is_none()), "{}", answer.text());
        let id = answer.header("tidegate-stream").unwrap();
        assert_eq!(again(&tidegate, id, "", &[]).status, 404);
    }
    tidegate.comes_to_rest();
}
