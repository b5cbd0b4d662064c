//! `tidegate key new`: a client key, shown once.

use super::{Failed, say};
use std::io::Read;
use tidegate_gateway::KeyHash;

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
