//! Requests over a WebSocket in the dialect `tidegate.v1`, one after another on one socket.
//!
//! The events in the frames are looked at as those of Server-Sent Events are, by the same
//! [`StreamWatch`]; bytes are counted as they would have been over HTTP, so that the frames around
//! them do not look like more answer.

use crate::failure::Failure;
use crate::request::Request;
use crate::watch::{Brought, StreamWatch};
use bytes::BytesMut;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;
use tidegate_base::{Moment, Prng};
use tidegate_transport::websocket::{Message, OpenError, Opening, Over, Socket, SocketRules, open};
use tidegate_transport::{BoxIo, Clock};
use tidegate_wire::dialect::tidegate_v1::{ClientFrame, EndReason, SUBPROTOCOL, ServerFrame, write_sse};
use tidegate_wire::websocket::handshake::BadAnswer;
use tidegate_wire::websocket::{ReadRules, Role};

/// An event of the largest size, and the frame around it.
const MESSAGE_BYTES_MAX: usize = (16 << 20) + (64 << 10);
const RULES: SocketRules = SocketRules {
    read: ReadRules { role: Role::Client, frame_bytes_max: MESSAGE_BYTES_MAX, message_bytes_max: MESSAGE_BYTES_MAX },
    ping: Duration::from_secs(15),
    close: Duration::from_secs(5),
};

/// One socket; one request at a time.
pub(crate) struct SocketConn {
    socket: Socket,
    clock: Clock,
    asked: u64,
    /// When the endpoint's last ping came.
    pinged: Option<Moment>,
    /// An event as Server-Sent Events would have it; its room is kept.
    event: BytesMut,
}

/// What one look at a socket brought.
pub(crate) struct Look {
    /// When it was read.
    pub(crate) at: Moment,
    /// The events among it.
    pub(crate) brought: Brought,
    /// Whether the answer's head came.
    pub(crate) opened: bool,
    /// How the answer ended, if it did.
    pub(crate) ended: Option<Result<(), Failure>>,
    /// Whether it ended because it was cancelled.
    pub(crate) cancelled: bool,
    /// From one ping of the endpoint's to the next, if one came and was not the first.
    pub(crate) ping_gap: Option<Duration>,
}

impl SocketConn {
    /// Opens one on `io` for requests like this.
    pub(crate) async fn open(io: BoxIo, request: &Request, clock: Clock, prng: Prng) -> Result<Self, Failure> {
        let (host, target, lines) = request.opening();
        let asked = Opening { host: &host, target: &target, subprotocols: &[SUBPROTOCOL], lines: &lines };
        let socket = open(io, &asked, RULES, clock, prng).await.map_err(|error| match error {
            OpenError::Answer(BadAnswer::Status(status)) => Failure::Http { status, kind: "no WebSocket".to_owned() },
            OpenError::Answer(_) => Failure::Malformed,
            OpenError::Broken(error) => Failure::of(&error),
        })?;
        Ok(SocketConn { socket, clock, asked: 0, pinged: None, event: BytesMut::new() })
    }

    /// Whether it can be used again: it is open, and nothing that came meanwhile ended it.
    pub(crate) async fn is_good(&mut self) -> bool {
        poll_fn(|cx| Poll::Ready(self.socket.poll(cx, true, Moment::NEVER, &mut |_| {}).is_pending())).await
            && self.socket.is_open()
    }

    /// Asks; what comes is looked at by [`SocketConn::look`].
    pub(crate) fn ask(&mut self, request: &Request) -> Result<(), Failure> {
        self.asked += 1;
        let frame = request.frame(&self.asked.to_string()).ok_or(Failure::Malformed)?;
        self.socket.send(&frame);
        Ok(())
    }

    /// Gives up what was asked last; the socket goes on, and the answer's end says so.
    pub(crate) fn cancel(&mut self) {
        let mut frame = Vec::new();
        ClientFrame::Cancel { id: self.asked.to_string().into() }.write(&mut frame);
        self.socket.send(&frame);
    }

    /// Waits until something of the answer has come.
    pub(crate) async fn look(&mut self, watch: &mut StreamWatch) -> Look {
        let SocketConn { socket, clock, pinged, event: room, .. } = self;
        let (mut at, mut brought, mut opened, mut ended) = (None, Brought::default(), false, None);
        let (mut cancelled, mut ping_gap) = (false, None);
        poll_fn(|cx| {
            let over = socket.poll(cx, true, Moment::NEVER, &mut |message| {
                let now = *at.get_or_insert_with(|| clock.now());
                let frame = match message {
                    Message::Text(text) => ServerFrame::read(text).ok(),
                    Message::Binary(_) => None,
                };
                match frame {
                    // Of a type that is newer than this code.
                    Some(None) => {}
                    Some(Some(ServerFrame::Event { event, .. })) => {
                        room.clear();
                        if write_sse(room, event).is_ok() {
                            watch.see(room, now, None, &mut brought);
                        }
                    }
                    Some(Some(ServerFrame::Open { .. })) => opened = true,
                    Some(Some(ServerFrame::Wait { .. } | ServerFrame::Recovered { .. })) => {}
                    Some(Some(ServerFrame::End { reason, .. })) => {
                        cancelled = reason == EndReason::Cancelled;
                        let whole = reason == EndReason::Stop && watch.tap().stopped;
                        ended = Some(if whole { Ok(()) } else { Err(Failure::Truncated) });
                    }
                    Some(Some(ServerFrame::Error(failed))) => {
                        let kind = failed.error.kind.to_string();
                        let begun = opened || watch.tap().usage.input > 0;
                        ended = Some(Err(match begun {
                            true => Failure::Stream { kind },
                            false => Failure::Http { status: failed.status, kind },
                        }));
                    }
                    None => ended = Some(Err(Failure::Malformed)),
                }
            });
            if socket.pinged() > *pinged {
                ping_gap = pinged.and_then(|before| Some(socket.pinged()?.since(before)));
                *pinged = socket.pinged();
            }
            match over {
                Poll::Ready(Over::Violation(_)) => ended = Some(Err(Failure::Malformed)),
                Poll::Ready(_) if ended.is_none() => ended = Some(Err(Failure::Reset)),
                _ => {}
            }
            if at.is_some() || ended.is_some() || ping_gap.is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        Look { at: at.unwrap_or_else(|| clock.now()), brought, opened, ended, cancelled, ping_gap }
    }
}
