//! `[[organisation]]`: where requests go, over which keys, and what is known of the limits.

use super::endpoint::{HeaderValue, headers, kept, models};
use super::places::Places;
use super::proxies::{ProxyChoice, proxy};
use super::secrets::secret;
use super::sources::Sources;
use super::{API_URL, ConfigError};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tidegate_base::Secret;
use tidegate_gateway::{Organisation, QuotaByClass, Workspace};
use tidegate_schedule::{Limits, WorkspaceId};
use tidegate_transport::HttpOffer;
use tidegate_upstream::{Lane, Scheme, Transport};

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

/// What is spoken to an upstream.
#[derive(Clone, Copy, serde::Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum Spoken {
    #[default]
    Http,
    Tidegate,
    Prompt,
}

impl Spoken {
    fn transport(self) -> Transport {
        match self {
            Spoken::Http => Transport::Http,
            Spoken::Tidegate => Transport::Tidegate,
            Spoken::Prompt => Transport::Prompt,
        }
    }
}

/// One key: where it comes from, which is exactly one of three, and its workspace.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, expecting = "where the key is, such as { env = \"NAME\" } or { file = \"PATH\" }")]
struct KeyTable {
    env: Option<String>,
    file: Option<PathBuf>,
    value: Option<String>,
    workspace: Option<String>,
}

/// What one class of models may use.
#[derive(Clone, Copy, serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct QuotaTable {
    requests_per_minute: Option<u64>,
    input_tokens_per_minute: Option<u64>,
    output_tokens_per_minute: Option<u64>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct WorkspaceTable {
    limits: BTreeMap<String, QuotaTable>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OrganisationTable {
    name: String,
    url: Option<String>,
    #[serde(default)]
    auth: Auth,
    #[serde(default)]
    transport: Spoken,
    #[serde(default)]
    http: Http,
    proxy: Option<ProxyChoice>,
    keys: Vec<KeyTable>,
    #[serde(default)]
    reserves_output: bool,
    #[serde(default)]
    models: BTreeMap<String, String>,
    #[serde(default)]
    headers: BTreeMap<String, HeaderValue>,
    #[serde(default)]
    limits: BTreeMap<String, QuotaTable>,
    #[serde(default)]
    workspace: BTreeMap<String, WorkspaceTable>,
}

/// Where requests go whose clients bring an upstream credential of their own.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OwnCredentialsTable {
    url: Option<String>,
    #[serde(default)]
    http: Http,
    proxy: Option<ProxyChoice>,
}

impl OrganisationTable {
    /// Every file it names.
    pub(super) fn files(&mut self) -> Vec<&mut PathBuf> {
        let keys = self.keys.iter_mut().filter_map(|key| key.file.as_mut());
        let headers = self.headers.values_mut().filter_map(HeaderValue::file);
        keys.chain(headers).chain(self.proxy.as_mut().and_then(ProxyChoice::file)).collect()
    }
}

impl OwnCredentialsTable {
    /// Every file it names.
    pub(super) fn files(&mut self) -> Option<&mut PathBuf> {
        self.proxy.as_mut().and_then(ProxyChoice::file)
    }

    /// The way there: a lane without a key.
    pub(super) fn lane(&self, places: &Places<'_>, variables: Variables<'_>) -> Result<Arc<Lane>, ConfigError> {
        let url = self.url.as_deref().unwrap_or(API_URL);
        let wrong = |key: &str, why: &str| places.wrong("own_credentials", 0, key, why);
        let lane = Lane::new("own", url, Scheme::ApiKey, Secret::new("")).map_err(|e| wrong("url", &e.0))?;
        let through = proxy(self.proxy.as_ref(), &lane.target, variables).map_err(|why| wrong("proxy", &why))?;
        Ok(Arc::new(lane.offering(self.http.offer()).through(through)))
    }
}

/// Reads variables of the environment.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where an organisation's secrets are, and the variables of the machine. They are not the same
/// where its secrets will not be used.
#[derive(Clone, Copy)]
pub(super) struct Variables<'a> {
    pub(super) secrets: &'a dyn Sources,
    pub(super) machine: Env<'a>,
}

/// The `n`th table as an organisation.
pub(super) fn organisation(
    places: &Places<'_>,
    n: usize,
    table: &OrganisationTable,
    variables: Variables<'_>,
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
    let transport = table.transport.transport();
    if transport != Transport::Http && table.url.is_none() {
        return Err(wrong("transport", "needs the `url` of what speaks it, ws:// or wss://"));
    }
    let mut made = Organisation::new(table.name.clone(), Vec::new());
    made.reserves_output = table.reserves_output;
    made.models = models(&table.models).map_err(|why| wrong("models", &why))?;
    let lines = headers(&table.headers, variables.secrets).map_err(|why| wrong("headers", &why))?;
    made.limits = quota(places, n, "limits", &table.limits)?;
    for (name, workspace) in &table.workspace {
        if !table.keys.iter().any(|key| key.workspace.as_ref() == Some(name)) {
            let why = format!("no key belongs to it; write {{ env = \"...\", workspace = \"{name}\" }} in `keys`");
            return Err(places.wrong_in("organisation", n, "workspace", name, &why));
        }
        let limits = quota(places, n, &format!("workspace.{name}.limits"), &workspace.limits)?;
        made.workspaces.push(Workspace { name: name.clone(), limits });
    }
    for (k, key) in table.keys.iter().enumerate() {
        made.lane_workspaces.push(key.workspace.as_ref().map(|name| workspace(&mut made.workspaces, name)));
        let secret = secret(key.value.as_ref(), key.env.as_ref(), key.file.as_ref(), variables.secrets)
            .map_err(|why| wrong("keys", &why))?;
        if secret.is_empty() {
            return Err(wrong("keys", &format!("key number {} is empty", k + 1)));
        }
        let url = table.url.as_deref().unwrap_or(API_URL);
        let lane = Lane::over(transport, format!("{}/{}", table.name, k + 1), url, scheme, Secret::new(secret));
        let at = |e: &tidegate_upstream::LaneError| if e.0.contains("key has") { "keys" } else { "url" };
        let lane = lane.map_err(|e| wrong(at(&e), &e.0))?.offering(table.http.offer());
        let through = proxy(table.proxy.as_ref(), &lane.target, variables).map_err(|why| wrong("proxy", &why))?;
        made.lanes
            .push(Arc::new(lane.with_headers(lines.clone()).hiding(kept(&table.headers, &lines)).through(through)));
    }
    Ok(made)
}

/// The workspace called `name`, made if it has no limits of its own.
fn workspace(all: &mut Vec<Workspace>, name: &str) -> WorkspaceId {
    let at = all.iter().position(|w| w.name == name).unwrap_or_else(|| {
        all.push(Workspace { name: name.to_owned(), ..Workspace::default() });
        all.len() - 1
    });
    // At most one for each key, and of keys there are a thousand.
    WorkspaceId(at as u16)
}

/// Limits by class, from the table `inner` of the `n`th organisation.
fn quota(
    places: &Places<'_>,
    n: usize,
    inner: &str,
    table: &BTreeMap<String, QuotaTable>,
) -> Result<QuotaByClass, ConfigError> {
    let mut quota = QuotaByClass::new();
    for (class, t) in table {
        let limits = [
            ("requests_per_minute", t.requests_per_minute),
            ("input_tokens_per_minute", t.input_tokens_per_minute),
            ("output_tokens_per_minute", t.output_tokens_per_minute),
        ];
        if let Some((key, _)) = limits.into_iter().find(|(_, limit)| *limit == Some(0)) {
            let why = "is zero: no request could ever be sent; leave it out where it is not known";
            return Err(places.wrong_in("organisation", n, &format!("{inner}.{class}"), key, why));
        }
        let [requests, input_tokens, output_tokens] = limits.map(|(_, limit)| limit);
        quota.insert(class.clone(), Limits { requests, input_tokens, output_tokens });
    }
    Ok(quota)
}
