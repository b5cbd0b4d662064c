//! The configuration file: TOML in, settings out, or one error that names file, line, key and
//! remedy.
//!
//! Every quantity carries its unit in the value (`"30 s"`, `"32 MiB"`), so none can be a thousand
//! times off unseen. An unknown key is an error. `tidegate.example.toml` shows every setting with
//! its default; a test holds the two together.

use serde::de::{self, Deserialize, Deserializer};
use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tidegate_base::{ByteSize, Secret, Span};
use tidegate_gateway::{ClientKey, Clocks, Limits, Organisation, Settings};
use tidegate_schedule::{QueueRules, RetryRules};
use tidegate_transport::{DialClocks, HttpOffer, ServerTls, TlsFiles, TlsRoots};
use tidegate_upstream::{Lane, PoolRules, Scheme};

/// A configuration that cannot be used; the text is for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Everything a `serve` runs under.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where operators connect.
    pub admin: SocketAddr,
    /// Data-plane threads; `None` is one per core.
    pub threads: Option<u8>,
    /// Whether log lines are JSON.
    pub log_json: bool,
    /// Least severe line that is logged.
    pub log_level: String,
    /// TLS towards clients, if it is spoken.
    pub tls: Option<TlsFiles>,
    /// Whose certificates are believed.
    pub roots: TlsRoots,
    /// The dialler's clocks.
    pub dial: DialClocks,
    /// The gateway's own settings.
    pub settings: Settings,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 4600)),
            admin: SocketAddr::from(([127, 0, 0, 1], 4601)),
            threads: None,
            log_json: false,
            log_level: "info".to_owned(),
            tls: None,
            roots: TlsRoots::Machine,
            dial: DialClocks::default(),
            settings: Settings::default(),
        }
    }
}

/// The API itself.
pub const API_URL: &str = "https://api.anthropic.com";

/// A value of one of the file's own kinds, read from a string with its unit.
struct Quantity<T>(T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Quantity<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text<T>(std::marker::PhantomData<T>);
        impl<T: FromStr<Err: fmt::Display>> de::Visitor<'_> for Text<T> {
            type Value = Quantity<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity with its unit in quotes, such as \"30 s\" or \"32 MiB\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity<T>, E> {
                text.parse().map(Quantity).map_err(E::custom)
            }
        }
        d.deserialize_str(Text(std::marker::PhantomData))
    }
}

/// What a kind of value becomes in the settings.
trait Becomes<T> {
    fn becomes(&self) -> T;
}

impl Becomes<Duration> for Quantity<Span> {
    fn becomes(&self) -> Duration {
        self.0.0
    }
}

impl Becomes<u64> for Quantity<ByteSize> {
    fn becomes(&self) -> u64 {
        self.0.0
    }
}

impl<T: Copy> Becomes<T> for T {
    fn becomes(&self) -> T {
        *self
    }
}

type Time = Quantity<Span>;
type Size = Quantity<ByteSize>;

/// A table of the file whose keys each set the field of the same name; what is left out keeps its
/// default.
macro_rules! table {
    ($name:ident sets $target:ty { $($key:ident: $kind:ty,)* }) => {
        #[derive(serde::Deserialize, Default)]
        #[serde(deny_unknown_fields, default)]
        struct $name { $($key: Option<$kind>,)* }

        impl $name {
            #[cfg(test)]
            const KEYS: &[&str] = &[$(stringify!($key)),*];

            fn set(&self, target: &mut $target) {
                $(if let Some(value) = &self.$key { target.$key = value.becomes(); })*
            }
        }
    };
}

table!(ClocksTable sets Clocks {
    client_tls: Time,
    client_head: Time,
    client_body_stall: Time,
    client_write_stall: Time,
    client_idle: Time,
    heartbeat: Time,
    upload_stall: Time,
    first_byte: Time,
    first_byte_large: Time,
    gap: Time,
    probe: Time,
    probe_answer: Time,
    progress: Time,
    progress_unseen: Time,
    whole: Time,
    drain: Time,
    key_rejected: Time,
});

table!(DialTable sets DialClocks {
    connect: Time,
    tls: Time,
});

table!(LimitsTable sets Limits {
    body_bytes: Size,
    bodies_bytes: Size,
    large_body_bytes: Size,
    backlog_bytes: Size,
    backlog_merge_bytes: Size,
    backlogs_bytes: Size,
    answer_bytes: Size,
    connections: usize,
    connection_streams: u32,
    passthrough_tokens: u64,
});

table!(RetryTable sets RetryRules {
    attempts_max: u32,
    base: Time,
    cap: Time,
    budget: u32,
});

table!(PoolTable sets PoolRules {
    idle_max: usize,
    idle_keep: Time,
    http2_start: Time,
    http2_age: Time,
});

table!(QueueTable sets QueueKeys {
    waiting_max: usize,
    wait_max_interactive: Time,
    wait_max_normal: Time,
    wait_max_background: Time,
});

/// The queue's rules as the file spells them: the bands by name.
struct QueueKeys {
    waiting_max: usize,
    wait_max_interactive: Duration,
    wait_max_normal: Duration,
    wait_max_background: Duration,
}

impl QueueTable {
    fn over(&self, rules: QueueRules) -> QueueRules {
        let [wait_max_interactive, wait_max_normal, wait_max_background] = rules.wait_max;
        let waiting_max = rules.waiting_max;
        let mut keys = QueueKeys { waiting_max, wait_max_interactive, wait_max_normal, wait_max_background };
        self.set(&mut keys);
        let wait_max = [keys.wait_max_interactive, keys.wait_max_normal, keys.wait_max_background];
        QueueRules { waiting_max: keys.waiting_max, wait_max }
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ListenTable {
    address: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    threads: Option<u8>,
}

#[derive(serde::Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Text,
    Json,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct LogTable {
    format: Format,
    level: Option<String>,
}

#[derive(serde::Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
enum Auth {
    #[default]
    XApiKey,
    Bearer,
}

/// Which HTTP is spoken to an upstream.
#[derive(Clone, Copy, serde::Deserialize, Default)]
enum Http {
    #[default]
    #[serde(rename = "auto")]
    Auto,
    #[serde(rename = "1.1")]
    Http1,
    #[serde(rename = "2")]
    Http2,
}

impl Http {
    fn offer(self) -> HttpOffer {
        match self {
            Http::Auto => HttpOffer::Auto,
            Http::Http1 => HttpOffer::Http1,
            Http::Http2 => HttpOffer::Http2,
        }
    }
}

/// Where a key comes from; exactly one.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
enum KeySource {
    Env(String),
    File(PathBuf),
    Value(String),
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct OrganisationTable {
    name: String,
    url: Option<String>,
    #[serde(default)]
    auth: Auth,
    #[serde(default)]
    http: Http,
    keys: Vec<KeySource>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientKeyTable {
    tenant: String,
    hash: String,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct TlsTable {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct File {
    listen: ListenTable,
    log: LogTable,
    tls: TlsTable,
    organisation: Vec<OrganisationTable>,
    client_key: Vec<ClientKeyTable>,
    clocks: ClocksTable,
    dial: DialTable,
    limits: LimitsTable,
    queue: QueueTable,
    retry: RetryTable,
    pool: PoolTable,
}

/// Finds what a place in the file is called.
struct Places<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Places<'_> {
    fn at_line(&self, line: usize, what: &str) -> ConfigError {
        ConfigError(format!("{}:{line}: {what}", self.path.display()))
    }

    /// An error of the TOML reader: its line, the key on it, and what it says. The line itself is
    /// not shown: it may hold a key.
    fn unreadable(&self, e: &toml::de::Error) -> ConfigError {
        let at = e.span().map_or(0, |s| s.start.min(self.text.len()));
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let text = self.text.lines().nth(line - 1).unwrap_or_default();
        let key = text.split_once('=').map(|(key, _)| key.trim()).filter(|k| !k.is_empty() && !k.starts_with('#'));
        let message = e.message().trim();
        self.at_line(line, &key.map_or_else(|| message.to_owned(), |key| format!("{key}: {message}")))
    }

    /// An error about `key` in the `nth` table called `table`.
    fn wrong(&self, table: &str, nth: usize, key: &str, why: &str) -> ConfigError {
        let header = |line: &str| line.trim().trim_matches(['[', ']']) == table && line.trim().starts_with('[');
        let lines = || self.text.lines().enumerate().map(|(n, l)| (n + 1, l));
        let start = lines().filter(|(_, l)| header(l)).nth(nth).map_or(1, |(n, _)| n);
        let end = lines().find(|(n, l)| *n > start && l.trim().starts_with('[')).map_or(usize::MAX, |(n, _)| n);
        let is_key = |l: &str| l.split_once('=').is_some_and(|(k, _)| k.trim() == key);
        let line = lines().find(|(n, l)| (start..end).contains(n) && is_key(l)).map_or(start, |(n, _)| n);
        self.at_line(line, &format!("{table}.{key}: {why}"))
    }
}

impl Config {
    /// Reads the file at `path`; `env` looks variables up.
    pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| ConfigError(format!("{}: cannot be read: {e}", path.display())))?;
        Config::parse(path, &text, env)
    }

    /// Reads `text`, which came from `path`.
    pub fn parse(path: &Path, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let places = Places { path, text };
        let file: File = toml::from_str(text).map_err(|e| places.unreadable(&e))?;
        let mut config = Config::default();
        config.listen = file.listen.address.unwrap_or(config.listen);
        config.admin = file.listen.admin.unwrap_or(config.admin);
        config.threads = file.listen.threads.filter(|n| *n > 0);
        config.log_json = matches!(file.log.format, Format::Json);
        config.log_level = file.log.level.unwrap_or(config.log_level);
        config.tls = match (file.tls.certificate, file.tls.key) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
            (None, None) => None,
            (certificate, _) => {
                let (given, lacks) =
                    if certificate.is_some() { ("certificate", "key") } else { ("key", "certificate") };
                return Err(places.wrong("tls", 0, given, &format!("stands alone; TLS also needs tls.{lacks}")));
            }
        };
        if let Some(ca) = file.tls.ca_file {
            config.roots = TlsRoots::File(ca);
        }
        file.dial.set(&mut config.dial);
        let settings = &mut config.settings;
        file.clocks.set(&mut settings.clocks);
        file.limits.set(&mut settings.limits);
        settings.queue = file.queue.over(settings.queue);
        file.retry.set(&mut settings.retry);
        file.pool.set(&mut settings.pool);
        for (n, table) in file.organisation.iter().enumerate() {
            settings.organisations.push(organisation(&places, n, table, env)?);
        }
        for (n, table) in file.client_key.iter().enumerate() {
            let hash = table.hash.parse();
            let hash = hash
                .map_err(|e: tidegate_gateway::KeyHashError| places.wrong("client_key", n, "hash", &e.to_string()))?;
            if table.tenant.is_empty() || table.tenant.len() > 64 {
                return Err(places.wrong("client_key", n, "tenant", "a tenant's name has 1 to 64 characters"));
            }
            settings.keys.push(ClientKey { tenant: table.tenant.as_str().into(), hash });
        }
        contradictions(&places, &config)?;
        Ok(config)
    }

    /// An organisation made of flags or the environment, in place of the file's.
    pub fn use_upstream(&mut self, url: &str, key: &str) -> Result<(), ConfigError> {
        let lane =
            Lane::new("default/1", url, Scheme::ApiKey, Secret::new(key)).map_err(|e| ConfigError(e.to_string()))?;
        self.settings.organisations = vec![Organisation { name: "default".to_owned(), lanes: vec![Arc::new(lane)] }];
        Ok(())
    }

    /// Reads the certificate and key of TLS towards clients, if there are any.
    pub fn server_tls(&self) -> Result<Option<ServerTls>, ConfigError> {
        self.tls.as_ref().map(ServerTls::load).transpose().map_err(|e| ConfigError(e.to_string()))
    }

    /// What must hold whatever the sources were: flags can contradict the file too.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.settings.keys.is_empty() && !self.listen.ip().is_loopback() {
            return Err(ConfigError(format!(
                "listening on {} needs client keys: without any, only clients on this machine are served; make one with `tidegate key new`, or listen on 127.0.0.1",
                self.listen
            )));
        }
        if self.settings.organisations.is_empty() {
            return Err(ConfigError(
                "there is no upstream: set ANTHROPIC_API_KEY, or name one in a file with --config, or try `tidegate serve --simulate`".to_owned(),
            ));
        }
        Ok(())
    }
}

fn organisation(
    places: &Places<'_>,
    n: usize,
    table: &OrganisationTable,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Organisation, ConfigError> {
    let wrong = |key: &str, why: &str| places.wrong("organisation", n, key, why);
    if table.keys.is_empty() || table.keys.len() > 1000 {
        return Err(wrong("keys", "an organisation has 1 to 1000 keys"));
    }
    if table.name.is_empty() || table.name.len() > 64 {
        return Err(wrong("name", "an organisation's name has 1 to 64 characters"));
    }
    let scheme = match table.auth {
        Auth::XApiKey => Scheme::ApiKey,
        Auth::Bearer => Scheme::Bearer,
    };
    let mut lanes = Vec::new();
    for (k, source) in table.keys.iter().enumerate() {
        let key = match source {
            KeySource::Value(key) => key.clone(),
            KeySource::Env(name) => {
                env(name).ok_or_else(|| wrong("keys", &format!("the environment variable {name} is not set; set it, or take the key from a file with {{ file = \"...\" }}")))?
            }
            KeySource::File(path) => std::fs::read_to_string(path)
                .map_err(|e| wrong("keys", &format!("the key file {} cannot be read: {e}", path.display())))?
                .trim()
                .to_owned(),
        };
        if key.is_empty() {
            return Err(wrong("keys", &format!("key number {} is empty", k + 1)));
        }
        let url = table.url.as_deref().unwrap_or(API_URL);
        let lane = Lane::new(format!("{}/{}", table.name, k + 1), url, scheme, Secret::new(key));
        let at = |e: &tidegate_upstream::LaneError| if e.0.contains("key has") { "keys" } else { "url" };
        lanes.push(Arc::new(lane.map_err(|e| wrong(at(&e), &e.0))?.offering(table.http.offer())));
    }
    Ok(Organisation { name: table.name.clone(), lanes })
}

/// Settings that are each possible and together are not.
fn contradictions(places: &Places<'_>, config: &Config) -> Result<(), ConfigError> {
    let (limits, clocks) = (&config.settings.limits, &config.settings.clocks);
    let rules: [(bool, &str, &str, &str); 10] = [
        (limits.body_bytes == 0, "limits", "body_bytes", "is zero: no request could be taken"),
        (limits.connections == 0, "limits", "connections", "is zero: no client could connect"),
        (limits.connection_streams == 0, "limits", "connection_streams", "is zero: no request could be sent"),
        (
            limits.body_bytes > limits.bodies_bytes,
            "limits",
            "body_bytes",
            "is over bodies_bytes, so the largest body could never be taken; raise bodies_bytes",
        ),
        (
            limits.backlog_merge_bytes > limits.backlog_bytes,
            "limits",
            "backlog_merge_bytes",
            "is over backlog_bytes, so nothing would ever be merged; lower it",
        ),
        (
            limits.backlog_bytes > limits.backlogs_bytes,
            "limits",
            "backlog_bytes",
            "is over backlogs_bytes; raise backlogs_bytes",
        ),
        (
            clocks.first_byte > clocks.first_byte_large,
            "clocks",
            "first_byte",
            "is over first_byte_large, which is meant for slower starts",
        ),
        (
            clocks.progress > clocks.progress_unseen,
            "clocks",
            "progress",
            "is over progress_unseen, which is meant for longer silences",
        ),
        (clocks.drain > Duration::from_secs(600), "clocks", "drain", "is over 10 min, the most a drain may take"),
        (config.settings.retry.attempts_max == 0, "retry", "attempts_max", "is zero: no request would ever be sent"),
    ];
    for (broken, table, key, why) in rules {
        if broken {
            return Err(places.wrong(table, 0, key, why));
        }
    }
    let pool = config.settings.pool;
    for (key, span) in [("http2_start", pool.http2_start), ("http2_age", pool.http2_age)] {
        if span.is_zero() {
            return Err(places.wrong("pool", 0, key, "is zero: no HTTP/2 connection could be used"));
        }
    }
    let mut names = BTreeSet::new();
    for (n, organisation) in config.settings.organisations.iter().enumerate() {
        if !names.insert(&organisation.name) {
            return Err(places.wrong("organisation", n, "name", "two organisations have this name"));
        }
    }
    let times = [
        ("client_tls", clocks.client_tls),
        ("client_head", clocks.client_head),
        ("client_idle", clocks.client_idle),
        ("heartbeat", clocks.heartbeat),
        ("gap", clocks.gap),
        ("probe", clocks.probe),
        ("probe_answer", clocks.probe_answer),
        ("whole", clocks.whole),
    ];
    for (key, span) in times {
        if span.is_zero() {
            return Err(places.wrong("clocks", 0, key, "is zero: everything would time out at once"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../tidegate.example.toml");

    fn check(text: &str) -> Result<Config, String> {
        let env = |name: &str| (name == "ANTHROPIC_API_KEY").then(|| "sk-ant-1".to_owned());
        Config::parse(Path::new("t.toml"), text, &env).map_err(|e| e.0)
    }

    #[test]
    fn the_example_says_the_defaults() {
        let config = check(EXAMPLE).unwrap();
        let default = Config::default();
        let (a, b) = (&config.settings, &default.settings);
        assert_eq!((a.clocks, a.limits, a.retry, a.queue, a.pool), (b.clocks, b.limits, b.retry, b.queue, b.pool));
        assert_eq!((config.listen, config.admin, config.dial), (default.listen, default.admin, default.dial));
        assert_eq!(config.settings.organisations.len(), 1);
        assert!(config.check().is_ok());
    }

    #[test]
    fn the_example_names_every_setting() {
        let table: toml::Table = EXAMPLE.parse().unwrap();
        for (name, keys) in [
            ("clocks", ClocksTable::KEYS),
            ("dial", DialTable::KEYS),
            ("limits", LimitsTable::KEYS),
            ("queue", QueueTable::KEYS),
            ("retry", RetryTable::KEYS),
            ("pool", PoolTable::KEYS),
        ] {
            let shown: BTreeSet<&str> = table[name].as_table().unwrap().keys().map(String::as_str).collect();
            assert_eq!(shown, keys.iter().copied().collect(), "[{name}]");
        }
        for key in [
            "address",
            "admin",
            "threads",
            "format",
            "level",
            "certificate",
            "key",
            "ca_file",
            "client_key",
            "tenant",
            "hash",
            "auth",
            "http",
            "env",
            "file",
            "value",
        ] {
            assert!(EXAMPLE.contains(key), "{key}");
        }
    }

    #[test]
    fn every_error_names_file_line_key_and_remedy() {
        for (text, want) in [
            ("[limits]\nbody_bytez = 1\n", "t.toml:2: body_bytez: unknown field `body_bytez`"),
            (
                "[limits]\n\nbody_bytes = 5\n",
                "t.toml:3: body_bytes: invalid type: integer `5`, expected a quantity with its unit",
            ),
            ("[clocks]\ngap = \"45\"\n", "t.toml:2: gap: `45` is not a length of time; write for example"),
            ("[clocks]\ngap = \"45 MiB\"\n", "t.toml:2: gap: `45 MiB` is not a length of time"),
            ("[limits]\nbody_bytes = \"1 GiB\"\n", "t.toml:2: limits.body_bytes: is over bodies_bytes"),
            ("[clocks]\n# x\ndrain = \"1 h\"\n", "t.toml:3: clocks.drain: is over 10 min"),
            (
                "[[organisation]]\nname = \"a\"\nkeys = [{ env = \"NOPE\" }]\n",
                "t.toml:3: organisation.keys: the environment variable NOPE is not set",
            ),
            (
                "[[organisation]]\nname = \"a\"\nurl = \"ftp://x\"\nkeys = [{ value = \"k\" }]\n",
                "t.toml:3: organisation.url: `ftp://x` is not an upstream URL",
            ),
            (
                "[[organisation]]\nname = \"a\"\nhttp = \"3\"\nkeys = [{ value = \"k\" }]\n",
                "t.toml:3: http: unknown variant `3`, expected one of `auto`, `1.1`, `2`",
            ),
            ("[clocks]\nprobe = \"0 s\"\n", "t.toml:2: clocks.probe: is zero"),
            ("[pool]\nhttp2_age = \"0 s\"\n", "t.toml:2: pool.http2_age: is zero"),
            ("[[client_key]]\ntenant = \"a\"\nhash = \"tg_secret\"\n", "t.toml:3: client_key.hash: a key hash is"),
            ("[listen]\naddress = \"here\"\n", "t.toml:2: address: "),
            ("[limits\n", "t.toml:1: "),
            ("[tls]\ncertificate = \"a.pem\"\n", "t.toml:2: tls.certificate: stands alone; TLS also needs tls.key"),
            ("[tls]\n\nkey = \"a.pem\"\n", "t.toml:3: tls.key: stands alone; TLS also needs tls.certificate"),
        ] {
            let got = check(text).unwrap_err();
            assert!(got.starts_with(want), "{got}\nwanted {want}");
        }
    }

    #[test]
    fn no_error_shows_a_secret() {
        for text in [
            "[[organisation]]\nname = \"a\"\nkeys = [{ value = \"sk-ant-secret\", extra = 1 }]\n",
            "[[organisation]]\nname = \"a\"\nkeys = [{ valu = \"sk-ant-secret\" }]\n",
            "[[organisation]]\nname = \"a\"\nkeys = [{ value = \"sk-ant-secret\nx\" }]\n",
            "[[client_key]]\ntenant = \"a\"\nhash = \"sk-ant-secret\"\n",
        ] {
            let got = check(text).unwrap_err();
            assert!(!got.contains("sk-ant-secret"), "{got}");
        }
    }

    #[test]
    fn the_world_is_not_served_without_keys() {
        let mut config = check("").unwrap();
        config.use_upstream(API_URL, "k").unwrap();
        assert!(config.check().is_ok());
        config.listen = "0.0.0.0:4600".parse().unwrap();
        assert!(config.check().unwrap_err().to_string().contains("tidegate key new"));
    }
}
