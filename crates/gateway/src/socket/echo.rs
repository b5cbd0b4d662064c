//! What comes goes back: behind the production door, for conformance tests, and only where it was
//! switched on. Nothing of it leads to the path.

use tidegate_base::Moment;
use tidegate_transport::websocket::{Message, Socket};

/// Echoes that have not been written yet.
#[derive(Default)]
pub(super) struct Echo {
    waiting: Vec<(bool, Vec<u8>)>,
}

impl Echo {
    pub(super) fn hear(&mut self, message: Message<'_>) {
        self.waiting.push(match message {
            Message::Text(text) => (true, text.as_bytes().to_vec()),
            Message::Binary(bytes) => (false, bytes.to_vec()),
        });
    }

    pub(super) fn speak(&mut self, socket: &mut Socket) -> (Moment, bool) {
        for (is_text, bytes) in self.waiting.drain(..) {
            if is_text { socket.send(&bytes) } else { socket.send_binary(&bytes) }
        }
        (Moment::NEVER, false)
    }
}
