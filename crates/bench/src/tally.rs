//! What one thread counted. The thread's tasks and the progress display share it behind a lock that
//! is taken once a read, for some tens of nanoseconds, and almost never contended.

use crate::failure::{Errors, Failure};
use crate::latency::Latency;
use crate::names;
use crate::plan::Plan;
use crate::watch::Brought;
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_wire::usage::Usage;

/// What was counted of one class of requests.
pub(crate) struct ClassTally {
    pub(crate) started: u64,
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    pub(crate) output_tokens: u64,
    pub(crate) first_content: Latency,
}

/// Counts and histograms.
pub(crate) struct Tally {
    /// Classes of the plan's mix, in its order; none where all requests are alike.
    pub(crate) classes: Vec<ClassTally>,
    pub(crate) attempts: u64,
    pub(crate) started: u64,
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) connections_opened: u64,
    pub(crate) truncated_streams: u64,
    pub(crate) answers_by_status: BTreeMap<u16, u64>,
    pub(crate) stop_reasons: BTreeMap<String, u64>,
    pub(crate) errors: Errors,
    pub(crate) connect: Latency,
    pub(crate) start_delay: Latency,
    pub(crate) first_byte: Latency,
    pub(crate) first_content: Latency,
    pub(crate) event_gap: Latency,
    pub(crate) transit: Latency,
    pub(crate) ping_gap: Latency,
    pub(crate) total: Latency,
    /// When the last request ended.
    pub(crate) last_end: Moment,
}

impl Tally {
    pub(crate) fn of(plan: &Plan) -> Self {
        let class = |_| ClassTally { started: 0, ok: 0, failed: 0, output_tokens: 0, first_content: Latency::new() };
        let classes = plan.mix.as_ref().map_or(0, |mix| mix.classes.len());
        Tally {
            classes: (0..classes).map(class).collect(),
            attempts: 0,
            started: 0,
            ok: 0,
            failed: 0,
            events: 0,
            bytes: 0,
            input_tokens: 0,
            output_tokens: 0,
            connections_opened: 0,
            truncated_streams: 0,
            answers_by_status: BTreeMap::new(),
            stop_reasons: BTreeMap::new(),
            errors: Errors::default(),
            connect: Latency::new(),
            start_delay: Latency::new(),
            first_byte: Latency::new(),
            first_content: Latency::new(),
            event_gap: Latency::new(),
            transit: Latency::new(),
            ping_gap: Latency::new(),
            total: Latency::new(),
            last_end: Moment::ZERO,
        }
    }

    /// A request was taken up so long after it should have been.
    pub(crate) fn started(&mut self, class: usize, delay: Duration) {
        self.started += 1;
        if let Some(class) = self.classes.get_mut(class) {
            class.started += 1;
        }
        self.start_delay.record(delay);
    }

    /// A connection was opened.
    pub(crate) fn connected(&mut self, took: Duration) {
        self.connections_opened += 1;
        self.connect.record(took);
    }

    /// An answer's head came. Only a good one counts as a first byte: refusals are quick.
    pub(crate) fn answered(&mut self, status: u16, after: Duration) {
        *self.answers_by_status.entry(status).or_default() += 1;
        if status == 200 {
            self.first_byte.record(after);
        }
    }

    /// A read of a stream; `since_start` is the age of its request.
    pub(crate) fn brought(&mut self, class: usize, brought: &Brought, since_start: Duration) {
        self.bytes += brought.bytes;
        self.events += brought.events;
        if let Some(gap) = brought.gap {
            self.event_gap.record(gap);
        }
        if brought.gaps_of_zero > 0 {
            self.event_gap.record_zeros(brought.gaps_of_zero);
        }
        if brought.first_content {
            self.first_content.record(since_start);
            if let Some(class) = self.classes.get_mut(class) {
                class.first_content.record(since_start);
            }
        }
    }

    /// What an answer said of itself.
    pub(crate) fn said(&mut self, usage: &Usage, stop_reason: Option<&str>) {
        self.input_tokens += usage.input + usage.cache_creation + usage.cache_read;
        self.output_tokens += usage.output;
        if let Some(reason) = stop_reason {
            names::count(&mut self.stop_reasons, &names::harmless(reason), 1);
        }
    }

    /// A request ended at `now`, `since_start` after it should have started; whole with so many
    /// output tokens, or failed.
    pub(crate) fn ended(&mut self, class: usize, outcome: Result<u64, &Failure>, now: Moment, since_start: Duration) {
        self.last_end = self.last_end.max(now);
        let class = self.classes.get_mut(class);
        match outcome {
            Ok(output_tokens) => {
                self.ok += 1;
                self.total.record(since_start);
                if let Some(class) = class {
                    class.ok += 1;
                    class.output_tokens += output_tokens;
                }
            }
            Err(failure) => {
                self.failed += 1;
                self.errors.count(failure);
                if let Some(class) = class {
                    class.failed += 1;
                }
            }
        }
    }

    /// Takes in another thread's.
    pub(crate) fn add(&mut self, more: &Tally) {
        for (class, more) in self.classes.iter_mut().zip(&more.classes) {
            class.started += more.started;
            class.ok += more.ok;
            class.failed += more.failed;
            class.output_tokens += more.output_tokens;
            class.first_content.add(&more.first_content);
        }
        for (slot, by) in [
            (&mut self.attempts, more.attempts),
            (&mut self.started, more.started),
            (&mut self.ok, more.ok),
            (&mut self.failed, more.failed),
            (&mut self.events, more.events),
            (&mut self.bytes, more.bytes),
            (&mut self.input_tokens, more.input_tokens),
            (&mut self.output_tokens, more.output_tokens),
            (&mut self.connections_opened, more.connections_opened),
            (&mut self.truncated_streams, more.truncated_streams),
        ] {
            *slot += by;
        }
        for (status, by) in &more.answers_by_status {
            *self.answers_by_status.entry(*status).or_default() += by;
        }
        names::add(&mut self.stop_reasons, &more.stop_reasons);
        self.errors.add(&more.errors);
        for (slot, by) in [
            (&mut self.connect, &more.connect),
            (&mut self.start_delay, &more.start_delay),
            (&mut self.first_byte, &more.first_byte),
            (&mut self.first_content, &more.first_content),
            (&mut self.event_gap, &more.event_gap),
            (&mut self.transit, &more.transit),
            (&mut self.ping_gap, &more.ping_gap),
            (&mut self.total, &more.total),
        ] {
            slot.add(by);
        }
        self.last_end = self.last_end.max(more.last_end);
    }
}
