//! `tidegate.v1`: many streams over one socket.
//!
//! Both sides are here, since a Tidegate may stand before another one. Events are embedded as the
//! bytes they came as, and taken out again as such: nothing in between parses them.

mod client_frame;
mod server_frame;

pub use client_frame::{ClientFrame, Create};
pub use server_frame::{EndReason, NotAFrame, ServerFrame, write_event};

/// The name of the subprotocol in the opening handshake.
pub const SUBPROTOCOL: &str = "tidegate.v1";

/// Puts an object together, member by member.
struct Members<'o>(&'o mut Vec<u8>);

impl<'o> Members<'o> {
    /// Begins a frame of this type.
    fn of(out: &'o mut Vec<u8>, kind: &str) -> Self {
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.push(b'"');
        Members(out)
    }

    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(b"\":");
        self.0
    }

    /// JSON as it is.
    fn raw(&mut self, key: &str, json: &str) -> &mut Self {
        self.key(key).extend_from_slice(json.as_bytes());
        self
    }

    fn value<T: serde::Serialize + ?Sized>(&mut self, key: &str, value: &T) -> &mut Self {
        // Strings, numbers and lists of them can always be written, and memory takes all of it.
        let _ = serde_json::to_writer(self.key(key), value);
        self
    }

    fn some<T: serde::Serialize>(&mut self, key: &str, value: Option<T>) -> &mut Self {
        if let Some(value) = value {
            self.value(key, &value);
        }
        self
    }

    fn end(&mut self) {
        self.0.push(b'}');
    }
}
