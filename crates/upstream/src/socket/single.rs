//! The simple dialect from a client's side: one prompt, its answer told as a stream of events.

use super::inbox::{Fate, Inbox};
use super::link::Shared;
use super::many::head;
use bytes::BytesMut;
use std::sync::Arc;
use tidegate_wire::dialect::simple::{Answer, Retelling};
use tidegate_wire::error::ErrorType;

/// The prompt that is being answered.
struct Current {
    key: u64,
    inbox: Arc<Inbox>,
    retelling: Retelling,
}

/// One socket's prompts, one after another.
pub(super) struct Single {
    /// What makes its messages' ids its own.
    name: u64,
    current: Option<Current>,
    out: BytesMut,
}

impl Single {
    /// A socket without a prompt; `name` is no other socket's.
    pub(super) fn new(name: u64) -> Self {
        Single { name, current: None, out: BytesMut::new() }
    }

    /// A prompt goes out; `model` is the one that is said to answer.
    pub(super) fn begin(&mut self, key: u64, model: &str, inbox: &Arc<Inbox>) {
        let retelling = Retelling::new(&format!("msg_{:016x}{key}", self.name), model);
        self.current = Some(Current { key, inbox: Arc::clone(inbox), retelling });
    }

    /// Bytes of the answer that nobody has read.
    pub(super) fn unread(&self) -> u64 {
        self.current.as_ref().map_or(0, |current| current.inbox.unread())
    }

    /// Takes a message in; what is said while nothing was asked means nothing.
    pub(super) fn hear(&mut self, shared: &Shared, text: &str) -> Result<(), &'static str> {
        let Some(answer) = Answer::read(text).map_err(|e| e.0)? else { return Ok(()) };
        let Some(current) = &mut self.current else { return Ok(()) };
        shared.proves();
        if !current.inbox.is_open() {
            if let Answer::Error(error) = &answer {
                let status = ErrorType::of_name(&error.kind).unwrap_or(ErrorType::Api).status();
                current.inbox.opens(head(status, [("content-type", "application/json")]));
                current.inbox.push(&error.envelope(None));
                shared.ended(current.key, Fate::Whole);
                self.current = None;
                return Ok(());
            }
            current.inbox.opens(head(200, [("content-type", "text/event-stream; charset=utf-8")]));
        }
        current.retelling.tell(&answer, &mut self.out);
        current.inbox.push(&self.out);
        self.out.clear();
        if current.retelling.is_over() {
            shared.ended(current.key, Fate::Whole);
            self.current = None;
        }
        Ok(())
    }
}
