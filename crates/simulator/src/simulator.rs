//! The whole machine: a request and the time go in, a plan comes out.
//!
//! ```text
//! begin ─▶ Exchange { opening, playback } ─▶ progress* ─▶ [client_left] ─▶ ended
//! ```
//! What a request meets, in this order: door, body size, key (401), version and encoding (400),
//! `simulate:` directives, the validator, the number of requests at once (429), faults before the
//! answer, quota (429), the answer, faults in it. The request's number (from 0, in the order they begin) and the seed choose
//! its faults; the seed and its body choose its answer.
//!
//! The state that grows: quota domains, the prompt cache, records (see `truth.rs`), and one small
//! entry per open request, which [`Simulator::ended`] takes away.

use crate::answer::{self, Answer, Body, Known, No};
use crate::bare::Bare;
use crate::cache::PromptCache;
use crate::callers;
use crate::directive::Directives;
use crate::fault::Fault;
use crate::playback::{Playback, Progress};
use crate::quota::{Lease, Quota, Sampled, Settlement};
use crate::scenario::{Rule, Scenario};
use crate::stored::{self, Stored};
use crate::truth::{Ending, Record, Truth};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_base::{IdSource, Moment, Prng};

/// The largest body a door takes, bytes: the API's 32 MB.
pub const BODY_BYTES_MAX: usize = 32_000_000;

/// The largest body that a request for `target` may have, bytes.
pub fn body_bytes_max(target: &str) -> usize {
    stored::body_bytes_max(path_of(target)).unwrap_or(BODY_BYTES_MAX)
}

/// A request as it came.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// `POST`, `GET`, `HEAD`...
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Header lines; names in any case.
    pub headers: &'a [(&'a str, &'a str)],
    /// The whole body.
    pub body: &'a [u8],
}

impl<'a> RequestFacts<'a> {
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        self.all(name).next()
    }
}

/// How an answer begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// With a head.
    Head(Head),
    /// With a reset.
    Reset {
        /// So long after the request.
        after: Duration,
    },
    /// With a close.
    Close {
        /// So long after the request.
        after: Duration,
    },
}

/// The head of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// So long after the request.
    pub after: Duration,
    /// HTTP status.
    pub status: u16,
    /// Header lines, without the framing.
    pub headers: Vec<(&'static str, String)>,
    /// Bytes of the body if they are known; otherwise it is sent in chunks.
    pub length: Option<u64>,
}

/// What to do for one request.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Names the request in [`Simulator::progress`] and the rest.
    pub ordinal: u64,
    /// How the answer begins.
    pub opening: Opening,
    /// The body, step by step; steps count their time from the head.
    pub playback: Playback,
    /// Every byte in a packet of its own.
    pub one_byte_packets: bool,
    /// From here on the socket answers no pings, if it is one.
    pub no_pong: bool,
    /// The most of the body that is sent in a second.
    pub bytes_per_second: Option<u64>,
    /// The answer to a `HEAD`: its length is told, its bytes are not sent.
    pub head_only: bool,
}

/// What becomes of a request that wants to be a WebSocket.
#[derive(Clone, Debug)]
pub enum Upgrade {
    /// It may.
    Go,
    /// It is never answered.
    Never,
    /// It is refused with this answer.
    Refused(Box<Exchange>),
}

#[derive(Clone, Debug)]
struct Open {
    /// What it was admitted with.
    lease: Option<Lease>,
    /// The organisation, if this is one of its requests at once.
    connection: Option<String>,
    /// Output tokens charged so far, and those of the whole answer.
    tokens: u64,
    whole: u64,
    /// Whether there is an answer.
    answers: bool,
    stream: bool,
    /// What it writes to the prompt cache once it begins.
    writes: Vec<u64>,
    begins: Moment,
    left: Option<Moment>,
}

/// The simulated API.
#[derive(Clone, Debug)]
pub struct Simulator {
    pub(crate) scenario: Scenario,
    pub(crate) seed: u64,
    ids: IdSource,
    pub(crate) quota: Quota,
    pub(crate) cache: PromptCache,
    pub(crate) stored: Stored,
    pub(crate) truth: Truth,
    open: BTreeMap<u64, Open>,
    pub(crate) requests: u64,
    connections: u64,
    upgrades: u64,
    /// Requests for an answer that were found valid: what rules count.
    pub(crate) answers: u64,
}

impl Simulator {
    /// A simulator of this scenario; `epoch_s` is the wall time at moment zero, seconds since 1970.
    pub fn new(scenario: Scenario, seed: u64, epoch_s: u64) -> Self {
        Simulator {
            quota: Quota::new(&scenario, epoch_s),
            cache: PromptCache::new(scenario.cache.clone()),
            stored: Stored::new(epoch_s),
            scenario,
            seed,
            ids: IdSource::new(Prng::new(seed).fork("request ids"), 0),
            truth: Truth::default(),
            open: BTreeMap::new(),
            requests: 0,
            connections: 0,
            upgrades: 0,
            answers: 0,
        }
    }

    /// The scenario it plays.
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// The prebuilt answers, if the scenario is bare.
    pub fn bare(&self) -> Option<Bare> {
        self.scenario.bare.map(Bare::new)
    }

    /// How long a new connection waits before anything is read from it.
    pub fn connect(&mut self, now: Moment) -> Duration {
        let number = self.connections;
        self.connections += 1;
        let mut longest = Duration::ZERO;
        for (n, rule) in self.scenario.faults.iter().enumerate() {
            for fault in &rule.faults {
                if let Fault::SlowConnect(span) = fault
                    && self.strikes(n, rule, number, now)
                {
                    longest = longest.max(*span);
                }
            }
        }
        longest
    }

    /// Whether a request may become a WebSocket: its credential is looked at, and its faults.
    pub fn upgrade(&mut self, now: Moment, facts: &RequestFacts<'_>) -> Upgrade {
        let number = self.upgrades;
        self.upgrades += 1;
        let asked = Directives::parse(facts.all("simulate")).ok().and_then(|directives| directives.faults);
        let never = match asked {
            Some(faults) => faults.contains(&Fault::NoUpgrade),
            None => self
                .scenario
                .faults
                .iter()
                .enumerate()
                .any(|(n, rule)| rule.faults.contains(&Fault::NoUpgrade) && self.strikes(n, rule, number, now)),
        };
        if never {
            return Upgrade::Never;
        }
        let (key, bearer) = (facts.header("x-api-key"), facts.header("authorization"));
        let Err(refusal) = callers::identify(&self.scenario, key, bearer, now) else { return Upgrade::Go };
        let request_id = self.ids.request().to_string();
        let answer = No::from(refusal).answer(&request_id);
        Upgrade::Refused(Box::new(self.open_exchange(now, facts, request_id, Known::default(), answer)))
    }

    /// Takes a request and says what to do.
    pub fn begin(&mut self, now: Moment, facts: &RequestFacts<'_>) -> Exchange {
        let request_id = self.ids.request().to_string();
        let mut known = Known::default();
        let answer = match self.answer(now, facts, &request_id, &mut known) {
            Ok(answer) => answer,
            Err(no) => no.answer(&request_id),
        };
        self.open_exchange(now, facts, request_id, known, answer)
    }

    /// Takes a request whose body was not read because it is too large.
    pub fn begin_too_large(&mut self, now: Moment, facts: &RequestFacts<'_>) -> Exchange {
        let request_id = self.ids.request().to_string();
        let answer = No::from(answer::too_large()).answer(&request_id);
        self.open_exchange(now, facts, request_id, Known::default(), answer)
    }

    fn open_exchange(
        &mut self,
        now: Moment,
        facts: &RequestFacts<'_>,
        request_id: String,
        known: Known,
        answer: Answer,
    ) -> Exchange {
        let ordinal = self.requests;
        self.requests += 1;
        let mut headers = answer.headers;
        // What the edge answers knows nothing of the API behind it.
        if answer.status != EDGE_STATUS {
            headers.push(("request-id", request_id.clone()));
            if !known.organisation.is_empty() {
                headers.push(("anthropic-organization-id", known.organisation.clone()));
                headers.push(("anthropic-workspace-id", known.workspace_id));
            }
        }
        let mut prng = self.prng("places", ordinal);
        let after = answer.after;
        let status = answer.status;
        let head = |length| Opening::Head(Head { after, status, headers, length });
        let (opening, reply, playback) = match answer.body {
            Body::Whole { bytes, reply } => {
                let (tokens, content) =
                    reply.as_deref().map_or((0, 0), |reply| (reply.output_tokens, reply.content_bytes()));
                let opening = head(Some(bytes.len() as u64));
                (opening, reply, Playback::body(bytes, tokens, content, &answer.faults, &mut prng))
            }
            Body::Stream { reply, events, ping } => {
                let tokens = reply.output_tokens;
                let playback = Playback::stream(*events, ping, &request_id, tokens, &answer.faults, &mut prng);
                (head(None), Some(reply), playback)
            }
            Body::Broken { reset } => {
                let opening = if reset { Opening::Reset { after } } else { Opening::Close { after } };
                (opening, None, Playback::nothing())
            }
        };
        let stream = known.stream && reply.is_some();
        let open = Open {
            lease: known.lease,
            connection: known.connection,
            tokens: 0,
            whole: reply.as_ref().map_or(0, |reply| reply.output_tokens),
            answers: reply.is_some(),
            stream,
            writes: known.writes,
            begins: known.begins,
            left: None,
        };
        self.open.insert(ordinal, open);
        self.truth.begin(Record {
            ordinal,
            request_id,
            door: format!("{} {}", facts.method, path_of(facts.target)),
            organisation: known.organisation,
            model: known.model,
            stream,
            status: if matches!(opening, Opening::Head(_)) { status } else { 0 },
            refusal: answer.refusal,
            faults: known.faults,
            began: now,
            left: None,
            ended: None,
            progress: Progress::default(),
            asked: known.asked,
            continuation: known.continuation,
            reply,
        });
        let one_byte_packets = answer.faults.contains(&Fault::OneByte);
        let trickle = |fault: &Fault| if let Fault::Trickle(bytes) = fault { Some(*bytes) } else { None };
        let bytes_per_second = answer.faults.iter().filter_map(trickle).min();
        let head_only = facts.method == "HEAD";
        let no_pong = answer.faults.contains(&Fault::NoPong);
        Exchange { ordinal, opening, playback, one_byte_packets, no_pong, bytes_per_second, head_only }
    }

    /// The head of an answer leaves now: where the rate-limit headers are sampled then, this is when.
    pub fn head_leaves(&mut self, now: Moment, exchange: &mut Exchange) {
        if self.quota.rules.headers != Sampled::FirstByte {
            return;
        }
        let Some(lease) = self.open.get(&exchange.ordinal).filter(|open| open.answers).and_then(|o| o.lease.as_ref())
        else {
            return;
        };
        if let Opening::Head(head) = &mut exchange.opening {
            head.headers.retain(|(name, _)| !name.starts_with("anthropic-ratelimit-"));
            let dice = prng(self.seed, "remaining", exchange.ordinal);
            head.headers.extend(self.quota.headers(&lease.holder, dice, now));
        }
    }

    /// Reports how far an answer has come; its output is charged here. If that leaves no output tokens
    /// and running streams end then, returns what [`Playback::run_out`] has to be told.
    pub fn progress(&mut self, now: Moment, ordinal: u64, progress: Progress) -> Option<String> {
        let open = self.open.get_mut(&ordinal)?;
        let tokens = progress.output_tokens.saturating_sub(open.tokens);
        open.tokens += tokens;
        let mut out = None;
        if let Some(lease) = &mut open.lease {
            if open.answers && progress.body_bytes > 0 {
                self.quota.begun(lease, now);
            }
            if tokens > 0 {
                out = self.quota.produced(lease, tokens, now);
                self.truth.produced(&lease.holder.domain, tokens, now);
            }
        }
        self.truth.progress(ordinal, progress);
        out
    }

    /// Reports that the client was seen to leave, while work for it goes on to its end.
    pub fn client_left(&mut self, now: Moment, ordinal: u64) {
        if let Some(open) = self.open.get_mut(&ordinal) {
            open.left.get_or_insert(now);
            self.truth.left(ordinal, now);
        }
    }

    /// Reports that all work for a request has ended.
    pub fn ended(&mut self, now: Moment, ordinal: u64, progress: Progress) {
        self.progress(now, ordinal, progress);
        let Some(open) = self.open.remove(&ordinal) else { return };
        let cancelled = open.left.is_some();
        let ending = if cancelled { Ending::ClientLeft } else { Ending::Played };
        if let Some(organisation) = &open.connection {
            self.quota.disconnect(organisation);
        }
        if now < open.begins {
            self.cache.forget(&open.writes, ordinal, now);
        }
        if let Some(lease) = open.lease {
            self.quota.settle(lease, Settlement { cancelled, whole: open.whole }, now);
        }
        self.truth.end(ordinal, open.stream, open.left, ending, progress, now);
    }

    /// What really happened so far.
    pub fn truth(&self) -> &Truth {
        &self.truth
    }

    /// What really happened as JSON: the counters, and what every limit would have allowed.
    pub fn summary(&mut self, now: Moment) -> Value {
        let mut summary = self.truth.summary(now);
        summary["quota"] = self.quota.report(now);
        summary["cache_entries"] = json!(self.cache.len());
        summary
    }

    /// Forgets what happened and opens new accounts of the limits; what is open, what the buckets hold
    /// and what was spent stays.
    pub fn reset_truth(&mut self, now: Moment) {
        self.truth.reset();
        self.quota.reopen(now);
    }

    /// A generator for one purpose and one number, the same in every run of this seed.
    pub(crate) fn prng(&self, purpose: &str, number: u64) -> Prng {
        prng(self.seed, purpose, number)
    }

    /// Whether a rule strikes the `number`-th of its kind now.
    pub(crate) fn strikes(&self, index: usize, rule: &Rule, number: u64, now: Moment) -> bool {
        let elapsed = now.since(Moment::ZERO).as_nanos();
        let elapsed = rule.period.map_or(elapsed, |period| elapsed % period.as_nanos().max(1));
        rule.every.is_none_or(|n| (number + 1).is_multiple_of(n))
            && elapsed >= rule.from.as_nanos()
            && rule.until.is_none_or(|until| elapsed < until.as_nanos())
            && rule.open_over.is_none_or(|n| self.truth.open > n)
            && self.prng("rule", number).fork(&index.to_string()).chance(rule.probability)
    }
}

fn prng(seed: u64, purpose: &str, number: u64) -> Prng {
    Prng::new(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).fork(purpose)
}

/// The status with which an edge answers for an API it cannot reach.
const EDGE_STATUS: u16 = 502;

pub(crate) fn path_of(target: &str) -> &str {
    target.split('?').next().unwrap_or(target)
}
