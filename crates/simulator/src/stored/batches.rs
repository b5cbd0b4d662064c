//! `/v1/messages/batches`: many requests at once, their answers after a while.
//!
//! A batch takes [`TAKES`], or what its `simulate: batch_ms=` says, whatever is in it. Then its
//! results are there, each request checked and answered as by itself: what is wrong with one makes
//! that one `errored`. One that was cancelled ends with every request `canceled`. Nothing of it counts
//! against a limit per minute.

use super::{Call, Given, THINGS_MAX, missing, not_allowed, paging};
use crate::cache::InputUse;
use crate::directive::Directives;
use crate::envelope::Refusal;
use crate::reply::{self, document};
use crate::simulator::Simulator;
use crate::validate::{self, Purpose, Version};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tidegate_base::Moment;

/// How long a batch takes.
const TAKES: Duration = Duration::from_secs(1);
/// From a cancel to the end.
const CANCELS: Duration = Duration::from_millis(200);
const REQUESTS_MAX: usize = 100_000;
const EXPIRES: Duration = Duration::from_secs(24 * 60 * 60);

/// A batch.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    id: String,
    requests: Vec<(String, Value)>,
    /// The results, line by line, and how many went well; made when it is.
    results: Vec<String>,
    succeeded: usize,
    created: Moment,
    ends: Moment,
    cancelled: Option<Moment>,
    bytes: usize,
}

impl Batch {
    fn has_ended(&self, now: Moment) -> bool {
        now >= self.ends
    }

    fn row(&self, now: Moment, wall: impl Fn(Moment) -> String, host: &str) -> Value {
        let ended = self.has_ended(now);
        let all = self.requests.len();
        let status = match (ended, self.cancelled) {
            (true, _) => "ended",
            (false, Some(_)) => "canceling",
            (false, None) => "in_progress",
        };
        let canceled = if ended && self.cancelled.is_some() { all } else { 0 };
        let done = ended && self.cancelled.is_none();
        let (succeeded, errored) = if done { (self.succeeded, all - self.succeeded) } else { (0, 0) };
        let url = format!("http://{host}/v1/messages/batches/{}/results", self.id);
        json!({
            "id": self.id, "type": "message_batch", "processing_status": status,
            "request_counts": {"processing": if ended { 0 } else { all }, "succeeded": succeeded, "errored": errored,
                "canceled": canceled, "expired": 0},
            "created_at": wall(self.created), "expires_at": wall(self.created + EXPIRES),
            "ended_at": ended.then(|| wall(self.ends)), "archived_at": null,
            "cancel_initiated_at": self.cancelled.map(&wall), "results_url": ended.then_some(url),
        })
    }

    fn lines(&self) -> String {
        if self.cancelled.is_none() {
            return self.results.concat();
        }
        let line =
            |(id, _): &(String, Value)| format!("{}\n", json!({"custom_id": id, "result": {"type": "canceled"}}));
        self.requests.iter().map(line).collect()
    }
}

/// The requests of a body.
fn requests(body: &[u8]) -> Result<Vec<(String, Value)>, Refusal> {
    let mut body: Value = serde_json::from_slice(body)
        .map_err(|error| Refusal::invalid(format!("The request body is not valid JSON: {error}")))?;
    let Some(Value::Array(rows)) = body.get_mut("requests").map(Value::take) else {
        return Err(Refusal::invalid("requests: Field required"));
    };
    if rows.is_empty() || rows.len() > REQUESTS_MAX {
        return Err(Refusal::invalid("requests: List should have 1 to 100000 items"));
    }
    let mut seen = BTreeSet::new();
    let one = |(n, mut row): (usize, Value)| {
        let id = row.get("custom_id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if id.is_empty() || id.len() > 64 || !id.bytes().all(plain) {
            return Err(Refusal::invalid(format!("requests.{n}.custom_id: 1 to 64 letters, digits, `_` and `-`")));
        }
        if !seen.insert(id.clone()) {
            return Err(Refusal::invalid(format!("requests.{n}.custom_id: `{id}` is there twice")));
        }
        let params = row.get_mut("params").map(Value::take).filter(Value::is_object);
        Ok((id, params.ok_or_else(|| Refusal::invalid(format!("requests.{n}.params: Field required")))?))
    };
    rows.into_iter().enumerate().map(one).collect()
}

impl Simulator {
    pub(super) fn batches(&mut self, call: &Call<'_>, directives: &Directives) -> Result<Given, Refusal> {
        let host = call.facts.header("host").unwrap_or("api.anthropic.com").to_owned();
        let row = |s: &Self, batch: &Batch| Given::from(batch.row(call.now, |at| s.stored.wall(at), &host));
        match (call.facts.method, call.rest.as_slice()) {
            ("POST", []) => {
                let batch = self.new_batch(call, directives)?;
                Ok(row(self, &batch))
            }
            ("GET" | "HEAD", []) => {
                let batches = self.stored.shelf(&call.workspace).batches.clone();
                let wall = |at| self.stored.wall(at);
                let rows: Vec<Value> = batches.iter().rev().map(|batch| batch.row(call.now, wall, &host)).collect();
                paging::by_ids(call, &rows)
            }
            ("GET" | "HEAD", [id]) => {
                let batch = self.batch(call, id)?.clone();
                Ok(row(self, &batch))
            }
            ("POST", [id, "cancel"]) => {
                let batch = self.batch(call, id)?;
                if !batch.has_ended(call.now) && batch.cancelled.is_none() {
                    batch.cancelled = Some(call.now);
                    batch.ends = call.now + CANCELS;
                }
                let batch = batch.clone();
                Ok(row(self, &batch))
            }
            ("DELETE", [id]) => {
                let batch = self.batch(call, id)?.clone();
                if !batch.has_ended(call.now) {
                    return Err(Refusal::invalid("A batch that is being processed cannot be deleted; cancel it first"));
                }
                self.stored.let_go(batch.bytes);
                self.stored.shelf(&call.workspace).batches.retain(|kept| kept.id != batch.id);
                Ok(json!({"id": batch.id, "type": "message_batch_deleted"}).into())
            }
            ("GET" | "HEAD", [id, "results"]) => {
                let batch = self.batch(call, id)?;
                if !batch.has_ended(call.now) {
                    return Err(Refusal::new(404, "The results of this batch are not there yet"));
                }
                Ok(Given { content_type: "application/x-jsonl".to_owned(), bytes: batch.lines().into() })
            }
            (_, [] | [_] | [_, "cancel" | "results"]) => Err(not_allowed()),
            _ => Err(Refusal::new(404, "Not Found")),
        }
    }

    fn batch(&mut self, call: &Call<'_>, id: &str) -> Result<&mut Batch, Refusal> {
        let batches = &mut self.stored.shelf(&call.workspace).batches;
        batches.iter_mut().find(|batch| batch.id == id).ok_or_else(|| missing("Message batch", id))
    }

    fn new_batch(&mut self, call: &Call<'_>, directives: &Directives) -> Result<Batch, Refusal> {
        let requests = requests(call.facts.body)?;
        if self.stored.shelf(&call.workspace).batches.len() >= THINGS_MAX {
            return Err(Refusal::invalid("too many batches"));
        }
        let betas = call.facts.all("anthropic-beta").any(|value| !value.trim().is_empty());
        let mut succeeded = 0;
        let mut results = Vec::with_capacity(requests.len());
        for (custom_id, params) in &requests {
            let result = match self.result(params, call.version, betas, directives) {
                Ok(message) => {
                    succeeded += 1;
                    json!({"type": "succeeded", "message": message})
                }
                Err(refusal) => {
                    let error = json!({"type": refusal.kind, "message": refusal.message});
                    json!({"type": "errored", "error": {"type": "error", "error": error, "request_id": null}})
                }
            };
            results.push(format!("{}\n", json!({"custom_id": custom_id, "result": result})));
        }
        let bytes = call.facts.body.len() + results.iter().map(String::len).sum::<usize>();
        self.stored.hold(bytes)?;
        let batch = Batch {
            id: self.new_id("msgbatch"),
            requests,
            results,
            succeeded,
            created: call.now,
            ends: call.now + call.batch.unwrap_or(TAKES),
            cancelled: None,
            bytes,
        };
        self.stored.shelf(&call.workspace).batches.push(batch.clone());
        Ok(batch)
    }

    /// What one request of a batch is answered.
    fn result(&self, params: &Value, version: Version, betas: bool, asked: &Directives) -> Result<Value, Refusal> {
        if params.get("stream") == Some(&Value::Bool(true)) {
            return Err(Refusal::invalid("stream: not in a batch"));
        }
        let valid = validate::validate(params.to_string().as_bytes(), version, betas, Purpose::Answer)?;
        if valid.output_tokens_max == 0 {
            return Err(Refusal::invalid("max_tokens: 0 is not for batches"));
        }
        let input = InputUse { uncached: valid.input_tokens, ..InputUse::default() };
        let mut message = document::whole(&reply::compose(&valid, input, asked, &self.scenario.pace, self.seed));
        message["usage"]["service_tier"] = json!("batch");
        Ok(message)
    }
}
