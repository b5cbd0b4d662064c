//! Connections that rest, grow old, fall silent or take nothing.

use crate::scene::*;
use bytes::Bytes;
use h2::server;
use std::time::Duration;
use tidegate_transport::{BoxIo, HttpOffer};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_its_time_and_one_in_use_is_not() {
    let scene = scene(HttpOffer::Auto);
    scene.serve(server::Builder::new(), |request, respond| ok(request, respond, SECOND));
    scene.told("ok").await;
    scene.pool.sweep(scene.clock.now() + 59 * SECOND);
    settle().await;
    assert_eq!(scene.gauges(), (0, 1, 0));
    let held = scene.ask().await.unwrap();
    scene.pool.sweep(scene.clock.now() + 61 * SECOND);
    settle().await;
    assert_eq!(scene.gauges(), (1, 0, 1));
    drop(held);
    scene.pool.sweep(scene.clock.now() + 61 * SECOND);
    settle().await;
    assert_eq!(scene.gauges(), (0, 0, 0));
    scene.tasks.all_ended().await;
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_takes_no_new_streams_and_closes_with_its_last() {
    let scene = scene(HttpOffer::Auto);
    scene.serve(server::Builder::new(), |_, respond| async move {
        let mut out = begin(respond);
        tokio::time::sleep(45 * 60 * SECOND).await;
        let _ = out.send_data(Bytes::from("ok"), true);
    });
    let mut first = scene.ask().await.unwrap();
    tokio::time::sleep(26 * 60 * SECOND).await;
    let second = scene.ask().await.unwrap();
    assert_eq!(scene.accepted(), 1, "not old yet");
    tokio::time::sleep(8 * 60 * SECOND).await;
    scene.pool.sweep(scene.clock.now());
    settle().await;
    assert_eq!((scene.accepted(), scene.gauges()), (2, (1, 1, 2)), "one is warm in its place");
    let third = scene.ask().await.unwrap();
    assert_eq!(first.read_body(10).await.unwrap(), "ok");
    drop((first, second));
    settle().await;
    assert_eq!(scene.gauges(), (1, 0, 1), "the old one is gone");
    drop(third);
    scene.ends_with_nothing().await;
}

/// Serves for `span`, then holds the socket and does nothing.
async fn freezes(io: BoxIo, span: Duration) {
    let mut conn = server::handshake(io).await.unwrap();
    let mut kept = Vec::new();
    let accepting = async {
        while let Some(Ok((request, respond))) = conn.accept().await {
            kept.push((request, respond));
        }
    };
    let _ = tokio::time::timeout(span, accepting).await;
    std::future::pending::<()>().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_connection_is_found_before_the_first_byte_was_due() {
    let scene = scene(HttpOffer::Auto);
    scene.listen(|number, io| async move {
        if number == 1 {
            freezes(io, SECOND).await;
        } else {
            streams(server::Builder::new(), io, |request, respond| ok(request, respond, SECOND)).await;
        }
    });
    let began = scene.clock.now();
    assert_eq!(scene.ask().await.err().unwrap().clock(), Some("probe"));
    assert_eq!(scene.clock.now().since(began).as_secs(), 15);
    // The next request does not try it again.
    scene.told("ok").await;
    assert_eq!(scene.accepted(), 2);
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_model_that_thinks_long_on_a_live_connection_has_until_the_first_byte_is_due() {
    let scene = scene(HttpOffer::Auto);
    scene.serve(server::Builder::new(), |request, respond| ok(request, respond, 29 * SECOND));
    scene.told("ok").await;
    scene.serve(server::Builder::new(), |request, respond| ok(request, respond, 31 * SECOND));
    scene.pool.sweep(scene.clock.now() + 61 * SECOND);
    assert_eq!(scene.ask().await.err().unwrap().clock(), Some("first_byte"));
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_opens_no_window_runs_into_the_upload_clock() {
    let scene = scene(HttpOffer::Auto);
    scene.serve(server::Builder::new(), |request, _respond| async move {
        let _unread = request;
        std::future::pending::<()>().await;
    });
    let began = scene.clock.now();
    assert_eq!(ask(&scene.pool, 1 << 20).await.err().unwrap().clock(), Some("upload_stall"));
    assert_eq!(scene.clock.now().since(began).as_secs(), 10);
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_closed_pool_gives_a_dial_up_and_tells_who_waits() {
    let scene = scene(HttpOffer::Auto);
    scene.listen(|_, io| async move {
        let _open = io;
        std::future::pending().await
    });
    let pool = std::sync::Arc::clone(&scene.pool);
    let waits = tidegate_transport::Tasks::new().spawn(&PEER, async move { ask(&pool, 5).await.is_err() });
    settle().await;
    let began = scene.clock.now();
    scene.ends_with_nothing().await;
    assert!(waits.await.unwrap());
    assert!(scene.clock.now().since(began) < SECOND);
    assert!(scene.ask().await.is_err());
}
