//! TLS: rustls with aws-lc, the provider named explicitly.

mod client;
mod server;

pub(crate) use client::Connectors;
pub use client::{TlsError, TlsRoots};
pub use server::{Alpn, ServerTls, TlsFiles};
