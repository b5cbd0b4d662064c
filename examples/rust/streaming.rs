//! A streamed answer, event by event.
//!
//!     cargo run -p tidegate --example streaming -- "Why is the sea salty?"
//!
//! `TIDEGATE_URL` is where Tidegate listens; `TIDEGATE_KEY` is a client key, if it asks for one.
#![allow(clippy::print_stdout, reason = "an example is for its reader")]

mod client;

use client::{Outcome, ask, setting};
use serde_json::json;
use std::io::Write;

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let question = if words.is_empty() { "Why is the sea salty?".to_owned() } else { words.join(" ") };
    let request = json!({
        "model": setting("TIDEGATE_MODEL", "claude-haiku-5-5"), "max_tokens": 500, "stream": true,
        "messages": [{"role": "user", "content": question}],
    });
    // An answer that breaks off upstream is taken up again where it stopped.
    let answer = ask("POST", "/v1/messages", &[("tidegate-recover", "continue")], Some(&request))?;
    for event in answer.events()? {
        let (_, event) = event?;
        match event["type"].as_str() {
            Some("content_block_delta") => print!("{}", event["delta"]["text"].as_str().unwrap_or_default()),
            Some("message_delta") => {
                println!("\n[{}, {} tokens]", event["delta"]["stop_reason"], event["usage"]["output_tokens"])
            }
            Some("error") => return Err(event["error"]["message"].to_string().into()),
            _ => {}
        }
        std::io::stdout().flush()?;
    }
    Ok(())
}
