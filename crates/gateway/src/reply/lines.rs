//! The header lines of an answer: our own, the upstream's that are passed on, a tenant's limits.

use crate::house::House;
use std::time::UNIX_EPOCH;
use tidegate_base::{RequestId, rfc3339};
use tidegate_schedule::{TenantId, TenantLevel};
use tidegate_wire::http::{HeadWriter, ResponseHead, is_hop_by_hop};
use tidegate_wire::ratelimit::is_rate_limit;

/// Which turn of which conversation an answer is.
pub(crate) struct TurnLines {
    conversation: String,
    number: u32,
    /// It was there already.
    replayed: bool,
}

impl TurnLines {
    pub(crate) fn new(conversation: &str, number: u32) -> Self {
        TurnLines { conversation: conversation.to_owned(), number, replayed: false }
    }

    /// A turn that was there already.
    pub(crate) fn again(conversation: &str, number: u32) -> Self {
        TurnLines { replayed: true, ..TurnLines::new(conversation, number) }
    }
}

pub(super) fn write_turn(head: &mut HeadWriter<'_>, turn: Option<&TurnLines>) {
    let Some(turn) = turn else { return };
    head.header("tidegate-conversation", turn.conversation.as_bytes());
    head.number("tidegate-turn", u64::from(turn.number));
    if turn.replayed {
        head.header("tidegate-replayed", b"true");
    }
}

/// How much is spent of a budget that is warned of.
pub(super) fn write_budget(head: &mut HeadWriter<'_>, spent: Option<u64>) {
    if let Some(percent) = spent {
        head.header("tidegate-budget-spent", format!("{percent}%").as_bytes());
    }
}

/// Our own header lines, on every answer; the upstream's `request-id` is kept if it gave one.
pub(crate) fn own_lines(head: &mut HeadWriter<'_>, request: RequestId, upstream: Option<&ResponseHead>) {
    if !upstream.is_some_and(|u| u.headers.has("request-id")) {
        head.header("request-id", request.as_str().as_bytes());
    }
    head.header("tidegate-request-id", request.as_str().as_bytes());
}

/// What a tenant with limits of its own has left of them, in the API's own words.
pub(super) fn limit_lines(house: &House, tenant: TenantId) -> Vec<(String, String)> {
    let Some(levels) = house.admission.tenant_levels(tenant) else { return Vec::new() };
    let lines = |what: &str, level: TenantLevel| {
        let full_at = house.clock.wall() + level.full_in;
        let reset = full_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64().ceil() as u64;
        let line = |end: &str, value: String| (format!("anthropic-ratelimit-{what}-{end}"), value);
        [
            line("limit", level.limit.to_string()),
            line("remaining", level.remaining.to_string()),
            line("reset", rfc3339(reset)),
        ]
    };
    let requests = levels.requests.map(|level| lines("requests", level));
    let tokens = levels.tokens.map(|level| lines("tokens", level));
    requests.into_iter().chain(tokens).flatten().collect()
}

pub(super) fn write_limits(head: &mut HeadWriter<'_>, lines: Option<&[(String, String)]>) {
    for (name, value) in lines.unwrap_or_default() {
        head.header(name, value.as_bytes());
    }
}

/// Header lines of an answer of ours, but those about its connection.
pub(super) fn copy_lines(out: &mut HeadWriter<'_>, head: &ResponseHead) {
    for (name, value) in head.headers.iter() {
        if !is_hop_by_hop(name) && !name.eq_ignore_ascii_case(b"content-length") {
            out.header(name, value);
        }
    }
}

/// Passes an upstream's header lines on: all but the connection's own, those named in `without`,
/// and what belongs to the upstream's address and not to ours: cookies, other ways to reach it, and how
/// it wants to be reached. `without_limits`: nor
/// what is left of the upstream's quota.
pub(super) fn pass_lines(head: &mut HeadWriter<'_>, upstream: &ResponseHead, without: &[&str], without_limits: bool) {
    let listed = |name: &[u8]| upstream.headers.lists("connection", name);
    let ours = [
        "alt-svc",
        "content-length",
        "set-cookie",
        "strict-transport-security",
        "tidegate-budget-spent",
        "tidegate-conversation",
        "tidegate-replayed",
        "tidegate-request-id",
        "tidegate-stream",
        "tidegate-turn",
        "x-accel-buffering",
    ];
    for (name, value) in upstream.headers.iter() {
        let dropped = |list: &[&str]| list.iter().any(|d| d.as_bytes().eq_ignore_ascii_case(name));
        let limits = without_limits && is_rate_limit(name);
        if !is_hop_by_hop(name) && !dropped(&ours) && !dropped(without) && !listed(name) && !limits {
            head.header(name, value);
        }
    }
}
