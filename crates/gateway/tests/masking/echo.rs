//! An upstream that says what it was told, in the smallest pieces there are.
//!
//! Asked with `thinking`, it thinks the same first, and signs it; thinking in what it is sent must be
//! what it signed. Asked with `tools`, it calls the first one with the text. Words in a text do more:
//!
//! | word | what comes of it |
//! |---|---|
//! | `CUT` | the connection ends before the text's block does |
//! | `HALF` | it ends inside the first token, the first time |
//! | `REFUSE` | a refusal with the text in its message |
//! | `TELL` | the model says a number of its own |

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_transport::http1::ServerConn;
use tidegate_transport::{MemoryNetwork, TaskKind, Tasks};

const UPSTREAM: TaskKind = TaskKind { name: "test upstream", on_cancel: "ends", on_error: "ends" };

/// What the model knows by itself.
pub(crate) const OWN_NUMBER: &str = "13787654321";

/// What it was sent: bodies, whole.
pub(crate) type Seen = Arc<Mutex<Vec<String>>>;

/// Serves `api:80` until the test ends; waits `pace` between pieces.
pub(crate) fn serve(network: &MemoryNetwork, pace: Duration) -> Seen {
    use tidegate_transport::Listen;
    let seen = Seen::default();
    let (bodies, mut door) = (Arc::clone(&seen), network.listen("api:80"));
    Tasks::new().spawn(&UPSTREAM, async move {
        while let Ok(accepted) = door.accept().await {
            let bodies = Arc::clone(&bodies);
            Tasks::new().spawn(&UPSTREAM, async move {
                let mut conn = ServerConn::new(accepted.open().unwrap());
                while let Ok(head) = conn.read_head().await {
                    let mut body = bytes::BytesMut::new();
                    while conn.read_body(&mut body).await.is_ok_and(|n| n > 0) {}
                    bodies.lock().unwrap().push(String::from_utf8(body.to_vec()).unwrap());
                    let is_first = bodies.lock().unwrap().len() == 1;
                    let body: Value = serde_json::from_slice(&body).unwrap();
                    if answer(&mut conn, head.path(), &body, (pace, is_first)).await.is_none() {
                        return;
                    }
                    conn.end();
                    if conn.flush().await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    seen
}

/// `None` breaks the connection off.
async fn answer(conn: &mut ServerConn, path: &str, body: &Value, (pace, is_first): (Duration, bool)) -> Option<()> {
    let said = if is_asked_to_go_on(body) { rest(body) } else { last_text(body) };
    let text = if said.contains("TELL") { format!("Try {OWN_NUMBER}.") } else { said };
    let refusal = match wrongly_signed(body) {
        true => Some("messages: thinking was not signed by this model".to_owned()),
        false => text.contains("REFUSE").then(|| format!("this cannot be: {text}")),
    };
    if let Some(message) = refusal {
        let error = json!({"type": "error", "error": {"type": "invalid_request_error", "message": message}});
        whole(conn, 400, &error);
        return Some(());
    }
    if path.ends_with("count_tokens") {
        whole(conn, 200, &json!({ "input_tokens": text.len() }));
        return Some(());
    }
    let blocks = blocks(body, &text);
    if body["stream"] != json!(true) {
        let message = json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": blocks,
            "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 1},
        });
        whole(conn, 200, &message);
        return Some(());
    }
    conn.respond(200, None, false, |head| {
        head.header("content-type", b"text/event-stream");
    });
    // Between the letters of the first token.
    let half = text.find("ZQ").filter(|_| text.contains("HALF") && is_first).map(|at| at + 5);
    for (nth, event) in events(&blocks).into_iter().enumerate() {
        if half.is_some_and(|half| nth == 2 + half) {
            let _ = conn.flush().await;
            return None;
        }
        if text.contains("CUT") && event.contains("content_block_stop") {
            let _ = conn.flush().await;
            return None;
        }
        conn.push(event.as_bytes());
        if !pace.is_zero() {
            conn.flush().await.ok()?;
            tokio::time::sleep(pace).await;
        }
    }
    Some(())
}

fn whole(conn: &mut ServerConn, status: u16, body: &Value) {
    let body = body.to_string();
    conn.respond(status, Some(body.len() as u64), false, |head| {
        head.header("content-type", b"application/json");
    });
    conn.push(body.as_bytes());
}

/// Whether an answer of its own that broke off is to be gone on with.
fn is_asked_to_go_on(body: &Value) -> bool {
    last_text(body).starts_with("Your previous response was interrupted")
}

/// What is left of the text that it was to say again.
fn rest(body: &Value) -> String {
    let messages = body["messages"].as_array().unwrap();
    let text = |at: usize| text_of(&messages[messages.len() - at]["content"]);
    text(3).strip_prefix(&text(2)).unwrap().to_owned()
}

/// The text of the last message.
fn last_text(body: &Value) -> String {
    text_of(&body["messages"].as_array().unwrap().last().unwrap()["content"])
}

fn text_of(content: &Value) -> String {
    let blocks = content.as_array().cloned().unwrap_or_else(|| vec![json!({"text": content})]);
    blocks.iter().filter_map(|block| block["text"].as_str().or(block["content"].as_str())).collect()
}

fn sign(thinking: &str) -> String {
    Sha256::digest(thinking).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn wrongly_signed(body: &Value) -> bool {
    let messages = body["messages"].as_array().unwrap();
    let blocks = messages.iter().filter_map(|message| message["content"].as_array()).flatten();
    let mut thoughts = blocks.filter(|block| block["type"] == "thinking");
    thoughts.any(|block| block["signature"] != sign(block["thinking"].as_str().unwrap()).as_str())
}

fn blocks(body: &Value, text: &str) -> Vec<Value> {
    let mut blocks = Vec::new();
    if body.get("thinking").is_some() {
        let thinking = format!("They said {text}, so I say {text}.");
        blocks.push(json!({"type": "thinking", "thinking": thinking, "signature": sign(&thinking)}));
    }
    if let Some(tool) = body["tools"].get(0) {
        let input = json!({"said": text});
        blocks.push(json!({"type": "tool_use", "id": "toolu_1", "name": tool["name"], "input": input}));
    } else {
        blocks.push(json!({"type": "text", "text": text}));
    }
    blocks
}

fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

/// A delta as the API writes it.
fn delta(index: usize, kind: &str, field: &str, text: &str) -> String {
    let text = json!(text);
    format!(
        "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":{index},\"delta\":{{\"type\":\"{kind}\",\"{field}\":{text}}}}}\n\n"
    )
}

fn events(blocks: &[Value]) -> Vec<String> {
    let usage = json!({"input_tokens": 1, "output_tokens": 1});
    let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": null, "usage": usage});
    let mut out = vec![event("message_start", &json!({"type": "message_start", "message": message}))];
    for (index, block) in blocks.iter().enumerate() {
        let mut start = block.clone();
        let (kind, field, text) = match block["type"].as_str().unwrap() {
            "thinking" => ("thinking_delta", "thinking", block["thinking"].as_str().unwrap().to_owned()),
            "tool_use" => ("input_json_delta", "partial_json", block["input"].to_string()),
            _ => ("text_delta", "text", block["text"].as_str().unwrap().to_owned()),
        };
        match kind {
            "input_json_delta" => start["input"] = json!({}),
            _ => start[field] = json!(""),
        }
        if kind == "thinking_delta" {
            start["signature"] = json!("");
        }
        let start = json!({"type": "content_block_start", "index": index, "content_block": start});
        out.push(event("content_block_start", &start));
        out.extend(text.chars().map(|c| delta(index, kind, field, &c.to_string())));
        if kind == "thinking_delta" {
            let delta = json!({"type": "signature_delta", "signature": block["signature"]});
            let data = json!({"type": "content_block_delta", "index": index, "delta": delta});
            out.push(event("content_block_delta", &data));
        }
        out.push(event("content_block_stop", &json!({"type": "content_block_stop", "index": index})));
    }
    let delta = json!({"stop_reason": "end_turn", "stop_sequence": null});
    out.push(event("message_delta", &json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 9}})));
    out.push(event("message_stop", &json!({"type": "message_stop"})));
    out
}
