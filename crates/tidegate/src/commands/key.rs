//! `tidegate key`: client keys, each shown once, made, revoked and listed; a key of the vault, never shown.

use super::{Failed, say};
use crate::cli::{KeysPlace, NewKey, RevokeKey};
use crate::config::{Config, KEY_BYTES as VAULT_KEY_BYTES};
use crate::keys_file::{KEYS_MAX, KeysFile, KnownKey, PREFIX_CHARS, is_name};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{Read, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use tidegate_base::{Secret, rfc3339};
use tidegate_gateway::KeyHash;
use tidegate_transport::Clock;
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

/// The file of client keys that the flags lead to; `None` if they name neither it nor a configuration.
fn place(flags: &KeysPlace) -> Result<Option<PathBuf>, Failed> {
    let Some(config) = &flags.config else { return Ok(flags.file.clone()) };
    let file = Config::keys_in(config).map_err(Failed::because)?;
    file.map(Some).ok_or_else(|| {
        Failed(format!(
            "{}: names no file of client keys; write `file = \"keys.toml\"` under [keys], which is then beside it",
            config.display()
        ))
    })
}

/// The same where there has to be one.
fn some_place(flags: &KeysPlace) -> Result<PathBuf, Failed> {
    place(flags)?
        .ok_or_else(|| Failed("say which file of keys: --config FILE of the gateway, or --file KEYS".to_owned()))
}

fn now_s() -> u64 {
    Clock::real().wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

pub(super) fn new(flags: &NewKey) -> Result<(), Failed> {
    let NewKey { tenant, label, .. } = flags;
    if tenant.is_empty() || !is_name(tenant) || !is_name(label) {
        return Err(Failed("a tenant's name has 1 to 64 characters, a label at most 64, without quotes".to_owned()));
    }
    let place = place(&flags.place)?;
    let key = Secret::new(text(&random()?));
    let hash = KeyHash::of(key.expose().as_bytes());
    if let Some(path) = &place {
        let created_s = now_s();
        let known = KnownKey {
            prefix: key.expose()[..PREFIX_CHARS].to_owned(),
            tenant: tenant.clone(),
            label: label.clone(),
            hash,
            created_s,
            expires_s: flags.expires.map(|span| created_s + span.0.as_secs()),
        };
        let add = |file: &mut KeysFile| {
            if !label.is_empty() && file.keys.iter().any(|key| key.label == *label) {
                return Err(format!("{}: has a key labelled `{label}`; each label stands for one", path.display()));
            }
            if file.keys.len() >= KEYS_MAX {
                return Err(format!("{}: has {KEYS_MAX} keys, the most there may be; revoke some", path.display()));
            }
            file.keys.push(known);
            Ok(())
        };
        KeysFile::change(path, add).map_err(Failed)?;
    }
    say("The key, for the client. It is shown this once; Tidegate keeps only its hash:");
    say(format_args!("\n  {}\n", key.expose()));
    match place {
        Some(path) => say(format_args!("It is in {}; a running gateway takes it within two seconds.", path.display())),
        None => {
            say("The lines for the configuration (with --config it is added to the file of keys that names):");
            say(format_args!("\n[[client_key]]\ntenant = \"{tenant}\"\nhash = \"{hash}\""));
        }
    }
    Ok(())
}

pub(super) fn revoke(flags: &RevokeKey) -> Result<(), Failed> {
    let path = some_place(&flags.place)?;
    let is_it = |key: &KnownKey| key.prefix == flags.which || !key.label.is_empty() && key.label == flags.which;
    let gone = KeysFile::change(&path, |file| {
        let found: Vec<usize> = (0..file.keys.len()).filter(|n| is_it(&file.keys[*n])).collect();
        match found[..] {
            [at] => Ok(file.keys.remove(at)),
            [] => Err(format!(
                "{}: has no key that begins with or is labelled `{}`; see `tidegate key list`",
                path.display(),
                flags.which
            )),
            _ => Err(format!("{}: more than one key is meant by `{}`; say how it begins", path.display(), flags.which)),
        }
    });
    let gone = gone.map_err(Failed)?;
    let label = if gone.label.is_empty() { String::new() } else { format!(" ({})", gone.label) };
    say(format_args!("Revoked: {}...{label} of {}.", gone.prefix, gone.tenant));
    say("A running gateway refuses it within two seconds; its streams that are under way end as they began.");
    Ok(())
}

pub(super) fn list(flags: &KeysPlace) -> Result<(), Failed> {
    let path = some_place(flags)?;
    let file = KeysFile::read(&path).map_err(Failed)?;
    let file = file.ok_or_else(|| Failed(format!("{}: is not there; `tidegate key new` makes it", path.display())))?;
    let now = now_s();
    let row = |key: &KnownKey| {
        let ends = match key.expires_s {
            None => "never".to_owned(),
            Some(at) if at <= now => format!("{} (over)", rfc3339(at)),
            Some(at) => rfc3339(at),
        };
        [format!("{}...", key.prefix), key.tenant.clone(), key.label.clone(), rfc3339(key.created_s), ends]
    };
    let head = ["KEY", "TENANT", "LABEL", "CREATED", "ENDS"].map(str::to_owned);
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(file.keys.iter().map(row)).collect();
    let widths: [usize; 5] = std::array::from_fn(|n| rows.iter().map(|row| row[n].chars().count()).max().unwrap_or(0));
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        say(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
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
