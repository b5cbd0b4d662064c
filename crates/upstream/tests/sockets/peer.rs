//! What stands at the other end: it does with each stream what the request says in `do`.

use bytes::BytesMut;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_base::{Moment, Prng};
use tidegate_transport::websocket::{Message, Over, Socket, SocketRules};
use tidegate_transport::{BoxIo, Clock};
use tidegate_wire::dialect::credit::Credit;
use tidegate_wire::dialect::tidegate_v1::{ClientFrame, SUBPROTOCOL};
use tidegate_wire::http::{RequestHead, parse_request};
use tidegate_wire::websocket::handshake::{Origins, ServerRules, accept, answer};
use tidegate_wire::websocket::{CloseCode, ReadRules, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What was heard, by connection.
pub(crate) type Heard = Arc<Mutex<Vec<(usize, String)>>>;

/// Reads the head of a request.
pub(crate) async fn head(io: &mut BoxIo) -> (RequestHead, BytesMut) {
    let mut read = BytesMut::new();
    loop {
        if let Some(head) = parse_request(&mut read).unwrap() {
            return (head, read);
        }
        assert!(io.read_buf(&mut read).await.unwrap() > 0, "the request broke off");
    }
}

/// Answers the handshake on `io` as a server does; what came behind it.
pub(crate) async fn shaken(mut io: BoxIo) -> (BoxIo, BytesMut) {
    let (head, early) = head(&mut io).await;
    let accepted = accept(&head, &ServerRules { subprotocols: &[SUBPROTOCOL], origins: Origins::Any }).unwrap();
    assert_eq!(head.headers.text("x-api-key"), Some("k"), "the lane's key opens the socket");
    let mut out = BytesMut::new();
    answer(&mut out, &accepted).end();
    io.write_all(&out).await.unwrap();
    (io, early)
}

/// Opens a socket on `io` as a server does.
pub(crate) async fn opened(io: BoxIo, clock: Clock) -> Socket {
    let (io, early) = shaken(io).await;
    let read = ReadRules { role: Role::Server, frame_bytes_max: 1 << 25, message_bytes_max: 1 << 25 };
    let rules = SocketRules { read, ping: Duration::from_secs(15), close: Duration::from_secs(5) };
    Socket::new(io, early, rules, clock, Prng::new(1))
}

/// A socket with messages that were heard and not looked at.
pub(crate) struct Peer {
    pub(crate) socket: Socket,
    pub(crate) number: usize,
    pub(crate) heard: Heard,
}

impl Peer {
    /// The next message, or how the socket ended.
    pub(crate) async fn next(&mut self) -> Result<String, Over> {
        let mut come = None;
        let socket = &mut self.socket;
        let mut later = Vec::new();
        let over = poll_fn(|cx| {
            let polled = socket.poll(cx, true, Moment::NEVER, &mut |message| {
                let Message::Text(text) = message else { panic!("no text") };
                later.push(text.to_owned());
            });
            match polled {
                std::task::Poll::Ready(over) => std::task::Poll::Ready(Some(over)),
                std::task::Poll::Pending if !later.is_empty() => std::task::Poll::Ready(None),
                std::task::Poll::Pending => std::task::Poll::Pending,
            }
        })
        .await;
        for text in later {
            self.heard.lock().unwrap().push((self.number, text.clone()));
            come = Some(come.map_or(text.clone(), |all: String| format!("{all}\n{text}")));
        }
        match (come, over) {
            (Some(text), _) => Ok(text),
            (None, Some(over)) => Err(over),
            (None, None) => unreachable!("one of the two ended the wait"),
        }
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.socket.send(text.as_bytes());
    }
}

/// An event of `bytes` bytes.
pub(crate) fn event(bytes: usize) -> String {
    let empty = r#"{"type":"x","text":""}"#.len();
    format!(r#"{{"type":"x","text":"{}"}}"#, "a".repeat(bytes.saturating_sub(empty)))
}

/// Speaks `tidegate.v1` until the socket is over.
pub(crate) async fn many(mut peer: Peer) -> Option<Over> {
    let mut floods: BTreeMap<String, (Credit, u64)> = BTreeMap::new();
    loop {
        let texts = match peer.next().await {
            Ok(texts) => texts,
            Err(over) => return Some(over),
        };
        for text in texts.lines() {
            match ClientFrame::read(text).unwrap() {
                ClientFrame::Create(create) => {
                    // {"do":"..."}
                    let word = create.request.split('"').nth(3).unwrap();
                    let id = create.id.to_string();
                    match word {
                        "cut" => return None,
                        "freeze" => std::future::pending::<()>().await,
                        "close" => peer.socket.close(CloseCode::GOING_AWAY, ""),
                        "nonsense" => peer.say("[]"),
                        "flood" => {
                            peer.say(&format!(r#"{{"type":"stream.open","id":"{id}","headers":{{}}}}"#));
                            floods.insert(id, (Credit::new(create.credit), 0));
                        }
                        word => told(&mut peer, word, &id),
                    }
                }
                ClientFrame::Credit { id, bytes } => {
                    if let Some((credit, _)) = floods.get_mut(&*id) {
                        credit.grant(bytes).unwrap();
                    }
                }
                ClientFrame::Cancel { id } => drop(floods.remove(&*id)),
                ClientFrame::Resume { .. } => panic!("nobody asked for that"),
            }
        }
        for (id, (credit, seq)) in &mut floods {
            while credit.may_send() {
                *seq += 1;
                let event = event(1000);
                credit.spend(event.len());
                peer.socket.send(
                    format!(r#"{{"type":"stream.event","id":"{id}","first_seq":{seq},"seq":{seq},"event":{event}}}"#)
                        .as_bytes(),
                );
            }
        }
    }
}

/// What is said at once.
fn told(peer: &mut Peer, word: &str, id: &str) {
    let open = format!(r#"{{"type":"stream.open","id":"{id}","headers":{{"request-id":"req_9","x-a":"b"}}}}"#);
    let event = |first: u64, last: u64| {
        format!(
            r#"{{"type":"stream.event","id":"{id}","first_seq":{first},"seq":{last},"event":{{"type":"e{last}"}}}}"#
        )
    };
    let end = format!(r#"{{"type":"stream.end","id":"{id}","seq":3,"reason":"stop"}}"#);
    let error = |more: &str, code: &str| {
        format!(
            r#"{{"type":"stream.error","id":"{id}","status":529,"error":{{"type":"overloaded_error","message":"m","details":{{"error_code":"{code}"}}}}{more}}}"#
        )
    };
    let frames = match word {
        "answer" => vec![open, event(1, 1), event(2, 3), end],
        "hang" => vec![open, event(1, 1)],
        "silent" => vec![],
        "gap" => vec![open, event(1, 1), event(3, 3)],
        // 200 KiB, whatever the credit.
        "overrun" => {
            let events = (1..=200).map(|n| {
                let event = crate::peer::event(1024);
                format!(r#"{{"type":"stream.event","id":"{id}","first_seq":{n},"seq":{n},"event":{event}}}"#)
            });
            std::iter::once(open).chain(events).collect()
        }
        "early" => vec![event(1, 1)],
        "mended" => {
            vec![open, format!(r#"{{"type":"stream.recovered","id":"{id}","seq":0,"how":"restart","segment":2}}"#)]
        }
        "wait" => vec![format!(r#"{{"type":"stream.wait","id":"{id}","position":3,"expected_ms":40000}}"#)],
        "refuse" => {
            vec![error(r#","request_id":"req_7","retry_after_s":7,"should_retry":false"#, "queue_full")]
        }
        "fail" => vec![open, event(1, 1), error(r#","request_id":"req_7""#, "upstream_broken")],
        "drain" => vec![error("", "draining")],
        "full" => vec![error("", "too_many_streams")],
        // What an old Tidegate says, what a new one may say, and what is about nobody.
        "strange" => vec![
            r#"{"type":"stream.new"}"#.to_owned(),
            r#"{"type":"stream.end","id":"77","seq":0,"reason":"stop"}"#.to_owned(),
            error("", "invalid_credit").replace(&format!("\"{id}\""), "null"),
            open,
            event(1, 1),
            event(2, 3),
            end,
        ],
        other => panic!("{other}"),
    };
    frames.iter().for_each(|frame| peer.say(frame));
}
