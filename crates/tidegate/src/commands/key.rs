//! `tidegate key`: a client key, shown once; a key of the vault, never shown.

use super::{Failed, say};
use crate::config::KEY_BYTES as VAULT_KEY_BYTES;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{Read, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use tidegate_gateway::KeyHash;
use zeroize::Zeroizing;

/// Random bytes in a key: 200 bits.
const KEY_BYTES: usize = 25;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Bytes from the operating system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Failed> {
    let mut bytes = [0; N];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes));
    read.map_err(|e| Failed(format!("/dev/urandom cannot be read: {e}")))?;
    Ok(bytes)
}

/// A key's text: `tg_` and 40 characters of base32.
fn text(bytes: &[u8; KEY_BYTES]) -> String {
    let mut out = "tg_".to_owned();
    for group in bytes.chunks(5) {
        let bits = group.iter().fold(0u64, |bits, b| bits << 8 | u64::from(*b));
        out.extend((0..8).rev().map(|i| ALPHABET[(bits >> (5 * i) & 31) as usize] as char));
    }
    out
}

pub(super) fn new(tenant: &str) -> Result<(), Failed> {
    if tenant.is_empty() || tenant.len() > 64 || tenant.contains(['"', '\\', '\n']) {
        return Err(Failed("a tenant's name has 1 to 64 characters, without quotes".to_owned()));
    }
    let key = text(&random()?);
    say("The key, for the client. It is shown this once; Tidegate keeps only its hash:");
    say(format_args!("\n  {key}\n"));
    say("The lines for the configuration:");
    say(format_args!("\n[[client_key]]\ntenant = \"{tenant}\"\nhash = \"{}\"", KeyHash::of(key.as_bytes())));
    Ok(())
}

/// Writes a new key of redaction to `file`, for its owner's eyes only.
pub(super) fn vault(file: &Path) -> Result<(), Failed> {
    let key = Zeroizing::new(random::<VAULT_KEY_BYTES>()?);
    let mut text = Zeroizing::new(String::with_capacity(2 * VAULT_KEY_BYTES + 1));
    for byte in key.iter() {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\n');
    // Never over a key that is there: what it sealed could not be read again.
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let written = opened.and_then(|mut to| {
        to.write_all(text.as_bytes())?;
        to.sync_all()
    });
    written.map_err(|e| Failed(format!("{}: no key was written: {e}", file.display())))?;
    let shown = file.display().to_string().replace('\\', "\\\\").replace('"', "\\\"");
    say(format_args!("A new key is in {}. Keep a copy where the conversations' copies are not.", file.display()));
    say("It is one of these two, each of which needs a file of its own:");
    say("\n[redact]");
    say(format_args!("scope_key = {{ file = \"{shown}\" }}            # makes the tokens; never changed"));
    say(format_args!(
        "vault_keys = [{{ id = 1, file = \"{shown}\" }}]  # seal the values; a new one goes first, with a new id"
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_and_differ() {
        let (a, b) = (text(&random().unwrap()), text(&random().unwrap()));
        assert_ne!(a, b);
        assert_eq!(a.len(), 43);
        assert_eq!(text(&[0; KEY_BYTES]), format!("tg_{}", "a".repeat(40)));
    }
}
