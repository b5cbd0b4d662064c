//! `tidegate check-upstream`: the way to each upstream key, step by step, each with its time, and in
//! one line what is wrong and what to do.
//!
//! It goes the way that requests of the gateway go, over the same pool, so what works here works
//! there. Each key is asked for one word.

use super::reload::Once;
use super::serve::configure;
use super::{Failed, say};
use crate::cli::{CheckUpstream, Serve};
use bytes::Bytes;
use serde_json::json;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_base::Prng;
use tidegate_gateway::Organisation;
use tidegate_observe::Metrics;
use tidegate_transport::{Clock, Dial, DialStage, Dialing, Target, Tasks, TcpDial};
use tidegate_upstream::{
    Exchange, ExchangeClocks, ExchangeError, Lane, Outgoing, Pool, PoolParts, PoolRules, ProbeClocks,
};
use tidegate_wire::error::ErrorBody;
use tidegate_wire::event::Tap;
use tidegate_wire::http::HeadWriter;
use tidegate_wire::ratelimit::{Level, RateLimits};
use tidegate_wire::sse::Splitter;

/// What everything of one key may take.
const WHOLE_MAX: Duration = Duration::from_secs(60);
/// The most of a refusal that is read.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// The most of a foreign page that is shown.
const SHOWN_CHARS: usize = 200;

/// The dialler, and what it was told of its stages.
struct Watched {
    dial: TcpDial,
    passed: Mutex<Vec<(DialStage, Duration)>>,
}

impl Dial for Watched {
    fn dial<'a>(&'a self, target: &'a Target) -> Dialing<'a> {
        Box::pin(async move {
            let done = |stage, took| self.passed.lock().unwrap_or_else(PoisonError::into_inner).push((stage, took));
            self.dial.dial_telling(target, &done).await
        })
    }
}

/// What is wrong, and what to do.
struct Trouble {
    what: String,
    todo: &'static str,
}

impl Trouble {
    fn new(what: impl Into<String>, todo: &'static str) -> Self {
        Trouble { what: what.into(), todo }
    }
}

/// A line of the table.
fn row(step: &str, took: Option<Duration>, more: &str) {
    let took = took.map_or_else(String::new, |took| format!("{:.1} ms", took.as_secs_f64() * 1000.0));
    say(format_args!("  {step:<11}{took:>11}  {more}").to_string().trim_end());
}

/// Why no connection came about, or none that answered.
fn unreached(error: &ExchangeError, target: &Target) -> Trouble {
    let todo = match error {
        ExchangeError::Dial(e) => match e.stage {
            DialStage::Resolve if target.proxy.is_some() => {
                "check the proxy's name, in the configuration or HTTPS_PROXY"
            }
            DialStage::Resolve => {
                "check the name in `url` and this machine's name servers; where only a proxy knows names, set `proxy` or HTTPS_PROXY"
            }
            DialStage::Connect if target.proxy.is_some() => "check the proxy's address and port, and whether it runs",
            DialStage::Connect => {
                "check the port in `url` and the firewall; where there is no way out but a proxy, set `proxy` or HTTPS_PROXY"
            }
            DialStage::Proxy => {
                "check the proxy's user, password and rules; NO_PROXY or proxy = \"none\" goes around it"
            }
            DialStage::Tls => {
                "if a proxy or the upstream has a certificate of its own making, name its authority as ca_file of [tls]; check the clock of this machine"
            }
            DialStage::Http2 => "set http = \"1.1\" for this upstream",
            DialStage::Socket => "check the path in `url`, and that a WebSocket is spoken there",
        },
        ExchangeError::UploadStall | ExchangeError::FirstByte | ExchangeError::Dead => {
            "it took the connection and does not answer: look at the upstream's own state, or at what stands between"
        }
        ExchangeError::Broken(_) => "check that `url` is the endpoint's base URL, and https where it wants TLS",
    };
    Trouble::new(error.to_string(), todo)
}

/// Why an answer is a refusal.
fn refused(status: u16, kind: &str, body: &[u8], model: &str) -> Trouble {
    let error = ErrorBody::read(body);
    let said = match &error {
        Some(error) => error.message.to_string(),
        None => String::from_utf8_lossy(body).split_whitespace().collect::<Vec<_>>().join(" "),
    };
    let said: String = said.chars().take(SHOWN_CHARS).collect();
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    if error.is_none() && kind.contains("html") {
        let what = format!("{status}, a page for people{said}");
        return Trouble::new(what, "what answers is not the API: check `url` with its path, and what stands between");
    }
    let todo = match status {
        401 => "the key is not taken: check it, and `auth` (x-api-key or bearer)",
        403 => {
            "the key may not do this: check its workspace and permissions, and whether the upstream serves this country"
        }
        404 if said.contains(model) => "the upstream does not know the model: name one that it has with --model",
        404 => "check the path in `url`: /v1/messages is put behind it",
        400 if said.contains("credit") || said.contains("spend") => {
            "pay, or raise the spend limit, in the upstream's console"
        }
        429 => "the limit is used up now: wait, and let all that uses this organisation go through Tidegate",
        529 | 503 => "the upstream is overloaded: try again; Tidegate tries again by itself",
        500..=599 => "the upstream has trouble of its own: try again later, see its status page",
        _ => "see what the upstream says",
    };
    Trouble::new(format!("{status}{said}"), todo)
}

fn limits(limits: RateLimits) -> String {
    let level = |name: &str, level: Level| level.limit.map(|limit| format!("{name} {limit}/min"));
    let told = [
        level("requests", limits.requests),
        level("input tokens", limits.input_tokens),
        level("output tokens", limits.output_tokens),
    ];
    let told: Vec<String> = told.into_iter().flatten().collect();
    if told.is_empty() {
        "none in the headers: they are learned from 429s, or set as limits of the organisation".to_owned()
    } else {
        told.join(", ")
    }
}

/// Reads the stream to its end.
async fn stream(exchange: &mut Exchange, row: &mut dyn FnMut(&str, &str)) -> Result<(), Trouble> {
    let (mut splitter, mut tap, mut wrong, mut first) = (Splitter::new(), Tap::new(), None, false);
    loop {
        let mut sink = |piece: &[u8]| {
            let fed = splitter.feed(piece, |event| {
                if let Err(rotten) = tap.see(event) {
                    wrong = Some(format!("an event that is none of a message's ({rotten:?})"));
                }
            });
            if fed.is_err() {
                wrong = Some("an event without an end".to_owned());
            }
        };
        let read = poll_fn(|cx| exchange.poll_body(cx, &mut sink)).await;
        if tap.started() && !first {
            first = true;
            row("first event", "");
        }
        let foreign = "what answers does not stream as the API does: check `url`, and what stands between";
        if let Some(wrong) = wrong.take() {
            return Err(Trouble::new(wrong, foreign));
        }
        match read {
            Ok(true) => break,
            Ok(false) => {}
            Err(e) => {
                return Err(Trouble::new(
                    format!("the stream broke: {e}"),
                    "try again; what stands between may cut streams",
                ));
            }
        }
    }
    if let Some(error) = &tap.error {
        return Err(Trouble::new(format!("the stream ended in an error: {}", error.message), "try again later"));
    }
    if !tap.stopped {
        return Err(Trouble::new(
            "the stream ended before its message did",
            "what stands between cuts or buffers streams: let it pass text/event-stream as it comes",
        ));
    }
    let usage = tap.usage.object();
    row("end", &format!("{} input and {} output tokens", usage["input_tokens"], usage["output_tokens"]));
    Ok(())
}

async fn check(lane: &Arc<Lane>, dial: TcpDial, clock: Clock, rules: PoolRules, model: &str) -> Result<(), Trouble> {
    let watched = Arc::new(Watched { dial, passed: Mutex::default() });
    let lanes = [(Arc::clone(lane), true)];
    let parts = PoolParts {
        clock,
        dial: Arc::clone(&watched) as Arc<dyn Dial>,
        rules,
        lanes: &lanes,
        metrics: &Metrics::new(),
        tasks: Tasks::new(),
        prng: Prng::new(1),
    };
    let pool = Pool::new(parts);
    let body = json!({"model": model, "max_tokens": 1, "stream": true,
        "messages": [{"role": "user", "content": "Say: ok"}]});
    let lines = |head: &mut HeadWriter<'_>| {
        head.header("anthropic-version", b"2023-06-01")
            .header("content-type", b"application/json")
            .header("accept-encoding", b"identity")
            .header("user-agent", concat!("tidegate/", env!("CARGO_PKG_VERSION")).as_bytes());
    };
    let clocks = ExchangeClocks {
        upload_stall: Duration::from_secs(10),
        first_byte: Some(Duration::from_secs(30)),
        probe: ProbeClocks::default(),
    };
    let request = Outgoing {
        method: "POST",
        target: "/v1/messages",
        body: Some(Bytes::from(body.to_string())),
        upload: None,
        is_stream: true,
        lines: &lines,
        clocks,
    };
    let began = clock.now();
    let asked = pool.exchange(0, &request, |_| {}).await;
    let mut dialled = Duration::ZERO;
    for (stage, took) in watched.passed.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        dialled += took;
        let proxy = lane.target.proxy.as_ref();
        let (step, more) = match stage {
            DialStage::Resolve => ("name", proxy.map_or(&lane.target.host, |proxy| &proxy.host).clone()),
            DialStage::Connect => ("TCP", String::new()),
            DialStage::Proxy => ("proxy", proxy.map_or_else(String::new, ToString::to_string)),
            DialStage::Tls => ("TLS", String::new()),
            DialStage::Http2 | DialStage::Socket => continue,
        };
        row(step, Some(took), &more);
    }
    let mut exchange = asked.map_err(|e| unreached(&e, &lane.target))?;
    let took = clock.now().since(began).saturating_sub(dialled);
    let head = exchange.take_head();
    let id = head.headers.text("request-id").map_or_else(String::new, |id| format!(", request-id {id}"));
    row("answer", Some(took), &format!("{}{id}", head.status));
    let kind = head.headers.text("content-type").unwrap_or_default().to_ascii_lowercase();
    if head.status != 200 || !kind.starts_with("text/event-stream") {
        let body = exchange.read_body(REFUSAL_BYTES_MAX).await.unwrap_or_default();
        return Err(refused(head.status, &kind, &body, model));
    }
    stream(&mut exchange, &mut |step, more| row(step, Some(clock.now().since(began)), more)).await?;
    row("limits", None, &limits(RateLimits::read(&head.headers, false)));
    pool.close();
    Ok(())
}

pub(super) fn run(flags: &CheckUpstream) -> Result<(), Failed> {
    let serve = Serve {
        config: flags.config.clone(),
        upstream: flags.upstream.clone(),
        upstream_key: flags.upstream_key.clone(),
        ..Serve::default()
    };
    let config = configure(&serve, &Once::default())?;
    config.check().map_err(Failed::because)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failed::because)?;
    let clock = Clock::real();
    let of = |o: &'_ Organisation| {
        let model = o.their_model(&flags.model).unwrap_or(&flags.model).to_owned();
        o.lanes.iter().map(|lane| (Arc::clone(lane), model.clone())).collect::<Vec<_>>()
    };
    let lanes: Vec<_> = config.settings.organisations.iter().flat_map(of).collect();
    let mut bad = 0;
    for (lane, model) in &lanes {
        let through = lane.target.proxy.as_ref().map_or_else(String::new, |proxy| format!(" through {proxy}"));
        say(format_args!("{} at {}:{}{through}", lane.label, lane.target.host, lane.target.port));
        let dial = TcpDial::new(clock, config.dial, &config.roots).map_err(Failed::because)?;
        let checked = runtime.block_on(async {
            let checking = check(lane, dial, clock, config.settings.pool, model);
            clock.within(WHOLE_MAX, checking).await.unwrap_or_else(|| {
                Err(Trouble::new(
                    format!("not done within {} s", WHOLE_MAX.as_secs()),
                    "look at the upstream's own state, or at what stands between",
                ))
            })
        });
        match checked {
            Ok(()) => say("  good"),
            Err(Trouble { what, todo }) => {
                bad += 1;
                say(format_args!("  BAD: {what}. To do: {todo}."));
            }
        }
    }
    if bad > 0 {
        Err(Failed(format!("{bad} of {} upstream keys cannot be used; see above", lanes.len())))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        let todo = |status, kind: &str, body: &str| refused(status, kind, body.as_bytes(), "claude-x").todo;
        let error =
            |message: &str| format!("{{\"type\":\"error\",\"error\":{{\"type\":\"t\",\"message\":\"{message}\"}}}}");
        assert!(todo(401, "application/json", &error("invalid x-api-key")).contains("key is not taken"));
        assert!(todo(404, "application/json", &error("model: claude-x")).contains("--model"));
        assert!(todo(404, "application/json", &error("Not found")).contains("path"));
        assert!(todo(404, "text/html", "<h1>nginx</h1>").contains("not the API"));
        assert!(todo(200, "text/html", "<p>Please log in</p>").contains("not the API"));
        assert!(todo(400, "application/json", &error("Your credit balance is too low")).contains("pay"));
        let long = refused(500, "text/plain", "x ".repeat(10_000).as_bytes(), "m");
        assert!(long.what.chars().count() < SHOWN_CHARS + 10);
    }
}
