//! Scenarios: who calls, how fast the model answers, what goes wrong. Text in, data out.
//!
//! A scenario is a TOML document; the named ones are documents too (`scenarios/`), embedded so that
//! they can be printed, copied and changed. Unknown keys, numbers without a unit and faults that do
//! not exist are refused with line and key. Every key is optional; what is left out is [`calm`].
//!
//! [`calm`]: NAMED

mod document;

use crate::cache::CacheRules;
use crate::continuation::ContinuationRules;
use crate::fault::Fault;
use crate::pace::Pace;
use crate::quota::{Change, Consumer, KeyOutage, Limits, PartialLimits, QuotaRules, SpendLimit, Tier};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The named scenarios: name and document. The first line of each is its explanation.
pub const NAMED: &[(&str, &str)] = &[
    ("calm", include_str!("../../scenarios/calm.toml")),
    ("burst-504", include_str!("../../scenarios/burst-504.toml")),
    ("overloaded-529", include_str!("../../scenarios/overloaded-529.toml")),
    ("flaky-streams", include_str!("../../scenarios/flaky-streams.toml")),
    ("silent-thinker", include_str!("../../scenarios/silent-thinker.toml")),
    ("rotten-json", include_str!("../../scenarios/rotten-json.toml")),
    ("odd-endpoint", include_str!("../../scenarios/odd-endpoint.toml")),
    ("slow-network", include_str!("../../scenarios/slow-network.toml")),
    ("quota-429", include_str!("../../scenarios/quota-429.toml")),
    ("black-friday", include_str!("../../scenarios/black-friday.toml")),
];

/// Most fault rules of a scenario: each is looked at for each request.
pub(crate) const RULES_MAX: usize = 64;

/// Most entries of each list of things that happen to limits and keys over time.
pub(crate) const TIMELINE_MAX: usize = 64;

/// Why a scenario could not be read: line, key and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioError(String);

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ScenarioError {}

/// Everything a simulator is told before it starts.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// One line for people.
    pub about: String,
    /// How many times its quota a bench offers that is not told.
    pub times: Option<f64>,
    /// Speed and length of answers.
    pub pace: Pace,
    /// Limits of organisations that are not listed.
    pub tier: Tier,
    /// How much refill a bucket saves up, instead of a minute's worth.
    pub burst: Option<Duration>,
    /// What is charged when, and what the headers tell: the switches.
    pub quota: QuotaRules,
    /// The prompt cache.
    pub cache: CacheRules,
    /// How answers go on that broke off.
    pub continuation: ContinuationRules,
    /// Limits that change.
    pub changes: Vec<Change>,
    /// Others who use the same limits.
    pub consumers: Vec<Consumer>,
    /// The most that may be spent.
    pub spend_limits: Vec<SpendLimit>,
    /// Keys that are not good for a while.
    pub key_outages: Vec<KeyOutage>,
    /// Organisations by name; if there are none, every `sk-ant-...` key is good.
    pub organisations: Vec<Organisation>,
    /// What goes wrong, and when.
    pub faults: Vec<Rule>,
    /// If set: no validation, no quota, prebuilt bytes.
    pub bare: Option<BareShape>,
}

/// Who may call.
#[derive(Clone, Debug, Default)]
pub struct Organisation {
    /// Its name, which the response header carries.
    pub name: String,
    /// Its keys.
    pub keys: Vec<String>,
    /// Keys it had: 401.
    pub revoked: Vec<String>,
    /// Its tier, if not the scenario's.
    pub tier: Option<Tier>,
    /// How much refill its buckets save up under its tier's limits, if not as the scenario says.
    pub burst: Option<Duration>,
    /// Its limits by model class, where the tier's do not hold.
    pub limits: BTreeMap<String, Limits>,
    /// Its workspaces besides the default one.
    pub workspaces: Vec<Workspace>,
}

/// A part of an organisation with keys, and mostly lower limits, of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workspace {
    /// Its name.
    pub name: String,
    /// Its keys.
    pub keys: Vec<String>,
    /// Its limits by model class; the organisation's always hold as well.
    pub limits: BTreeMap<String, PartialLimits>,
}

/// A key that is good, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedKey<'a> {
    /// The organisation.
    pub organisation: &'a str,
    /// The workspace, if it is not the default one.
    pub workspace: Option<&'a str>,
    /// The key.
    pub key: &'a str,
}

/// Faults, and the requests they strike. All conditions that are given have to hold.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// With this probability.
    pub probability: f64,
    /// Only every n-th request.
    pub every: Option<u64>,
    /// Only after so long.
    pub from: Duration,
    /// Only until then.
    pub until: Option<Duration>,
    /// `from` and `until` count from the beginning of each such period.
    pub period: Option<Duration>,
    /// Only while more requests than this are open.
    pub open_over: Option<u64>,
    /// Only these models.
    pub models: Vec<String>,
    /// Only the first so many requests that ask the same.
    pub attempts: Option<u64>,
    /// Only streams (true) or only buffered answers (false).
    pub stream: Option<bool>,
}

impl Rule {
    /// These faults for every request.
    pub fn always(faults: Vec<Fault>) -> Self {
        Rule {
            faults,
            probability: 1.0,
            every: None,
            from: Duration::ZERO,
            until: None,
            period: None,
            open_over: None,
            models: Vec::new(),
            attempts: None,
            stream: None,
        }
    }
}

/// What the bare target answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BareShape {
    /// Bytes of a JSON answer, about.
    pub json_bytes: usize,
    /// Content events of a stream.
    pub events: usize,
    /// Bytes of one of them.
    pub event_bytes: usize,
    /// Time between two of them.
    pub interval: Duration,
    /// Whether each is written on its own even where nothing is waited for between two.
    pub event_writes: bool,
    /// Whether each says when it was sent, in the last bytes of its text.
    pub stamp: bool,
}

impl Default for BareShape {
    fn default() -> Self {
        BareShape {
            json_bytes: 480,
            events: 50,
            event_bytes: 125,
            interval: Duration::ZERO,
            event_writes: false,
            stamp: false,
        }
    }
}

impl Scenario {
    /// Answers at an even pace, nothing goes wrong.
    pub fn calm() -> Self {
        Scenario {
            about: "Answers at an even pace, nothing goes wrong.".to_owned(),
            times: None,
            pace: Pace::default(),
            tier: Tier::Scale,
            burst: None,
            quota: QuotaRules::default(),
            cache: CacheRules::default(),
            continuation: ContinuationRules::default(),
            changes: Vec::new(),
            consumers: Vec::new(),
            spend_limits: Vec::new(),
            key_outages: Vec::new(),
            organisations: Vec::new(),
            faults: Vec::new(),
            bare: None,
        }
    }

    /// The keys of all listed organisations and their workspaces, in the order of the document. Empty
    /// where none is listed, and every `sk-ant-...` key is good.
    pub fn callers(&self) -> impl Iterator<Item = ListedKey<'_>> {
        self.organisations.iter().flat_map(|row| {
            let organisation = row.name.as_str();
            let own = row.keys.iter().map(|key| (None, key));
            let inner = row.workspaces.iter().flat_map(|w| w.keys.iter().map(|key| (Some(w.name.as_str()), key)));
            own.chain(inner).map(move |(workspace, key)| ListedKey { organisation, workspace, key })
        })
    }

    /// The limits of an organisation, or of one that is not listed, in a model class; `None` where
    /// nothing is metered.
    pub fn limits(&self, organisation: Option<&Organisation>, class: &str) -> Option<Limits> {
        if let Some(limits) = organisation.and_then(|row| row.limits.get(class)) {
            return Some(*limits);
        }
        let limits = organisation.and_then(|row| row.tier).unwrap_or(self.tier).limits(class)?;
        let burst = organisation.and_then(|row| row.burst).or(self.burst).unwrap_or(limits.burst);
        Some(Limits { burst, ..limits })
    }

    /// The named scenario.
    pub fn named(name: &str) -> Option<Self> {
        let (_, text) = NAMED.iter().find(|(known, _)| *known == name)?;
        Scenario::parse(text).ok()
    }

    /// Reads a document.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        document::read(text)
    }
}

#[cfg(test)]
mod tests;
