//! What has to hold when a world has come to rest, of faulted streams too.

use super::Verdict;
use super::clocks::TICK;
use crate::world::run::Over;
use serde_json::Value;
use std::time::Duration;
use tidegate_gateway::Gateway;
use tidegate_simulator::Record;

/// Gauges that are 0 when nobody is there.
const GAUGES: [&str; 6] =
    ["upstream_connections{", "upstream_streams{", "tidegate_client_", "budget_", "streams_kept", "sockets"];

/// The sum of a metric's values over all lines with `label`.
pub(crate) fn sum(metrics: &str, name: &str, label: &str) -> u64 {
    let lines = metrics.lines().filter(|line| !line.starts_with('#') && line.contains(name) && line.contains(label));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// At least what good answers said, at most what the API composed; attempts cut short lie between.
pub(super) fn tokens_are_counted(over: &Over<'_>, metrics: &str, (input, output): (u64, u64)) -> Verdict {
    let counted = |kind| sum(metrics, "tokens_total", kind);
    let (counted_input, counted_output) = (counted("kind=\"input\""), counted("kind=\"output\""));
    let replies = || over.records.iter().filter_map(|r| r.reply.as_deref());
    let most = (replies().map(|r| r.input_tokens).sum::<u64>(), replies().map(|r| r.output_tokens).sum::<u64>());
    let holds = (input..=most.0).contains(&counted_input) && (output..=most.1).contains(&counted_output);
    let told = format!("{counted_input} and {counted_output}, good answers {input} and {output}, composed {most:?}");
    if holds { Ok(()) } else { Err(told) }
}

pub(super) fn nothing_panics(over: &Over<'_>) -> Verdict {
    no_panics(&over.panics)
}

pub(super) fn nothing_is_held(over: &Over<'_>) -> Verdict {
    none_held(&over.gateway, "")
}

pub(super) fn api_is_left(over: &Over<'_>) -> Verdict {
    left_alone(&over.summary, &over.records)
}

pub(super) fn drain_ends(over: &Over<'_>) -> Verdict {
    let Some(drain) = over.drain else { return Ok(()) };
    let most = over.scene.settings.clocks.drain + Duration::from_secs(5) + TICK;
    let took = drain.ended.since(drain.began);
    if took <= most { Ok(()) } else { Err(format!("took {took:?} of {most:?}")) }
}

pub(crate) fn no_panics(panics: &[String]) -> Verdict {
    if panics.is_empty() { Ok(()) } else { Err(panics.join("; ")) }
}

/// Nothing is held, lives or is counted; but for the lines that contain `spare`, if it is not empty.
pub(crate) fn none_held(gateway: &Gateway, spare: &str) -> Verdict {
    let (held, live, living) = (gateway.held(), gateway.live().len(), gateway.living());
    let leaked = gateway.metrics().leases_leaked();
    gateway.refresh_gauges();
    let text = gateway.metrics().text();
    let counts = |line: &&str| GAUGES.iter().any(|gauge| line.contains(gauge)) && !line.contains("_total");
    let busy = |line: &&str| counts(line) && !line.starts_with('#') && !line.ends_with(" 0");
    let is_spare = |line: &&str| !spare.is_empty() && line.contains(spare);
    let busy: Vec<_> = text.lines().filter(busy).filter(|line| !is_spare(line)).collect();
    if held == (0, 0, 0, 0) && live == 0 && living.is_empty() && leaked == 0 && busy.is_empty() {
        return Ok(());
    }
    Err(format!("held {held:?}, {live} live, tasks {living:?}, {leaked} leases leaked, busy {busy:?}"))
}

/// The API has no open request and no record without an end.
pub(crate) fn left_alone(summary: &Value, records: &[Record]) -> Verdict {
    let open = (summary["open"].as_u64(), summary["open_streams"].as_u64());
    let unended = records.iter().filter(|r| r.ended.is_none()).count();
    if open == (Some(0), Some(0)) && unended == 0 {
        return Ok(());
    }
    Err(format!("{open:?} requests and streams open, {unended} records without an end"))
}
