//! Endpoints that repeat what they were asked with: an operator's key, and what header lines of a
//! configuration hold, reach no client, no log and no page, whatever they are repeated in.

use crate::process::{Tidegate, command};
use crate::upstream::{BEGIN, END, FINISH, Upstream, chunk, plain, stream_head};
use crate::wire::{Answer, bare, get, message, post, post_to};
use std::io::Write;

const KEY: &str = "sk-vendor-KEYMARK-0123456789";
const TEAM: &str = "team-TEAMMARK-0123456789";
const JSON: &str = "content-type: application/json\r\n";

/// A gateway before `upstream`, with both to hide.
fn before(upstream: &Upstream) -> Tidegate {
    let config = format!(
        "[retry]\nattempts_max = 1\n[log]\nlevel = \"debug\"\n[[organisation]]\nname = \"odd\"\nurl = \"http://{}\"\nauth = \"bearer\"\nkeys = [{{ value = \"{KEY}\" }}]\nheaders = {{ X-Team = {{ env = \"TEAM\" }} }}\n",
        upstream.at
    );
    Tidegate::configured_within(&[&format!("TEAM={TEAM}")], &config)
}

/// The request's head as an endpoint for debugging would tell it, and as a text in JSON.
fn told(head: &str) -> (String, String) {
    assert!(head.contains(KEY) && head.contains(TEAM), "{head}");
    let text = head.replace("\r\n", " ");
    let json = serde_json::to_string(&text).unwrap();
    (text, json)
}

#[track_caller]
fn hides(seen: &str) {
    for mark in [KEY, TEAM, "KEYMARK", "TEAMMARK"] {
        assert!(!seen.contains(mark), "{mark}: {seen}");
    }
}

#[track_caller]
fn answer_hides(answer: &Answer) {
    hides(&answer.head);
    hides(&answer.text());
}

#[test]
fn no_refusal_and_no_header_line_shows_a_key() {
    let upstream = Upstream::playing(|nth, seen, socket| {
        let (text, json) = told(&seen.head);
        let lines = format!("{JSON}x-echo: {text}\r\nrequest-id: req_{KEY}\r\n");
        let envelope = format!(
            "{{\"type\":\"error\",\"error\":{{\"type\":\"invalid_request_error\",\"message\":{json}}},\"headers\":{json}}}"
        );
        // The same key behind an escape that a parser undoes.
        let escaped = envelope.replace(KEY, &KEY.replace("KEY", "\\u004bEY"));
        let foreign = format!("{{\"error\":{{\"message\":{json},\"code\":\"invalid_parameter\"}}}}");
        let event = |data: &str| format!("event: error\ndata: {data}\n\n");
        let said = match nth % 8 {
            0 => plain(400, &lines, &envelope),
            1 => plain(422, &lines, &foreign),
            2 => plain(500, &lines, &foreign),
            3 => plain(200, &lines, &foreign),
            4 => plain(429, &lines, &envelope),
            5 => {
                format!("{}{}{END}", stream_head(&lines[JSON.len()..]), chunk(&format!("{BEGIN}{}", event(&envelope))))
            }
            6 => format!("{}{}{END}", stream_head(""), chunk(&format!("{BEGIN}{}", event(&escaped)))),
            _ => format!("{}{}{END}", stream_head(&lines[JSON.len()..]), chunk(&format!("{BEGIN}{FINISH}"))),
        };
        drop(socket.write_all(said.as_bytes()));
        drop(socket.shutdown(std::net::Shutdown::Both));
    });
    let mut log = String::new();
    for stream in [false, true] {
        for nth in 0..8 {
            // Of its own: a quota that is refused is asked more slowly afterwards.
            let tidegate = before(&upstream);
            let answer = tidegate.ask(post(&[("tidegate-deadline-ms", "1500")], message(stream, 50, "x")));
            answer_hides(&answer);
            assert!(nth != 0 || answer.text().contains("authorization: Bearer ****"), "{}", answer.text());
            for page in ["/streams", "/snapshot", "/metrics", "/domains"] {
                hides(&tidegate.admin(page).text());
            }
            tidegate.comes_to_rest();
            log.push_str(&tidegate.output());
        }
    }
    assert!(upstream.seen().len() >= 16);
    hides(&log);
}

#[test]
fn no_part_of_an_answer_shows_a_key_but_what_a_model_may_have_written() {
    let upstream = Upstream::playing(|_, seen, socket| {
        let (text, json) = told(&seen.head);
        let model = format!("{{\"type\":\"text\",\"text\":{json}}}");
        let said = if seen.body.windows(13).any(|w| w == b"\"stream\":true") {
            let begin = BEGIN.replace("\"content\":[]", &format!("\"content\":[],\"debug\":{json}"));
            let odd = format!(": {text}\n\nevent: debug\ndata: {{\"type\":\"debug\",\"headers\":{json}}}\n\n");
            let finish = FINISH.replace("\"usage\"", &format!("\"debug\":{json},\"usage\""));
            format!("{}{}{END}", stream_head(""), chunk(&format!("{odd}{begin}{odd}{finish}")))
        } else {
            plain(
                200,
                JSON,
                &format!(
                    "{{\"debug\":{json},\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[{model}],\"stop_reason\":\"end_turn\",\"headers\":{json},\"usage\":{{\"input_tokens\":3,\"output_tokens\":4}}}}"
                ),
            )
        };
        drop(socket.write_all(said.as_bytes()));
        drop(socket.shutdown(std::net::Shutdown::Both));
    });
    let tidegate = before(&upstream);
    for lines in [&[][..], &[("tidegate-resume", "memory")]] {
        let answer = tidegate.ask(post(lines, message(true, 50, "x")));
        assert!(answer.text().contains("message_stop") && answer.text().contains("Bearer ****"), "{}", answer.text());
        answer_hides(&answer);
    }
    let mut answer = tidegate.ask(post(&[], message(false, 50, "x"))).json();
    let content = answer["content"].take().to_string();
    assert!(content.contains(KEY), "words of a model are not touched: {content}");
    assert!(answer["debug"].as_str().unwrap().contains("Bearer ****"), "{answer}");
    hides(&answer.to_string());
}

/// An error of a foreign kind is told with so many characters of its text.
#[test]
fn a_key_that_is_cut_off_in_its_middle_is_hidden_too() {
    let upstream = Upstream::playing(|nth, _, socket| {
        let message = "x".repeat(2_000 - 10 - nth) + KEY;
        let error = format!("{{\"error\":{{\"message\":\"{message}\",\"code\":\"invalid_parameter\"}}}}");
        let said = match nth % 2 {
            0 => plain(200, JSON, &error),
            _ => format!("{}{}{END}", stream_head(""), chunk(&format!("{BEGIN}data: {error}\n\n"))),
        };
        drop(socket.write_all(said.as_bytes()));
        drop(socket.shutdown(std::net::Shutdown::Both));
    });
    for nth in 0..4 {
        let tidegate = before(&upstream);
        let answer = tidegate.ask(post(&[("tidegate-deadline-ms", "1500")], message(nth % 2 == 1, 50, "x")));
        assert!(answer.text().contains("xxxxxx"), "{nth}: {}", answer.text());
        assert!(!answer.text().contains("sk-vendor") && !answer.text().contains("xsk"), "{nth}: {}", answer.text());
    }
}

#[test]
fn what_is_passed_on_shows_no_key_either() {
    let upstream = Upstream::playing(|_, seen, socket| {
        let (text, json) = told(&seen.head);
        let lines = format!("x-echo: {text}\r\n");
        let said = match seen.head.split([' ', '?']).nth(1).unwrap() {
            "/v1/agents" => plain(200, &format!("{JSON}{lines}"), &format!("{{\"headers\":{json}}}")),
            "/v1/models" => plain(200, JSON, &format!("{{\"data\":[],\"debug\":{json}}}")),
            "/v1/files/file_1/content" => plain(200, &format!("content-type: text/plain\r\n{lines}"), &text),
            "/v1/files" => plain(
                404,
                &format!("{JSON}{lines}"),
                &format!("{{\"type\":\"error\",\"error\":{{\"type\":\"not_found_error\",\"message\":{json}}}}}"),
            ),
            // In as many pieces as it has bytes.
            _ => {
                let pieces: String = text.bytes().map(|b| chunk(&char::from(b).to_string())).collect();
                format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n{pieces}{END}"
                )
            }
        };
        drop(socket.write_all(said.as_bytes()));
    });
    let tidegate = before(&upstream);
    for (path, status) in [
        ("/v1/agents", 200),
        ("/v1/models", 200),
        ("/v1/files/file_1/content", 200),
        ("/v1/files", 404),
        ("/v1/echo", 200),
    ] {
        let answer = tidegate.ask(get(path, &[]));
        assert!(answer.status == status && answer.whole, "{path}: {} {}", answer.head, answer.text());
        assert!(answer.text().contains("authorization: Bearer ****"), "{path}: the rest is there: {}", answer.text());
        answer_hides(&answer);
    }
    let mut wire = tidegate.client();
    wire.send(bare("HEAD", "/v1/files/file_1/content", &[]));
    hides(&wire.head().unwrap().head);
    answer_hides(&tidegate.ask(post_to("/v1/echo", &[], "x")));
    drop(wire);
    tidegate.comes_to_rest();
    hides(&tidegate.output());
}

#[test]
fn a_check_of_the_upstream_shows_no_key() {
    let upstream = Upstream::playing(|_, seen, socket| {
        drop(
            socket.write_all(
                plain(401, JSON, &format!("{{\"error\":\"who is \\u001b[2J {} \"}}", seen.all("authorization")[0]))
                    .as_bytes(),
            ),
        );
    });
    let folder = crate::process::Folder::new();
    let config = format!(
        "[[organisation]]\nname = \"odd\"\nurl = \"http://{}\"\nauth = \"bearer\"\nkeys = [{{ value = \"{KEY}\" }}]\n",
        upstream.at
    );
    let file = folder.write("tidegate.toml", &config);
    let output = command(&["check-upstream", "--config", &file]).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("BAD: 401") && said.contains("Bearer ****") && !said.contains('\u{1b}'), "{said}");
    hides(&said);
}
