//! `[redact]`: what is done with personal data and secrets, for all and by tenant, and the keys of
//! the vault.
//!
//! A tenant's own table stands in place of the one for all key by key; a `policy` there brings its own
//! `kinds` along, as those of the other table are exceptions from another policy.

use super::ConfigError;
use super::places::Places;
use super::secrets::secret;
use super::sources::Sources;
use crate::cli::{RedactPolicy, RedactStyle, RedactUnscannable};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use tidegate_base::Secret;
use tidegate_gateway::redaction::{Redaction, VaultKeys};
use tidegate_redact::detect::{LookingError, Pattern};
use tidegate_redact::kind::{KINDS, Kind};
use tidegate_redact::mask::Filter;
use tidegate_redact::rules::{Policy, Rules, Style, Unscannable};
use tidegate_redact::vault::{KeyRing, RING_KEYS_MAX};
use zeroize::Zeroizing;

/// Bytes of a key, of either sort.
pub(crate) const KEY_BYTES: usize = 32;
/// Longest name of a pattern: it stands in reports.
const NAME_CHARS_MAX: usize = 64;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PatternTable {
    name: String,
    regex: String,
}

/// A key, and where it comes from: exactly one of three. A key of the ring has a number.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, expecting = "where the key is, such as { env = \"NAME\" } or { file = \"PATH\" }")]
struct KeyTable {
    id: Option<u32>,
    env: Option<String>,
    file: Option<PathBuf>,
    value: Option<String>,
}

/// `[redact]`, or a tenant's own.
#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RedactTable {
    policy: Option<RedactPolicy>,
    kinds: Option<BTreeMap<String, RedactPolicy>>,
    style: Option<RedactStyle>,
    unscannable: Option<RedactUnscannable>,
    private_ips: Option<bool>,
    allow: Option<Vec<String>>,
    allow_patterns: Option<Vec<String>>,
    patterns: Option<Vec<PatternTable>>,
    // These three are of the gateway as a whole.
    explain: Option<bool>,
    scope_key: Option<KeyTable>,
    vault_keys: Option<Vec<KeyTable>>,
}

impl RedactTable {
    /// Every file it names.
    pub(super) fn files(&mut self) -> Vec<&mut PathBuf> {
        let keys = self.vault_keys.iter_mut().flatten().chain(&mut self.scope_key);
        keys.filter_map(|key| key.file.as_mut()).collect()
    }
}

/// What is done with personal data, as the configuration has it.
#[derive(Clone, Debug)]
pub struct Redact {
    all: Ruled,
    tenants: BTreeMap<Arc<str>, Ruled>,
    explain: bool,
    keys: Option<Keys>,
}

/// Rules, and what their policies were made of.
#[derive(Clone, Debug, Default)]
struct Ruled {
    rules: Rules,
    /// The policy of a tenant's own table.
    policy: Option<Policy>,
    /// What single kinds have beside it; a tenant that does not say has those of all.
    kinds: Option<BTreeMap<Kind, Policy>>,
}

/// The keys, in hexadecimal.
#[derive(Clone, Debug)]
struct Keys {
    scope: Secret,
    ring: Vec<(u32, Secret)>,
}

impl Default for Redact {
    fn default() -> Self {
        Redact { all: Ruled::default(), tenants: BTreeMap::new(), explain: true, keys: None }
    }
}

/// Where a table of rules stands, for its errors.
#[derive(Clone, Copy)]
struct At<'a, 'p> {
    places: &'a Places<'p>,
    /// The number of the tenant's table, if it is one's.
    tenant: Option<usize>,
}

impl At<'_, '_> {
    fn wrong(&self, key: &str, why: &str) -> ConfigError {
        match self.tenant {
            Some(n) => self.places.wrong_in("tenant", n, "redact", key, why),
            None => self.places.wrong("redact", 0, key, why),
        }
    }

    fn wrong_in(&self, inner: &str, key: &str, why: &str) -> ConfigError {
        match self.tenant {
            Some(n) => self.places.wrong_in("tenant", n, &format!("redact.{inner}"), key, why),
            None => self.places.wrong_in("redact", 0, inner, key, why),
        }
    }

    /// An error about the `n`th of the operator's patterns.
    fn wrong_pattern(&self, n: usize, key: &str, why: &str) -> ConfigError {
        match self.tenant {
            Some(tenant) => self.places.wrong_in("tenant", tenant, "redact.patterns", key, why),
            None => self.places.wrong("redact.patterns", n, key, why),
        }
    }
}

/// Every kind's name, for errors.
fn kind_names() -> String {
    Kind::ALL.map(Kind::name).join(", ")
}

/// The policies of single kinds, if there are any.
fn exceptions(
    at: At<'_, '_>,
    kinds: Option<&BTreeMap<String, RedactPolicy>>,
) -> Result<Option<BTreeMap<Kind, Policy>>, ConfigError> {
    let one = |(name, policy): (&String, &RedactPolicy)| match Kind::of_name(name) {
        Some(kind) => Ok((kind, Policy::from(*policy))),
        None => Err(at.wrong_in("kinds", name, &format!("there is no such kind; there are {}", kind_names()))),
    };
    kinds.map(|kinds| kinds.iter().map(one).collect()).transpose()
}

/// A policy for all kinds but those that have their own.
fn policies(base: Policy, exceptions: &BTreeMap<Kind, Policy>) -> [Policy; KINDS] {
    let mut policies = Rules::all(base).policies;
    for (kind, policy) in exceptions {
        policies[kind.index()] = *policy;
    }
    policies
}

impl RedactTable {
    /// Every key of it.
    #[cfg(test)]
    pub(super) const KEYS: &[&str] = &[
        "policy",
        "kinds",
        "style",
        "unscannable",
        "private_ips",
        "allow",
        "allow_patterns",
        "patterns",
        "explain",
        "scope_key",
        "vault_keys",
    ];

    /// What this table says over `rules`; the policies are set by the caller.
    fn set(&self, at: At<'_, '_>, rules: &mut Rules) -> Result<(), ConfigError> {
        rules.style = self.style.map_or(rules.style, Style::from);
        rules.unscannable = self.unscannable.map_or(rules.unscannable, Into::into);
        let looking = &mut rules.looking;
        looking.private_ips = self.private_ips.unwrap_or(looking.private_ips);
        looking.allow = self.allow.clone().unwrap_or(std::mem::take(&mut looking.allow));
        looking.allow_patterns = self.allow_patterns.clone().unwrap_or(std::mem::take(&mut looking.allow_patterns));
        if let Some(patterns) = &self.patterns {
            let mut names = BTreeSet::new();
            for (n, pattern) in patterns.iter().enumerate() {
                if !(1..=NAME_CHARS_MAX).contains(&pattern.name.chars().count())
                    || pattern.name.chars().any(char::is_control)
                {
                    return Err(at.wrong_pattern(n, "name", "a pattern's name has 1 to 64 characters"));
                }
                if !names.insert(&pattern.name) {
                    return Err(at.wrong_pattern(n, "name", "two patterns have this name"));
                }
            }
            let pattern = |p: &PatternTable| Pattern { name: p.name.clone(), regex: p.regex.clone() };
            looking.patterns = patterns.iter().map(pattern).collect();
        }
        if let Some(empty) = looking.allow.iter().find(|value| value.trim().trim_matches('@').is_empty()) {
            return Err(at.wrong("allow", &format!("`{empty}` is no value")));
        }
        if self.patterns.is_none() && self.allow.is_none() && self.allow_patterns.is_none() {
            return Ok(());
        }
        // Whether they can be used is found out here, with the place, and not at the first request.
        match Filter::new(rules.clone()) {
            Ok(_) => Ok(()),
            Err(LookingError::Pattern(error)) => {
                let own = rules.looking.patterns.iter().position(|p| error.pattern() == Some(&p.name));
                Err(match own {
                    Some(n) => at.wrong_pattern(n, "regex", &error.to_string()),
                    None if error.pattern().is_some() => at.wrong("allow_patterns", &error.to_string()),
                    None => at.wrong("patterns", &error.to_string()),
                })
            }
            Err(error) => Err(at.wrong("patterns", &error.to_string())),
        }
    }

    /// What stands in the table, and in those of the tenants. Without an environment keys are left out.
    pub(super) fn over<'t>(
        &self,
        places: &Places<'_>,
        tenants: impl Iterator<Item = (&'t str, Option<&'t RedactTable>)>,
        env: Option<&dyn Sources>,
    ) -> Result<Redact, ConfigError> {
        let at = At { places, tenant: None };
        let mut redact = Redact::default();
        redact.explain = self.explain.unwrap_or(redact.explain);
        if let Some(env) = env {
            redact.keys = keys(at, self.scope_key.as_ref(), self.vault_keys.as_deref(), env)?;
        }
        let base = self.policy.map_or(Policy::Off, Policy::from);
        redact.all.kinds = exceptions(at, self.kinds.as_ref())?;
        self.set(at, &mut redact.all.rules)?;
        for (n, (name, table)) in tenants.enumerate() {
            let Some(table) = table else { continue };
            let at = At { places, tenant: Some(n) };
            let wholes = [
                ("explain", table.explain.is_some()),
                ("scope_key", table.scope_key.is_some()),
                ("vault_keys", table.vault_keys.is_some()),
            ];
            if let Some((key, _)) = wholes.into_iter().find(|(_, is_there)| *is_there) {
                return Err(at.wrong(key, "is no tenant's own: it stands in [redact]"));
            }
            let mut own = Ruled { policy: table.policy.map(Policy::from), ..redact.all.clone() };
            own.kinds = exceptions(at, table.kinds.as_ref())?;
            table.set(at, &mut own.rules)?;
            redact.tenants.insert(name.into(), own);
        }
        redact.rule(base);
        Ok(redact)
    }
}

/// The keys, if there are any: both sorts or neither.
fn keys(
    at: At<'_, '_>,
    scope: Option<&KeyTable>,
    ring: Option<&[KeyTable]>,
    sources: &dyn Sources,
) -> Result<Option<Keys>, ConfigError> {
    let read = |name: &str, key: &KeyTable| {
        let text = secret(key.value.as_ref(), key.env.as_ref(), key.file.as_ref(), sources);
        let text = Secret::new(text.map_err(|why| at.wrong(name, &why))?);
        match bytes(&text) {
            Some(_) => Ok(text),
            None => Err(at.wrong(
                name,
                "is no key: a key is 64 hexadecimal digits; make a file with one by `tidegate key vault FILE`",
            )),
        }
    };
    let (scope, ring) = match (scope, ring) {
        (None, None | Some([])) => return Ok(None),
        (Some(scope), Some(ring)) if !ring.is_empty() => (scope, ring),
        (Some(_), _) => return Err(at.wrong("scope_key", "stands alone; values are sealed by redact.vault_keys")),
        (None, _) => return Err(at.wrong("vault_keys", "stand alone; tokens are made by redact.scope_key")),
    };
    if scope.id.is_some() {
        return Err(at.wrong("scope_key", "has no `id`: there is one, and it is not changed"));
    }
    if ring.len() > RING_KEYS_MAX {
        return Err(at.wrong("vault_keys", &format!("are more than {RING_KEYS_MAX}; take out the oldest")));
    }
    let scope = read("scope_key", scope)?;
    let mut keys: Vec<(u32, Secret)> = Vec::with_capacity(ring.len());
    for key in ring {
        let id = key.id.ok_or_else(|| at.wrong("vault_keys", "each has an `id`, a number that stays with it"))?;
        if keys.iter().any(|(other, _)| *other == id) {
            return Err(at.wrong("vault_keys", &format!("two have the id {id}")));
        }
        keys.push((id, read("vault_keys", key)?));
    }
    Ok(Some(Keys { scope, ring: keys }))
}

/// The bytes of a key in hexadecimal, if it is one.
fn bytes(text: &Secret) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let digits = text.expose().as_bytes();
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    if digits.len() != 2 * KEY_BYTES {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(key)
}

impl Redact {
    /// Sets everybody's policies, with `base` for all kinds of all tenants of which nothing else is said.
    fn rule(&mut self, base: Policy) {
        let exceptions = self.all.kinds.clone().unwrap_or_default();
        self.all.rules.policies = policies(base, &exceptions);
        for own in self.tenants.values_mut() {
            // Exceptions of all are exceptions from another policy than a tenant's own.
            let inherited = if own.policy.is_none() { exceptions.clone() } else { BTreeMap::new() };
            let kinds = own.kinds.as_ref().unwrap_or(&inherited);
            own.rules.policies = policies(own.policy.unwrap_or(base), kinds);
        }
    }

    /// `--redact`: this policy in place of the one for all; what is said of single kinds and of single
    /// tenants stays. `off` is off for everybody.
    pub fn use_policy(&mut self, policy: Policy) {
        if policy == Policy::Off {
            for ruled in self.tenants.values_mut().chain([&mut self.all]) {
                (ruled.policy, ruled.kinds) = (None, None);
            }
        }
        self.rule(policy);
    }

    /// The rules of a tenant; without a name, those of all that have none of their own.
    pub fn rules(&self, tenant: Option<&str>) -> &Rules {
        let own = tenant.and_then(|name| self.tenants.get(name));
        &own.unwrap_or(&self.all).rules
    }

    fn every(&self) -> impl Iterator<Item = &Rules> {
        self.tenants.values().chain([&self.all]).map(|ruled| &ruled.rules)
    }

    /// Whether values get tokens somewhere.
    pub fn makes_tokens(&self) -> bool {
        let makes = |rules: &Rules| rules.style == Style::Token && rules.policies.contains(&Policy::Mask);
        self.every().any(makes)
    }

    /// The scope key, if there is one.
    pub(crate) fn scope_key(&self) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
        self.keys.as_ref().and_then(|keys| bytes(&keys.scope))
    }

    /// Both sorts of keys, if there are any.
    pub(crate) fn vault_keys(&self) -> Result<Option<VaultKeys>, ConfigError> {
        let Some(keys) = &self.keys else { return Ok(None) };
        let unusable = || ConfigError("redact: the keys cannot be used".to_owned());
        let master = bytes(&keys.scope).ok_or_else(unusable)?;
        let ring = keys.ring.iter().map(|(id, key)| Some((*id, *bytes(key)?)));
        let ring = KeyRing::new(ring.collect::<Option<Vec<_>>>().ok_or_else(unusable)?).map_err(|_| unusable())?;
        Ok(Some(VaultKeys::new(master, ring)))
    }

    /// Whether keys have to be made for this process: they are needed, and there are none.
    pub fn needs_passing_keys(&self) -> bool {
        self.makes_tokens() && self.keys.is_none()
    }

    /// What the gateway is told. Keys made for this process, one of each sort, take the place of those
    /// that the configuration does not have.
    pub fn redaction(&self, passing: Option<[[u8; KEY_BYTES]; 2]>) -> Result<Redaction, ConfigError> {
        let keys = match (self.vault_keys()?, passing) {
            (Some(keys), _) => Some(keys),
            (None, Some([master, seal])) => {
                let ring = KeyRing::new([(0, seal)]).map_err(|e| ConfigError(e.to_string()))?;
                Some(VaultKeys::new(Zeroizing::new(master), ring))
            }
            (None, None) => None,
        };
        let filter = |rules: &Rules| {
            let filter = (!rules.is_off()).then(|| Filter::new(rules.clone())).transpose();
            filter.map(|filter| filter.map(Arc::new)).map_err(|e| ConfigError(format!("redact: {e}")))
        };
        let mut redaction = keys.map_or_else(Redaction::off, Redaction::with_keys).explained(self.explain);
        redaction = redaction.for_all(filter(&self.all.rules)?);
        for (tenant, own) in &self.tenants {
            redaction = redaction.for_tenant(Arc::clone(tenant), filter(&own.rules)?);
        }
        Ok(redaction)
    }

    /// What holds, in a line for people.
    pub fn told(&self) -> String {
        if self.every().all(Rules::is_off) {
            return "off: personal data in requests goes out as it is (--redact mask)".to_owned();
        }
        let mut line = told(&self.all.rules);
        let others: Vec<&str> =
            self.tenants.iter().filter(|(_, own)| own.rules != self.all.rules).map(|(name, _)| &**name).collect();
        if !others.is_empty() {
            line.push_str(&format!("; rules of their own: {}", others.join(", ")));
        }
        line
    }
}

/// What rules say, in a line for people.
fn told(rules: &Rules) -> String {
    if rules.is_off() {
        return "off".to_owned();
    }
    let of = |policy: Policy| -> Vec<&str> {
        Kind::ALL.into_iter().filter(|kind| rules.policy(*kind) == policy).map(Kind::name).collect()
    };
    // The policy of the most kinds is told as it is, the others with their kinds.
    let by = [(Policy::Mask, "mask"), (Policy::Block, "block"), (Policy::Report, "report"), (Policy::Off, "off")]
        .map(|(policy, word)| (word, of(policy)));
    let (most, _) = by.iter().max_by_key(|(_, kinds)| kinds.len()).unwrap_or(&by[0]);
    let mut parts: Vec<String> = vec![(*most).to_owned()];
    parts.extend(
        by.iter()
            .filter(|(word, kinds)| word != most && !kinds.is_empty())
            .map(|(word, kinds)| format!("{word} {}", kinds.join(", "))),
    );
    if rules.policies.contains(&Policy::Mask) {
        parts.push(match rules.style {
            Style::Token => "tokens, restored in answers".to_owned(),
            Style::Tag => "tags, not restored".to_owned(),
        });
    }
    if rules.is_strict() {
        parts.push(match rules.unscannable {
            Unscannable::Block => "media, URLs and file ids refused".to_owned(),
            Unscannable::Pass => "media, URLs and file ids pass unseen".to_owned(),
        });
    }
    parts.join("; ")
}
