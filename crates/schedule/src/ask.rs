//! The words between the scheduler and its host: who asks for what, and what comes back.
//!
//! Plain numbers only. The host gives organisations, workspaces, classes of models and tenants
//! their numbers; their names never come in here.

use crate::estimate::Mix;
use std::collections::BTreeSet;
use std::time::Duration;
use tidegate_base::Moment;

/// An organisation at the provider: by its place in the configuration, or, from
/// [`crate::Scheduler::credential`], the unknown one behind a client's own credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrgId(pub u32);

impl OrgId {
    /// The tenant that a client's own credential is, of the organisation behind it.
    pub fn own_tenant(self) -> TenantId {
        TenantId(self.0)
    }
}

/// A workspace of an organisation, by its place in [`OrgSpec::workspaces`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkspaceId(pub u16);

/// One key of an organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId {
    /// Whose key.
    pub org: OrgId,
    /// Which of them.
    pub key: u16,
}

/// A class of models that shares limits; the host gives out the numbers, small and from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub u32);

/// Who calls us; the host gives out the numbers, small and from 0, but for clients with a credential
/// of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(pub u32);

/// How urgent a request is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Band {
    /// Somebody is watching.
    Interactive,
    /// The usual.
    #[default]
    Normal,
    /// Whenever there is room.
    Background,
}

impl Band {
    /// All bands, most urgent first.
    pub const ALL: [Band; 3] = [Band::Interactive, Band::Normal, Band::Background];

    /// Its name in headers, settings and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Band::Interactive => "interactive",
            Band::Normal => "normal",
            Band::Background => "background",
        }
    }

    /// The band called `name`.
    pub fn of_name(name: &str) -> Option<Band> {
        Band::ALL.into_iter().find(|b| b.name() == name)
    }
}

/// The three things the API meters per minute; `None` is no limit, or one that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests per minute.
    pub requests: Option<u64>,
    /// Uncached input tokens per minute.
    pub input_tokens: Option<u64>,
    /// Output tokens per minute.
    pub output_tokens: Option<u64>,
}

impl Limits {
    pub(crate) fn parts(&self) -> [Option<u64>; 3] {
        [self.requests, self.input_tokens, self.output_tokens]
    }

    pub(crate) fn of_parts([requests, input_tokens, output_tokens]: [Option<u64>; 3]) -> Self {
        Limits { requests, input_tokens, output_tokens }
    }
}

/// An organisation as the configuration knows it.
#[derive(Clone, Debug, Default)]
pub struct OrgSpec {
    /// Its keys: the workspace each belongs to, if it is not the default one.
    pub keys: Vec<Option<WorkspaceId>>,
    /// Keys of these that are used no more: what is under way over them ends, and nothing new goes.
    pub closed: BTreeSet<u16>,
    /// How many workspaces the keys name.
    pub workspaces: u16,
    /// Whether this provider reserves `max_tokens` against its output limit, as the API did until
    /// 2025 and others still do.
    pub reserves_output: bool,
}

/// What a tenant may use of us; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TenantRules {
    /// Its share in a full queue, against other tenants' (1 by default).
    pub weight: f64,
    /// Requests per minute.
    pub requests: Option<u64>,
    /// Input and output tokens per minute; input read from the prompt cache is not counted.
    pub tokens: Option<u64>,
    /// Requests that run at once.
    pub concurrent: Option<u32>,
}

impl Default for TenantRules {
    fn default() -> Self {
        TenantRules { weight: 1.0, requests: None, tokens: None, concurrent: None }
    }
}

/// The beginning of an input that other requests share and the prompt cache may hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prefix {
    /// Its hash, model included.
    pub key: u64,
    /// Its part of the whole input, from 0 to 1.
    pub share: f32,
    /// How long the cache holds it: five minutes or an hour.
    pub ttl: Duration,
}

/// A request for a lease.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// What it wants to use.
    pub class: ClassId,
    /// Who wants it.
    pub tenant: TenantId,
    /// How urgent it is.
    pub band: Band,
    /// The last moment at which starting is still of use.
    pub latest: Moment,
    /// How long the same request has waited in the queue before, for earlier attempts: the band's
    /// cap is on all of it.
    pub waited: Duration,
    /// What its input is made of.
    pub input: Mix,
    /// `max_tokens`, if it has one.
    pub output_max: Option<u32>,
    /// Whether its output is seen while it is produced: a stream whose thinking is shown.
    pub seen: bool,
    /// The cacheable beginning it shares with others, if it has one.
    pub prefix: Option<Prefix>,
    /// The conversation it goes on with, as a hash: the same for each of its turns. Only of use
    /// where the prompt cache is.
    pub conversation: Option<Prefix>,
    /// The only place it can be served: it refers to what lives there.
    pub pin: Option<Pin>,
    /// A lane that just failed for this request; another is preferred if one is open.
    pub avoid: Option<LaneId>,
}

/// Where a request has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The organisation.
    pub org: OrgId,
    /// The workspace: `Some(None)` is the default one, `None` is any.
    pub workspace: Option<Option<WorkspaceId>>,
}

slotmap::new_key_type! {
    /// A place in the queue.
    pub struct Ticket;
    /// Names a lease in what is told of it while it lasts; of no effect once it is settled.
    pub struct LeaseId;
}

/// The right to one exchange over a lane: a request, input and output tokens reserved. Not to be
/// copied; ends in [`crate::Scheduler::settle`].
#[derive(Debug, PartialEq, Eq)]
pub struct Lease {
    pub(crate) id: LeaseId,
    pub(crate) lane: LaneId,
    pub(crate) metered: bool,
    pub(crate) waited_for: Option<WaitsFor>,
    pub(crate) input: u64,
}

impl Lease {
    /// The lane to use.
    pub fn lane(&self) -> LaneId {
        self.lane
    }

    /// Its name while it lasts.
    pub fn id(&self) -> LeaseId {
        self.id
    }

    /// Whether the output's progress is wanted ([`crate::Scheduler::progressed`]): where nothing is
    /// metered it is not.
    pub fn metered(&self) -> bool {
        self.metered
    }

    /// Uncached input tokens that were taken for it, as estimated.
    pub fn input(&self) -> u64 {
        self.input
    }

    /// What it waited for at last, if it had to wait.
    pub fn waited_for(&self) -> Option<WaitsFor> {
        self.waited_for
    }
}

/// The answer to an [`Ask`].
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go now.
    Go(Lease),
    /// Wait; the answer comes out of [`crate::Scheduler::advance`] under this ticket.
    Wait(Ticket),
    /// No.
    Refuse(Refusal),
}

/// Which limit of a tenant's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TenantLimit {
    /// Requests per minute.
    Requests,
    /// Tokens per minute.
    Tokens,
    /// Requests at once.
    Concurrent,
}

impl TenantLimit {
    /// Its name in metrics and errors.
    pub fn name(self) -> &'static str {
        match self {
            TenantLimit::Requests => "tenant_requests",
            TenantLimit::Tokens => "tenant_tokens",
            TenantLimit::Concurrent => "tenant_concurrent",
        }
    }
}

/// Why a request is not served, and when it may come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no lane it could use, or the upstream rejected the key of every one.
    NoKey {
        /// When a rejected one is tried again; `None`: there are none.
        again: Option<Duration>,
    },
    /// Every organisation it could use has reached its spend cap.
    SpendCap {
        /// Until the first of them is tried again.
        retry_after: Duration,
    },
    /// Its input is larger than any limit it could be charged to will ever let through.
    TooLarge {
        /// Its input, tokens, as estimated.
        tokens: u64,
        /// The largest input limit, tokens per minute.
        limit: u64,
    },
    /// The wait would outlast the deadline or the band's cap.
    TooLong {
        /// When it could be served.
        retry_after: Duration,
    },
    /// The queue holds as many as it may.
    QueueFull {
        /// When the queue is expected to have moved on.
        retry_after: Duration,
    },
    /// The tenant's own limit is used up for longer than the request may wait.
    Tenant {
        /// Which.
        limit: TenantLimit,
        /// When it will have refilled.
        retry_after: Duration,
    },
}

impl Refusal {
    /// Its name in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Refusal::NoKey { .. } => "no_key",
            Refusal::SpendCap { .. } => "spend_cap",
            Refusal::TooLarge { .. } => "too_large",
            Refusal::TooLong { .. } => "too_long",
            Refusal::QueueFull { .. } => "queue_full",
            Refusal::Tenant { limit, .. } => limit.name(),
        }
    }
}

/// What one limiter said of itself in an answer's head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// The most per minute.
    pub limit: Option<u64>,
    /// What is left; tokens rounded to the nearest thousand.
    pub remaining: Option<u64>,
}

/// What an answer's head says about the quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// Requests.
    pub requests: Level,
    /// Uncached input tokens.
    pub input_tokens: Level,
    /// Output tokens.
    pub output_tokens: Level,
}

impl Levels {
    /// The limits it told.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            requests: self.requests.limit,
            input_tokens: self.input_tokens.limit,
            output_tokens: self.output_tokens.limit,
        }
    }

    pub(crate) fn parts(&self) -> [Level; 3] {
        [self.requests, self.input_tokens, self.output_tokens]
    }

    pub(crate) fn of_parts([requests, input_tokens, output_tokens]: [Level; 3]) -> Self {
        Levels { requests, input_tokens, output_tokens }
    }

    /// Whether the answer said nothing of limits at all.
    pub fn is_silent(&self) -> bool {
        *self == Levels::default()
    }
}

/// What a 429 was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Throttle {
    /// Requests per minute.
    Requests,
    /// Input tokens per minute.
    InputTokens,
    /// Output tokens per minute.
    OutputTokens,
    /// Connections, or requests at once.
    Concurrent,
    /// Usage that grows too sharply.
    Ramp,
    /// The organisation has spent what it may: nothing until the cap is lifted.
    SpendCap,
    /// It did not say. If the head shows a limiter at zero, that one.
    Unnamed,
}

impl Throttle {
    /// Its name in metrics and `/domains`.
    pub fn name(self) -> &'static str {
        match self {
            Throttle::Requests => "requests",
            Throttle::InputTokens => "input_tokens",
            Throttle::OutputTokens => "output_tokens",
            Throttle::Concurrent => "concurrent",
            Throttle::Ramp => "ramp",
            Throttle::SpendCap => "spend_cap",
            Throttle::Unnamed => "unnamed",
        }
    }
}

/// Tokens an exchange used, as the upstream counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Input that was not in the cache.
    pub input: u64,
    /// Input written to the cache.
    pub cache_creation: u64,
    /// Input read from the cache: not metered.
    pub cache_read: u64,
    /// Output, thinking included.
    pub output: u64,
}

impl Spent {
    /// The numbers are the upstream's word, and may be absurd: none is larger than any model's window
    /// ten times over.
    pub(crate) fn within_reason(self) -> Self {
        const MOST: u64 = 10_000_000;
        Spent {
            input: self.input.min(MOST),
            cache_creation: self.cache_creation.min(MOST),
            cache_read: self.cache_read.min(MOST),
            output: self.output.min(MOST),
        }
    }
}

/// How an exchange ended, as far as quota is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing reached the upstream: nothing is charged.
    NotSent,
    /// An answer was given, whole or in part; `None` where its usage did not come.
    Answered(Option<Spent>),
    /// It was sent and ended in a way that says nothing of the quota or the upstream's health: the
    /// client left.
    Failed,
    /// The upstream refused the request itself: it is malformed, too long, or speaks of what is not
    /// there.
    Rejected,
    /// The upstream or the way to it failed; five in a row, or most of many, open the breaker.
    Broken,
    /// 504, or no first byte in time: the upstream had too much at once, or fails.
    TimedOut,
    /// 529: the upstream is overloaded, for everybody.
    Overloaded {
        /// What the upstream asked for.
        retry_after: Option<Duration>,
    },
    /// 429.
    Throttled {
        /// What it was about.
        by: Throttle,
        /// What the upstream asked for; for [`Throttle::SpendCap`], how long the cap is to be taken
        /// for lasting.
        retry_after: Option<Duration>,
    },
    /// 401 or 403: this key is closed for so long.
    KeyRejected {
        /// How long to leave it alone.
        retry_after: Duration,
    },
}

/// What a waiting request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// Others before it in the fair order.
    Turn,
    /// A limiter of the upstream to refill.
    Limit(Throttle),
    /// Fewer requests in flight.
    InFlight,
    /// The end of the upstream's `retry-after`.
    RetryAfter,
    /// The breaker to close.
    Breaker,
    /// The first answer of a domain whose limits are not known yet.
    Probe,
    /// The first request with the same beginning to have filled the prompt cache.
    Prefix,
    /// The tenant's own limit.
    Tenant(TenantLimit),
    /// A key to be accepted again.
    Key,
}

impl WaitsFor {
    /// Its name in `/streams`, `/domains` and metrics.
    pub fn name(self) -> &'static str {
        match self {
            WaitsFor::Turn => "turn",
            WaitsFor::Limit(throttle) => throttle.name(),
            WaitsFor::InFlight => "in_flight",
            WaitsFor::RetryAfter => "retry_after",
            WaitsFor::Breaker => "breaker",
            WaitsFor::Probe => "probe",
            WaitsFor::Prefix => "prefix",
            WaitsFor::Tenant(limit) => limit.name(),
            WaitsFor::Key => "key",
        }
    }
}
