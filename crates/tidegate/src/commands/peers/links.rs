//! How the hops of a comparison speak, and the certificate for those that are encrypted.

use super::install;
use crate::commands::Failed;
use crate::commands::stage::Folder;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Client to gateway, gateway to upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Links {
    /// Cleartext HTTP/1.1, both.
    Plain,
    /// Cleartext HTTP/1.1; cleartext HTTP/2, by who speaks it upstream.
    Http2,
    /// TLS and HTTP/1.1; TLS and HTTP/2, by who speaks it upstream.
    Tls,
}

/// A certificate for this machine that vouches for itself.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    /// The PEM file of the certificate; whoever believes only it believes us.
    pub(super) chain: PathBuf,
    /// Its key, under the name at which HAProxy looks for it too.
    pub(super) key: PathBuf,
}

impl Certificate {
    /// Makes one that lasts as long as a comparison can.
    pub(super) fn make(folder: &Folder) -> Result<Self, Failed> {
        let openssl = install::find_or_install("openssl", "leave the row `tls` out with --only")?;
        let made = Certificate { chain: folder.path().join("cert.pem"), key: folder.path().join("cert.pem.key") };
        let mut command = Command::new(openssl);
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        command.args(["-days", "7", "-subj", "/CN=localhost"]);
        // A server's certificate: openssl 1.1 would put an added basicConstraints beside its own.
        command.args(["-extensions", "v3_req", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
        command.arg("-out").arg(&made.chain).arg("-keyout").arg(&made.key).stdin(Stdio::null());
        let output = command.output().map_err(|e| Failed(format!("openssl: {e}")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Failed(format!("openssl makes no certificate: {}", said.lines().last().unwrap_or_default())));
        }
        Ok(made)
    }
}
