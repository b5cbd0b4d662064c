//! Streams on a socket: what is asked and told, how each of them ends, and what that is to the others.

use crate::scene::*;
use std::sync::Arc;
use std::time::Duration;
use tidegate_transport::{ClientError, SocketEnd, Tasks};
use tidegate_upstream::{Exchange, ExchangeError};

fn broken(result: Result<Exchange, ExchangeError>) -> ClientError {
    match result.err().unwrap() {
        ExchangeError::Broken(e) => e,
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_asked_for_in_a_frame_and_read_as_events() {
    let scene = scene(rules());
    scene.serve();
    let mut exchange = scene.ask("strange").await.unwrap();
    let headers = &exchange.head.headers;
    let told = ["content-type", "request-id", "x-a"].map(|name| headers.text(name).unwrap_or_default());
    assert_eq!((exchange.head.status, told), (200, ["text/event-stream; charset=utf-8", "req_9", "b"]));
    let body = exchange.read_body(1000).await.unwrap();
    assert_eq!(body, "event: e1\ndata: {\"type\":\"e1\"}\n\nevent: e3\ndata: {\"type\":\"e3\"}\n\n");
    drop(exchange);
    let create = &scene.heard("message.create")[0].1;
    let want = r#"{"type":"message.create","id":"1","version":"2023-06-01","betas":["b-1"],"credit":131072,"request":{"do":"strange"}}"#;
    assert_eq!(create, want);
    settle().await;
    assert!(scene.heard("stream.cancel").is_empty(), "one that has ended is not cancelled");
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn streams_share_a_socket_and_one_that_is_dropped_is_cancelled_at_once() {
    let scene = scene(rules());
    scene.serve();
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(scene.ask("hang").await.unwrap());
    }
    assert_eq!((scene.accepted(), scene.gauges()), (1, (1, 0, 20)));
    drop(held.remove(6));
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(scene.heard("stream.cancel"), [(1, r#"{"type":"stream.cancel","id":"7"}"#.to_owned())]);
    scene.is_answered().await;
    assert_eq!(scene.gauges(), (1, 0, 19));
    // So is one whose answer has not begun.
    let pool = Arc::clone(&scene.pool);
    let waits = Tasks::new().spawn(&PEER, async move { ask(&pool, "silent").await.map(|_| ()) });
    settle().await;
    waits.abort();
    settle().await;
    assert_eq!(scene.heard("stream.cancel").len(), 2);
    drop(held);
    settle().await;
    assert_eq!(scene.gauges(), (0, 1, 0));
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_has_its_status_its_lines_and_its_envelope() {
    let scene = scene(rules());
    scene.serve();
    let mut exchange = scene.ask("refuse").await.unwrap();
    let headers = &exchange.head.headers;
    let told = ["retry-after", "x-should-retry", "request-id"].map(|name| headers.text(name).unwrap_or_default());
    assert_eq!((exchange.head.status, told), (529, ["7", "false", "req_7"]));
    let body = exchange.read_body(1000).await.unwrap();
    let said = tidegate_wire::error::ErrorBody::read(&body).unwrap();
    assert_eq!((&*said.kind, said.code.as_deref()), ("overloaded_error", Some("queue_full")));
    drop(exchange);
    // Inside an answer it is an event, and the answer's end.
    let mut exchange = scene.ask("fail").await.unwrap();
    let body = exchange.read_body(1000).await.unwrap();
    let text = std::str::from_utf8(&body).unwrap();
    assert!(text.contains("\n\nevent: error\ndata: {") && text.contains("upstream_broken"), "{text}");
    drop(exchange);
    assert_eq!(scene.accepted(), 1, "what is wrong with a stream is not wrong with its socket");
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_events_are_not_its_own_is_broken_and_its_neighbours_are_not() {
    let scene = scene(rules());
    scene.serve();
    let mut neighbour = scene.ask("hang").await.unwrap();
    let mut gap = scene.ask("gap").await.unwrap();
    let error = gap.read_body(1000).await.unwrap_err();
    assert!(matches!(error, ClientError::Socket(SocketEnd::Broken(why)) if why.contains("left out")), "{error}");
    let error = broken(scene.ask("early").await);
    assert!(matches!(error, ClientError::Socket(SocketEnd::Broken(why)) if why.contains("before")), "{error}");
    let mut overrun = scene.ask("overrun").await.unwrap();
    settle().await;
    let error = overrun.read_body(1 << 20).await.unwrap_err();
    assert!(matches!(error, ClientError::Socket(SocketEnd::Broken(why)) if why.contains("credit")), "{error}");
    let mut mended = scene.ask("mended").await.unwrap();
    assert!(mended.read_body(1000).await.is_err());
    settle().await;
    assert_eq!(scene.heard("stream.cancel").len(), 4, "the peer is told that nobody listens");
    let waits = tokio::time::timeout(SECOND, neighbour.read_body(1000)).await;
    assert!(waits.is_err(), "it goes on");
    drop((neighbour, gap, overrun, mended));
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_cannot_be_understood_loses_its_socket() {
    let scene = scene(rules());
    scene.serve();
    let mut other = scene.ask("hang").await.unwrap();
    let error = broken(scene.ask("nonsense").await);
    assert!(matches!(error, ClientError::Socket(SocketEnd::Broken("is no JSON object"))), "{error}");
    assert!(other.read_body(1000).await.is_err());
    scene.is_answered().await;
    assert_eq!(scene.accepted(), 2);
    drop(other);
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn what_nobody_reads_is_held_with_the_peer() {
    let scene = scene(rules());
    scene.serve();
    let mut exchange = scene.ask("flood").await.unwrap();
    tokio::time::sleep(5 * SECOND).await;
    let mut first = 0;
    std::future::poll_fn(|cx| exchange.poll_body(cx, &mut |piece| first += piece.len())).await.unwrap();
    // 132 events of 1000 bytes spend 128 KiB; each has 17 bytes around it here.
    assert_eq!(first, 132 * 1017, "one event beyond the credit");
    let mut all = first;
    while all < 4 << 20 {
        std::future::poll_fn(|cx| exchange.poll_body(cx, &mut |piece| all += piece.len())).await.unwrap();
    }
    assert!(scene.heard("stream.credit").len() >= 30, "it is given back as it is read");
    drop(exchange);
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_with_the_peer_has_its_first_byte_when_its_turn_has_come() {
    let scene = scene(rules());
    scene.serve();
    let began = scene.clock.now();
    assert_eq!(scene.ask("silent").await.err().unwrap().clock(), Some("first_byte"));
    assert_eq!(scene.clock.now().since(began).as_secs(), 30);
    let began = scene.clock.now();
    assert_eq!(scene.ask("wait").await.err().unwrap().clock(), Some("first_byte"));
    assert_eq!(scene.clock.now().since(began).as_secs(), 70);
    settle().await;
    assert_eq!(scene.heard("stream.cancel").len(), 2);
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_not_taken_up_goes_out_again_at_once() {
    // The peer drains: it says so, or is gone before it looked at the stream.
    for word in ["drain", "close"] {
        let scene = scene(rules());
        let (clock, heard) = (scene.clock, Arc::clone(&scene.heard));
        scene.listen(move |number, io| {
            let heard = Arc::clone(&heard);
            async move {
                let socket = crate::peer::opened(io, clock).await;
                let mut peer = crate::peer::Peer { socket, number, heard };
                if number == 1 {
                    let create = peer.next().await.unwrap();
                    assert!(create.contains("message.create"));
                    if word == "drain" {
                        peer.say(r#"{"type":"stream.error","id":"1","status":529,"error":{"type":"overloaded_error","message":"m","details":{"error_code":"draining"}}}"#);
                    } else {
                        peer.socket.close(tidegate_wire::websocket::CloseCode::GOING_AWAY, "");
                    }
                }
                crate::peer::many(peer).await;
            }
        });
        let began = scene.clock.now();
        scene.is_answered().await;
        assert_eq!((scene.accepted(), scene.clock.now().since(began) < SECOND), (2, true), "{word}");
        scene.ends_with_nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_refuses_everything_is_asked_four_times() {
    let scene = scene(rules());
    scene.serve();
    assert!(matches!(broken(scene.ask("drain").await), ClientError::Unsent));
    assert_eq!(scene.heard("message.create").len(), 4);
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_fewer_streams_is_given_no_more() {
    let scene = scene(rules());
    scene.serve();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(scene.ask("hang").await.unwrap());
    }
    let refused = scene.ask("full").await.unwrap();
    assert_eq!(refused.head.status, 529);
    drop(refused);
    assert_eq!(scene.accepted(), 1);
    held.push(scene.ask("hang").await.unwrap());
    assert_eq!(scene.accepted(), 2);
    let on_first = scene.heard("hang").iter().filter(|(on, _)| *on == 1).count();
    assert_eq!(on_first, 3);
    drop(held);
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_frame_cannot_say_goes_over_http_to_the_same_host() {
    let scene = scene(rules());
    let heard = Arc::clone(&scene.heard);
    scene.listen(move |number, mut io| {
        let heard = Arc::clone(&heard);
        async move {
            use tokio::io::AsyncWriteExt;
            let (head, _) = crate::peer::head(&mut io).await;
            heard.lock().unwrap().push((number, head.path_and_query().to_owned()));
            io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await.unwrap();
        }
    });
    let asked = [("/v1/messages", false), ("/v1/messages?beta=true", true), ("/v1/messages/count_tokens", false)];
    for (target, is_stream) in asked {
        let mut exchange = send(&scene.pool, target, "{}", is_stream).await.unwrap();
        assert_eq!(exchange.read_body(10).await.unwrap(), "ok");
        assert_eq!(scene.heard.lock().unwrap().last().unwrap().1, target);
    }
    assert_eq!(scene.accepted(), 3);
    scene.pool.close();
}
