//! What a scenario's quota allows of the load's requests, and a load that is so many times as much.
//!
//! How many requests a minute fit an organisation is the least of what each of its three limits
//! allows by the requests' means: one request, the tokens of the mean prompt, the tokens of the mean
//! answer. All organisations together are the quota. The limit of which the sum allows least is the
//! binding one, in which the quota's use is told.

use crate::commands::Failed;
use std::time::Duration;
use tidegate_base::Secret;
use tidegate_bench::{Class, Mix, Mode, Plan};
use tidegate_simulator::{Limits, Range, Scenario};

/// The model that is asked; it does not think unless it is asked to, so answers are as long as the
/// scenario says, and thought about only where that is what it is about.
const MODEL: &str = "claude-haiku-5-5";
/// The class in which it is metered.
pub(super) const CLASS: &str = "haiku-5-5";
/// Who asks: bands and their shares of a hundred requests.
pub(super) const BANDS: [(&str, u32); 3] = [("interactive", 30), ("normal", 50), ("background", 20)];
/// Prompts are this long, spread evenly by their logarithm.
const PROMPT_BYTES: (usize, usize) = (100, 8_000);
/// What a byte of a prompt costs: four letters are a token, and this model counts 30 % more.
const TOKENS_PER_BYTE: f64 = 1.3 / 4.0;
/// What a message costs besides its text.
const TOKENS_OF_MESSAGE: f64 = 3.0;
/// `max_tokens`, where the scenario's answers are not longer.
const MAX_TOKENS: u64 = 1_024;
/// Requests under way at once; with more a client machine has other troubles than a quota.
const IN_FLIGHT_MAX: usize = 20_000;
/// Files besides those of requests.
pub(in crate::commands) const FILES_ASIDE: u64 = 600;
/// What requests under way get beyond their own clock before they are given up.
const GRACE: Duration = Duration::from_secs(5);

/// One of the three limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::commands) enum Limiter {
    Requests,
    InputTokens,
    OutputTokens,
}

impl Limiter {
    const ALL: [Limiter; 3] = [Limiter::Requests, Limiter::InputTokens, Limiter::OutputTokens];

    pub(super) fn name(self) -> &'static str {
        match self {
            Limiter::Requests => "requests",
            Limiter::InputTokens => "input tokens",
            Limiter::OutputTokens => "output tokens",
        }
    }

    /// Its number among three in the order of [`Limiter::ALL`].
    pub(super) fn of<T: Copy>(self, three: [T; 3]) -> T {
        three[self as usize]
    }
}

/// An organisation that may be asked.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::commands) struct Metered {
    pub(super) name: String,
    pub(super) keys: Vec<String>,
    /// Requests, input tokens and output tokens a minute.
    pub(super) per_minute: [f64; 3],
}

/// The load and the quota it is measured by.
#[derive(Clone, Debug)]
pub(in crate::commands) struct Offer {
    pub(in crate::commands) organisations: Vec<Metered>,
    pub(in crate::commands) binding: Limiter,
    /// Requests a second that fit the quota.
    pub(in crate::commands) quota_per_s: f64,
    /// Requests a second that are sent.
    pub(in crate::commands) rate_per_s: f64,
    /// What the buckets save up, at most; they are full at the beginning.
    pub(in crate::commands) burst: Duration,
    pub(in crate::commands) span: Duration,
    /// What a client waits for its answer, all attempts together.
    pub(in crate::commands) patience: Duration,
    pub(in crate::commands) seed: u64,
    /// Whether the model is asked to think.
    pub(in crate::commands) thinks: bool,
    /// Header lines of every request.
    pub(in crate::commands) headers: Vec<(String, String)>,
    max_tokens: u32,
}

/// Who may be asked under which limits. Where the scenario lists nobody, any key is good.
fn organisations(scenario: &Scenario) -> Result<Vec<(Metered, Duration)>, Failed> {
    let metered = |name: &str, keys: Vec<String>, limits: Option<Limits>| {
        let Some(limits) = limits else {
            return Err(Failed(format!(
                "the organisation `{name}` has no limits for {MODEL}, so there is no quota to offer more than; give it a tier or limits in the scenario"
            )));
        };
        let per_minute = [limits.requests, limits.input_tokens, limits.output_tokens].map(|n| n as f64);
        Ok((Metered { name: name.to_owned(), keys, per_minute }, limits.burst))
    };
    if scenario.organisations.is_empty() {
        let keys = vec!["sk-ant-bench-1".to_owned(), "sk-ant-bench-2".to_owned()];
        return Ok(vec![metered("bench", keys, scenario.limits(None, CLASS))?]);
    }
    let with_keys = scenario.organisations.iter().filter(|organisation| !organisation.keys.is_empty());
    with_keys.map(|one| metered(&one.name, one.keys.clone(), scenario.limits(Some(one), CLASS))).collect()
}

impl Offer {
    /// `times` the quota of `scenario`, for `span`.
    pub(in crate::commands) fn new(
        scenario: &Scenario,
        times: f64,
        span: Duration,
        patience: Duration,
        seed: u64,
    ) -> Result<Self, Failed> {
        if scenario.bare.is_some() {
            return Err(Failed("a scenario with a [bare] table has no quota; choose another".to_owned()));
        }
        let organisations = organisations(scenario)?;
        if organisations.is_empty() {
            return Err(Failed("no organisation of the scenario has a good key".to_owned()));
        }
        let means = means(scenario);
        let fit = |per_minute: [f64; 3], limiter: Limiter| limiter.of(per_minute) / limiter.of(means);
        let least =
            |per_minute| Limiter::ALL.map(|limiter| fit(per_minute, limiter)).into_iter().fold(f64::MAX, f64::min);
        let quota_per_s = organisations.iter().map(|(one, _)| least(one.per_minute)).sum::<f64>() / 60.0;
        if quota_per_s <= 0.0 {
            return Err(Failed(format!("the scenario's limits for {MODEL} allow no request at all")));
        }
        let burst = organisations.iter().map(|(_, burst)| *burst).max().unwrap_or_default();
        let organisations: Vec<Metered> = organisations.into_iter().map(|(one, _)| one).collect();
        let sum = sum(&organisations);
        let by_fit = |a: &Limiter, b: &Limiter| fit(sum, *a).total_cmp(&fit(sum, *b));
        let binding = Limiter::ALL.into_iter().min_by(by_fit).unwrap_or(Limiter::Requests);
        let thinks = thinks(scenario);
        let thinking = if thinks { scenario.pace.thinking_tokens.high } else { 0 };
        let max_tokens = scenario.pace.output_tokens.high.max(MAX_TOKENS).saturating_add(thinking);
        let max_tokens = u32::try_from(max_tokens).unwrap_or(u32::MAX);
        let rate_per_s = quota_per_s * times;
        Ok(Offer {
            organisations,
            binding,
            quota_per_s,
            rate_per_s,
            burst,
            span,
            patience,
            seed,
            thinks,
            headers: Vec::new(),
            max_tokens,
        })
    }

    /// What all organisations together allow a minute.
    pub(super) fn per_minute(&self) -> [f64; 3] {
        sum(&self.organisations)
    }

    /// All keys, an organisation's next after all others had one: keys in turn are organisations in
    /// turn.
    pub(super) fn keys(&self) -> Vec<Secret> {
        let most = self.organisations.iter().map(|one| one.keys.len()).max().unwrap_or(0);
        let nth = |n: usize| self.organisations.iter().filter_map(move |one| one.keys.get(n));
        (0..most).flat_map(nth).map(Secret::new).collect()
    }

    /// The load at `url` with these keys in turn, with so many retries, in a process that may open so
    /// many files.
    pub(super) fn plan(&self, url: &str, keys: Vec<Secret>, retries: u32, files: u64) -> Plan {
        let expected = (self.rate_per_s * self.span.as_secs_f64() * 1.2) as usize + 100;
        // The gateway has two files for a stream: its client's, and its upstream's.
        let room = usize::try_from(files.saturating_sub(FILES_ASIDE) / 2).unwrap_or(usize::MAX).max(1);
        let class = |(name, weight): (&str, u32)| Class {
            name: name.to_owned(),
            weight,
            headers: vec![("tidegate-priority".to_owned(), name.to_owned())],
        };
        let mut plan = Plan::new(url);
        plan.mode = Mode::Sse;
        plan.model = MODEL.to_owned();
        plan.max_tokens = self.max_tokens;
        plan.thinking = self.thinks;
        plan.headers.clone_from(&self.headers);
        plan.prompt_bytes = PROMPT_BYTES.0;
        plan.rate_per_s = Some(self.rate_per_s);
        plan.duration = Some(self.span);
        plan.concurrency = expected.min(IN_FLIGHT_MAX).min(room);
        plan.request_timeout = self.patience;
        plan.grace = self.patience + GRACE;
        plan.retries = retries;
        plan.seed = self.seed;
        let classes = BANDS.into_iter().map(class).collect();
        plan.mix = Some(Mix { classes, keys, prompt_bytes_max: PROMPT_BYTES.1 });
        plan
    }
}

fn sum(organisations: &[Metered]) -> [f64; 3] {
    Limiter::ALL.map(|limiter| organisations.iter().map(|one| limiter.of(one.per_minute)).sum())
}

/// Whether the model is asked to think: where a scenario is about that, and it thinks longer than it
/// speaks.
fn thinks(scenario: &Scenario) -> bool {
    scenario.pace.thinking_tokens.low > scenario.pace.output_tokens.high
}

/// What one request of the load takes of each limit.
fn means(scenario: &Scenario) -> [f64; 3] {
    let (shortest, longest) = PROMPT_BYTES;
    let mix = Mix { classes: Vec::new(), keys: Vec::new(), prompt_bytes_max: longest };
    let input = mix.prompt_bytes_mean(shortest) * TOKENS_PER_BYTE + TOKENS_OF_MESSAGE;
    let mean = |range: Range| (range.low + range.high) as f64 / 2.0;
    let thinking = if thinks(scenario) { mean(scenario.pace.thinking_tokens) } else { 0.0 };
    [1.0, input, (mean(scenario.pace.output_tokens) + thinking).max(1.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"about = "Two."
[pace]
output_tokens = "60-240"
[quota]
burst = "5 s"
[[organisation]]
name = "north"
keys = ["n1", "n2", "n3"]
[organisation.limits.haiku-5-5]
requests_per_minute = 1500
input_tokens_per_minute = 1200000
output_tokens_per_minute = 180000
[[organisation]]
name = "east"
keys = ["e1"]
tier = "first"
[[organisation]]
name = "gone"
revoked = ["g1"]
"#;

    fn offer(text: &str) -> Result<Offer, String> {
        let scenario = Scenario::parse(text).unwrap();
        let minute = Duration::from_secs(60);
        Offer::new(&scenario, 2.0, minute, 2 * minute, 7).map_err(|failed| failed.to_string())
    }

    #[test]
    fn the_quota_is_what_each_organisations_tightest_limit_allows() {
        let offer = offer(TWO).unwrap();
        // north: 180,000 output tokens of 150 are 1,200 requests, fewer than 1,500 and than
        // 1,200,000 / 588.9; east: 50 requests a minute, fewer than 8,000 / 150 and 30,000 / 588.9.
        assert_eq!(offer.quota_per_s, 1_250.0 / 60.0);
        assert_eq!(offer.rate_per_s, 2.0 * offer.quota_per_s);
        assert_eq!((offer.binding, offer.per_minute()), (Limiter::OutputTokens, [1_550.0, 1_230_000.0, 188_000.0]));
        assert_eq!(offer.burst, Duration::from_secs(5));
        let means = means(&Scenario::parse(TWO).unwrap());
        assert!((means[1] - 588.9).abs() < 0.1 && means[2] == 150.0, "{means:?}");
    }

    #[test]
    fn the_model_is_asked_to_think_where_it_thinks_longer_than_it_speaks() {
        let long = offer("[pace]\noutput_tokens = \"200-600\"\nthinking_tokens = \"3600-7200\"\n").unwrap();
        assert!(long.thinks && !offer(TWO).unwrap().thinks);
        // 2,000,000 output tokens a minute, of 400 and 5,400 an answer.
        assert!((long.quota_per_s - 2_000_000.0 / 5_800.0 / 60.0).abs() < 1e-9, "{}", long.quota_per_s);
        let plan = long.plan("http://a", long.keys(), 2, 20_000);
        assert!(plan.thinking && plan.max_tokens == 1_024 + 7_200, "{}", plan.max_tokens);
    }

    #[test]
    fn keys_in_turn_are_organisations_in_turn_and_revoked_ones_are_not_used() {
        let offer = offer(TWO).unwrap();
        let keys: Vec<String> = offer.keys().iter().map(|key| key.expose().to_owned()).collect();
        assert_eq!(keys, ["n1", "e1", "n2", "n3"]);
        assert_eq!(offer.organisations.len(), 2);
    }

    #[test]
    fn a_scenario_without_organisations_has_one_with_its_tier() {
        let offer = offer("[quota]\ntier = \"first\"\n").unwrap();
        assert_eq!(offer.organisations.len(), 1);
        assert!(offer.organisations[0].keys.iter().all(|key| key.starts_with("sk-ant-bench-")));
        assert_eq!((offer.binding, offer.quota_per_s), (Limiter::Requests, 50.0 / 60.0));
    }

    #[test]
    fn what_has_no_quota_is_refused() {
        let why = |text| offer(text).unwrap_err();
        assert!(why("[bare]\nevents = 3\n").contains("[bare]"));
        assert!(why("[quota]\ntier = \"unlimited\"\n").contains("no limits"));
        assert!(why("[[organisation]]\nname = \"a\"\nrevoked = [\"k\"]\n").contains("good key"));
        let nothing = "[organisation.limits.haiku-5-5]\nrequests_per_minute = 0\ninput_tokens_per_minute = 1\noutput_tokens_per_minute = 1\n";
        assert!(why(&format!("[[organisation]]\nname = \"a\"\nkeys = [\"k\"]\n{nothing}")).contains("no request"));
    }

    #[test]
    fn no_more_are_under_way_than_there_are_files_for() {
        let offer = offer(TWO).unwrap();
        // 2,500 requests are expected.
        assert_eq!(offer.plan("http://a", offer.keys(), 2, 20_000).concurrency, 3_100);
        assert_eq!(offer.plan("http://a", offer.keys(), 2, 1_024).concurrency, 212);
        let much = Offer { rate_per_s: 5_000.0, ..offer };
        assert_eq!(much.plan("http://a", much.keys(), 2, 1 << 20).concurrency, IN_FLIGHT_MAX);
    }
}
