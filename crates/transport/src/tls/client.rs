//! TLS towards upstreams: whose certificates are believed.
//!
//! Roots: the machine's own store; if it is empty (slim images have none) Mozilla's list that is
//! compiled in; or a file of the operator's, which then stands alone.

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

/// A connector that believes `roots`.
pub(crate) fn connector(roots: &TlsRoots) -> Result<TlsConnector, TlsError> {
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
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| TlsError(e.to_string()))?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
