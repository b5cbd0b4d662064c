//! Costs and budgets as an operator meets them: the command, the file, a kill, a restart.

use crate::process::{Folder, Tidegate, eventually, finished};
use crate::socket::code_in;
use crate::upstream::{END, Upstream, chunk, plain, stream_head};
use crate::wire::{Answer, QUICK, Wire, message, post};
use serde_json::{Value, json};
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

/// An upstream whose answers have so many output tokens as `max_tokens` says, at most.
fn billing() -> Upstream {
    Upstream::playing(|_, seen, socket| {
        let asked: Value = serde_json::from_slice(&seen.body).unwrap();
        let usage = json!({"input_tokens": 1000, "output_tokens": asked["max_tokens"]});
        let mut message =
            json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage});
        let answer = if asked["stream"] == true {
            let event = |data: Value| chunk(&format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap()));
            let end = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": asked["max_tokens"]}});
            stream_head("")
                + &event(json!({"type": "message_start", "message": message}))
                + &event(end)
                + &event(json!({"type": "message_stop"}))
                + END
        } else {
            message["content"] = json!([{"type": "text", "text": "Hi"}]);
            plain(200, "content-type: application/json\r\n", &message.to_string())
        };
        drop(socket.write_all(answer.as_bytes()));
    })
}

/// Opus 5.5: four dollars a million tokens in, twenty out.
fn ask(tidegate: &Tidegate, max_tokens: u32) -> Answer {
    tidegate.ask(post(&[], message(true, max_tokens, "x").replace("claude-haiku-5-5", "claude-opus-5-5")))
}

fn page(tidegate: &Tidegate) -> Value {
    let page = tidegate.admin("/usage");
    assert_eq!(page.status, 200, "{}", page.text());
    page.json()
}

/// A request is settled a moment after its answer's last byte.
fn settled(tidegate: &Tidegate, attempts: u64) -> Value {
    eventually("it is settled", Duration::from_secs(5), || {
        Some(page(tidegate)).filter(|page| page["total"]["attempts"] == attempts)
    })
}

fn budgeted(upstream: SocketAddr, tables: &str) -> Tidegate {
    let config = format!("{tables}\n[[tenant]]\nname = \"default\"\n[tenant.budget]\nmonthly = \"0.10 USD\"\n");
    Tidegate::before(upstream, "k", &config)
}

#[test]
fn a_kill_takes_no_more_than_the_last_quarter_of_a_second_and_the_budget_goes_on() {
    let (upstream, folder) = (billing(), Folder::new());
    for (name, tables) in [
        ("its own file", format!("[usage]\nfile = \"{}\"", folder.path("usage.db"))),
        ("the conversations' file", format!("[conversations]\nfile = \"{}\"", folder.path("talks.db"))),
    ] {
        let mut first = budgeted(upstream.at, &tables);
        assert_eq!(ask(&first, 4_000).status, 200);
        // Nobody asks for the page, which would have it written; only time passes.
        std::thread::sleep(Duration::from_secs(1));
        first.signal("KILL");
        first.exit(Duration::from_secs(5));
        let second = budgeted(upstream.at, &tables);
        let told = page(&second);
        assert_eq!((&told["total"]["attempts"], &told["total"]["usd"]), (&json!(1), &json!("0.084")), "{name}");
        assert_eq!((&told["budgets"][0]["spent_usd"], &told["kept"]["in"]), (&json!("0.084"), &json!("file")));
        let warned = ask(&second, 4_000);
        assert_eq!((warned.status, warned.header("tidegate-budget-spent")), (200, Some("84%")), "{name}");
        settled(&second, 2);
        second.says("a tenant has reached its budget");
        let refused = ask(&second, 1);
        assert_eq!((refused.status, refused.code().as_str()), (402, "budget_reached"), "{name}");
        drop(second);
    }
}

#[test]
fn a_drain_writes_what_was_used_last() {
    let (upstream, folder) = (billing(), Folder::new());
    let tables = format!("[usage]\nfile = \"{}\"", folder.path("usage.db"));
    let mut tidegate = Tidegate::before(upstream.at, "k", &tables);
    for _ in 0..20 {
        assert_eq!(ask(&tidegate, 10).status, 200);
    }
    tidegate.signal("TERM");
    assert_eq!(tidegate.exit(Duration::from_secs(10)), Some(0));
    let next = Tidegate::before(upstream.at, "k", &tables);
    assert_eq!(page(&next)["total"]["attempts"], 20);
    // While one drains the next may begin: what both used is in one page.
    let beside = Tidegate::before(upstream.at, "k", &tables);
    assert_eq!((ask(&next, 10).status, ask(&beside, 10).status), (200, 200));
    eventually("both have written", Duration::from_secs(5), || {
        (page(&beside)["total"]["attempts"] == 22).then_some(())
    });
    // But no log of conversations is kept in it meanwhile.
    let tables = tables.replace("[usage]", "[conversations]");
    let config = folder.write("second.toml", &tables);
    let (code, _, err) = finished(&[
        "serve",
        "--config",
        &config,
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--upstream",
        "http://127.0.0.1:1",
        "--upstream-key",
        "k",
    ]);
    assert!(code == 2 && err.contains("usage.db") && err.contains("conversations cannot be kept"), "{err}");
}

#[test]
fn the_command_tells_a_table_json_and_csv() {
    let upstream = billing();
    let tidegate = budgeted(upstream.at, "");
    assert_eq!(ask(&tidegate, 500).status, 200);
    let odd = message(false, 7, "x").replace("claude-haiku-5-5", "=m\\u001b[31m,x");
    assert_eq!(tidegate.ask(post(&[], odd)).status, 200);
    settled(&tidegate, 2);
    let admin = tidegate.admin.to_string();
    let told = |args: &[&str]| {
        let (code, out, err) = finished(&[&["usage", "--admin", &admin], args].concat());
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        out
    };
    let table = told(&[]);
    for want in [
        "claude-opus-5-5",
        "answered",
        "1,000",
        "0.0140",
        "unknown",
        "=m\\u{1b}[31m,x",
        "0.014 of 0.10 USD spent (14 %)",
        "in memory since",
    ] {
        assert!(table.contains(want), "{want} in\n{table}");
    }
    assert!(table.chars().all(|c| c == '\n' || !c.is_control()), "{table:?}");
    let page: Value = serde_json::from_str(&told(&["--json", "--model", "claude-opus-5-5"])).unwrap();
    assert_eq!((page["rows"].as_array().unwrap().len(), &page["total"]["cost_nano_usd"]), (1, &json!(14_000_000)));
    let csv = told(&["--csv"]);
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!((lines.len(), lines[0].starts_with("day,tenant,model,kind,attempts,")), (3, true), "{csv}");
    assert!(lines[1].contains("\"'=m\x1b[31m,x\"") && lines[1].ends_with(",1,,"), "no formula, no money: {csv:?}");
    assert!(lines[2].ends_with(",0,0,14000000,0.014"), "{csv}");
    for (args, says) in [(&["--from", "yesterday"][..], "2026-11-30"), (&["--from", "2999-01-01"], "is after")] {
        let (code, out, err) = finished(&[&["usage", "--admin", &admin], args].concat());
        assert!(code == 2 && out.is_empty() && err.contains(says), "{args:?}: {err}");
    }
    assert_eq!(finished(&["usage", "--admin", "127.0.0.1:1"]).0, 2);
    assert_eq!(Wire::to(tidegate.admin).ask(post(&[], "").as_slice()).status, 404);
    let wrong = Wire::to(tidegate.admin).ask(crate::wire::bare("DELETE", "/usage", &[]));
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET")));
}

#[test]
fn the_simulated_api_bills_too_and_its_scratch_log_keeps_nothing() {
    let tidegate = Tidegate::simulated();
    assert_eq!(tidegate.ask(post(&[QUICK], message(true, 100, "x"))).status, 200);
    let page = settled(&tidegate, 1);
    assert_eq!((&page["total"]["output_tokens"], &page["kept"]["in"]), (&json!(20), &json!("memory")));
    assert_eq!(page["total"]["unpriced_attempts"], 0);
}

#[test]
fn a_socket_is_told_that_the_budget_is_reached() {
    let upstream = billing();
    let tidegate = budgeted(upstream.at, "");
    assert_eq!(ask(&tidegate, 6_000).status, 200);
    settled(&tidegate, 1);
    let mut socket = tidegate.socket();
    let asked: Value = serde_json::from_str(&message(true, 10, "x")).unwrap();
    socket.create("s", &json!({"request": asked}));
    let told = socket.until("s", "stream.error").pop().unwrap();
    assert_eq!((told["status"].as_u64(), code_in(&told)), (Some(402), "budget_reached"), "{told}");
    socket.close();
}
