//! Memory with ten thousand conversations of forty turns in use one after another.

use super::client::crowd;
use super::pace::{LONG_TURNS, history};
use super::site::{Scene, Site};
use crate::commands::Failed;
use crate::commands::page::number;
use serde_json::json;

/// Bytes of each of the turns, question and answer.
const TURN_BYTES: usize = 400;
const CLIENTS: usize = 8;

/// Seeds them all, goes on with each of them once, and looks at what Tidegate holds.
pub(super) fn run(site: &Site, talks: usize) -> Result<super::Section, Failed> {
    let scene = Scene::start(site, "held", "")?;
    let head = ["", "memory, MB", "conversations in memory", "what they take, MB", "read from the log"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let look = |what: &str| -> Result<Vec<String>, Failed> {
        let metric = |name| scene.metric(name);
        let memory = scene.memory().map_or_else(|| "-".to_owned(), |bytes| number(bytes as f64 / 1e6, 1));
        let held = metric("tidegate_conversations_held")?;
        let bytes = metric("tidegate_conversations_held_bytes")?;
        let read = metric("tidegate_conversations_found_total{place=\"log\"}")?;
        Ok(vec![what.to_owned(), memory, number(held, 0), number(bytes / 1e6, 1), number(read, 0)])
    };
    rows.push(look("before the first")?);
    super::tell(&format!("memory: {talks} conversations"));
    let name = |nth: usize| format!("held-{nth}");
    crowd(&site.stop, scene.gateway, CLIENTS, talks, |client, nth| {
        let lines = [("tidegate-conversation", &*name(nth)), ("simulate", "output_tokens=50-50")];
        client.ask(&lines, history(site.seed, &name(nth), LONG_TURNS, TURN_BYTES).as_bytes()).map(drop)
    })?;
    rows.push(look(&format!("{talks} of {LONG_TURNS} turns, one after another"))?);
    let body =
        json!({"model": "claude-haiku-4-5", "max_tokens": 500, "messages": [{"role": "user", "content": "On."}]});
    let body = body.to_string();
    crowd(&site.stop, scene.gateway, CLIENTS, talks, |client, nth| {
        let lines = [("tidegate-conversation", &*name(nth)), ("simulate", "output_tokens=50-50")];
        client.ask(&lines, body.as_bytes()).map(drop)
    })?;
    rows.push(look("and each once more")?);
    let note = format!(
        "`memory_bytes` at its default; {LONG_TURNS} turns of {TURN_BYTES} bytes; memory is the proportional set size of the process."
    );
    Ok(super::Section { title: format!("Memory with {} conversations", number(talks as f64, 0)), rows, note })
}
