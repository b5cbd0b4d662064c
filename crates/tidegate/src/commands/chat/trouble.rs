//! What can go wrong with a turn or a door, in the API's words, and what to do next.

use std::fmt;
use tidegate_wire::error::ErrorBody;
use tidegate_wire::http::ResponseHead;

/// Why something asked for was not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The other side said no, or said in the middle of an answer that there is no more.
    Refused {
        /// Its status; 200 inside a stream.
        status: u16,
        /// What it said.
        error: ErrorBody,
        /// Seconds after which to ask again.
        retry_after_s: Option<u64>,
    },
    /// Somebody answers there who is no Claude API.
    Foreign(u16),
    /// Nobody answers there.
    Unreachable(String),
    /// The connection or the answer broke.
    Broken(String),
    /// The person wanted no more of it.
    Stopped,
}

impl Trouble {
    /// What an answer with this head and body says, which is not 2xx.
    pub(super) fn refused(head: &ResponseHead, body: &[u8]) -> Self {
        let retry_after_s = head.headers.text("retry-after").and_then(|s| s.trim().parse().ok());
        match ErrorBody::read(body) {
            Some(error) => Trouble::Refused { status: head.status, error, retry_after_s },
            None => Trouble::Foreign(head.status),
        }
    }

    /// What an `error` event says.
    pub(super) fn in_stream(error: ErrorBody) -> Self {
        Trouble::Refused { status: 200, error, retry_after_s: None }
    }

    /// The machine code of a refusal.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Trouble::Refused { error, .. } => error.code.as_deref(),
            _ => None,
        }
    }

    /// Whether this says that the conversation is not there. Who keeps none says something else.
    pub(super) fn is_no_conversation(&self) -> bool {
        self.code() == Some("conversation_not_found")
    }

    /// What to do next.
    pub(super) fn advice(&self) -> String {
        let Trouble::Refused { status, error, retry_after_s } = self else {
            return match self {
                Trouble::Foreign(_) => "is --url the address of a Tidegate gateway?".to_owned(),
                Trouble::Unreachable(_) => {
                    "start a gateway with `tidegate serve`, or try `tidegate chat --simulate`".to_owned()
                }
                Trouble::Stopped => "go on as you like".to_owned(),
                Trouble::Broken(_) | Trouble::Refused { .. } => AGAIN.to_owned(),
            };
        };
        let by_code = match error.code.as_deref().unwrap_or_default() {
            "conversations_off" => "start the gateway with `serve --conversations FILE`",
            "conversation_not_found" => "it begins with its first turn: say something",
            "turn_conflict" => "/turns shows what came meanwhile, /again sends yours after it",
            "conversation_busy" => "another turn is under way; /again when it has ended",
            "turn_interrupted" => "that turn was kept as far as it came; just go on",
            "conversation_exists" => "choose another id",
            "conversation_log_full" | "conversation_log_read_only" | "conversation_log_failed" => {
                "tell the gateway's operator; what was answered before is kept"
            }
            "window_too_small" => "send less at once, or give --max-tokens a smaller number",
            "unknown_path" => "this gateway has no conversations: is it an older one?",
            _ => "",
        };
        if !by_code.is_empty() {
            return by_code.to_owned();
        }
        match (error.kind.as_ref(), *status, retry_after_s) {
            ("authentication_error", ..) => "set TIDEGATE_API_KEY to a key of this gateway".to_owned(),
            ("not_found_error", ..) => "is --model the name of a model this gateway has?".to_owned(),
            (_, 429 | 529, Some(seconds)) => format!("/again in {seconds} s"),
            ("invalid_request_error" | "permission_error" | "request_too_large" | "billing_error", ..) => {
                "as it is it will be refused again; say it otherwise".to_owned()
            }
            _ => AGAIN.to_owned(),
        }
    }
}

const AGAIN: &str = "/again sends it once more; a turn is never doubled";

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Refused { status, error, .. } => {
                write!(f, "{}: {} (", error.kind, error.message)?;
                match status {
                    200 => f.write_str("inside the answer")?,
                    status => write!(f, "{status}")?,
                }
                error.code.as_ref().map_or(Ok(()), |code| write!(f, ", {code}"))?;
                f.write_str(")")
            }
            Trouble::Foreign(status) => write!(f, "the answer ({status}) is not one of the Claude API"),
            Trouble::Unreachable(why) => write!(f, "nobody answers: {why}"),
            Trouble::Broken(why) => write!(f, "the answer broke: {why}"),
            Trouble::Stopped => f.write_str("stopped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_wire::error::ErrorType;

    fn refused(kind: ErrorType, code: Option<&'static str>) -> Trouble {
        let error = ErrorBody { code: code.map(Into::into), ..ErrorBody::new(kind, "", "The words.") };
        Trouble::Refused { status: kind.status(), error, retry_after_s: Some(7) }
    }

    #[test]
    fn the_apis_words_are_told_with_status_and_code() {
        let conflict = refused(ErrorType::Conflict, Some("turn_conflict"));
        assert_eq!(conflict.to_string(), "conflict_error: The words. (409, turn_conflict)");
        let inside = Trouble::in_stream(ErrorBody { code: None, ..ErrorBody::new(ErrorType::Overloaded, "", "Full.") });
        assert_eq!(inside.to_string(), "overloaded_error: Full. (inside the answer)");
    }

    #[test]
    fn what_to_do_next_follows_from_code_then_kind() {
        for (kind, code, says) in [
            (ErrorType::Conflict, Some("turn_conflict"), "/turns"),
            (ErrorType::InvalidRequest, Some("conversations_off"), "--conversations"),
            (ErrorType::InvalidRequest, Some("window_too_small"), "--max-tokens"),
            (ErrorType::Authentication, Some("key_unknown"), "TIDEGATE_API_KEY"),
            (ErrorType::NotFound, None, "--model"),
            (ErrorType::NotFound, Some("conversation_not_found"), "say something"),
            (ErrorType::Overloaded, Some("queue_full"), "in 7 s"),
            (ErrorType::InvalidRequest, None, "otherwise"),
            (ErrorType::Api, None, "/again"),
        ] {
            let advice = refused(kind, code).advice();
            assert!(advice.contains(says), "{kind:?} {code:?}: {advice}");
        }
    }

    #[test]
    fn only_a_gateway_with_conversations_can_say_that_there_is_none() {
        assert!(refused(ErrorType::NotFound, Some("conversation_not_found")).is_no_conversation());
        assert!(!refused(ErrorType::NotFound, Some("unknown_path")).is_no_conversation());
        assert!(!refused(ErrorType::NotFound, None).is_no_conversation());
        assert!(!refused(ErrorType::InvalidRequest, Some("conversations_off")).is_no_conversation());
        assert!(!Trouble::Foreign(404).is_no_conversation());
    }
}
