//! A domain: one organisation's workspace and one class of models, with its keys.
//!
//! What the API meters, what its prompt cache belongs to, what a breaker guards. Its limits are one
//! or two levels of [`crate::meters::Meters`], kept beside it by the class: the organisation's
//! always, the workspace's own where it has some.

use crate::ask::{Limits, OrgId, Throttle, WaitsFor, WorkspaceId};
use crate::breaker::{Breaker, State};
use crate::crowd::Crowd;
use crate::meters::{Blocked, Pace};
use crate::retry::RetryBudget;
use std::time::Duration;
use tidegate_base::Moment;

/// What is known of a domain's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Knowledge {
    /// Nothing: the smallest tier is assumed until an answer tells.
    Unknown,
    /// An answer came that told of none.
    Unmetered,
    /// By configuration or by an answer.
    Metered,
}

impl Knowledge {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Knowledge::Unknown => "unknown",
            Knowledge::Unmetered => "unmetered",
            Knowledge::Metered => "metered",
        }
    }
}

/// What to assume of answers before any was seen.
const FIRST_S: f64 = 1.0;
const SPEED: f64 = 60.0;
/// No model speaks faster, tokens a second.
const FASTEST: f64 = 2_000.0;
/// Shorter answers tell nothing of speed.
const PACED_LEAST: f64 = 20.0;
/// How much one answer counts in the means.
const WEIGHT: f64 = 0.05;
/// A domain that had nothing to do for so long is asked by one request first, however large.
const IDLE: Duration = Duration::from_secs(60);
/// A window that has recovered so far stops mattering.
const WINDOW_OPEN: f64 = 4_096.0;
/// Where a window is full, one more may go so long after the last: an answer that never comes holds
/// the others up for so long and not for all its life.
const WINDOW_WAIT: Duration = Duration::from_secs(5);
/// How often a window shrinks at most.
const SHRINK_PAUSE: Duration = Duration::from_secs(1);
/// No `retry-after` closes a domain for longer before it is tried again.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// Growth is judged over so long (an assumption: the API does not say).
const RAMP_LOOKS_AT: Duration = Duration::from_secs(10);
/// So long after an idle time it is kept from leaping.
const AWAKE: Duration = Duration::from_secs(10);
/// How lateness fades, for each request sent.
const LATE_FADES: f64 = 0.99;

/// One domain.
#[derive(Clone, Debug)]
pub(crate) struct Domain {
    pub(crate) org: OrgId,
    pub(crate) workspace: Option<WorkspaceId>,
    /// Its keys, by number in the organisation.
    pub(crate) keys: Vec<u16>,
    /// Its levels of limits, by place in the class: the organisation's, then its workspace's.
    pub(crate) meters: Vec<usize>,
    pub(crate) reserves_output: bool,
    pub(crate) knowledge: Knowledge,
    /// The limits its answers told last.
    pub(crate) told: Limits,
    pub(crate) in_flight: u32,
    pub(crate) closed_until: Moment,
    /// A limiter refused: after `closed_until` one goes alone, until one is let through.
    careful: bool,
    /// That one is under way, and went then.
    trying: Option<Moment>,
    /// Requests at once, where a 429 told of such a limit or nothing else is known.
    pub(crate) window: Option<f64>,
    shrunk_at: Moment,
    pub(crate) crowd: Crowd,
    pub(crate) breaker: Breaker,
    pub(crate) pace: Pace,
    pub(crate) retries: RetryBudget,
    pub(crate) throttled: u64,
    pub(crate) last_throttle: Option<(Moment, Throttle)>,
    last_sent: Option<Moment>,
    /// Usage was last cut for growing too sharply.
    slowed_at: Option<Moment>,
    /// It was idle until then.
    awake_since: Option<Moment>,
    /// How long a request is under way at most before it counts there, seconds.
    late: f64,
    /// What the request next in turn waits for here.
    pub(crate) head: Option<Blocked>,
}

impl Domain {
    pub(crate) fn new(
        org: OrgId,
        workspace: Option<WorkspaceId>,
        keys: Vec<u16>,
        reserves_output: bool,
        retries: RetryBudget,
    ) -> Self {
        Domain {
            org,
            workspace,
            keys,
            meters: Vec::new(),
            reserves_output,
            knowledge: Knowledge::Unknown,
            told: Limits::default(),
            in_flight: 0,
            closed_until: Moment::ZERO,
            careful: false,
            trying: None,
            window: None,
            shrunk_at: Moment::ZERO,
            crowd: Crowd::default(),
            breaker: Breaker::default(),
            pace: Pace { first: FIRST_S, speed: SPEED },
            retries,
            throttled: 0,
            last_throttle: None,
            last_sent: None,
            slowed_at: None,
            awake_since: None,
            late: 0.0,
            head: None,
        }
    }

    /// What keeps every request away, whatever its size.
    pub(crate) fn closed(&self, now: Moment) -> Option<Blocked> {
        let span = |wait: Duration, by| (!wait.is_zero()).then_some(Blocked { wait, by });
        let closed = if self.trying.is_some() { crate::meters::LOOK_AGAIN } else { Duration::ZERO };
        let closed = span(now.until(self.closed_until).max(closed), WaitsFor::RetryAfter);
        let broken = span(self.breaker.wait(now), WaitsFor::Breaker);
        let full = self.at_once_max(now).is_some_and(|most| f64::from(self.in_flight) >= most.max(1.0));
        let since = self.last_sent.map_or(WINDOW_WAIT, |at| now.since(at));
        let full = (full && since < WINDOW_WAIT).then_some(Blocked {
            wait: WINDOW_WAIT.saturating_sub(since).min(crate::meters::LOOK_AGAIN),
            by: WaitsFor::InFlight,
        });
        Blocked::max(Blocked::max(closed, broken), full)
    }

    /// How many may be under way at once, where something is known of it.
    pub(crate) fn at_once_max(&self, now: Moment) -> Option<f64> {
        match (self.window, self.crowd.allows(now)) {
            (Some(window), Some(crowd)) => Some(window.min(crowd)),
            (window, crowd) => window.or(crowd),
        }
    }

    /// Whether one request may go whatever the buckets are believed to hold: nothing is under way,
    /// and nothing has been for long, so they are as full as they get, and their level is to be
    /// learned. Where nothing was learned yet (it failed, was refused, or left), one may always go.
    pub(crate) fn may_probe(&self, now: Moment) -> bool {
        let unknown = self.knowledge == Knowledge::Unknown;
        self.in_flight == 0 && (unknown || self.last_sent.is_none_or(|at| now.since(at) >= IDLE))
    }

    /// How late what we do may count there.
    pub(crate) fn late(&self, jitter: Duration) -> Duration {
        jitter + Duration::from_secs_f64(self.late)
    }

    pub(crate) fn goes(&mut self, now: Moment) {
        if self.may_probe(now) {
            self.awake_since = Some(now);
        }
        self.in_flight += 1;
        self.crowd.goes(now, self.in_flight);
        self.last_sent = Some(now);
        self.breaker.goes(now);
        self.trying = self.careful.then_some(now);
        self.head = None;
    }

    /// A request that went at `went` is written whole.
    pub(crate) fn sent(&mut self, now: Moment, went: Moment) {
        self.late = (self.late * LATE_FADES).max(now.since(went).as_secs_f64().min(30.0));
    }

    /// An answer of `tokens` took `first` to its first event, and `span` from there. One that came
    /// faster than any model speaks was held until it was whole, and tells of neither.
    pub(crate) fn paced(&mut self, tokens: f64, first: Duration, span: Duration) {
        let speed = tokens / span.as_secs_f64();
        if !(0.0..FASTEST).contains(&speed) {
            return;
        }
        self.pace.first += WEIGHT * (first.as_secs_f64() - self.pace.first);
        if tokens >= PACED_LEAST {
            self.pace.speed += WEIGHT * (speed.max(1.0) - self.pace.speed);
        }
    }

    /// An answer was given.
    pub(crate) fn succeeded(&mut self, now: Moment) {
        self.breaker.succeeded(now);
        // The one that succeeded is over already, and counts.
        self.retries.succeeded(self.in_flight.saturating_add(1));
        self.window = self.window.map(|w| w + 1.0).filter(|w| *w < WINDOW_OPEN);
    }

    /// A request that went at `went` was let `through`, or is over without having been. Only the one
    /// that was tried says anything; nothing went after it.
    pub(crate) fn tried(&mut self, went: Moment, through: bool) {
        if self.trying.is_some_and(|at| went >= at) {
            self.trying = None;
            self.careful &= !through;
        }
    }

    /// A 429 came for one of the requests in flight; says how long nothing goes.
    pub(crate) fn throttled(&mut self, now: Moment, by: Throttle, retry_after: Option<Duration>) -> Duration {
        self.throttled += 1;
        self.last_throttle = Some((now, by));
        let blind = self.knowledge != Knowledge::Metered;
        // Where buckets say when to go on, the upstream's own wish is enough; without, a second.
        let asked = retry_after.or(blind.then_some(Duration::from_secs(1))).map(|s| s.min(RETRY_AFTER_MAX));
        if let Some(asked) = asked {
            self.closed_until = self.closed_until.max(now + asked);
        }
        self.careful |= !blind;
        let shrinks = blind || by == Throttle::Concurrent;
        if shrinks && (self.window.is_none() || now.since(self.shrunk_at) >= SHRINK_PAUSE) {
            // The one that was refused is over already, and counts.
            self.window = Some((f64::from(self.in_flight + 1) * 0.7).max(1.0));
            self.shrunk_at = now;
        }
        asked.unwrap_or_default()
    }

    /// Whether a 429 for growing too sharply, that came for a request which went at `went`, is to slow
    /// it down: what went before the last cut says nothing of it, nor what comes while the upstream
    /// still looks at the time before.
    pub(crate) fn slows(&mut self, now: Moment, went: Moment) -> bool {
        let slows = self.slowed_at.is_none_or(|at| went >= at && now.since(at) >= RAMP_LOOKS_AT);
        if slows {
            self.slowed_at = Some(now);
        }
        slows
    }

    /// How long ago it began to have something to do again, while that is recent.
    pub(crate) fn awake_for(&self, now: Moment) -> Option<Duration> {
        self.awake_since.map(|at| now.since(at)).filter(|span| *span < AWAKE)
    }

    /// The name of the breaker's state, and how long it stays open.
    pub(crate) fn breaker_shown(&self, now: Moment) -> (&'static str, Duration) {
        match self.breaker.state(now) {
            State::Closed => ("closed", Duration::ZERO),
            State::Open(until) => ("open", now.until(until)),
            State::HalfOpen { .. } => ("half_open", Duration::ZERO),
        }
    }
}
