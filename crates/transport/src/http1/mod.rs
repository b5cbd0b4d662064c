//! HTTP/1.1 connections: the codec of the wire room on a real or imagined socket.
//!
//! One task owns a connection, so reading, writing and noticing that the other side left are polls
//! of one object, not three tasks with channels between them. Every method that waits is
//! cancel-safe: what was read or is still to be written lives in the connection, never in the
//! future.

use bytes::{Buf, BytesMut};

/// Keeps what was read. What is kept is as large as it has to be: most of the time it is nothing,
/// and ten thousand silent streams hold no buffer.
fn keep(read: &mut BytesMut, piece: &[u8]) {
    if read.is_empty() {
        *read = BytesMut::from(piece);
    } else {
        read.extend_from_slice(piece);
    }
}

/// Forgets the first `used` bytes, and the buffer with the last of them.
fn forget(read: &mut BytesMut, used: usize) {
    if used == read.len() {
        *read = BytesMut::new();
    } else {
        read.advance(used);
    }
}

mod client;
mod server;

pub use crate::client_error::{ClientError, SendEnd};
pub use client::ClientConn;
pub use server::{HeadEnd, ServerConn};
