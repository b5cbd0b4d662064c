//! Peers that go away, refuse, break off, lie about lengths, fall silent or speak something else.

use crate::peer::*;
use bytes::Bytes;
use h2::{Reason, server};
use http::Response;
use std::time::Duration;
use tidegate_transport::http2::Connection;
use tidegate_transport::{BoxIo, ClientError, Clock, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(start_paused = true)]
async fn a_goaway_lets_streams_end_and_takes_no_more() {
    let (near, far) = pipe().await;
    Tasks::new().spawn(&PEER, async move {
        let mut conn = server::handshake(far).await.unwrap();
        let (_, mut respond) = conn.accept().await.unwrap().unwrap();
        let mut out = begin_answer(&mut respond);
        conn.graceful_shutdown();
        Tasks::new().spawn(&PEER, async move {
            settle().await;
            out.send_data(Bytes::from("to the end"), true).unwrap();
        });
        assert!(conn.accept().await.is_none());
    });
    let tasks = Tasks::new();
    let conn = open(near, &tasks).await.unwrap();
    let mut stream = ask(&conn, "/").await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(!conn.is_open());
    assert!(matches!(conn.begin(get("/"), true), Err(ClientError::Unsent)));
    assert_eq!(read(&mut stream).await.unwrap(), b"to the end");
    drop(stream);
    tasks.all_ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_was_not_sent_and_any_other_reset_was() {
    let (conn, _) = connected(server::Builder::new(), |request, mut respond| async move {
        respond.send_reset(match request.uri().path() {
            "/refused" => Reason::REFUSED_STREAM,
            _ => Reason::INTERNAL_ERROR,
        });
    })
    .await;
    assert!(matches!(ask(&conn, "/refused").await.err().unwrap(), ClientError::Unsent));
    let other = ask(&conn, "/other").await.err().unwrap();
    assert!(matches!(other, ClientError::Reset(Reason::INTERNAL_ERROR)), "{other}");
    assert!(conn.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_the_head_is_a_broken_answer() {
    let (conn, _) = connected(server::Builder::new(), |_, mut respond| async move {
        let mut out = begin_answer(&mut respond);
        settle().await;
        out.send_reset(Reason::REFUSED_STREAM);
    })
    .await;
    let broken = read(&mut ask(&conn, "/").await.unwrap()).await.err().unwrap();
    assert!(matches!(broken, ClientError::Reset(Reason::REFUSED_STREAM)), "{broken}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_shorter_or_longer_than_it_says_is_an_error() {
    let (conn, _) = connected(server::Builder::new(), |request, mut respond| async move {
        let head = Response::builder().header("content-length", "10").body(()).unwrap();
        let body = if request.uri().path() == "/short" { "123" } else { "1234567890123" };
        respond.send_response(head, false).unwrap().send_data(Bytes::from(body), true).unwrap();
    })
    .await;
    for path in ["/short", "/long"] {
        let read = match ask(&conn, path).await {
            Ok(mut stream) => read(&mut stream).await.map(|_| ()),
            Err(e) => Err(e),
        };
        assert!(matches!(read, Err(ClientError::Reset(Reason::PROTOCOL_ERROR))), "{path}: {read:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_vanishes_inside_an_answer_is_an_error() {
    let (near, far) = pipe().await;
    Tasks::new().spawn(&PEER, async move {
        let mut conn = server::handshake(far).await.unwrap();
        let (_, mut respond) = conn.accept().await.unwrap().unwrap();
        let mut out = begin_answer(&mut respond);
        out.send_data(Bytes::from("half"), false).unwrap();
        // Dropped with the connection once it was written.
        let _ = tokio::time::timeout(Duration::from_millis(50), conn.accept()).await;
    });
    let tasks = Tasks::new();
    let conn = open(near, &tasks).await.unwrap();
    let broken = read(&mut ask(&conn, "/").await.unwrap()).await.err().unwrap();
    assert!(matches!(broken, ClientError::Io(_)), "{broken}");
    tasks.all_ended().await;
    assert!(!conn.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_speaks_http_1_is_found_out_before_anything_is_sent() {
    let (near, mut far) = pipe().await;
    Tasks::new().spawn(&PEER, async move {
        let mut buffer = [0; 1024];
        let _ = far.read(&mut buffer).await;
        far.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await.unwrap();
    });
    assert!(open(near, &Tasks::new()).await.is_err());
}

/// Answers what it reads as long as `answers` says so, then reads on and says nothing.
async fn falls_silent(io: BoxIo, answers: Duration) {
    let mut conn = server::handshake(io).await.unwrap();
    let mut kept = Vec::new();
    let accepting = async {
        while let Some(Ok((_, mut respond))) = conn.accept().await {
            kept.push(begin_answer(&mut respond));
        }
    };
    let _ = tokio::time::timeout(answers, accepting).await;
    std::future::pending::<()>().await;
}

#[tokio::test(start_paused = true)]
async fn one_ping_answers_all_who_ask_and_a_dead_peer_answers_none() {
    let (near, far) = pipe().await;
    Tasks::new().spawn(&PEER, falls_silent(far, Duration::from_secs(1)));
    let conn = open(near, &Tasks::new()).await.unwrap();
    let _stream = ask(&conn, "/").await.unwrap();
    let (a, b) = (conn.probe(), conn.probe());
    assert_eq!((a, conn.answered(a)), (b, false));
    settle().await;
    assert!(conn.answered(a));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let c = conn.probe();
    assert_ne!(a, c);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!conn.answered(c) && conn.answered(a));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_keeps_no_connection_open() {
    let (near, far) = pipe().await;
    let (near_tasks, clock) = (Tasks::new(), Clock::real());
    Tasks::new().spawn(&PEER, falls_silent(far, Duration::from_secs(1)));
    let conn = Connection::open(near, clock, &near_tasks, |_| {}).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut stream = conn.begin(post(), false).unwrap();
    let sending = stream.send_body(Bytes::from(vec![0; 1 << 20]), || {});
    assert!(tokio::time::timeout(Duration::from_secs(1), sending).await.is_err(), "its window and pipe are full");
    conn.retire();
    drop(stream);
    let began = clock.now();
    near_tasks.all_ended().await;
    assert_eq!(clock.now().since(began).as_secs(), 5);
}
