//! A stream that survives its connection: cut in the middle, read on from the last event.
//!
//!     cargo run -p tidegate --example resume
//!
//! With `tidegate-resume` every event has an `id:`, a cursor. Whoever has the stream's id and the last
//! cursor gets the rest, on any connection. `TIDEGATE_URL` is where Tidegate listens; `TIDEGATE_KEY` is
//! a client key, if it asks for one.
#![allow(clippy::print_stdout, reason = "an example is for its reader")]

mod client;

use client::{Outcome, ask, setting};
use serde_json::{Value, json};

fn show(event: &Value) {
    if event["type"] == "content_block_delta" {
        print!("{}", event["delta"]["text"].as_str().unwrap_or_default());
    }
}

fn main() -> Outcome<()> {
    let request = json!({
        "model": setting("TIDEGATE_MODEL", "claude-haiku-5-5"), "max_tokens": 500, "stream": true,
        "messages": [{"role": "user", "content": "Tell me about the tide."}],
    });
    let answer = ask("POST", "/v1/messages", &[("tidegate-resume", "memory")], Some(&request))?;
    let stream = answer.header("tidegate-stream").unwrap_or_default().to_owned();
    let mut last = String::new();
    // Six events, and then as if the connection had been lost.
    for event in answer.events()?.take(6) {
        let (cursor, event) = event?;
        show(&event);
        last = cursor.unwrap_or(last);
    }

    println!("\n-- cut, and back again --");
    for event in ask("GET", &format!("/v1/streams/{stream}?after={last}"), &[], None)?.events()? {
        let (_, event) = event?;
        show(&event);
        if event["type"] == "error" {
            return Err(event["error"]["message"].to_string().into());
        }
    }
    println!("\n[whole]");
    Ok(())
}
