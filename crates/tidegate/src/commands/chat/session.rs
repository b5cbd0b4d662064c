//! A conversation as the chat knows it: its name, how many turns it has, and the doors to it.

use super::client::{Ask, Client, percent_encoded};
use super::screen::Screen;
use super::show;
use super::trouble::Trouble;
use super::window;
use crate::commands::{Failed, key};
use serde_json::{Value, json};
use std::future::Future;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Characters of a message that `/turns` shows.
const SHOWN_CHARS_MAX: usize = 4_000;
/// A made-up name that is taken already is drawn again so often; one in ten million is.
const DRAWS_MAX: usize = 5;

/// Ctrl-C, and what ends the chat from outside: SIGTERM, and the terminal's end.
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    /// Whether the chat has to end: from then on everything is interrupted at once.
    pub(super) is_over: bool,
}

impl Interrupts {
    /// Listens from now on; none of them ends the process any more.
    pub(super) fn of_process() -> Result<Self, Failed> {
        let listen = |kind| signal(kind).map_err(Failed::because);
        Ok(Interrupts {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            is_over: false,
        })
    }

    /// The next one. Cancel-safe.
    pub(super) async fn next(&mut self) {
        if self.is_over {
            return;
        }
        let was_last = tokio::select! {
            biased;
            Some(()) = self.terminate.recv() => true,
            Some(()) = self.hangup.recv() => true,
            Some(()) = self.interrupt.recv() => false,
            // The runtime delivers no signals any more, so there will be none.
            else => std::future::pending().await,
        };
        self.is_over = was_last;
    }

    /// What `work` gives, unless the person wants no more of it.
    pub(super) async fn or_stopped<T>(&mut self, work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
        tokio::select! {
            biased;
            () = self.next() => Err(Trouble::Stopped),
            done = work => done,
        }
    }
}

/// What goes with every turn.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// `--model`, or that of the last turn.
    pub(super) model: String,
    /// `--system`
    pub(super) system: Option<String>,
    /// `--max-tokens`
    pub(super) max_tokens: u32,
}

/// A chat under way.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) screen: Screen,
    pub(super) interrupts: Interrupts,
    /// The conversation's id.
    pub(super) conversation: String,
    /// The number of its last turn, 0 where there is none.
    pub(super) turns: u64,
    pub(super) terms: Terms,
    /// The last message, for `/again`.
    pub(super) last: Option<String>,
}

impl Session {
    fn path(&self, rest: &str) -> String {
        format!("/v1/conversations/{}{rest}", percent_encoded(&self.conversation))
    }

    /// Asks a door of this conversation.
    async fn door(&mut self, method: &'static str, rest: &str) -> Result<Value, Trouble> {
        let path = self.path(rest);
        self.interrupts.or_stopped(self.client.json(Ask::bare(method, &path))).await
    }

    /// Looks how many turns there are; false if there is no such conversation.
    pub(super) async fn look(&mut self) -> Result<bool, Trouble> {
        let found = self.door("GET", "").await;
        self.turns = match &found {
            Ok(conversation) => conversation["turns"].as_u64().unwrap_or_default(),
            Err(trouble) if trouble.is_no_conversation() => 0,
            Err(trouble) => return Err(trouble.clone()),
        };
        Ok(found.is_ok())
    }

    /// Takes a name that nobody has.
    pub(super) async fn take_new_name(&mut self) -> Result<(), Trouble> {
        for _ in 0..DRAWS_MAX {
            let dice = key::random().map_err(|e| Trouble::Broken(e.to_string()))?;
            self.conversation = name(u32::from_le_bytes(dice));
            if !self.look().await? {
                return Ok(());
            }
        }
        Err(Trouble::Broken("no new name was found; give one with --conversation".to_owned()))
    }

    /// The last `count` turns, oldest first.
    pub(super) async fn last_turns(&mut self, count: u64) -> Result<Vec<Value>, Trouble> {
        self.look().await?;
        if self.turns == 0 {
            return Ok(Vec::new());
        }
        let from = self.turns.saturating_sub(count) + 1;
        let page = self.door("GET", &format!("/turns?from={from}&limit={count}")).await?;
        Ok(page["data"].as_array().cloned().unwrap_or_default())
    }

    /// The turn with this number, if it is there.
    pub(super) async fn turn_numbered(&mut self, number: u64) -> Result<Option<Value>, Trouble> {
        match self.door("GET", &format!("/turns?from={number}&limit=1")).await {
            Ok(page) => Ok(page["data"].as_array().into_iter().flatten().find(|t| t["number"] == number).cloned()),
            Err(trouble) if trouble.is_no_conversation() => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Shows turns, each message at most so many characters.
    pub(super) fn show(&mut self, turns: &[Value], chars_max: usize) {
        for turn in turns {
            let (heading, lines) = show::turn(turn, chars_max);
            self.screen.heading(&heading);
            lines.iter().for_each(|line| self.screen.line(line));
        }
    }

    /// `/turns N`
    pub(super) async fn show_turns(&mut self, count: u64) -> Result<(), Trouble> {
        let turns = self.last_turns(count).await?;
        if turns.is_empty() {
            self.screen.note("no turns yet");
        }
        self.show(&turns, SHOWN_CHARS_MAX);
        Ok(())
    }

    /// `/window`
    pub(super) async fn show_window(&mut self) -> Result<(), Trouble> {
        if !self.look().await? {
            self.screen.note("no turns yet: nothing but your next message would be sent");
            return Ok(());
        }
        let Terms { model, max_tokens, .. } = &self.terms;
        let rest = format!("/window?model={}&max_tokens={max_tokens}", percent_encoded(model));
        let window = self.door("GET", &rest).await?;
        let (heading, lines) = window::account(&window);
        self.screen.heading(&heading);
        lines.iter().for_each(|line| self.screen.line(line));
        Ok(())
    }

    /// `/fork [ID]`: a copy, in which the chat goes on.
    pub(super) async fn fork(&mut self, id: Option<String>) -> Result<(), Trouble> {
        let (here, path) = (self.conversation.clone(), self.path("/fork"));
        let id = match id {
            Some(id) => id,
            None => {
                let turns = self.turns;
                let drawn = self.take_new_name().await;
                self.turns = turns;
                let id = std::mem::replace(&mut self.conversation, here.clone());
                drawn.map(|()| id)?
            }
        };
        let ask = Ask::post(&path, &[], json!({ "id": id }).to_string());
        let forked = self.interrupts.or_stopped(self.client.json(ask)).await?;
        self.conversation = forked["id"].as_str().unwrap_or(&id).to_owned();
        self.turns = forked["turns"].as_u64().unwrap_or(self.turns);
        self.last = None;
        self.screen.note(&format!(
            "now in {}, a copy with {}; {here} stays as it is",
            self.conversation,
            show::turns(self.turns)
        ));
        Ok(())
    }

    /// `/delete`, once the person is sure. The chat goes on in a new conversation.
    pub(super) async fn delete(&mut self) -> Result<(), Trouble> {
        let deleted = self.door("DELETE", "").await?;
        let (turns, bytes) = (deleted["turns"].as_u64(), deleted["bytes"].as_u64());
        let gone = format!(
            "{} is gone: {}, {} bytes",
            self.conversation,
            show::turns(turns.unwrap_or(self.turns)),
            show::number(bytes.unwrap_or_default())
        );
        self.screen.note(&gone);
        self.last = None;
        self.turns = 0;
        self.take_new_name().await?;
        self.screen.note(&format!("now in {}, which is new", self.conversation));
        Ok(())
    }
}

/// A name for a conversation that can be read out: `quiet-harbour-4821`.
fn name(dice: u32) -> String {
    const HOW: [&str; 32] = [
        "amber", "brisk", "calm", "clear", "copper", "early", "eastern", "fair", "gentle", "golden", "green", "high",
        "keen", "late", "light", "long", "low", "misty", "new", "northern", "old", "open", "pale", "quiet", "rising",
        "salt", "silver", "slow", "southern", "still", "warm", "western",
    ];
    const WHAT: [&str; 32] = [
        "anchor", "bay", "beacon", "bridge", "buoy", "canal", "cape", "channel", "cliff", "coast", "cove", "current",
        "dune", "ebb", "ferry", "flood", "gull", "harbour", "island", "jetty", "lagoon", "lamp", "marsh", "mole",
        "pier", "quay", "reef", "sail", "shoal", "sluice", "strand", "tide",
    ];
    let (how, what, number) = (dice & 31, dice >> 5 & 31, (dice >> 10) % 10_000);
    format!("{}-{}-{number:04}", HOW[how as usize], WHAT[what as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_and_a_number() {
        assert_eq!(name(0), "amber-anchor-0000");
        assert_eq!(name(u32::MAX), "western-tide-4303");
        let some: std::collections::BTreeSet<_> = (0..10_000u32).map(|n| name(n.wrapping_mul(2_654_435_761))).collect();
        assert!(some.len() > 9_900, "{}", some.len());
        assert!(some.iter().all(|name| show::shell_word(name) == *name && percent_encoded(name) == *name));
    }
}
