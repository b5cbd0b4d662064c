//! TLS: rustls with aws-lc, the provider named explicitly.

mod client;

pub(crate) use client::Connectors;
pub use client::{TlsError, TlsRoots};
