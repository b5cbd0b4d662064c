//! `tidegate key`: client keys, each shown once, made, revoked and listed; a key of the vault, never shown.

use super::{Failed, say};
use crate::cli::{KeysPlace, NewKey, RevokeKey};
use crate::config::{Config, KEY_BYTES as VAULT_KEY_BYTES};
use crate::keys_file::{KEYS_MAX, KeysFile, KnownKey, PREFIX_CHARS, is_name};
use crate::withheld::looks_like_a_key;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use tidegate_base::{Secret, Span, rfc3339, rfc3339_seconds};
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
    let path = place(flags)?
        .ok_or_else(|| Failed("say which file of keys: --config FILE of the gateway, or --file KEYS".to_owned()))?;
    match path.try_exists() {
        Ok(false) => Err(Failed(format!("{}: is not there; `tidegate key new` makes it", path.display()))),
        _ => Ok(path),
    }
}

fn now_s() -> u64 {
    Clock::real().wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// When a key ends that is made at `now_s` and is good for `span`.
fn end_s(now_s: u64, span: Span) -> Result<u64, Failed> {
    let wrong = |why: &str| Failed(format!("--expires \"{span}\": {why}"));
    if span.0.as_secs() == 0 {
        return Err(wrong("is under a second: the key would be over before it is used"));
    }
    let end = now_s.checked_add(span.0.as_secs()).filter(|end| rfc3339_seconds(&rfc3339(*end)) == Some(*end));
    end.ok_or_else(|| wrong("ends after the year 9999; leave it out for a key that does not end"))
}

/// Shows what is seen this once; a key that nobody saw must not be good.
fn show(text: &str) -> Result<(), Failed> {
    let mut out = std::io::stdout().lock();
    let shown = if leads_nowhere(&out) {
        Err(std::io::Error::other("it is closed, or leads to /dev/null"))
    } else {
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    };
    shown.map_err(|e| Failed(format!("no key was made: it cannot be shown on standard output: {e}")))
}

/// Whether what is written to `out` is seen by nobody. A standard output that was closed is /dev/null by now.
fn leads_nowhere(out: &impl AsFd) -> bool {
    let there = out.as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
    let null = std::fs::metadata("/dev/null");
    there.is_ok_and(|there| null.is_ok_and(|null| there.file_type().is_char_device() && there.rdev() == null.rdev()))
}

pub(super) fn new(flags: &NewKey) -> Result<(), Failed> {
    let NewKey { tenant, label, .. } = flags;
    if tenant.is_empty() || !is_name(tenant) || !is_name(label) {
        return Err(Failed("a tenant's name has 1 to 64 characters, a label at most 64, without quotes".to_owned()));
    }
    if tenant == "own" {
        return Err(Failed(
            "`own` is what clients are called that bring an upstream credential of their own; give this tenant another name".to_owned(),
        ));
    }
    if [tenant, label].into_iter().any(|name| looks_like_a_key(name)) {
        return Err(Failed("a tenant's name and a label stand in logs and metrics, and must not be a key".to_owned()));
    }
    let place = place(&flags.place)?;
    let key = Secret::new(text(&random()?));
    let hash = KeyHash::of(key.expose().as_bytes());
    let shown = Zeroizing::new(format!(
        "The key, for the client. It is shown this once; Tidegate keeps only its hash:\n\n  {}\n\n",
        key.expose()
    ));
    let created_s = now_s();
    let expires_s = flags.expires.map(|span| end_s(created_s, span)).transpose()?;
    let Some(path) = &place else {
        if expires_s.is_some() {
            let why =
                "--expires needs a file of keys, since [[client_key]] has no end: say which with --config or --file";
            return Err(Failed(why.to_owned()));
        }
        show(&shown)?;
        say("The lines for the configuration (with --config it is added to the file of keys that names):");
        say(format_args!("\n[[client_key]]\ntenant = \"{tenant}\"\nhash = \"{hash}\""));
        return Ok(());
    };
    let known = KnownKey {
        prefix: key.expose()[..PREFIX_CHARS].to_owned(),
        tenant: tenant.clone(),
        label: label.clone(),
        hash,
        created_s,
        expires_s,
    };
    let is_new = !path.exists();
    let mut was_shown = false;
    let add = |file: &mut KeysFile| {
        if !label.is_empty() && file.keys.iter().any(|key| key.label == *label) {
            return Err(format!("{}: has a key labelled `{label}`; each label stands for one", path.display()));
        }
        if file.keys.len() >= KEYS_MAX {
            return Err(format!("{}: has {KEYS_MAX} keys, the most there may be; revoke some", path.display()));
        }
        file.keys.push(known);
        // Before it is good: a key in the file that was not shown could be used and revoked by nobody.
        show(&shown).map_err(|failed| failed.to_string())?;
        was_shown = true;
        Ok(())
    };
    if let Err(why) = KeysFile::change(path, add) {
        let not_good = if was_shown { "the key above is not good, as it could not be kept: " } else { "" };
        return Err(Failed(format!("{not_good}{why}")));
    }
    say(format_args!(
        "It is in {}; a running gateway takes it within two seconds.",
        std::path::absolute(path).unwrap_or_else(|_| path.clone()).display()
    ));
    if is_new {
        say(
            "The file is new, and only its owner, the user of this command, can read it. A gateway of another user needs to: change its owner or mode, which it keeps from then on.",
        );
    }
    if let Some(config) = &flags.place.config
        && !Config::knows_tenant(config, tenant).map_err(Failed::because)?
    {
        say(format_args!("No [[tenant]] of {} is called `{tenant}`: it has no limits of its own.", config.display()));
    }
    Ok(())
}

/// What `which` may be shown as: a whole key only as it begins.
fn shown(which: &str) -> String {
    if looks_like_a_key(which) {
        which.chars().take(PREFIX_CHARS).chain("...".chars()).collect()
    } else {
        which.to_owned()
    }
}

/// A key as `list` shows it, and its label.
fn named(key: &KnownKey) -> String {
    let label = if key.label.is_empty() { String::new() } else { format!(" ({})", key.label) };
    format!("{}...{label} of {}", key.prefix, key.tenant)
}

pub(super) fn revoke(flags: &RevokeKey) -> Result<(), Failed> {
    let path = some_place(&flags.place)?;
    let which = flags.which.trim();
    let begins = which.trim_end_matches(['.', '…']);
    let whole = KeyHash::of(which.as_bytes());
    let is_it =
        |key: &KnownKey| key.hash == whole || key.prefix == begins || !key.label.is_empty() && key.label == flags.which;
    let gone = KeysFile::change(&path, |file| {
        let found: Vec<usize> = (0..file.keys.len()).filter(|n| is_it(&file.keys[*n])).collect();
        match found[..] {
            [at] => Ok(file.keys.remove(at)),
            [] => Err(format!(
                "{}: has no key that is, begins with or is labelled `{}`; see `tidegate key list`",
                path.display(),
                shown(which)
            )),
            _ => {
                let all: Vec<String> = found.iter().map(|n| named(&file.keys[*n])).collect();
                Err(format!(
                    "{}: more than one key is meant by `{}`: {}; say the label of one, or the whole key",
                    path.display(),
                    shown(which),
                    all.join(", ")
                ))
            }
        }
    });
    let gone = gone.map_err(Failed)?;
    say(format_args!("Revoked: {}.", named(&gone)));
    say("A running gateway refuses it within two seconds; its streams that are under way end as they began.");
    Ok(())
}

pub(super) fn list(flags: &KeysPlace) -> Result<(), Failed> {
    let path = some_place(flags)?;
    let file = KeysFile::read(&path).map_err(Failed)?.unwrap_or_default();
    if file.keys.is_empty() {
        say(format_args!("{} has no keys: nobody is served by them. `tidegate key new` makes one.", path.display()));
        return Ok(());
    }
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
