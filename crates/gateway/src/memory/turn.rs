//! A turn under way: held from the moment its conversation is its own until it is kept or gone.
//!
//! ```text
//!            ┌── answered whole ──▶ kept          on the disk before the client sees the end
//! under way ─┼── broke off after content ──▶ kept as interrupted, as far as it was passed on
//!            └── anything else ──▶ as if it had never been asked
//! ```
//! The last is what dropping one means: its messages are taken out of memory, and the log never saw
//! them.

use super::TurnTrouble;
use super::fit::Gauge;
use super::masking;
use super::shelf::Slot;
use super::summarise::{self, Ahead};
use super::talk::Talk;
use crate::house::House;
use crate::settle::Account;
use tidegate_base::ByteLease;
use tidegate_conversation::window::View;
use tidegate_store::{Address, NewTurn, Status, StoreError, TokenCounts, TurnContent};
use tidegate_wire::assemble::Assembler;
use tidegate_wire::http::ResponseHead;
use tidegate_wire::usage::Usage;
use tokio::sync::OwnedMutexGuard;

/// A whole answer that waits for its turn to be kept.
pub(crate) enum Heard {
    /// All but its last event was passed on.
    Stream {
        /// The last event.
        end: Vec<u8>,
        /// The message.
        message: Vec<u8>,
    },
    /// Nothing of it was.
    Whole {
        head: ResponseHead,
        /// Whether it was put together from a stream, and the head was that stream's.
        assembled: bool,
        message: Vec<u8>,
        lease: ByteLease,
    },
}

impl Heard {
    fn message(&self) -> &[u8] {
        match self {
            Heard::Stream { message, .. } | Heard::Whole { message, .. } => message,
        }
    }
}

/// What a turn is asked with; made by `recall`.
pub(super) struct Asked {
    /// The new messages, a JSON array.
    pub(super) messages: Vec<u8>,
    /// What the body is known by again.
    pub(super) hash: [u8; 32],
    pub(super) end_user: Option<String>,
    pub(super) model: String,
    /// `tidegate-request-id`.
    pub(super) request: String,
    pub(super) gauge: Gauge,
    /// Messages there were before.
    pub(super) before: usize,
    /// The view of the window it is asked with.
    pub(super) view: View,
    /// Tokens of the request, estimated and not corrected.
    pub(super) tokens: u64,
    /// What is kept of the request if a summary may be due after it.
    pub(super) ahead: Option<Ahead>,
}

/// A turn under way.
pub(crate) struct Turn {
    pub(super) address: Address,
    /// Its number, if all goes well.
    pub(crate) number: u32,
    /// Taken back when it is dropped before it was kept.
    pub(super) talk: OwnedMutexGuard<Option<Talk>>,
    /// Where it lies; kept here, it stays on the shelf.
    pub(super) _slot: Slot,
    pub(super) asked: Asked,
    /// What was passed on so far, while it is.
    pub(crate) said: Option<Assembler>,
    pub(super) kept: bool,
}

impl Turn {
    /// The conversation's id.
    pub(crate) fn conversation(&self) -> &str {
        self.address.name()
    }

    /// Writes the turn to the log and waits until it is on the disk. Afterwards it is over, well or
    /// not.
    pub(crate) async fn keep(&mut self, house: &House, heard: &Heard, account: &Account) -> Result<(), TurnTrouble> {
        self.write(house, heard.message().to_vec(), Status::Complete, account).await
    }

    /// Keeps what was passed on of an answer that broke off; whether that was anything.
    pub(crate) async fn interrupt(&mut self, house: &House, account: &Account) -> Result<bool, TurnTrouble> {
        let said = self.said.take().and_then(Assembler::finish_broken);
        match said {
            Some(message) if !self.kept => {
                self.write(house, message, Status::Interrupted, account).await.map(|()| true)
            }
            _ => Ok(false),
        }
    }

    async fn write(
        &mut self,
        house: &House,
        answer: Vec<u8>,
        status: Status,
        account: &Account,
    ) -> Result<(), TurnTrouble> {
        let memory = &house.memory;
        // Out of its place until it is whole again: should nobody wait for the disk any more, whoever
        // comes next reads the log.
        let Some(mut talk) = self.talk.take() else { return Err(TurnTrouble::Unknown) };
        let vault = masking::fresh(house, &mut talk)?;
        // Of a mended answer all replies are the turn's, and what they had as input is no measure.
        let usage = if account.mended > 0 { &account.usage } else { &account.usage_of_last };
        if status == Status::Complete && account.mended == 0 {
            let (estimated, actual) = (self.asked.tokens, total_input(usage));
            house.metrics.window_counted(estimated as f64 * talk.ratio(), actual);
            talk.learn(estimated, actual);
        }
        let stop_reason = account.stop_reason.as_deref().filter(|_| status == Status::Complete);
        let content = TurnContent {
            status,
            request: self.asked.messages.clone(),
            answer: Some(answer.clone()),
            request_hash: Some(self.asked.hash),
            request_id: Some(self.asked.request.clone()),
            end_user: self.asked.end_user.clone(),
            model: Some(self.asked.model.clone()),
            stop_reason: stop_reason.map(str::to_owned),
            tokens: counts(usage),
        };
        let new = NewTurn {
            address: self.address.clone(),
            expected: Some(self.number),
            now_ms: memory.now_ms(),
            content,
            window: talk.state(&self.asked.view),
            vault,
        };
        self.kept = true;
        let began = house.clock.now();
        let appended = memory.store()?.append(new).await;
        house.metrics.turn_kept_after(house.clock.now().since(began));
        let done = match appended {
            Ok(_) => talk.push_answer(&answer, &self.asked.gauge).map_err(StoreError::Corrupt),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => {
                talk.view = std::mem::take(&mut self.asked.view);
                let paused = stop_reason == Some("pause_turn");
                talk.ended(self.number, Some(self.asked.hash), status, paused);
                if let Some(ahead) = self.asked.ahead.take().filter(|_| status == Status::Complete) {
                    summarise::after(house, &mut talk, &self.address, &self.asked.model, &self.asked.gauge, ahead);
                }
                memory.shelf.weigh(&self.address, talk.bytes());
                *self.talk = Some(talk);
                Ok(())
            }
            Err(error) => {
                memory.shelf.weigh(&self.address, 0);
                Err(error.into())
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.kept
            && let Some(talk) = self.talk.as_mut()
        {
            talk.take_back(self.asked.before);
        }
    }
}

/// All input of a request, however it was billed.
fn total_input(usage: &Usage) -> u64 {
    usage.input.saturating_add(usage.cache_creation).saturating_add(usage.cache_read)
}

fn counts(usage: &Usage) -> TokenCounts {
    // More than the log can count is no count.
    let count = |n: u64| i64::try_from(n).is_ok().then_some(n);
    TokenCounts {
        input: count(usage.input),
        output: count(usage.output),
        cache_creation: count(usage.cache_creation),
        cache_read: count(usage.cache_read),
    }
}
