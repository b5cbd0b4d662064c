//! Sockets that are kept, opened again, drained, grow old, fall silent or never open.

use crate::peer::{Peer, many, opened};
use crate::scene::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidegate_transport::{ClientError, SocketEnd, Tasks};
use tidegate_upstream::{ExchangeError, PoolRules};

fn spares(socket_spares: usize) -> PoolRules {
    PoolRules { socket_spares, ..PoolRules::default() }
}

#[tokio::test(start_paused = true)]
async fn spares_are_open_before_anybody_asks_and_stay_when_the_rest_was_idle_for_long() {
    let scene = scene(PoolRules { socket_streams: 1, ..spares(2) });
    scene.serve();
    scene.pool.start();
    settle().await;
    assert_eq!((scene.accepted(), scene.gauges()), (2, (0, 2, 0)));
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(scene.ask("hang").await.unwrap());
    }
    settle().await;
    assert_eq!(scene.gauges(), (4, 1, 4), "and one stands warm");
    drop(held);
    settle().await;
    scene.pool.sweep(scene.clock.now() + 59 * SECOND);
    settle().await;
    assert_eq!(scene.gauges(), (0, 5, 0));
    scene.pool.sweep(scene.clock.now() + 61 * SECOND);
    settle().await;
    assert_eq!(scene.gauges(), (0, 2, 0));
    assert_eq!(scene.accepted(), 5);
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_socket_is_opened_again_after_one_two_four_seconds_until_one_was_of_use() {
    let scene = scene(spares(1));
    let healthy = Arc::new(AtomicBool::new(true));
    let (clock, heard, is_healthy) = (scene.clock, Arc::clone(&scene.heard), Arc::clone(&healthy));
    scene.listen(move |number, io| {
        let (heard, healthy) = (Arc::clone(&heard), is_healthy.load(Ordering::Relaxed));
        async move {
            if healthy {
                many(Peer { socket: opened(io, clock).await, number, heard }).await;
            }
        }
    });
    scene.pool.start();
    scene.is_answered().await;
    for _ in 0..2 {
        let before = scene.accepted();
        healthy.store(false, Ordering::Relaxed);
        let lost_at = scene.clock.now();
        assert!(scene.ask("cut").await.is_err());
        tokio::time::sleep(400 * SECOND).await;
        let all = scene.accepted.lock().unwrap().clone();
        let mut last = lost_at;
        for (n, at) in all[before..].iter().enumerate() {
            let most = Duration::from_secs(60.min(1 << n));
            let waited = at.since(last);
            assert!((most / 2..most + SECOND / 10).contains(&waited), "the {n}th after {waited:?}");
            last = *at;
        }
        assert!(all.len() - before >= 10, "{}", all.len() - before);
        // Whoever asks does not wait for that.
        healthy.store(true, Ordering::Relaxed);
        let began = scene.clock.now();
        scene.is_answered().await;
        assert!(scene.clock.now().since(began) < SECOND / 10);
    }
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_is_drained_takes_no_new_streams_and_closes_with_its_last() {
    let scene = scene(rules());
    scene.serve();
    let held = scene.ask("hang").await.unwrap();
    // The peer takes no new ones on any socket: each of them says so.
    assert!(scene.ask("drain").await.is_err());
    scene.is_answered().await;
    let (on, _) = scene.heard("\"answer\"")[0];
    assert!(on > 1, "not on the one that drains");
    assert!(scene.heard("stream.cancel").is_empty());
    drop(held);
    settle().await;
    assert_eq!(scene.gauges(), (0, 1, 0), "only the last one is left");
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn an_old_socket_takes_no_new_streams_and_closes_with_its_last() {
    let scene = scene(rules());
    scene.serve();
    let first = scene.ask("hang").await.unwrap();
    tokio::time::sleep(26 * 60 * SECOND).await;
    let second = scene.ask("hang").await.unwrap();
    assert_eq!(scene.accepted(), 1, "not old yet");
    tokio::time::sleep(8 * 60 * SECOND).await;
    scene.pool.sweep(scene.clock.now());
    let third = scene.ask("hang").await.unwrap();
    assert_eq!((scene.accepted(), scene.gauges()), (2, (2, 0, 3)));
    drop((first, second));
    settle().await;
    assert_eq!(scene.gauges(), (1, 0, 1), "the old one is gone");
    drop(third);
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn one_socket_is_warm_before_the_others_are_full_and_the_next_go_to_the_emptier() {
    let scene = scene(PoolRules { socket_streams: 20, ..rules() });
    scene.serve();
    let mut held = Vec::new();
    for _ in 0..15 {
        held.push(scene.ask("hang").await.unwrap());
    }
    settle().await;
    assert_eq!(scene.accepted(), 1);
    held.push(scene.ask("hang").await.unwrap());
    settle().await;
    assert_eq!((scene.accepted(), scene.gauges()), (2, (1, 1, 16)));
    for _ in 0..8 {
        held.push(scene.ask("hang").await.unwrap());
    }
    let on_second = scene.heard("message.create").iter().filter(|(on, _)| *on == 2).count();
    // Two of four draws show both sockets, and one the second alone: three of four go there, but for
    // luck; a draw of one would send half.
    assert!(on_second >= 5, "{on_second} of 8");
    drop(held);
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_gives_no_sign_of_life_is_given_up_when_the_third_ping_is_due() {
    let scene = scene(rules());
    scene.serve();
    let mut other = scene.ask("hang").await.unwrap();
    let began = scene.clock.now();
    let pool = Arc::clone(&scene.pool);
    Tasks::new().spawn(&PEER, async move {
        // It has no answer for anybody from now on.
        let _ = ask(&pool, "freeze").await;
    });
    let _ = std::future::poll_fn(|cx| other.poll_body(cx, &mut |_| {})).await;
    let error = other.read_body(1000).await.unwrap_err();
    assert!(matches!(error, ClientError::Socket(SocketEnd::Dead)), "{error}");
    assert_eq!((error.clock(), scene.clock.now().since(began).as_secs()), (Some("socket_pong"), 45));
    drop(other);
    scene.is_answered().await;
    assert_eq!(scene.accepted(), 2);
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_thinking_model_on_a_live_socket_is_waited_for() {
    let scene = scene(rules());
    scene.serve();
    let mut exchange = scene.ask("hang").await.unwrap();
    let _ = std::future::poll_fn(|cx| exchange.poll_body(cx, &mut |_| {})).await;
    assert!(tokio::time::timeout(600 * SECOND, exchange.read_body(1000)).await.is_err());
    let now = scene.clock.now();
    assert!(exchange.is_alive(now, now) && exchange.probe_due(now).is_some_and(|due| due > now + 3600 * SECOND));
    drop(exchange);
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_runs_into_the_clock_of_the_handshake() {
    let scene = scene(rules());
    scene.listen(|_, io| async move {
        let _open = io;
        std::future::pending().await
    });
    let began = scene.clock.now();
    assert_eq!(scene.ask("answer").await.err().unwrap().clock(), Some("socket_start"));
    assert_eq!(scene.clock.now().since(began).as_secs(), 5);
    assert_eq!(scene.dials("failed"), 1);
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_is_refused_is_an_answer_where_it_says_whose_turn_it_is() {
    let scene = scene(rules());
    scene.refuse("HTTP/1.1 401 Unauthorized\r\ncontent-length: 3\r\nretry-after: 9\r\n\r\nwhy");
    let mut exchange = scene.ask("answer").await.unwrap();
    assert_eq!((exchange.head.status, exchange.head.headers.text("retry-after")), (401, Some("9")));
    assert_eq!(exchange.read_body(10).await.unwrap(), "why");
    for (answer, why) in [
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "answered 404"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "answered 200"),
        ("HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", "does not belong to the key"),
    ] {
        scene.refuse(answer);
        match scene.ask("answer").await.err().unwrap() {
            ExchangeError::Dial(e) => assert!(e.message.contains(why), "{e}"),
            other => panic!("{other}"),
        }
    }
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_takes_nothing_runs_into_the_upload_clock() {
    let scene = scene(rules());
    let clock = scene.clock;
    scene.listen(move |number, io| async move {
        let _socket = opened(io, clock).await;
        // The first reads no more and holds on; the second leaves in the middle of the upload.
        if number > 1 {
            tokio::time::sleep(SECOND).await;
            return;
        }
        std::future::pending::<()>().await;
    });
    let large = format!(r#"{{"do":"{}"}}"#, "x".repeat(1 << 20));
    let began = scene.clock.now();
    let stalled = send(&scene.pool, "/v1/messages", &large, true).await.err().unwrap();
    assert_eq!((stalled.clock(), scene.clock.now().since(began).as_secs()), (Some("upload_stall"), 10));
    // What went out in part was certainly not taken up; it is sent again, four times in all.
    let cut = send(&scene.pool, "/v1/messages", &large, true).await.err().unwrap();
    assert!(matches!(cut, ExchangeError::Broken(ClientError::Unsent)), "{cut}");
    assert_eq!(scene.accepted(), 5);
    scene.pool.close();
}

#[tokio::test(start_paused = true)]
async fn a_closed_pool_gives_a_dial_up_and_tells_who_waits() {
    let scene = scene(spares(1));
    scene.listen(|_, io| async move {
        let _open = io;
        std::future::pending().await
    });
    scene.pool.start();
    let pool = Arc::clone(&scene.pool);
    let waits = Tasks::new().spawn(&PEER, async move { ask(&pool, "answer").await.is_err() });
    settle().await;
    let began = scene.clock.now();
    scene.ends_with_nothing().await;
    assert!(waits.await.unwrap());
    assert!(scene.clock.now().since(began) < SECOND);
    assert!(scene.ask("answer").await.is_err());
}
