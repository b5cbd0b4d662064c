//! How many connections there are, who gets a slot on which, and who waits.

use crate::scene::*;
use h2::server;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tidegate_transport::{HttpOffer, Listen, Tasks};
use tidegate_upstream::ExchangeError;

const SECOND: Duration = Duration::from_secs(1);

/// `count` requests at once; how many were answered.
async fn burst(scene: &Scene, count: usize) -> usize {
    let answered = Arc::new(AtomicUsize::new(0));
    let tasks = Tasks::new();
    for _ in 0..count {
        let (pool, answered) = (Arc::clone(&scene.pool), Arc::clone(&answered));
        tasks.spawn(&PEER, async move {
            let mut exchange = ask(&pool, 5).await.unwrap();
            assert_eq!(exchange.read_body(100).await.unwrap(), "ok");
            answered.fetch_add(1, Ordering::Relaxed);
        });
    }
    tasks.all_ended().await;
    answered.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn requests_share_a_connection() {
    let scene = scene(HttpOffer::Auto);
    scene.serve(server::Builder::new(), |request, respond| ok(request, respond, SECOND));
    assert_eq!(burst(&scene, 50).await, 50);
    scene.told("ok").await;
    assert_eq!((scene.accepted(), scene.dials("opened")), (1, 1));
    assert_eq!(scene.gauges(), (0, 1, 0));
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_cold_burst_of_a_thousand_makes_about_ten_connections_at_once() {
    for offer in [HttpOffer::Auto, HttpOffer::Http2] {
        let scene = scene(offer);
        scene.serve(server::Builder::new(), |request, respond| ok(request, respond, SECOND));
        let began = scene.clock.now();
        assert_eq!(burst(&scene, 1000).await, 1000);
        assert!((10..=12).contains(&scene.accepted()), "{}", scene.accepted());
        // All answers take a second; had one waited for another it would be two.
        assert!(scene.clock.now().since(began) < SECOND * 3 / 2);
        scene.ends_with_nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_of_five_streams_gets_five_at_once_and_the_rest_wait_in_order() {
    let scene = scene(HttpOffer::Auto);
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now_open, seen) = (Arc::clone(&open), Arc::clone(&most));
    scene.listen(move |_, io| {
        // Of this connection; h2 itself would refuse a sixth, and that would be seen as more dials.
        let (open, most) = (Arc::clone(&now_open), Arc::clone(&seen));
        let mut builder = server::Builder::new();
        builder.max_concurrent_streams(5);
        async move {
            let mine = Arc::new(AtomicUsize::new(0));
            streams(builder, io, move |request, respond| {
                let (mine, most, open) = (Arc::clone(&mine), Arc::clone(&most), Arc::clone(&open));
                async move {
                    most.fetch_max(mine.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    open.fetch_add(1, Ordering::Relaxed);
                    ok(request, respond, SECOND).await;
                    mine.fetch_sub(1, Ordering::Relaxed);
                }
            })
            .await;
        }
    });
    assert_eq!(burst(&scene, 200).await, 200);
    assert_eq!((most.load(Ordering::Relaxed), open.load(Ordering::Relaxed)), (5, 200), "none was refused and resent");
    assert!(scene.accepted() <= 41, "{}", scene.accepted());
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn one_connection_is_warm_before_the_others_are_full() {
    let scene = scene(HttpOffer::Auto);
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(10);
    scene.serve(builder, |_, respond| async move {
        let _out = begin(respond);
        std::future::pending::<()>().await;
    });
    let mut held = Vec::new();
    for _ in 0..7 {
        held.push(scene.ask().await.unwrap());
    }
    settle().await;
    assert_eq!(scene.accepted(), 1);
    held.push(scene.ask().await.unwrap());
    settle().await;
    assert_eq!((scene.accepted(), scene.gauges()), (2, (1, 1, 8)));
    // The next go to the emptier one, mostly.
    for _ in 0..7 {
        held.push(scene.ask().await.unwrap());
    }
    settle().await;
    assert_eq!(scene.gauges().0, 2);
    drop(held);
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_leaves_leaves_nothing_and_the_next_one_gets_its_slot() {
    let scene = scene(HttpOffer::Http2);
    let mut door = scene.network.listen("api:443");
    // Nobody speaks yet: the dials hang in their first words.
    let pool = Arc::clone(&scene.pool);
    let leaver = Tasks::new().spawn(&PEER, async move { ask(&pool, 5).await.map(|_| ()) });
    let pool = Arc::clone(&scene.pool);
    let stayer = Tasks::new().spawn(&PEER, async move { ask(&pool, 5).await.map(|_| ()) });
    let io = door.accept().await.unwrap().open().unwrap();
    leaver.abort();
    settle().await;
    Tasks::new().spawn(&PEER, streams(server::Builder::new(), io, |request, respond| ok(request, respond, SECOND)));
    stayer.await.unwrap().unwrap();
    assert_eq!((scene.dials("opened"), scene.gauges().2), (1, 0));
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_dial_is_told_to_all_who_wait_for_it() {
    let scene = scene(HttpOffer::Auto);
    let tasks = Tasks::new();
    for _ in 0..300 {
        let pool = Arc::clone(&scene.pool);
        tasks.spawn(&PEER, async move { assert!(matches!(ask(&pool, 5).await, Err(ExchangeError::Dial(_)))) });
    }
    tokio::time::timeout(SECOND, tasks.all_ended()).await.unwrap();
    assert_eq!(scene.dials("failed"), 1, "one dial for all");
    // The next request dials at once, whatever failed before.
    scene.serve(server::Builder::new(), |request, respond| ok(request, respond, SECOND));
    scene.told("ok").await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_runs_into_the_clock_of_its_first_words() {
    let scene = scene(HttpOffer::Auto);
    scene.listen(|_, io| async move {
        let _open = io;
        std::future::pending().await
    });
    let began = scene.clock.now();
    assert_eq!(scene.ask().await.err().unwrap().clock(), Some("http2_start"));
    assert_eq!(scene.clock.now().since(began).as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_no_streams_is_not_dialled_for_ever() {
    let scene = scene(HttpOffer::Auto);
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(0);
    scene.serve(builder, |request, respond| ok(request, respond, SECOND));
    assert!(matches!(scene.ask().await, Err(ExchangeError::Dial(_))));
    settle().await;
    assert_eq!(scene.accepted(), 1);
    scene.ends_with_nothing().await;
}

/// Dials ahead wait 1 s, 2 s, 4 s; streams on what is there go on meanwhile.
#[tokio::test(start_paused = true)]
async fn a_dial_ahead_that_fails_is_put_off_longer_each_time() {
    let scene = scene(HttpOffer::Auto);
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(10);
    scene.listen(move |number, io| {
        let builder = builder.clone();
        async move {
            if number == 1 {
                streams(builder, io, |_, respond| async move {
                    let _out = begin(respond);
                    std::future::pending::<()>().await;
                })
                .await;
            }
        }
    });
    let mut held = Vec::new();
    for _ in 0..9 {
        held.push(scene.ask().await.unwrap());
    }
    // Somebody comes and goes ten times a second for a minute.
    for _ in 0..600 {
        drop(scene.ask().await.unwrap());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let failed = scene.dials("failed");
    assert!((5..=8).contains(&failed), "{failed}");
    drop(held);
    scene.ends_with_nothing().await;
}
