//! The simple dialect: one prompt at a time on each socket.

use crate::peer::{Peer, opened};
use crate::scene::*;
use std::sync::Arc;
use tidegate_transport::{ClientError, SocketEnd};
use tidegate_upstream::{ExchangeError, PoolRules, Transport};
use tidegate_wire::event::{Kind, Tap};
use tidegate_wire::sse::Splitter;

fn body(prompt: &str) -> String {
    format!(r#"{{"model":"m","max_tokens":9,"stream":true,"messages":[{{"role":"user","content":"{prompt}"}}]}}"#)
}

/// Answers each prompt as it asks to be.
fn prompted(rules: PoolRules) -> Scene {
    let scene = scene_of(Transport::Prompt, "ws://api/chat", rules);
    let (clock, heard) = (scene.clock, Arc::clone(&scene.heard));
    scene.listen(move |number, io| {
        let heard = Arc::clone(&heard);
        async move {
            let mut peer = Peer { socket: opened(io, clock).await, number, heard };
            while let Ok(text) = peer.next().await {
                if text.contains("whole") {
                    peer.say(r#"{"event":"completion","text":"a"}"#);
                    peer.say(r#"{"event":"completion","text":"b"}"#);
                    peer.say(r#"{"event":"done","usage":{"input_tokens":3,"output_tokens":2}}"#);
                } else if text.contains("refused") {
                    peer.say(r#"{"event":"error","type":"overloaded_error","message":"m","error_code":"queue_full"}"#);
                } else if text.contains("cut") {
                    peer.say(r#"{"event":"completion","text":"a"}"#);
                    peer.socket.close(tidegate_wire::websocket::CloseCode::INTERNAL, "");
                } else {
                    peer.say(r#"{"event":"completion","text":"a"}"#);
                }
            }
        }
    });
    scene
}

#[tokio::test(start_paused = true)]
async fn prompts_follow_one_another_on_a_socket_and_their_answers_are_streams() {
    let scene = prompted(rules());
    for _ in 0..3 {
        let mut exchange = send(&scene.pool, "/v1/messages", &body("whole"), true).await.unwrap();
        assert_eq!(exchange.head.status, 200);
        let told = exchange.read_body(10_000).await.unwrap();
        let (mut tap, mut kinds) = (Tap::new(), Vec::new());
        Splitter::new().feed(&told, |event| kinds.push(tap.see(event).unwrap())).unwrap();
        assert_eq!((kinds.len(), kinds.last(), tap.usage.input), (7, Some(&Kind::MessageStop), 3));
    }
    assert!(scene.accepted() <= 2, "one, and one that stands warm while it is busy");
    assert_eq!(scene.heard("whole")[0].1, r#"{"prompt":"whole","model":"m","max_tokens":9}"#);
    let mut refused = send(&scene.pool, "/v1/messages", &body("refused"), true).await.unwrap();
    assert_eq!(refused.head.status, 529);
    let said = refused.read_body(1000).await.unwrap();
    assert_eq!(tidegate_wire::error::ErrorBody::read(&said).unwrap().code.as_deref(), Some("queue_full"));
    drop(refused);
    assert!(scene.accepted() <= 2, "its socket goes on");
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn two_at_once_are_on_two_sockets_and_one_that_is_dropped_takes_its_own_along() {
    let scene = prompted(rules());
    let first = send(&scene.pool, "/v1/messages", &body("hangs"), true).await.unwrap();
    let second = send(&scene.pool, "/v1/messages", &body("hangs"), true).await.unwrap();
    settle().await;
    let (busy, _, streams) = scene.gauges();
    assert_eq!((busy, streams), (2, 2));
    drop(first);
    settle().await;
    // Nothing of its answer may be taken for the next one's.
    assert_eq!(scene.gauges(), (1, 1, 1), "its socket is gone; one stands warm");
    let mut third = send(&scene.pool, "/v1/messages", &body("whole"), true).await.unwrap();
    assert!(
        third.read_body(10_000).await.unwrap().ends_with(b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n")
    );
    drop((second, third));
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_cut_is_broken_and_what_cannot_be_said_is_not_sent() {
    let scene = prompted(rules());
    let mut cut = send(&scene.pool, "/v1/messages", &body("cut"), true).await.unwrap();
    let error = cut.read_body(10_000).await.unwrap_err();
    assert!(matches!(error, ClientError::Socket(SocketEnd::Closed(Some(1011)))), "{error}");
    drop(cut);
    for (target, body, is_stream) in [
        ("/v1/messages", body("x").replace("}]}", "}],\"tools\":[]}"), true),
        ("/v1/messages", body("x"), false),
        ("/v1/models", String::new(), false),
    ] {
        let error = send(&scene.pool, target, &body, is_stream).await.err().unwrap();
        assert!(matches!(error, ExchangeError::Broken(ClientError::Unwritable)), "{error}");
    }
    scene.ends_with_nothing().await;
}
