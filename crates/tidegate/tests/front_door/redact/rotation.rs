//! A new key for the vault: what the old one sealed opens until it is sealed anew, and then without it.

use crate::process::{Folder, Tidegate, finished};
use crate::wire::{get, post};
use serde_json::{Value, json};
use std::time::Duration;

const TALK: (&str, &str) = ("tidegate-conversation", "c");
const VALUES: [&str; 2] = ["li.wei@example.org", "138 0013 8000"];

/// A configuration whose ring has these keys, each named by a digit, and a log in `folder`.
fn config(folder: &Folder, ring: &[u32]) -> String {
    let keys: Vec<String> =
        ring.iter().map(|id| format!("{{ id = {id}, value = \"{}\" }}", id.to_string().repeat(64))).collect();
    format!(
        "[redact]\npolicy = \"mask\"\nscope_key = {{ value = \"{}\" }}\nvault_keys = [{}]\n[conversations]\nfile = \"{}\"\n",
        "a".repeat(64),
        keys.join(", "),
        folder.path("c.db")
    )
}

fn say(tidegate: &Tidegate, text: &str) {
    let body = json!({"model": "echo", "max_tokens": 500, "messages": [{"role": "user", "content": text}]});
    let answer = tidegate.ask(post(&[TALK], body.to_string())).json();
    assert_eq!(answer["content"][0]["text"], text);
}

/// The conversation as its door tells it.
fn told(tidegate: &Tidegate) -> (u16, Value) {
    let answer = tidegate.ask(get("/v1/conversations/c/turns", &[]));
    (answer.status, answer.json())
}

fn stop(mut tidegate: Tidegate) {
    tidegate.signal("TERM");
    assert_eq!(tidegate.exit(Duration::from_secs(20)), Some(0));
}

#[test]
fn an_old_key_is_needed_until_its_records_are_sealed_anew() {
    let (folder, simulated) = (Folder::new(), Tidegate::simulated());
    let start = |ring: &[u32]| Tidegate::before(simulated.simulator(), "sk-ant-1", &config(&folder, ring));
    let reseal =
        |ring: &[u32]| finished(&["key", "reseal", "--config", &folder.write("t.toml", &config(&folder, ring))]);

    let tidegate = start(&[1]);
    say(&tidegate, VALUES[0]);
    let (code, _, err) = reseal(&[2, 1]);
    assert!(code == 2 && err.contains("c.db"), "the log is the gateway's: {err}");
    stop(tidegate);
    let tidegate = start(&[2, 1]);
    say(&tidegate, VALUES[1]);
    assert!(told(&tidegate).1.to_string().contains(VALUES[0]));
    stop(tidegate);

    let tidegate = start(&[2]);
    let (status, refused) = told(&tidegate);
    assert!(status >= 500 && !refused.to_string().contains("ZQ"), "{status} {refused}");
    stop(tidegate);
    let (code, _, err) = reseal(&[2]);
    assert!(code == 2 && err.contains("conversation `c`") && err.contains("needs key 1"), "{err}");

    let (code, out, err) = reseal(&[2, 1]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("1 conversations have a vault; 1 were sealed anew, 2 records\n"), "{out}");
    assert!(out.contains("under key 2"), "{out}");
    assert!(reseal(&[2, 1]).1.starts_with("1 conversations have a vault; 0 were sealed anew"));

    let tidegate = start(&[2]);
    let (status, turns) = told(&tidegate);
    assert!(status == 200 && VALUES.iter().all(|value| turns.to_string().contains(value)), "{turns}");
    say(&tidegate, VALUES[0]);
    let (code, _, err) = finished(&["key", "reseal", "--config", &folder.write("none.toml", "")]);
    assert!(code == 2 && err.contains("no vault_keys"), "{err}");
}
