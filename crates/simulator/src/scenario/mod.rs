//! Scenarios: who calls, how fast the model answers, what goes wrong. Text in, data out.
//!
//! A scenario is a TOML document; the named ones are documents too (`scenarios/`), embedded so that
//! they can be printed, copied and changed. Unknown keys, numbers without a unit and faults that do
//! not exist are refused with line and key. Every key is optional; what is left out is [`calm`].
//!
//! [`calm`]: NAMED

mod document;

use crate::fault::Fault;
use crate::pace::Pace;
use crate::quota::{Limits, Tier};
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
        document::read(text)
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
