//! What to measure and how: the caller's wishes, with defaults that suit a first look.

use crate::mix::Mix;
use std::fmt;
use std::time::Duration;
use tidegate_base::Secret;
use tidegate_transport::TlsRoots;

/// Connections of one run. A process may hold some 20,000 files; past 50,000 one address has no
/// more ports to connect from.
const CONCURRENCY_MAX: usize = 50_000;
/// Threads of one run. Past the machine's cores they only disturb each other.
const THREADS_MAX: usize = 64;
/// Requests a second of one run: more than one machine can send.
const RATE_PER_S_MAX: f64 = 1_000_000.0;
/// The API takes bodies up to 32 MB.
const PROMPT_BYTES_MAX: usize = 32_000_000;
/// Repeated attempts of one request: the SDKs make two, and an impatient user of theirs a few more.
const RETRIES_MAX: u32 = 20;
/// What a run lasts if neither a duration nor a number of requests is given.
const DURATION_DEFAULT: Duration = Duration::from_secs(10);

/// How the answer is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `stream: false`: one JSON message.
    Json,
    /// `stream: true`: Server-Sent Events.
    Sse,
    /// `stream: true` over a WebSocket, in the dialect `tidegate.v1`: a socket for each connection,
    /// one request after another on it. Headers that have no place in a frame are not sent.
    Socket,
}

impl Mode {
    /// Its name in reports: `json`, `sse` or `websocket`.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Json => "json",
            Mode::Sse => "sse",
            Mode::Socket => "websocket",
        }
    }
}

/// How the starts of an open loop are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Independent callers: exponential gaps, drawn from the plan's seed.
    Poisson,
    /// A metronome.
    Even,
}

impl Arrival {
    /// Its name in reports: `poisson` or `even`.
    pub fn name(self) -> &'static str {
        match self {
            Arrival::Poisson => "poisson",
            Arrival::Even => "even",
        }
    }
}

/// One measurement. Begin with [`Plan::new`] and change what should differ.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where: `http[s]://host[:port][/prefix]`; `/v1/messages` is added unless it is there.
    pub url: String,
    /// JSON, SSE or a WebSocket (default: SSE).
    pub mode: Mode,
    /// Connections, and so requests under way, at most (default: 16).
    pub concurrency: usize,
    /// Requests a second, whether or not earlier ones have been answered (open loop). `None`, the
    /// default: each connection sends its next request when the last has ended (closed loop).
    pub rate_per_s: Option<f64>,
    /// How an open loop's starts are spread (default: Poisson).
    pub arrival: Arrival,
    /// No request starts later than this (default: 10 s if `requests` is not given either).
    pub duration: Option<Duration>,
    /// So many requests and no more (default: as many as fit the duration).
    pub requests: Option<u64>,
    /// Sent as `x-api-key` (default: none is sent).
    pub key: Option<Secret>,
    /// The request's `model` (default: `claude-haiku-5-5`).
    pub model: String,
    /// Length of the one user message, in bytes (default: 200).
    pub prompt_bytes: usize,
    /// The request's `max_tokens` (default: 256).
    pub max_tokens: u32,
    /// Whether the model is asked to think first, as much as it likes and unseen (default: no).
    pub thinking: bool,
    /// Further header lines, such as `simulate: output_tokens=50`. One with the name of a line the
    /// generator writes itself takes its place; framing lines are refused.
    pub headers: Vec<(String, String)>,
    /// Whether connections carry one request after another (default: yes).
    pub keep_alive: bool,
    /// What one request may take from when it is really sent (default: 60 s).
    pub request_timeout: Duration,
    /// What requests that are under way when the duration is over still get (default: 30 s).
    pub grace: Duration,
    /// Span over which a closed loop's connections begin, one after another (default: none).
    pub ramp: Duration,
    /// Seed of the arrivals and the prompt (default: 1).
    pub seed: u64,
    /// Threads, each with its own runtime and its share of the connections (default: 1).
    pub threads: usize,
    /// Whose certificates are believed over https (default: the machine's roots).
    pub tls_roots: TlsRoots,
    /// How often a request is sent again, beside the first time, by the rules of the official SDKs
    /// (`retry-after`, else waits that double from half a second, with jitter); `request_timeout`
    /// is for all of it. The SDKs' own default is 2 (default: 0).
    pub retries: u32,
    /// What differs between the requests (default: nothing, all are alike).
    pub mix: Option<Mix>,
    /// Whether the events of streams say when they were sent, as the simulator's bare target writes
    /// them if asked to: then the report tells how long they were on their way. Only a sender on
    /// this machine has the same clock (default: no).
    pub stamps: bool,
}

impl Plan {
    /// A plan for `url` with every default.
    pub fn new(url: impl Into<String>) -> Self {
        Plan {
            url: url.into(),
            mode: Mode::Sse,
            concurrency: 16,
            rate_per_s: None,
            arrival: Arrival::Poisson,
            duration: None,
            requests: None,
            key: None,
            model: "claude-haiku-5-5".to_owned(),
            prompt_bytes: 200,
            max_tokens: 256,
            thinking: false,
            headers: Vec::new(),
            keep_alive: true,
            request_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(30),
            ramp: Duration::ZERO,
            seed: 1,
            threads: 1,
            tls_roots: TlsRoots::Machine,
            retries: 0,
            mix: None,
            stamps: false,
        }
    }

    /// How long requests are started for, if that is limited at all.
    pub(crate) fn sending_span(&self) -> Option<Duration> {
        self.duration.or(if self.requests.is_none() { Some(DURATION_DEFAULT) } else { None })
    }

    /// Refuses what cannot be run.
    pub(crate) fn check_numbers(&self) -> Result<(), BenchError> {
        let within = |ok: bool, what: &str| if ok { Ok(()) } else { Err(BenchError::Plan(what.to_owned())) };
        let concurrency = format!("concurrency is between 1 and {CONCURRENCY_MAX}");
        within((1..=CONCURRENCY_MAX).contains(&self.concurrency), &concurrency)?;
        within((1..=THREADS_MAX).contains(&self.threads), &format!("threads are between 1 and {THREADS_MAX}"))?;
        within(self.threads <= self.concurrency, "there are more threads than connections to share out")?;
        let rate_ok = self.rate_per_s.is_none_or(|rate| rate > 0.0 && rate <= RATE_PER_S_MAX);
        within(rate_ok, &format!("the rate is above 0 and at most {RATE_PER_S_MAX} requests/s"))?;
        within(self.requests != Some(0), "the number of requests is at least 1")?;
        within(self.duration.is_none_or(|span| !span.is_zero()), "the duration is longer than 0")?;
        within(!self.request_timeout.is_zero(), "the request timeout is longer than 0")?;
        within(self.max_tokens > 0, "max_tokens is at least 1")?;
        within(self.prompt_bytes > 0, "the prompt has at least one byte: the API refuses empty messages")?;
        let longest = self.mix.as_ref().map_or(self.prompt_bytes, |mix| mix.prompt_bytes_max.max(self.prompt_bytes));
        within(longest <= PROMPT_BYTES_MAX, &format!("the prompt has at most {PROMPT_BYTES_MAX} bytes"))?;
        within(self.retries <= RETRIES_MAX, &format!("a request is repeated at most {RETRIES_MAX} times"))?;
        self.mix.as_ref().map_or(Ok(()), |mix| mix.check(self))
    }
}

/// Why a run did not begin or did not come to its end.
#[derive(Debug)]
pub enum BenchError {
    /// The plan cannot be run; the text says what it should have been.
    Plan(String),
    /// TLS could not be set up.
    Tls(String),
    /// The machine gave no thread or runtime, or a thread of ours broke.
    Machine(String),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (BenchError::Plan(why) | BenchError::Tls(why) | BenchError::Machine(why)) = self;
        f.write_str(why)
    }
}

impl std::error::Error for BenchError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut Plan)) -> String {
        let mut plan = Plan::new("http://a");
        change(&mut plan);
        plan.check_numbers().err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn impossible_numbers_are_refused_by_name() {
        assert_eq!(check(|_| {}), "");
        assert!(check(|p| p.concurrency = 0).contains("concurrency"));
        assert!(check(|p| p.threads = 17).contains("threads"));
        assert!(check(|p| p.rate_per_s = Some(0.0)).contains("rate"));
        assert!(check(|p| p.rate_per_s = Some(f64::NAN)).contains("rate"));
        assert!(check(|p| p.requests = Some(0)).contains("requests"));
        assert!(check(|p| p.duration = Some(Duration::ZERO)).contains("duration"));
        assert!(check(|p| p.prompt_bytes = 0).contains("prompt"));
        assert!(check(|p| p.retries = 21).contains("repeated"));
    }

    #[test]
    fn a_run_without_an_end_gets_one() {
        let mut plan = Plan::new("http://a");
        assert_eq!(plan.sending_span(), Some(DURATION_DEFAULT));
        plan.requests = Some(5);
        assert_eq!(plan.sending_span(), None);
    }
}
