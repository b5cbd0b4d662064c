//! From nothing to an open WebSocket: a connection, the handshake, each under its clock.

use super::Sockets;
use super::driver::{DRIVER, Dialect, Driver};
use super::link::{Link, Shared};
use super::many::Many;
use super::single::Single;
use crate::lane::Transport;
use crate::shelf::failed;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use tidegate_base::Prng;
use tidegate_transport::http1::{ClientConn, ClientError, SendEnd};
use tidegate_transport::websocket::{Socket, SocketRules};
use tidegate_transport::{DialError, DialStage};
use tidegate_wire::http::ResponseHead;
use tidegate_wire::websocket::{ReadRules, Role};

/// The largest message that is taken: an event of the largest size, and the frame around it.
const MESSAGE_BYTES_MAX: usize = (16 << 20) + (64 << 10);
/// What is read of an answer that opens nothing.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// An answer that opens no socket but says what is the matter: a key that is not taken, an upstream
/// that is overloaded.
pub(crate) struct Refusal {
    pub(super) head: ResponseHead,
    pub(super) body: Bytes,
}

/// Why there is no socket.
pub(super) enum NotOpened {
    Refused(Refusal),
    Failed(DialError),
}

impl Sockets {
    /// Dials, and opens a WebSocket there.
    pub(super) async fn open(self: &Arc<Self>) -> Result<(u64, Link), NotOpened> {
        let dialled = self.dial.dial(&self.target).await.map_err(NotOpened::Failed)?;
        let (id, mut dice) = {
            let mut shelf = self.shelf.lock();
            (shelf.id(), shelf.dice())
        };
        let span = self.rules.socket_start;
        let shaking = self.shake(ClientConn::new(dialled.io), &mut dice);
        let Some(shaken) = self.clock.within(span, shaking).await else {
            let message = format!("no answer to the handshake within {} s", span.as_secs_f64());
            return Err(NotOpened::Failed(DialError { timed_out: true, ..failed(DialStage::Socket, message) }));
        };
        let (io, early) = shaken?.into_parts();
        let read =
            ReadRules { role: Role::Client, frame_bytes_max: MESSAGE_BYTES_MAX, message_bytes_max: MESSAGE_BYTES_MAX };
        let rules = SocketRules { read, ping: self.rules.socket_ping, close: self.rules.socket_close };
        let name = dice.next_u64();
        let socket = Socket::new(io, early, rules, self.clock, dice);
        let many = self.lane.transport() == Transport::Tidegate;
        let shared = Arc::new(Shared::new(self.streams_max, many));
        let dialect = if many { Dialect::Many(Many::default()) } else { Dialect::Single(Single::new(name)) };
        let driver = Driver::new(socket, Arc::clone(&shared), dialect, self.clock);
        let sockets = Arc::downgrade(self);
        let changed = move |gone| {
            if let Some(sockets) = sockets.upgrade() {
                sockets.changed(id, gone);
            }
        };
        self.tasks.spawn(&DRIVER, driver.run(changed));
        Ok((id, Link(shared)))
    }

    /// Asks for a WebSocket, and judges the answer.
    async fn shake(&self, mut conn: ClientConn, dice: &mut Prng) -> Result<ClientConn, NotOpened> {
        let broken = |e: ClientError| NotOpened::Failed(failed(DialStage::Socket, e.to_string()));
        let mut nonce = [0; 16];
        nonce.chunks_mut(8).for_each(|part| part.copy_from_slice(&dice.next_u64().to_ne_bytes()));
        let (head, opening) = self.lane.socket_head(nonce);
        let sent = conn.send(head, Bytes::new(), || {}).await.map_err(broken)?;
        let answer = conn.read_head(false, sent == SendEnd::Whole).await.map_err(broken)?;
        let Err(why) = opening.check(&answer) else { return Ok(conn) };
        // Whose turn it is to do something about it, a status says; about a page that is no
        // Tidegate, only our log does.
        if !matches!(answer.status, 401..=403 | 429 | 500..=599) {
            return Err(NotOpened::Failed(failed(DialStage::Socket, why)));
        }
        let mut body = BytesMut::new();
        // That its explanation breaks off does not matter.
        let _ = conn.read_body(&mut body, REFUSAL_BYTES_MAX).await;
        Err(NotOpened::Refused(Refusal { head: answer, body: body.freeze() }))
    }
}
