//! How a stream of a socket ends: by its log, by its client, or refused; each with one last frame.

use super::Many;
use crate::answer::Answer;
use std::borrow::Cow;
use std::collections::BTreeMap;
use tidegate_wire::dialect::tidegate_v1::{EndReason, Failed, ServerFrame};
use tidegate_wire::error::{ErrorBody, ErrorType};
use tidegate_wire::http::{Headers, ResponseHead};

impl Many {
    /// The log ends with an `error` event.
    pub(super) fn ended_by(&mut self, key: u32, data: &[u8]) {
        let Some(entry) = self.streams.get(&key) else { return };
        if entry.cancelled {
            return self.cancelled(key);
        }
        let body = ErrorBody::read(data).unwrap_or_else(|| ErrorBody::new(ErrorType::Api, "upstream_error", "unknown"));
        let status = ErrorType::of_name(&body.kind).unwrap_or(ErrorType::Api).status();
        self.failed(key, status, body, None, None);
    }

    /// The client called it off.
    pub(super) fn cancelled(&mut self, key: u32) {
        let Some(entry) = self.streams.get(&key) else { return };
        let id = Cow::Owned(entry.id.to_string());
        self.over(key, &ServerFrame::End { id, seq: entry.seq, reason: EndReason::Cancelled });
    }

    /// The answer is none: a refusal with its own status and lines.
    pub(super) fn refused(&mut self, key: u32, head: &ResponseHead, body: &[u8]) {
        if self.streams.get(&key).is_some_and(|entry| entry.cancelled) {
            return self.cancelled(key);
        }
        let unread = || ErrorBody::new(ErrorType::Api, "upstream_refused", "the upstream refused the request");
        let body = ErrorBody::read(body).unwrap_or_else(unread);
        let retry_after = head.headers.text("retry-after").and_then(|v| v.parse().ok());
        let should_retry = head.headers.text("x-should-retry").map(|v| v == "true");
        self.failed(key, head.status, body, retry_after, should_retry);
    }

    pub(super) fn fail(&mut self, key: u32, row: &Answer, retry_after: Option<u64>) {
        self.failed(key, row.status, row.body.clone(), retry_after, row.should_retry);
    }

    fn failed(
        &mut self,
        key: u32,
        status: u16,
        error: ErrorBody,
        retry_after_s: Option<u64>,
        should_retry: Option<bool>,
    ) {
        let Some(entry) = self.streams.get(&key) else { return };
        let hosted = entry.reader.hosted();
        let frame = ServerFrame::Error(Box::new(Failed {
            id: Some(Cow::Owned(entry.id.to_string())),
            status,
            error,
            request_id: Some(Cow::Owned(hosted.request.to_string())),
            retry_after_s,
            should_retry,
            cursor: None,
        }));
        self.over(key, &frame);
    }

    pub(super) fn over(&mut self, key: u32, frame: &ServerFrame<'_>) {
        self.say(frame);
        self.turns.remove(key);
        if let Some(entry) = self.streams.remove(&key) {
            self.names.remove(&entry.id);
        }
    }
}

/// What is told of an answer's header lines: all that is about the answer, and not about how it came.
pub(super) fn told_headers(head: &ResponseHead) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    const NOT_TOLD: [&str; 8] = [
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "date",
        "tidegate-stream",
        "transfer-encoding",
        "x-accel-buffering",
    ];
    let lines: &Headers = &head.headers;
    let text =
        |(name, value)| Some((std::str::from_utf8(name).ok()?.to_ascii_lowercase(), std::str::from_utf8(value).ok()?));
    let told = lines.iter().filter_map(text).filter(|(name, _)| !NOT_TOLD.contains(&name.as_str()));
    // Each name once: the last line counts.
    let told: BTreeMap<String, &str> = told.collect();
    told.into_iter().map(|(name, value)| (Cow::Owned(name), Cow::Borrowed(value))).collect()
}
