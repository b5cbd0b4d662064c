//! What an operator says of personal data at start, and what is said back.

use crate::process::{Folder, Tidegate, finished};
use crate::wire::{QUICK, post};
use serde_json::json;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

const FREE: &str = "127.0.0.1:0";

#[test]
fn the_start_says_in_one_line_what_is_done() {
    for (config, flags, want) in [
        ("", &[][..], "redact     off: personal data in requests goes out as it is (--redact mask)"),
        (
            "",
            &["--redact", "mask"],
            "redact     mask; off name, address; tokens, restored in answers; media, URLs and file ids refused",
        ),
        ("[redact]\npolicy = \"block\"\n", &["--redact", "report"], "redact     report; off name, address"),
        ("[redact]\npolicy = \"block\"\nkinds = { ip = \"mask\" }\n", &["--redact", "off"], "redact     off: "),
        (
            "[redact]\npolicy = \"mask\"\nstyle = \"tag\"\nunscannable = \"pass\"\n[[tenant]]\nname = \"default\"\nredact = { policy = \"off\" }\n",
            &[],
            "redact     mask; off name, address; tags, not restored; media, URLs and file ids pass unseen; rules of their own: default",
        ),
    ] {
        let tidegate = Tidegate::simulated_with(config, flags);
        let output = tidegate.output();
        let line = output.lines().find(|line| line.starts_with("redact ")).unwrap();
        assert!(line.starts_with(want), "{line}\nwanted {want}");
        tidegate.says("redact=\"");
    }
}

#[test]
fn tokens_beside_a_lasting_log_need_keys_and_the_start_says_how_to_get_them() {
    let folder = Folder::new();
    let db = folder.path("c.db");
    let taken = TcpListener::bind(FREE).unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let serve = |config: &str, flags: &[&str]| {
        let file = folder.write("t.toml", config);
        let common = ["serve", "--config", &file, "--conversations", &db, "--upstream", "http://127.0.0.1:9"];
        finished(&[&common[..], &["--upstream-key", "k", "--listen", &at, "--admin-listen", FREE], flags].concat())
    };
    let (code, _, err) = serve("", &["--redact", "mask"]);
    assert_eq!((code, err.lines().count()), (2, 1), "{err}");
    for want in ["c.db", "tidegate key vault FILE", "scope_key", "vault_keys", "style = \"tag\""] {
        assert!(err.contains(want), "{want}: {err}");
    }
    // Everything else gets as far as the port, which is taken.
    let (scope, seal) = (folder.path("scope.key"), folder.path("seal.key"));
    for file in [&scope, &seal] {
        let (code, out, err) = finished(&["key", "vault", file]);
        assert_eq!(code, 0, "{err}");
        let key = std::fs::read_to_string(file).unwrap();
        assert!(key.trim().len() == 64 && !out.contains(key.trim()), "{out}");
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        let (code, _, err) = finished(&["key", "vault", file]);
        assert!(code == 2 && err.contains(file.as_str()), "a key is never written over: {err}");
        assert_eq!(std::fs::read_to_string(file).unwrap(), key);
    }
    let keys =
        format!("[redact]\nscope_key = {{ file = \"{scope}\" }}\nvault_keys = [{{ id = 1, file = \"{seal}\" }}]\n");
    for (config, flags) in [
        (keys.as_str(), &["--redact", "mask"][..]),
        ("[redact]\nstyle = \"tag\"\n", &["--redact", "mask"]),
        ("", &["--redact", "block"]),
        ("", &["--redact", "report"]),
    ] {
        let (code, _, err) = serve(config, flags);
        assert!(code == 2 && err.contains(&format!("cannot listen on {at}")), "{config} {flags:?}: {err}");
    }
}

/// What `text` gets under `config` and `flags`: status and body, and what the model said.
fn asked(config: &str, flags: &[&str], text: &str) -> (u16, String, Tidegate) {
    let tidegate = Tidegate::simulated_with(config, flags);
    let body = json!({"model": "echo", "max_tokens": 500, "messages": [{"role": "user", "content": text}]});
    let answer = tidegate.ask(post(&[QUICK], body.to_string()));
    (answer.status, answer.text(), tidegate)
}

/// The text of the last answer as the simulator gave it.
fn given(tidegate: &Tidegate) -> String {
    tidegate.truth("/truth/requests?limit=1")[0]["text"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn what_the_operator_says_is_what_requests_meet() {
    const TEXT: &str = "ORD-1234 of 138 0013 8000, li.wei@example.org";
    let (status, body, tidegate) = asked("", &["--redact", "block"], TEXT);
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("phone at messages.0.content") && !body.contains("138 0013"), "{body}");
    assert_eq!(tidegate.truth("/truth")["requests"], 0);

    let (status, body, tidegate) = asked("", &["--redact", "report"], TEXT);
    assert!(status == 200 && body.contains(TEXT) && given(&tidegate) == TEXT, "{body}");
    let count = "tidegate_redact_findings_total{tenant=\"default\",kind=\"phone\",action=\"report\"}";
    assert_eq!(tidegate.metric(count), 1.0);

    let rules = "[redact]\npolicy = \"mask\"\nstyle = \"tag\"\nallow = [\"@example.org\"]\n[[redact.patterns]]\nname = \"order\"\nregex = 'ORD-\\d{4}'\n";
    let (status, body, tidegate) = asked(rules, &[], TEXT);
    assert_eq!((status, given(&tidegate).as_str()), (200, "[CUSTOM] of [PHONE], li.wei@example.org"), "{body}");
    assert!(body.contains("[PHONE]"), "a tag is for good: {body}");

    let tenant = format!("{rules}[[tenant]]\nname = \"default\"\nredact = {{ policy = \"off\" }}\n");
    let (_, _, tidegate) = asked(&tenant, &[], TEXT);
    assert_eq!(given(&tidegate), TEXT);
}
