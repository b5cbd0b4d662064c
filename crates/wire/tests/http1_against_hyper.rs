//! Our reading of HTTP/1.1 against hyper's, a codec of other hands.
//!
//! The same bytes go to both. Whatever we take for a whole request, hyper takes for one with the
//! same method, target and body: where two servers read one connection alike, nothing can be
//! smuggled between them. We may refuse more than hyper does, and do. Targets that hyper's URI type
//! refuses end a comparison, since it never sees them as requests.

use bytes::{Buf, BytesMut};
use hyper::body::{Body, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use proptest::prelude::*;
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tidegate_wire::http::{BodyDecoder, BodyStep, parse_request};

/// A request as one of the two understood it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Understood {
    method: String,
    target: String,
    body: Vec<u8>,
}

/// Every whole request we find in `wire`, up to the first refusal or the end.
fn ours(wire: &[u8]) -> Vec<Understood> {
    let (mut read, mut found) = (BytesMut::from(wire), Vec::new());
    while let Ok(Some(head)) = parse_request(&mut read) {
        let mut decoder = BodyDecoder::new(head.framing);
        let mut body = Vec::new();
        let whole = loop {
            match decoder.step(&read) {
                Ok(BodyStep::Data(range)) => {
                    body.extend_from_slice(&read[range.clone()]);
                    read.advance(range.end);
                }
                Ok(BodyStep::End(n)) => {
                    read.advance(n);
                    break true;
                }
                Ok(BodyStep::More) | Err(_) => break false,
            }
        };
        if !whole {
            break;
        }
        found.push(Understood { method: head.method().to_owned(), target: head.target().to_owned(), body });
        // What a connection line outside ASCII says about the next request is anybody's guess.
        let legible = head.headers.get_all("connection").all(<[u8]>::is_ascii);
        if !head.keeps_alive() || !legible {
            break;
        }
    }
    found
}

/// A transport that says what it has to say, and then stays open and silent.
struct Spoken<'a>(&'a [u8]);

impl Read for Spoken<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.0.is_empty() {
            return Poll::Pending;
        }
        let (now, later) = self.0.split_at(self.0.len().min(into.remaining()));
        into.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

impl Write for Spoken<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The whole body, or `None` if it breaks off.
async fn whole(mut body: Incoming) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame.ok()?.into_data() {
            out.extend_from_slice(&data);
        }
    }
    Some(out)
}

/// Every whole request hyper finds in `wire`.
fn hypers(wire: &[u8]) -> Vec<Understood> {
    let found = RefCell::new(Vec::new());
    let service = service_fn(|request: Request<Incoming>| async {
        let (method, target) = (request.method().to_string(), request.uri().to_string());
        if let Some(body) = whole(request.into_body()).await {
            found.borrow_mut().push(Understood { method, target, body });
        }
        Ok::<_, Infallible>(Response::new(String::new()))
    });
    let mut serving = Box::pin(hyper::server::conn::http1::Builder::new().serve_connection(Spoken(wire), service));
    let mut cx = Context::from_waker(Waker::noop());
    // Nothing it waits for is ever far away; what is not done by then waits for bytes.
    for _ in 0..50 {
        if serving.as_mut().poll(&mut cx).is_ready() {
            break;
        }
    }
    drop(serving);
    found.into_inner()
}

/// Where hyper's service would see the target at all: it has no name for `CONNECT` but a tunnel.
fn comparable(request: &Understood) -> bool {
    request.method != "CONNECT" && request.target.parse::<Uri>().is_ok_and(|uri| uri.to_string() == request.target)
}

#[track_caller]
fn agree(wire: &[u8]) {
    let mut theirs = hypers(wire).into_iter();
    for mine in ours(wire).into_iter().take_while(comparable) {
        assert_eq!(Some(mine), theirs.next(), "{:?}", String::from_utf8_lossy(wire));
    }
}

/// How many requests we, and hyper, find in `wire`.
fn counts(wire: &str) -> (usize, usize) {
    agree(wire.as_bytes());
    (ours(wire.as_bytes()).len(), hypers(wire.as_bytes()).len())
}

#[test]
fn plain_requests_are_read_alike() {
    let get = "GET /a?b=c HTTP/1.1\r\nhost: a\r\n\r\n";
    let post = "POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "POST /x HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n1 \r\n!\r\n000\r\nx: y\r\n\r\n";
    assert_eq!(counts(&format!("{get}\r\n{post}{chunked}{get}")), (4, 4));
    assert_eq!(counts(&format!("GET / HTTP/1.0\r\n\r\n{get}")), (1, 1));
    assert_eq!(counts(&format!("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n{get}")), (2, 2));
    assert_eq!(counts(&format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: x, Close\r\n\r\n{get}")), (1, 1));
    assert_eq!(counts(&post[..post.len() - 1]), (0, 0));
}

#[test]
fn what_hyper_forgives_may_be_refused_but_not_the_other_way_round() {
    let rest = "\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    for (line, hyper) in [
        ("content-length: 5\r\ntransfer-encoding: chunked", true),
        ("transfer-encoding: gzip, chunked", true),
        ("content-length: 0\r\ncontent-length: 0", true),
        ("content-length: +0", false),
        ("transfer-encoding: chunked, gzip", false),
        ("transfer-encoding : chunked", false),
        ("x: a\r\n\tcontent-length: 9", false),
    ] {
        let body = if line.contains("chunked") && hyper { "\r\n\r\n0" } else { "" };
        let wire = format!("POST / HTTP/1.1\r\nhost: a\r\n{line}{body}{rest}");
        let (we, they) = counts(&wire);
        assert_eq!((we, they > 0), (0, hyper), "{wire:?}");
    }
    assert_eq!(counts("GET / HTTP/1.1\r\n\r\n"), (0, 1), "without a host");
    assert_eq!(counts("GET / HTTP/1.1\nhost: a\n\n"), (0, 1), "bare line feeds");
}

/// What requests are made of, good and bad, so that random ones get far.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let lines = prop::sample::select(vec![
        "host: a",
        "Host: b",
        "content-length: 0",
        "content-length: 5",
        "Content-Length:  11 ",
        "content-length: 05",
        "content-length: 5,5",
        "content-length: +5",
        "content-length:",
        "transfer-encoding: chunked",
        "Transfer-Encoding:\tCHUNKED ",
        "transfer-encoding: identity",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked;q=1",
        "connection: close",
        "connection: keep-alive",
        "connection: keep-alive, close",
        "connection: upgrade\r\nupgrade: websocket",
        "expect: 100-continue",
        "x: y",
        "x:",
        " folded: 1",
        "x : y",
        "trailer: x",
        "te: trailers",
    ]);
    lines.prop_map(|l| l.as_bytes().to_vec())
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let bodies = prop::sample::select(vec![
        "",
        "hello",
        "hello world",
        "0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "5;x=y\r\nhello\r\n00\r\nx: y\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5 x\r\nhello\r\n0\r\n\r\n",
        "5\t;x\r\nhello\r\n0 \r\n\r\n",
        "5\r\nhello\r\n0\r\nno colon\r\n\r\n",
        "5\r\nhello\r\n0\r\n: y\r\n\r\n",
        "5\r\nhello\r\n0\r\nx : y\r\n\r\n",
        "5\r\nhello\r\n0\r\n folded\r\n\r\n",
        "5\r\nhello\r\n0\r\nx: \x01\r\n\r\n",
        "5;\x01\r\nhello\r\n0\r\n\r\n",
        "F\r\nGET /b HTTP/1.1\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello",
    ]);
    bodies.prop_map(|b| b.as_bytes().to_vec())
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let first = prop::sample::select(vec![
        "GET / HTTP/1.1",
        "POST /v1/messages HTTP/1.1",
        "POST http://a/b?c HTTP/1.1",
        "HEAD /x HTTP/1.0",
        "POST /old HTTP/1.0",
        "OPTIONS * HTTP/1.1",
        "get /y HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.2",
    ]);
    let lines = prop::collection::vec(line(), 0..5);
    let end = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\n"]);
    (first, prop::bool::weighted(0.9), lines, end, body()).prop_map(|(first, host, lines, end, body)| {
        let mut out = format!("{first}{end}").into_bytes();
        if host {
            out.extend_from_slice(b"host: a\r\n");
        }
        for line in lines {
            out.extend_from_slice(&line);
            out.extend_from_slice(end.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&body);
        out
    })
}

/// A request with nothing wrong in it, so that what follows is reached.
fn sound() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![
        "GET /a?b=c HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 005\r\nx: y\r\n\r\nhello",
        "POST /c HTTP/1.1\r\ntransfer-encoding: Chunked\r\nhost: a\r\n\r\n5;x=\"y\"\r\nhello\r\n1 \t\r\n!\r\n0\r\nx: y\r\nz:\r\n\r\n",
        "POST /d HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 27\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /e HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n",
        "\r\nDELETE /f HTTP/1.1\r\nhost:a\r\nconnection: x ,te\r\n\r\n",
    ])
    .prop_map(|r| r.as_bytes().to_vec())
}

/// A byte put in, taken out or changed somewhere.
fn bent(mut wire: Vec<u8>, bends: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    for (at, how, byte) in bends {
        if wire.is_empty() {
            break;
        }
        let at = at.index(wire.len());
        match how % 3 {
            0 => wire[at] = *byte,
            1 => drop(wire.remove(at)),
            _ => wire.insert(at, *byte),
        }
    }
    wire
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_we_accept_hyper_reads_the_same(
        requests in prop::collection::vec(prop_oneof![3 => sound(), 2 => request()], 1..5),
        bends in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), prop_oneof![
            any::<u8>(),
            prop::sample::select(b"\r\n\t :;,0159af\0\x0b\x80".to_vec()),
        ]), 0..4),
    ) {
        agree(&bent(requests.concat(), &bends));
    }
}
