//! One answer on a socket: the model's steps, turned into what is sent of them.

use super::say::{Said, Voice};
use crate::SharedSimulator;
use serde_json::{Value, json};
use tidegate_base::Moment;
use tidegate_simulator::{Action, Exchange, Opening, Progress, Step};

/// What a step comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Out {
    Say(Said),
    /// The beginning of a message whose rest never comes.
    Torn(String),
    /// A close frame with this code.
    CloseCode(u16),
    /// The socket is closed without one.
    Close,
    /// Our half of it is.
    HalfClose,
    /// It is dropped as it is.
    Truncate,
    Reset,
}

/// An answer under way.
pub(super) struct Live {
    pub(super) exchange: Exchange,
    voice: Voice,
    /// When its head is due.
    head_due: Moment,
    opened: bool,
    next: Option<Step>,
    /// How far it has come; the playback is a step ahead.
    pub(super) sent: Progress,
    credit: Option<i64>,
}

impl Live {
    pub(super) fn new(exchange: Exchange, voice: Voice, credit: Option<i64>, now: Moment) -> Self {
        let after = match &exchange.opening {
            Opening::Head(head) => head.after,
            Opening::Reset { after } | Opening::Close { after } => *after,
        };
        Live { exchange, voice, head_due: now + after, opened: false, next: None, sent: Progress::default(), credit }
    }

    /// When there is something to be done for it; without credit there is not.
    pub(super) fn due(&self) -> Option<Moment> {
        if !self.opened {
            return Some(self.head_due);
        }
        let step = self.next.as_ref().filter(|_| self.credit.is_none_or(|credit| credit > 0))?;
        Some(self.head_due + step.at)
    }

    /// May it send more? False if it counts no credit.
    pub(super) fn add_credit(&mut self, bytes: i64) -> bool {
        self.credit = self.credit.map(|credit| credit.saturating_add(bytes));
        self.credit.is_some()
    }

    /// The last word of an answer that its client gave up.
    pub(super) fn cancelled(&self) -> Said {
        self.voice.end("cancelled")
    }

    /// Does what is due.
    pub(super) fn advance(&mut self, simulator: &SharedSimulator, now: Moment) -> Vec<Out> {
        let out = if self.opened { self.step() } else { self.open(simulator, now) };
        let ordinal = self.exchange.ordinal;
        self.sent = self.exchange.playback.progress();
        if let Some(message) = simulator.with(|simulator| simulator.progress(now, ordinal, self.sent)) {
            self.exchange.playback.run_out(message);
        }
        self.next = self.exchange.playback.next();
        let cost: i64 = out.iter().map(|out| if let Out::Say(said) = out { said.cost } else { 0 }).sum();
        self.credit = self.credit.map(|credit| credit - cost);
        out
    }

    fn open(&mut self, simulator: &SharedSimulator, now: Moment) -> Vec<Out> {
        self.opened = true;
        simulator.with(|simulator| simulator.head_leaves(now, &mut self.exchange));
        let head = match &self.exchange.opening {
            Opening::Head(head) => head.clone(),
            Opening::Reset { .. } => return vec![Out::Reset],
            Opening::Close { .. } => return vec![Out::Close],
        };
        if head.status == 200 {
            return self.voice.open(&head.headers).map(Out::Say).into_iter().collect();
        }
        let mut body = Vec::new();
        for step in self.exchange.playback.by_ref() {
            if let Action::Send(bytes) = step.action {
                body.extend_from_slice(&bytes);
            }
        }
        let edge = || json!({"error": {"type": "api_error", "message": "The upstream is not there"}});
        let envelope: Value = serde_json::from_slice(&body).unwrap_or_else(|_| edge());
        let retry_after = head.headers.iter().find(|(name, _)| *name == "retry-after");
        let retry_after_s = retry_after.and_then(|(_, seconds)| seconds.parse().ok());
        vec![Out::Say(self.voice.error(head.status, &envelope, retry_after_s))]
    }

    fn step(&mut self) -> Vec<Out> {
        let Some(step) = self.next.take() else { return vec![Out::Close] };
        match step.action {
            Action::Send(bytes) => self.voice.bytes(&bytes).into_iter().map(Out::Say).collect(),
            Action::Torn { bytes, .. } => vec![Out::Torn(self.voice.torn(&bytes))],
            Action::End => vec![Out::Say(self.voice.end("stop"))],
            Action::Close => vec![Out::Close],
            Action::HalfClose => vec![Out::HalfClose],
            Action::Truncate => vec![Out::Truncate],
            Action::Reset => vec![Out::Reset],
            Action::GoAway { error: false } => vec![Out::CloseCode(1001)],
            Action::GoAway { error: true } => vec![Out::CloseCode(1011)],
            Action::CloseCode(code) => vec![Out::CloseCode(code)],
        }
    }
}
