//! What a refusal of the upstream is about: the request itself, the key, a limit, or the upstream.
//!
//! The status alone does not say: a user-set spend limit is a 400, a disabled organisation a 403
//! like a model that may not be used, and a 429 can be any of three limiters, a ramp limit, or a cap
//! that lasts until the month ends (protocol page, sections 3.1 and 3.3). `error.details.error_code`
//! decides where there is one, else the message, in words the API has used. What is not clearly
//! about key or quota is about the request, and its client should see it.

use crate::error::ErrorBody;

/// Whose fault a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The request: it would be refused again, by anybody.
    Request,
    /// The key, or the organisation behind it.
    Key,
    /// The organisation has spent what it may.
    SpendCap,
    /// A limit on use.
    Limit(Limiter),
    /// The upstream is overloaded, for everybody.
    Overloaded,
    /// The upstream did not come to it in time: it had too much at once, or fails.
    TimedOut,
    /// The upstream failed.
    Server,
}

/// What limits use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limiter {
    /// Requests per minute.
    Requests,
    /// Input tokens per minute.
    InputTokens,
    /// Output tokens per minute.
    OutputTokens,
    /// Requests at once.
    Concurrent,
    /// How sharply use may grow.
    Ramp,
    /// It was not said.
    Unnamed,
}

/// Sorts a refusal by its status and what it said. `None` for a status that refuses nothing.
pub fn blame(status: u16, said: Option<&ErrorBody>) -> Option<Blame> {
    let code = said.and_then(|s| s.code.as_deref()).unwrap_or_default();
    let message = || said.map(|s| s.message.to_ascii_lowercase()).unwrap_or_default();
    Some(match status {
        _ if matches!(code, "enforced_spend_limit_reached" | "contract_spend_limit_reached") => Blame::SpendCap,
        400 if code == "organization_on_hold" || is_shut(&message()) => Blame::Key,
        400 if is_spent(&message()) => Blame::SpendCap,
        // A page in a browser was refused, not the key.
        401 if message().contains("cors") => Blame::Request,
        401 => Blame::Key,
        402 => Blame::SpendCap,
        403 if is_shut(&message()) => Blame::Key,
        429 if code == "ramp_limit_exceeded" => Blame::Limit(Limiter::Ramp),
        429 => Blame::Limit(limiter(&message())),
        504 => Blame::TimedOut,
        529 => Blame::Overloaded,
        400..=499 => Blame::Request,
        500..=599 => Blame::Server,
        _ => return None,
    })
}

/// "You have reached your specified API usage limits", "... workspace API usage limits", "Your
/// credit balance is too low".
fn is_spent(message: &str) -> bool {
    // Beginnings only: what a client wrote may stand anywhere further on, and must not stop others.
    message.starts_with("you have reached your specified") && message.contains("usage limit")
        || message.starts_with("your credit balance is too low")
}

/// Whether a 403 speaks of a key or an organisation that may do nothing any more. One that names a
/// model, a feature or a resource concerns the request.
fn is_shut(message: &str) -> bool {
    let whose = ["organization", "organisation", "api key", "workspace", "account"];
    let what = ["disabled", "suspended", "on hold", "deactivated", "revoked", "expired", "archived", "not active"];
    let sentence = message.split(['.', ',']).next().unwrap_or_default();
    // A sentence that quotes something, or begins with the place of a field, may be a client's words.
    let plain = !sentence.contains(['"', '\'', '`', ':', '<', '(']);
    let begins = ["this ", "your ", "the ", "organization ", "api key "].iter().any(|w| sentence.starts_with(w));
    plain
        && begins
        && sentence.len() < 120
        && whose.iter().any(|w| sentence.contains(w))
        && what.iter().any(|w| sentence.contains(w))
}

/// The limiter that a 429's message names. Phrases and not words: an organisation's name may stand in
/// the message, and there is one that is called Ramp.
fn limiter(message: &str) -> Limiter {
    let names: [(&str, Limiter); 11] = [
        ("concurrent connections", Limiter::Concurrent),
        ("concurrent requests", Limiter::Concurrent),
        ("acceleration limit", Limiter::Ramp),
        ("acceleration rate limit", Limiter::Ramp),
        ("output tokens", Limiter::OutputTokens),
        ("input tokens", Limiter::InputTokens),
        ("request tokens", Limiter::InputTokens),
        ("requests per minute", Limiter::Requests),
        ("number of requests", Limiter::Requests),
        ("ramp limit", Limiter::Ramp),
        ("ramp up", Limiter::Ramp),
    ];
    names.into_iter().find(|(words, _)| message.contains(words)).map_or(Limiter::Unnamed, |(_, limiter)| limiter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, code: &str, message: &str, want: Blame) {
        let code = (!code.is_empty()).then(|| code.to_owned().into());
        let said = ErrorBody { kind: "x_error".into(), message: message.to_owned().into(), code };
        assert_eq!(blame(status, Some(&said)), Some(want), "{status} {message}");
    }

    #[test]
    fn what_a_client_wrote_stops_nobody_else() {
        for message in [
            "tools.0: Input tag 'your credit balance is too low' found using 'type' does not match",
            "tools.0.name: this organization has been disabled",
            "messages.0.content: you have reached your specified usage limits",
        ] {
            check(400, "", message, Blame::Request);
        }
        check(403, "", "model: `your api key has expired` is not available to this account", Blame::Request);
        check(400, "", "This organization has been disabled.", Blame::Key);
    }

    #[test]
    fn a_429_names_its_limiter() {
        use Limiter::*;
        for (message, want) in [
            ("This request would exceed your organization's rate limit of 1,000 requests per minute.", Requests),
            ("Number of requests has exceeded your per-minute rate limit", Requests),
            (
                "This request would exceed the rate limit for your organization of 30,000 input tokens per minute.",
                InputTokens,
            ),
            ("Number of request tokens has exceeded your per-minute rate limit", InputTokens),
            (
                "This request would exceed your organization's maximum usage of 8,000 output tokens per minute",
                OutputTokens,
            ),
            ("Number of concurrent connections has exceeded your rate limit. Please try again later.", Concurrent),
            ("You have exceeded the acceleration limit: ramp up gradually", Ramp),
            ("Please ramp up your usage gradually", Ramp),
            ("This request would exceed the rate limit for Ramp of 30,000 input tokens per minute.", InputTokens),
            ("This request would exceed Concurrent Inc's rate limit of 50 requests per minute.", Requests),
            ("This request would exceed the rate limit for Ramp.", Unnamed),
            ("Rate limited", Unnamed),
        ] {
            check(429, "", message, Blame::Limit(want));
        }
        check(429, "ramp_limit_exceeded", "This request would exceed 1,000 requests per minute", Blame::Limit(Ramp));
        assert_eq!(blame(429, None), Some(Blame::Limit(Unnamed)));
    }

    #[test]
    fn money_that_is_spent_is_nobodys_mistake() {
        check(429, "enforced_spend_limit_reached", "Your usage limit is reached", Blame::SpendCap);
        check(429, "contract_spend_limit_reached", "", Blame::SpendCap);
        check(
            400,
            "",
            "You have reached your specified API usage limits. You will regain access on 2026-12-01.",
            Blame::SpendCap,
        );
        check(400, "", "You have reached your specified workspace API usage limits.", Blame::SpendCap);
        check(400, "", "Your credit balance is too low to access the API.", Blame::SpendCap);
        check(402, "", "Billing", Blame::SpendCap);
        check(400, "", "messages: at least one message is required", Blame::Request);
    }

    #[test]
    fn a_key_that_is_shut_is_told_from_a_request_that_may_not() {
        check(401, "", "invalid x-api-key", Blame::Key);
        check(401, "", "CORS requests are not allowed for this Organization", Blame::Request);
        check(403, "", "This organization has been disabled.", Blame::Key);
        check(403, "", "Your API key has been revoked", Blame::Key);
        check(400, "organization_on_hold", "", Blame::Key);
        check(403, "", "Your API key does not have permission to use the specified resource", Blame::Request);
        check(403, "", "Your organization does not have access to model x", Blame::Request);
        check(403, "", "Request not allowed", Blame::Request);
    }

    #[test]
    fn the_rest_is_told_by_its_status() {
        for (status, want) in [
            (404, Some(Blame::Request)),
            (413, Some(Blame::Request)),
            (500, Some(Blame::Server)),
            (504, Some(Blame::TimedOut)),
            (529, Some(Blame::Overloaded)),
            (302, None),
        ] {
            assert_eq!(blame(status, None), want, "{status}");
        }
    }
}
