//! A network in memory: names instead of addresses, pipes instead of sockets.
//!
//! World tests put the gateway, the simulator and their clients on one; with tokio's paused clock
//! the whole runs in virtual time and repeats from its seed. An end dropped is a close; an end
//! dropped after `reset_on_drop` is a reset, which the other side reads as `ConnectionReset` once
//! it has read what was in the pipe.

use crate::dial::{Dial, DialError, DialStage, Dialing, Dialled, HttpOffer, NO_HTTP2, Target};
use crate::io::{BoxIo, Io};
use crate::listen::{Accepted, Accepting, Listen};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;

/// Bytes a pipe holds each way, about a socket's default buffer.
const PIPE_BYTES: usize = 64 * 1024;
/// Connections that may wait to be accepted at one name.
const ACCEPT_QUEUE: usize = 4096;

type Doors = BTreeMap<String, mpsc::Sender<BoxIo>>;

/// A set of names that can be listened on and dialled. Clones are the same network.
#[derive(Clone, Debug, Default)]
pub struct MemoryNetwork {
    doors: Arc<Mutex<Doors>>,
    /// Names that would choose HTTP/2 in a TLS handshake.
    choosing_http2: Arc<Mutex<BTreeSet<String>>>,
}

impl std::fmt::Debug for dyn Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Io")
    }
}

impl MemoryNetwork {
    /// An empty network.
    pub fn new() -> Self {
        MemoryNetwork::default()
    }

    /// Listens at `name` (`host:port`), replacing whoever did before.
    pub fn listen(&self, name: &str) -> MemoryListen {
        let (knock, waiting) = mpsc::channel(ACCEPT_QUEUE);
        self.doors.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), knock);
        MemoryListen { name: name.to_owned(), waiting }
    }

    /// Whether `name` chooses HTTP/2 where TLS would let it choose. Nothing is encrypted here; only
    /// the choice is imitated.
    pub fn choose_http2(&self, name: &str, yes: bool) {
        let mut choosing = self.choosing_http2.lock().unwrap_or_else(PoisonError::into_inner);
        if yes {
            choosing.insert(name.to_owned())
        } else {
            choosing.remove(name)
        };
    }

    /// Connects to `name`, at once.
    pub fn connect(&self, name: &str) -> io::Result<BoxIo> {
        let knock = self.doors.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let (near, far) = pipe();
        knock.ok_or_else(refused)?.try_send(far).map_err(|_| refused())?;
        Ok(near)
    }
}

impl Dial for MemoryNetwork {
    fn dial<'a>(&'a self, target: &'a Target) -> Dialing<'a> {
        Box::pin(async move {
            let name = format!("{}:{}", target.host, target.port);
            let failed = |stage, message| DialError { stage, timed_out: false, message, todo: None };
            let io = self.connect(&name).map_err(|cause| failed(DialStage::Connect, cause.to_string()))?;
            let chooses = self.choosing_http2.lock().unwrap_or_else(PoisonError::into_inner).contains(&name);
            let http2 = match (target.http, target.tls) {
                (HttpOffer::Http1, _) | (HttpOffer::Auto, false) => false,
                (HttpOffer::Auto, true) => chooses,
                (HttpOffer::Http2, true) if !chooses => return Err(failed(DialStage::Tls, NO_HTTP2.to_owned())),
                (HttpOffer::Http2, _) => true,
            };
            Ok(Dialled { io, http2 })
        })
    }
}

/// The listening end at one name of a [`MemoryNetwork`].
#[derive(Debug)]
pub struct MemoryListen {
    name: String,
    waiting: mpsc::Receiver<BoxIo>,
}

impl Listen for MemoryListen {
    fn accept(&mut self) -> Accepting<'_> {
        Box::pin(async {
            match self.waiting.recv().await {
                Some(io) => Ok(Accepted::opened("memory".to_owned(), io)),
                None => std::future::pending().await,
            }
        })
    }

    fn address(&self) -> String {
        self.name.clone()
    }
}

/// Two ends of one connection.
pub fn pipe() -> (BoxIo, BoxIo) {
    let (a, b) = tokio::io::duplex(PIPE_BYTES);
    let reset = Arc::new(AtomicBool::new(false));
    let end = |pipe, reset| Box::new(MemoryIo { pipe, reset, resets: false });
    (end(a, Arc::clone(&reset)), end(b, reset))
}

struct MemoryIo {
    pipe: DuplexStream,
    reset: Arc<AtomicBool>,
    resets: bool,
}

impl Io for MemoryIo {
    fn reset_on_drop(&mut self) {
        self.resets = true;
    }
}

impl Drop for MemoryIo {
    fn drop(&mut self) {
        if self.resets {
            self.reset.store(true, Ordering::Release);
        }
    }
}

impl AsyncRead for MemoryIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.pipe).poll_read(cx, buf);
        let at_end = matches!(polled, Poll::Ready(Ok(()))) && buf.filled().len() == before && buf.remaining() > 0;
        if at_end && self.reset.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        polled
    }
}

impl AsyncWrite for MemoryIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_close_reads_as_the_end_and_a_reset_as_an_error() {
        let network = MemoryNetwork::new();
        let mut door = network.listen("api:80");
        for resets in [false, true] {
            let mut near = network.connect("api:80").unwrap();
            let mut far = door.accept().await.unwrap().open().unwrap();
            far.write_all(b"hi").await.unwrap();
            if resets {
                far.reset_on_drop();
            }
            drop(far);
            let mut text = Vec::new();
            let read = near.read_to_end(&mut text).await;
            assert_eq!((text.as_slice(), read.is_err()), (&b"hi"[..], resets));
        }
        assert!(network.connect("nobody:80").is_err());
    }
}
