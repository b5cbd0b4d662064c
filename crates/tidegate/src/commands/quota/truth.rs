//! What the simulator says happened, and how much of the quota that was.
//!
//! Only what is needed is read of its page, so that it may have more; what is needed and is not
//! there is an error. The use of the quota is counted between looks: what the upstream counted by
//! the binding limit, by what that limit refilled meanwhile. Where the page keeps accounts of that,
//! they are believed, since limits may change and others may use them; else the scenario's limits
//! are taken as they stand. The first part of a run is left out,
//! in which the buckets give away what they had saved up, and so is everything after the last
//! request was due. Where a queue is known, only spans at both ends of which somebody waited count:
//! a quota that nobody asks for is not unused.

use super::offer::{CLASS, Metered, Offer};
use crate::commands::Failed;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// What is metered, as the page names it, in the order of everything that comes in threes here.
const METERED: [&str; 3] = ["requests", "input_tokens", "output_tokens"];
/// The first part of a run is at most this part of it.
const WARM_UP_PARTS: u32 = 5;

/// What a limit of an organisation has given so far, and to whom it could.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Account {
    /// Refilled, less what others took.
    allowed: f64,
    used: f64,
}

/// The ground truth at some moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::commands) struct Truth {
    /// By the simulator's clock.
    pub(super) now: Duration,
    /// Requests that came.
    pub(in crate::commands) requests: u64,
    /// Of them, by status; 0 where the connection was broken instead.
    pub(super) statuses: BTreeMap<String, u64>,
    /// What was admitted, by organisation: requests, input tokens, output tokens.
    pub(super) admitted: BTreeMap<String, [u64; 3]>,
    /// What everybody has spent, where it is told.
    pub(in crate::commands) dollars: Option<f64>,
    /// Accounts by organisation, of the same three, where they are told.
    pub(super) accounts: BTreeMap<String, [Account; 3]>,
}

/// The accounts of the organisations' own limits; those of their workspaces are parts of them.
fn accounts(page: &Value) -> BTreeMap<String, [Account; 3]> {
    let rows = page["quota"]["limits"].as_array().map_or(&[][..], Vec::as_slice);
    let own = rows.iter().filter(|row| row["class"].as_str() == Some(CLASS) && row["workspace"].is_null());
    let account = |row: &Value, limiter: &str| {
        Some(Account { allowed: row[limiter]["allowed"].as_f64()?, used: row[limiter]["used"].as_f64()? })
    };
    let three = |row: &Value| {
        let [requests, input, output] = METERED.map(|limiter| account(row, limiter));
        Some((row["organisation"].as_str()?.to_owned(), [requests?, input?, output?]))
    };
    own.filter_map(three).collect()
}

impl Truth {
    /// Reads the page.
    pub(super) fn read(page: &str) -> Result<Self, Failed> {
        let page: Value =
            serde_json::from_str(page).map_err(|e| Failed(format!("the ground truth is no JSON: {e}")))?;
        let lacks = |what: &str| Failed(format!("the ground truth does not say `{what}`"));
        let number = |of: &Value, name: &str| of[name].as_u64().ok_or_else(|| lacks(name));
        let statuses = page["statuses"].as_object().ok_or_else(|| lacks("statuses"))?;
        let statuses = statuses.iter().filter_map(|(status, n)| Some((status.clone(), n.as_u64()?)));
        let mut truth = Truth {
            now: Duration::from_millis(number(&page, "now_ms")?),
            requests: number(&page, "requests")?,
            statuses: statuses.collect(),
            admitted: BTreeMap::new(),
            dollars: page["quota"]["dollars"].as_object().map(|spent| spent.values().filter_map(Value::as_f64).sum()),
            accounts: accounts(&page),
        };
        for domain in page["domains"].as_array().ok_or_else(|| lacks("domains"))? {
            if domain["class"].as_str() != Some(CLASS) {
                continue;
            }
            let name = domain["organisation"].as_str().ok_or_else(|| lacks("organisation"))?;
            let sum = truth.admitted.entry(name.to_owned()).or_default();
            for (slot, what) in sum.iter_mut().zip(METERED) {
                *slot += number(domain, what)?;
            }
        }
        Ok(truth)
    }

    /// Requests that were answered with this status.
    pub(super) fn answered(&self, status: u16) -> u64 {
        self.statuses.get(&status.to_string()).copied().unwrap_or(0)
    }

    /// What the binding limit of an organisation gave since `before`, and what it could have.
    fn since(&self, before: &Truth, offer: &Offer, one: &Metered) -> Account {
        if let (Some(then), Some(now)) = (before.accounts.get(&one.name), self.accounts.get(&one.name)) {
            let (then, now) = (offer.binding.of(*then), offer.binding.of(*now));
            return Account { allowed: now.allowed - then.allowed, used: now.used - then.used };
        }
        let minutes = self.now.saturating_sub(before.now).as_secs_f64() / 60.0;
        let used = |truth: &Truth| truth.admitted.get(&one.name).map_or(0.0, |three| offer.binding.of(*three) as f64);
        Account { allowed: offer.binding.of(one.per_minute) * minutes, used: used(self) - used(before) }
    }
}

/// A look at a run.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// Since the first request was due.
    pub(super) at: Duration,
    pub(super) truth: Truth,
    /// Requests that wait for quota, where somebody can tell.
    pub(super) waiting: Option<f64>,
}

/// How much of the quota was used.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::commands) struct Used {
    /// Of all organisations together.
    pub(super) percent: f64,
    pub(super) by_organisation: BTreeMap<String, f64>,
    /// The part of the run that was looked at.
    pub(super) window: (Duration, Duration),
    /// So much of it counted.
    pub(super) counted: Duration,
}

impl Used {
    /// `None` if no two looks can be compared.
    pub(super) fn of(looks: &[Look], offer: &Offer) -> Option<Self> {
        let window = (offer.burst.min(offer.span / WARM_UP_PARTS), offer.span);
        let within: Vec<&Look> = looks.iter().filter(|look| look.at >= window.0 && look.at <= window.1).collect();
        let waited = |look: &Look| look.waiting.is_none_or(|n| n > 0.0);
        let spans: Vec<(&Truth, &Truth)> = within
            .windows(2)
            .filter(|pair| waited(pair[0]) && waited(pair[1]))
            .map(|pair| (&pair[0].truth, &pair[1].truth))
            .collect();
        let counted: Duration = spans.iter().map(|(a, b)| b.now.saturating_sub(a.now)).sum();
        if counted.is_zero() {
            return None;
        }
        let of_one = |one: &Metered| {
            let accounts = spans.iter().map(|(before, after)| after.since(before, offer, one));
            let sum = accounts.reduce(|a, b| Account { allowed: a.allowed + b.allowed, used: a.used + b.used });
            (one.name.clone(), sum.unwrap_or_default())
        };
        let by_organisation: BTreeMap<String, Account> = offer.organisations.iter().map(of_one).collect();
        let (allowed, used) = by_organisation.values().fold((0.0, 0.0), |(a, u), one| (a + one.allowed, u + one.used));
        let percent = |used: f64, allowed: f64| if allowed > 0.0 { 100.0 * used / allowed } else { 0.0 };
        let by_organisation = by_organisation.into_iter().map(|(name, one)| (name, percent(one.used, one.allowed)));
        let by_organisation = by_organisation.collect();
        Some(Used { percent: percent(used, allowed), by_organisation, window, counted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_simulator::Scenario;

    #[test]
    fn the_page_is_read_whatever_else_is_on_it() {
        let page = r#"{"now_ms": 61200, "requests": 120, "news": {"x": [1]}, "domains": [
            {"organisation": "acme", "class": "haiku-5-5", "requests": 100, "input_tokens": 4200, "output_tokens": 13000, "cached": 5},
            {"organisation": "acme", "class": "count-tokens", "requests": 7, "input_tokens": 0, "output_tokens": 0},
            {"organisation": "beta", "class": "haiku-5-5", "requests": 1, "input_tokens": 1, "output_tokens": 1}],
            "statuses": {"0": 2, "200": 100, "429": 14}, "quota": {"dollars": {"acme": 0.5, "beta": 0.25}, "limits": [
            {"organisation": "acme", "workspace": null, "class": "haiku-5-5", "requests": {"allowed": 1, "used": 2},
             "input_tokens": {"allowed": 3, "used": 4}, "output_tokens": {"allowed": 5, "used": 6, "level_now": -1}},
            {"organisation": "acme", "workspace": "w", "class": "haiku-5-5", "output_tokens": {"allowed": 7, "used": 8}},
            {"organisation": "beta", "workspace": null, "class": "opus-5", "requests": {"allowed": 9, "used": 9}}]}}"#;
        let truth = Truth::read(page).unwrap();
        assert_eq!((truth.now, truth.requests), (Duration::from_millis(61_200), 120));
        assert_eq!((truth.answered(429), truth.answered(529)), (14, 0));
        assert_eq!(truth.dollars, Some(0.75));
        assert_eq!(truth.admitted["acme"], [100, 4_200, 13_000]);
        let account = |allowed, used| Account { allowed, used };
        let three = [account(1.0, 2.0), account(3.0, 4.0), account(5.0, 6.0)];
        assert_eq!(truth.accounts.into_iter().collect::<Vec<_>>(), [("acme".to_owned(), three)]);
        assert_eq!(truth.admitted.len(), 2);
        for (bad, says) in [("{", "no JSON"), ("{\"statuses\": {}}", "now_ms"), ("{}", "statuses")] {
            let error = Truth::read(bad).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    /// Two organisations of 60 output tokens a second each, for 20 s, with 2 s saved up.
    fn offer() -> Offer {
        let organisation = |name: &str| {
            format!(
                "[[organisation]]\nname = \"{name}\"\nkeys = [\"{name}\"]\n[organisation.limits.haiku-5-5]\nrequests_per_minute = 9000\ninput_tokens_per_minute = 9000000\noutput_tokens_per_minute = 3600\n"
            )
        };
        let text = format!("[quota]\nburst = \"2 s\"\n{}{}", organisation("a"), organisation("b"));
        let scenario = Scenario::parse(&text).unwrap();
        Offer::new(&scenario, 2.0, Duration::from_secs(20), Duration::from_secs(120), 1).unwrap()
    }

    fn look(s: u64, a: u64, b: u64, waiting: Option<f64>) -> Look {
        let admitted = [("a", a), ("b", b)].map(|(name, output)| (name.to_owned(), [1, 1, output]));
        let now = Duration::from_secs(100 + s);
        let truth = Truth { now, admitted: admitted.into_iter().collect(), ..Truth::default() };
        Look { at: Duration::from_secs(s), truth, waiting }
    }

    #[test]
    fn use_is_what_was_counted_after_the_start_by_what_was_refilled() {
        // What was saved up goes in the first 2 s; 30 and 60 a second follow; the end is not looked at.
        let looks = [0, 2, 12, 20, 30].map(|s| look(s, 500 + 30 * s, 60 * s + u64::from(s > 20) * 900, None));
        let used = Used::of(&looks, &offer()).unwrap();
        assert_eq!((used.by_organisation["a"], used.by_organisation["b"], used.percent), (50.0, 100.0, 75.0));
        assert_eq!(used.window, (Duration::from_secs(2), Duration::from_secs(20)));
        assert_eq!(used.counted, Duration::from_secs(18));
        assert_eq!(Used::of(&looks[..2], &offer()), None);
    }

    #[test]
    fn accounts_of_the_simulator_go_before_the_limits_of_the_scenario() {
        // Of `a` somebody else takes a third; `b` has no account.
        let with_account = |s: u64| {
            let mut look = look(s, 7 * s, 30 * s, None);
            let account = Account { allowed: 40.0 * s as f64, used: 38.0 * s as f64 };
            look.truth.accounts.insert("a".to_owned(), [Account::default(), Account::default(), account]);
            look
        };
        let used = Used::of(&[2, 12, 20].map(with_account), &offer()).unwrap();
        assert_eq!((used.by_organisation["a"], used.by_organisation["b"], used.percent), (95.0, 50.0, 68.0));
    }

    #[test]
    fn a_span_in_which_nobody_waited_does_not_count() {
        let waiting = |n: f64| Some(n);
        let looks = [
            look(2, 0, 0, waiting(3.0)),
            look(4, 120, 120, waiting(1.0)),
            look(6, 120, 120, waiting(0.0)),
            look(8, 240, 120, waiting(5.0)),
            look(10, 360, 240, waiting(5.0)),
        ];
        let used = Used::of(&looks, &offer()).unwrap();
        assert_eq!((used.percent, used.counted), (100.0, Duration::from_secs(4)));
        let idle = looks.map(|look| Look { waiting: Some(0.0), ..look });
        assert_eq!(Used::of(&idle, &offer()), None);
    }
}
