//! `tidegate check-upstream`: the way to each upstream key, step by step, each with its time, and in
//! one line what is wrong and what to do.
//!
//! It goes the way that requests of the gateway go, over the same pool, so what works here works
//! there. Each key is asked for one word.

mod trouble;

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
use tidegate_upstream::{Exchange, ExchangeClocks, Lane, Outgoing, Pool, PoolParts, PoolRules, ProbeClocks};
use tidegate_wire::event::Tap;
use tidegate_wire::http::HeadWriter;
use tidegate_wire::ratelimit::{Level, RateLimits};
use tidegate_wire::sse::Splitter;
use trouble::{Answer, Trouble, refused, shown, unreached};

/// How long a first byte is waited for: the gateway waits longer where a model may think.
const FIRST_BYTE_MAX: Duration = Duration::from_secs(30);
/// What everything of one key may take.
const WHOLE_MAX: Duration = Duration::from_secs(60);
/// The most of a refusal that is read, and how long for: its status says most.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
const REFUSAL_MAX: Duration = Duration::from_secs(5);

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

/// A line of the table.
fn row(step: &str, took: Option<Duration>, more: &str) {
    let took = took.map_or_else(String::new, |took| format!("{:.1} ms", took.as_secs_f64() * 1000.0));
    say(format_args!("  {step:<11}{took:>11}  {more}").to_string().trim_end());
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
async fn stream(exchange: &mut Exchange, lane: &Lane, row: &mut dyn FnMut(&str, &str)) -> Result<(), Trouble> {
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
        return Err(Trouble::new(
            format!("the stream ended in an error: {}", shown(&error.message, lane)),
            "try again later",
        ));
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
    // As on any request, lines of the upstream's table stand in place of these.
    let lines = |head: &mut HeadWriter<'_>| {
        for (name, value) in [
            ("anthropic-version", "2023-06-01"),
            ("content-type", "application/json"),
            ("accept-encoding", "identity"),
            ("user-agent", concat!("tidegate/", env!("CARGO_PKG_VERSION"))),
        ] {
            if !lane.sets(name.as_bytes()) {
                head.header(name, value.as_bytes());
            }
        }
    };
    let clocks = ExchangeClocks {
        upload_stall: Duration::from_secs(10),
        first_byte: Some(FIRST_BYTE_MAX),
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
    let id = head.headers.text("request-id").map_or_else(String::new, |id| format!(", request-id {}", shown(id, lane)));
    row("answer", Some(took), &format!("{}{id}", head.status));
    let kind = head.headers.text("content-type").unwrap_or_default().to_ascii_lowercase();
    if head.status != 200 || !kind.starts_with("text/event-stream") {
        let body = clock.within(REFUSAL_MAX, exchange.read_body(REFUSAL_BYTES_MAX)).await;
        let body = body.and_then(Result::ok).unwrap_or_default();
        let location = head.headers.text("location");
        return Err(refused(&Answer { status: head.status, kind: &kind, location, body: &body }, lane, model));
    }
    if let Some(coding) = head.headers.text("content-encoding").filter(|c| !c.eq_ignore_ascii_case("identity")) {
        return Err(Trouble::new(
            format!("the stream is compressed ({}) although it was asked for plain", shown(coding, lane)),
            "what stands between compresses answers: have it pass text/event-stream as it comes",
        ));
    }
    stream(&mut exchange, lane, &mut |step, more| row(step, Some(clock.now().since(began)), more)).await?;
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
    let config = configure(&serve)?;
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
                    format!("what comes behind the last line above was not done within {} s", WHOLE_MAX.as_secs()),
                    "look at the upstream's own state, or at what stands between: it may hold streams back",
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
        return Err(Failed(format!("{bad} of {} upstream keys cannot be used; see above", lanes.len())));
    }
    if lanes.len() > 1 {
        say(format_args!("all {} upstream keys can be used", lanes.len()));
    }
    Ok(())
}
