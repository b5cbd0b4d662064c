//! What must never be written down: keys and what people say to the model. The worst paths are
//! walked with marked keys and texts, then everything that was written is searched.

use crate::process::{Tidegate, eventually, finished};
use crate::upstream::{BEGIN, END, FINISH, Upstream, chunk, plain, stream_head};
use crate::wire::{get, message, post};
use std::io::Write;
use std::time::Duration;

const THEIRS: &str = "sk-ant-UPSTREAMMARK";
const MARKS: [&str; 5] = ["UPSTREAMMARK", "CLIENTMARK", "TEXTMARK", "ANSWERMARK", "COOKIEMARK"];

/// An upstream that fails in a new way each time and quotes what it was sent.
fn tactless() -> Upstream {
    Upstream::playing(|nth, seen, socket| {
        let quoted = serde_json::to_string(&format!("{} {}", seen.head, String::from_utf8_lossy(&seen.body))).unwrap();
        let envelope = |kind: &str| {
            format!(
                "{{\"type\":\"error\",\"error\":{{\"type\":\"{kind}\",\"message\":{quoted}}},\"request_id\":\"req_up\"}}"
            )
        };
        let json = "content-type: application/json\r\nset-cookie: COOKIEMARK=1\r\n";
        let said = BEGIN.replace("\"Hi\"", "\"ANSWERMARK\"");
        let bytes = match nth % 9 {
            0 => plain(500, json, &envelope("api_error")),
            1 => plain(529, json, &envelope("overloaded_error")),
            2 => plain(400, json, &envelope("invalid_request_error")),
            3 => plain(403, "content-type: text/html\r\n", &format!("<html>{quoted}</html>")),
            4 => format!("{}{}{END}", stream_head(""), chunk(&said)),
            5 => format!("{}{}{END}", stream_head(""), chunk(&format!("{said}event: x\ndata: {{\"ANSWERMARK\n\n"))),
            6 => format!(
                "{}{}{END}",
                stream_head(""),
                chunk(&format!("{said}event: error\ndata: {}\n\n", envelope("api_error")))
            ),
            7 => format!("HTTP/1.1 200 ANSWERMARK\r\nANSWERMARK {quoted}\r\n\r\n"),
            _ => format!("{}{}{END}", stream_head(""), chunk(&format!("{said}{FINISH}"))),
        };
        let _ = socket.write_all(bytes.as_bytes());
        let _ = socket.shutdown(std::net::Shutdown::Both);
    })
}

#[test]
fn no_key_and_no_text_is_written_down_on_any_path() {
    for format in ["text", "json"] {
        let (_, out, _) = finished(&["key", "new"]);
        let key_lines = &out[out.find("[[client_key]]").unwrap()..];
        let key = out.lines().map(str::trim).find(|l| l.starts_with("tg_")).unwrap();
        let upstream = tactless();
        let config = format!(
            "[log]\nlevel = \"debug\"\nformat = \"{format}\"\n[retry]\nattempts_max = 1\n[clocks]\ngap = \"1 s\"\nclient_body_stall = \"300 ms\"\n{key_lines}"
        );
        let tidegate = Tidegate::before(upstream.at, THEIRS, &config);
        let lines = [("x-api-key", key), ("authorization", "Bearer CLIENTMARK"), ("cookie", "a=COOKIEMARK")];
        let mut seen = String::new();
        for nth in 0..27 {
            let (stream, max_tokens) = [(true, 100), (false, 100), (false, 30_000)][nth / 9];
            let answer = tidegate.ask(post(&lines, message(stream, max_tokens, "TEXTMARK")));
            seen.push_str(&answer.head);
            if answer.header("content-type") == Some("application/json") && answer.status != 400 {
                assert!(!answer.text().contains("<html>"), "{}", answer.text());
            }
            assert!(!answer.head.contains("COOKIEMARK"), "{}", answer.head);
        }
        // Requests that never become any, each with something to hide.
        for request in [
            post(&[("x-api-key", "CLIENTMARK")], message(true, 10, "TEXTMARK")),
            post(&lines, "{\"model\": \"m\", \"text\": \"TEXTMARK\" TEXTMARK}"),
            post(&lines, "{\"model\": 1, \"stream\": \"TEXTMARK\"}"),
            post(&lines, "{\"model\": \"m\", \"stream\": \"TEXTMARK\"}"),
            post(&[("content-encoding", "gzip"), lines[0]], "TEXTMARK"),
            post(&[("tidegate-priority", "TEXTMARK"), lines[0]], "{}"),
            get("/v1/TEXTMARK", &lines).into(),
            get("/v1/models?key=CLIENTMARK", &lines).into(),
            format!("GET / HTTP/1.1\r\nhost: a\r\nx-api-key CLIENTMARK {key}\r\n\r\n").into(),
            b"POST /v1/messages HTTP/1.1\r\nhost: a\r\nx-api-key: CLIENTMARK\r\ntransfer-encoding: chunked\r\n\r\nTEXTMARK".to_vec(),
        ] {
            tidegate.ask(request);
        }
        let mut wire = tidegate.client();
        wire.send(post(&lines, message(true, 10, "TEXTMARK")).split_last().unwrap().1);
        assert_eq!(wire.answer().status, 408);
        tidegate.comes_to_rest();
        for page in ["/metrics", "/streams", "/snapshot"] {
            seen.push_str(&tidegate.admin(page).text());
        }
        let log = eventually("a record for each", Duration::from_secs(10), || {
            let log = tidegate.output();
            (log.matches("end=").count() + log.matches("\"end\"").count() > 27).then_some(log)
        });
        if format == "json" {
            for line in log.lines().filter(|l| l.starts_with('{')) {
                serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            }
        }
        assert!(!log.contains("panicked"), "{log}");
        seen.push_str(&log);
        for mark in MARKS.iter().chain([&key, &&key[3..]]) {
            let line = seen.lines().find(|l| l.contains(mark));
            assert!(line.is_none(), "{mark} in {format}: {}", line.unwrap());
        }
    }
}

#[test]
fn one_record_for_each_request_says_how_it_ended() {
    let tidegate = Tidegate::simulated_with("[log]\nformat = \"json\"\n", &[]);
    // Over one connection, so that they are settled in this order.
    let mut wire = tidegate.client();
    for request in [
        post(&[crate::wire::QUICK], message(true, 100, "x")),
        post(&[("simulate", "fault=status:404")], message(false, 100, "x")),
        post(&[], "{}"),
    ] {
        wire.send(request);
        wire.answer();
    }
    drop(wire);
    tidegate.comes_to_rest();
    let records: Vec<serde_json::Value> = eventually("three records", Duration::from_secs(5), || {
        let log = tidegate.output();
        let records = log.lines().filter_map(|l| serde_json::from_str(l).ok());
        let records: Vec<_> = records.filter(|v: &serde_json::Value| v["target"] == "tidegate::request").collect();
        (records.len() >= 3).then_some(records)
    });
    let ends: Vec<_> = records.iter().map(|r| (r["end"].as_str().unwrap(), r["status"].as_u64().unwrap())).collect();
    assert_eq!(ends, [("answered", 200), ("upstream_refused", 404), ("refused", 400)]);
    let first = &records[0];
    assert_eq!((&first["attempts"], &first["output_tokens"]), (&1.into(), &20.into()), "{first}");
    assert!(first["request"].as_str().unwrap().starts_with("req_"), "{first}");
    assert!(first["upstream_request_ids"].as_str().unwrap().starts_with("req_"), "{first}");
    assert_eq!(records[2]["code"], "invalid_body");
}
