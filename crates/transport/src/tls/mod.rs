//! TLS: rustls with aws-lc, the provider named explicitly.

mod client;

pub(crate) use client::connector;
pub use client::{TlsError, TlsRoots};
