//! Export and import: byte for byte, in pieces, whoever reads slowly or leaves.

use super::{
    ALL, HEADER, KEY_A, KEY_B, LINES, export, import, import_request, path, read, refused, say, two_tenants, write,
};
use crate::process::{Folder, Tidegate, eventually};
use crate::wire::{QUICK, Wire, bare, get, message, post, post_to};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The lines of a conversation of `turns` turns with `bytes` each.
fn lines_of(id: &str, turns: usize, bytes: usize) -> Vec<u8> {
    let head = json!({"type": "conversation", "conversation": id, "created_ms": 1_766_000_000_000_u64,
        "updated_ms": 1_766_000_360_000_u64, "turns": turns});
    let mut lines = format!("{head}\n").into_bytes();
    for number in 1..=turns {
        let text = format!("{number} ").repeat(bytes / (number.to_string().len() + 1));
        let turn = json!({"type": "turn", "conversation": id, "number": number, "status": "appended",
            "created_ms": 1_766_000_000_000_u64, "request": [{"role": "user", "content": text}]});
        lines.extend_from_slice(format!("{turn}\n").as_bytes());
    }
    lines
}

#[test]
fn what_is_exported_and_imported_is_the_same_byte_for_byte() {
    let tidegate = two_tenants();
    let document = "QUJD".repeat(1_000);
    let blocks = json!([{"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": document}},
        {"type": "text", "text": "Wie viele Seiten? 多少页?"}]);
    for (id, content) in [("a/b", json!("one")), ("会话", blocks), ("a/b", json!("two"))] {
        let mut body: Value = serde_json::from_str(&message(id == "a/b", 100, "")).unwrap();
        body["messages"][0]["content"] = content;
        body["metadata"] = json!({"user_id": "u-1"});
        let answer = tidegate.ask(post(&[KEY_A, QUICK, ("tidegate-conversation", id)], body.to_string()));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    // Spaces and line breaks of the client's own are part of what was said.
    let spaced = "{\"messages\":[\n {\"role\": \"user\",\"content\": \"x\" }\n]}";
    assert_eq!(tidegate.ask(post_to(&format!("{}/turns", path("spaced")), &[KEY_A], spaced)).status, 200);
    let fork = post_to(&format!("{}/fork", path("a/b")), &[KEY_A], "{\"id\":\"fork\",\"turn\":1}");
    assert_eq!(tidegate.ask(fork).status, 200);
    let all = format!("{ALL}?format=jsonl");
    let exported = export(&tidegate, &all, &[KEY_A]);
    assert!(exported.starts_with(HEADER));
    let count = exported.iter().filter(|b| **b == b'\n').count() as u64;
    assert_eq!(count, 1 + 4 + 5);
    let answer = import(&tidegate, &[KEY_B], &exported);
    let told = json!({"type": "conversations_imported", "added": count - 1, "known": 1});
    assert_eq!((answer.status, answer.json()), (200, told));
    assert_eq!(export(&tidegate, &all, &[KEY_B]), exported);
    // One alone is a part of it, and again is nothing new.
    let one = export(&tidegate, &format!("{}?format=jsonl", path("a/b")), &[KEY_B]);
    assert_eq!(one.iter().filter(|b| **b == b'\n').count(), 4);
    assert_eq!(
        import(&tidegate, &[KEY_A], &one).json(),
        json!({"type": "conversations_imported", "added": 0, "known": 4})
    );
    assert_eq!(export(&tidegate, &all, &[KEY_A]), exported);
    // Packed, without a last line break, and with empty lines between.
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(b"\n\n").unwrap();
    packed.write_all(exported.strip_suffix(b"\n").unwrap()).unwrap();
    let answer = import(&tidegate, &[KEY_B, ("content-encoding", "gzip")], &packed.finish().unwrap());
    assert_eq!(answer.json()["known"], json!(count), "{}", answer.text());
    tidegate.comes_to_rest();
}

#[test]
fn a_line_that_cannot_be_taken_is_named_and_what_came_before_it_stays() {
    let tidegate = Tidegate::simulated();
    let good = lines_of("c", 2, 100);
    let with = |line: &str| [HEADER, &good, b"\n", line.as_bytes(), b"\n", &lines_of("later", 1, 10)].concat();
    for (line, status, code, word) in [
        ("garbage", 400, "invalid_line", "is no JSON"),
        ("{\"type\":\"turn\"}", 400, "invalid_line", "missing, unknown or wrong"),
        ("{\"tidegate\":\"conversations\",\"version\":9}", 400, "invalid_line", "version 1"),
        (
            "{\"type\":\"turn\",\"conversation\":\"none\",\"number\":1,\"status\":\"appended\",\"created_ms\":1,\"request\":[]}",
            400,
            "invalid_line",
            "of which no line came before",
        ),
        (
            "{\"type\":\"turn\",\"conversation\":\"c\",\"number\":9,\"status\":\"appended\",\"created_ms\":1,\"request\":[]}",
            409,
            "turn_conflict",
            "turn 3",
        ),
        (
            "{\"type\":\"turn\",\"conversation\":\"c\",\"number\":1,\"status\":\"appended\",\"created_ms\":1,\"request\":[]}",
            409,
            "conversation_exists",
            "different",
        ),
        ("\u{0}\u{1}\u{2}", 400, "invalid_line", "is no JSON"),
    ] {
        let answer = import(&tidegate, &[], &with(line));
        refused(&answer, status, code);
        let text = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(text.starts_with("line 6: ") && text.contains(word), "{line}: {text}");
        refused(&tidegate.ask(get(&path("later"), &[])), 404, "conversation_not_found");
    }
    // Lines are counted over batches; those written before the wrong one stay, and the rest follows.
    let long = [HEADER, &lines_of("long", 20, 300 << 10)].concat();
    let broken = [&long[..], b"garbage\n"].concat();
    let answer = import(&tidegate, &[], &broken);
    refused(&answer, 400, "invalid_line");
    assert!(answer.text().contains("line 23: "), "{}", answer.text());
    let there = read(&tidegate, &path("long"))["turns"].as_u64().unwrap();
    assert!((10..=20).contains(&there), "{there}");
    let rest = import(&tidegate, &[], &long).json();
    assert_eq!((&rest["added"], &rest["known"]), (&json!(20 - there), &json!(there + 2)));
    let cut = import(&tidegate, &[], &long[..long.len() - 5]);
    refused(&cut, 400, "invalid_line");
    let nothing = import(&tidegate, &[], b"");
    assert_eq!((nothing.status, &nothing.json()["added"]), (200, &json!(0)));
    refused(&tidegate.ask(post_to(ALL, &[], "{}")), 400, "invalid_header");
    tidegate.comes_to_rest();
}

#[test]
fn what_memory_has_is_read_again_after_an_import() {
    let tidegate = Tidegate::simulated();
    assert_eq!(write(&tidegate, "c", "one").status, 200);
    let before = export(&tidegate, &format!("{}?format=jsonl", path("c")), &[]);
    let two =
        String::from_utf8(before.clone()).unwrap().lines().last().unwrap().replace("\"number\":1", "\"number\":2");
    assert_eq!(import(&tidegate, &[], &[&before[..], two.as_bytes()].concat()).json()["added"], json!(1));
    assert_eq!(say(&tidegate, "c", "three", None).header("tidegate-turn"), Some("3"));
    // One for which a turn is under way waits for it.
    let slow = ("simulate", "output_tokens=60-60, head_ms=0, first_ms=0, event_ms=20");
    let mut client = tidegate.client();
    client.send(post(&[("tidegate-conversation", "c"), slow], message(true, 500, "four")));
    client.until("content_block_delta").unwrap();
    std::thread::scope(|scope| {
        let importing = scope.spawn(|| import(&tidegate, &[], &before));
        let streamed = String::from_utf8(client.until("0\r\n\r\n").unwrap()).unwrap();
        assert!(streamed.contains("message_stop") && !streamed.contains("event: error"), "{streamed}");
        assert_eq!(importing.join().unwrap().json()["added"], json!(0));
    });
    drop(client);
    assert_eq!(say(&tidegate, "c", "five", None).header("tidegate-turn"), Some("5"));
    tidegate.comes_to_rest();
}

#[test]
fn a_turn_that_begins_while_its_conversation_is_imported_comes_after_that() {
    let folder = Folder::new();
    let file = folder.path("c.db");
    let tidegate = Tidegate::simulated_with("", &["--conversations", &file]);
    // Somebody else's lock holds the import up where it is written.
    let other = rusqlite::Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let lines = [HEADER, &lines_of("c", 2, 100)].concat();
    std::thread::scope(|scope| {
        let importing = scope.spawn(|| import(&tidegate, &[], &lines));
        eventually("it is being written", Duration::from_secs(5), || {
            std::thread::sleep(Duration::from_millis(200));
            (tidegate.streams().len() == 1).then_some(())
        });
        let after = scope.spawn(|| write(&tidegate, "c", "three"));
        eventually("the turn has come", Duration::from_secs(5), || (tidegate.streams().len() == 2).then_some(()));
        std::thread::sleep(Duration::from_millis(300));
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(importing.join().unwrap().json()["added"], json!(3));
        let after = after.join().unwrap();
        assert_eq!((after.status, &after.json()["number"]), (200, &json!(3)), "{}", after.text());
    });
    tidegate.comes_to_rest();
}

/// A log of a hundred megabytes, brought by one import.
fn large() -> Tidegate {
    large_with("")
}

fn large_with(config: &str) -> Tidegate {
    let tidegate = Tidegate::simulated_with(config, &[]);
    let before = tidegate.memory();
    for part in 0..4 {
        let bodies: Vec<Vec<u8>> = (0..25).map(|nth| lines_of(&format!("c{part}-{nth:02}"), 4, 256 << 10)).collect();
        let answer = import(&tidegate, &[], &[HEADER, &bodies.concat()].concat());
        assert_eq!((answer.status, &answer.json()["added"]), (200, &json!(125)), "{}", answer.text());
    }
    let grown = tidegate.memory().saturating_sub(before) >> 20;
    assert!(grown < 64, "an import is not held whole: {grown} MiB");
    tidegate
}

#[test]
fn a_large_export_to_a_slow_client_is_held_in_pieces() {
    let tidegate = large();
    let before = tidegate.memory();
    let mut slow = tidegate.client();
    slow.send(get(&format!("{ALL}?format=jsonl"), &[]));
    slow.until("\r\n\r\n").unwrap();
    let mut most = 0;
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(50));
        slow.until("\"number\":4").unwrap();
        most = most.max(tidegate.memory().saturating_sub(before) >> 20);
    }
    assert!(most < 48, "one chunk is held: {most} MiB");
    // The others of its thread go on.
    assert_eq!(say(&tidegate, "other", "x", None).status, 200);
    drop(slow);
    let whole = export(&tidegate, &format!("{ALL}?format=jsonl"), &[]);
    assert!(whole.len() > 100 << 20, "{}", whole.len());
    tidegate.comes_to_rest();
}

#[test]
fn an_export_that_is_ended_half_way_does_not_look_whole() {
    let tidegate = large();
    let mut slow = tidegate.client();
    slow.send(get(&format!("{ALL}?format=jsonl"), &[]));
    assert_eq!(slow.head().unwrap().status, 200);
    let row = tidegate.streams().remove(0);
    let cancel = bare("DELETE", &format!("/streams/{}", row["stream"].as_str().unwrap()), &[]);
    assert_eq!(Wire::to(tidegate.admin).ask(cancel).status, 202);
    let (rest, _) = slow.rest();
    let rest = String::from_utf8_lossy(&rest);
    assert!(!rest.ends_with("0\r\n\r\n"), "the body has no end");
    // Chunks are taken apart by hand: the line is in the last one.
    let last = rest.lines().rev().find(|line| line.starts_with('{')).unwrap();
    let told: Value = serde_json::from_str(last).unwrap();
    assert_eq!(crate::wire::code_of(&told), "cancelled_by_operator");
    // Nor can it be taken for one by an import.
    let line = last.as_bytes();
    let error = import(&tidegate, &[], line);
    refused(&error, 400, "invalid_line");
    tidegate.comes_to_rest();
}

#[test]
fn exports_at_once_are_bounded_and_end_with_their_clients() {
    let tidegate = large();
    let stands: Vec<Wire> = (0..4)
        .map(|_| {
            let mut wire = tidegate.client();
            wire.send(get(&format!("{ALL}?format=jsonl"), &[]));
            wire.until("\r\n\r\n").unwrap();
            wire
        })
        .collect();
    let fifth = tidegate.ask(get(&format!("{ALL}?format=jsonl"), &[]));
    refused(&fifth, 529, "exports_busy");
    assert_eq!(fifth.header("retry-after"), Some("10"));
    drop(stands);
    eventually("they end", Duration::from_secs(10), || tidegate.streams().is_empty().then_some(()));
    assert_eq!(
        export(&tidegate, &format!("{}?format=jsonl", path("c0-01")), &[]).iter().filter(|b| **b == b'\n').count(),
        6
    );
    tidegate.comes_to_rest();
}

/// Takes an export over HTTP/2, whose client says how much it takes: `bytes` at a time, as often as this;
/// how much it had when it was cut, or when it had taken it for so long.
async fn trickle(at: SocketAddr, bytes: usize, pause: Duration, most: Duration) -> (usize, bool) {
    let io = tokio::net::TcpStream::connect(at).await.unwrap();
    let shaking = h2::client::Builder::new().initial_window_size(64 << 10).handshake::<_, bytes::Bytes>(io);
    let (mut client, connection) = shaking.await.unwrap();
    tokio::spawn(connection);
    let asked = http::Request::get(format!("http://tidegate{ALL}?format=jsonl")).body(()).unwrap();
    let (answer, _) = client.send_request(asked, true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let (mut taken, began) = (0, Instant::now());
    while began.elapsed() < most {
        tokio::time::sleep(pause).await;
        // What was sent is looked at, and room for a little more is given.
        while let Ok(some) = tokio::time::timeout(Duration::from_millis(1), body.data()).await {
            match some {
                Some(Ok(some)) => taken += some.len(),
                _ => return (taken, true),
            }
        }
        let flow = body.flow_control();
        let some = bytes.min(flow.used_capacity());
        flow.release_capacity(some).unwrap();
    }
    (taken, false)
}

#[test]
fn an_export_of_which_a_little_is_taken_now_and_then_does_not_keep_its_place() {
    let tidegate = large_with("[clocks]\nclient_write_stall = \"2 s\"\n");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // 20 KiB a second, and never nothing for as long as two: it would take more than an hour.
    let slow = trickle(tidegate.gateway, 8 << 10, Duration::from_millis(400), Duration::from_secs(12));
    let (taken, was_cut) = runtime.block_on(slow);
    // Its connection goes with it.
    drop(runtime);
    assert!(was_cut && taken > 0, "{taken} {was_cut}");
    assert_eq!(tidegate.metric("tidegate_clock_expired_total{clock=\"client_write_stall\"}"), 1.0);
    assert_eq!(tidegate.logged("end=\"slow_reader\""), 1);
    tidegate.comes_to_rest();
}

#[test]
fn an_import_that_stops_or_breaks_off_leaves_whole_lines_and_nothing_else() {
    let tidegate = Tidegate::simulated_with("[clocks]\nclient_body_stall = \"700 ms\"\n", &[]);
    let body = lines_of("c", 30, 256 << 10);
    let whole = import_request(&[], &body);
    let mut stalls = tidegate.client();
    stalls.send(&whole[..5 << 20]);
    refused(&stalls.answer(), 408, "body_timeout");
    let there = read(&tidegate, &path("c"))["turns"].as_u64().unwrap();
    assert!((10..20).contains(&there), "{there}");
    let mut leaves = tidegate.client();
    leaves.send(&whole[..6 << 20]);
    drop(leaves);
    tidegate.comes_to_rest();
    // In chunks, with a word before it is sent.
    let mut client = tidegate.client();
    client.send(format!("POST {ALL} HTTP/1.1\r\nhost: a\r\n{}: {}; charset=utf-8\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n", LINES.0, LINES.1));
    assert_eq!(client.until("\r\n\r\n").unwrap(), b"HTTP/1.1 100 Continue\r\n\r\n");
    for piece in body.chunks(100_000) {
        client.send(format!("{:x}\r\n", piece.len()));
        client.send(piece);
        client.send("\r\n");
    }
    client.send("0\r\n\r\n");
    let answer = client.answer().json();
    assert_eq!(answer["added"].as_u64().unwrap() + answer["known"].as_u64().unwrap(), 31, "{answer}");
    client.send(get(&path("c"), &[]));
    assert_eq!(client.answer().json()["turns"], json!(30), "the connection is good for more");
    drop(client);
    tidegate.comes_to_rest();
}
