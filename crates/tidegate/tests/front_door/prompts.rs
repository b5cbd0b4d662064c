//! The simple dialect of the WebSocket door, and the echo.

use crate::process::{Folder, Tidegate, eventually};
use crate::socket::{DOOR, Heard, Socket};
use crate::teller::{Teller, told};
use crate::upstream::{Upstream, plain};
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;
use tidegate_wire::websocket::Opcode;

const SECOND: Duration = Duration::from_secs(1);

/// An answer's text and its last message.
fn answer(socket: &mut Socket) -> (String, Value) {
    let mut text = String::new();
    loop {
        let said = socket.said();
        match said["event"].as_str().unwrap() {
            "completion" => text += said["text"].as_str().unwrap(),
            _ => return (text, said),
        }
    }
}

#[test]
fn prompts_are_answered_one_after_another() {
    let teller = Teller::by(|nth, _| (10 + nth, Duration::from_millis(5)));
    let tidegate = teller.gateway("[sockets]\nmodel = \"claude-haiku-5-5\"\nmax_tokens = 77\n");
    let mut socket = tidegate.prompts("");
    let prompts: Vec<String> = (0..17).map(|n| json!({"prompt": format!("p{n}")}).to_string()).collect();
    // One is answered and sixteen wait, however they come.
    socket.send_all(&prompts);
    for n in 0..17 {
        let (text, last) = answer(&mut socket);
        assert_eq!((text, &last["event"]), (told(10 + n), &json!("done")), "{n}");
        assert_eq!((&last["stop_reason"], &last["usage"]["output_tokens"]), (&json!("end_turn"), &json!(2)));
    }
    for (n, seen) in teller.upstream.seen().iter().enumerate() {
        let asked: Value = serde_json::from_slice(&seen.body).unwrap();
        let body = (&asked["model"], &asked["max_tokens"], &asked["messages"][0]["content"], &asked["stream"]);
        assert_eq!(body, (&json!("claude-haiku-5-5"), &json!(77), &json!(format!("p{n}")), &json!(true)));
    }
    socket.close();
    assert!(matches!(socket.next(), Heard::Close(Some(1000), _)));
    tidegate.comes_to_rest();
}

#[test]
fn one_prompt_too_many_is_an_error_in_its_turn() {
    let teller = Teller::of(3, Duration::from_millis(5));
    let tidegate = teller.gateway("");
    let mut socket = tidegate.prompts("");
    let mut prompts = vec![json!({"prompt": "x"}).to_string(); 18];
    prompts[5] = json!({"prompt": "x", "promt": 1}).to_string();
    socket.send_all(&prompts);
    let kinds: Vec<String> = (0..18).map(|_| answer(&mut socket).1["event"].as_str().unwrap().to_owned()).collect();
    let errors: Vec<usize> = (0..18).filter(|n| kinds[*n] == "error").collect();
    assert_eq!(errors, [5, 17]);
    // What is far too much closes.
    socket.send_all(&vec![json!({"prompt": "x"}).to_string(); 60]);
    let over = loop {
        match socket.next() {
            Heard::Text(_) => {}
            other => break other,
        }
    };
    assert!(matches!(over, Heard::Close(Some(1008), _)), "{over:?}");
    drop(socket);
    tidegate.comes_to_rest();
}

#[test]
fn once_closes_after_the_first_answer_or_error() {
    let teller = Teller::of(3, Duration::ZERO);
    let tidegate = teller.gateway("");
    for (prompt, event) in [(json!({"prompt": "x"}), "done"), (json!({"prompt": ""}), "error")] {
        let mut socket = tidegate.prompts("?once=1");
        socket.send(&prompt);
        assert_eq!(answer(&mut socket).1["event"], event);
        assert!(matches!(socket.next(), Heard::Close(Some(1000), _)));
    }
    let refused = tidegate.open("/v1/stream?once=maybe", &[], &[]).err().unwrap();
    assert_eq!((refused.status, &*refused.code()), (400, "invalid_query"));
}

#[test]
fn an_error_is_told_and_the_next_prompt_is_answered() {
    let upstream = Upstream::playing(|nth, _, socket| {
        let envelope = r#"{"type":"error","error":{"type":"invalid_request_error","message":"no"},"request_id":"r"}"#;
        let answer = match nth {
            0 => plain(400, "content-type: application/json\r\n", envelope),
            _ => plain(529, "content-type: application/json\r\nx-should-retry: false\r\n", "{}"),
        };
        drop(socket.write_all(answer.as_bytes()));
    });
    let tidegate = Tidegate::before(upstream.at, "k", "[retry]\nattempts_max = 1\n");
    let mut socket = tidegate.prompts("");
    for (kind, code) in [("invalid_request_error", Value::Null), ("overloaded_error", json!("upstream_overloaded"))] {
        socket.send(&json!({"prompt": "x"}));
        let (_, last) = answer(&mut socket);
        assert_eq!((&last["event"], &last["type"]), (&json!("error"), &json!(kind)), "{last}");
        assert!(last["error_code"] == code, "{last}");
    }
    socket.send_frame(Opcode::Binary, b"x");
    assert!(matches!(socket.next(), Heard::Close(Some(1003), _)));
}

#[test]
fn a_prompt_can_be_a_turn_of_a_conversation() {
    let teller = Teller::of(2, Duration::ZERO);
    let folder = Folder::new();
    let tidegate = teller.gateway(&format!("[conversations]\nfile = \"{}\"\n", folder.path("c.db")));
    let mut socket = tidegate.prompts("");
    for n in 0..2 {
        socket.send(&json!({"prompt": format!("p{n}"), "conversation": "c"}));
        assert_eq!(answer(&mut socket).1["event"], "done");
    }
    let second: Value = serde_json::from_slice(&teller.upstream.seen()[1].body).unwrap();
    assert_eq!(second["messages"].as_array().unwrap().len(), 3);
}

#[test]
fn whoever_leaves_takes_its_prompt_along() {
    let teller = Teller::of(2_000, Duration::from_millis(10));
    let tidegate = teller.gateway("");
    let mut socket = tidegate.prompts("");
    socket.send(&json!({"prompt": "x"}));
    assert_eq!(socket.said()["event"], "completion");
    drop(socket);
    eventually("its upstream is let go", SECOND * 5, || (teller.left() == 1).then_some(()));
    tidegate.comes_to_rest();
}

#[test]
fn echo_is_spoken_only_where_it_is_switched_on() {
    let teller = Teller::of(1, Duration::ZERO);
    let door = format!("{DOOR}?echo=true");
    let refused = teller.gateway("").open(&door, &[], &[]).err().unwrap();
    assert_eq!((refused.status, &*refused.code()), (400, "invalid_query"));
    let tidegate = teller.gateway("[sockets]\necho = true\n");
    let mut socket = tidegate.open(&door, &[], &[]).map_err(|a| a.text()).unwrap();
    socket.send_frame(Opcode::Text, "äöü".as_bytes());
    socket.send_frame(Opcode::Binary, &[0, 255]);
    assert_eq!(socket.next(), Heard::Text("äöü".to_owned()));
    assert_eq!(socket.next(), Heard::Binary(vec![0, 255]));
    assert!(teller.upstream.seen().is_empty());
}

#[test]
fn what_opens_no_socket_is_told_with_its_status() {
    let tidegate = Teller::of(1, Duration::ZERO).gateway("");
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let version = ("sec-websocket-version", "13");
    let ask = |lines: &[(&str, &str)]| tidegate.ask(crate::wire::get(DOOR, lines));
    let bare = ask(&[]);
    assert_eq!((bare.status, &*bare.code(), bare.header("upgrade")), (426, "invalid_upgrade", Some("websocket")));
    assert_eq!(bare.header("sec-websocket-version"), Some("13"));
    assert_eq!(ask(&[upgrade[0], upgrade[1], key, ("sec-websocket-version", "8")]).status, 426);
    assert_eq!(ask(&[upgrade[0], upgrade[1], ("sec-websocket-key", "x"), version]).status, 400);
    let posted = tidegate.ask(crate::wire::post_to(DOOR, &[], ""));
    assert_eq!((posted.status, posted.header("allow")), (405, Some("GET")));
}
