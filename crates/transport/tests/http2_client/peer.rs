//! A peer made of h2's server, and the ways to it.

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use std::future::{Future, poll_fn};
use std::time::Duration;
use tidegate_transport::http2::{Connection, Stream};
use tidegate_transport::{BoxIo, ClientError, Clock, Listen, MemoryNetwork, TaskKind, Tasks};
use tokio::io::AsyncReadExt;

pub(crate) const PEER: TaskKind = TaskKind { name: "test peer", on_cancel: "ends", on_error: "ends" };

/// Both ends of a connection in memory.
pub(crate) async fn pipe() -> (BoxIo, BoxIo) {
    let network = MemoryNetwork::new();
    let mut door = network.listen("api:1");
    let near = network.connect("api:1").unwrap();
    (near, door.accept().await.unwrap().open().unwrap())
}

/// Accepts streams with `builder` and hands each to `each` in a task of its own.
pub(crate) fn serve<F>(
    io: BoxIo,
    builder: server::Builder,
    each: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    Tasks::new().spawn(&PEER, async move {
        let mut conn = builder.handshake::<_, Bytes>(io).await.unwrap();
        while let Some(Ok((request, respond))) = conn.accept().await {
            Tasks::new().spawn(&PEER, each(request, respond));
        }
    });
}

/// A connection to a peer that does `each` with every stream.
pub(crate) async fn connected<F>(
    builder: server::Builder,
    each: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + 'static,
) -> (Connection, Tasks)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (near, far) = pipe().await;
    serve(far, builder, each);
    let tasks = Tasks::new();
    (open(near, &tasks).await.unwrap(), tasks)
}

pub(crate) async fn open(io: BoxIo, tasks: &Tasks) -> Result<Connection, ClientError> {
    Connection::open(io, Clock::real(), tasks, |_| {}).await
}

pub(crate) fn get(path: &str) -> Request<()> {
    Request::get(format!("http://api{path}")).body(()).unwrap()
}

pub(crate) fn post() -> Request<()> {
    Request::post("http://api/").body(()).unwrap()
}

/// Begins a request without a body and reads its answer's head.
pub(crate) async fn ask(conn: &Connection, path: &str) -> Result<Stream, ClientError> {
    let mut stream = conn.begin(get(path), true)?;
    stream.read_head().await?;
    Ok(stream)
}

/// Reads the rest of an answer.
pub(crate) async fn read(stream: &mut Stream) -> Result<Vec<u8>, ClientError> {
    let mut body = bytes::BytesMut::new();
    stream.read_body(&mut body, 1 << 24).await?;
    Ok(body.to_vec())
}

/// Answers 200 with a body of unknown length.
pub(crate) fn begin_answer(respond: &mut SendResponse<Bytes>) -> SendStream<Bytes> {
    respond.send_response(Response::new(()), false).unwrap()
}

/// Sends `data` as its window allows; false once the stream is reset.
pub(crate) async fn push(out: &mut SendStream<Bytes>, data: &[u8]) -> bool {
    let mut left = Bytes::copy_from_slice(data);
    while !left.is_empty() {
        out.reserve_capacity(left.len());
        let Some(Ok(n)) = poll_fn(|cx| out.poll_capacity(cx)).await else { return false };
        if out.send_data(left.split_to(n.min(left.len())), false).is_err() {
            return false;
        }
    }
    true
}

/// Waits until the stream is reset, and says why.
pub(crate) async fn reset(out: &mut SendStream<Bytes>) -> Option<Reason> {
    poll_fn(|cx| out.poll_reset(cx)).await.ok()
}

/// Reads a request's whole body.
pub(crate) async fn whole(body: &mut RecvStream) -> Option<usize> {
    let mut total = 0;
    while let Some(data) = body.data().await {
        let data = data.ok()?;
        total += data.len();
        body.flow_control().release_capacity(data.len()).ok()?;
    }
    Some(total)
}

/// Lets the other tasks run.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// Frames by hand (RFC 9113 section 6), for what h2's server would never do.
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
/// `:status: 200`, indexed (RFC 7541 appendix A).
pub(crate) const STATUS_200: &[u8] = &[0x88];

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The next frame's kind and stream; its payload is dropped.
pub(crate) async fn read_frame(io: &mut BoxIo) -> (u8, u32) {
    let mut head = [0; 9];
    io.read_exact(&mut head).await.unwrap();
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    io.read_exact(&mut vec![0; length as usize]).await.unwrap();
    (head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]))
}
