//! TLS towards upstreams: whose certificates are believed, which HTTP is offered.
//!
//! Roots: the machine's own store; if it is empty (slim images have none) Mozilla's list that is
//! compiled in; or a file of the operator's, which then stands alone.

use crate::dial::HttpOffer;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// Whose signatures are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TlsRoots {
    /// The machine's store, or Mozilla's list if that is empty.
    #[default]
    Machine,
    /// Only the certificates in this PEM file.
    File(PathBuf),
}

/// TLS could not be set up.
#[derive(Debug)]
pub struct TlsError(pub(super) String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// One connector for each offer. They share the store of sessions, so that a connection of any of
/// them is resumed by any other: 256 server names, eight tickets each (rustls' own numbers).
pub(crate) struct Connectors {
    auto: TlsConnector,
    http1: TlsConnector,
    http2: TlsConnector,
    /// Whom they believe.
    pub(crate) roots: TlsRoots,
}

impl Connectors {
    /// Connectors that believe `roots`.
    pub(crate) fn new(roots: &TlsRoots) -> Result<Self, TlsError> {
        let config = config(roots)?;
        let offering = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
            TlsConnector::from(Arc::new(config))
        };
        let (auto, http1, http2) = (offering(&[b"h2", b"http/1.1"]), offering(&[b"http/1.1"]), offering(&[b"h2"]));
        Ok(Connectors { auto, http1, http2, roots: roots.clone() })
    }

    /// The connector for this offer.
    pub(crate) fn offering(&self, offer: HttpOffer) -> &TlsConnector {
        match offer {
            HttpOffer::Auto => &self.auto,
            HttpOffer::Http1 => &self.http1,
            HttpOffer::Http2 => &self.http2,
        }
    }
}

fn config(roots: &TlsRoots) -> Result<rustls::ClientConfig, TlsError> {
    let mut store = RootCertStore::empty();
    match roots {
        TlsRoots::Machine => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            }
        }
        TlsRoots::File(path) => {
            let wrong = |why: String| TlsError(format!("CA file {}: {why}", path.display()));
            let certs = CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))?;
            for cert in certs {
                let cert = cert.map_err(|e| wrong(e.to_string()))?;
                store.add(cert).map_err(|e| wrong(e.to_string()))?;
            }
            if store.is_empty() {
                return Err(wrong("holds no certificate".to_owned()));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| TlsError(e.to_string()))?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(config)
}
