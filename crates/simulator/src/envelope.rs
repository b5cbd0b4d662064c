//! The API's errors: status, `error.type`, message, and the JSON they travel in.
//!
//! One shape serves all: a [`Refusal`] knows its status and type; [`Refusal::body`] is the envelope
//! of a response, [`error_event`] the same object as an SSE event. What an edge in front of the API
//! answers (a 502) is HTML and has no request id, as in production.

use bytes::Bytes;
use serde_json::json;

/// A request that is answered with an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// HTTP status.
    pub(crate) status: u16,
    /// `error.type`.
    pub(crate) kind: &'static str,
    /// `error.message`.
    pub(crate) message: String,
    /// `error.details.error_code`, where the API gives one.
    pub(crate) code: Option<&'static str>,
    /// The `retry-after` header, whole seconds.
    pub(crate) retry_after_s: Option<u64>,
}

impl Refusal {
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Self {
        Refusal { status, kind: kind_of(status), message: message.into(), code: None, retry_after_s: None }
    }

    /// The plain 400.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Refusal::new(400, message)
    }

    /// What the API says when it fails by itself with this status.
    pub(crate) fn by_fault(status: u16, retry_after_s: Option<u64>) -> Self {
        let message = match status {
            429 => "This request would exceed the rate limit for your organization. Please try again later.",
            500 => "Internal server error",
            503 => "Service temporarily unavailable",
            504 => {
                "Request timed out while waiting for the model to respond. Consider using streaming for long requests."
            }
            529 => "Overloaded",
            _ => "The request failed.",
        };
        Refusal { retry_after_s, ..Refusal::new(status, message) }
    }

    /// The body and its content type.
    pub(crate) fn body(&self, request_id: &str) -> (&'static str, Bytes) {
        if self.status == 502 {
            return ("text/html", Bytes::from_static(EDGE_502.as_bytes()));
        }
        let mut error = json!({"type": self.kind, "message": self.message});
        if let Some(code) = self.code {
            error["details"] = json!({"error_code": code});
        }
        let body = json!({"type": "error", "error": error, "request_id": request_id});
        ("application/json", Bytes::from(body.to_string()))
    }
}

const EDGE_502: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>edge</center>\r\n</body>\r\n</html>\r\n";

/// The `error.type` that belongs to a status.
pub(crate) fn kind_of(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

/// An `error` event in the middle of a stream, in the API's usual words.
pub(crate) fn error_event(kind: &str, request_id: &str) -> Bytes {
    let message = match kind {
        "overloaded_error" => "Overloaded",
        "api_error" => "Internal server error",
        "timeout_error" => "Request timed out",
        _ => "The request failed",
    };
    error_event_saying(kind, message, request_id)
}

/// An `error` event in the middle of a stream.
pub(crate) fn error_event_saying(kind: &str, message: &str, request_id: &str) -> Bytes {
    let body = json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id});
    Bytes::from(format!("event: error\ndata: {body}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_carries_type_message_code_and_request_id() {
        let refusal = Refusal { code: Some("ramp_limit_exceeded"), ..Refusal::new(429, "slow down") };
        let (content_type, body) = refusal.body("req_1");
        assert_eq!(content_type, "application/json");
        assert_eq!(
            body,
            r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow down","details":{"error_code":"ramp_limit_exceeded"}},"request_id":"req_1"}"#
        );
    }

    #[test]
    fn a_502_is_the_edge_speaking_html() {
        let (content_type, body) = Refusal::by_fault(502, None).body("req_1");
        assert_eq!(content_type, "text/html");
        assert!(!body.windows(4).any(|w| w == b"req_"));
    }
}
