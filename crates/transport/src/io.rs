//! What a connection is to everyone above: bytes both ways, and a way to break it off.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connection's bytes, both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {
    /// Makes the following drop a reset instead of an orderly close, where the transport can.
    fn reset_on_drop(&mut self);
}

/// A connection whose transport does not matter any more.
pub type BoxIo = Box<dyn Io>;

impl Io for TcpStream {
    fn reset_on_drop(&mut self) {
        // A close with zero linger sends RST (tcp(7), SO_LINGER). If it cannot be set the close is
        // an orderly one, which the peer notices as well.
        let _ = socket2::SockRef::from(&*self).set_linger(Some(std::time::Duration::ZERO));
    }
}

impl Io for tokio_rustls::client::TlsStream<BoxIo> {
    fn reset_on_drop(&mut self) {
        self.get_mut().0.reset_on_drop();
    }
}

impl Io for BoxIo {
    fn reset_on_drop(&mut self) {
        (**self).reset_on_drop();
    }
}

/// Reads once into `buf`; the number of bytes, 0 at the end.
pub(crate) fn poll_read_once(io: &mut BoxIo, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut read = ReadBuf::new(buf);
    match Pin::new(io).poll_read(cx, &mut read) {
        Poll::Ready(Ok(())) => Poll::Ready(Ok(read.filled().len())),
        Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
        Poll::Pending => Poll::Pending,
    }
}

/// Writes as much of `bytes` as the transport takes, advancing `at`; ready when all is written and
/// flushed.
pub(crate) fn poll_write_all(
    io: &mut BoxIo,
    cx: &mut Context<'_>,
    bytes: &[u8],
    at: &mut usize,
) -> Poll<io::Result<()>> {
    while *at < bytes.len() {
        match Pin::new(&mut *io).poll_write(cx, &bytes[*at..]) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(n)) => *at += n,
            Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
            Poll::Pending => return Poll::Pending,
        }
    }
    Pin::new(io).poll_flush(cx)
}

/// A boxed future of a seam's method.
pub(crate) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
