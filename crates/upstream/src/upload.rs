//! A body that goes out while it still comes in.
//!
//! ```text
//!   client ─▶ sink ─▶ at most 4 pieces ─▶ upload ─▶ exchange ─▶ upstream
//! ```
//! Whoever reads the client puts pieces in, the exchange takes them out; where the upstream is slow,
//! the client is not read. A body that was begun cannot go out again: what was taken is gone. Until
//! then everything is still here, and another exchange may take it.
//!
//! Room is asked for before a piece is read, so that giving up at any point loses nothing.

use bytes::Bytes;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Mutex, mpsc};

/// Pieces on their way: one being sent, one being read, and something between them. A piece is at
/// most what one read of a socket brings.
const PIECES_MAX: usize = 4;

/// A piece of a body.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    End,
}

/// Where pieces of a body are put.
#[derive(Debug)]
pub struct UploadSink(mpsc::Sender<Piece>);

/// Room for one piece.
#[derive(Debug)]
pub struct Room<'a>(mpsc::Permit<'a, Piece>);

/// A body that comes piece by piece.
#[derive(Debug)]
pub struct Upload {
    length: Option<u64>,
    pieces: Mutex<mpsc::Receiver<Piece>>,
    begun: AtomicBool,
}

/// A body of `length` bytes, or of unknown length, and where its pieces are put.
pub fn upload(length: Option<u64>) -> (UploadSink, Upload) {
    let (sink, pieces) = mpsc::channel(PIECES_MAX);
    (UploadSink(sink), Upload { length, pieces: Mutex::new(pieces), begun: AtomicBool::new(false) })
}

impl UploadSink {
    /// Waits for room; `None` if nobody takes pieces any more.
    pub async fn room(&self) -> Option<Room<'_>> {
        self.0.reserve().await.ok().map(Room)
    }
}

impl Room<'_> {
    /// Puts a piece in; an empty one ends the body.
    pub fn put(self, piece: Bytes) {
        self.0.send(if piece.is_empty() { Piece::End } else { Piece::Data(piece) });
    }
}

impl Upload {
    /// Its length, if that was told.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Whether some of it was taken, so that it cannot be sent again.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// The next piece; `None` if it broke off. Cancel-safe.
    pub(crate) async fn next(&self) -> Option<Piece> {
        let piece = self.pieces.lock().await.recv().await;
        self.begun.store(true, Ordering::Relaxed);
        piece
    }
}
