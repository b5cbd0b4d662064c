//! The configuration file: TOML in, settings out, or one error that names file, line, key and
//! remedy.
//!
//! Every quantity carries its unit in the value (`"30 s"`, `"32 MiB"`), so none can be a thousand
//! times off unseen. An unknown key is an error. `tidegate.example.toml` shows every setting with
//! its default; a test holds the two together.

mod contradictions;
mod conversations;
mod costs;
mod endpoint;
mod files;
mod keys;
mod organisation;
mod passing;
mod places;
mod proxies;
mod redact;
mod schema;
mod secrets;
mod sources;
mod tables;
mod tenant;
mod values;

#[cfg(test)]
mod tests;

use crate::keys_file::KeysFile;
use contradictions::contradictions;
use conversations::ConversationsTable;
use costs::{PriceTable, UsageTable};
pub(crate) use files::beside;
use keys::KeysTable;
use organisation::{OrganisationTable, OwnCredentialsTable, Variables, organisation};
use passing::PassThroughTable;
use places::Places;
pub(crate) use redact::KEY_BYTES;
pub use redact::Redact;
use redact::RedactTable;
pub use sources::Sources;
use sources::{NotMissed, OfMachine, text};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tables::{
    ClocksTable, DialTable, Format, LimitsTable, ListenTable, LogTable, PoolTable, QueueTable, RetryTable, SocketsTable,
};
use tenant::{ClientKeyTable, TenantTable, client_key, tenants};
use tidegate_base::Secret;
use tidegate_gateway::{Organisation, Settings};
use tidegate_transport::{DialClocks, ServerTls, TlsFiles, TlsRoots};
use tidegate_upstream::{Lane, Scheme};

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
    /// The file it was read from, if it was.
    pub path: Option<PathBuf>,
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
    /// The file that conversations are kept in, if they are.
    pub conversations: Option<PathBuf>,
    /// The file that it is kept in what was used, if it is one of its own.
    pub usage: Option<PathBuf>,
    /// How the conversations' file is used.
    pub store: tidegate_store::Settings,
    /// What is done with personal data; made into the gateway's settings when it starts.
    pub redact: Redact,
    /// The file of client keys, if there is one, and what stands in it.
    pub(crate) keys_file: Option<(PathBuf, KeysFile)>,
}

/// Most bytes of one conversation: it is held in memory whole while it has a turn.
const CONVERSATION_BYTES: u64 = 64 << 20;

impl Default for Config {
    fn default() -> Self {
        Config {
            path: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 4600)),
            admin: SocketAddr::from(([127, 0, 0, 1], 4601)),
            threads: None,
            log_json: false,
            log_level: "info".to_owned(),
            tls: None,
            roots: TlsRoots::Machine,
            dial: DialClocks::default(),
            settings: Settings::default(),
            conversations: None,
            usage: None,
            store: tidegate_store::Settings {
                conversation_bytes_max: CONVERSATION_BYTES,
                ..tidegate_store::Settings::default()
            },
            redact: Redact::default(),
            keys_file: None,
        }
    }
}

/// The API itself.
pub const API_URL: &str = "https://api.anthropic.com";

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct TlsTable {
    certificate: Option<std::path::PathBuf>,
    key: Option<std::path::PathBuf>,
    ca_file: Option<std::path::PathBuf>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct File {
    listen: ListenTable,
    log: LogTable,
    tls: TlsTable,
    organisation: Vec<OrganisationTable>,
    own_credentials: Option<OwnCredentialsTable>,
    client_key: Vec<ClientKeyTable>,
    keys: KeysTable,
    tenant: Vec<TenantTable>,
    clocks: ClocksTable,
    dial: DialTable,
    limits: LimitsTable,
    queue: QueueTable,
    retry: RetryTable,
    pool: PoolTable,
    sockets: SocketsTable,
    pass_through: PassThroughTable,
    conversations: ConversationsTable,
    usage: UsageTable,
    price: Vec<PriceTable>,
    redact: RedactTable,
}

fn read(path: &Path, sources: &dyn Sources) -> Result<String, ConfigError> {
    text(sources, path).map_err(|e| ConfigError(format!("{}: cannot be read: {e}", path.display())))
}

/// For who wants none of its secrets.
const NO_VARIABLES: OfMachine<'static> = OfMachine(&|_| None);

impl File {
    /// The tables of a text, with their paths found.
    fn of(places: &Places<'_>) -> Result<Self, ConfigError> {
        let mut file: File = toml::from_str(places.text).map_err(|e| places.unreadable(&e))?;
        files::find(&mut file, places.path);
        Ok(file)
    }

    fn at(path: &Path) -> Result<Self, ConfigError> {
        File::of(&Places { path, text: &read(path, &NO_VARIABLES)? })
    }
}

impl Config {
    /// Reads the file at `path`; `env` looks variables up.
    pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        Config::load_from(path, &OfMachine(env), false)
    }

    /// The same, with everything from `sources`.
    ///
    /// `for_simulator`: for a gateway whose upstreams will be others. What the file's organisations would
    /// take from variables that are not set is not missed.
    pub fn load_from(path: &Path, sources: &dyn Sources, for_simulator: bool) -> Result<Self, ConfigError> {
        let text = read(path, sources)?;
        let secrets: &dyn Sources = if for_simulator { &NotMissed(sources) } else { sources };
        Config::parse_with(path, &text, secrets, sources)
    }

    /// Reads `text`, which came from `path`.
    pub fn parse(path: &Path, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let sources = OfMachine(env);
        Config::parse_with(path, text, &sources, &sources)
    }

    /// Organisations' secrets are in `secrets`, all else in `sources`.
    fn parse_with(path: &Path, text: &str, secrets: &dyn Sources, sources: &dyn Sources) -> Result<Self, ConfigError> {
        let machine = |name: &str| sources.variable(name);
        let variables = Variables { secrets, machine: &machine };
        let places = Places { path, text };
        let file = File::of(&places)?;
        let mut config =
            Config { path: Some(beside(path, path.file_name().map_or(path, Path::new))), ..Config::default() };
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
        file.queue.over(&mut settings.schedule);
        file.retry.set(&mut settings.schedule.retry);
        file.pool.set(&mut settings.pool);
        file.sockets.set(&mut settings.sockets);
        file.pass_through.set(&places, &mut settings.pass_through)?;
        for (n, table) in file.organisation.iter().enumerate() {
            settings.organisations.push(organisation(&places, n, table, variables)?);
        }
        for (n, table) in file.client_key.iter().enumerate() {
            settings.keys.push(client_key(&places, n, table)?);
        }
        file.keys.set(&places, sources, &mut config)?;
        let settings = &mut config.settings;
        settings.own_credentials = file
            .own_credentials
            .map(|table| table.lane(&places, Variables { secrets: sources, ..variables }))
            .transpose()?;
        settings.tenants = tenants(&places, &file.tenant, settings)?;
        costs::prices(&places, &file.price, &mut settings.costs.prices)?;
        file.conversations.set(&places, &mut config)?;
        file.usage.set(&places, &mut config)?;
        config.redact = file.redact.over(&places, file.tenant.iter().map(TenantTable::redact), Some(sources))?;
        contradictions(&places, &config)?;
        Ok(config)
    }

    /// The JSON Schema of a configuration file.
    pub fn schema() -> serde_json::Value {
        schema::schema()
    }

    /// The rules of redaction in the file at `path`, and its keys if they are asked for: whoever wants
    /// the rules alone need not have any of the file's secrets.
    pub fn redaction_in(
        path: &Path,
        env: &dyn Fn(&str) -> Option<String>,
        with_keys: bool,
    ) -> Result<Redact, ConfigError> {
        let sources = OfMachine(env);
        let text = read(path, &sources)?;
        let places = Places { path, text: &text };
        let file = File::of(&places)?;
        let tenants = file.tenant.iter().map(TenantTable::redact);
        file.redact.over(&places, tenants, with_keys.then_some(&sources as &dyn Sources))
    }

    /// The file of client keys that the configuration at `path` names, without reading it or any secret.
    pub fn keys_in(path: &Path) -> Result<Option<PathBuf>, ConfigError> {
        let file = File::at(path)?;
        Ok(file.keys.file)
    }

    /// Whether the configuration at `path` has a table for `tenant`, or none for anybody.
    pub(crate) fn knows_tenant(path: &Path, tenant: &str) -> Result<bool, ConfigError> {
        let file = File::at(path)?;
        Ok(file.tenant.is_empty() || file.tenant.iter().any(|table| table.redact().0 == tenant))
    }

    /// The file of conversations that the configuration at `path` names, without any of its secrets.
    pub fn conversations_in(path: &Path) -> Result<Option<PathBuf>, ConfigError> {
        let file = File::at(path)?;
        Ok(file.conversations.file)
    }

    /// Where the configuration at `path` has operators connect, without any of its secrets.
    pub fn admin_in(path: &Path) -> Result<SocketAddr, ConfigError> {
        let file = File::at(path)?;
        Ok(file.listen.admin.unwrap_or(Config::default().admin))
    }

    /// An organisation made of flags or the environment, in place of the file's; `env` looks up which
    /// proxy leads there.
    pub fn use_upstream(
        &mut self,
        url: &str,
        key: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), ConfigError> {
        let lane =
            Lane::new("default/1", url, Scheme::ApiKey, Secret::new(key)).map_err(|e| ConfigError(e.to_string()))?;
        let through = proxies::of_environment(&lane.target, env).map_err(ConfigError)?;
        self.settings.organisations = vec![Organisation::new("default", vec![Arc::new(lane.through(through))])];
        Ok(())
    }

    /// Reads the certificate and key of TLS towards clients, if there are any.
    pub fn server_tls(&self) -> Result<Option<ServerTls>, ConfigError> {
        self.server_tls_from(&NO_VARIABLES)
    }

    /// The same, from `sources`.
    pub fn server_tls_from(&self, sources: &dyn Sources) -> Result<Option<ServerTls>, ConfigError> {
        let load = |files| ServerTls::load_with(files, &|path| sources.file(path));
        self.tls.as_ref().map(load).transpose().map_err(|e| ConfigError(e.to_string()))
    }

    /// What must hold whatever the sources were: flags can contradict the file too.
    pub fn check(&self) -> Result<(), ConfigError> {
        let (listen, admin) = (self.listen, self.admin);
        let same =
            |a: SocketAddr, b: SocketAddr| a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
        if listen.port() != 0 && listen.port() == admin.port() && same(listen, admin) {
            return Err(ConfigError(format!(
                "clients connect to {listen} and operators to {admin}, which is the same port; give one of listen.address (--listen) and listen.admin (--admin-listen) another"
            )));
        }
        let own = self.settings.own_credentials.is_some();
        if self.settings.keys.is_empty() && !self.settings.keys_only && !own && !self.listen.ip().is_loopback() {
            return Err(ConfigError(format!(
                "listening on {} needs client keys: without any, only clients on this machine are served; make one with `tidegate key new`, or listen on 127.0.0.1",
                self.listen
            )));
        }
        if self.settings.organisations.is_empty() && !own {
            let why = match &self.path {
                Some(_) => "there is no upstream: write an [[organisation]] with its keys, or set ANTHROPIC_API_KEY",
                None => {
                    "there is no upstream: set ANTHROPIC_API_KEY, or name one in a file with --config, or try `tidegate serve --simulate`"
                }
            };
            return Err(ConfigError(why.to_owned()));
        }
        if let Some(file) = self.conversations.as_ref().filter(|_| self.redact.needs_passing_keys()) {
            return Err(ConfigError(format!(
                "masking by tokens keeps what it takes out, sealed, in {}, and there are no keys for that: make two with `tidegate key vault FILE` and name them as scope_key and vault_keys of [redact], or write style = \"tag\" there, which keeps nothing",
                file.display()
            )));
        }
        Ok(())
    }
}
