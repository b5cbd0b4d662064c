//! The `simulate:` request header: how one request asks for its own pace and its own faults.
//!
//! `simulate: output_tokens=2000, first_ms=100, event_ms=20, fault=reset-at:300`. Items are split at
//! commas; `fault` may come several times; the header may too. What the header says overrules the
//! scenario for this request, and if it names any fault, the scenario's own faults leave the request
//! alone (`fault=none` asks for just that). An item that cannot be read refuses the request: a test
//! must not pass because its directive had a typing error.

use crate::continuation::Forced;
use crate::envelope::Refusal;
use crate::fault::Fault;
use crate::pace::{Pace, Range};
use std::time::Duration;

/// Most faults one request may ask for: more than there are kinds of them is a mistake.
pub(crate) const FAULTS_MAX: usize = 32;

/// What one request asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Directives {
    head: Option<Duration>,
    first: Option<Duration>,
    event: Option<Duration>,
    ping: Option<Duration>,
    tokens_per_second: Option<u64>,
    jitter_percent: Option<u64>,
    chars: Option<Range>,
    output_tokens: Option<Range>,
    thinking_tokens: Option<Range>,
    /// Another seed for this request's reply.
    pub(crate) seed: Option<u64>,
    /// How long a batch takes.
    pub(crate) batch: Option<Duration>,
    /// Answer with a call of this tool.
    pub(crate) tool: Option<String>,
    /// Stop with `refusal` or `pause_turn` instead of `end_turn`.
    pub(crate) stop_reason: Option<&'static str>,
    /// Blemishes of this answer, if it goes on with another.
    pub(crate) continuation: Option<Forced>,
    /// The faults are for the first so many requests that ask the same.
    pub(crate) attempts: Option<u64>,
    /// `Some` if the header spoke of faults at all.
    pub(crate) faults: Option<Vec<Fault>>,
}

impl Directives {
    /// Reads all `simulate` headers of a request.
    pub(crate) fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Result<Self, Refusal> {
        let mut directives = Directives::default();
        for item in headers.flat_map(|header| header.split(',')).map(str::trim).filter(|item| !item.is_empty()) {
            directives.read(item).map_err(|why| Refusal::invalid(format!("simulate: {item}: {why}")))?;
        }
        Ok(directives)
    }

    fn read(&mut self, item: &str) -> Result<(), String> {
        let (key, value) = item.split_once('=').ok_or("write key=value")?;
        let (key, value) = (key.trim(), value.trim());
        let number = || value.parse::<u64>().map_err(|_| "the value is a whole number".to_owned());
        let millis = || number().map(|ms| Some(Duration::from_millis(ms)));
        let range = || Range::parse(value).map(Some).ok_or_else(|| "the value is N or N-M".to_owned());
        match key {
            "head_ms" => self.head = millis()?,
            "first_ms" => self.first = millis()?,
            "event_ms" => self.event = millis()?,
            "ping_ms" => self.ping = millis()?.filter(|ping| !ping.is_zero()),
            "tokens_per_second" => self.tokens_per_second = Some(number()?.max(1)),
            "jitter_percent" => self.jitter_percent = Some(number()?.min(100)),
            "chars" => self.chars = range()?,
            "output_tokens" => self.output_tokens = range()?,
            "thinking_tokens" => self.thinking_tokens = range()?,
            "batch_ms" => self.batch = millis()?,
            "seed" => self.seed = Some(number()?),
            "tool" => self.tool = Some(value.to_owned()),
            "stop_reason" => {
                let known = ["refusal", "pause_turn"].into_iter().find(|known| *known == value);
                self.stop_reason = Some(known.ok_or("only refusal and pause_turn can be asked for")?);
            }
            "continuation" => {
                let forced = Forced::parse(value);
                let forced =
                    forced.ok_or("the value is exact, or preamble, reopen, space, word, repeat:N, joined by +")?;
                self.continuation = Some(forced);
            }
            "attempts" => self.attempts = Some(number()?),
            "fault" => {
                let faults = self.faults.get_or_insert_default();
                if value != "none" {
                    if faults.len() >= FAULTS_MAX {
                        return Err(format!("at most {FAULTS_MAX} faults"));
                    }
                    faults.push(value.parse().map_err(|error: crate::fault::FaultError| error.to_string())?);
                }
            }
            _ => return Err("unknown key; docs/simulator.md lists them".to_owned()),
        }
        Ok(())
    }

    /// The scenario's pace with this request's wishes in it.
    pub(crate) fn pace(&self, scenario: Pace) -> Pace {
        Pace {
            head: self.head.unwrap_or(scenario.head),
            first: self.first.unwrap_or(scenario.first),
            event: self.event.unwrap_or(scenario.event),
            tokens_per_second: match (self.tokens_per_second, self.event) {
                (Some(rate), _) => Some(rate),
                (None, Some(_)) => None,
                (None, None) => scenario.tokens_per_second,
            },
            jitter_percent: self.jitter_percent.unwrap_or(scenario.jitter_percent),
            ping: self.ping.unwrap_or(scenario.ping),
            chars: self.chars.unwrap_or(scenario.chars),
            output_tokens: self.output_tokens.unwrap_or(scenario.output_tokens),
            thinking_tokens: self.thinking_tokens.unwrap_or(scenario.thinking_tokens),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Cut, Place};

    #[test]
    fn a_header_overrules_only_what_it_names() {
        let directives =
            Directives::parse(["output_tokens=2000, first_ms=100,event_ms=20", "fault=reset-at:300"].into_iter())
                .unwrap();
        let scenario = Pace { tokens_per_second: Some(9), ..Pace::default() };
        let pace = directives.pace(scenario);
        assert_eq!(pace.output_tokens, Range::exactly(2_000));
        assert_eq!((pace.first, pace.event), (Duration::from_millis(100), Duration::from_millis(20)));
        assert_eq!((pace.tokens_per_second, pace.head), (None, scenario.head));
        assert_eq!(directives.faults, Some(vec![Fault::Cut(Cut::Reset, Place::Byte(300))]));
    }

    #[test]
    fn no_fault_is_something_that_can_be_asked_for() {
        assert_eq!(Directives::parse(["fault=none"].into_iter()).unwrap().faults, Some(vec![]));
        assert_eq!(Directives::parse(["seed=4"].into_iter()).unwrap().faults, None);
    }

    #[test]
    fn a_typing_error_refuses_the_request() {
        for bad in [
            "continuation=perfect",
            "attempts=first",
            "ouput_tokens=3",
            "first_ms=fast",
            "fault=explode",
            "chars",
            "stop_reason=end_turn",
        ] {
            let refusal = Directives::parse([bad].into_iter()).unwrap_err();
            assert_eq!(refusal.status, 400);
            assert!(refusal.message.starts_with(&format!("simulate: {bad}: ")), "{}", refusal.message);
        }
    }
}
