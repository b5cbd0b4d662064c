//! The file of client keys: what is known of each but the key itself, and how the file is changed.
//!
//! ```text
//!   lock NAME.lock ─▶ read NAME ─▶ change ─▶ does it read back? ─▶ write NAME.new, owner and mode of
//!   NAME or 0600, synchronised ─▶ rename ─▶ sync the folder
//! ```
//! So whoever reads sees the file before the change or after it, whatever happens to the machine, and
//! two commands at once change it one after the other. Who could read the file before still can: a key
//! made by root must not lock out the service. If the name is a link, all of this happens where it leads.
//! It is TOML like the configuration, and may be edited by hand with care; what is wrong in it is told
//! without a word of its own, since somebody may have put a key there.

use crate::withheld::{looks_like_a_key, without_values};
use serde::{Deserialize, Serialize};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use tidegate_base::{rfc3339, rfc3339_seconds};
use tidegate_gateway::KeyHash;

/// Keys in one file: each is some 200 bytes of it, and the whole is read at every change.
pub(crate) const KEYS_MAX: usize = 65_536;
/// Bytes of one file: as many keys with the longest names.
const BYTES_MAX: u64 = 64 << 20;
/// Characters of a tenant's name and of a label.
pub(crate) const NAME_CHARS_MAX: usize = 64;
/// Characters of a key that the file shows, so that people can tell keys apart: `tg_` and 40 of 200 bits.
pub(crate) const PREFIX_CHARS: usize = 11;

const HEAD: &str =
    "# Client keys of Tidegate, kept by `tidegate key new`, `revoke` and `list`. There are only hashes here.\n";

/// Every key of a `[[key]]`, and its own name: words that an error may show.
const FIELDS: &[&str] = &["key", "prefix", "tenant", "label", "hash", "created", "expires"];

/// What is known of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownKey {
    /// How it begins.
    pub(crate) prefix: String,
    /// Whose it is.
    pub(crate) tenant: String,
    /// What it is for, in its maker's words.
    pub(crate) label: String,
    pub(crate) hash: KeyHash,
    /// When it was made, and when it ends: seconds since 1970.
    pub(crate) created_s: u64,
    pub(crate) expires_s: Option<u64>,
}

/// One file's keys, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeysFile {
    pub(crate) keys: Vec<KnownKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyTable {
    prefix: String,
    tenant: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    label: String,
    hash: String,
    created: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct FileTable {
    key: Vec<KeyTable>,
}

/// Whether `name` can be a tenant's name or a label, as it stands in files, logs and metrics.
pub(crate) fn is_name(name: &str) -> bool {
    name.chars().count() <= NAME_CHARS_MAX && !name.contains(|c: char| c.is_control() || matches!(c, '"' | '\\'))
}

fn key(table: KeyTable) -> Result<KnownKey, String> {
    let time = |name: &str, text: &str| {
        rfc3339_seconds(text).ok_or_else(|| format!("{name}: write a time such as \"2027-01-31T00:00:00Z\""))
    };
    if table.tenant.is_empty() || !is_name(&table.tenant) || !is_name(&table.label) {
        return Err("a tenant's name has 1 to 64 characters, a label at most 64, without quotes".to_owned());
    }
    if table.prefix.chars().count() > PREFIX_CHARS || !is_name(&table.prefix) {
        return Err(format!("prefix: write how the key begins, {PREFIX_CHARS} characters, and never the whole key"));
    }
    if [&table.tenant, &table.label].into_iter().any(|name| looks_like_a_key(name)) {
        return Err("a key stands where a name belongs; take it out, and revoke it if others could read it".to_owned());
    }
    Ok(KnownKey {
        hash: table.hash.parse().map_err(|e: tidegate_gateway::KeyHashError| e.to_string())?,
        created_s: time("created", &table.created)?,
        expires_s: table.expires.as_deref().map(|text| time("expires", text)).transpose()?,
        prefix: table.prefix,
        tenant: table.tenant,
        label: table.label,
    })
}

impl KeysFile {
    /// The keys of the file at `path`; `None` if there is no such file.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, String> {
        KeysFile::of(path, std::fs::read(path))
    }

    /// The same, of what was read there.
    pub(crate) fn of(path: &Path, read: std::io::Result<Vec<u8>>) -> Result<Option<Self>, String> {
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(format!("{}: cannot be read: {e}", path.display())),
        };
        if bytes.len() as u64 > BYTES_MAX {
            return Err(format!("{}: is over 64 MiB, and no file of client keys", path.display()));
        }
        let text = String::from_utf8(bytes).map_err(|_| format!("{}: is not valid UTF-8", path.display()))?;
        KeysFile::parse(&text).map(Some).map_err(|why| format!("{}{why}", path.display()))
    }

    /// The keys in `text`; an error begins with its line.
    fn parse(text: &str) -> Result<Self, String> {
        let file: FileTable = toml::from_str(text).map_err(|e| {
            let at = e.span().map_or(0, |s| s.start.min(text.len()));
            let message = without_values(e.message().trim(), |word| FIELDS.contains(&word));
            format!(":{}: {message}", text[..at].matches('\n').count() + 1)
        })?;
        if file.key.len() > KEYS_MAX {
            return Err(format!(": has more than {KEYS_MAX} keys"));
        }
        let place = |n: usize| {
            let lines = text.lines().enumerate().filter(|(_, line)| line.trim() == "[[key]]");
            lines.map(|(line, _)| line + 1).nth(n).unwrap_or(1)
        };
        let one = |(n, table)| key(table).map_err(|why| format!(":{}: {why}", place(n)));
        Ok(KeysFile { keys: file.key.into_iter().enumerate().map(one).collect::<Result<_, _>>()? })
    }

    /// Changes the file at `path`, or makes it; nobody else changes it meanwhile. What `change` refuses, and
    /// what could not be read back, leaves the file as it is.
    pub(crate) fn change<T>(path: &Path, change: impl FnOnce(&mut KeysFile) -> Result<T, String>) -> Result<T, String> {
        let path = &target(path)?;
        let beside = |end: &str| {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(end);
            path.with_file_name(name)
        };
        let failed = |what: &str, at: &Path, e: io::Error| format!("{}: {what}: {e}", at.display());
        let about = match std::fs::metadata(path) {
            Ok(about) => Some(about),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(failed("cannot be read", path, e)),
        };
        let lock_path = beside(".lock");
        let lock = lock_file(&lock_path, about.as_ref()).map_err(|e| failed("cannot be made", &lock_path, e))?;
        // Held until it is closed, or its process ends.
        lock.lock().map_err(|e| failed("cannot be locked", &lock_path, e))?;
        let mut file = KeysFile::read(path)?.unwrap_or_default();
        let changed = change(&mut file)?;
        let text = file.text().map_err(|why| format!("{}: was not changed: {why}", path.display()))?;
        let new = beside(".new");
        let written = write(&new, &text, about.as_ref());
        let written =
            written.and_then(|()| std::fs::rename(&new, path).map_err(|e| failed("cannot be replaced", path, e)));
        if written.is_err() {
            // Best effort: the next change takes it away too.
            let _ = std::fs::remove_file(&new);
        }
        written?;
        let folder = path.parent().unwrap_or(path);
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|e| failed("cannot be synchronised", folder, e))?;
        Ok(changed)
    }

    /// The file's text, which reads back as these keys.
    fn text(&self) -> Result<String, String> {
        let table = |key: &KnownKey| KeyTable {
            prefix: key.prefix.clone(),
            tenant: key.tenant.clone(),
            label: key.label.clone(),
            hash: key.hash.to_string(),
            created: rfc3339(key.created_s),
            expires: key.expires_s.map(rfc3339),
        };
        let text = toml::to_string(&FileTable { key: self.keys.iter().map(table).collect() });
        let text = format!("{HEAD}{}", text.map_err(|e| e.to_string())?);
        match KeysFile::parse(&text) {
            Ok(read) if read == *self && text.len() as u64 <= BYTES_MAX => Ok(text),
            Ok(_) => Err("the change could not be read back".to_owned()),
            Err(why) => Err(format!("the change could not be read back{why}")),
        }
    }
}

/// Where `path` leads, if it is a link; else the same in its folder.
fn target(path: &Path) -> Result<PathBuf, String> {
    match path.canonicalize() {
        Ok(path) => return Ok(path),
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(format!("{}: cannot be read: {e}", path.display())),
        Err(_) => {}
    }
    if path.is_symlink() {
        return Err(format!(
            "{}: is a link to a file that is not there; make that file, which may be empty",
            path.display()
        ));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| format!("{}: is no name of a file", path.display()))?;
    let found = folder.canonicalize().map_err(|e| {
        format!("{}: cannot be made: its folder {} cannot be used: {e}", path.display(), folder.display())
    });
    Ok(found?.join(name))
}

/// The file whose lock is held for a change: made for whoever has the file of keys, which `about` is about.
fn lock_file(path: &Path, about: Option<&Metadata>) -> io::Result<File> {
    match OpenOptions::new().create_new(true).write(true).mode(0o600).open(path) {
        Ok(lock) => {
            // A lock that another user cannot open is told to that user.
            let _ = about.map(|about| adopt(&lock, about));
            Ok(lock)
        }
        Err(e) if e.kind() == ErrorKind::AlreadyExists => OpenOptions::new().write(true).open(path),
        Err(e) => Err(e),
    }
}

/// Gives `file` the owner, the group and the mode of another one.
fn adopt(file: &File, about: &Metadata) -> io::Result<()> {
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (about.uid(), about.gid()) {
        fchown(file, Some(about.uid()), Some(about.gid()))?;
    }
    file.set_permissions(about.permissions())
}

/// Writes `text` to a new file at `path`, like the one that `about` is about, or for its owner only.
fn write(path: &Path, text: &str, about: Option<&Metadata>) -> Result<(), String> {
    let failed = |e: io::Error| format!("{}: cannot be written: {e}", path.display());
    // What a command left that was ended half way is nobody's.
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    if let Some(about) = about {
        adopt(&file, about).map_err(|e| {
            let (uid, gid) = (about.uid(), about.gid());
            format!("the file of keys is of user {uid} and group {gid}, and a new one cannot be given to them: {e}; run this as that user, or as root")
        })?;
    }
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(n: u64) -> KnownKey {
        KnownKey {
            prefix: format!("tg_{n:08}"),
            tenant: "acme".to_owned(),
            label: if n == 1 { String::new() } else { format!("number {n}") },
            hash: KeyHash::of(&n.to_be_bytes()),
            created_s: 1_800_000_000 + n,
            expires_s: (n == 2).then_some(1_900_000_000),
        }
    }

    fn add(path: &Path, key: KnownKey) {
        let add = |file: &mut KeysFile| {
            file.keys.push(key);
            Ok(())
        };
        KeysFile::change(path, add).unwrap();
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("tidegate-keys-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn what_is_written_is_read_and_only_its_owner_may() {
        use std::os::unix::fs::PermissionsExt;
        let folder = folder("mode");
        let path = folder.join("keys.toml");
        assert_eq!(KeysFile::read(&path).unwrap(), None);
        for n in 1..=3 {
            add(&path, known(n));
        }
        assert_eq!(KeysFile::read(&path).unwrap().unwrap().keys, [known(1), known(2), known(3)]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let before = std::fs::read(&path).unwrap();
        let refused = KeysFile::change(&path, |file| {
            file.keys.clear();
            Err::<(), _>("no".to_owned())
        });
        assert_eq!((refused, std::fs::read(&path).unwrap()), (Err("no".to_owned()), before));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn changes_at_once_are_made_one_after_the_other() {
        let folder = folder("at-once");
        let path = folder.join("keys.toml");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    for n in 0..10 {
                        add(path, known(10 + thread * 10 + n));
                    }
                });
            }
        });
        assert_eq!(KeysFile::read(&path).unwrap().unwrap().keys.len(), 40);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let check = |text: &str| KeysFile::parse(text).unwrap_err();
        assert!(check("[[key]]\nprefix = 1\n").starts_with(":2: "), "{}", check("[[key]]\nprefix = 1\n"));
        let key =
            |hash: &str| format!("\n[[key]]\nprefix = \"tg_a\"\ntenant = \"a\"\nhash = \"{hash}\"\ncreated = \"x\"\n");
        assert!(check(&key("tg_secret")).starts_with(":2: a key hash is"), "{}", check(&key("tg_secret")));
        assert!(check(&key(&KeyHash::of(b"k").to_string())).starts_with(":2: created: write a time"));
        assert!(check("colour = 1").contains("unknown field"));
    }

    #[test]
    fn a_key_that_somebody_put_there_is_not_told() {
        let key = format!("tg_{}", "q".repeat(40));
        let table = |prefix: &str, tenant: &str| {
            let hash = KeyHash::of(b"k");
            format!(
                "[[key]]\nprefix = \"{prefix}\"\ntenant = \"{tenant}\"\nhash = \"{hash}\"\ncreated = \"2026-01-01T00:00:00Z\"\n"
            )
        };
        for text in [
            key.clone(),
            format!("\n\"{key}\""),
            format!("{key} = 1"),
            format!("key = \"{key}\""),
            format!("[[key]]\n{key} = 1\n"),
            format!("[[{key}]]\n[{key}]\n"),
            format!("[[key]]\nprefix = {key}\n"),
            format!("[[key]]\nhash = [\"{key}\"]\n"),
            table(&key, "acme"),
            table("tg_a", &key),
            table("tg_a", "acme").replace("sha256", &key),
            table("tg_a", "acme").replace("2026-01-01T00:00:00Z", &key),
        ] {
            let why = KeysFile::parse(&text).unwrap_err();
            assert!(why.starts_with(':') && !why.contains("qqqq"), "{text}: {why}");
        }
    }

    #[test]
    fn what_could_not_be_read_back_is_not_written() {
        let folder = folder("far");
        let path = folder.join("keys.toml");
        add(&path, known(1));
        let before = std::fs::read(&path).unwrap();
        let far = KnownKey { expires_s: Some(900_000_000_000), ..known(2) };
        let why = KeysFile::change(&path, |file| {
            file.keys.push(far);
            Ok(())
        });
        assert!(why.unwrap_err().contains("was not changed: the change could not be read back"));
        assert_eq!(std::fs::read(&path).unwrap(), before);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn who_could_read_the_file_still_can_and_a_link_stays_one() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = folder("owner");
        let (path, link) = (folder.join("keys.toml"), folder.join("link.toml"));
        add(&path, known(1));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        // Only root may give a file away.
        let given = std::os::unix::fs::chown(&path, Some(12_345), Some(12_346)).is_ok();
        symlink("keys.toml", &link).unwrap();
        add(&link, known(2));
        let about = std::fs::metadata(&path).unwrap();
        assert_eq!(about.permissions().mode() & 0o777, 0o640);
        assert!(!given || (about.uid(), about.gid()) == (12_345, 12_346));
        assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("keys.toml"));
        assert_eq!(KeysFile::read(&path).unwrap().unwrap().keys.len(), 2);
        symlink("nowhere.toml", folder.join("loose.toml")).unwrap();
        let why = KeysFile::change(&folder.join("loose.toml"), |_| Ok(())).unwrap_err();
        assert!(why.contains("is a link to a file that is not there"), "{why}");
        let why = KeysFile::change(&folder.join("none/keys.toml"), |_| Ok(())).unwrap_err();
        assert!(why.contains("its folder") && why.contains("none"), "{why}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
