//! One turn: the message goes out, the answer comes in as it is made, and what it was is said.
//!
//! Each turn is sent with the number it must get (`tidegate-turn`). So it can be sent again whatever
//! became of it: the gateway gives the stored answer of a turn that is there, and never two turns of
//! one message. Once, a turn that broke before its first word is sent again without being asked.

use super::client::Ask;
use super::session::Session;
use super::show::{self, Told};
use super::stream::{Piece, Stream};
use super::trouble::Trouble;
use bytes::Bytes;
use serde_json::json;
use std::time::Duration;

/// How often it is looked whether a turn that was stopped has been kept, and what lies between: the
/// gateway notices at once who leaves, and writes within milliseconds.
const LOOKS_MAX: usize = 20;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How a turn ended; whatever there was to say about it has been said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With an answer.
    Whole,
    /// By the person.
    Stopped,
    /// By the person, who is leaving.
    Left,
    /// In any other way.
    Failed,
}

impl Session {
    /// Sends a message and shows its answer.
    pub(super) async fn turn(&mut self, text: &str) -> Ended {
        self.last = Some(text.to_owned());
        let body = self.body(text);
        let mut shown = false;
        let mut answered = self.attempt(&body, &mut shown).await;
        if matches!(answered, Err(Trouble::Broken(_))) && !shown {
            self.screen.note("the connection broke before an answer; asking once more");
            answered = self.attempt(&body, &mut shown).await;
        }
        let trouble = match answered {
            Ok(told) => {
                self.screen.note(&show::told(&told));
                return Ended::Whole;
            }
            Err(trouble) => trouble,
        };
        if trouble == Trouble::Stopped {
            self.screen.line_is_open();
            self.screen.note("stopped");
        } else {
            self.screen.warn(&trouble.to_string());
        }
        let kept = self.what_was_kept(shown, &trouble).await;
        match (trouble, kept) {
            (_, Err(Trouble::Stopped)) => Ended::Left,
            (Trouble::Stopped, _) => Ended::Stopped,
            (_, Ok(true)) => {
                self.screen.note("go on from there, or /again to ask anew");
                Ended::Failed
            }
            (trouble, _) => {
                self.screen.note(&trouble.advice());
                Ended::Failed
            }
        }
    }

    fn body(&self, text: &str) -> Bytes {
        let terms = &self.terms;
        let mut body = json!({
            "model": terms.model,
            "max_tokens": terms.max_tokens,
            "stream": true,
            "messages": [{"role": "user", "content": text}],
        });
        if let Some(system) = &terms.system {
            body["system"] = json!(system);
        }
        Bytes::from(body.to_string())
    }

    async fn attempt(&mut self, body: &Bytes, shown: &mut bool) -> Result<Told, Trouble> {
        let number = (self.turns + 1).to_string();
        let lines = [
            ("accept", "text/event-stream"),
            ("tidegate-conversation", self.conversation.as_str()),
            ("tidegate-turn", number.as_str()),
            ("tidegate-body", "new"),
        ];
        let clock = self.client.clock;
        let sent_at = clock.now();
        let ask = Ask::post("/v1/messages", &lines, body.clone());
        let mut stream = self.interrupts.or_stopped(self.client.stream(ask)).await?;
        let mut told = Told::default();
        let mut last = None;
        while let Some(pieces) = self.interrupts.or_stopped(stream.next()).await? {
            for piece in pieces {
                if matches!(piece, Piece::Text(_)) {
                    told.first_text.get_or_insert_with(|| clock.now().since(sent_at));
                }
                *shown = true;
                self.show_piece(&piece, last.as_ref());
                last = Some(piece);
            }
        }
        self.take(&stream, &mut told);
        Ok(told)
    }

    fn show_piece(&mut self, piece: &Piece, last: Option<&Piece>) {
        match piece {
            Piece::Text(text) => self.screen.answer(text),
            Piece::Thinking if last == Some(&Piece::Thinking) => {}
            Piece::Thinking => self.screen.note("thinking..."),
            Piece::Block(name) => self.screen.note(&format!("[{name}]")),
        }
    }

    /// What a whole answer says of itself.
    fn take(&mut self, stream: &Stream, told: &mut Told) {
        let header = |name| stream.head.headers.text(name);
        told.turn = header("tidegate-turn").and_then(|n| n.parse().ok());
        told.is_replayed = header("tidegate-replayed") == Some("true");
        told.usage = stream.tap.usage;
        told.stop_reason = stream.tap.stop_reason.as_deref().map(str::to_owned);
        self.turns = told.turn.unwrap_or(self.turns + 1);
        if let Some(other) = header("tidegate-conversation").filter(|id| *id != self.conversation) {
            self.conversation = other.to_owned();
            self.screen.note(&format!("the conversation goes on as {other}"));
        }
    }

    /// Finds out and says whether anything is kept of a turn that did not end well, and learns how
    /// many turns there are. `shown` says whether anything of its answer was.
    async fn what_was_kept(&mut self, shown: bool, trouble: &Trouble) -> Result<bool, Trouble> {
        match trouble {
            Trouble::Foreign(_) | Trouble::Unreachable(_) => return Ok(false),
            // Refused before there was an answer: but turns may have come that this chat did not make.
            Trouble::Refused { status, .. } if *status != 200 => return self.look().await.map(|_| false),
            Trouble::Stopped | Trouble::Broken(_) | Trouble::Refused { .. } => {}
        }
        let number = self.turns + 1;
        for _ in 0..if shown { LOOKS_MAX } else { LOOKS_MAX / 4 } {
            if let Some(turn) = self.turn_numbered(number).await? {
                self.turns = number;
                self.screen.note(&match turn["status"].as_str() {
                    Some("interrupted") => format!("turn {number} is kept as interrupted, with what came of it"),
                    _ => format!("turn {number} had ended already and is kept whole: /turns 1"),
                });
                return Ok(true);
            }
            let clock = self.client.clock;
            let pause = async {
                clock.sleep_until(clock.now() + LOOK_EVERY).await;
                Ok(())
            };
            self.interrupts.or_stopped(pause).await?;
        }
        self.screen.note("nothing of it was kept");
        Ok(false)
    }
}
