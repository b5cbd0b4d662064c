//! `[[client_key]]` and `[[tenant]]`: who may ask, and how much.

use super::ConfigError;
use super::conversations::keep;
use super::costs::BudgetTable;
use super::places::Places;
use super::redact::RedactTable;
use super::values::{Size, Time};
use std::collections::BTreeSet;
use std::path::PathBuf;
use tidegate_gateway::{ClientKey, KeyHashError, Settings, TenantSettings};
use tidegate_schedule::{Band, TenantRules};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientKeyTable {
    tenant: String,
    hash: String,
}

/// The `n`th table as a client's key.
pub(super) fn client_key(places: &Places<'_>, n: usize, table: &ClientKeyTable) -> Result<ClientKey, ConfigError> {
    let wrong = |key: &str, why: &str| places.wrong("client_key", n, key, why);
    let hash = table.hash.parse().map_err(|e: KeyHashError| wrong("hash", &e.to_string()))?;
    if table.tenant.is_empty() || table.tenant.len() > 64 {
        return Err(wrong("tenant", "a tenant's name has 1 to 64 characters"));
    }
    Ok(ClientKey { tenant: table.tenant.as_str().into(), hash, expires_ms: None })
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantTable {
    name: String,
    weight: Option<f64>,
    requests_per_minute: Option<u64>,
    tokens_per_minute: Option<u64>,
    concurrent_streams: Option<u32>,
    band: Option<String>,
    window: Option<u64>,
    keep_age: Option<Time>,
    keep_conversations: Option<u64>,
    keep_bytes: Option<Size>,
    budget: Option<BudgetTable>,
    redact: Option<RedactTable>,
}

impl TenantTable {
    /// Every file it names.
    pub(super) fn files(&mut self) -> Vec<&mut PathBuf> {
        self.redact.as_mut().map_or_else(Vec::new, RedactTable::files)
    }

    /// Whose it is, and its own rules of redaction.
    pub(super) fn redact(&self) -> (&str, Option<&RedactTable>) {
        (&self.name, self.redact.as_ref())
    }
}

/// The tables as what tenants may use.
pub(super) fn tenants(
    places: &Places<'_>,
    tables: &[TenantTable],
    settings: &Settings,
) -> Result<Vec<TenantSettings>, ConfigError> {
    let mut names = BTreeSet::new();
    let mut known: BTreeSet<&str> = settings.keys.iter().map(|key| &*key.tenant).collect();
    if known.is_empty() {
        // Whoever asks without a key.
        known.insert("default");
    }
    if settings.own_credentials.is_some() {
        known.insert("own");
    }
    let mut tenants = Vec::new();
    for (n, table) in tables.iter().enumerate() {
        let wrong = |key: &str, why: &str| places.wrong("tenant", n, key, why);
        // Where keys have a file of their own they come and go, and a tenant may have none for a while.
        if !settings.keys_only && !known.contains(table.name.as_str()) {
            return Err(wrong("name", "no [[client_key]] has this tenant (without any client key it is `default`)"));
        }
        if !names.insert(&table.name) {
            return Err(wrong("name", "two tables have this tenant"));
        }
        let weight = table.weight.unwrap_or(1.0);
        if !(0.001..=1000.0).contains(&weight) {
            return Err(wrong("weight", "a weight is a number from 0.001 to 1000; 1 is the usual one"));
        }
        let zeros = [
            ("requests_per_minute", table.requests_per_minute == Some(0)),
            ("tokens_per_minute", table.tokens_per_minute == Some(0)),
            ("concurrent_streams", table.concurrent_streams == Some(0)),
            ("window", table.window == Some(0)),
        ];
        if let Some((key, _)) = zeros.into_iter().find(|(_, zero)| *zero) {
            return Err(wrong(
                key,
                "is zero: nothing would be served; leave it out for no limit, or take its keys away",
            ));
        }
        let band = match table.band.as_deref() {
            None => None,
            Some(name) => Some(
                Band::of_name(name)
                    .ok_or_else(|| wrong("band", "a band is `interactive`, `normal` or `background`"))?,
            ),
        };
        let rules = TenantRules {
            weight,
            requests: table.requests_per_minute,
            tokens: table.tokens_per_minute,
            concurrent: table.concurrent_streams,
        };
        let keep = keep(table.keep_age.as_ref(), table.keep_conversations, table.keep_bytes.as_ref())
            .map_err(|(key, why)| wrong(key, why))?;
        let budget = table.budget.as_ref().map(|budget| budget.budget(&table.name)).transpose();
        let budget = budget.map_err(|why| wrong("budget", why))?;
        let name = table.name.as_str().into();
        tenants.push(TenantSettings { name, rules, band, window: table.window, keep, budget });
    }
    Ok(tenants)
}
