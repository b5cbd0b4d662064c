//! Who goes first, and until when: background work beside a person who waits.
//!
//!     cargo run -p tidegate --example priority -- [DEADLINE_MS]
//!
//! `tidegate-priority` says who is served first when quota is short; `tidegate-deadline-ms` when an
//! answer is no longer wanted. `TIDEGATE_URL` is where Tidegate listens; `TIDEGATE_KEY` is a client
//! key, if it asks for one.
#![allow(clippy::print_stdout, reason = "an example is for its reader")]

mod client;

use client::{Outcome, ask, setting};
use serde_json::json;

fn one(question: &str, priority: &str, deadline_ms: &str) -> Outcome<()> {
    let request = json!({
        "model": setting("TIDEGATE_MODEL", "claude-haiku-5-5"), "max_tokens": 200,
        "messages": [{"role": "user", "content": question}],
    });
    let headers = [("tidegate-priority", priority), ("tidegate-deadline-ms", deadline_ms)];
    let answer = ask("POST", "/v1/messages", &headers, Some(&request))?;
    let (status, body) = (answer.status, answer.json()?);
    match body["usage"]["output_tokens"].as_u64() {
        Some(tokens) => println!("{priority:<11} {tokens} tokens"),
        // The machine code says why; docs/errors.md has each.
        None => println!("{priority:<11} {status} {}", body["error"]["details"]["error_code"].as_str().unwrap_or("-")),
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let deadline_ms = std::env::args().nth(1).unwrap_or_else(|| "30000".to_owned());
    std::thread::scope(|scope| {
        let reports =
            (1..=5).map(|n| scope.spawn(move || one(&format!("Summarise report {n}."), "background", "600000")));
        let mut all: Vec<_> = reports.collect();
        all.push(scope.spawn(|| one("What is a tide?", "interactive", &deadline_ms)));
        all.into_iter().try_for_each(|asked| asked.join().map_err(|_| "a thread broke")?)
    })
}
