//! The scenario document: its tables, key by key, and what each turns into.
//!
//! Types that read themselves (`Text`, `Numbers`, `Tier`) report a wrong value with its line and key;
//! what two keys must agree on is checked afterwards and names its table.

use super::{BareShape, Organisation, RULES_MAX, Rule, Scenario, ScenarioError};
use crate::bare::STAMPED_EVENT_BYTES_MIN;
use crate::catalog;
use crate::fault::Fault;
use crate::pace::{Pace, Range};
use crate::quota::{Limits, Tier};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tidegate_base::{ByteSize, Span};

/// Reads a document.
pub(super) fn read(text: &str) -> Result<Scenario, ScenarioError> {
    let file: File = toml::from_str(text).map_err(|error| ScenarioError(error.to_string()))?;
    file.build()
}

/// A value that is written as a string: `"500 ms"`, `"2-9"`, `"reset-at:300"`.
#[derive(Clone, Debug)]
struct Text<T>(T);

impl<'de, T> Deserialize<'de> for Text<T>
where
    T: FromStr<Err: fmt::Display>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Text).map_err(D::Error::custom)
    }
}

type Time = Text<Span>;

/// `7` or `"2-9"`.
#[derive(Clone, Copy, Debug)]
struct Numbers(Range);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            One(u64),
            Two(String),
        }
        match Either::deserialize(deserializer) {
            Ok(Either::One(n)) => Ok(Numbers(Range::exactly(n))),
            Ok(Either::Two(text)) => Range::parse(&text).map(Numbers).ok_or_else(|| D::Error::custom(NUMBERS)),
            Err(_) => Err(D::Error::custom(NUMBERS)),
        }
    }
}

const NUMBERS: &str = "write a whole number, or two as \"20-240\"";

impl<'de> Deserialize<'de> for Tier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "unlimited" => Ok(Tier::Unlimited),
            "first" => Ok(Tier::First),
            "start" => Ok(Tier::Start),
            "build" => Ok(Tier::Build),
            "scale" => Ok(Tier::Scale),
            other => {
                Err(D::Error::custom(format!("`{other}` is not a tier; write unlimited, first, start, build or scale")))
            }
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    about: Option<String>,
    pace: PaceTable,
    quota: QuotaTable,
    organisation: Vec<OrganisationTable>,
    fault: Vec<RuleTable>,
    bare: Option<BareTable>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PaceTable {
    head: Option<Time>,
    first: Option<Time>,
    event: Option<Time>,
    tokens_per_second: Option<u64>,
    jitter_percent: Option<u64>,
    ping: Option<Time>,
    chars: Option<Numbers>,
    output_tokens: Option<Numbers>,
    thinking_tokens: Option<Numbers>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct QuotaTable {
    tier: Option<Tier>,
    burst: Option<Time>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct OrganisationTable {
    name: String,
    keys: Vec<String>,
    revoked: Vec<String>,
    tier: Option<Tier>,
    limits: BTreeMap<String, LimitsTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsTable {
    requests_per_minute: u64,
    input_tokens_per_minute: u64,
    output_tokens_per_minute: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    r#do: Vec<Text<Fault>>,
    probability: Option<f64>,
    every: Option<u64>,
    from: Option<Time>,
    until: Option<Time>,
    period: Option<Time>,
    open_over: Option<u64>,
    #[serde(default)]
    models: Vec<String>,
    stream: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BareTable {
    json_size: Option<Text<ByteSize>>,
    events: Option<usize>,
    event_size: Option<Text<ByteSize>>,
    interval: Option<Time>,
    writes: Writes,
    stamp: bool,
}

/// What leaves the bare target in one write where a stream has no pauses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Writes {
    /// The whole of it.
    #[default]
    Stream,
    /// One event, as a model's server sends them.
    Event,
}

fn time(text: Option<Time>, default: Duration) -> Duration {
    text.map_or(default, |time| time.0.0)
}

impl File {
    fn build(self) -> Result<Scenario, ScenarioError> {
        let calm = Scenario::calm();
        if self.fault.len() > RULES_MAX {
            return Err(ScenarioError(format!("[[fault]]: at most {RULES_MAX} rules")));
        }
        let burst = self.quota.burst.map(|burst| burst.0.0);
        let organisations: Vec<Organisation> =
            self.organisation.into_iter().map(|table| table.build(burst)).collect::<Result<_, _>>()?;
        let mut keys = BTreeSet::new();
        for key in organisations.iter().flat_map(|o| o.keys.iter().chain(&o.revoked)) {
            if !keys.insert(key.as_str()) {
                return Err(ScenarioError(format!("[[organisation]] keys: `{key}` is listed twice")));
            }
        }
        Ok(Scenario {
            about: self.about.unwrap_or(calm.about),
            pace: self.pace.build()?,
            tier: self.quota.tier.unwrap_or(calm.tier),
            burst,
            faults: self.fault.into_iter().map(RuleTable::build).collect::<Result<_, _>>()?,
            bare: self.bare.map(BareTable::build).transpose()?,
            organisations,
        })
    }
}

impl PaceTable {
    fn build(self) -> Result<Pace, ScenarioError> {
        let calm = Pace::default();
        let ping = time(self.ping, calm.ping);
        if ping.is_zero() {
            return Err(ScenarioError("[pace] ping: must be longer than 0 s".to_owned()));
        }
        let jitter_percent = self.jitter_percent.unwrap_or(calm.jitter_percent);
        if jitter_percent > 100 {
            return Err(ScenarioError("[pace] jitter_percent: at most 100".to_owned()));
        }
        Ok(Pace {
            head: time(self.head, calm.head),
            first: time(self.first, calm.first),
            event: time(self.event, calm.event),
            tokens_per_second: self.tokens_per_second,
            jitter_percent,
            ping,
            chars: self.chars.map_or(calm.chars, |n| n.0),
            output_tokens: self.output_tokens.map_or(calm.output_tokens, |n| n.0),
            thinking_tokens: self.thinking_tokens.map_or(calm.thinking_tokens, |n| n.0),
        })
    }
}

impl OrganisationTable {
    fn build(self, burst: Option<Duration>) -> Result<Organisation, ScenarioError> {
        if self.name.is_empty() {
            return Err(ScenarioError("[[organisation]] name: every organisation has one".to_owned()));
        }
        let limits = self.limits.into_iter().map(|(class, table)| {
            let limits = Limits {
                requests: table.requests_per_minute,
                input_tokens: table.input_tokens_per_minute,
                output_tokens: table.output_tokens_per_minute,
                burst: burst.unwrap_or(Duration::from_secs(60)),
            };
            (class, limits)
        });
        let limits: BTreeMap<String, Limits> = limits.collect();
        for class in limits.keys() {
            if !catalog::has_class(class) {
                let known = catalog::classes().join(", ");
                return Err(ScenarioError(format!(
                    "[organisation.limits.{class}]: not a model class; known are {known}"
                )));
            }
        }
        Ok(Organisation { name: self.name, keys: self.keys, revoked: self.revoked, tier: self.tier, limits })
    }
}

impl RuleTable {
    fn build(self) -> Result<Rule, ScenarioError> {
        let probability = self.probability.unwrap_or(1.0);
        let wrong = |key: &str, says: &str| Err(ScenarioError(format!("[[fault]] {key}: {says}")));
        if !(0.0..=1.0).contains(&probability) {
            return wrong("probability", "from 0 to 1");
        }
        if self.every == Some(0) {
            return wrong("every", "1 or more");
        }
        let (from, until, period) =
            (time(self.from, Duration::ZERO), self.until.map(|t| t.0.0), self.period.map(|t| t.0.0));
        if until.is_some_and(|until| until <= from) {
            return wrong("until", "must be after `from`");
        }
        if period.is_some_and(|period| period.is_zero() || until.is_none_or(|until| until > period)) {
            return wrong("period", "needs an `until` that is not after its end");
        }
        Ok(Rule {
            faults: self.r#do.into_iter().map(|fault| fault.0).collect(),
            probability,
            every: self.every,
            from,
            until,
            period,
            open_over: self.open_over,
            models: self.models,
            stream: self.stream,
        })
    }
}

impl BareTable {
    fn build(self) -> Result<BareShape, ScenarioError> {
        let shape = BareShape::default();
        let shape = BareShape {
            json_bytes: self.json_size.map_or(shape.json_bytes, |size| size.0.as_usize()),
            events: self.events.unwrap_or(shape.events),
            event_bytes: self.event_size.map_or(shape.event_bytes, |size| size.0.as_usize()),
            interval: time(self.interval, shape.interval),
            event_writes: self.writes == Writes::Event,
            stamp: self.stamp,
        };
        if shape.stamp && shape.event_bytes < STAMPED_EVENT_BYTES_MIN {
            let error = format!("[bare] stamp: needs an event_size of at least {STAMPED_EVENT_BYTES_MIN} B");
            return Err(ScenarioError(error));
        }
        Ok(shape)
    }
}
