//! A conversation that Tidegate keeps: each request carries only what is new.
//!
//!     cargo run -p tidegate --example conversation -- [ID]
//!
//! Needs a Tidegate that keeps conversations (`serve --simulate` does). `TIDEGATE_URL` is where Tidegate
//! listens; `TIDEGATE_KEY` is a client key, if it asks for one.
#![allow(clippy::print_stdout, reason = "an example is for its reader")]

mod client;

use client::{Outcome, ask, setting};
use serde_json::json;

fn main() -> Outcome<()> {
    let unique = || format!("example-{}", std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos());
    let conversation = std::env::args().nth(1).unwrap_or_else(unique);
    for question in ["My order is 7741.", "Where is it?"] {
        let request = json!({
            "model": setting("TIDEGATE_MODEL", "claude-haiku-5-5"), "max_tokens": 300,
            "messages": [{"role": "user", "content": question}],
        });
        let headers = [("tidegate-conversation", conversation.as_str())];
        let answer = ask("POST", "/v1/messages", &headers, Some(&request))?.json()?;
        // An error has no content.
        let text = answer["content"][0]["text"].as_str().ok_or_else(|| answer["error"]["message"].to_string())?;
        println!("> {question}\n{text}\n");
    }
    let turns = ask("GET", &format!("/v1/conversations/{conversation}/turns"), &[], None)?.json()?;
    println!("[{conversation} has {} turns]", turns["data"].as_array().map_or(0, Vec::len));
    Ok(())
}
