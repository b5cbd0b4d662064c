//! The legs side by side: as a table, as a page to keep, as JSON.
//!
//! Each request ended in one way: whole, refused with 429 or 529, out of its client's patience, or
//! otherwise; the sum is what was offered. A client that has waited for long was sent the head of a
//! stream with a heartbeat, so its refusal is an `error` event of the same type: it counts as the
//! status would. "-" is a number that somebody did not tell or that does not exist for a leg.

use super::leg::{Found, Gateway};
use super::offer::{BANDS, Offer};
use super::truth::Used;
use crate::commands::page::{Facts, aligned, number};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_bench::{ClassReport, Report};

/// A generator that begins requests later than this was short of files or processor.
const START_DELAY_MS_MAX: f64 = 1_000.0;
/// Use of the quota that wants an explanation.
const PERCENT_PLAIN_MAX: f64 = 100.5;

/// How the requests of a leg ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Outcomes {
    offered: u64,
    whole: u64,
    refused_429: u64,
    refused_529: u64,
    timeout: u64,
    /// Given up when the leg was over.
    unfinished: u64,
    /// Everything else, by kind.
    other: BTreeMap<String, u64>,
}

impl Outcomes {
    fn of(report: &Report) -> Self {
        let (offered, whole, unfinished) = (report.started, report.ok, report.unfinished);
        let mut outcomes = Outcomes { offered, whole, unfinished, ..Outcomes::default() };
        for (kind, n) in report.errors.by_name() {
            match kind.as_str() {
                "timeout" => outcomes.timeout += n,
                "stream rate_limit_error" => outcomes.refused_429 += n,
                "stream overloaded_error" => outcomes.refused_529 += n,
                _ if kind.starts_with("http 429") => outcomes.refused_429 += n,
                _ if kind.starts_with("http 529") => outcomes.refused_529 += n,
                _ => *outcomes.other.entry(kind).or_default() += n,
            }
        }
        outcomes
    }

    fn success_percent(&self) -> Option<f64> {
        (self.offered > 0).then(|| 100.0 * self.whole as f64 / self.offered as f64)
    }

    fn others(&self) -> String {
        let kinds: Vec<String> = self.other.iter().map(|(kind, n)| format!("{} {kind}", count(*n))).collect();
        if kinds.is_empty() { "0".to_owned() } else { kinds.join(", ") }
    }

    fn json(&self) -> Value {
        json!({
            "whole": self.whole, "429": self.refused_429, "529": self.refused_529, "timeout": self.timeout,
            "unfinished": self.unfinished, "other": self.other,
        })
    }
}

/// What a run has to say.
pub(super) struct Page<'a> {
    pub(super) facts: Facts,
    pub(super) scenario: &'a str,
    pub(super) about: &'a str,
    pub(super) offer: &'a Offer,
    pub(super) legs: &'a [Found],
}

fn count(n: u64) -> String {
    number(n as f64, 0)
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// Two spans in seconds, as `p50 / p99`.
fn seconds(p50: f64, p99: f64) -> String {
    let shown = |s: f64| number(s, if s < 10.0 { 2 } else { 1 });
    format!("{} / {}", shown(p50), shown(p99))
}

fn band<'a>(found: &'a Found, name: &str) -> Option<&'a ClassReport> {
    found.report.classes.iter().find(|class| class.name == name)
}

fn output_tokens(report: &Report) -> u64 {
    report.classes.iter().map(|class| class.output_tokens).sum()
}

fn per_s(report: &Report, n: u64) -> f64 {
    let elapsed_s = report.elapsed.as_secs_f64();
    if elapsed_s > 0.0 { n as f64 / elapsed_s } else { 0.0 }
}

fn shed(gateway: &Gateway) -> Option<String> {
    let by_reason = gateway.shed.as_ref()?.iter().filter(|(_, n)| **n > 0.0);
    let told: Vec<String> = by_reason.map(|(reason, n)| format!("{} {reason}", number(*n, 0))).collect();
    Some(if told.is_empty() { "0".to_owned() } else { told.join(", ") })
}

impl Page<'_> {
    /// The rows: a name, and what each leg shows under it.
    fn rows(&self) -> Vec<Vec<String>> {
        let mut rows: Vec<Vec<String>> = Vec::new();
        let mut row = |name: String, cell: &dyn Fn(&Found) -> String| {
            rows.push(std::iter::once(name).chain(self.legs.iter().map(cell)).collect());
        };
        let outcome = |cell: fn(&Outcomes) -> String| move |found: &Found| cell(&Outcomes::of(&found.report));
        row(String::new(), &|found| found.leg.name().to_owned());
        row("requests offered".to_owned(), &outcome(|o| count(o.offered)));
        row("answered whole".to_owned(), &outcome(|o| count(o.whole)));
        row("success, %".to_owned(), &outcome(|o| or_dash(o.success_percent().map(|x| number(x, 2)))));
        row("clients' 429".to_owned(), &outcome(|o| count(o.refused_429)));
        row("clients' 529".to_owned(), &outcome(|o| count(o.refused_529)));
        row("out of patience".to_owned(), &outcome(|o| count(o.timeout)));
        row("other failures".to_owned(), &outcome(Outcomes::others));
        row("of them cut off without a word".to_owned(), &|found| count(found.report.truncated_streams));
        if self.legs.iter().any(|found| found.report.unfinished > 0) {
            row("given up at the end".to_owned(), &outcome(|o| count(o.unfinished)));
        }
        row("sent by clients, retries included".to_owned(), &|found| count(found.report.attempts));
        row("upstream requests".to_owned(), &|found| count(found.truth.requests));
        row("upstream 429".to_owned(), &|found| count(found.truth.answered(429)));
        let used = |found: &Found| or_dash(found.used.as_ref().map(|used| number(used.percent, 1)));
        row(format!("quota used, % of {}", self.offer.binding.name()), &used);
        row("whole answers/s".to_owned(), &|found| number(per_s(&found.report, found.report.ok), 1));
        row("output tokens/s of them".to_owned(), &|found| {
            number(per_s(&found.report, output_tokens(&found.report)), 0)
        });
        row("until the last answer, s".to_owned(), &|found| number(found.report.elapsed.as_secs_f64(), 1));
        for (name, _) in BANDS {
            let told = |class: &ClassReport| format!("{} of {}", count(class.ok), count(class.started));
            row(format!("whole, {name}"), &|found| or_dash(band(found, name).map(told)));
        }
        for (name, _) in BANDS {
            row(format!("first token p50 / p99, s, {name}"), &|found| {
                let spans = band(found, name).map(|class| class.first_content_ms).filter(|spans| spans.count > 0);
                or_dash(spans.map(|spans| seconds(spans.p50 / 1e3, spans.p99 / 1e3)))
            });
        }
        row("whole answer p50 / p99, s".to_owned(), &|found| {
            let spans = Some(found.report.total_ms).filter(|spans| spans.count > 0);
            or_dash(spans.map(|spans| seconds(spans.p50 / 1e3, spans.p99 / 1e3)))
        });
        if self.legs.iter().any(|found| found.gateway.is_some()) {
            for (name, _) in BANDS {
                row(format!("queue wait p50 / p99, s, {name}"), &|found| {
                    let waits = found.gateway.as_ref().and_then(|gateway| gateway.waits_s.get(name));
                    or_dash(waits.map(|waits| seconds(waits.p50, waits.p99)))
                });
            }
            row("shed".to_owned(), &|found| or_dash(found.gateway.as_ref().and_then(shed)));
            row("gateway's memory, MB at most".to_owned(), &|found| {
                let peak = found.gateway.as_ref().and_then(|gateway| gateway.memory_peak);
                or_dash(peak.map(|bytes| number(bytes as f64 / 1e6, 1)))
            });
            row("gateway's processor time, s".to_owned(), &|found| {
                let cpu = found.gateway.as_ref().and_then(|gateway| gateway.cpu);
                or_dash(cpu.map(|cpu| number(cpu.as_secs_f64(), 2)))
            });
        }
        rows
    }

    /// What was offered to whom, in a few sentences.
    fn preface(&self) -> String {
        let Offer { organisations, quota_per_s, rate_per_s, span, patience, seed, .. } = self.offer;
        let (n, keys) = (organisations.len(), organisations.iter().map(|one| one.keys.len()).sum::<usize>());
        let [requests, input, output] = self.offer.per_minute().map(|limit| number(limit, 0));
        let bands: Vec<String> = BANDS.iter().map(|(name, percent)| format!("{percent} % {name}")).collect();
        format!(
            "Scenario `{}` (seed {seed}): {}\n{n} organisation(s) with {keys} key(s); together {requests} requests, {input} input and {output} output tokens a minute.\nOffered: {} streams/s for {} s, {} times the {} requests/s that fit the quota; {}; a client waits {} s.\n",
            self.scenario,
            self.about,
            number(*rate_per_s, 1),
            number(span.as_secs_f64(), 0),
            number(rate_per_s / quota_per_s, 2),
            number(*quota_per_s, 1),
            bands.join(", "),
            number(patience.as_secs_f64(), 0),
        )
    }

    /// What must be known to believe the numbers.
    fn notes(&self) -> String {
        let mut notes = String::new();
        for found in self.legs {
            notes += &format!("- `{}`: {}.\n", found.leg.name(), found.leg.about());
        }
        let window = self.legs.iter().find_map(|found| found.used.as_ref()).map(|used| used.window);
        if let Some((from, to)) = window {
            notes += &format!(
                "- Quota used: what the API counted from {} s to {} s, by what the limits refilled in that time, as they were then, less what others took; through Tidegate only while somebody waited.\n",
                number(from.as_secs_f64(), 0),
                number(to.as_secs_f64(), 0)
            );
        }
        let uses = self.legs.iter().filter_map(|found| found.used.as_ref());
        if uses.map(|used| used.percent).fold(0.0, f64::max) > PERCENT_PLAIN_MAX {
            notes += "- Above 100 %: output is charged as it is produced, so answers that are let in together run the limit into debt, which is paid back later.\n";
        }
        if self.legs.iter().any(|found| found.gateway.as_ref().is_some_and(|g| !g.waits_s.is_empty())) {
            notes += "- Queue wait: from the gateway's histogram, whose bounds lie 1.4 apart, so it is up to a fifth off; first tokens are measured exactly.\n";
        }
        let broken = |found: &Found| Outcomes::of(&found.report).other.keys().any(|kind| kind.starts_with("stream"));
        if self.legs.iter().any(broken) {
            notes += "- Failures called `stream`: the API broke off an answer of which the client had a part; nothing may repeat that.\n";
        }
        for found in self.legs.iter().filter(|found| found.report.start_delay_ms.p99 > START_DELAY_MS_MAX) {
            notes += &format!(
                "- NOT A MEASUREMENT of `{}`: the load generator began requests up to {} s late; it is short of files or processor.\n",
                found.leg.name(),
                number(found.report.start_delay_ms.max / 1e3, 1)
            );
        }
        notes
    }

    /// The table for the terminal.
    pub(super) fn text(&self) -> String {
        format!("{}\n{}\n{}", self.preface(), aligned(&self.rows()), self.notes())
    }

    /// The page to keep.
    pub(super) fn markdown(&self) -> String {
        let Facts { machine, date, commit, command } = &self.facts;
        format!(
            "# Quota, {date}\n\n| | |\n|---|---|\n| machine | {machine} |\n| date | {date} |\n| commit | {commit} |\n| command | `{command}` |\n\n{}\n\n{}\n{}\nHow it is made: [README.md](README.md).\n",
            self.preface().replace('\n', "\n\n").trim_end(),
            aligned(&self.rows()),
            self.notes()
        )
    }

    /// Every number.
    pub(super) fn json(&self) -> Value {
        let Facts { machine, date, commit, command } = &self.facts;
        let Offer { organisations, quota_per_s, rate_per_s, span, patience, seed, binding, .. } = self.offer;
        let [requests, input_tokens, output_tokens] = self.offer.per_minute();
        let legs: Map<String, Value> =
            self.legs.iter().map(|found| (found.leg.name().to_owned(), leg_json(found))).collect();
        json!({
            "machine": machine, "date": date, "commit": commit, "command": command,
            "scenario": self.scenario, "seed": seed, "duration_s": span.as_secs_f64(),
            "times": rate_per_s / quota_per_s, "rate_per_s": rate_per_s, "patience_s": patience.as_secs_f64(),
            "bands_percent": BANDS.into_iter().map(|(name, percent)| (name, json!(percent))).collect::<Value>(),
            "quota": {
                "organisations": organisations.len(),
                "per_minute": {"requests": requests, "input_tokens": input_tokens, "output_tokens": output_tokens},
                "binding": binding.name(), "requests_per_s": quota_per_s,
            },
            "legs": legs,
        })
    }
}

fn used_json(used: &Used) -> Value {
    json!({
        "percent": used.percent, "by_organisation_percent": used.by_organisation,
        "from_s": used.window.0.as_secs_f64(), "to_s": used.window.1.as_secs_f64(),
        "counted_s": used.counted.as_secs_f64(),
    })
}

fn leg_json(found: &Found) -> Value {
    let (report, outcomes) = (&found.report, Outcomes::of(&found.report));
    let band = |class: &ClassReport| {
        let waits = found.gateway.as_ref().and_then(|gateway| gateway.waits_s.get(class.name.as_str()));
        let spans = &class.first_content_ms;
        let first_s = (spans.count > 0).then(|| json!({"p50": spans.p50 / 1e3, "p99": spans.p99 / 1e3}));
        let told = json!({
            "offered": class.started, "whole": class.ok, "first_token_s": first_s,
            "queue_wait_s": waits.map(|waits| json!({"p50": waits.p50, "p99": waits.p99})),
        });
        (class.name.clone(), told)
    };
    json!({
        "offered": outcomes.offered,
        "outcomes": outcomes.json(),
        "success_percent": outcomes.success_percent(),
        "attempts_of_clients": report.attempts,
        "upstream": {
            "requests": found.truth.requests, "answers_by_status": found.truth.statuses,
            "429": found.truth.answered(429), "529": found.truth.answered(529),
        },
        "quota_used": found.used.as_ref().map(used_json),
        "elapsed_s": report.elapsed.as_secs_f64(),
        "broken_off": report.truncated_streams,
        "total_s": (report.total_ms.count > 0)
            .then(|| json!({"p50": report.total_ms.p50 / 1e3, "p99": report.total_ms.p99 / 1e3})),
        "whole_per_s": per_s(report, report.ok),
        "output_tokens_per_s": per_s(report, output_tokens(report)),
        "start_delay_ms_p99": report.start_delay_ms.p99,
        "bands": report.classes.iter().map(band).collect::<Map<String, Value>>(),
        "gateway": found.gateway.as_ref().map(|gateway| json!({
            "shed": gateway.shed, "memory_peak_bytes": gateway.memory_peak,
            "cpu_s": gateway.cpu.map(|cpu: Duration| cpu.as_secs_f64()),
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::BenchLeg;
    use crate::commands::quota::metrics::Spread;
    use crate::commands::quota::truth::Truth;
    use tidegate_bench::Percentiles;
    use tidegate_simulator::Scenario;

    fn report() -> Report {
        let mut report = Report::default();
        (report.started, report.ok, report.failed, report.unfinished) = (1_000, 600, 398, 2);
        let errors = &mut report.errors;
        (errors.timeout, errors.reset) = (5, 3);
        errors.stream = [("overloaded_error", 7), ("api_error", 1)].map(|(kind, n)| (kind.to_owned(), n)).into();
        errors.http = [("429 rate_limit_error", 370), ("529 overloaded_error", 11), ("500 api_error", 1)]
            .map(|(kind, n)| (kind.to_owned(), n))
            .into();
        report.elapsed = Duration::from_secs(20);
        report.truncated_streams = 3;
        report.total_ms = Percentiles { count: 600, p50: 2_000.0, p99: 9_500.0, ..Percentiles::default() };
        let first_content_ms = Percentiles { count: 600, p50: 450.0, p99: 12_345.0, ..Percentiles::default() };
        let class = |name: &str, started, ok| ClassReport {
            name: name.to_owned(),
            started,
            ok,
            failed: started - ok,
            output_tokens: 100 * ok,
            first_content_ms,
        };
        report.classes = vec![class("interactive", 300, 290), class("normal", 500, 300), class("background", 200, 10)];
        report
    }

    fn page(check: impl FnOnce(&Page<'_>)) {
        let span = Duration::from_secs(20);
        let offer = Offer::new(&Scenario::parse("[quota]\ntier = \"first\"\n").unwrap(), 2.0, span, span, 3).unwrap();
        let text = |text: &str| text.to_owned();
        let (machine, date, commit) = (text("a machine"), text("2026-01-02"), text("abc"));
        let waits_s = [("normal", Spread { p50: 1.5, p99: 25.0 })].into();
        let shed = Some([("wait_too_long".to_owned(), 19.0), ("queue_full".to_owned(), 0.0)].into());
        let gateway = Gateway { waits_s, shed, memory_peak: Some(42_500_000), cpu: Some(Duration::from_millis(1_250)) };
        let truth = Truth { requests: 1_400, statuses: [("429".to_owned(), 400)].into(), ..Truth::default() };
        let used = Used {
            percent: 99.54,
            by_organisation: [("bench".to_owned(), 99.54)].into(),
            window: (Duration::from_secs(4), span),
            counted: Duration::from_secs(16),
        };
        let found = |leg, gateway, used| Found { leg, report: report(), truth: truth.clone(), used, gateway };
        let legs = [found(BenchLeg::Direct, None, None), found(BenchLeg::Tidegate, Some(gateway), Some(used))];
        let facts = Facts { machine, date, commit, command: text("tidegate x") };
        check(&Page { facts, scenario: "few", about: "Few.", offer: &offer, legs: &legs });
    }

    #[test]
    fn every_request_has_one_outcome_and_together_they_are_what_was_offered() {
        let outcomes = Outcomes::of(&report());
        let other: u64 = outcomes.other.values().sum();
        let sum = outcomes.whole + outcomes.refused_429 + outcomes.refused_529 + outcomes.timeout + outcomes.unfinished;
        assert_eq!((sum + other, other), (outcomes.offered, 5));
        assert_eq!((outcomes.refused_429, outcomes.refused_529, outcomes.timeout), (370, 18, 5));
        assert_eq!(outcomes.others(), "1 http 500 api_error, 3 reset, 1 stream api_error");
        assert_eq!(outcomes.success_percent(), Some(60.0));
        assert_eq!(Outcomes::default().success_percent(), None);
    }

    #[test]
    fn the_table_has_a_column_a_leg_and_a_dash_for_what_nobody_tells() {
        page(|page| {
            let text = page.text();
            let cells = |name: &str| -> Vec<String> {
                let line = text.lines().find(|line| line.starts_with(&format!("| {name} ")));
                let line = line.unwrap_or_else(|| panic!("{name}: {text}"));
                line.split('|').skip(2).take(2).map(|cell| cell.trim().to_owned()).collect()
            };
            assert_eq!(cells("upstream 429"), ["400", "400"]);
            assert_eq!(cells("quota used, % of requests"), ["-", "99.5"]);
            assert_eq!(cells("whole answers/s"), ["30.0", "30.0"]);
            assert_eq!(cells("output tokens/s of them"), ["3,000", "3,000"]);
            assert_eq!(cells("first token p50 / p99, s, background"), ["0.45 / 12.3", "0.45 / 12.3"]);
            assert_eq!(cells("of them cut off without a word"), ["3", "3"]);
            assert_eq!(cells("whole answer p50 / p99, s"), ["2.00 / 9.50", "2.00 / 9.50"]);
            assert_eq!(cells("queue wait p50 / p99, s, normal"), ["-", "1.50 / 25.0"]);
            assert_eq!(cells("queue wait p50 / p99, s, interactive"), ["-", "-"]);
            assert_eq!(cells("shed"), ["-", "19 wait_too_long"]);
            assert_eq!(cells("gateway's memory, MB at most"), ["-", "42.5"]);
            assert!(text.contains("from 4 s to 20 s") && !text.contains("NOT A MEASUREMENT"), "{text}");
            assert!(text.contains("- Queue wait: ") && text.contains("- Failures called `stream`: "), "{text}");
            let markdown = page.markdown();
            assert!(markdown.contains("| machine | a machine |") && markdown.contains("| direct "), "{markdown}");
        });
    }

    #[test]
    fn the_json_has_every_number_under_a_stable_name() {
        page(|page| {
            let json = page.json();
            for (pointer, want) in [
                ("/scenario", "\"few\""),
                ("/quota/per_minute/requests", "50.0"),
                ("/quota/binding", "\"requests\""),
                ("/legs/direct/outcomes/429", "370"),
                ("/legs/direct/broken_off", "3"),
                ("/legs/direct/total_s/p99", "9.5"),
                ("/legs/direct/gateway", "null"),
                ("/legs/direct/quota_used", "null"),
                ("/legs/tidegate/quota_used/by_organisation_percent/bench", "99.54"),
                ("/legs/tidegate/bands/normal/queue_wait_s/p99", "25.0"),
                ("/legs/tidegate/bands/interactive/queue_wait_s", "null"),
                ("/legs/tidegate/gateway/shed/wait_too_long", "19.0"),
                ("/legs/tidegate/gateway/cpu_s", "1.25"),
                ("/legs/tidegate/upstream/429", "400"),
            ] {
                assert_eq!(json.pointer(pointer).map(Value::to_string).as_deref(), Some(want), "{pointer}");
            }
        });
    }
}
