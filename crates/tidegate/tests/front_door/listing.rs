//! One stuck conversation: where it is while it lives, how it ended, and how an operator ends it.

use crate::process::{Folder, Tidegate, command, eventually, finished};
use crate::upstream::{BEGIN, END, FINISH, Upstream, chunk, plain, stream_head};
use crate::wire::{QUICK, message, post};
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

const SLOW: (&str, &str) = ("simulate", "output_tokens=3000, head_ms=0, first_ms=0, event_ms=50");

fn rows(tidegate: &Tidegate, query: &str, table: &str) -> Vec<Value> {
    let page = tidegate.admin(&format!("/streams{query}"));
    assert_eq!(page.status, 200, "{}", page.text());
    page.json()[table].as_array().unwrap().clone()
}

fn with_model(model: &str) -> String {
    message(true, 100, "x").replace("claude-haiku-5-5", model)
}

#[test]
fn one_conversation_is_found_while_it_lives_and_when_it_is_over() {
    let tidegate = Tidegate::simulated();
    let (mut stuck, mut other) = (tidegate.client(), tidegate.client());
    stuck.send(post(&[SLOW, ("tidegate-conversation", "support 17/ü")], message(true, 4000, "x")));
    other.send(post(&[SLOW], message(true, 4000, "x")));
    stuck.until("content_block_delta").unwrap();
    other.until("content_block_delta").unwrap();
    let of = |query: &str| rows(&tidegate, query, "streams").len();
    assert_eq!([of(""), of("?phase=relay"), of("?phase=admit"), of("?tenant=default")], [2, 2, 0, 2]);
    assert_eq!([of("?key=default/1"), of("?key=default/2"), of("?conversation=support")], [2, 0, 0]);
    let found = rows(&tidegate, "?conversation=support+17/%C3%BC&phase=relay", "streams");
    assert_eq!((found.len(), &found[0]["conversation"]), (1, &Value::from("support 17/ü")));
    for (query, says) in [("?phase=asleep", "first_byte"), ("?conversaton=x", "conversation"), ("?key=%zz", "percent")]
    {
        let refused = tidegate.admin(&format!("/streams{query}"));
        let code = refused.json()["error"]["details"]["error_code"].clone();
        assert_eq!((refused.status, code), (400, Value::from("invalid_query")), "{query}");
        assert!(refused.text().contains(says), "{}", refused.text());
    }

    let (admin, id) = (tidegate.admin.to_string(), found[0]["stream"].as_str().unwrap());
    let (code, out, err) = finished(&["streams", "cancel", id, "--admin", &admin]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains(id) && out.contains("cancelled"), "{out}");
    let (rest, _) = stuck.rest();
    assert!(String::from_utf8(rest).unwrap().contains("cancelled_by_operator"));
    let query = "?conversation=support%2017%2F%C3%BC";
    let over = eventually("it is over", Duration::from_secs(5), || rows(&tidegate, query, "finished").pop());
    for (field, want) in [
        ("stream", id),
        ("end", "cancelled"),
        ("code", "cancelled_by_operator"),
        ("upstream_key", "default/1"),
        ("model", "claude-haiku-5-5"),
    ] {
        assert_eq!(over[field], want, "{over}");
    }
    assert_eq!((&over["attempts"], &over["status"]), (&Value::from(1), &Value::from(200)));
    assert!(over["upstream_request_ids"][0].as_str().unwrap().starts_with("req_"), "{over}");
    assert_eq!(rows(&tidegate, query, "streams").len(), 0);
    assert_eq!(rows(&tidegate, "?conversation=support%2017%2F%C3%BC&phase=settle", "finished").len(), 0);

    let (code, out, err) = finished(&["streams", "cancel", id, "str_no\x1b[31m", "--admin", &admin]);
    assert_eq!((code, out.as_str()), (2, ""), "it is over");
    assert_eq!(err.matches("no live stream has this id").count(), 2, "{err}");
    assert!(!err.contains('\x1b'), "{err}");
    assert_eq!(of(""), 1, "the other one goes on");
}

#[test]
fn a_request_that_is_tried_again_tells_why_and_every_upstream_id() {
    let upstream = Upstream::playing(|nth, _, socket| {
        let answer = if nth < 2 {
            let envelope = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
            plain(
                529,
                &format!("content-type: application/json\r\nrequest-id: req_up_{nth}\r\nretry-after: 1\r\n"),
                envelope,
            )
        } else {
            stream_head(&format!("request-id: req_up_{nth}\r\n")) + &chunk(BEGIN) + &chunk(FINISH) + END
        };
        drop(socket.write_all(answer.as_bytes()));
    });
    let tidegate = Tidegate::before(upstream.at, "k", "");
    let mut client = tidegate.client();
    client.send(post(&[], message(true, 100, "x")));
    let shown = eventually("a second try", Duration::from_secs(10), || {
        let shown = rows(&tidegate, "", "streams").pop()?;
        (shown["attempts"] == 2 && shown["phase"] != "first_byte").then_some(shown)
    });
    assert_eq!(shown["last_failure"], "overloaded", "{shown}");
    assert_eq!(client.answer().status, 200);
    let over = eventually("it is over", Duration::from_secs(5), || rows(&tidegate, "", "finished").pop());
    assert_eq!((&over["end"], &over["attempts"]), (&Value::from("answered"), &Value::from(3)), "{over}");
    let ids: Vec<_> = (0..3).map(|n| Value::from(format!("req_up_{n}"))).collect();
    assert_eq!(over["upstream_request_ids"].as_array(), Some(&ids));
}

#[test]
fn the_last_hundred_are_told_and_strangers_push_nothing_out() {
    let upstream = Upstream::playing(|_, _, socket| {
        drop(socket.write_all((stream_head("") + &chunk(BEGIN) + &chunk(FINISH) + END).as_bytes()));
    });
    let tidegate = Tidegate::before(upstream.at, "k", "");
    for n in 0..105 {
        assert_eq!(tidegate.ask(post(&[], with_model(&format!("m-{n}")))).status, 200);
        // No request for a model, and one of somebody who is not known.
        assert_eq!(tidegate.ask(post(&[("origin", "https://evil.example")], with_model("stranger"))).status, 403);
    }
    let over = eventually("all are over", Duration::from_secs(5), || {
        Some(rows(&tidegate, "", "finished")).filter(|over| over[0]["model"] == "m-104")
    });
    assert_eq!((over.len(), &over[99]["model"]), (100, &Value::from("m-5")));
}

#[test]
fn the_table_is_told_once_into_a_pipe_and_never_orders_a_terminal() {
    let tidegate = Tidegate::simulated();
    let admin = tidegate.admin.to_string();
    let odd = with_model("m\\u001b[31mred\\nline");
    tidegate.ask(post(&[("tidegate-conversation", "c-odd")], odd));
    assert_eq!(tidegate.ask(post(&[QUICK], message(true, 100, "x"))).status, 200);
    eventually("both are over", Duration::from_secs(5), || (rows(&tidegate, "", "finished").len() == 2).then_some(()));
    let (code, out, err) = finished(&["streams", "--admin", &admin]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("0 live") && out.contains("answered 200") && out.contains("claude-haiku-5-5"), "{out}");
    assert!(out.contains("m\\u{1b}[31mred\\nline"), "{out}");
    assert!(out.chars().all(|c| c == '\n' || !c.is_control()), "{out:?}");
    let (code, out, _) = finished(&["streams", "--admin", &admin, "--json", "--conversation", "c-odd"]);
    let page: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, page["finished"].as_array().unwrap().len()), (0, 1), "{out}");

    // Where it is can stand in the gateway's own file.
    let folder = Folder::new();
    let file = folder.write("t.toml", &format!("[listen]\nadmin = \"{admin}\"\n"));
    assert_eq!(finished(&["streams", "--config", &file]).0, 0);
    for (args, says) in [
        (&["streams", "--admin", "127.0.0.1:1"][..], "--admin"),
        (&["streams", "--config", &folder.write("z.toml", "[listen]\nadmin = \"127.0.0.1:0\"\n")], "any free one"),
        (&["streams", "--config", "/nowhere.toml"], "/nowhere.toml"),
        (&["streams", "--admin", &admin, "--phase", "asleep"], "first_byte"),
        (&["streams", "--admin", &tidegate.gateway.to_string()], "no such path"),
    ] {
        let (code, out, err) = finished(args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}");
        assert!(err.contains(says), "{args:?}: {err}");
    }
}

#[test]
fn on_a_terminal_the_table_is_drawn_anew_each_second() {
    let tidegate = Tidegate::simulated();
    let mut client = tidegate.client();
    client.send(post(&[SLOW, ("tidegate-conversation", "watched")], message(true, 4000, "x")));
    client.until("content_block_delta").unwrap();
    if Command::new("script").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("passed over: there is no `script` here to make a terminal with");
        return;
    }
    let program = command(&[]).get_program().to_str().unwrap().to_owned();
    let line = format!(
        "stty rows 20 cols 80; timeout --preserve-status -s INT 4 {program} streams --admin {}; echo ended $?",
        tidegate.admin
    );
    let output = Command::new("script").args(["-qc", &line, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
    let drawn = String::from_utf8(output.stdout).unwrap();
    // On the other screen, and back from it at the end.
    let (drawn, after) = drawn.split_once("\x1b[?1049l").unwrap_or_else(|| panic!("{drawn:?}"));
    assert!(drawn.contains("\x1b[?1049h") && after.contains("ended 0"), "{drawn:?} {after:?}");
    let frames: Vec<&str> = drawn.split("\x1b[H").skip(1).collect();
    assert!((2..=6).contains(&frames.len()), "{} in {drawn:?}", frames.len());
    for frame in &frames {
        assert!(frame.contains("watched") && frame.contains("relay"), "{frame:?}");
        assert!(frame.lines().count() <= 20, "{frame:?}");
    }
}
