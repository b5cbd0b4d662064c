//! The last requests that are over: how each ended, for whoever looks a moment too late.
//!
//! A ring of a hundred, locked once per request: what was the request's entry in the table of live
//! ones moves here as it is, so nothing is copied for it. Requests of strangers and for pages
//! without a model are not kept: they would push out what is looked for.

use crate::live::{Filter, LiveRequest};
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_base::Moment;

/// Requests that are kept: some hundred bytes each, 3 KB at most, with sixteen upstream ids.
pub const FINISHED_MAX: usize = 100;

/// One request that is over.
#[derive(Clone, Debug)]
pub struct FinishedRequest {
    /// What was its entry.
    pub live: Arc<LiveRequest>,
    /// The status the client saw; 0 if it left before one.
    pub status: u16,
    /// How it ended, from the path's closed list.
    pub end: &'static str,
    /// Our error code, if it ended with one.
    pub code: Option<&'static str>,
    /// Attempts made.
    pub attempts: u32,
    /// When it ended.
    pub ended: Moment,
    /// From its head to its end.
    pub took: Duration,
    /// Of that, waiting for leases.
    pub waited: Duration,
}

/// The same as `/streams` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct FinishedView {
    /// The answer's id.
    pub stream: String,
    /// The request's id.
    pub request: String,
    /// Door, as in metrics.
    pub door: &'static str,
    /// Tenant's name.
    pub tenant: String,
    /// Model asked for.
    pub model: String,
    /// The conversation it was a turn of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
    /// The status the client saw; 0 if it left before one.
    pub status: u16,
    /// How it ended.
    pub end: &'static str,
    /// Our error code, if it ended with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// Label of the last upstream key.
    pub upstream_key: String,
    /// Attempts made.
    pub attempts: u32,
    /// Since its end, milliseconds.
    pub ended_ms_ago: u64,
    /// From its head to its end, milliseconds.
    pub total_ms: u64,
    /// Of that, waiting for leases.
    pub waited_ms: u64,
    /// The upstream's own ids of the attempts.
    pub upstream_request_ids: Vec<String>,
}

/// The last hundred. Clones are the same ring.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    ring: Arc<Mutex<VecDeque<FinishedRequest>>>,
}

impl Finished {
    /// Another one is over.
    pub fn add(&self, request: FinishedRequest) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = if ring.len() < FINISHED_MAX { None } else { ring.pop_front() };
        ring.push_back(request);
        drop(ring);
        // Freed when nobody waits for the ring.
        drop(oldest);
    }

    /// What of it `filter` takes, as of `now`, the last first.
    pub fn view(&self, now: Moment, filter: &Filter) -> Vec<FinishedView> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.iter()
            .rev()
            .filter(|request| filter.takes_finished(&request.live))
            .map(|request| request.view(now))
            .collect()
    }
}

impl FinishedRequest {
    fn view(&self, now: Moment) -> FinishedView {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let live = self.live.view(now, None);
        FinishedView {
            stream: live.stream,
            request: live.request,
            door: live.door,
            tenant: live.tenant,
            model: live.model,
            conversation: live.conversation,
            status: self.status,
            end: self.end,
            code: self.code,
            upstream_key: live.upstream_key,
            attempts: self.attempts,
            ended_ms_ago: ms(now.since(self.ended)),
            total_ms: ms(self.took),
            waited_ms: ms(self.waited),
            upstream_request_ids: live.upstream_request_ids,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Phase;
    use tidegate_base::{IdSource, Prng};

    fn request(ids: &mut IdSource, n: u64, conversation: &str) -> FinishedRequest {
        let live = LiveRequest::new(ids.request(), ids.stream(), "messages", Moment::ZERO);
        live.is_for("acme", &"m".repeat(500));
        live.is_in(conversation);
        FinishedRequest {
            live: Arc::new(live),
            status: 200,
            end: "answered",
            code: None,
            attempts: 1,
            ended: Moment::from_nanos(n * 1_000_000),
            took: Duration::from_millis(5),
            waited: Duration::ZERO,
        }
    }

    #[test]
    fn the_last_hundred_are_kept_the_last_first() {
        let (finished, mut ids) = (Finished::default(), IdSource::new(Prng::new(1), 0));
        for n in 0..150 {
            finished.add(request(&mut ids, n, if n == 149 { "last" } else { "c" }));
        }
        let now = Moment::from_nanos(150_000_000);
        let all = finished.view(now, &Filter::default());
        assert_eq!((all.len(), all[0].ended_ms_ago, all[99].ended_ms_ago), (FINISHED_MAX, 1, 100));
        assert_eq!(all[0].model.len(), 128, "a name that a client chose is no way to fill memory");
        let of = |filter: Filter| finished.view(now, &filter).len();
        assert_eq!(of(Filter { conversation: Some("last".to_owned()), ..Filter::default() }), 1);
        assert_eq!(of(Filter { tenant: Some("zeta".to_owned()), ..Filter::default() }), 0);
        assert_eq!(of(Filter { phase: Some(Phase::Relay), ..Filter::default() }), 0, "it is in no phase");
    }
}
