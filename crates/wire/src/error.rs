//! Errors in the API's own shape: the envelope, its types, and reading what an upstream sent.

use crate::raw::RawObject;
use serde_json::json;
use std::borrow::Cow;

/// The API's error types with their status codes (protocol page, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// 400
    InvalidRequest,
    /// 401
    Authentication,
    /// 402
    Billing,
    /// 403
    Permission,
    /// 404
    NotFound,
    /// 409
    Conflict,
    /// 413
    RequestTooLarge,
    /// 429
    RateLimit,
    /// 500
    Api,
    /// 504
    Timeout,
    /// 529
    Overloaded,
}

impl ErrorType {
    const ALL: [ErrorType; 11] = {
        use ErrorType::*;
        [
            InvalidRequest,
            Authentication,
            Billing,
            Permission,
            NotFound,
            Conflict,
            RequestTooLarge,
            RateLimit,
            Api,
            Timeout,
            Overloaded,
        ]
    };

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            ErrorType::InvalidRequest => "invalid_request_error",
            ErrorType::Authentication => "authentication_error",
            ErrorType::Billing => "billing_error",
            ErrorType::Permission => "permission_error",
            ErrorType::NotFound => "not_found_error",
            ErrorType::Conflict => "conflict_error",
            ErrorType::RequestTooLarge => "request_too_large",
            ErrorType::RateLimit => "rate_limit_error",
            ErrorType::Api => "api_error",
            ErrorType::Timeout => "timeout_error",
            ErrorType::Overloaded => "overloaded_error",
        }
    }

    /// The status code it goes with.
    pub fn status(self) -> u16 {
        match self {
            ErrorType::InvalidRequest => 400,
            ErrorType::Authentication => 401,
            ErrorType::Billing => 402,
            ErrorType::Permission => 403,
            ErrorType::NotFound => 404,
            ErrorType::Conflict => 409,
            ErrorType::RequestTooLarge => 413,
            ErrorType::RateLimit => 429,
            ErrorType::Api => 500,
            ErrorType::Timeout => 504,
            ErrorType::Overloaded => 529,
        }
    }

    /// The type called `name`.
    pub fn of_name(name: &str) -> Option<ErrorType> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// The type that goes with a status code; what is not in the table is one of the two kinds.
    pub fn of_status(status: u16) -> ErrorType {
        let known = Self::ALL.into_iter().find(|t| t.status() == status);
        known.unwrap_or(if status >= 500 { ErrorType::Api } else { ErrorType::InvalidRequest })
    }
}

/// What an error envelope says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorBody {
    /// `error.type`; a type newer than this code is kept as it is.
    pub kind: Cow<'static, str>,
    /// `error.message`, for people.
    pub message: Cow<'static, str>,
    /// `error.details.error_code`, for machines.
    pub code: Option<Cow<'static, str>>,
}

impl ErrorBody {
    /// An error of ours.
    pub fn new(kind: ErrorType, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        ErrorBody { kind: kind.name().into(), message: message.into(), code: Some(code.into()) }
    }

    /// Reads an envelope, `{"type":"error","error":{...}}`; `None` if `json` is none, or another's
    /// ([`crate::foreign`]).
    pub fn read(json: &[u8]) -> Option<Self> {
        let outer = RawObject::read(json).ok().filter(|outer| outer.is("type", "error"))?;
        Self::inside(&outer)
    }

    /// Reads what `outer` has as its `error`, whatever it is itself.
    pub fn inside(outer: &RawObject<'_>) -> Option<Self> {
        let error: RawObject<'_> = outer.parse("error")?;
        let details: Option<RawObject<'_>> = error.parse("details");
        Some(ErrorBody {
            kind: error.parse::<String>("type")?.into(),
            message: error.parse::<String>("message").unwrap_or_default().into(),
            code: details.and_then(|d| d.parse::<String>("error_code")).map(Cow::Owned),
        })
    }

    /// The envelope's `error` object.
    pub fn object(&self) -> serde_json::Value {
        let mut error = json!({"type": self.kind, "message": self.message});
        if let Some(code) = &self.code {
            error["details"] = json!({"error_code": code});
        }
        error
    }

    /// The envelope, on one line.
    pub fn envelope(&self, request_id: Option<&str>) -> Vec<u8> {
        let mut body = json!({"type": "error", "error": self.object()});
        if let Some(id) = request_id {
            body["request_id"] = json!(id);
        }
        body.to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_reads_back() {
        let error = ErrorBody::new(ErrorType::Overloaded, "no_upstream", "quotes \" and\nlines");
        assert_eq!(ErrorBody::read(&error.envelope(Some("req_1"))), Some(error));
        assert_eq!(ErrorBody::read(b"<html>502</html>"), None);
        assert_eq!(ErrorBody::read(br#"{"error":"x"}"#), None);
        assert_eq!(ErrorBody::read(br#"{"error":{"type":"invalid_request_error","message":"x"}}"#), None, "another's");
    }

    #[test]
    fn every_type_has_its_own_status() {
        for t in ErrorType::ALL {
            assert_eq!(ErrorType::of_status(t.status()), t);
            assert_eq!(ErrorType::of_name(t.name()), Some(t));
        }
        assert_eq!(ErrorType::of_status(503), ErrorType::Api);
        assert_eq!(ErrorType::of_status(422), ErrorType::InvalidRequest);
    }
}
