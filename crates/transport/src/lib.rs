//! Sockets and time: the seams where production and simulation differ, and HTTP connections on
//! them.
//!
//! | seam | production | World (tests in virtual time) |
//! |---|---|---|
//! | [`Clock`] | the machine's monotonic and wall clocks | tokio's paused clock, a made-up date |
//! | [`Dial`] | DNS, TCP, TLS, each with its clock ([`TcpDial`]) | [`MemoryNetwork`] |
//! | [`Listen`] | a TCP listener ([`TcpListen`]), TLS on it ([`TlsListen`]) | [`MemoryNetwork`] |
//! | [`Tasks`] | named tasks on the current runtime, counted | the same |
//!
//! (Disk and PRNG, the other two seams, are arguments of the rooms that use them.) This room never
//! knows what a message, a tenant or a quota is; it moves bytes and says who failed.

mod client_error;
mod clock;
mod dial;
pub mod http1;
pub mod http2;
mod io;
mod listen;
pub mod local;
mod memory;
mod scratch;
mod stamp;
mod stream;
mod tasks;
mod tls;
pub mod websocket;

pub use client_error::{ClientError, SendEnd, SocketEnd};
pub use clock::Clock;
pub use dial::{
    Dial, DialClocks, DialError, DialStage, Dialing, Dialled, Done, HttpOffer, Proxy, ProxyKind, ProxyUrlError, Target,
    TcpDial,
};
pub use io::{BoxIo, Io};
pub use listen::{Accepted, Accepting, Listen, TcpListen, TlsListen};
pub use memory::{MemoryNetwork, pipe};
pub use scratch::with_scratch;
pub use stamp::{STAMP_BYTES, stamp, stamped_ago};
pub use stream::ServerStream;
pub use tasks::{TaskKind, Tasks};
pub use tls::{Alpn, ServerTls, TlsError, TlsFiles, TlsRoots};
