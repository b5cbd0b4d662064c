//! Phase 11, settle: the one exit of every request.
//!
//! Usage to the metrics and the ledger, the gaps of its stream, one record to the log. A request whose task
//! vanishes (a panic, a runtime that stops) still leaves the table, by [`Life`]'s drop, which
//! gives back a number and does nothing else.

use crate::house::House;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_observe::{FinishedRequest, GapCounts, LiveRequest, Phase, Record, Reservation};
use tidegate_wire::usage::Usage;

/// How a request can end; a closed list, and a label in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The model's answer, whole.
    Answered,
    /// The upstream's refusal of this very request, passed on.
    Said,
    /// Tidegate's own refusal.
    Refused,
    /// The upstream failed, before or inside the answer.
    UpstreamFailed,
    /// The client left first.
    ClientLeft,
    /// The client did not read.
    SlowReader,
    /// An operator or a drain cancelled it.
    Cancelled,
    /// Its deadline passed.
    Deadline,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            End::Answered => "answered",
            End::Said => "upstream_refused",
            End::Refused => "refused",
            End::UpstreamFailed => "upstream_failed",
            End::ClientLeft => "client_left",
            End::SlowReader => "slow_reader",
            End::Cancelled => "cancelled",
            End::Deadline => "deadline",
        }
    }
}

/// A request's entry in the table of live ones, for as long as it lives.
pub(crate) struct Life<'h> {
    house: &'h House,
    pub(crate) live: Arc<LiveRequest>,
}

impl<'h> Life<'h> {
    pub(crate) fn begin(house: &'h House, request: LiveRequest) -> Self {
        house.metrics.stream(1);
        Life { house, live: house.live.enter(request) }
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        if self.live.is_shown() {
            self.house.metrics.stream(-1);
        }
        self.house.live.leave(self.live.stream);
    }
}

/// What the phases wrote down along the way.
#[derive(Default)]
pub(crate) struct Account {
    pub(crate) tenant: Option<Arc<str>>,
    /// The band it asked for.
    pub(crate) band: Option<&'static str>,
    pub(crate) model: String,
    /// A fast answer was asked for, which costs more.
    pub(crate) fast: bool,
    /// Tidegate asks in the tenant's name.
    pub(crate) is_errand: bool,
    /// Its answer costs something.
    pub(crate) costs: bool,
    /// What it holds of its tenant's budget.
    pub(crate) reservation: Option<Reservation>,
    pub(crate) stream: bool,
    /// It went on as a stream of its own, which is settled where its owner walked it.
    pub(crate) hosted: bool,
    pub(crate) attempts: u32,
    /// How often its answer was taken up again.
    pub(crate) mended: u32,
    pub(crate) waited: Duration,
    pub(crate) first_byte_at: Option<Moment>,
    pub(crate) usage: Usage,
    /// Whether its output is partly an estimate.
    pub(crate) estimated: bool,
    /// Whether its input is an estimate, of an upstream that does not count it.
    pub(crate) input_estimated: bool,
    /// What each attempt used that used something.
    pub(crate) uses: Vec<Use>,
    /// What the last attempt used.
    pub(crate) usage_of_last: Usage,
    pub(crate) gaps: GapCounts,
    pub(crate) stop_reason: Option<Box<str>>,
    pub(crate) code: Option<&'static str>,
    /// What the log is told of the last failure.
    pub(crate) detail: String,
    pub(crate) status: u16,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
}

/// What one attempt used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    /// Which one, from 1.
    pub(crate) attempt: u32,
    pub(crate) usage: Usage,
    /// Whether that is partly an estimate.
    pub(crate) estimated: bool,
}

impl Account {
    /// Adds what one attempt used: every attempt is billed, each once. Whether its input is an estimate,
    /// and its output, is in `estimated`.
    pub(crate) fn used(&mut self, usage: &Usage, [input, output]: [bool; 2]) {
        self.input_estimated |= input;
        self.estimated |= output;
        let estimated = input || output;
        // At most as many as attempts are made.
        self.uses.push(Use { attempt: self.attempts, usage: *usage, estimated });
        // The numbers are the upstream's word, and may be absurd.
        let add = |sum: &mut u64, n: u64| *sum = sum.saturating_add(n);
        add(&mut self.usage.input, usage.input);
        add(&mut self.usage.cache_creation, usage.cache_creation);
        add(&mut self.usage.cache_creation_1h, usage.cache_creation_1h);
        add(&mut self.usage.cache_read, usage.cache_read);
        add(&mut self.usage.output, usage.output);
        self.usage_of_last = *usage;
    }
}

/// The phase.
pub(crate) fn settle(house: &House, life: &Life<'_>, account: &Account, end: End) {
    let (live, metrics) = (&life.live, &house.metrics);
    live.enter(Phase::Settle);
    if account.hosted {
        // What is left here is a reader: the request is counted once, with what it used.
        return account.code.iter().for_each(|code| metrics.refused(code));
    }
    let now = house.clock.now();
    let took = now.since(live.since);
    let nobody: Arc<str> = "none".into();
    let tenant = account.tenant.as_ref().unwrap_or(&nobody);
    metrics.request_ended(live.door, tenant, account.status, end.name(), took);
    metrics.tokens(tenant, &account.model, &account.usage);
    house.costs.record(house, account, end);
    metrics.gaps(&account.gaps);
    if let (Some(band), 1..) = (account.band, account.attempts) {
        metrics.queue_wait(band, account.waited);
    }
    if account.stop_reason.as_deref() == Some("max_tokens") {
        metrics.at_max_tokens();
    }
    if let Some(code) = account.code {
        metrics.refused(code);
    }
    let first_byte = account.first_byte_at.map(|at| at.since(live.since));
    if let Some(span) = first_byte {
        metrics.first_byte(live.door, span);
    }
    let usage = &account.usage;
    live.over(|upstream_key, ids| {
        let ids = match ids {
            [one] => Cow::Borrowed(one.as_str()),
            ids => Cow::Owned(ids.join(",")),
        };
        let record = Record {
            request: live.request.as_str(),
            door: live.door,
            tenant,
            model: &account.model,
            stream: account.stream,
            status: account.status,
            end: end.name(),
            code: account.code,
            attempts: account.attempts,
            mended: account.mended,
            upstream_key,
            upstream_request_ids: &ids,
            waited_ms: Record::ms(account.waited),
            first_byte_ms: first_byte.map(Record::ms),
            total_ms: Record::ms(took),
            events: account.events,
            bytes: account.bytes,
            input_tokens: usage.input,
            cache_read_tokens: usage.cache_read,
            cache_creation_tokens: usage.cache_creation,
            output_tokens: usage.output,
            output_estimated: account.estimated,
            input_estimated: account.input_estimated,
            stop_reason: account.stop_reason.as_deref(),
            detail: &account.detail,
        };
        house.records.write(matches!(end, End::UpstreamFailed | End::SlowReader), &record);
    });
    if account.tenant.is_none() || account.model.is_empty() {
        return;
    }
    house.finished.add(FinishedRequest {
        live: Arc::clone(live),
        status: account.status,
        end: end.name(),
        code: account.code,
        attempts: account.attempts,
        ended: now,
        took,
        waited: account.waited,
    });
}
