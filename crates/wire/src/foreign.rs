//! Errors in other words than the API's.
//!
//! Endpoints that speak the Messages API for somebody else's models keep their own way of saying no:
//! OpenAI's `{"error":{"message","type","code"}}`, `{"code":..,"message":..}`, `{"detail":..}`, and not
//! seldom with status 200. What is read of one is a type of the API's, with its status, and the
//! sentence for people. Codes go before the status where they are clear (a spent account is a 429
//! there); the status goes before nothing. What is no JSON object says nothing: a page of HTML or a
//! line of text is some server's between us and them.

use crate::error::{ErrorBody, ErrorType};
use crate::raw::RawObject;

/// The longest sentence that is taken over, characters.
pub const MESSAGE_CHARS_MAX: usize = 2_000;

/// An error in the API's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The status that goes with it.
    pub status: u16,
    /// What it says.
    pub said: ErrorBody,
}

/// What codes and types of others mean, by what is in them; the first that is found counts.
const WORDS: [(&str, ErrorType); 26] = [
    ("insufficient_quota", ErrorType::Billing),
    ("insufficientbalance", ErrorType::Billing),
    ("insufficient_balance", ErrorType::Billing),
    ("insufficient_credit", ErrorType::Billing),
    ("arrear", ErrorType::Billing),
    ("billing", ErrorType::Billing),
    ("payment", ErrorType::Billing),
    ("invalid_api_key", ErrorType::Authentication),
    ("invalidapikey", ErrorType::Authentication),
    ("unauthorized", ErrorType::Authentication),
    ("authentication", ErrorType::Authentication),
    ("rate_limit", ErrorType::RateLimit),
    ("ratelimit", ErrorType::RateLimit),
    ("ratequota", ErrorType::RateLimit),
    ("throttl", ErrorType::RateLimit),
    ("too_many_requests", ErrorType::RateLimit),
    ("toomanyrequests", ErrorType::RateLimit),
    ("overload", ErrorType::Overloaded),
    ("server_busy", ErrorType::Overloaded),
    ("model_not_found", ErrorType::NotFound),
    ("modelnotfound", ErrorType::NotFound),
    ("context_length", ErrorType::InvalidRequest),
    ("permission", ErrorType::Permission),
    ("accessdenied", ErrorType::Permission),
    ("invalid_request", ErrorType::InvalidRequest),
    ("invalidparameter", ErrorType::InvalidRequest),
];

/// Reads an answer with this status as an error; `None` if it says nothing of one.
pub fn read(status: u16, body: &[u8]) -> Option<Foreign> {
    let object = RawObject::read(body).ok()?;
    let inner: Option<RawObject<'_>> = object.parse("error");
    let place = inner.as_ref().unwrap_or(&object);
    let first = |keys: &[&str]| keys.iter().find_map(|key| word(place, key));
    let codes: Vec<String> =
        ["type", "code", "error_code", "errorCode", "status"].iter().filter_map(|key| word(place, key)).collect();
    let message = first(&["message", "msg", "detail", "error_msg", "errorMessage"]);
    let message = message.or_else(|| object.parse::<String>("error")).or_else(|| word(&object, "message"));
    if status < 400 && !is_error(&object, &codes, message.is_some()) {
        return None;
    }
    let kind = kind(status, &codes);
    let text: String =
        message.unwrap_or_default().chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect();
    let own = if status >= 400 && ErrorType::of_status(status) == kind { status } else { kind.status() };
    Some(Foreign { status: own, said: ErrorBody { kind: kind.name().into(), message: text.into(), code: None } })
}

/// A value as text, if it is a plain one.
fn word(object: &RawObject<'_>, key: &str) -> Option<String> {
    let text = || object.parse::<String>(key).filter(|text| !text.is_empty());
    text().or_else(|| object.parse::<i64>(key).map(|n| n.to_string()))
}

/// Whether an answer without an error status is one all the same.
fn is_error(object: &RawObject<'_>, codes: &[String], has_message: bool) -> bool {
    let failed =
        object.parse::<bool>("success") == Some(false) || object.is("object", "error") || object.is("type", "error");
    let coded =
        has_message && codes.iter().any(|code| !matches!(code.as_str(), "0" | "200" | "success" | "message" | "ok"));
    failed || coded || object.get("error").is_some_and(|error| error.get() != "null")
}

fn kind(status: u16, codes: &[String]) -> ErrorType {
    let has = |word: &str| codes.iter().any(|code| code.to_ascii_lowercase().contains(word));
    if let Some((_, kind)) = WORDS.iter().find(|(word, _)| has(word)) {
        // A server that fails in the words of a request's mistake has failed.
        return if status >= 500 && kind.status() < 500 { ErrorType::of_status(status) } else { *kind };
    }
    let told = codes.iter().filter_map(|code| code.parse::<u16>().ok()).find(|code| (400..600).contains(code));
    ErrorType::of_status(if status >= 400 { status } else { told.unwrap_or(500) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, body: &str, want: Option<(u16, &str, &str)>) {
        let read = read(status, body.as_bytes());
        let got = read.as_ref().map(|f| (f.status, &*f.said.kind, &*f.said.message));
        assert_eq!(got, want, "{status} {body}");
    }

    #[test]
    fn other_envelopes_say_what_the_api_would() {
        let openai = r#"{"error":{"message":"no such model","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#;
        check(404, openai, Some((404, "not_found_error", "no such model")));
        let spent = r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}"#;
        check(429, spent, Some((402, "billing_error", "You exceeded your current quota")));
        check(400, r#"{"code":"InvalidApiKey","message":"bad key"}"#, Some((401, "authentication_error", "bad key")));
        check(429, r#"{"code":"Throttling.RateQuota","message":"slow"}"#, Some((429, "rate_limit_error", "slow")));
        check(422, r#"{"detail":"wrong"}"#, Some((422, "invalid_request_error", "wrong")));
        check(503, r#"{"error":"busy"}"#, Some((503, "api_error", "busy")));
        check(500, r#"{"error":{"type":"invalid_request_error","message":"x"}}"#, Some((500, "api_error", "x")));
        check(400, r#"{"error":{"code":1210,"message":"a\u0007b"}}"#, Some((400, "invalid_request_error", "ab")));
        check(400, "{}", Some((400, "invalid_request_error", "")));
    }

    #[test]
    fn an_error_with_status_200_is_found_and_an_answer_is_none() {
        check(200, r#"{"code":429,"msg":"slow down"}"#, Some((429, "rate_limit_error", "slow down")));
        check(
            200,
            r#"{"error":{"message":"x","code":"context_length_exceeded"}}"#,
            Some((400, "invalid_request_error", "x")),
        );
        check(200, r#"{"success":false,"code":0,"message":"broken"}"#, Some((500, "api_error", "broken")));
        check(
            200,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"o"}}"#,
            Some((529, "overloaded_error", "o")),
        );
        for answer in [
            r#"{"id":"msg_1","type":"message","content":[],"error":null}"#,
            r#"{"input_tokens":3}"#,
            r#"{"code":0,"message":"ok"}"#,
            r#"{"code":200,"msg":"ok"}"#,
        ] {
            check(200, answer, None);
        }
    }

    #[test]
    fn what_is_no_object_says_nothing() {
        for body in ["", "<html>502</html>", "upstream connect error", "[]", "\"x\""] {
            check(502, body, None);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(status: u16, body in "[{}\":,a-z0-9\\[\\]]{0,60}") {
            let _ = read(status, body.as_bytes());
        }
    }
}
