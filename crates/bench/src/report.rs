//! What a run found: numbers with their units, as fields, as JSON and as a table.

use crate::cpu::CpuTime;
use crate::failure::Errors;
use crate::latency::Percentiles;
use crate::plan::Plan;
use crate::table;
use crate::tally::Tally;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_base::Moment;

/// Processor time the generator took from the machine it measures on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GeneratorCost {
    /// Its threads ran so long, all together.
    pub cpu_s: f64,
    /// They were ready so long but another had the processor. If this is not small against `cpu_s`,
    /// the generator was short of processor and its latencies are partly its own.
    pub cpu_wait_s: f64,
    /// Of `cpu_s`, on one finished request.
    pub cpu_us_per_request: f64,
    /// Of `cpu_s`, on one event; `None` without events.
    pub cpu_us_per_event: Option<f64>,
}

/// What a run found of one class of its requests.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassReport {
    /// Its name.
    pub name: String,
    /// Requests begun.
    pub started: u64,
    /// Requests answered whole and sound.
    pub ok: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Output tokens of the whole answers.
    pub output_tokens: u64,
    /// From when a request should have started to the first event with content, repeated attempts
    /// included.
    pub first_content_ms: Percentiles,
}

/// What a run found. Spans are in milliseconds and run from when a request should have started:
/// in an open loop from its moment, or from when the generator's timer woke a connection that was
/// free and waiting for it; in a closed loop from when its connection was free.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub(crate) plan: Value,
    pub(crate) headline: String,
    /// From the beginning to the end of the last request.
    pub elapsed: Duration,
    /// Whether the caller stopped it.
    pub stopped_early: bool,
    /// Requests begun.
    pub started: u64,
    /// Times that one was sent, repeated attempts included.
    pub attempts: u64,
    /// Requests answered whole and sound.
    pub ok: u64,
    /// Requests that failed; `errors` says how.
    pub failed: u64,
    /// Requests given up at the end of the grace, or when the run was stopped.
    pub unfinished: u64,
    /// Events of streams, comments left out.
    pub events: u64,
    /// Bytes of answers' bodies.
    pub bytes: u64,
    /// Input tokens that answers reported, cached ones included.
    pub input_tokens: u64,
    /// Output tokens that answers reported.
    pub output_tokens: u64,
    /// Connections opened.
    pub connections_opened: u64,
    /// Streams that the endpoint ended or cut without `message_stop` and without an `error` event.
    /// They are among the `errors` too (`truncated` or `reset`).
    pub truncated_streams: u64,
    /// The classes of the plan's mix, in its order.
    pub classes: Vec<ClassReport>,
    /// Answers whose head came, by status.
    pub answers_by_status: BTreeMap<u16, u64>,
    /// Answers by their `stop_reason`.
    pub stop_reasons: BTreeMap<String, u64>,
    /// Failed requests by kind.
    pub errors: Errors,
    /// Name, TCP and TLS of each connection opened.
    pub connect_ms: Percentiles,
    /// How much later than it should have a request was begun, the generator's timer included.
    pub start_delay_ms: Percentiles,
    /// To the whole head of an answer with status 200.
    pub first_byte_ms: Percentiles,
    /// To the first event with content.
    pub first_content_ms: Percentiles,
    /// From one event to the next of its stream; events read together have a gap of zero.
    pub event_gap_ms: Percentiles,
    /// From when an event says it was sent until it was read, of plans with `stamps`.
    pub transit_ms: Percentiles,
    /// From one ping of the endpoint's to the next on the same WebSocket.
    pub ping_gap_ms: Percentiles,
    /// To the end of an answer that was whole and sound.
    pub total_ms: Percentiles,
    /// What the generator cost; `None` where the machine does not tell.
    pub generator: Option<GeneratorCost>,
}

impl Report {
    pub(crate) fn new(
        plan: &Plan,
        tally: &Tally,
        began: Moment,
        now: Moment,
        cpu: Option<CpuTime>,
        stopped_early: bool,
    ) -> Self {
        let finished = tally.ok + tally.failed;
        let unfinished = tally.started - finished;
        let end = if unfinished > 0 { now } else { tally.last_end };
        let us_per = |cpu: CpuTime, n: u64| cpu.on_cpu.as_secs_f64() * 1e6 / n as f64;
        let generator = cpu.filter(|_| finished > 0).map(|cpu| GeneratorCost {
            cpu_s: cpu.on_cpu.as_secs_f64(),
            cpu_wait_s: cpu.waited.as_secs_f64(),
            cpu_us_per_request: us_per(cpu, finished),
            cpu_us_per_event: (tally.events > 0).then(|| us_per(cpu, tally.events)),
        });
        let classes = plan.mix.iter().flat_map(|mix| &mix.classes).zip(&tally.classes);
        let classes = classes.map(|(class, tally)| ClassReport {
            name: class.name.clone(),
            started: tally.started,
            ok: tally.ok,
            failed: tally.failed,
            output_tokens: tally.output_tokens,
            first_content_ms: tally.first_content.percentiles(),
        });
        Report {
            plan: plan_json(plan),
            headline: headline(plan),
            elapsed: end.since(began),
            stopped_early,
            started: tally.started,
            attempts: tally.attempts,
            ok: tally.ok,
            failed: tally.failed,
            unfinished,
            events: tally.events,
            bytes: tally.bytes,
            input_tokens: tally.input_tokens,
            output_tokens: tally.output_tokens,
            connections_opened: tally.connections_opened,
            truncated_streams: tally.truncated_streams,
            classes: classes.collect(),
            answers_by_status: tally.answers_by_status.clone(),
            stop_reasons: tally.stop_reasons.clone(),
            errors: tally.errors.clone(),
            connect_ms: tally.connect.percentiles(),
            start_delay_ms: tally.start_delay.percentiles(),
            first_byte_ms: tally.first_byte.percentiles(),
            first_content_ms: tally.first_content.percentiles(),
            event_gap_ms: tally.event_gap.percentiles(),
            transit_ms: tally.transit.percentiles(),
            ping_gap_ms: tally.ping_gap.percentiles(),
            total_ms: tally.total.percentiles(),
            generator,
        }
    }

    fn per_s(&self, n: u64) -> f64 {
        let elapsed_s = self.elapsed.as_secs_f64();
        if elapsed_s > 0.0 { n as f64 / elapsed_s } else { 0.0 }
    }

    /// Answered requests a second.
    pub fn requests_per_s(&self) -> f64 {
        self.per_s(self.ok)
    }

    /// Events a second.
    pub fn events_per_s(&self) -> f64 {
        self.per_s(self.events)
    }

    /// Bytes of bodies a second.
    pub fn bytes_per_s(&self) -> f64 {
        self.per_s(self.bytes)
    }

    /// Output tokens a second.
    pub fn output_tokens_per_s(&self) -> f64 {
        self.per_s(self.output_tokens)
    }

    /// The report for people: aligned plain text that ends in a newline.
    pub fn table(&self) -> String {
        table::table(self)
    }

    /// The report for programs. Names are stable, units are in the names, a span that never
    /// occurred has nulls; the key and the values of extra headers are not in it.
    pub fn json(&self) -> Value {
        let tenth = |x: f64| (x * 10.0).round() / 10.0;
        let micro = |x: f64| (x * 1e6).round() / 1e6;
        json!({
            "plan": self.plan,
            "elapsed_s": micro(self.elapsed.as_secs_f64()),
            "stopped_early": self.stopped_early,
            "requests": {
                "started": self.started,
                "ok": self.ok,
                "failed": self.failed,
                "unfinished": self.unfinished,
                "attempts": self.attempts,
            },
            "requests_per_s": tenth(self.requests_per_s()),
            "events": self.events,
            "events_per_s": tenth(self.events_per_s()),
            "bytes": self.bytes,
            "bytes_per_s": tenth(self.bytes_per_s()),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "output_tokens_per_s": tenth(self.output_tokens_per_s()),
            "connections_opened": self.connections_opened,
            "truncated_streams": self.truncated_streams,
            "answers_by_status": self.answers_by_status.iter().map(|(k, v)| (k.to_string(), json!(v))).collect::<Value>(),
            "stop_reasons": self.stop_reasons,
            "errors": self.errors.json(),
            "connect_ms": self.connect_ms.json(),
            "start_delay_ms": self.start_delay_ms.json(),
            "first_byte_ms": self.first_byte_ms.json(),
            "first_content_ms": self.first_content_ms.json(),
            "event_gap_ms": self.event_gap_ms.json(),
            "transit_ms": self.transit_ms.json(),
            "ping_gap_ms": self.ping_gap_ms.json(),
            "total_ms": self.total_ms.json(),
            "classes": self.classes.iter().map(|class| json!({
                "name": class.name,
                "started": class.started,
                "ok": class.ok,
                "failed": class.failed,
                "output_tokens": class.output_tokens,
                "first_content_ms": class.first_content_ms.json(),
            })).collect::<Value>(),
            "generator": self.generator.map(|cost| json!({
                "cpu_s": micro(cost.cpu_s),
                "cpu_wait_s": micro(cost.cpu_wait_s),
                "cpu_us_per_request": micro(cost.cpu_us_per_request),
                "cpu_us_per_event": cost.cpu_us_per_event.map(micro),
            })),
        })
    }
}

fn plan_json(plan: &Plan) -> Value {
    json!({
        "url": plan.url,
        "mode": plan.mode.name(),
        "model": plan.model,
        "prompt_bytes": plan.prompt_bytes,
        "max_tokens": plan.max_tokens,
        "concurrency": plan.concurrency,
        "rate_per_s": plan.rate_per_s,
        "arrival": plan.rate_per_s.map(|_| plan.arrival.name()),
        "duration_s": plan.sending_span().map(|span| span.as_secs_f64()),
        "requests": plan.requests,
        "keep_alive": plan.keep_alive,
        "request_timeout_s": plan.request_timeout.as_secs_f64(),
        "grace_s": plan.grace.as_secs_f64(),
        "ramp_s": plan.ramp.as_secs_f64(),
        "seed": plan.seed,
        "threads": plan.threads,
        "stamps": plan.stamps,
        "retries": plan.retries,
        "prompt_bytes_max": plan.mix.as_ref().map(|mix| mix.prompt_bytes_max),
        "keys": plan.mix.as_ref().map(|mix| mix.keys.len()),
        "header_names": plan.headers.iter().map(|(name, _)| name).collect::<Vec<_>>(),
    })
}

fn headline(plan: &Plan) -> String {
    let pace = match plan.rate_per_s {
        Some(rate) => format!("open loop at {rate} requests/s ({})", plan.arrival.name()),
        None => "closed loop".to_owned(),
    };
    let kept = if plan.keep_alive { "" } else { ", a connection for each request" };
    format!("{}, {}, {}, {} connections, {pace}{kept}", plan.url, plan.mode.name(), plan.model, plan.concurrency)
}
