//! Costs and budgets as an operator meets them: the command, the file, a kill, a restart.

use crate::process::{Folder, Tidegate, eventually, finished};
use crate::socket::code_in;
use crate::upstream::{END, Upstream, chunk, plain, stream_head};
use crate::wire::{Answer, QUICK, Wire, get, message, post, post_to};
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

const BUDGET: &str = "\n[[tenant]]\nname = \"default\"\n[tenant.budget]\nmonthly = \"0.10 USD\"\n";

fn budgeted(upstream: SocketAddr, tables: &str) -> Tidegate {
    let config = format!("{tables}{BUDGET}");
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
fn prices_and_budgets_change_while_it_runs_and_what_was_spent_stays() {
    let (upstream, folder) = (billing(), Folder::new());
    let file = format!("[usage]\nfile = \"{}\"\n", folder.path("usage.db"));
    let config = |budget: &str, price: &str| {
        format!(
            "{file}[[tenant]]\nname = \"default\"\n{budget}{}",
            if price.is_empty() {
                String::new()
            } else {
                format!("[[price]]\nmodel = \"claude-opus-5-5\"\ninput = \"4 USD\"\noutput = \"{price}\"\n")
            }
        )
    };
    let monthly = |amount: &str| format!("[tenant.budget]\nmonthly = \"{amount}\"\n");
    let tidegate = Tidegate::before(upstream.at, "k", &config(&monthly("0.10 USD"), ""));
    let gauge = || tidegate.admin("/metrics").text().contains("tidegate_tenant_budget_nano_usd{");
    // The change is in force when the file's watch has seen it.
    let reconfigured = |text: &str, generation: f64| {
        tidegate.reconfigure(text);
        eventually("it is in force", Duration::from_secs(6), || {
            (tidegate.metric("tidegate_config_generation") == generation).then_some(())
        });
    };
    assert_eq!(ask(&tidegate, 5_000).status, 200);
    assert_eq!(settled(&tidegate, 1)["total"]["usd"], "0.104");
    assert_eq!(ask(&tidegate, 1).code(), "budget_reached");

    // A larger budget lets the next go.
    reconfigured(&config(&monthly("1 USD"), ""), 2.0);
    assert_eq!(ask(&tidegate, 5_000).status, 200);
    let told = settled(&tidegate, 2);
    assert_eq!((&told["total"]["usd"], &told["budgets"][0]["monthly_usd"]), (&json!("0.208"), &json!("1.00")));
    reconfigured(&config(&monthly("1 USD"), "60 USD"), 3.0);
    assert_eq!(ask(&tidegate, 5_000).status, 200);
    let told = settled(&tidegate, 3);
    assert_eq!(told["total"]["usd"], "0.512", "0.304 more: what was spent before stays what it was");
    assert_eq!((&told["budgets"][0]["spent_usd"], &told["budgets"][0]["state"]), (&json!("0.512"), &json!("open")));
    // A smaller one is reached at once, and told of although another was told of this month.
    reconfigured(&config(&monthly("0.60 USD"), "60 USD"), 4.0);
    assert_eq!(ask(&tidegate, 5_000).status, 200);
    settled(&tidegate, 4);
    assert_eq!(ask(&tidegate, 1).code(), "budget_reached");
    eventually("it is told of both", Duration::from_secs(5), || {
        (tidegate.output().matches("a tenant has reached its budget").count() == 2).then_some(())
    });
    assert!(gauge());
    reconfigured(&config("", "60 USD"), 5.0);
    assert_eq!(ask(&tidegate, 1).status, 200);
    assert_eq!(settled(&tidegate, 5)["budgets"], json!([]));
    assert!(!gauge(), "a budget that is gone is not told any more");
}

#[test]
fn what_a_process_that_hands_over_still_uses_is_written_and_counts() {
    let (upstream, folder) = (billing(), Folder::new());
    for (name, tables) in [
        ("its own file", format!("[usage]\nfile = \"{}\"\n", folder.path("usage.db"))),
        ("the conversations' file", format!("[conversations]\nfile = \"{}\"\n", folder.path("talks.db"))),
    ] {
        let config = format!("{tables}[[tenant]]\nname = \"default\"\n[tenant.budget]\nmonthly = \"0.10 USD\"\n");
        let mut elder = Tidegate::before(upstream.at, "k", &config);
        assert_eq!(ask(&elder, 1_000).status, 200);
        // A connection that is kept is served once more by the process that it was opened to.
        let mut kept = elder.client();
        kept.send(post(&[], message(false, 10, "x").replace("claude-haiku-5-5", "claude-opus-5-5")));
        assert_eq!(kept.answer().status, 200);
        settled(&elder, 2);
        let flags = ["--upstream", &format!("http://{}", upstream.at), "--upstream-key", "k"];
        let heir = Tidegate::taking_over(&elder, &config, &flags).unwrap();
        elder.says("handed over; what is under way");
        kept.send(post(&[], message(false, 4_000, "x").replace("claude-haiku-5-5", "claude-opus-5-5")));
        assert_eq!(kept.answer().status, 200);
        drop(kept);
        assert_eq!(elder.exit(Duration::from_secs(20)), Some(0), "{name}: {}", elder.output());
        let told = page(&heir);
        assert_eq!((&told["total"]["attempts"], &told["total"]["usd"]), (&json!(3), &json!("0.1122")), "{name}");
        heir.says("the process before this one has ended");
        eventually("the heir has read what its elder spent", Duration::from_secs(5), || {
            (page(&heir)["budgets"][0]["spent_usd"] == "0.1122").then_some(())
        });
        assert_eq!(ask(&heir, 1).code(), "budget_reached", "{name}");
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
    let csv = told(&["--by", "tenant", "--csv"]);
    assert_eq!(csv.lines().count(), 2, "{csv}");
    assert!(csv.contains("\ndefault,2,") && csv.ends_with(",14000000,0.014,0,0\n"), "{csv}");
    let page: Value = serde_json::from_str(&told(&["--by", "kind,day", "--json"])).unwrap();
    assert_eq!((&page["rows"][0]["kind"], &page["rows"][0]["attempts"]), (&json!("answered"), &json!(2)), "{page}");
    let nothing = told(&["--tenant", "nobody"]);
    assert!(nothing.starts_with("nothing was used from ") && !nothing.contains("TENANT"), "{nothing}");
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

#[test]
fn a_budget_that_is_reached_lets_no_new_batch_go_and_one_that_needs_prices_never_does() {
    let upstream = Upstream::playing(|_, seen, socket| {
        let usage = json!({"input_tokens": 30_000, "output_tokens": 1});
        let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "usage": usage,
            "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"});
        let other = json!({"id": "msgbatch_1", "type": "message_batch", "data": []});
        let body = if seen.head.starts_with("POST /v1/messages ") { message } else { other };
        drop(socket.write_all(plain(200, "content-type: application/json\r\n", &body.to_string()).as_bytes()));
    });
    let spend = |tidegate: &Tidegate| {
        let body = message(false, 100, "x").replace("claude-haiku-5-5", "claude-opus-5-5");
        assert_eq!(tidegate.ask(post(&[], body)).status, 200);
        settled(tidegate, 1);
    };
    let send = |tidegate: &Tidegate, path: &str| tidegate.ask(post_to(path, &[], "{\"requests\":[]}"));
    let costly = ["/v1/messages/batches", "/v1/sessions"];
    let free = "/v1/messages/batches/msgbatch_1/cancel";

    let tidegate = budgeted(upstream.at, "");
    for path in costly {
        assert_eq!(send(&tidegate, path).status, 200, "{path}");
    }
    spend(&tidegate);
    for path in costly {
        let refused = send(&tidegate, path);
        assert_eq!((refused.status, refused.code().as_str()), (402, "budget_reached"), "{path}: {}", refused.text());
    }
    assert_eq!(send(&tidegate, free).status, 200, "what costs nothing goes");
    assert_eq!(tidegate.ask(get("/v1/messages/batches", &[])).status, 200);

    for (rule, status) in [("when_reached = \"queue\"", 200), ("when_reached = \"warn\"", 200)] {
        let tidegate = Tidegate::before(upstream.at, "k", &format!("{BUDGET}{rule}\n"));
        spend(&tidegate);
        assert_eq!(send(&tidegate, costly[0]).status, status, "{rule}");
    }
    let tidegate = Tidegate::before(upstream.at, "k", &format!("{BUDGET}unpriced = \"refuse\"\n"));
    for path in costly {
        let refused = send(&tidegate, path);
        assert_eq!((refused.status, refused.code().as_str()), (403, "price_unknown"), "{path}: {}", refused.text());
        assert!(refused.text().contains("POST /v1/messages"), "{}", refused.text());
    }
    assert_eq!(send(&tidegate, free).status, 200);
}
