//! The serving side of HTTP/2 over an in-memory network: a client of another make at the far end.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene should stop")]

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tidegate_transport::http1::{HeadEnd, ServerConn};
use tidegate_transport::http2::{Next, ServerConnection, ServerRules};
use tidegate_transport::{BoxIo, Clock, Listen, MemoryNetwork, ServerStream, TaskKind, Tasks};
use tidegate_wire::http::{Framing, HeadError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SERVER: TaskKind = TaskKind { name: "server", on_cancel: "ends", on_error: "ends" };
const STREAM: TaskKind = TaskKind { name: "stream", on_cancel: "ends", on_error: "ends" };
const CLIENT: TaskKind = TaskKind { name: "client", on_cancel: "ends", on_error: "ends" };

const RULES: ServerRules = ServerRules { streams: 256, idle: Duration::from_secs(60) };
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

struct Scene {
    network: MemoryNetwork,
    tasks: Tasks,
    /// Connections that came to their end by being idle.
    idle: Arc<AtomicUsize>,
}

/// A server that gives every stream to `each`, on however many connections.
fn scene<F>(each: impl Fn(ServerStream) -> F + Clone + Send + Sync + 'static) -> Scene
where
    F: Future<Output = ()> + Send + 'static,
{
    let (network, tasks, idle) = (MemoryNetwork::new(), Tasks::new(), Arc::new(AtomicUsize::new(0)));
    let mut door = network.listen("a:1");
    let (inner, idled) = (tasks.clone(), Arc::clone(&idle));
    Tasks::new().spawn(&SERVER, async move {
        loop {
            let io = door.accept().await.unwrap().open().unwrap();
            inner.spawn(&SERVER, connection(io, each.clone(), inner.clone(), Arc::clone(&idled)));
        }
    });
    Scene { network, tasks, idle }
}

async fn connection<F: Future<Output = ()> + Send + 'static>(
    io: BoxIo,
    each: impl Fn(ServerStream) -> F,
    tasks: Tasks,
    idle: Arc<AtomicUsize>,
) {
    let mut conn = ServerConn::new(io);
    let Err(HeadEnd::Http2) = conn.read_head().await else { return };
    let (io, read) = conn.into_parts();
    let Ok(mut conn) = ServerConnection::handshake(io, read, Clock::real(), RULES).await else { return };
    loop {
        match conn.next().await {
            Next::Stream(stream) => drop(tasks.spawn(&STREAM, each(ServerStream::Http2(stream)))),
            Next::Idle => drop(idle.fetch_add(1, Ordering::Relaxed)),
            Next::Closed => return,
        }
    }
}

impl Scene {
    fn io(&self) -> BoxIo {
        self.network.connect("a:1").unwrap()
    }

    /// A client with windows of `window` bytes.
    async fn client(&self, window: u32) -> SendRequest<Bytes> {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window).initial_connection_window_size(1 << 30);
        builder.initial_max_send_streams(1000).max_send_buffer_size(64 << 20);
        let (client, conn) = builder.handshake(self.io()).await.unwrap();
        self.tasks.spawn(&CLIENT, async { drop(conn.await) });
        client
    }
}

async fn get(client: &SendRequest<Bytes>, path: &str) -> Response<RecvStream> {
    let mut client = client.clone().ready().await.unwrap();
    let request = Request::get(format!("http://a{path}")).body(()).unwrap();
    client.send_request(request, true).unwrap().0.await.unwrap()
}

async fn text(mut body: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        let _ = body.flow_control().release_capacity(piece.len());
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

/// Reads the whole request and answers with its length.
async fn echo_length(mut stream: ServerStream) {
    let Ok(head) = stream.read_head().await else { return };
    let mut body = BytesMut::new();
    while stream.read_body(&mut body).await.is_ok_and(|n| n > 0) {}
    let answer = format!("{} {} {}", head.method(), head.path(), body.len());
    stream.respond(200, Some(answer.len() as u64), false, |h| {
        h.header("x", b"y").header("connection", b"close");
    });
    stream.push(answer.as_bytes());
    stream.flush().await.unwrap();
    assert_eq!((stream.unwritten(), stream.taken()), (0, answer.len() as u64));
    stream.close(Clock::real()).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_is_answered_and_a_large_upload_goes_through_the_windows() {
    let scene = scene(echo_length);
    let client = scene.client(65_535).await;
    let answer = get(&client, "/x?y").await;
    assert_eq!((answer.status().as_u16(), answer.headers()["x"].to_str().unwrap()), (200, "y"));
    assert!(!answer.headers().contains_key("connection"));
    assert_eq!(answer.headers()["content-length"], "8");
    assert_eq!(text(answer.into_body()).await.unwrap(), b"GET /x 0");

    let mut ready = client.clone().ready().await.unwrap();
    let request = Request::post("http://a/up").body(()).unwrap();
    let (answer, mut body) = ready.send_request(request, false).unwrap();
    // h2 sends what the windows let through and no more; the whole goes only if they are opened.
    body.send_data(Bytes::from(vec![b'z'; 32 << 20]), true).unwrap();
    assert_eq!(text(answer.await.unwrap().into_body()).await.unwrap(), b"POST /up 33554432");
}

#[tokio::test(start_paused = true)]
async fn unread_bytes_of_a_connection_are_bounded_and_hold_up_nobody_once_they_are_dropped() {
    let scene = scene(|mut stream: ServerStream| async move {
        let head = stream.read_head().await.unwrap();
        if head.path() == "/unread" {
            tokio::time::sleep(Duration::from_secs(5)).await;
            return stream.abort();
        }
        assert_eq!(head.framing, Framing::Empty);
        stream.respond(200, Some(0), false, |_| {});
        stream.close(Clock::real()).await;
    });
    let client = scene.client(65_535).await;
    let mut uploads = Vec::new();
    for _ in 0..8 {
        let mut ready = client.clone().ready().await.unwrap();
        let (answer, mut body) = ready.send_request(Request::post("http://a/unread").body(()).unwrap(), false).unwrap();
        body.reserve_capacity(8 << 20);
        uploads.push((answer, body));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let granted: usize = uploads.iter().map(|(_, body)| body.capacity()).sum();
    assert!((4 << 20..5 << 20).contains(&granted), "{granted}");
    assert_eq!(get(&client, "/").await.status(), 200);
    for (answer, _) in uploads {
        assert_eq!(answer.await.unwrap_err().reason(), Some(Reason::INTERNAL_ERROR));
    }
    assert_eq!(get(&client, "/").await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_seen_and_costs_the_send_buffer_only() {
    let scene = scene(|mut stream: ServerStream| async move {
        stream.read_head().await.unwrap();
        stream.respond(200, None, false, |_| {});
        stream.push(&vec![b'x'; 1 << 20]);
        let flushed = Clock::real().within(Duration::from_secs(30), stream.flush()).await;
        assert!(flushed.is_none());
        // The window, not more; and it stands still.
        assert_eq!((stream.taken(), stream.unwritten()), (100_000, (1 << 20) - 100_000));
        stream.abort();
    });
    let client = scene.client(100_000).await;
    let stalled = get(&client, "/").await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(text(stalled.into_body()).await.unwrap_err().reason(), Some(Reason::INTERNAL_ERROR));
    assert_eq!(scene.tasks.living().get("stream"), None);
}

#[tokio::test(start_paused = true)]
async fn a_reset_and_a_lost_connection_are_a_client_that_left() {
    let scene = scene(|mut stream: ServerStream| async move {
        let head = stream.read_head().await.unwrap();
        if head.path() == "/late" {
            stream.respond(200, None, false, |_| {});
            stream.flush().await.unwrap();
        }
        poll_fn(|cx| stream.poll_departed(cx)).await;
    });
    let client = scene.client(65_535).await;
    for path in ["/early", "/late"] {
        let mut ready = client.clone().ready().await.unwrap();
        let request = Request::get(format!("http://a{path}")).body(()).unwrap();
        let (answer, mut send) = ready.send_request(request, true).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(scene.tasks.living().get("stream"), Some(&1), "{path}");
        send.send_reset(Reason::CANCEL);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(scene.tasks.living().get("stream"), None, "{path}");
        drop(answer);
    }
    // Four streams at once, and then no connection: bytes by hand, so that it can be cut.
    let mut io = scene.io();
    io.write_all(PREFACE).await.unwrap();
    io.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    for id in [1u8, 3, 5, 7] {
        // GET, http, / from the static table.
        io.write_all(&[0, 0, 3, 1, 5, 0, 0, 0, id, 0x82, 0x86, 0x84]).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.tasks.living().get("stream"), Some(&4));
    io.reset_on_drop();
    drop(io);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(scene.tasks.living().get("stream"), None);
}

#[tokio::test(start_paused = true)]
async fn an_early_answer_stops_the_upload_and_leaves_the_connection_usable() {
    let scene = scene(|mut stream: ServerStream| async move {
        stream.read_head().await.unwrap();
        stream.respond(413, Some(3), true, |_| {});
        stream.push(b"big");
        stream.close(Clock::real()).await;
    });
    let client = scene.client(65_535).await;
    for _ in 0..3 {
        let mut ready = client.clone().ready().await.unwrap();
        let (answer, mut body) = ready.send_request(Request::post("http://a/").body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from(vec![0; 16 << 20]), false).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 413);
        assert_eq!(text(answer.into_body()).await.unwrap(), b"big");
        let reset = poll_fn(|cx| body.poll_reset(cx)).await.unwrap();
        assert_eq!(reset, Reason::NO_ERROR);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_only_drips_keeps_no_refused_stream_open() {
    let scene = scene(|mut stream: ServerStream| async move {
        stream.read_head().await.unwrap();
        stream.respond(404, Some(0), true, |_| {});
        stream.close(Clock::real()).await;
    });
    let client = scene.client(65_535).await;
    let mut ready = client.clone().ready().await.unwrap();
    let (answer, mut body) = ready.send_request(Request::post("http://a/").body(()).unwrap(), false).unwrap();
    assert_eq!(answer.await.unwrap().status(), 404);
    let began = Clock::real();
    while body.send_data(Bytes::from_static(b"x"), false).is_ok() {
        tokio::time::sleep(Duration::from_millis(900)).await;
    }
    let lasted = began.now().since(tidegate_base::Moment::ZERO);
    assert!(lasted > Duration::from_secs(9) && lasted < Duration::from_secs(12), "{lasted:?}");
    assert_eq!(scene.tasks.living().get("stream"), None);
}

#[tokio::test]
async fn an_answer_to_head_has_no_body_whoever_pushes_one() {
    let scene = scene(|mut stream| async move {
        if stream.read_head().await.is_ok() {
            stream.respond(529, Some(5), true, |_| {});
            stream.push(b"{\"a\"}");
            stream.end();
            stream.close(Clock::real()).await;
        }
    });
    let client = scene.client(65_535).await;
    for (method, body) in [("HEAD", ""), ("GET", "{\"a\"}")] {
        let mut client = client.clone().ready().await.unwrap();
        let request = Request::builder().method(method).uri("http://a/").body(()).unwrap();
        let answer = client.send_request(request, true).unwrap().0.await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers()["content-length"].as_bytes()), (529, &b"5"[..]));
        assert_eq!(text(answer.into_body()).await.unwrap(), body.as_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_streams_over_ten_connections_do_not_mix() {
    let scene = scene(|mut stream: ServerStream| async move {
        let path = stream.read_head().await.unwrap().path().to_owned();
        stream.respond(200, None, false, |_| {});
        for n in 0..20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.push(format!("{path}:{n};").as_bytes());
            stream.flush().await.unwrap();
        }
        stream.end();
        stream.flush().await.unwrap();
        assert_eq!(stream.unwritten(), 0);
    });
    let mut asked = Vec::new();
    for c in 0..10 {
        let client = scene.client(65_535).await;
        for s in 0..100 {
            let client = client.clone();
            asked.push(scene.tasks.spawn(&CLIENT, async move {
                let path = format!("/{c}-{s}");
                let want: String = (0..20).map(|n| format!("{path}:{n};")).collect();
                assert_eq!(text(get(&client, &path).await.into_body()).await.unwrap(), want.as_bytes());
            }));
        }
    }
    for asked in asked {
        asked.await.unwrap();
    }
    assert_eq!(scene.tasks.living().get("stream"), None);
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_streams_is_closed_after_its_time_and_not_before() {
    let scene = scene(|mut stream: ServerStream| async move {
        stream.read_head().await.unwrap();
        tokio::time::sleep(Duration::from_secs(300)).await;
        stream.respond(200, Some(0), false, |_| {});
        stream.close(Clock::real()).await;
    });
    let client = scene.client(65_535).await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    // A stream may last longer than the idle clock.
    assert_eq!(get(&client, "/").await.status(), 200);
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!((scene.idle.load(Ordering::Relaxed), scene.tasks.living().get("server")), (0, Some(&1)));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((scene.idle.load(Ordering::Relaxed), scene.tasks.living().get("server")), (1, None));
    assert!(client.ready().await.is_err());

    // A client that does not even answer the goodbye.
    let mut mute = scene.io();
    mute.write_all(PREFACE).await.unwrap();
    tokio::time::sleep(Duration::from_secs(63)).await;
    assert_eq!(scene.tasks.living().get("server"), None);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_only_drips_is_no_stream_and_does_not_keep_its_connection() {
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    // Without END_HEADERS: nothing but the rest of this head may follow.
    const HEADERS: &[u8] = &[0, 0, 3, 1, 0, 0, 0, 0, 1, 0x82, 0x86, 0x84];
    const CONTINUATION: &[u8] = &[0, 0, 5, 9, 0, 0, 0, 0, 1, 0x00, 1, b'x', 1, b'y'];
    let scene = scene(echo_length);
    let mut io = scene.io();
    io.write_all(&[PREFACE, SETTINGS, HEADERS].concat()).await.unwrap();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(14_500)).await;
        io.write_all(CONTINUATION).await.unwrap();
        assert_eq!(scene.tasks.living().get("server"), Some(&1));
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((scene.idle.load(Ordering::Relaxed), scene.tasks.living().get("server")), (1, None));
}

#[tokio::test(start_paused = true)]
async fn a_shut_down_lets_streams_end_and_takes_no_more() {
    let network = MemoryNetwork::new();
    let mut door = network.listen("a:1");
    let tasks = Tasks::new();
    let inner = tasks.clone();
    tasks.spawn(&SERVER, async move {
        let io = door.accept().await.unwrap().open().unwrap();
        let mut conn = ServerConnection::handshake(io, BytesMut::new(), Clock::real(), RULES).await.unwrap();
        let at = Clock::real().now() + Duration::from_secs(5);
        let clock = Clock::real();
        let mut told = false;
        loop {
            match clock.by(if told { at + Duration::from_secs(3600) } else { at }, conn.next()).await {
                None => {
                    told = true;
                    conn.shut_down();
                }
                Some(Next::Stream(stream)) => drop(inner.spawn(&STREAM, async move {
                    let mut stream = ServerStream::Http2(stream);
                    stream.read_head().await.unwrap();
                    tokio::time::sleep(Duration::from_secs(20)).await;
                    stream.respond(200, Some(4), false, |_| {});
                    stream.push(b"done");
                    stream.close(clock).await;
                })),
                Some(Next::Idle) => {}
                Some(Next::Closed) => return,
            }
        }
    });
    let (client, conn) = h2::client::handshake(network.connect("a:1").unwrap()).await.unwrap();
    tasks.spawn(&CLIENT, async { drop(conn.await) });
    let begun = async { text(get(&client, "/").await.into_body()).await.unwrap() };
    let late = async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        client.clone().ready().await.is_err()
    };
    let (begun, refused) = tokio::join!(begun, late);
    assert_eq!((&begun[..], refused), (&b"done"[..], true));
    drop(client);
    tasks.all_ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_too_large_is_refused_by_us_and_only_its_stream() {
    let scene = scene(|mut stream: ServerStream| async move {
        let status = match stream.read_head().await {
            Ok(_) => 200,
            Err(HeadEnd::Bad(HeadError::TooLarge)) => 431,
            Err(e) => panic!("{e:?}"),
        };
        stream.respond(status, Some(5), true, |_| {});
        stream.push(b"envel");
        stream.close(Clock::real()).await;
    });
    let client = scene.client(65_535).await;
    for (bytes, status, body) in [(60_000, 200, &b"envel"[..]), (66_000, 431, b"envel"), (140_000, 431, b"")] {
        let mut ready = client.clone().ready().await.unwrap();
        let request = Request::get("http://a/").header("x", "y".repeat(bytes)).body(()).unwrap();
        let answer = ready.send_request(request, true).unwrap().0.await.unwrap();
        assert_eq!(answer.status(), status, "{bytes}");
        assert_eq!(text(answer.into_body()).await.unwrap(), body, "{bytes}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_preface_may_come_in_pieces_and_what_only_looks_like_it_is_http_1() {
    let scene = scene(echo_length);
    let mut io = scene.io();
    for byte in PREFACE {
        io.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut settings = [0; 9];
    Clock::real().within(Duration::from_secs(1), io.read_exact(&mut settings)).await.unwrap().unwrap();
    assert_eq!(settings[3], 4, "a SETTINGS frame");

    for (sent, refusal) in [
        (&b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..], HeadError::Version),
        (b"PRI / HTTP/3.0\r\n\r\n", HeadError::Version),
    ] {
        let mut door = scene.network.listen("b:1");
        let mut io = scene.network.connect("b:1").unwrap();
        io.write_all(sent).await.unwrap();
        let mut conn = ServerConn::new(door.accept().await.unwrap().open().unwrap());
        let end = conn.read_head().await;
        assert!(matches!(end, Err(HeadEnd::Bad(e)) if e == refusal), "{end:?}");
    }
    let mut door = scene.network.listen("b:1");
    let mut io = scene.network.connect("b:1").unwrap();
    io.write_all(b"PRI /x HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    io.write_all(PREFACE).await.unwrap();
    let mut conn = ServerConn::new(door.accept().await.unwrap().open().unwrap());
    assert_eq!(conn.read_head().await.unwrap().method(), "PRI");
    // After a request it is no preface any more.
    assert!(matches!(conn.read_head().await, Err(HeadEnd::Bad(HeadError::Version))));
}

#[tokio::test(start_paused = true)]
async fn garbage_after_the_preface_ends_that_connection() {
    let scene = scene(echo_length);
    let mut io = scene.io();
    io.write_all(PREFACE).await.unwrap();
    io.write_all(&[0xff; 64]).await.unwrap();
    let mut all = Vec::new();
    Clock::real().within(Duration::from_secs(5), io.read_to_end(&mut all)).await.unwrap().unwrap();
    // SETTINGS, then at last a GOAWAY.
    assert!(all.len() > 17 && all.windows(5).any(|w| w[3] == 7 && w[..2] == [0, 0]), "{all:?}");
    assert_eq!(scene.tasks.living().get("server"), None);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_resets_ends_its_connection_and_no_other() {
    let scene = scene(echo_length);
    let good = scene.client(65_535).await;
    assert_eq!(get(&good, "/").await.status(), 200);
    let mut io = scene.io();
    io.write_all(PREFACE).await.unwrap();
    let mut flood = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    for n in 0..500u32 {
        let id = (2 * n + 1).to_be_bytes();
        flood.extend([0, 0, 3, 1, 5]);
        flood.extend(id);
        flood.extend([0x82, 0x86, 0x84]);
        flood.extend([0, 0, 4, 3, 0]);
        flood.extend(id);
        flood.extend([0, 0, 0, 8]);
    }
    io.write_all(&flood).await.unwrap();
    let mut all = Vec::new();
    let _ = Clock::real().within(Duration::from_secs(5), io.read_to_end(&mut all)).await.unwrap();
    assert_eq!(get(&good, "/").await.status(), 200);
    assert_eq!((scene.tasks.living().get("server"), scene.tasks.living().get("stream")), (Some(&1), None));
}
