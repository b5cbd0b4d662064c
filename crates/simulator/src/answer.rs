//! One request, from the door to what it is answered.
//!
//! [`Simulator::answer`] reads aloud as the order of checks; each step either goes on or ends in a
//! [`No`]. What is learnt on the way (who, which model) is kept in [`Known`], because a refusal is
//! recorded with it too.

use crate::cache::{Found, InputUse, Scope};
use crate::callers::{self, Caller};
use crate::continuation::{Asked, Continuation};
use crate::directive::Directives;
use crate::door::{Door, door};
use crate::envelope::Refusal;
use crate::events::Events;
use crate::fault::{Cut, Fault};
use crate::listing;
use crate::odd::{Odd, distorted};
use crate::pace::Pace;
use crate::playback::garbled_body;
use crate::quota::{Ask, Estimate, Holder, Lease, Lines, OverLimit};
use crate::reply::{self, Reply, document};
use crate::simulator::{RequestFacts, Simulator, body_bytes_max, path_of};
use crate::validate::{self, Purpose, Valid, Version};
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tidegate_base::Moment;

/// An answer before it has a number.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Body,
    pub(crate) after: Duration,
    /// Faults that are left for the body.
    pub(crate) faults: Vec<Fault>,
    pub(crate) refusal: Option<String>,
}

pub(crate) enum Body {
    Whole { bytes: Bytes, reply: Option<Arc<Reply>> },
    Stream { reply: Arc<Reply>, events: Box<Events>, ping: Duration },
    Broken { reset: bool },
}

/// What is known of a request by the time it is answered.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) organisation: String,
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) workspace_id: String,
    /// The organisation, once this is one of its requests at once.
    pub(crate) connection: Option<String>,
    /// What it was admitted with.
    pub(crate) lease: Option<Lease>,
    /// What it writes to the prompt cache, and from when on that can be read.
    pub(crate) writes: Vec<u64>,
    pub(crate) begins: Moment,
    pub(crate) faults: Vec<&'static str>,
    /// What it asks, and what its answer is made of if it goes on with another.
    pub(crate) asked: Option<Asked>,
    pub(crate) continuation: Option<Continuation>,
}

/// An error answer, and the name it is counted under.
pub(crate) struct No {
    refusal: Box<Refusal>,
    label: String,
    headers: Vec<(&'static str, String)>,
    after: Duration,
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        No { label: refusal.status.to_string(), refusal: Box::new(refusal), headers: Vec::new(), after: Duration::ZERO }
    }
}

impl From<OverLimit> for No {
    fn from(over: OverLimit) -> Self {
        No { label: over.label.to_owned(), ..No::from(over.refusal) }
    }
}

impl No {
    /// The same with a header.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn answer(self, request_id: &str) -> Answer {
        let (content_type, bytes) = self.refusal.body(request_id);
        let mut headers = vec![("content-type", content_type.to_owned())];
        headers.extend(self.headers);
        headers.extend(self.refusal.retry_after_s.map(|s| ("retry-after", s.to_string())));
        let body = Body::Whole { bytes, reply: None };
        Answer {
            status: self.refusal.status,
            headers,
            body,
            after: self.after,
            faults: Vec::new(),
            refusal: Some(self.label),
        }
    }
}

pub(crate) fn too_large() -> Refusal {
    Refusal::new(413, "Request exceeds the maximum size")
}

fn json_answer(value: &Value) -> Answer {
    Answer {
        status: 200,
        headers: vec![("content-type", "application/json".to_owned())],
        body: Body::Whole { bytes: value.to_string().into(), reply: None },
        after: Duration::ZERO,
        faults: Vec::new(),
        refusal: None,
    }
}

impl Simulator {
    pub(crate) fn answer(
        &mut self,
        now: Moment,
        facts: &RequestFacts<'_>,
        request_id: &str,
        known: &mut Known,
    ) -> Result<Answer, No> {
        let path = path_of(facts.target);
        let query = facts.target.split_once('?').map_or("", |(_, query)| query);
        let door = door(facts.method, path)?;
        if door == Door::Root {
            return Ok(json_answer(&json!({"message": "The Claude API, simulated."})));
        }
        if facts.body.len() > body_bytes_max(facts.target) {
            return Err(too_large().into());
        }
        let caller = callers::identify(&self.scenario, facts.header("x-api-key"), facts.header("authorization"), now)?;
        known.organisation.clone_from(&caller.organisation);
        known.workspace_id = caller.workspace_id();
        let version = version(facts)?;
        match door {
            Door::Root | Door::Models => Ok(json_answer(&listing::page(query)?)),
            Door::Model => Ok(json_answer(&listing::one(path.trim_start_matches("/v1/models/"))?)),
            Door::Stored => self.stored(now, facts, &caller, version),
            Door::CountTokens => self.count(now, facts, version, &caller, known),
            Door::Messages => self.messages(now, facts, version, &caller, request_id, known),
        }
    }

    fn count(
        &mut self,
        now: Moment,
        facts: &RequestFacts<'_>,
        version: Version,
        caller: &Caller,
        known: &mut Known,
    ) -> Result<Answer, No> {
        let valid = self.validate(facts, version, Purpose::Count, known)?;
        let limit = caller.count_limit(&self.scenario);
        self.quota.count(&caller.organisation, limit, now)?;
        Ok(json_answer(&json!({"input_tokens": valid.input_tokens})))
    }

    fn validate(
        &self,
        facts: &RequestFacts<'_>,
        version: Version,
        purpose: Purpose,
        known: &mut Known,
    ) -> Result<Valid, Refusal> {
        let encoded =
            facts.header("content-encoding").is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity"));
        if encoded {
            let refusal = Refusal::invalid("The request body's content encoding is not supported");
            return Err(Refusal { code: Some("request_body_encoding_unsupported"), ..refusal });
        }
        let betas = facts.all("anthropic-beta").any(|value| !value.trim().is_empty());
        let valid = validate::validate(facts.body, version, betas, purpose)?;
        known.model.clone_from(&valid.model_id);
        known.stream = valid.stream;
        Ok(valid)
    }

    fn messages(
        &mut self,
        now: Moment,
        facts: &RequestFacts<'_>,
        version: Version,
        caller: &Caller,
        request_id: &str,
        known: &mut Known,
    ) -> Result<Answer, No> {
        let directives = Directives::parse(facts.all("simulate"))?;
        let valid = self.validate(facts, version, Purpose::Answer, known)?;
        let pace = directives.pace(self.scenario.pace);
        let domain = self.quota.domain(&caller.organisation, valid.model.class);
        let holder = caller.holder(&self.scenario, domain);
        self.quota.connect(&holder, &caller.organisation, now).map_err(|over| self.over(&holder, over, now))?;
        known.connection = Some(caller.organisation.clone());
        let asked = Asked::read(&valid.body);
        let attempts = self.truth.attempts(&asked);
        let from = self.truth.interrupted(&asked);
        known.asked = Some(asked);
        let mut faults = self.faults(now, &directives, &valid, attempts);
        known.faults = faults.iter().map(Fault::label).collect();
        if !valid.stream {
            faults = for_buffered(faults);
        }
        let after = before_head(&mut faults);
        let broken = faults.iter().find(|fault| matches!(fault, Fault::Status { .. } | Fault::NoHead { .. }));
        if let Some(fault) = broken.filter(|fault| !self.charges(fault)) {
            if let Fault::Status { status: 429, .. } = fault {
                self.quota.refused(&holder, "fault-429", now);
                self.truth.refused(&holder.domain, now);
            }
            return Self::broken_before(fault, after, &pace, request_id);
        }
        let found = self.admit(now, &valid, &holder, known)?;
        if let Some(fault) = broken {
            return Self::broken_before(fault, after, &pace, request_id);
        }
        known.begins = now + after + pace.head;
        known.writes = self.cache.keep(&found, self.requests, now, known.begins);
        let headers = self.headers(&holder, now);
        let reply = match from {
            None => reply::compose(&valid, found.input, &directives, &pace, self.seed),
            Some(from) => {
                let rules = &self.scenario.continuation;
                let (reply, made) = reply::go_on(&valid, found.input, &directives, &pace, self.seed, &from, rules);
                known.continuation = Some(made);
                reply
            }
        };
        let odds: Vec<Odd> =
            faults.iter().filter_map(|fault| if let Fault::Odd(odd) = fault { Some(*odd) } else { None }).collect();
        Ok(distorted(play(&valid, Arc::new(reply), pace, after, headers, faults), &odds))
    }

    /// Quota: a lease for the request and what of its prompt is cached, or the refusal.
    fn admit(&mut self, now: Moment, valid: &Valid, holder: &Holder, known: &mut Known) -> Result<Found, No> {
        let scope = Scope { organisation: &holder.domain.0, workspace: holder.workspace(), model: valid.model.id };
        let found = self.cache.look(scope, &valid.body, valid.model.tokenizer, valid.input_tokens, now);
        let input = found.input;
        let ask = Ask { input, estimate: self.estimate(input), max_tokens: valid.output_tokens_max };
        let lease = self.quota.admit(holder, ask, now).map_err(|over| self.over(holder, over, now))?;
        self.truth.admitted(&holder.domain, input, now);
        known.lease = Some(lease);
        Ok(found)
    }

    /// The rate-limit headers of this request's answer.
    fn headers(&mut self, holder: &Holder, now: Moment) -> Lines {
        let dice = self.prng("remaining", self.requests);
        self.quota.headers(holder, dice, now)
    }

    /// A refusal by quota, with the headers that explain it.
    fn over(&mut self, holder: &Holder, over: OverLimit, now: Moment) -> No {
        let too_many = over.refusal.status == 429;
        if too_many {
            self.truth.refused(&holder.domain, now);
        }
        let headers = if too_many { self.headers(holder, now) } else { Vec::new() };
        No { headers, ..No::from(over) }
    }

    /// Whether a request that ends in this fault is charged like any other.
    fn charges(&self, fault: &Fault) -> bool {
        let failed = match fault {
            Fault::Status { status, .. } => *status >= 500,
            _ => true,
        };
        failed && self.quota.rules.charge_failed
    }

    /// What the API believes the input to be before the answer begins.
    fn estimate(&self, input: InputUse) -> u64 {
        let rules = &self.quota.rules;
        let tokens = if rules.estimate == Estimate::Whole { input.total() } else { input.counted() };
        match rules.estimate_error_percent {
            0 => tokens,
            percent => {
                let permille = 1_000 - 10 * percent + self.prng("estimate", self.requests).between(0, 20 * percent);
                tokens * permille / 1_000
            }
        }
    }

    /// Faults that leave nothing of the answer.
    fn broken_before(fault: &Fault, after: Duration, pace: &Pace, request_id: &str) -> Result<Answer, No> {
        let after = after + pace.head;
        match fault {
            Fault::Status { status, retry_after_s } => {
                let label = format!("fault-{status}");
                Err(No { after, label, ..No::from(Refusal::by_fault(*status, *retry_after_s)) })
            }
            other => {
                let reset = matches!(other, Fault::NoHead { reset: true });
                let broken = No::from(Refusal::by_fault(500, None)).answer(request_id);
                Ok(Answer { body: Body::Broken { reset }, after, refusal: None, ..broken })
            }
        }
    }

    /// The faults of this request: those it asked for, or else those of the rules that strike it.
    /// `attempts` that ask the same came before it.
    fn faults(&mut self, now: Moment, directives: &Directives, valid: &Valid, attempts: u64) -> Vec<Fault> {
        let number = self.answers;
        self.answers += 1;
        if let Some(faults) = &directives.faults {
            let strike = directives.attempts.is_none_or(|most| attempts < most);
            return if strike { faults.clone() } else { Vec::new() };
        }
        let applies = |rule: &crate::scenario::Rule| {
            rule.attempts.is_none_or(|most| attempts < most)
                && rule.stream.is_none_or(|stream| stream == valid.stream)
                && (rule.models.is_empty()
                    || rule.models.iter().any(|model| *model == valid.model_id || model == valid.model.id))
        };
        let rules = self.scenario.faults.iter().enumerate();
        let struck = rules.filter(|(n, rule)| applies(rule) && self.strikes(*n, rule, number, now));
        let faults = struck.flat_map(|(_, rule)| rule.faults.iter().cloned());
        faults.filter(|fault| !matches!(fault, Fault::SlowConnect(_) | Fault::NoUpgrade)).collect()
    }
}

/// The head and body of a good answer.
fn play(
    valid: &Valid,
    reply: Arc<Reply>,
    pace: Pace,
    after: Duration,
    mut headers: Vec<(&'static str, String)>,
    mut faults: Vec<Fault>,
) -> Answer {
    let events = Box::new(Events::new(Arc::clone(&reply), pace));
    let after = after + pace.head;
    if valid.stream {
        headers.push(("content-type", "text/event-stream; charset=utf-8".to_owned()));
        headers.push(("cache-control", "no-cache".to_owned()));
        let body = Body::Stream { reply, events, ping: pace.ping };
        return Answer { status: 200, headers, body, after, faults, refusal: None };
    }
    headers.push(("content-type", "application/json".to_owned()));
    let mut bytes = Bytes::from(document::whole(&reply).to_string());
    // The length is told in the head, so this is done before there is one.
    if faults.iter().any(|fault| matches!(fault, Fault::Garbage(_))) {
        bytes = garbled_body(&bytes);
        faults.retain(|fault| !matches!(fault, Fault::Garbage(_)));
    }
    let after = after + events.duration();
    Answer { status: 200, headers, body: Body::Whole { bytes, reply: Some(reply) }, after, faults, refusal: None }
}

/// Takes the delays before the head out of the faults and adds them up.
fn before_head(faults: &mut Vec<Fault>) -> Duration {
    let mut after = Duration::ZERO;
    faults.retain(|fault| match fault {
        Fault::SlowHead(span) => {
            after += *span;
            false
        }
        _ => true,
    });
    after
}

/// What faults of a stream are to a buffered answer: an `error` event is an error status, a stall is
/// a late head, an early end of the body a close. Added events have nowhere to be.
fn for_buffered(faults: Vec<Fault>) -> Vec<Fault> {
    let translate = |fault: Fault| match fault {
        Fault::ErrorEvent(_, kind) => {
            let status = match kind {
                "overloaded_error" => 529,
                "timeout_error" => 504,
                "rate_limit_error" => 429,
                "invalid_request_error" => 400,
                _ => 500,
            };
            Some(Fault::Status { status, retry_after_s: None })
        }
        Fault::Stall { span, .. } => Some(Fault::SlowHead(span)),
        Fault::Cut(Cut::End, place) => Some(Fault::Cut(Cut::Close, place)),
        Fault::Unknown(_) | Fault::Huge(..) | Fault::Duplicate(_) | Fault::Swap(_) => None,
        other => Some(other),
    };
    faults.into_iter().filter_map(translate).collect()
}

fn version(facts: &RequestFacts<'_>) -> Result<Version, Refusal> {
    let Some(text) = facts.header("anthropic-version") else {
        return Err(Refusal::invalid("anthropic-version: header is required"));
    };
    Version::parse(text)
        .ok_or_else(|| Refusal::invalid(format!("anthropic-version: \"{text}\" is not a valid version")))
}
