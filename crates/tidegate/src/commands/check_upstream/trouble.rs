//! What is wrong with the way to an upstream, in one line, and what to do.
//!
//! What an upstream says is a stranger's text: what is secret is taken out of it, it is cut, and
//! nothing in it is an order to a terminal.

use super::super::chat::harmless;
use super::FIRST_BYTE_MAX;
use tidegate_transport::{ClientError, DialStage, Target};
use tidegate_upstream::{ExchangeError, Lane};
use tidegate_wire::error::{ErrorBody, ErrorType};
use tidegate_wire::foreign;

/// The most of what an upstream says that is shown, characters.
const SHOWN_CHARS: usize = 200;

/// What is wrong, and what to do.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) what: String,
    pub(super) todo: &'static str,
}

impl Trouble {
    pub(super) fn new(what: impl Into<String>, todo: &'static str) -> Self {
        Trouble { what: what.into(), todo }
    }
}

/// What the upstream of `lane` says, fit to be shown.
pub(super) fn shown(said: &str, lane: &Lane) -> String {
    let said = lane.veil().text(said);
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut chars = line.chars();
    let mut out: String = harmless(&chars.by_ref().take(SHOWN_CHARS).collect::<String>()).into_owned();
    if chars.next().is_some() {
        out.push('\u{2026}');
    }
    out
}

/// Why no connection came about, or none that answered.
pub(super) fn unreached(error: &ExchangeError, target: &Target) -> Trouble {
    let (what, todo) = match error {
        ExchangeError::Dial(e) => (e.what(), e.todo.unwrap_or_else(|| stage(e.stage, target))),
        ExchangeError::UploadStall | ExchangeError::FirstByte | ExchangeError::Dead => (
            match error {
                ExchangeError::FirstByte => format!("no answer within {} s", FIRST_BYTE_MAX.as_secs()),
                _ => error.to_string(),
            },
            "it took the connection and does not answer: look at the upstream's own state, or at what stands between",
        ),
        ExchangeError::Broken(ClientError::SpeaksTls) => {
            (error.to_string(), "write https:// in place of http:// into `url`")
        }
        ExchangeError::Broken(ClientError::Head(_)) => {
            (error.to_string(), "what answers speaks no HTTP: check host and port in `url`")
        }
        ExchangeError::Broken(_) => {
            (error.to_string(), "check that `url` is the endpoint's base URL, and https where it wants TLS")
        }
    };
    Trouble { what, todo }
}

fn stage(stage: DialStage, target: &Target) -> &'static str {
    match stage {
        DialStage::Resolve if target.proxy.is_some() => "check the proxy's name, in the configuration or HTTPS_PROXY",
        DialStage::Resolve => {
            "check the name in `url` and this machine's name servers; where only a proxy knows names, set `proxy` or HTTPS_PROXY"
        }
        DialStage::Connect if target.proxy.is_some() => "check the proxy's address and port, and whether it runs",
        DialStage::Connect => {
            "check the port in `url` and the firewall; where there is no way out but a proxy, set `proxy` or HTTPS_PROXY"
        }
        DialStage::Proxy => "check the proxy's user, password and rules; NO_PROXY or proxy = \"none\" goes around it",
        DialStage::Tls => "look at what stands between, and whether TLS is spoken at this port",
        DialStage::Http2 => "set http = \"1.1\" for this upstream",
        DialStage::Socket => "check the path in `url`, and that a WebSocket is spoken there",
    }
}

/// An answer that is no stream.
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    /// Its content type, in small letters.
    pub(super) kind: &'a str,
    /// Where it leads, if it is a redirect.
    pub(super) location: Option<&'a str>,
    pub(super) body: &'a [u8],
}

/// Why an answer is a refusal, or none of the API at all.
pub(super) fn refused(answer: &Answer<'_>, lane: &Lane, model: &str) -> Trouble {
    let error = said(answer);
    let text = match &error {
        Some((_, error)) => error.message.to_string(),
        None => String::from_utf8_lossy(answer.body).into_owned(),
    };
    let text = shown(&text, lane);
    let colon = if text.is_empty() { String::new() } else { format!(": {text}") };
    if (300..400).contains(&answer.status) {
        let to = answer.location.map_or_else(|| "elsewhere".to_owned(), |to| format!("to {}", shown(to, lane)));
        let what = format!("{}, it sends its clients {to}", answer.status);
        return Trouble::new(what, "redirects are not followed: write where the API itself is into `url`");
    }
    let Some((status, _)) = error else {
        let what = match answer.kind {
            kind if kind.contains("html") => format!("{}, a page for people{colon}", answer.status),
            _ if answer.status < 300 => format!("{}, and no stream of the API{colon}", answer.status),
            _ => format!("{}{colon}", answer.status),
        };
        let todo = match answer.status {
            200..=299 => "what answers is not the Messages API: check `url` with its path, and what stands between",
            status if answer.kind.contains("html") && !matches!(status, 401 | 403 | 429) => {
                "what answers is not the API: check `url` with its path, and what stands between"
            }
            status => of_status(status),
        };
        return Trouble::new(what, todo);
    };
    let small = text.to_ascii_lowercase();
    let todo = match status {
        400 | 404 | 422 if text.contains(model) || (small.contains("model") && status != 400) => {
            "the upstream does not know the model: name one that it has with --model, or write the name it has there into `models`"
        }
        400 if small.contains("credit") || small.contains("spend") => of_status(402),
        status => of_status(status),
    };
    Trouble::new(format!("{}{colon}", answer.status), todo)
}

/// The error in an answer, in the API's words or in others, and the status that goes with it: some
/// endpoints say no with 200.
fn said(answer: &Answer<'_>) -> Option<(u16, ErrorBody)> {
    if let Some(error) = ErrorBody::read(answer.body) {
        let of_kind = ErrorType::of_name(&error.kind).map_or(500, ErrorType::status);
        return Some((if answer.status < 400 { of_kind } else { answer.status }, error));
    }
    foreign::read(answer.status, answer.body).map(|foreign| (foreign.status, foreign.said))
}

fn of_status(status: u16) -> &'static str {
    match status {
        401 => "the key is not taken: check it, and `auth` (x-api-key or bearer)",
        402 => "pay, or raise the spend limit, in the upstream's console",
        403 => {
            "the key may not do this: check its workspace and permissions, and whether the upstream serves this country"
        }
        404 | 405 => "check the path in `url`: /v1/messages is put behind it",
        407 => "a proxy stands between that wants a user and a password: set `proxy` or HTTPS_PROXY with them",
        429 => "the limit is used up now: wait, and let all that uses this organisation go through Tidegate",
        503 | 529 => "the upstream is overloaded: try again; Tidegate tries again by itself",
        500..=599 => "the upstream has trouble of its own: try again later, see its status page",
        _ => "see what the upstream says",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_base::Secret;
    use tidegate_upstream::Scheme;

    fn lane() -> Lane {
        Lane::new("a/1", "https://example.com", Scheme::ApiKey, Secret::new("sk-ant-geheim")).unwrap()
    }

    fn of(status: u16, kind: &str, body: &str) -> Trouble {
        let answer = Answer { status, kind, location: None, body: body.as_bytes() };
        refused(&answer, &lane(), "claude-x")
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let error =
            |message: &str| format!("{{\"type\":\"error\",\"error\":{{\"type\":\"t\",\"message\":\"{message}\"}}}}");
        let json = "application/json";
        for (status, kind, body, want) in [
            (401, json, error("invalid x-api-key"), "key is not taken"),
            (404, json, error("model: claude-x"), "--model"),
            (
                404,
                json,
                "{\"error\":{\"message\":\"The model does not exist\",\"code\":\"model_not_found\"}}".into(),
                "--model",
            ),
            (400, json, error("claude-x is not a model"), "--model"),
            (404, json, error("Not found"), "path"),
            (405, "", String::new(), "path"),
            (404, "text/html", "<h1>nginx</h1>".into(), "not the API"),
            (403, "text/html", "<h1>Forbidden</h1>".into(), "workspace"),
            (200, "text/html", "<p>Please log in</p>".into(), "not the Messages API"),
            (200, json, "{\"ok\":true}".into(), "not the Messages API"),
            (200, "", String::new(), "not the Messages API"),
            (200, json, "{\"error\":{\"message\":\"no\",\"code\":\"invalid_api_key\"}}".into(), "key is not taken"),
            (400, json, error("Your credit balance is too low"), "pay"),
            (407, "", String::new(), "proxy"),
            (429, json, error("rate limited"), "limit is used up"),
            (529, json, error("overloaded"), "overloaded"),
            (500, "text/plain", "oops".into(), "trouble of its own"),
        ] {
            let trouble = of(status, kind, &body);
            assert!(trouble.todo.contains(want), "{status} {body}: {trouble:?}");
            assert!(trouble.what.starts_with(&status.to_string()), "{trouble:?}");
        }
    }

    #[test]
    fn a_redirect_says_where_it_leads() {
        let answer =
            Answer { status: 301, kind: "text/html", location: Some("https://b.example/v1"), body: b"<h1>Moved" };
        let trouble = refused(&answer, &lane(), "claude-x");
        assert_eq!(trouble.what, "301, it sends its clients to https://b.example/v1");
    }

    #[test]
    fn what_an_upstream_says_shows_no_key_and_orders_no_terminal() {
        let said = of(401, "text/plain", "bad\x1b[2J\n\u{9b}key sk-ant-geheim\r\n").what;
        assert_eq!(said, "401: bad\\u{1b}[2J \\u{9b}key *************");
        let long = of(500, "text/plain", &"x ".repeat(10_000));
        assert!(long.what.chars().count() < SHOWN_CHARS + 10);
    }
}
