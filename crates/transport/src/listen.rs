//! The accepting side: where new connections come from.
//!
//! An accepted connection is not bound to a runtime yet: the acceptor may live on another thread
//! than the one that will own the connection, so [`Accepted::open`] is called by the owner. So is
//! [`Accepted::secure`]: a TLS handshake is work, and the acceptor has none to spare.

use crate::dial::keep_alive;
use crate::io::{BoxIo, Boxed};
use crate::tls::{Alpn, ServerTls};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::{TcpListener, TcpStream};

/// The answer of [`Listen::accept`].
pub type Accepting<'a> = Boxed<'a, io::Result<Accepted>>;

/// Where connections are accepted.
pub trait Listen: Send {
    /// The next connection. Cancel-safe: dropping the future loses no connection.
    fn accept(&mut self) -> Accepting<'_>;
    /// The address as clients dial it.
    fn address(&self) -> String;
}

/// A connection on its way to the thread that will own it.
pub struct Accepted {
    /// Who connected, as far as the transport knows.
    pub peer: String,
    /// Whether the peer is on this machine.
    pub from_loopback: bool,
    kind: Kind,
    tls: Option<ServerTls>,
}

enum Kind {
    Tcp(StdStream),
    Open(BoxIo),
}

impl Accepted {
    /// A connection that is bound to the current runtime already (in-memory networks).
    pub fn opened(peer: String, io: BoxIo) -> Self {
        Accepted { peer, from_loopback: true, kind: Kind::Open(io), tls: None }
    }

    /// Whether TLS is spoken on it.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Binds a connection in cleartext to the current runtime. One on which TLS is spoken is
    /// refused: [`Accepted::secure`] opens either.
    pub fn open(self) -> io::Result<BoxIo> {
        if self.tls.is_some() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "TLS is spoken on this connection"));
        }
        self.bind()
    }

    /// Binds the connection to the current runtime and shakes hands, if TLS is spoken on it. Give
    /// it a clock: a client may say nothing.
    pub async fn secure(mut self) -> io::Result<(BoxIo, Alpn)> {
        let tls = self.tls.take();
        let io = self.bind()?;
        match tls {
            Some(tls) => tls.handshake(io).await,
            None => Ok((io, Alpn::Unsaid)),
        }
    }

    fn bind(self) -> io::Result<BoxIo> {
        match self.kind {
            Kind::Open(io) => Ok(io),
            Kind::Tcp(stream) => Ok(Box::new(TcpStream::from_std(stream)?)),
        }
    }
}

/// A listener on whose connections TLS is spoken.
pub struct TlsListen {
    inner: Box<dyn Listen>,
    tls: Arc<Mutex<ServerTls>>,
}

impl TlsListen {
    /// TLS on every connection that `inner` accepts.
    pub fn new(inner: Box<dyn Listen>, tls: ServerTls) -> Self {
        TlsListen { inner, tls: Arc::new(Mutex::new(tls)) }
    }

    /// Puts another certificate in place: connections that are accepted from then on are shown it.
    pub fn renewer(&self) -> impl Fn(ServerTls) + Send + 'static {
        let tls = Arc::clone(&self.tls);
        move |renewed| *tls.lock().unwrap_or_else(PoisonError::into_inner) = renewed
    }
}

impl Listen for TlsListen {
    fn accept(&mut self) -> Accepting<'_> {
        Box::pin(async {
            let accepted = self.inner.accept().await?;
            let tls = self.tls.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Ok(Accepted { tls: Some(tls), ..accepted })
        })
    }

    fn address(&self) -> String {
        self.inner.address()
    }
}

/// A TCP listener.
#[derive(Debug)]
pub struct TcpListen {
    listener: TcpListener,
    address: SocketAddr,
}

/// Connections the kernel may hold before we accept them; a burst of clients must not be refused
/// while a thread is busy. The kernel caps it at net.core.somaxconn (4096 on Linux).
const ACCEPT_BACKLOG: i32 = 4096;

impl TcpListen {
    /// Listens on `address`; port 0 takes a free one.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let domain = if address.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(ACCEPT_BACKLOG)?;
        TcpListen::on(socket.into())
    }

    /// Accepts from a socket that listens already: somebody else opened it.
    pub fn on(listener: StdListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(TcpListen { listener: TcpListener::from_std(listener)?, address })
    }

    /// The same socket, for another process.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    /// The address it listens on, with the port it got.
    pub fn local(&self) -> SocketAddr {
        self.address
    }
}

impl Listen for TcpListen {
    fn accept(&mut self) -> Accepting<'_> {
        Box::pin(async {
            let (stream, peer) = self.listener.accept().await?;
            stream.set_nodelay(true)?;
            keep_alive(&stream)?;
            let from_loopback = peer.ip().to_canonical().is_loopback();
            Ok(Accepted { peer: peer.to_string(), from_loopback, kind: Kind::Tcp(stream.into_std()?), tls: None })
        })
    }

    fn address(&self) -> String {
        self.address.to_string()
    }
}
