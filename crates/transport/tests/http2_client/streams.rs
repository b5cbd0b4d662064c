//! Requests, answers, uploads and cancels on one connection.

use crate::peer::*;
use bytes::Bytes;
use h2::{Reason, server};
use http::{HeaderMap, Response};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tidegate_transport::http2::Connection;
use tidegate_transport::{ClientError, SendEnd, Tasks};
use tidegate_wire::http::{BodyError, Framing, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(start_paused = true)]
async fn an_answer_comes_with_its_head_in_pieces_and_without_its_trailers() {
    let (conn, _) = connected(server::Builder::new(), |request, mut respond| async move {
        assert_eq!((request.uri().path(), request.uri().authority().unwrap().as_str()), ("/a", "api"));
        let head = Response::builder().status(201).header("request-id", "r1").body(()).unwrap();
        let mut out = respond.send_response(head, false).unwrap();
        for piece in ["one ", "two ", "", "three"] {
            out.send_data(Bytes::from(piece), false).unwrap();
            settle().await;
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("late", "x".parse().unwrap());
        out.send_trailers(trailers).unwrap();
    })
    .await;
    let mut stream = conn.begin(get("/a"), true).unwrap();
    let head = stream.read_head().await.unwrap();
    assert_eq!((head.status, head.version, head.framing), (201, Version::Http2, Framing::Chunked));
    assert_eq!(head.headers.text("request-id"), Some("r1"));
    let mut pieces = Vec::new();
    while !std::future::poll_fn(|cx| stream.poll_body(cx, &mut |p| pieces.push(p.to_vec()))).await.unwrap() {}
    assert_eq!(pieces, [&b"one "[..], b"two ", b"three"]);
}

#[tokio::test(start_paused = true)]
async fn a_megabyte_goes_up_through_small_windows_and_its_progress_is_told() {
    let mut small = server::Builder::new();
    small.initial_window_size(1000).initial_connection_window_size(70_000);
    let (conn, _) = connected(small, |request, mut respond| async move {
        let total = whole(&mut request.into_body()).await.unwrap();
        begin_answer(&mut respond).send_data(Bytes::from(total.to_string()), true).unwrap();
    })
    .await;
    let mut stream = conn.begin(post(), false).unwrap();
    let told = AtomicUsize::new(0);
    let sent = stream.send_body(Bytes::from(vec![7; 1 << 20]), || {
        told.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(sent.await.unwrap(), SendEnd::Whole);
    assert_eq!(stream.read_head().await.unwrap().status, 200);
    assert_eq!(read(&mut stream).await.unwrap(), b"1048576");
    assert!(told.into_inner() >= 1000, "each thousand bytes are progress");
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_is_answered_early_stops_and_the_answer_is_whole() {
    let (conn, _) = connected(server::Builder::new(), |_request, mut respond| async move {
        let head = Response::builder().status(413).body(()).unwrap();
        let mut out = respond.send_response(head, false).unwrap();
        out.send_data(Bytes::from("too large"), true).unwrap();
        // Dropped, h2 says RST_STREAM(NO_ERROR) after it, as RFC 9113 section 8.1 has it: the rest
        // of the request is unwanted.
    })
    .await;
    let mut stream = conn.begin(post(), false).unwrap();
    assert_eq!(stream.send_body(Bytes::from(vec![7; 1 << 20]), || {}).await.unwrap(), SendEnd::AnsweredEarly);
    assert_eq!(stream.read_head().await.unwrap().status, 413);
    assert_eq!(read(&mut stream).await.unwrap(), b"too large");
    assert!(conn.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_stream_is_reset_with_cancel_at_once_and_its_neighbour_goes_on() {
    let (told, mut noticed) = tokio::sync::mpsc::channel(1);
    let (conn, _) = connected(server::Builder::new(), move |request, mut respond| {
        let told = told.clone();
        async move {
            let mut out = begin_answer(&mut respond);
            if request.uri().path() == "/left" {
                told.send(reset(&mut out).await).await.unwrap();
            } else {
                settle().await;
                out.send_data(Bytes::from("stayed"), true).unwrap();
            }
        }
    })
    .await;
    let left = ask(&conn, "/left").await.unwrap();
    let mut stays = ask(&conn, "/stays").await.unwrap();
    drop(left);
    assert_eq!(noticed.recv().await.unwrap(), Some(Reason::CANCEL));
    assert_eq!(read(&mut stays).await.unwrap(), b"stayed");
}

/// The peer floods each stream; all are dropped with frames under way, far more than are remembered.
#[tokio::test]
async fn cancelling_thousands_of_streams_does_not_end_the_connection() {
    let (conn, _) = connected(server::Builder::new(), |request, mut respond| async move {
        let mut out = begin_answer(&mut respond);
        if request.uri().path() == "/last" {
            out.send_data(Bytes::from("alive"), true).unwrap();
            return;
        }
        while push(&mut out, &[b'x'; 20]).await {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for _ in 0..40 {
        let mut streams = Vec::new();
        for _ in 0..50 {
            streams.push(ask(&conn, "/flood").await.unwrap());
        }
    }
    assert_eq!(read(&mut ask(&conn, "/last").await.unwrap()).await.unwrap(), b"alive");
    assert!(conn.is_open());
}

/// Frames under way to a stream that was cancelled are no fault of the peer's; with h2's own numbers
/// a thousand of them end the connection.
#[tokio::test(start_paused = true)]
async fn frames_under_way_to_cancelled_streams_are_put_up_with() {
    const STREAMS: u32 = 100;
    const FRAMES: usize = 40;
    let (near, mut far) = pipe().await;
    Tasks::new().spawn(&PEER, async move {
        far.write_all(&frame(SETTINGS, 0, 0, b"")).await.unwrap();
        far.read_exact(&mut [0; 24]).await.unwrap();
        let mut cancelled = Vec::new();
        loop {
            let (kind, stream) = read_frame(&mut far).await;
            match kind {
                HEADERS => far.write_all(&frame(HEADERS, END_HEADERS, stream, STATUS_200)).await.unwrap(),
                RST_STREAM => cancelled.push(stream),
                _ => {}
            }
            if stream > 2 * STREAMS {
                break far.write_all(&frame(DATA, END_STREAM, stream, b"alive")).await.unwrap();
            }
            if kind == RST_STREAM && cancelled.len() == STREAMS as usize {
                // In turns: of frames that come at once h2 counts one a stream.
                for _ in 0..FRAMES {
                    for stream in &cancelled {
                        far.write_all(&frame(DATA, 0, *stream, &[b'x'; 20])).await.unwrap();
                    }
                    settle().await;
                }
            }
        }
        std::future::pending::<()>().await;
    });
    let conn = open(near, &Tasks::new()).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(ask(&conn, "/").await.unwrap());
    }
    drop(streams);
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!(read(&mut ask(&conn, "/last").await.unwrap()).await.unwrap(), b"alive");
    assert!(conn.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_body_over_its_maximum_is_an_error() {
    let (conn, _) = connected(server::Builder::new(), |_, mut respond| async move {
        begin_answer(&mut respond).send_data(Bytes::from(vec![0; 5000]), true).unwrap();
    })
    .await;
    let mut stream = ask(&conn, "/").await.unwrap();
    let read = stream.read_body(&mut bytes::BytesMut::new(), 4999).await;
    assert!(matches!(read, Err(ClientError::Body(BodyError::TooLarge))), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn the_peers_number_of_streams_is_known_before_the_first_and_capped() {
    for (peer, want) in [(Some(5), 5), (Some(1000), 100), (None, 100)] {
        let mut builder = server::Builder::new();
        peer.map(|n| builder.max_concurrent_streams(n));
        let (conn, _) = connected(builder, |_, _| std::future::pending()).await;
        assert_eq!(conn.streams_max(), want);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_when_it_is_retired_and_its_last_stream_has_ended() {
    let (conn, tasks) = connected(server::Builder::new(), |_, mut respond| async move {
        let mut out = begin_answer(&mut respond);
        settle().await;
        out.send_data(Bytes::from("end"), true).unwrap();
    })
    .await;
    let mut stream = ask(&conn, "/").await.unwrap();
    conn.retire();
    assert!(matches!(conn.begin(get("/"), true), Err(ClientError::Unsent)));
    assert_eq!(read(&mut stream).await.unwrap(), b"end");
    drop(stream);
    tasks.all_ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_handles_ends() {
    let (conn, tasks) = connected(server::Builder::new(), |_, _| std::future::pending()).await;
    assert_eq!(tasks.living().len(), 1);
    drop(conn);
    tasks.all_ended().await;
}

#[tokio::test(start_paused = true)]
async fn changes_are_told() {
    let (near, far) = pipe().await;
    Tasks::new().spawn(&PEER, async move {
        let mut conn = server::handshake(far).await.unwrap();
        let (_, mut respond) = conn.accept().await.unwrap().unwrap();
        conn.graceful_shutdown();
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), conn.accept()).await;
        begin_answer(&mut respond).send_data(Bytes::new(), true).unwrap();
        while conn.accept().await.is_some() {}
    });
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let tasks = Tasks::new();
    let changed = move |gone| heard.lock().unwrap().push(gone);
    let conn = Connection::open(near, tidegate_transport::Clock::real(), &tasks, changed).await.unwrap();
    ask(&conn, "/").await.unwrap();
    tasks.all_ended().await;
    assert!(!conn.is_open());
    assert_eq!(*told.lock().unwrap(), [false, true]);
}
