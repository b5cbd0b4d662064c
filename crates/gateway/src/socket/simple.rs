//! The simple dialect: prompts one after another on one socket, answered in text.

use super::asking::ask;
use super::open::Opened;
use crate::answer::{Trouble, answer};
use crate::plane::Plane;
use crate::streams::{News, Reader, StreamTrouble};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use tidegate_base::Moment;
use tidegate_transport::websocket::{Message, Socket};
use tidegate_wire::dialect::simple::{Answer, Prompt, WAITING_PROMPTS_MAX, write_completion};
use tidegate_wire::error::{ErrorBody, ErrorType};
use tidegate_wire::event::{Kind, Tap};
use tidegate_wire::http::Headers;
use tidegate_wire::websocket::CloseCode;

/// Unwritten bytes past which no more is written.
const AHEAD_BYTES: usize = 64 * 1024;

/// A prompt that waits for its turn, or what is the matter with it.
enum Waiting {
    Ask { body: Vec<u8>, conversation: Option<String> },
    Wrong(ErrorBody),
}

/// The answer under way.
struct Current {
    reader: Reader,
    tap: Tap,
}

/// One socket's prompts.
pub(super) struct Simple {
    once: bool,
    waiting: VecDeque<Waiting>,
    current: Option<Current>,
    opened: Option<CloseCode>,
}

impl Simple {
    pub(super) fn new(once: bool) -> Self {
        Simple { once, waiting: VecDeque::new(), current: None, opened: None }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.waiting.is_empty() && self.current.is_none()
    }

    pub(super) fn hear(&mut self, plane: &Arc<Plane>, message: Message<'_>) {
        let settings = &plane.house.settings.sockets;
        let Message::Text(text) = message else {
            self.opened = Some(CloseCode::UNSUPPORTED);
            return;
        };
        let waiting = match Prompt::read(text) {
            // The first of those that came at once is not waiting, but not begun either.
            Ok(_) if self.waiting.len() >= WAITING_PROMPTS_MAX + usize::from(self.current.is_none()) => {
                Waiting::Wrong(wrong(format!("{WAITING_PROMPTS_MAX} prompts wait already; send this one later")))
            }
            Ok(prompt) => Waiting::Ask {
                body: prompt.body(&settings.model, settings.max_tokens),
                conversation: prompt.conversation.map(|c| c.into_owned()),
            },
            Err(bad) => Waiting::Wrong(wrong(bad.text)),
        };
        // What cannot be asked is answered in its turn, but for what does not even fit.
        if self.waiting.len() < 2 * WAITING_PROMPTS_MAX {
            self.waiting.push_back(waiting);
        } else {
            self.opened = Some(CloseCode::POLICY);
        }
    }

    pub(super) fn speak(
        &mut self,
        plane: &Arc<Plane>,
        opened: &Opened,
        cx: &Context<'_>,
        socket: &mut Socket,
    ) -> (Moment, bool) {
        if let Some(code) = self.opened {
            let why = match code {
                CloseCode::UNSUPPORTED => "prompts are messages of text",
                _ => "far more prompts than may wait",
            };
            socket.close(code, why);
        }
        while socket.is_open() {
            if socket.unwritten() >= AHEAD_BYTES {
                return (Moment::NEVER, true);
            }
            let Some(current) = &mut self.current else {
                match self.waiting.pop_front() {
                    None => break,
                    Some(Waiting::Wrong(body)) => self.say(socket, Answer::Error(body)),
                    Some(Waiting::Ask { body, conversation }) => match begin(plane, opened, &body, conversation) {
                        Ok(reader) => self.current = Some(Current { reader, tap: Tap::new() }),
                        Err(trouble) => self.say(socket, Answer::Error(answer(&trouble).body)),
                    },
                }
                continue;
            };
            let (mut text, mut error, mut event) = (Vec::new(), None, Vec::new());
            let polled = current.reader.poll_next(cx, true, &mut |item, _| {
                event.clear();
                item.write_event(&mut event);
                if item.kind == Kind::Error {
                    error = ErrorBody::read(&item.data());
                } else {
                    // It went through the path; what the tap makes of it is of no interest here.
                    let _ = current.tap.see(&event);
                    write_completion(&mut text, &event);
                }
            });
            let said = match polled {
                Poll::Pending => break,
                Poll::Ready(Ok(News::Head(_) | News::Recovered(..) | News::Held)) => continue,
                Poll::Ready(Ok(News::Event)) => match error {
                    Some(body) => Answer::Error(body),
                    None => {
                        if !text.is_empty() {
                            socket.send(&text);
                        }
                        continue;
                    }
                },
                Poll::Ready(Ok(News::Whole(_, body))) => {
                    let unread = || ErrorBody::new(ErrorType::Api, "upstream_refused", "the upstream refused this");
                    Answer::Error(ErrorBody::read(&body).unwrap_or_else(unread))
                }
                Poll::Ready(Ok(News::Ended(_))) => {
                    let stop_reason = current.tap.stop_reason.take().map(|r| r.into_string().into());
                    Answer::Done { stop_reason, usage: current.tap.usage }
                }
                Poll::Ready(Err(StreamTrouble::Gone)) => Answer::Error(answer(&StreamTrouble::SlowReader.into()).body),
                Poll::Ready(Err(trouble)) => Answer::Error(answer(&trouble.into()).body),
            };
            self.current = None;
            self.say(socket, said);
        }
        (Moment::NEVER, false)
    }

    /// A prompt's last word.
    fn say(&mut self, socket: &mut Socket, said: Answer<'_>) {
        let mut text = Vec::new();
        said.write(&mut text);
        socket.send(&text);
        if self.once {
            socket.close(CloseCode::NORMAL, "once");
        }
    }
}

fn begin(plane: &Arc<Plane>, opened: &Opened, body: &[u8], conversation: Option<String>) -> Result<Reader, Trouble> {
    let headers = Headers::from_pairs(conversation.map(|id| ("tidegate-conversation", id)));
    ask(plane, opened, body, &headers)
}

fn wrong(text: String) -> ErrorBody {
    answer(&Trouble::Frame(text)).body
}
