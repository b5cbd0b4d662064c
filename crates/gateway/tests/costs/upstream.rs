//! An upstream that bills what it is told to: each word of the last message is an order.
//!
//! | word | what comes of it |
//! |---|---|
//! | `in=N`, `out=N` | so many tokens of input, of output |
//! | `read=N`, `write=N`, `hour=N` | of the cache: read, written, and of that for an hour |
//! | `mute` | not a word of what was used |
//! | `wait=N` | N seconds between content and end |
//! | `break=N` | the first N attempts of this message break off before content |
//! | `fast` | the answer says that it was fast |

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_transport::http1::ServerConn;
use tidegate_transport::{Clock, Listen, MemoryNetwork, TaskKind, Tasks};

const UPSTREAM: TaskKind = TaskKind { name: "test upstream", on_cancel: "ends", on_error: "ends" };

/// How often each message was asked.
type Asked = Arc<Mutex<BTreeMap<String, u64>>>;

/// Serves `api:80` until the test ends.
pub(crate) fn serve(network: &MemoryNetwork, clock: Clock) {
    let (asked, mut door) = (Asked::default(), network.listen("api:80"));
    Tasks::new().spawn(&UPSTREAM, async move {
        while let Ok(accepted) = door.accept().await {
            let asked = Arc::clone(&asked);
            Tasks::new().spawn(&UPSTREAM, async move {
                let mut conn = ServerConn::new(accepted.open().unwrap());
                while let Ok(head) = conn.read_head().await {
                    let mut body = bytes::BytesMut::new();
                    while conn.read_body(&mut body).await.is_ok_and(|n| n > 0) {}
                    let body: Value = serde_json::from_slice(&body).unwrap();
                    if answer(&mut conn, clock, &asked, head.path(), &body).await.is_none() {
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
}

/// `None` breaks the connection off.
async fn answer(conn: &mut ServerConn, clock: Clock, asked: &Asked, path: &str, body: &Value) -> Option<()> {
    let text = body["messages"][0]["content"].as_str().unwrap();
    if path.ends_with("count_tokens") {
        whole(conn, &json!({"input_tokens": 5}));
        return Some(());
    }
    let nth = {
        let mut asked = asked.lock().unwrap();
        let nth = asked.entry(text.to_owned()).or_default();
        *nth += 1;
        *nth
    };
    let number = |word: &str| {
        let found = text.split(' ').find_map(|order| order.strip_prefix(word)?.strip_prefix('='));
        found.map_or(0, |n| n.parse::<u64>().unwrap())
    };
    let mut usage = json!({
        "input_tokens": number("in"), "output_tokens": 0, "cache_read_input_tokens": number("read"),
        "cache_creation_input_tokens": number("write"), "cache_creation": {"ephemeral_1h_input_tokens": number("hour")},
        "speed": if text.contains("fast") { "fast" } else { "standard" },
    });
    let mut end = json!({"output_tokens": number("out")});
    if text.contains("mute") {
        (usage, end) = (json!({}), json!({}));
    }
    let mut message =
        json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage});
    if body["stream"] != json!(true) {
        message["content"] = json!([{"type": "text", "text": "Hi"}]);
        message["usage"]["output_tokens"] = end["output_tokens"].clone();
        whole(conn, &message);
        return Some(());
    }
    conn.respond(200, None, false, |head| {
        head.header("content-type", b"text/event-stream");
    });
    event(conn, &json!({"type": "message_start", "message": message}));
    if nth <= number("break") {
        conn.flush().await.ok()?;
        return None;
    }
    event(conn, &json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}));
    let delta =
        json!({"type": "text_delta", "text": "twelve words that are said so that some output can be estimated"});
    event(conn, &json!({"type": "content_block_delta", "index": 0, "delta": delta}));
    conn.flush().await.ok()?;
    clock.sleep_until(clock.now() + Duration::from_secs(number("wait"))).await;
    event(conn, &json!({"type": "content_block_stop", "index": 0}));
    event(conn, &json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": end}));
    event(conn, &json!({"type": "message_stop"}));
    Some(())
}

fn whole(conn: &mut ServerConn, body: &Value) {
    let body = body.to_string();
    conn.respond(200, Some(body.len() as u64), false, |head| {
        head.header("content-type", b"application/json");
    });
    conn.push(body.as_bytes());
}

fn event(conn: &mut ServerConn, data: &Value) {
    let name = data["type"].as_str().unwrap();
    conn.push(format!("event: {name}\ndata: {data}\n\n").as_bytes());
}
