//! TLS: rustls with aws-lc, the provider named explicitly.

mod client;
mod server;
mod words;

pub(crate) use client::Connectors;
pub use client::{TlsError, TlsRoots};
pub use server::{Alpn, ServerTls, TlsFiles};
pub(crate) use words::of_server;
