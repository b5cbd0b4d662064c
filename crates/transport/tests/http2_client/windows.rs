//! Streams that are not read, beside others that are.

use crate::peer::*;
use bytes::Bytes;
use h2::{Reason, client, server};
use std::future::poll_fn;
use std::time::Duration;
use tidegate_transport::{BoxIo, TaskKind, Tasks};

const DRIVER: TaskKind = TaskKind { name: "test driver", on_cancel: "ends", on_error: "ends" };
const STALLED: usize = 20;

/// `/stalled` gets DATA frames of 20 bytes for ever; anything else 2,000 of them and its end.
fn tokens(io: BoxIo) {
    serve(io, server::Builder::new(), |request, mut respond| async move {
        let mut out = begin_answer(&mut respond);
        let endless = request.uri().path() == "/stalled";
        let mut sent = 0;
        while (endless || sent < 2000) && push(&mut out, &[b'x'; 20]).await {
            sent += 1;
            // Each frame by itself: h2 would join what is written in one go.
            tokio::task::yield_now().await;
        }
        // A stream that was cut has no end to send.
        let _ = out.send_data(Bytes::new(), true);
    });
}

/// Token deltas are small frames. h2 ends a connection on which too many of them stand unread;
/// with our windows twenty streams that nobody reads leave the neighbours whole.
#[tokio::test]
async fn twenty_unread_streams_of_small_frames_harm_no_neighbour() {
    let (near, far) = pipe().await;
    tokens(far);
    let tasks = Tasks::new();
    let conn = open(near, &tasks).await.unwrap();
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        stalled.push(ask(&conn, "/stalled").await.unwrap());
    }
    for _ in 0..5 {
        let mut neighbour = ask(&conn, "/neighbour").await.unwrap();
        assert_eq!(read(&mut neighbour).await.unwrap().len(), 40_000);
    }
    assert!(conn.is_open(), "the connection lives on");
    // They fill their own windows and nobody else's.
    for mut stream in stalled {
        let mut seen = 0;
        poll_fn(|cx| stream.poll_body(cx, &mut |piece| seen += piece.len())).await.unwrap();
        assert!(seen > 0 && seen <= 128 * 1024 + 16 * 1024, "{seen}");
    }
}

/// The same with h2's own windows dies, which is why ours are what they are. If this fails after
/// an update, h2 does not count unread frames so any more and the wide window can be reconsidered.
#[tokio::test]
async fn with_default_windows_the_same_streams_end_the_connection() {
    let (near, far) = pipe().await;
    tokens(far);
    let (send, conn) = client::handshake(near).await.unwrap();
    let ended = Tasks::new().spawn(&DRIVER, conn);
    let mut unread = Vec::new();
    for _ in 0..STALLED {
        let mut send = send.clone();
        let Ok((answer, _)) = send.send_request(get("/stalled"), true) else { break };
        unread.push(answer);
    }
    let ended = tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap().unwrap();
    assert_eq!(ended.unwrap_err().reason(), Some(Reason::ENHANCE_YOUR_CALM));
}
