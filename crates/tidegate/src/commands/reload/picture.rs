//! What stands in the configuration and in the files that it names, to be compared with another time:
//! every setting by its name, and of the files whether they are the same.
//!
//! Names are those of the file, with `[[organisation]]`, `[[tenant]]` and client keys by their own name
//! in place of a number. Values are compared and never told: they may be keys.

use crate::config::{Sources, beside as in_folder_of};
use crate::keys_file::KeysFile;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Settings that are built into what lives as long as the process, by name or by the beginning of it.
/// `tidegate_gateway::Settings::fixed` keeps those that are the gateway's; the others are not looked at
/// again after the start.
pub(super) const FIXED: &[&str] = &[
    "listen.",
    "log.",
    "dial.",
    "pool.",
    "tls.ca_file",
    "clocks.stream_kept",
    "limits.connections",
    "limits.streams",
    "limits.bodies_bytes",
    "limits.backlogs_bytes",
    "limits.journals_bytes",
    "conversations.file",
    "conversations.memory_bytes",
    "conversations.conversation_bytes",
    "usage.file",
];

fn is_fixed(name: &str) -> bool {
    FIXED.iter().any(|fixed| if fixed.ends_with('.') { name.starts_with(fixed) } else { name == *fixed })
}

/// Everything there is to compare.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Picture {
    /// Settings by name.
    settings: BTreeMap<String, String>,
    /// Files that are read with the configuration: the hash of each, if it can be read.
    contents: BTreeMap<PathBuf, Option<u64>>,
    /// Keys of the file of client keys, by how they begin.
    keys: BTreeMap<String, String>,
    /// The configuration itself, the file of client keys, and that of certificate authorities.
    paths: BTreeSet<PathBuf>,
    /// Where the configuration is: relative paths are meant from its folder.
    config: PathBuf,
}

impl Picture {
    /// The configuration at `path` as it is now, and the files `beside` it that flags name.
    pub(super) fn of(path: &Path, beside: &[&PathBuf], sources: &dyn Sources) -> Result<Self, String> {
        let text = sources.file(path).map_err(|e| format!("{}: cannot be read: {e}", path.display()))?;
        // What is wrong with it is told, with its line, by whoever reads it for good.
        let table: Table = toml::from_str(&String::from_utf8_lossy(&text)).unwrap_or_default();
        let paths = BTreeSet::from([path.to_path_buf()]);
        let mut picture = Picture { paths, config: path.to_path_buf(), ..Picture::default() };
        if let Some(file) = table.get("keys").and_then(|keys| keys.get("file")).and_then(Value::as_str) {
            let file = in_folder_of(path, Path::new(file));
            for key in KeysFile::of(&file, sources.file(&file)).ok().flatten().unwrap_or_default().keys {
                let mut name = format!("key {} of {}", key.prefix, key.tenant);
                if picture.keys.contains_key(&name) {
                    // Whoever wrote the file by hand has two that begin alike.
                    name = format!("{name}, {:.15}", key.hash.to_string());
                }
                picture.keys.insert(name, format!("{} {:?} {:?}", key.hash, key.label, key.expires_s));
            }
            picture.paths.insert(file);
        }
        picture.contents.extend(beside.iter().map(|file| ((*file).clone(), content(sources, file))));
        for (name, value) in &table {
            picture.add(name, value, sources);
        }
        Ok(picture)
    }

    fn add(&mut self, name: &str, value: &Value, sources: &dyn Sources) {
        match value {
            Value::Table(table) => table.iter().for_each(|(key, value)| {
                if let ("tls", "ca_file", Some(file)) = (name, &**key, value.as_str()) {
                    // What is in it is a part of the setting: as that it waits for a restart.
                    let file = in_folder_of(&self.config, Path::new(file));
                    let content = content(sources, &file);
                    self.settings.insert("tls.ca_file".to_owned(), format!("{value} {content:?}"));
                    self.paths.insert(file);
                    return;
                }
                if let (true, Some(file)) = (names_a_file(name, key), value.as_str()) {
                    let file = in_folder_of(&self.config, Path::new(file));
                    let content = content(sources, &file);
                    self.contents.insert(file, content);
                }
                self.add(&format!("{name}.{key}"), value, sources);
            }),
            Value::Array(items)
                if !items.is_empty() && items.iter().all(|item| item.get("tenant").or(item.get("name")).is_some()) =>
            {
                for item in items {
                    let own = item.get("name").or(item.get("tenant")).and_then(Value::as_str).unwrap_or_default();
                    // A tenant may have many keys; their hashes tell them apart and tell nothing else.
                    let hash = item.get("hash").and_then(Value::as_str).map(|hash| hash.chars().take(15).collect());
                    let hash = hash.map_or_else(String::new, |hash: String| format!(" {hash}"));
                    self.add(&format!("{name}.{own}{hash}"), item, sources);
                }
            }
            Value::Array(items) => {
                // Only their files: as a setting the list is one.
                let mut inner = Picture { config: self.config.clone(), ..Picture::default() };
                items.iter().for_each(|item| inner.add(name, item, sources));
                self.contents.append(&mut inner.contents);
                self.settings.insert(name.to_owned(), value.to_string());
            }
            value => drop(self.settings.insert(name.to_owned(), value.to_string())),
        }
    }

    /// Every file there is to watch.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.paths.iter().chain(self.contents.keys()).cloned().collect()
    }

    /// What is otherwise here than in `before`, by name, but for what cannot change since `start`.
    pub(super) fn changes(&self, before: &Picture, start: &Picture) -> Vec<String> {
        let mut names = differences(&before.settings, &self.settings);
        names.retain(|(name, _)| !self.is_fixed(name, start));
        names.append(&mut differences(&before.keys, &self.keys));
        let changed = |(path, hash): (&PathBuf, &Option<u64>)| {
            let was = before.contents.get(path)?;
            (was != hash).then(|| (path.display().to_string(), "changed"))
        };
        names.extend(self.contents.iter().filter_map(changed));
        names.into_iter().map(|(name, how)| if how == "changed" { name } else { format!("{name} ({how})") }).collect()
    }

    /// Settings that are otherwise here than at the start, and stay as they were there.
    pub(super) fn needs_restart(&self, start: &Picture) -> Vec<String> {
        let names = differences(&start.settings, &self.settings).into_iter().map(|(name, _)| name);
        names.filter(|name| self.is_fixed(name, start)).collect()
    }

    /// Whether a setting cannot change; to speak TLS or not is one of those.
    fn is_fixed(&self, name: &str, start: &Picture) -> bool {
        let speaks_tls = |picture: &Picture| picture.settings.contains_key("tls.certificate");
        let tls = matches!(name, "tls.certificate" | "tls.key") && speaks_tls(self) != speaks_tls(start);
        tls || is_fixed(name)
    }
}

/// Whether the value of `key` in a table called `table` is the path of a file that is read with the
/// configuration.
fn names_a_file(table: &str, key: &str) -> bool {
    matches!((table, key), ("tls", "certificate" | "key"))
        || key == "file" && !matches!(table, "conversations" | "keys" | "usage")
}

fn content(sources: &dyn Sources, path: &Path) -> Option<u64> {
    let mut hash = DefaultHasher::new();
    hash.write(&sources.file(path).ok()?);
    Some(hash.finish())
}

/// Names that are in one only, or in both with another value.
fn differences(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<(String, &'static str)> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differs = |name: &String| match (before.get(name), after.get(name)) {
        (None, Some(_)) => Some("added"),
        (Some(_), None) => Some("removed"),
        (was, is) => (was != is).then_some("changed"),
    };
    names.into_iter().filter_map(|name| Some((name.clone(), differs(name)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(text: &str) -> Picture {
        let mut picture = Picture::default();
        let table: Table = toml::from_str(text).unwrap();
        let sources = crate::commands::reload::Once::default();
        table.iter().for_each(|(name, value)| picture.add(name, value, &sources));
        picture
    }

    #[test]
    fn what_changed_is_named_as_people_name_it_and_no_value_is_told() {
        let before = picture(
            "[clocks]\ngap = \"45 s\"\n[[organisation]]\nname = \"north\"\nkeys = [{ value = \"sk-ant-1\" }]\n[[client_key]]\ntenant = \"acme\"\nhash = \"sha256:00112233445566\"",
        );
        let after = picture(
            "[clocks]\ngap = \"50 s\"\n[[organisation]]\nname = \"south\"\nkeys = []\n[[organisation]]\nname = \"north\"\nkeys = [{ value = \"sk-ant-2\" }]",
        );
        let changes = after.changes(&before, &before);
        assert_eq!(
            changes,
            [
                "client_key.acme sha256:00112233.hash (removed)",
                "client_key.acme sha256:00112233.tenant (removed)",
                "clocks.gap",
                "organisation.north.keys",
                "organisation.south.keys (added)",
                "organisation.south.name (added)",
            ]
        );
    }

    #[test]
    fn what_cannot_change_is_named_apart_until_it_is_as_it_was() {
        let start = picture("[listen]\naddress = \"127.0.0.1:1\"\n[limits]\nbody_bytes = \"1 MiB\"");
        let later = picture(
            "[listen]\naddress = \"127.0.0.1:2\"\n[limits]\nbody_bytes = \"2 MiB\"\n[tls]\nkey = \"k\"\ncertificate = \"c\"",
        );
        assert_eq!(later.changes(&start, &start), ["limits.body_bytes"]);
        assert_eq!(later.needs_restart(&start), ["listen.address", "tls.certificate", "tls.key"]);
        assert!(start.needs_restart(&start).is_empty());
    }

    #[test]
    fn files_of_secrets_are_watched_and_the_log_of_conversations_is_not() {
        let text = "[tls]\ncertificate = \"/c.pem\"\nkey = \"/k.pem\"\n[conversations]\nfile = \"/talks.db\"\n[redact]\nscope_key = { file = \"/scope.key\" }\nvault_keys = [{ id = 1, file = \"/vault.key\" }]\n[[organisation]]\nname = \"north\"\nproxy = { file = \"/proxy\" }\nkeys = [{ file = \"/north.key\" }]";
        let files: Vec<_> = picture(text).files().iter().map(|path| path.display().to_string()).collect();
        assert_eq!(files, ["/c.pem", "/k.pem", "/north.key", "/proxy", "/scope.key", "/vault.key"]);
        let mut beside = Picture { config: PathBuf::from("/etc/t/t.toml"), ..Picture::default() };
        let keys = &toml::from_str::<Table>("keys = [{ file = \"a.key\" }]").unwrap()["keys"];
        beside.add("organisation.a.keys", keys, &crate::commands::reload::Once::default());
        assert_eq!(beside.files(), [PathBuf::from("/etc/t/a.key")]);
    }

    #[test]
    fn new_certificate_authorities_wait_for_a_restart() {
        let file = std::env::temp_dir().join(format!("tidegate-picture-{}.pem", std::process::id()));
        let text = format!("[tls]\nca_file = \"{}\"", file.display());
        std::fs::write(&file, "one").unwrap();
        let start = picture(&text);
        assert_eq!(start.files(), std::slice::from_ref(&file));
        std::fs::write(&file, "another").unwrap();
        let later = picture(&text);
        std::fs::remove_file(&file).unwrap();
        assert!(later.changes(&start, &start).is_empty());
        assert_eq!(later.needs_restart(&start), ["tls.ca_file"]);
    }

    #[test]
    fn of_two_keys_that_begin_alike_each_is_seen_to_go() {
        struct Files(String, String);
        impl Sources for Files {
            fn variable(&self, _: &str) -> Option<String> {
                None
            }
            fn file(&self, path: &Path) -> std::io::Result<Vec<u8>> {
                Ok(if path.ends_with("keys.toml") { &self.1 } else { &self.0 }.clone().into_bytes())
            }
        }
        let of = |keys: &[char]| {
            let key = |c: &char| {
                let hash = c.to_string().repeat(64);
                format!(
                    "[[key]]\ntenant = \"acme\"\nprefix = \"tg_same\"\nhash = \"sha256:{hash}\"\ncreated = \"2026-11-01T00:00:00Z\"\n"
                )
            };
            let files = Files("[keys]\nfile = \"keys.toml\"".to_owned(), keys.iter().map(key).collect());
            let picture = Picture::of(Path::new("/t.toml"), &[], &files).unwrap();
            assert_eq!(picture.keys.len(), keys.len());
            picture
        };
        let both = of(&['a', 'b']);
        for left in ['a', 'b'] {
            let changes = of(&[left]).changes(&both, &both);
            assert!(
                !changes.is_empty() && changes.iter().all(|name| name.starts_with("key tg_same of acme")),
                "{changes:?}"
            );
        }
    }

    /// The names are the file's own.
    #[test]
    fn what_is_fixed_is_in_the_example() {
        let text = include_str!("../../../../../tidegate.example.toml");
        for name in FIXED {
            let (table, key) = name.split_once('.').unwrap();
            let after = text.split_once(&format!("\n[{table}]\n")).unwrap_or_else(|| panic!("[{table}]")).1;
            let inside = after.split("\n[").next().unwrap();
            let key = inside.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} =")));
            assert!(name.ends_with('.') || key, "{name}");
        }
    }
}
