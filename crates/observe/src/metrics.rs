//! Counters, gauges and histograms, in Prometheus' text form.
//!
//! Label values come from closed lists, or from the configuration; the one that clients choose,
//! the model, is admitted up to a number and then called `other`. Gaps between events are counted
//! in the stream ([`GapCounts`]) and added here once it ends.

use crate::configuration::Configuration;
use crate::memory::Conversations;
use crate::redaction::Redaction;
use crate::sockets::Sockets;
use crate::spending::Spending;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_wire::usage::Usage;

/// Different models that get a label of their own.
const MODELS_MAX: usize = 64;

/// Upper bounds of the time histograms, seconds.
const TIME_BOUNDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

/// How urgent a request can be.
const BANDS: [&str; 3] = ["interactive", "normal", "background"];

/// The histogram of waits in the queue: from 10 ms on, each bound 1.4 times the one before, so that
/// a percentile read from it is off by a sixth at most.
fn waits() -> Histogram {
    let bounds = std::iter::successors(Some(0.010), |b| Some(b * 1.4)).take_while(|b| *b < 600.0);
    Histogram::new(bounds.chain([600.0]))
}

/// What kind of tokens are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the label's spelling")]
pub enum CacheKind {
    /// Input that was not cached.
    input,
    /// Input written to the cache.
    cache_creation,
    /// Input read from the cache.
    cache_read,
    /// Output.
    output,
}

/// A label that is shared text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Text(pub(crate) Arc<str>);

impl EncodeLabelValue for Text {
    fn encode(&self, e: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        (&*self.0).encode(e)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    door: &'static str,
    tenant: Text,
    status: u16,
    end: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Door {
    door: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseOf {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeOf {
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BudgetOf {
    budget: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClockOf {
    clock: &'static str,
}

/// Whose tokens, of which model and kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TokenLabels {
    tenant: Text,
    model: Text,
    kind: CacheKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaneState {
    lane: Text,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaneOf {
    lane: Text,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BandOf {
    band: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Queued {
    tenant: Text,
    band: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalOf {
    organisation: Text,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OrganisationOf {
    organisation: Text,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassOf {
    class: Text,
}

type Level = Gauge<f64, AtomicU64>;

/// Gaps between the pieces of one stream, counted without sharing anything.
#[derive(Clone, Debug, Default)]
pub struct GapCounts {
    counts: [u32; TIME_BOUNDS.len() + 1],
    sum: Duration,
}

impl GapCounts {
    /// One more gap.
    pub fn add(&mut self, gap: Duration) {
        let seconds = gap.as_secs_f64();
        let bucket = TIME_BOUNDS.iter().position(|b| seconds <= *b).unwrap_or(TIME_BOUNDS.len());
        self.counts[bucket] = self.counts[bucket].saturating_add(1);
        self.sum += gap;
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|n| u64::from(*n)).sum()
    }
}

/// The sums of [`GapCounts`], shown as a histogram.
#[derive(Debug, Default)]
struct GapTotals {
    counts: [u64; TIME_BOUNDS.len() + 1],
    sum: f64,
}

#[derive(Clone, Debug, Default)]
struct GapHistogram(Arc<Mutex<GapTotals>>);

impl prometheus_client::collector::Collector for GapHistogram {
    fn encode(&self, mut encoder: prometheus_client::encoding::DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let buckets: Vec<(f64, u64)> =
            TIME_BOUNDS.iter().copied().chain([f64::INFINITY]).zip(totals.counts.iter().copied()).collect();
        let count = totals.counts.iter().sum();
        let mut metric = encoder.encode_descriptor(
            "stream_gap",
            "Time between the pieces of an upstream stream",
            Some(&Unit::Seconds),
            prometheus_client::metrics::MetricType::Histogram,
        )?;
        metric.encode_histogram::<prometheus_client::encoding::NoLabelSet>(totals.sum, count, &buckets, None)
    }
}

/// Every metric of the process. Clones are the same metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    models: Arc<Mutex<BTreeSet<Arc<str>>>>,
    requests: Family<Request, Counter>,
    streams_open: Gauge,
    first_byte: Family<Door, Histogram, fn() -> Histogram>,
    duration: Family<Door, Histogram, fn() -> Histogram>,
    gaps: GapHistogram,
    retries: Family<CauseOf, Counter>,
    clocks: Family<ClockOf, Counter>,
    refusals: Family<CodeOf, Counter>,
    tokens: Family<TokenLabels, Counter>,
    lanes: Family<LaneState, Gauge>,
    connects: Family<LaneState, Counter>,
    upstream_streams: Family<LaneOf, Gauge>,
    clients: Gauge,
    client_streams: Gauge,
    client_tls_failed: Counter,
    queued: Gauge,
    queue_wait: Family<BandOf, Histogram, fn() -> Histogram>,
    /// Its members, found by walking: every request comes by.
    queue_wait_of: Arc<[(&'static str, Histogram); 3]>,
    queue_waited: Family<Queued, Counter>,
    queue_shed: Family<Queued, Counter>,
    upstream_refusals: Family<RefusalOf, Counter>,
    keys_aside: Family<OrganisationOf, Gauge>,
    estimate_error: Family<ClassOf, Level>,
    classes: Arc<Mutex<BTreeSet<Arc<str>>>>,
    leases: Gauge,
    leaked: Counter,
    lease_audit: Level,
    budgets: Family<BudgetOf, Gauge>,
    truncated: Counter,
    merged: Counter,
    drained: Gauge,
    pub(crate) conversations: Conversations,
    pub(crate) configuration: Configuration,
    pub(crate) sockets: Sockets,
    pub(crate) redaction: Redaction,
    pub(crate) spending: Spending,
}

/// A label that clients choose: its own while there are few, then `other`.
fn label_among(known: &Mutex<BTreeSet<Arc<str>>>, name: &str) -> Text {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(label) = known.get(name) {
        return Text(Arc::clone(label));
    }
    if known.len() >= MODELS_MAX || name.len() > 128 {
        return Text("other".into());
    }
    let label: Arc<str> = name.into();
    known.insert(Arc::clone(&label));
    Text(label)
}

pub(crate) fn times() -> Histogram {
    Histogram::new(TIME_BOUNDS)
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Self {
        let mut r = Registry::with_prefix("tidegate");
        let queue_wait: Family<BandOf, Histogram, fn() -> Histogram> = Family::new_with_constructor(waits);
        let of = |band| (band, queue_wait.get_or_create_owned(&BandOf { band }));
        let queue_wait_of = Arc::new(BANDS.map(of));
        let m = Metrics {
            registry: Arc::default(),
            models: Arc::default(),
            requests: Family::default(),
            streams_open: Gauge::default(),
            first_byte: Family::new_with_constructor(times),
            duration: Family::new_with_constructor(times),
            gaps: GapHistogram::default(),
            retries: Family::default(),
            clocks: Family::default(),
            refusals: Family::default(),
            tokens: Family::default(),
            lanes: Family::default(),
            connects: Family::default(),
            upstream_streams: Family::default(),
            clients: Gauge::default(),
            client_streams: Gauge::default(),
            client_tls_failed: Counter::default(),
            queued: Gauge::default(),
            queue_wait,
            queue_wait_of,
            queue_waited: Family::default(),
            queue_shed: Family::default(),
            upstream_refusals: Family::default(),
            keys_aside: Family::default(),
            estimate_error: Family::default(),
            classes: Arc::default(),
            leases: Gauge::default(),
            leaked: Counter::default(),
            lease_audit: Level::default(),
            budgets: Family::default(),
            truncated: Counter::default(),
            merged: Counter::default(),
            drained: Gauge::default(),
            conversations: Conversations::default(),
            configuration: Configuration::default(),
            sockets: Sockets::default(),
            redaction: Redaction::default(),
            spending: Spending::default(),
        };
        r.register("requests", "Requests that ended, by door, tenant, status and how they ended", m.requests.clone());
        r.register("streams_open", "Answers being produced now", m.streams_open.clone());
        r.register_with_unit(
            "first_byte",
            "From a request's head to its answer's first byte",
            Unit::Seconds,
            m.first_byte.clone(),
        );
        r.register_with_unit(
            "request",
            "From a request's head to the end of its answer",
            Unit::Seconds,
            m.duration.clone(),
        );
        r.register("retries", "Attempts that were repeated, by cause", m.retries.clone());
        r.register("clock_expired", "Times each clock ran out", m.clocks.clone());
        r.register("refusals", "Errors told to clients in Tidegate's own words, by error code", m.refusals.clone());
        r.register("tokens", "Tokens as the upstream reported them", m.tokens.clone());
        r.register("upstream_connections", "Connections to upstreams by lane and state", m.lanes.clone());
        r.register("upstream_connects", "Connection attempts by lane and result", m.connects.clone());
        r.register(
            "upstream_streams",
            "Requests on HTTP/2 connections and WebSockets to upstreams, by lane",
            m.upstream_streams.clone(),
        );
        r.register("client_connections", "Connections of clients", m.clients.clone());
        r.register("client_streams", "HTTP/2 streams of clients", m.client_streams.clone());
        r.register(
            "client_tls_failed",
            "TLS handshakes of clients that failed or did not end in time",
            m.client_tls_failed.clone(),
        );
        r.register("queue_waiting", "Requests that wait for a lease", m.queued.clone());
        r.register_with_unit(
            "queue_wait",
            "How long requests that were admitted waited for leases, all attempts together",
            Unit::Seconds,
            m.queue_wait.clone(),
        );
        r.register("queue_waited", "Leases that had to be waited for, by what was waited for", m.queue_waited.clone());
        r.register("queue_shed", "Requests refused in place of a lease, by reason", m.queue_shed.clone());
        r.register(
            "upstream_refusals",
            "429s, 529s and rejected keys, as upstreams sent them",
            m.upstream_refusals.clone(),
        );
        r.register("upstream_keys_aside", "Keys that are put aside because they were rejected", m.keys_aside.clone());
        r.register(
            "estimate_error",
            "How far input estimates are off on average, as a part of the truth",
            m.estimate_error.clone(),
        );
        r.register("leases", "Leases that are out", m.leases.clone());
        r.register(
            "lease_audit_difference",
            "By how much the scheduler's counters differ from the sum of its leases; always 0 unless there is a bug",
            m.lease_audit.clone(),
        );
        r.register(
            "leases_leaked",
            "Leases given back without being settled; always 0 unless there is a bug",
            m.leaked.clone(),
        );
        r.register("budget_bytes", "Bytes held of each byte budget", m.budgets.clone());
        r.register("answers_at_max_tokens", "Answers that ended with stop_reason max_tokens", m.truncated.clone());
        r.register("backlog_merges", "Times a slow reader's backlog was merged", m.merged.clone());
        r.register("draining", "1 while the process drains", m.drained.clone());
        m.conversations.register(&mut r);
        m.configuration.register(&mut r);
        m.sockets.register(&mut r);
        m.redaction.register(&mut r);
        m.spending.register(&mut r);
        r.register_collector(Box::new(m.gaps.clone()));
        Metrics { registry: Arc::new(r), ..m }
    }

    /// Everything in Prometheus' text form.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut out, &self.registry);
        out
    }

    /// The model's label: its own while there are few, then `other`.
    pub(crate) fn model_label(&self, model: &str) -> Text {
        label_among(&self.models, model)
    }

    /// A request ended: `end` is one of the path's closed list of endings.
    pub fn request_ended(&self, door: &'static str, tenant: &Arc<str>, status: u16, end: &'static str, took: Duration) {
        let labels = Request { door, tenant: Text(Arc::clone(tenant)), status, end };
        self.requests.get_or_create(&labels).inc();
        self.duration.get_or_create(&Door { door }).observe(took.as_secs_f64());
    }

    /// The answer's first byte came.
    pub fn first_byte(&self, door: &'static str, after: Duration) {
        self.first_byte.get_or_create(&Door { door }).observe(after.as_secs_f64());
    }

    /// An answer's production begins (+1) or ends (-1).
    pub fn stream(&self, change: i64) {
        self.streams_open.inc_by(change);
    }

    /// Streams open now.
    pub fn streams_open(&self) -> i64 {
        self.streams_open.get()
    }

    /// The gaps of a stream that ended.
    pub fn gaps(&self, gaps: &GapCounts) {
        let mut totals = self.gaps.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (total, n) in totals.counts.iter_mut().zip(gaps.counts) {
            *total += u64::from(n);
        }
        totals.sum += gaps.sum.as_secs_f64();
    }

    /// An attempt is repeated.
    pub fn retry(&self, cause: &'static str) {
        self.retries.get_or_create(&CauseOf { cause }).inc();
    }

    /// A clock ran out.
    pub fn clock_expired(&self, clock: &'static str) {
        self.clocks.get_or_create(&ClockOf { clock }).inc();
    }

    /// Tidegate refused a request.
    pub fn refused(&self, code: &'static str) {
        self.refusals.get_or_create(&CodeOf { code }).inc();
    }

    /// Tokens used by an answer. Of a model that answered nothing no label is kept: its name may be
    /// invented.
    pub fn tokens(&self, tenant: &Arc<str>, model: &str, usage: &Usage) {
        if *usage == Usage::default() {
            return;
        }
        let model = self.model_label(model);
        let add = |kind, n: u64| {
            if n > 0 {
                let labels = TokenLabels { tenant: Text(Arc::clone(tenant)), model: model.clone(), kind };
                self.tokens.get_or_create(&labels).inc_by(n);
            }
        };
        add(CacheKind::input, usage.input);
        add(CacheKind::cache_creation, usage.cache_creation);
        add(CacheKind::cache_read, usage.cache_read);
        add(CacheKind::output, usage.output);
    }

    /// The gauge of a lane's connections in `state` (`busy` or `idle`). Keep it.
    pub fn lane_gauge(&self, lane: &str, state: &'static str) -> Gauge {
        self.lanes.get_or_create_owned(&LaneState { lane: Text(lane.into()), state })
    }

    /// The counter of a lane's connection attempts with `result` (`opened` or `failed`). Keep it.
    pub fn connect_counter(&self, lane: &str, result: &'static str) -> Counter {
        self.connects.get_or_create_owned(&LaneState { lane: Text(lane.into()), state: result })
    }

    /// The gauge of a lane's streams on HTTP/2 connections and WebSockets. Keep it.
    pub fn lane_streams(&self, lane: &str) -> Gauge {
        self.upstream_streams.get_or_create_owned(&LaneOf { lane: Text(lane.into()) })
    }

    /// A client connected (+1) or left (-1).
    pub fn client(&self, change: i64) {
        self.clients.inc_by(change);
    }

    /// A client's HTTP/2 stream began (+1) or ended (-1).
    pub fn client_stream(&self, change: i64) {
        self.client_streams.inc_by(change);
    }

    /// A client's TLS handshake came to nothing.
    pub fn client_tls_failed(&self) {
        self.client_tls_failed.inc();
    }

    /// Requests in the queue and leases out, now.
    pub fn scheduler(&self, waiting: usize, leased: u64) {
        self.queued.set(waiting as i64);
        self.leases.set(leased as i64);
    }

    /// A request that was admitted had waited so long for leases.
    pub fn queue_wait(&self, band: &'static str, wait: Duration) {
        if let Some((_, waits)) = self.queue_wait_of.iter().find(|(name, _)| *name == band) {
            waits.observe(wait.as_secs_f64());
        }
    }

    /// A lease was waited for; `reason` is one of the scheduler's closed list.
    pub fn queue_waited(&self, tenant: &Arc<str>, band: &'static str, reason: &'static str) {
        self.queue_waited.get_or_create(&Queued { tenant: Text(Arc::clone(tenant)), band, reason }).inc();
    }

    /// A request got no lease; `reason` is one of the scheduler's closed list.
    pub fn queue_shed(&self, tenant: &Arc<str>, band: &'static str, reason: &'static str) {
        self.queue_shed.get_or_create(&Queued { tenant: Text(Arc::clone(tenant)), band, reason }).inc();
    }

    /// An upstream refused; `kind` is one of the path's closed list.
    pub fn upstream_refused(&self, organisation: &str, kind: &'static str) {
        self.upstream_refusals.get_or_create(&RefusalOf { organisation: Text(organisation.into()), kind }).inc();
    }

    /// So many of an organisation's keys are put aside.
    pub fn keys_aside(&self, organisation: &str, keys: usize) {
        self.keys_aside.get_or_create(&OrganisationOf { organisation: Text(organisation.into()) }).set(keys as i64);
    }

    /// How far input estimates of a class of models are off.
    pub fn estimate_error(&self, class: &str, error: f64) {
        let class = label_among(&self.classes, class);
        self.estimate_error.get_or_create(&ClassOf { class }).set(error);
    }

    /// What the audit of the leases found.
    pub fn lease_audit(&self, difference: f64) {
        self.lease_audit.set(difference);
    }

    /// A lease was dropped without being settled.
    pub fn lease_leaked(&self) {
        self.leaked.inc();
    }

    /// Leases leaked so far.
    pub fn leases_leaked(&self) -> u64 {
        self.leaked.get()
    }

    /// Bytes held of a budget, now.
    pub fn budget(&self, budget: &'static str, bytes: u64) {
        self.budgets.get_or_create(&BudgetOf { budget }).set(bytes as i64);
    }

    /// An answer was cut by its own `max_tokens`.
    pub fn at_max_tokens(&self) {
        self.truncated.inc();
    }

    /// A backlog was merged.
    pub fn backlog_merged(&self) {
        self.merged.inc();
    }

    /// Whether the process drains.
    pub fn draining(&self, yes: bool) {
        self.drained.set(i64::from(yes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let m = Metrics::new();
        let tenant: Arc<str> = "acme".into();
        m.request_ended("messages", &tenant, 200, "answered", Duration::from_millis(3));
        m.tokens(&tenant, "claude-opus-5-5", &Usage { input: 5, output: 7, ..Usage::default() });
        m.clock_expired("first_byte");
        m.queue_wait("normal", Duration::from_millis(25));
        m.queue_waited(&tenant, "normal", "turn");
        m.queue_shed(&tenant, "normal", "too_long");
        m.upstream_refused("north", "requests");
        m.keys_aside("north", 2);
        m.estimate_error("claude-opus-4", 0.25);
        m.lease_audit(0.5);
        let mut gaps = GapCounts::default();
        gaps.add(Duration::from_millis(4));
        gaps.add(Duration::from_secs(500));
        m.gaps(&gaps);
        let text = m.text();
        for line in [
            "tidegate_requests_total{door=\"messages\",tenant=\"acme\",status=\"200\",end=\"answered\"} 1",
            "tidegate_tokens_total{tenant=\"acme\",model=\"claude-opus-5-5\",kind=\"output\"} 7",
            "tidegate_clock_expired_total{clock=\"first_byte\"} 1",
            "tidegate_stream_gap_seconds_bucket{le=\"0.005\"} 1",
            "tidegate_stream_gap_seconds_bucket{le=\"+Inf\"} 2",
            "tidegate_stream_gap_seconds_count 2",
            "tidegate_queue_wait_seconds_count{band=\"normal\"} 1",
            "tidegate_queue_waited_total{tenant=\"acme\",band=\"normal\",reason=\"turn\"} 1",
            "tidegate_queue_shed_total{tenant=\"acme\",band=\"normal\",reason=\"too_long\"} 1",
            "tidegate_upstream_refusals_total{organisation=\"north\",kind=\"requests\"} 1",
            "tidegate_upstream_keys_aside{organisation=\"north\"} 2",
            "tidegate_estimate_error{class=\"claude-opus-4\"} 0.25",
            "tidegate_lease_audit_difference 0.5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }

    #[test]
    fn clients_cannot_make_labels_without_end() {
        let m = Metrics::new();
        let tenant: Arc<str> = "t".into();
        for n in 0..500 {
            m.tokens(&tenant, &format!("m{n}"), &Usage { output: 1, ..Usage::default() });
        }
        assert_eq!(m.text().matches("tidegate_tokens_total{").count(), MODELS_MAX + 1);
    }
}
