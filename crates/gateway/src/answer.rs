//! Phase 10, answer: the only table from what went wrong to what the client sees.
//!
//! Each row says status, API error type, our machine code (`error.details.error_code`), whether
//! the SDKs should retry, after how long, and a sentence for the client's developer. What the log
//! says is decided in `settle`; what an upstream said goes to the client only if it is the API's
//! own envelope. `docs/errors.md` has an entry for each code.

mod budget;
mod redacted;
mod streams;
mod turns;

use crate::failure::Failure;
use crate::memory::TurnTrouble;
use crate::streams::StreamTrouble;
use std::borrow::Cow;
use std::time::Duration;
use tidegate_base::ByteSize;
use tidegate_observe::Refused;
use tidegate_redact::mask as redact;
use tidegate_schedule::{Cause, Refusal, TenantLimit, Throttle};
use tidegate_wire::dialect::simple::Unsayable;
use tidegate_wire::error::{ErrorBody, ErrorType};
use tidegate_wire::http::{BodyError, HeadError, HeadWriter};
use tidegate_wire::request::NotARequest;
use tidegate_wire::websocket::handshake;

/// Everything that can keep a request from being answered by the model.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The head is no HTTP/1.1 we accept.
    Head(HeadError),
    /// The head did not come in time.
    HeadSlow,
    /// No such path.
    PathUnknown,
    /// The path is known, the method is not allowed on it.
    Method { allowed: &'static str },
    /// No client key is configured and the client is not on this machine.
    LoopbackOnly,
    /// No credential was sent.
    KeyMissing,
    /// The credential is not known.
    KeyUnknown,
    /// The credential is known, and its time is over.
    KeyExpired,
    /// One of our own headers has a value it cannot have.
    Header { name: String, expected: &'static str },
    /// The body did not come in time.
    BodySlow,
    /// The body is over the limit.
    BodyTooLarge { limit: u64 },
    /// The body's compression is not understood.
    BodyCoding,
    /// The body cannot be inflated.
    BodyCorrupt,
    /// The body is not what its framing says.
    BodyFraming(BodyError),
    /// The bytes for this body are not there.
    BodyBudget,
    /// The body is not a request.
    Body(NotARequest),
    /// The filter for personal data does not let it out, or failed.
    Redacted(redact::Refusal),
    /// The upstream speaks the simple dialect, and has no words for this.
    Unsayable(Unsayable),
    /// The scheduler said no.
    Refused(Refusal),
    /// Its tenant's budget does not let it go.
    Budget(Refused),
    /// What it uses is not counted here, and its tenant's budget takes only what has a price.
    Uncounted,
    /// It refers to things that live at different organisations.
    ReferencesApart,
    /// Slow readers hold too much memory to take on another stream.
    BacklogBudget,
    /// There are as many connections and streams as there may be.
    StreamLimit,
    /// The process is going down.
    Draining,
    /// The deadline passed.
    Deadline,
    /// An operator cancelled it.
    Cancelled,
    /// The answer is over the limit for answers that are held whole.
    AnswerTooLarge { limit: u64 },
    /// The upstream refused this very request, in words that are not the API's.
    UpstreamRefused { status: u16, said: Option<ErrorBody> },
    /// The client is a page in a browser, and no client keys are configured.
    Origin,
    /// A request does not open a WebSocket.
    Handshake(handshake::Refused),
    /// The ticket is unknown, used or too old.
    Ticket,
    /// What a socket said cannot be understood; says what, and where.
    Frame(String),
    /// The name is that of a stream which is not over.
    IdInUse(String),
    /// Credit that a stream cannot take; says why.
    Credit(String),
    /// A stream cannot be come back to, or could not go on.
    Stream(StreamTrouble),
    /// A conversation's turn cannot be had, or cannot be kept.
    Turn(Box<TurnTrouble>),
    /// The upstream failed, and not again or not any more.
    Upstream(Box<Failure>),
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: ErrorBody,
    pub(crate) code: &'static str,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) should_retry: Option<bool>,
    pub(crate) allow: Option<&'static str>,
    /// Whether it is a WebSocket that should have been asked for.
    pub(crate) upgrade: bool,
}

/// Every code a client or an operator can see, for the documentation's test.
pub fn public_codes() -> &'static [&'static str] {
    &[
        "malformed_head",
        "head_too_large",
        "head_timeout",
        "unknown_path",
        "method_not_allowed",
        "loopback_only",
        "origin_not_allowed",
        "missing_key",
        "unknown_key",
        "expired_key",
        "invalid_header",
        "body_timeout",
        "body_too_large",
        "request_body_encoding_unsupported",
        "request_body_encoding_invalid",
        "body_budget_spent",
        "invalid_body",
        "personal_data",
        "unscannable",
        "redaction_failed",
        "not_a_prompt",
        "references_apart",
        "input_too_large",
        "no_upstream_key",
        "spend_cap",
        "queue_wait_too_long",
        "queue_full",
        "tenant_requests",
        "tenant_tokens",
        "tenant_concurrent",
        "budget_reached",
        "price_unknown",
        "backlog_budget_spent",
        "too_many_streams",
        "draining",
        "deadline_passed",
        "cancelled_by_operator",
        "answer_too_large",
        "upstream_unreachable",
        "upstream_timeout",
        "upstream_broken",
        "upstream_error",
        "upstream_overloaded",
        "upstream_rate_limited",
        "upstream_key_rejected",
        "upstream_refused",
        "unknown_stream",
        "invalid_cursor",
        "cursor_gone",
        "reader_too_slow",
        "stream_too_large",
        "stream_cancelled",
        "stream_lost",
        "stream_elsewhere",
        "streams_budget_spent",
        "invalid_upgrade",
        "ticket_unknown",
        "invalid_frame",
        "stream_id_in_use",
        "invalid_credit",
        "conversations_off",
        "conversations_need_key",
        "conversation_not_found",
        "invalid_conversation_id",
        "conversation_diverged",
        "turn_conflict",
        "conversation_busy",
        "turn_interrupted",
        "nothing_new",
        "invalid_messages",
        "invalid_turn",
        "window_too_small",
        "conversations_budget_spent",
        "invalid_query",
        "invalid_line",
        "exports_busy",
        "conversation_exists",
        "conversation_too_large",
        "conversation_log_full",
        "conversation_log_read_only",
        "conversation_log_busy",
        "conversation_log_failed",
        "vault_unreadable",
        "configuration_refused",
        "no_configuration",
        "upgrade_refused",
        "not_now",
    ]
}

/// From this wait on an SDK should not hold its caller up (design section 7).
const RETRY_WORTHWHILE: Duration = Duration::from_secs(60);

fn row(kind: ErrorType, code: &'static str, message: impl Into<Cow<'static, str>>) -> Answer {
    Answer {
        status: kind.status(),
        body: ErrorBody::new(kind, code, message),
        code,
        retry_after: None,
        should_retry: None,
        allow: None,
        upgrade: false,
    }
}

impl Answer {
    fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    fn after(mut self, wait: Duration) -> Self {
        let wait = wait.max(Duration::from_secs(1));
        self.retry_after = Some(wait);
        self.should_retry = (wait > RETRY_WORTHWHILE).then_some(false);
        self
    }

    fn never_retry(mut self) -> Self {
        self.should_retry = Some(false);
        self
    }

    /// Writes the header lines that go with it.
    pub(crate) fn lines(&self, head: &mut HeadWriter<'_>) {
        head.header("content-type", b"application/json");
        if let Some(wait) = self.retry_after {
            head.number("retry-after", wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        }
        if let Some(should) = self.should_retry {
            head.header("x-should-retry", if should { b"true" } else { b"false" });
        }
        if let Some(allow) = self.allow {
            head.header("allow", allow.as_bytes());
        }
        if self.upgrade {
            head.header("upgrade", b"websocket").header("connection", b"upgrade");
            head.header("sec-websocket-version", b"13");
        }
    }
}

/// The table.
pub(crate) fn answer(trouble: &Trouble) -> Answer {
    use ErrorType::*;
    match trouble {
        Trouble::Head(HeadError::TooLarge) => {
            row(InvalidRequest, "head_too_large", HeadError::TooLarge.to_string()).status(431)
        }
        Trouble::Head(e) => row(InvalidRequest, "malformed_head", e.to_string()),
        Trouble::HeadSlow => {
            row(InvalidRequest, "head_timeout", "the request's headers did not arrive in time").status(408)
        }
        Trouble::PathUnknown => row(
            NotFound,
            "unknown_path",
            "no such path here; the API's paths begin with /v1/, and those that Tidegate does not know are passed on where its `pass_through` says so",
        ),
        Trouble::Method { allowed } => {
            let message = format!("this path takes {allowed}");
            Answer { allow: Some(allowed), ..row(InvalidRequest, "method_not_allowed", message).status(405) }
        }
        Trouble::LoopbackOnly => row(
            Permission,
            "loopback_only",
            "no client keys are configured, so only clients on this machine are served; make one with `tidegate key new`",
        ),
        Trouble::KeyMissing => {
            row(Authentication, "missing_key", "send a Tidegate client key as x-api-key or as authorization: Bearer")
        }
        Trouble::KeyExpired => row(
            Authentication,
            "expired_key",
            "this client key is no longer valid: its time is over; ask whoever runs Tidegate for a new one",
        ),
        Trouble::KeyUnknown => row(Authentication, "unknown_key", "this client key is not known to Tidegate"),
        Trouble::Header { name, expected } => {
            row(InvalidRequest, "invalid_header", format!("{name}: expected {expected}"))
        }
        Trouble::BodySlow => row(InvalidRequest, "body_timeout", "the request's body stopped arriving").status(408),
        Trouble::BodyTooLarge { limit } => row(
            RequestTooLarge,
            "body_too_large",
            format!("the request's body is over the limit of {}", ByteSize(*limit)),
        ),
        Trouble::BodyCoding => row(
            InvalidRequest,
            "request_body_encoding_unsupported",
            "content-encoding: send the body plain, or as gzip or deflate",
        ),
        Trouble::BodyCorrupt => {
            row(InvalidRequest, "request_body_encoding_invalid", "the body is not what its content-encoding says")
        }
        Trouble::BodyFraming(e) => row(InvalidRequest, "invalid_body", e.to_string()),
        Trouble::BodyBudget => {
            row(Overloaded, "body_budget_spent", "Tidegate holds as many request bytes as it may; try again shortly")
                .after(Duration::from_secs(1))
        }
        Trouble::Unsayable(e) => row(
            InvalidRequest,
            "not_a_prompt",
            format!(
                "{}: this Tidegate's upstream takes one user message of text, with model, max_tokens and system, and nothing else",
                e.0
            ),
        ),
        Trouble::Body(e) => row(InvalidRequest, "invalid_body", e.0.clone()),
        Trouble::Redacted(refusal) => redacted::answer(refusal),
        Trouble::Refused(Refusal::NoKey { again }) => {
            let said = match again {
                None => "Tidegate has no upstream key to send this with; its operator has to configure one".to_owned(),
                Some(again) => format!(
                    "the upstream rejected every key that Tidegate could send this with; one is tried again in {} s, and its operator has to replace them",
                    again.as_secs() + 1
                ),
            };
            row(Api, "no_upstream_key", said).never_retry()
        }
        Trouble::Refused(Refusal::TooLong { retry_after }) => row(
            Overloaded,
            "queue_wait_too_long",
            "the upstream's quota is used up for longer than this request may wait",
        )
        .after(*retry_after),
        Trouble::Refused(Refusal::QueueFull { retry_after }) => {
            row(Overloaded, "queue_full", "as many requests wait for the upstream's quota as may").after(*retry_after)
        }
        Trouble::Refused(Refusal::SpendCap { retry_after }) => row(
            Overloaded,
            "spend_cap",
            "every organisation that could serve this has spent what it may; its operator has to raise the cap",
        )
        .after(*retry_after)
        .never_retry(),
        Trouble::Refused(Refusal::TooLarge { tokens, limit }) => row(
            InvalidRequest,
            "input_too_large",
            if tokens > limit {
                format!(
                    "the request has about {tokens} input tokens, more than the upstream's limit of {limit} a minute"
                )
            } else {
                format!(
                    "the request has about {tokens} input tokens at once, more than the upstream ever lets be saved up of its limit of {limit} a minute"
                )
            },
        ),
        Trouble::Refused(Refusal::Tenant { limit, retry_after }) => row(
            RateLimit,
            limit.name(),
            match limit {
                TenantLimit::Requests => "your own limit of requests per minute at this Tidegate is used up",
                TenantLimit::Tokens => "your own limit of tokens per minute at this Tidegate is used up",
                TenantLimit::Concurrent => "you have as many requests under way at this Tidegate as you may",
            },
        )
        .after(*retry_after),
        Trouble::Budget(refused) => budget::answer(refused),
        Trouble::Uncounted => budget::uncounted(),
        Trouble::ReferencesApart => row(
            InvalidRequest,
            "references_apart",
            "the files, containers, skills or threads named here live at different organisations, so no one of them can serve the request",
        ),
        Trouble::BacklogBudget => {
            row(Overloaded, "backlog_budget_spent", "slow readers hold as much memory as they may; try again shortly")
                .after(Duration::from_secs(1))
        }
        Trouble::StreamLimit => {
            row(Overloaded, "too_many_streams", "Tidegate serves as many requests at once as it may; try again shortly")
                .after(Duration::from_secs(1))
        }
        Trouble::Draining => {
            row(Overloaded, "draining", "this Tidegate is going down; try again").after(Duration::from_secs(1))
        }
        Trouble::Deadline => {
            row(Timeout, "deadline_passed", "the request's deadline passed before its answer was there")
        }
        Trouble::Cancelled => {
            row(Api, "cancelled_by_operator", "an operator of Tidegate cancelled this request").never_retry()
        }
        Trouble::AnswerTooLarge { limit } => row(
            Api,
            "answer_too_large",
            format!(
                "the answer is over the limit of {} for answers that are not streamed; ask for a stream",
                ByteSize(*limit)
            ),
        )
        .never_retry(),
        Trouble::UpstreamRefused { status, said } => {
            let theirs = said.as_ref().map(|said| said.message.clone()).filter(|message| !message.is_empty());
            let ours = || {
                let message = format!("the upstream refused the request with status {status}");
                Cow::Owned(format!("{message} and did not say why in the API's words"))
            };
            let kind = said.as_ref().and_then(|said| ErrorType::of_name(&said.kind));
            let kind = kind.unwrap_or(ErrorType::of_status(*status));
            row(kind, "upstream_refused", theirs.unwrap_or_else(ours)).status(*status)
        }
        Trouble::Origin => row(
            Permission,
            "origin_not_allowed",
            "requests from web pages are refused while no client keys are configured; make one with `tidegate key new`",
        ),
        Trouble::Turn(trouble) => turns::answer(trouble),
        Trouble::Stream(trouble) => streams::answer(*trouble),
        Trouble::Handshake(refused) => streams::handshake(*refused),
        Trouble::Ticket => row(
            Authentication,
            "ticket_unknown",
            "the ticket is unknown, was used or is over 30 seconds old; ask POST /v1/stream/ticket for another",
        ),
        Trouble::Frame(what) => row(InvalidRequest, "invalid_frame", what.clone()),
        Trouble::IdInUse(id) => row(
            Conflict,
            "stream_id_in_use",
            format!("id: {id} is the name of a stream of this socket that is not over"),
        ),
        Trouble::Credit(what) => row(InvalidRequest, "invalid_credit", what.clone()),
        Trouble::Upstream(failure) => upstream(failure),
    }
}

/// The rows for an upstream that failed.
fn upstream(failure: &Failure) -> Answer {
    let row = upstream_row(failure);
    if failure.is_final { row.never_retry() } else { row }
}

fn upstream_row(failure: &Failure) -> Answer {
    use ErrorType::*;
    let said = |kind, code, ours: &'static str| {
        let mut row = row(kind, code, ours);
        if let Some(theirs) = &failure.envelope {
            row.body.message = theirs.message.clone();
        }
        row
    };
    let wait = failure.retry_after;
    match failure.cause {
        _ if failure.clock.is_some() => {
            let message = format!("the upstream ran into Tidegate's clock `{}`", failure.clock.unwrap_or_default());
            row(Timeout, "upstream_timeout", message)
        }
        Cause::Connect => row(Api, "upstream_unreachable", "the upstream could not be reached").status(502),
        Cause::Broken | Cause::BadStream | Cause::FirstByte | Cause::Gap => {
            row(Api, "upstream_broken", failure.public).status(502)
        }
        Cause::ServerError | Cause::TimedOut => {
            let status = failure.status.unwrap_or(500);
            let named = failure.envelope.as_ref().and_then(|e| ErrorType::of_name(&e.kind));
            // Whatever its status: a limit that the client is told of is its own, and none was met.
            let named = named.filter(|kind| *kind != RateLimit);
            said(named.unwrap_or(ErrorType::of_status(status)), "upstream_error", "the upstream failed").status(status)
        }
        Cause::Overloaded => said(Overloaded, "upstream_overloaded", "the upstream is overloaded")
            .after(wait.unwrap_or(Duration::from_secs(5))),
        Cause::Throttled if failure.is_own => {
            said(Overloaded, "spend_cap", "the organisation behind your own credential has spent what it may")
        }
        Cause::KeyRejected if failure.is_own => {
            said(Authentication, "upstream_error", "the upstream rejected your own credential")
        }
        Cause::Throttled if failure.by == Throttle::SpendCap => {
            answer(&Trouble::Refused(Refusal::SpendCap { retry_after: wait.unwrap_or(RETRY_WORTHWHILE) }))
        }
        Cause::Throttled => {
            row(Overloaded, "upstream_rate_limited", "the upstream's quota is used up and did not come back in time")
                .after(wait.unwrap_or(Duration::from_secs(5)))
        }
        Cause::KeyRejected => row(
            Api,
            "upstream_key_rejected",
            "the upstream rejected Tidegate's own key; its operator has to replace it",
        )
        .never_retry(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_wire::blame::Blame;

    #[test]
    fn a_wait_over_a_minute_is_not_worth_holding_a_caller_for() {
        let long = answer(&Trouble::Refused(Refusal::TooLong { retry_after: Duration::from_secs(61) }));
        assert_eq!((long.status, long.should_retry), (529, Some(false)));
        let short = answer(&Trouble::Refused(Refusal::TooLong { retry_after: Duration::from_millis(1500) }));
        let mut out = bytes::BytesMut::new();
        short.lines(&mut HeadWriter::response(&mut out, short.status));
        assert!(std::str::from_utf8(&out).unwrap().contains("retry-after: 2\r\n"));
        assert_eq!(short.should_retry, None);
    }

    #[test]
    fn a_tenants_own_limit_is_a_429_and_a_spend_cap_is_not() {
        let after = Duration::from_secs(30);
        let own = answer(&Trouble::Refused(Refusal::Tenant { limit: TenantLimit::Tokens, retry_after: after }));
        assert_eq!((own.status, own.code, own.should_retry), (429, "tenant_tokens", None));
        let cap = answer(&Trouble::Refused(Refusal::SpendCap { retry_after: after }));
        assert_eq!((cap.status, cap.code, cap.should_retry), (529, "spend_cap", Some(false)));
        let failure = Failure { by: Throttle::SpendCap, ..Failure::new(Cause::Throttled, "429") };
        assert_eq!(answer(&Trouble::Upstream(Box::new(failure))).code, "spend_cap");
    }

    #[test]
    fn no_upstream_429_leaves_as_a_429() {
        let failure = Failure::new(Cause::Throttled, "429");
        assert_eq!(answer(&Trouble::Upstream(Box::new(failure))).status, 529);
    }

    #[test]
    fn a_server_that_fails_in_the_words_of_a_limit_has_failed() {
        let envelope = Some(ErrorBody::new(ErrorType::RateLimit, "x", "slow down"));
        let failure = Failure { status: Some(503), envelope, ..Failure::new(Cause::ServerError, "503") };
        let told = answer(&Trouble::Upstream(Box::new(failure)));
        assert_eq!((told.status, &*told.body.kind, &*told.body.message), (503, "api_error", "slow down"));
    }

    #[test]
    fn what_is_the_matter_with_a_clients_own_credential_is_told_as_that() {
        let envelope = || Some(ErrorBody::new(ErrorType::RateLimit, "enforced_spend_limit_reached", "all spent"));
        for (blame, want) in [(Blame::SpendCap, (529, "spend_cap")), (Blame::Key, (401, "upstream_error"))] {
            let failure = Failure::blaming_own(blame, true, "it").unwrap();
            let told = answer(&Trouble::Upstream(Box::new(Failure { envelope: envelope(), ..failure })));
            assert_eq!((told.status, told.code, told.should_retry), (want.0, want.1, Some(false)));
            assert_eq!(told.body.message, "all spent", "in the upstream's words");
            assert!(!Failure::blaming_own(blame, false, "it").unwrap().is_own, "an operator's is not told so");
        }
    }

    #[test]
    fn what_the_upstream_says_will_never_do_is_not_worth_a_retry() {
        let failure = Failure { is_final: true, ..Failure::new(Cause::Throttled, "429, spend cap") };
        assert_eq!(answer(&Trouble::Upstream(Box::new(failure))).should_retry, Some(false));
    }
}
