//! WebSockets, in both dialects.

use crate::scene::{Folder, PHONE, SAID, Scene, asks, masking};
use serde_json::{Value, json};
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;
use tidegate_base::{Moment, Prng};
use tidegate_transport::Clock;
use tidegate_transport::websocket::{Message, Opening, Socket, SocketRules, open};
use tidegate_wire::dialect::tidegate_v1::SUBPROTOCOL;
use tidegate_wire::websocket::{ReadRules, Role};

const BYTES_MAX: usize = 1 << 20;
const RULES: SocketRules = SocketRules {
    read: ReadRules { role: Role::Client, frame_bytes_max: BYTES_MAX, message_bytes_max: BYTES_MAX },
    ping: Duration::from_secs(15),
    close: Duration::from_secs(5),
};

async fn socket(scene: &Scene, subprotocols: &[&str]) -> Socket {
    let io = scene.network.connect("gateway:80").unwrap();
    let asked = Opening { host: "g", target: "/v1/stream", subprotocols, lines: &[] };
    open(io, &asked, RULES, Clock::real(), Prng::new(1)).await.unwrap_or_else(|_| panic!("it does not open"))
}

/// Says `text` and hears what comes, to a message that `is_last`.
async fn hear(socket: &mut Socket, text: &Value, is_last: impl Fn(&Value) -> bool) -> Vec<Value> {
    socket.send(text.to_string().as_bytes());
    let mut heard: Vec<Value> = Vec::new();
    poll_fn(|cx| {
        loop {
            let before = heard.len();
            let over = socket.poll(cx, true, Moment::NEVER, &mut |message| {
                if let Message::Text(text) = message {
                    heard.push(serde_json::from_str(text).unwrap());
                }
            });
            if heard.last().is_some_and(&is_last) || over.is_ready() {
                return Poll::Ready(());
            }
            if heard.len() == before {
                return Poll::Pending;
            }
        }
    })
    .await;
    heard
}

fn is_end(frame: &Value) -> bool {
    matches!(frame["type"].as_str(), Some("stream.end" | "stream.error"))
}

fn text(frames: &[Value]) -> String {
    frames.iter().filter_map(|frame| frame["event"]["delta"]["text"].as_str()).collect()
}

#[track_caller]
fn assert_dense(frames: &[Value], mut last: u64) {
    for frame in frames.iter().filter(|frame| frame["type"] == "stream.event") {
        assert_eq!(frame["first_seq"].as_u64().unwrap(), last + 1, "{frame}");
        last = frame["seq"].as_u64().unwrap();
    }
}

#[tokio::test]
async fn events_are_put_back_and_their_numbers_stay_dense() {
    let scene = Scene::of(masking(), None, Duration::from_millis(1), |_| {});
    let mut socket = socket(&scene, &[SUBPROTOCOL]).await;
    for (resume, said) in [("off", SAID.to_owned()), ("memory", format!("{SAID} ZQ ZQP Z"))] {
        let create = json!({"type": "message.create", "id": resume, "request": asks(true, &said), "resume": resume});
        let frames = hear(&mut socket, &create, is_end).await;
        assert_eq!((text(&frames), frames.last().unwrap()["type"].as_str()), (said.clone(), Some("stream.end")));
        assert_dense(&frames, 0);
        let Some(stream) = frames.iter().find_map(|frame| frame["stream"].as_str()) else { continue };
        for (at, frame) in frames.iter().enumerate().filter(|(_, frame)| frame["type"] == "stream.event") {
            let id = format!("again{at}");
            let resume = json!({"type": "stream.resume", "id": id, "stream": stream, "after": frame["cursor"]});
            let rest = hear(&mut socket, &resume, is_end).await;
            assert_eq!(text(&rest), text(&frames[at + 1..]));
            assert_dense(&rest, frame["seq"].as_u64().unwrap());
        }
    }
    scene.assert_masked(2);
}

#[tokio::test]
async fn a_refusal_over_a_socket_says_kinds_or_what_was_sent() {
    let scene = Scene::new(masking());
    let mut socket = socket(&scene, &[SUBPROTOCOL]).await;
    let create = json!({"type": "message.create", "id": "a", "request": asks(true, &format!("REFUSE {PHONE}"))});
    let frames = hear(&mut socket, &create, is_end).await;
    let error = &frames.last().unwrap()["error"];
    assert_eq!(error["message"], format!("this cannot be: REFUSE {PHONE}"));
    let mut image = asks(true, "");
    let source = json!({"type": "url", "url": "https://tidegate.test/a.png"});
    image["messages"][0]["content"] = json!([{"type": "image", "source": source}]);
    let frames = hear(&mut socket, &json!({"type": "message.create", "id": "b", "request": image}), is_end).await;
    assert_eq!(frames.last().unwrap()["error"]["details"]["error_code"], "unscannable");
    scene.assert_masked(1);
}

#[tokio::test]
async fn prompts_are_answered_with_what_they_said() {
    let folder = Folder::new();
    let scene = Scene::with_log(masking(), &folder);
    let mut socket = socket(&scene, &[]).await;
    for prompt in [SAID, "Was it 13912345678?"] {
        let asked = json!({"prompt": prompt, "conversation": "c"});
        let heard = hear(&mut socket, &asked, |said| said["event"] != "completion").await;
        let said: String = heard.iter().filter_map(|said| said["text"].as_str()).collect();
        assert_eq!((said.as_str(), &heard.last().unwrap()["event"]), (prompt, &json!("done")));
    }
    scene.assert_masked(2);
}
