//! Scenarios: who calls, how fast the model answers, what goes wrong. Text in, data out.
//!
//! A scenario is a TOML document; the named ones are documents too (`scenarios/`), embedded so that
//! they can be printed, copied and changed. Unknown keys, numbers without a unit and faults that do
//! not exist are refused with line and key. Every key is optional; what is left out is [`calm`].
//!
//! [`calm`]: NAMED

use crate::fault::Fault;
use crate::pace::{Pace, Range};
use crate::quota::{Limits, Tier};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tidegate_base::{ByteSize, Span};

/// The named scenarios: name and document. The first line of each is its explanation.
pub const NAMED: &[(&str, &str)] = &[
    ("calm", include_str!("../scenarios/calm.toml")),
    ("burst-504", include_str!("../scenarios/burst-504.toml")),
    ("overloaded-529", include_str!("../scenarios/overloaded-529.toml")),
    ("flaky-streams", include_str!("../scenarios/flaky-streams.toml")),
    ("silent-thinker", include_str!("../scenarios/silent-thinker.toml")),
    ("rotten-json", include_str!("../scenarios/rotten-json.toml")),
];

/// Most fault rules of a scenario: each is looked at for each request.
pub(crate) const RULES_MAX: usize = 64;

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
    /// Speed and length of answers.
    pub pace: Pace,
    /// Limits of organisations that are not listed.
    pub tier: Tier,
    /// How much refill a bucket saves up, instead of a minute's worth.
    pub burst: Option<Duration>,
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
    /// Its limits by model class, where the tier's do not hold.
    pub limits: BTreeMap<String, Limits>,
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
}

impl Default for BareShape {
    fn default() -> Self {
        BareShape { json_bytes: 480, events: 50, event_bytes: 125, interval: Duration::ZERO }
    }
}

impl Scenario {
    /// Answers at an even pace, nothing goes wrong.
    pub fn calm() -> Self {
        Scenario {
            about: "Answers at an even pace, nothing goes wrong.".to_owned(),
            pace: Pace::default(),
            tier: Tier::Scale,
            burst: None,
            organisations: Vec::new(),
            faults: Vec::new(),
            bare: None,
        }
    }

    /// The named scenario.
    pub fn named(name: &str) -> Option<Self> {
        let (_, text) = NAMED.iter().find(|(known, _)| *known == name)?;
        Scenario::parse(text).ok()
    }

    /// Reads a document.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let file: File = toml::from_str(text).map_err(|error| ScenarioError(error.to_string()))?;
        file.build()
    }
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
        let mut keys = std::collections::BTreeSet::new();
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
            bare: self.bare.map(BareTable::build),
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
            if !crate::catalog::has_class(class) {
                let known = crate::catalog::classes().join(", ");
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
    fn build(self) -> BareShape {
        let shape = BareShape::default();
        BareShape {
            json_bytes: self.json_size.map_or(shape.json_bytes, |size| size.0.as_usize()),
            events: self.events.unwrap_or(shape.events),
            event_bytes: self.event_size.map_or(shape.event_bytes, |size| size.0.as_usize()),
            interval: time(self.interval, shape.interval),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_scenario_reads_and_explains_itself_in_its_first_line() {
        for (name, text) in NAMED {
            let scenario = Scenario::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            let first = text.lines().next().unwrap();
            assert_eq!(first, format!("about = \"{}\"", scenario.about), "{name}");
            assert!(scenario.about.len() < 120 && scenario.about.ends_with('.'), "{name}");
        }
        assert!(Scenario::named("calm").unwrap().faults.is_empty());
        assert!(Scenario::named("storm").is_none());
    }

    #[test]
    fn an_empty_document_is_calm() {
        let scenario = Scenario::parse("").unwrap();
        assert_eq!((scenario.pace, scenario.tier), (Pace::default(), Tier::Scale));
    }

    #[test]
    fn errors_name_the_line_and_the_key() {
        let check = |text: &str, says: &[&str]| {
            let error = Scenario::parse(text).unwrap_err().to_string();
            for says in says {
                assert!(error.contains(says), "{error}");
            }
        };
        check("[pace]\nspeed = 3", &["line 2", "speed", "unknown field"]);
        check("[pace]\nevent = \"20\"", &["line 2", "event", "\"500 ms\""]);
        check("[pace]\nevent = 20", &["line 2", "event"]);
        check("[pace]\nchars = \"many\"", &["line 2", "chars", "20-240"]);
        check("[quota]\ntier = \"gold\"", &["line 2", "tier", "scale"]);
        check("[[fault]]\ndo = [\"explode\"]", &["line 2", "do", "not a fault"]);
        check("[[fault]]\nprobability = 0.5", &["missing field `do`"]);
        check("[[fault]]\ndo = []\nprobability = 2.0", &["probability", "from 0 to 1"]);
        check("[[fault]]\ndo = []\nperiod = \"1 min\"", &["period", "until"]);
        check("[[organisation]]\nname = \"a\"\nkeys = [\"k\"]\nrevoked = [\"k\"]", &["`k` is listed twice"]);
        check(
            "[[organisation]]\nname = \"a\"\n[organisation.limits.gpt]\nrequests_per_minute = 1\ninput_tokens_per_minute = 1\noutput_tokens_per_minute = 1",
            &["gpt", "opus-5-5"],
        );
    }
}
