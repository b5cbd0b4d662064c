//! Both sides of HTTP/1.1 talking over an in-memory network: the dialogue as it should go.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene should stop")]

use bytes::{Bytes, BytesMut};
use std::future::poll_fn;
use std::time::Duration;
use tidegate_transport::http1::{ClientConn, ClientError, HeadEnd, SendEnd, ServerConn};
use tidegate_transport::{Clock, Listen, MemoryNetwork};
use tidegate_wire::http::{BodyError, HeadWriter};

async fn pair() -> (ClientConn, ServerConn) {
    let network = MemoryNetwork::new();
    let mut door = network.listen("a:1");
    let client = ClientConn::new(network.connect("a:1").unwrap());
    (client, ServerConn::new(door.accept().await.unwrap().open().unwrap()))
}

fn post(length: usize) -> BytesMut {
    let mut out = BytesMut::new();
    HeadWriter::request(&mut out, "POST", "/x").header("host", b"a").number("content-length", length as u64).end();
    out
}

#[tokio::test(start_paused = true)]
async fn two_requests_share_a_connection_and_chunks_arrive_as_they_are_pushed() {
    let (mut client, mut server) = pair().await;
    for round in 0..2 {
        let answered = async {
            assert!(server.wait_byte().await.unwrap());
            let head = server.read_head().await.unwrap();
            assert_eq!((head.method(), head.path()), ("POST", "/x"));
            let mut body = BytesMut::new();
            while server.read_body(&mut body).await.unwrap() > 0 {}
            assert_eq!(body.len(), 100_000);
            server.respond(200, None, false, |h| {
                h.header("x", b"y");
            });
            for piece in ["one", "two"] {
                server.push(piece.as_bytes());
                server.flush().await.unwrap();
            }
            assert!(server.end());
            server.flush().await.unwrap();
        };
        let asked = async {
            let end = client.send(post(100_000), Bytes::from(vec![b'z'; 100_000]), || {}).await.unwrap();
            assert_eq!(end, SendEnd::Whole);
            let head = client.read_head(false, true).await.unwrap();
            assert_eq!(head.headers.text("X"), Some("y"));
            let mut body = BytesMut::new();
            client.read_body(&mut body, 100).await.unwrap();
            assert_eq!(&body[..], b"onetwo");
            assert!(client.is_reusable(), "round {round}");
        };
        tokio::join!(answered, asked);
    }
}

#[tokio::test(start_paused = true)]
async fn an_early_refusal_reaches_a_client_that_is_still_sending() {
    let (mut client, mut server) = pair().await;
    let refuse = async {
        server.read_head().await.unwrap();
        server.respond(413, Some(3), true, |_| {});
        server.push(b"big");
        server.close(Clock::real()).await;
    };
    let send = async move {
        let end = client.send(post(1 << 20), Bytes::from(vec![0; 1 << 20]), || {}).await.unwrap();
        assert_eq!(end, SendEnd::AnsweredEarly);
        assert_eq!(client.read_head(false, false).await.unwrap().status, 413);
        let mut body = BytesMut::new();
        client.read_body(&mut body, 100).await.unwrap();
        assert_eq!(&body[..], b"big");
        assert!(!client.is_reusable());
    };
    tokio::join!(refuse, send);
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_a_body_has_none_whoever_pushes_one() {
    for (method, status, length, told) in [
        ("HEAD", 404, Some(4), Some("4")),
        ("HEAD", 200, None, None),
        ("GET", 204, Some(4), None),
        ("GET", 304, None, None),
    ] {
        let (mut client, mut server) = pair().await;
        for _ in 0..2 {
            let mut head = BytesMut::new();
            HeadWriter::request(&mut head, method, "/x").header("host", b"a").end();
            client.send(head, Bytes::new(), || {}).await.unwrap();
            server.read_head().await.unwrap();
            server.respond(status, length, false, |_| {});
            server.push(b"body");
            assert!(server.end());
            server.flush().await.unwrap();
            let head = client.read_head(method == "HEAD", true).await.unwrap();
            assert_eq!((head.status, head.headers.text("content-length")), (status, told), "{method}");
            client.read_body(&mut BytesMut::new(), 0).await.unwrap();
            assert!(client.is_reusable(), "nothing stands between this answer and the next: {method} {status}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_noticed_while_the_server_is_thinking() {
    let (mut client, mut server) = pair().await;
    client.send(post(2), Bytes::from_static(b"{}"), || {}).await.unwrap();
    server.read_head().await.unwrap();
    server.read_body(&mut BytesMut::new()).await.unwrap();
    let departed = poll_fn(|cx| server.poll_departed(cx));
    let leave = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(client);
    };
    tokio::join!(departed, leave);
}

#[tokio::test(start_paused = true)]
async fn a_cut_inside_a_body_is_an_error_not_an_end() {
    let (mut client, mut server) = pair().await;
    client.send(post(0), Bytes::new(), || {}).await.unwrap();
    server.read_head().await.unwrap();
    server.respond(200, None, false, |_| {});
    server.push(b"half");
    server.flush().await.unwrap();
    drop(server);
    client.read_head(false, true).await.unwrap();
    let end = client.read_body(&mut BytesMut::new(), 100).await;
    assert!(matches!(end, Err(ClientError::Body(BodyError::Cut))), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cut_upload_is_an_error_for_the_server() {
    let (mut client, mut server) = pair().await;
    client.send(post(10), Bytes::from_static(b"half"), || {}).await.unwrap();
    drop(client);
    server.read_head().await.unwrap();
    let mut body = BytesMut::new();
    assert_eq!(server.read_body(&mut body).await.unwrap(), 4);
    assert!(matches!(server.read_body(&mut body).await, Err(HeadEnd::Io(_))));
}
