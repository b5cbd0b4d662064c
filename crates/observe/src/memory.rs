//! Metrics of conversations: turns, windows, what is in memory.

use crate::metrics::{Metrics, times};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TurnEnd {
    end: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FoundIn {
    place: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeletedBy {
    by: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpkeepOf {
    task: &'static str,
}

/// The numbers.
#[derive(Clone, Debug)]
pub(crate) struct Conversations {
    turns: Family<TurnEnd, Counter>,
    found: Family<FoundIn, Counter>,
    cuts: Counter,
    summaries: Family<TurnEnd, Counter>,
    summary_items: Counter,
    held: Gauge,
    held_bytes: Gauge,
    keep: Histogram,
    window: Histogram,
    error: Histogram,
    deleted: Family<DeletedBy, Counter>,
    deleted_bytes: Family<DeletedBy, Counter>,
    upkeep_at: Family<UpkeepOf, Gauge>,
    upkeep_failed: Family<UpkeepOf, Counter>,
    log_bytes: Gauge,
    log_free_bytes: Gauge,
    log_freed_bytes: Counter,
}

impl Default for Conversations {
    fn default() -> Self {
        Conversations {
            turns: Family::default(),
            found: Family::default(),
            cuts: Counter::default(),
            summaries: Family::default(),
            summary_items: Counter::default(),
            held: Gauge::default(),
            held_bytes: Gauge::default(),
            keep: times(),
            // Each bound twice the one before: 1,000 to 1,024,000 tokens.
            window: Histogram::new((0..11).map(|n| f64::from(1_000 << n))),
            deleted: Family::default(),
            deleted_bytes: Family::default(),
            upkeep_at: Family::default(),
            upkeep_failed: Family::default(),
            log_bytes: Gauge::default(),
            log_free_bytes: Gauge::default(),
            log_freed_bytes: Counter::default(),
            error: Histogram::new([0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0]),
        }
    }
}

impl Conversations {
    pub(crate) fn register(&self, r: &mut Registry) {
        r.register(
            "turns",
            "Turns of conversations: kept, interrupted (kept in part), replayed, refused (by the log), lost (an interrupted one that the log did not take)",
            self.turns.clone(),
        );
        r.register("conversations_found", "Conversations looked for, by where they were", self.found.clone());
        r.register("windows_cut", "Windows that were cut because they passed their high mark", self.cuts.clone());
        r.register("summaries", "Summaries: made, failed, no_room (too many were being made)", self.summaries.clone());
        r.register(
            "summary_items_dropped",
            "Items of summaries that were not believed: they say what their source does not",
            self.summary_items.clone(),
        );
        r.register("conversations_held", "Conversations in memory", self.held.clone());
        r.register_with_unit(
            "conversations_held",
            "What the conversations in memory take",
            Unit::Bytes,
            self.held_bytes.clone(),
        );
        r.register_with_unit(
            "turn_keep",
            "From an answer's end to its turn being on the disk",
            Unit::Seconds,
            self.keep.clone(),
        );
        r.register("window_tokens", "Input tokens of turns, as the upstream counted them", self.window.clone());
        r.register(
            "window_estimate_error",
            "How far the estimate of a turn's input was off, either way, as a part of what the upstream counted",
            self.error.clone(),
        );
        self.register_upkeep(r);
    }
}

impl Conversations {
    /// What is deleted, and the file it is deleted from.
    fn register_upkeep(&self, r: &mut Registry) {
        r.register(
            "conversations_deleted",
            "Conversations deleted for good, by what: door, erasure, retention",
            self.deleted.clone(),
        );
        r.register("conversations_deleted_bytes", "Bytes of their turns, by the same", self.deleted_bytes.clone());
        r.register(
            "conversation_upkeep_seconds",
            "When retention, that of durable streams, and compaction last ran to their end, seconds since 1970",
            self.upkeep_at.clone(),
        );
        r.register("conversation_upkeep_failed", "Times they failed", self.upkeep_failed.clone());
        r.register("conversation_log_bytes", "Size of the conversation log's file", self.log_bytes.clone());
        r.register("conversation_log_free_bytes", "Of these, in pages that are free", self.log_free_bytes.clone());
        r.register(
            "conversation_log_freed_bytes",
            "Bytes by which compactions shortened it",
            self.log_freed_bytes.clone(),
        );
    }
}

impl Metrics {
    /// So many conversations were deleted; `by` is one of a closed list.
    pub fn conversations_deleted(&self, by: &'static str, conversations: u64, bytes: u64) {
        self.conversations.deleted.get_or_create(&DeletedBy { by }).inc_by(conversations);
        self.conversations.deleted_bytes.get_or_create(&DeletedBy { by }).inc_by(bytes);
    }

    /// A task of the upkeep ran to its end, at this time of the wall clock, ms since 1970.
    pub fn conversation_upkeep(&self, task: &'static str, now_ms: u64) {
        let seconds = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
        self.conversations.upkeep_at.get_or_create(&UpkeepOf { task }).set(seconds);
    }

    /// A task of the upkeep failed.
    pub fn conversation_upkeep_failed(&self, task: &'static str) {
        self.conversations.upkeep_failed.get_or_create(&UpkeepOf { task }).inc();
    }

    /// What the conversation log's file takes.
    pub fn conversation_log(&self, file_bytes: u64, free_bytes: u64) {
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.conversations.log_bytes.set(number(file_bytes));
        self.conversations.log_free_bytes.set(number(free_bytes));
    }

    /// A compaction shortened it.
    pub fn conversation_log_freed(&self, bytes: u64) {
        self.conversations.log_freed_bytes.inc_by(bytes);
    }

    /// A turn came to this end.
    pub fn turn(&self, end: &'static str) {
        self.conversations.turns.get_or_create(&TurnEnd { end }).inc();
    }

    /// A conversation was looked for, and was in memory or had to be read.
    pub fn conversation_found(&self, in_memory: bool) {
        let place = if in_memory { "memory" } else { "log" };
        self.conversations.found.get_or_create(&FoundIn { place }).inc();
    }

    /// So many conversations are in memory, and take so many bytes.
    pub fn conversations_held(&self, conversations: usize, bytes: u64) {
        self.conversations.held.set(i64::try_from(conversations).unwrap_or(i64::MAX));
        self.conversations.held_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// A window was cut.
    pub fn window_cut(&self) {
        self.conversations.cuts.inc();
    }

    /// A summary came to this end.
    pub fn summary(&self, end: &'static str) {
        self.conversations.summaries.get_or_create(&TurnEnd { end }).inc();
    }

    /// So many items of a summary were not believed.
    pub fn summary_items_dropped(&self, items: usize) {
        self.conversations.summary_items.inc_by(items as u64);
    }

    /// A turn is on the disk, so long after its answer's end.
    pub fn turn_kept_after(&self, span: Duration) {
        self.conversations.keep.observe(span.as_secs_f64());
    }

    /// A turn's input had so many tokens, where `estimated` were expected.
    pub fn window_counted(&self, estimated: f64, actual: u64) {
        if actual > 0 {
            let actual = actual as f64;
            self.conversations.window.observe(actual);
            self.conversations.error.observe((estimated - actual).abs() / actual);
        }
    }
}
