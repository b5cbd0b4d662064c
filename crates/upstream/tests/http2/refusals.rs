//! Requests that were not taken up, and connections that fail.

use crate::scene::*;
use bytes::{Bytes, BytesMut};
use h2::{Reason, server};
use std::time::Duration;
use tidegate_transport::http1::ServerConn;
use tidegate_transport::{BoxIo, ClientError, HttpOffer};
use tidegate_upstream::ExchangeError;

const NOW: Duration = Duration::ZERO;

#[tokio::test(start_paused = true)]
async fn a_refused_stream_goes_out_again_and_not_for_ever() {
    for (refusals, answered) in [(3, true), (1000, false)] {
        let scene = scene(HttpOffer::Auto);
        let left = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(refusals));
        scene.serve(server::Builder::new(), move |request, mut respond| {
            let refused =
                left.fetch_update(std::sync::atomic::Ordering::Relaxed, std::sync::atomic::Ordering::Relaxed, |n| {
                    n.checked_sub(1)
                });
            async move {
                match refused {
                    Ok(_) => respond.send_reset(Reason::REFUSED_STREAM),
                    Err(_) => ok(request, respond, NOW).await,
                }
            }
        });
        match scene.ask().await {
            Ok(_) => assert!(answered),
            Err(e) => assert!(!answered && matches!(e, ExchangeError::Broken(ClientError::Unsent)), "{e}"),
        }
    }
}

/// Reads frames by hand until a request's head has come, and says GOAWAY with nothing processed, as
/// an edge does that restarts.
async fn goes_away(mut io: BoxIo) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const HEADERS: u8 = 1;
    io.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    // The preface, then frames: three bytes of length, one of type, five of others.
    io.read_exact(&mut [0; 24]).await.unwrap();
    loop {
        let mut head = [0; 9];
        io.read_exact(&mut head).await.unwrap();
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        io.read_exact(&mut vec![0; length]).await.unwrap();
        if head[3] == HEADERS {
            break;
        }
    }
    // GOAWAY, last stream 0, NO_ERROR.
    io.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_goaway_left_unread_goes_out_over_another_connection() {
    let scene = scene(HttpOffer::Auto);
    scene.listen(|number, io| async move {
        if number == 1 {
            goes_away(io).await;
        } else {
            streams(server::Builder::new(), io, |request, respond| ok(request, respond, NOW)).await;
        }
    });
    scene.told("ok").await;
    assert_eq!((scene.accepted(), scene.dials("failed")), (2, 0));
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_goaway_in_use_lets_streams_end_and_the_next_goes_elsewhere() {
    let scene = scene(HttpOffer::Auto);
    scene.listen(|number, io| async move {
        let mut conn = server::handshake(io).await.unwrap();
        let (_, respond) = conn.accept().await.unwrap().unwrap();
        let mut out = begin(respond);
        conn.graceful_shutdown();
        let ending = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            out.send_data(Bytes::from(number.to_string()), true).unwrap();
            std::future::pending().await
        };
        tokio::select! {
            _ = conn.accept() => {}
            () = ending => {}
        }
    });
    let mut first = scene.ask().await.unwrap();
    settle().await;
    scene.told("2").await;
    assert_eq!(first.read_body(10).await.unwrap(), "1");
    drop(first);
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_closed_while_it_rested_is_replaced_without_an_error() {
    let scene = scene(HttpOffer::Auto);
    scene.listen(|_, io| async move {
        // One answer, then gone without a word.
        let serving = streams(server::Builder::new(), io, |request, respond| ok(request, respond, NOW));
        let _ = tokio::time::timeout(Duration::from_secs(1), serving).await;
    });
    scene.told("ok").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(scene.gauges(), (0, 0, 0), "it was noticed at once");
    scene.told("ok").await;
    assert_eq!(scene.accepted(), 2);
}

/// Answers over HTTP/1.1 as long as it is asked.
async fn http1(io: BoxIo) {
    let mut conn = ServerConn::new(io);
    while conn.wait_byte().await.is_ok_and(|more| more) {
        conn.read_head().await.unwrap();
        while conn.read_body(&mut BytesMut::new()).await.unwrap() > 0 {}
        conn.respond(200, Some(3), false, |_| {});
        conn.push(b"old");
        conn.flush().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_changes_its_mind_about_http2_is_followed() {
    let scene = scene(HttpOffer::Auto);
    scene.network.choose_http2("api:443", false);
    scene.listen(|_, io| http1(io));
    scene.told("old").await;
    scene.told("old").await;
    assert_eq!((scene.accepted(), scene.gauges()), (1, (0, 1, 0)));
    // HTTP/2 from the next connection on, and back.
    scene.network.choose_http2("api:443", true);
    scene.pool.sweep(scene.clock.now() + Duration::from_secs(61));
    scene.serve(server::Builder::new(), |request, respond| ok(request, respond, NOW));
    scene.told("ok").await;
    assert_eq!(scene.gauges(), (0, 1, 0));
    scene.network.choose_http2("api:443", false);
    scene.pool.sweep(scene.clock.now() + Duration::from_secs(61));
    settle().await;
    scene.listen(|_, io| http1(io));
    scene.told("old").await;
    scene.told("old").await;
    scene.ends_with_nothing().await;
}
