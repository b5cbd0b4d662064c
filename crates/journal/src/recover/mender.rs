//! The state machine of a reply that may be cut: events in, events that the client may see out.
//!
//! ```text
//!   feed ─▶ in order? ─┬─ passed on, with the client's block index ─▶ journal
//!                      ├─ held: calls until message_delta, thinking until it shows or ends
//!                      ├─ joined: a continuation's first text, through the seam
//!                      ├─ matched: the same reply again, as far as the client has it
//!                      └─ dropped: a second message_start, a second reply's thinking
//!   cut ─▶ what is held is dropped ─▶ Again | GoOn | Ended | GiveUp
//! ```

use crate::recover::has::{Has, What, added};
use crate::recover::request::continuation;
use crate::recover::rewrite::{block_stop, message_stop, text_delta, with_index, with_usage};
use crate::recover::{HELD_BYTES_MAX, Mode, Rules, Seam, Unmendable};
use bytes::Bytes;
use tidegate_wire::event::{Kind, output_twelfths};
use tidegate_wire::raw::RawObject;
use tidegate_wire::request::MessagesRequest;
use tidegate_wire::sse;
use tidegate_wire::usage::Usage;

/// What is to be done after a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the same request again, and feed what comes.
    Again,
    /// Send [`Mender::request`], and feed what comes.
    GoOn,
    /// Nothing: the message is whole. Its end was passed on.
    Ended,
    /// Tell the client that it broke off.
    GiveUp(Unmendable),
}

/// What is made of the block that is being fed.
#[derive(Debug)]
enum Fate {
    Pass,
    Drop,
    /// Held for its end, or for the message's. `shows`: passed on once thinking can be seen.
    Hold {
        shows: bool,
    },
    /// Through the seam, into the text that is open, or into one that `start` begins once something
    /// comes out.
    Join {
        seam: Seam,
        start: Option<Box<[u8]>>,
        half: Vec<u8>,
    },
    /// Against what is left of a text the client has; whatever comes then is new, if it is `open`.
    Match {
        left: String,
        open: bool,
        half: Vec<u8>,
    },
}

/// Makes one message of several replies.
#[derive(Debug)]
pub struct Mender {
    rules: Rules,
    has: Has,
    fate: Option<Fate>,
    /// The upstream's index of the block that began last, and whether nothing of it came since.
    at: Option<u64>,
    fresh: bool,
    held: Vec<(Kind, Box<[u8]>)>,
    held_bytes: usize,
    /// Replies that were begun, this one included.
    segments: u32,
    /// Of these, asked for although the client had content.
    continuations: u32,
    /// Texts of this reply that have begun.
    texts: usize,
    /// The model was not shown the white space the last text ends in.
    trimmed: bool,
    /// Used by the replies before this one, and by this one.
    before: Usage,
    usage: Usage,
    twelfths: u64,
}

/// Where events go that the client may see.
type Pass<'p> = &'p mut dyn FnMut(Kind, &[u8]);

impl Mender {
    /// A mender of a message that has not begun.
    pub fn new(rules: Rules) -> Self {
        Mender {
            rules,
            has: Has::default(),
            fate: None,
            at: None,
            fresh: false,
            held: Vec::new(),
            held_bytes: 0,
            segments: 1,
            continuations: 0,
            texts: 0,
            trimmed: false,
            before: Usage::default(),
            usage: Usage::default(),
            twelfths: 0,
        }
    }

    /// Replies that the message is made of, so far.
    pub fn segments(&self) -> u32 {
        self.segments
    }

    /// What they used together. Of a reply that was cut the output is told by nobody: it is taken
    /// from the length of what came.
    pub fn usage(&self) -> Usage {
        sum(&self.before, &self.usage_so_far())
    }

    /// What it holds of memory for as long as it may have to mend: what is held, and the text the
    /// client has. While the same reply comes again, as much of that again, at most.
    pub fn bytes(&self) -> usize {
        let matched = if let Some(Fate::Match { left, .. }) = &self.fate { left.len() } else { 0 };
        self.held_bytes + self.has.bytes + matched
    }

    fn usage_so_far(&self) -> Usage {
        let told = self.usage;
        if self.has.totals { told } else { Usage { output: told.output.max(self.twelfths / 12), ..told } }
    }

    /// Takes in one whole event of the reply, of the kind a tap found. An `error` event is no part of
    /// a message, but a cut: it is not passed on.
    pub fn feed(&mut self, kind: Kind, event: &[u8], pass: Pass<'_>) -> Result<(), Unmendable> {
        match kind {
            Kind::Ping | Kind::Comment => pass(kind, event),
            Kind::Error => {}
            Kind::MessageStart => {
                self.take_usage(event, Some("message"));
                if !self.has.started {
                    self.put(kind, event, pass)?;
                }
            }
            Kind::BlockStart => self.begin(event, pass)?,
            Kind::BlockDelta => {
                self.twelfths += u64::from(output_twelfths(event));
                self.delta(event, pass)?;
            }
            Kind::BlockStop => self.end(event, pass)?,
            Kind::MessageDelta => {
                self.take_usage(event, None);
                self.totals(event, pass)?;
            }
            Kind::MessageStop => self.put(kind, event, pass)?,
            Kind::Other if self.held.is_empty() => pass(kind, event),
            Kind::Other => self.hold(kind, event, pass)?,
        }
        Ok(())
    }

    fn take_usage(&mut self, event: &[u8], inside: Option<&str>) {
        let data = sse::parts(event).data.unwrap_or_default();
        let object = RawObject::read(&data).ok();
        let object = match inside {
            Some(key) => object.and_then(|object| object.parse::<RawObject<'_>>(key)),
            None => object,
        };
        if let Some(usage) = object.and_then(|object| object.get("usage")) {
            self.usage.update(usage.get());
        }
    }

    /// Passes an event on, with the index its block has for the client.
    fn put(&mut self, kind: Kind, event: &[u8], pass: Pass<'_>) -> Result<(), Unmendable> {
        let index = match kind {
            Kind::BlockStart => {
                self.close(pass);
                Some(self.has.blocks)
            }
            Kind::BlockDelta | Kind::BlockStop => Some(self.has.blocks.checked_sub(1).ok_or(Unmendable::Broken)?),
            _ => None,
        };
        let event = match index {
            Some(index) => with_index(event, index).ok_or(Unmendable::Broken)?,
            None => event.into(),
        };
        self.has.see(kind, &event);
        pass(kind, &event);
        Ok(())
    }

    /// Ends the text that is open, if one is: something else begins, or nothing comes.
    fn close(&mut self, pass: Pass<'_>) {
        if self.has.open.is_some() {
            let stop = block_stop(self.has.blocks.saturating_sub(1));
            self.has.see(Kind::BlockStop, &stop);
            pass(Kind::BlockStop, &stop);
        }
    }

    fn begin(&mut self, event: &[u8], pass: Pass<'_>) -> Result<(), Unmendable> {
        let index = index(event);
        if self.fresh && self.at == index {
            // Said twice: taken for another block, it would be one without content.
            return Ok(());
        }
        (self.at, self.fresh) = (index, true);
        let what = What::begun_by(event).ok_or(Unmendable::Broken)?;
        let again = self.segments > 1 && self.has.blocks > 0;
        let holds = matches!(what, What::Call | What::Thinking) || (what == What::Text && !self.held.is_empty());
        let fate = match what {
            _ if self.has.unmendable == Some(Unmendable::TooLarge) => Fate::Pass,
            What::Thinking if again => Fate::Drop,
            What::Text if again && self.rules.mode == Mode::Restart && self.texts < self.has.texts.len() => {
                let left = self.has.texts[self.texts].text.clone();
                let open = self.has.is_in_text() && self.texts + 1 == self.has.texts.len();
                Fate::Match { left, open, half: Vec::new() }
            }
            What::Text if again && self.texts == 0 && self.rules.mode == Mode::Continue && self.held.is_empty() => {
                let tail = self.has.texts.last().map_or("", |last| last.text.as_str());
                let start = (!self.has.is_in_text()).then(|| event.into());
                Fate::Join { seam: Seam::new(tail, self.trimmed), start, half: Vec::new() }
            }
            _ if holds => Fate::Hold { shows: what == What::Thinking && !self.rules.holds_thinking },
            _ => Fate::Pass,
        };
        self.texts += usize::from(what == What::Text);
        match fate {
            Fate::Hold { .. } => self.hold(Kind::BlockStart, event, pass)?,
            Fate::Pass => {
                self.release(pass)?;
                self.put(Kind::BlockStart, event, pass)?;
            }
            _ => {}
        }
        // What is held may have become too much with its very first event.
        self.fate =
            Some(if self.held.is_empty() && holds && matches!(fate, Fate::Hold { .. }) { Fate::Pass } else { fate });
        Ok(())
    }

    fn delta(&mut self, event: &[u8], pass: Pass<'_>) -> Result<(), Unmendable> {
        let mut fate = self.fate.take().ok_or(Unmendable::Broken)?;
        self.fresh = false;
        match &mut fate {
            Fate::Drop => {}
            Fate::Pass => self.put(Kind::BlockDelta, event, pass)?,
            Fate::Hold { shows } => {
                if *shows && !added(event, &mut Vec::new()).is_empty() {
                    self.release(pass)?;
                    self.put(Kind::BlockDelta, event, pass)?;
                    fate = Fate::Pass;
                } else {
                    self.hold(Kind::BlockDelta, event, pass)?;
                    if self.held.is_empty() {
                        fate = Fate::Pass;
                    }
                }
            }
            Fate::Join { seam, start, half } => {
                let new = seam.feed(&added(event, half));
                self.join(&new, start, pass)?;
            }
            Fate::Match { left, open, half } => {
                let text = added(event, half);
                let new = match text.strip_prefix(left.as_str()) {
                    Some(new) if *open || new.is_empty() => new,
                    None if left.starts_with(&text) => "",
                    _ => return Err(Unmendable::Diverged),
                };
                left.drain(..text.len() - new.len());
                self.join(new, &mut None, pass)?;
            }
        }
        self.fate = Some(fate);
        Ok(())
    }

    /// Passes on what came out of a seam, in the text that is open or in a new one.
    fn join(&mut self, text: &str, start: &mut Option<Box<[u8]>>, pass: Pass<'_>) -> Result<(), Unmendable> {
        if text.is_empty() {
            return Ok(());
        }
        if let Some(start) = start.take() {
            self.put(Kind::BlockStart, &start, pass)?;
        }
        self.put(Kind::BlockDelta, &text_delta(0, text), pass)
    }

    fn end(&mut self, event: &[u8], pass: Pass<'_>) -> Result<(), Unmendable> {
        self.fresh = false;
        match self.fate.take().ok_or(Unmendable::Broken)? {
            Fate::Drop => {}
            Fate::Pass => self.put(Kind::BlockStop, event, pass)?,
            Fate::Hold { .. } => {
                self.hold(Kind::BlockStop, event, pass)?;
                let thinks = self.held.first().is_some_and(|(_, start)| What::begun_by(start) == Some(What::Thinking));
                if thinks {
                    self.release(pass)?;
                }
            }
            Fate::Join { mut seam, mut start, .. } => {
                let new = seam.finish();
                self.join(&new, &mut start, pass)?;
                if start.is_none() {
                    self.put(Kind::BlockStop, event, pass)?;
                }
            }
            Fate::Match { left, open, .. } => {
                if !left.is_empty() {
                    return Err(Unmendable::Diverged);
                }
                if open {
                    self.put(Kind::BlockStop, event, pass)?;
                }
            }
        }
        Ok(())
    }

    fn totals(&mut self, event: &[u8], pass: Pass<'_>) -> Result<(), Unmendable> {
        if self.rules.mode == Mode::Restart && self.texts < self.has.texts.len() {
            return Err(Unmendable::Diverged);
        }
        self.release(pass)?;
        self.close(pass);
        if self.segments == 1 {
            return self.put(Kind::MessageDelta, event, pass);
        }
        let event = with_usage(event, &sum(&self.before, &self.usage)).ok_or(Unmendable::Broken)?;
        self.put(Kind::MessageDelta, &event, pass)
    }

    /// Holds an event back; if that is too much, everything is passed on, and nothing can be mended.
    fn hold(&mut self, kind: Kind, event: &[u8], pass: Pass<'_>) -> Result<(), Unmendable> {
        self.held_bytes += event.len();
        self.held.push((kind, event.into()));
        if self.held_bytes > HELD_BYTES_MAX {
            self.has.unmendable = Some(Unmendable::TooLarge);
            self.release(pass)?;
        }
        Ok(())
    }

    fn release(&mut self, pass: Pass<'_>) -> Result<(), Unmendable> {
        self.held_bytes = 0;
        for (kind, event) in std::mem::take(&mut self.held) {
            self.put(kind, &event, pass)?;
        }
        Ok(())
    }

    /// The reply broke off: what is to be done. If the message is whole, its end is passed on.
    pub fn cut(&mut self, pass: Pass<'_>) -> Action {
        if self.has.totals {
            if !self.has.stopped {
                let stop = message_stop();
                self.has.see(Kind::MessageStop, &stop);
                pass(Kind::MessageStop, &stop);
            }
            return Action::Ended;
        }
        (self.held, self.held_bytes, self.fate, self.texts) = (Vec::new(), 0, None, 0);
        (self.at, self.fresh) = (None, false);
        self.before = sum(&self.before, &self.usage_so_far());
        (self.usage, self.twelfths) = (Usage::default(), 0);
        if self.has.blocks == 0 {
            self.segments += 1;
            return Action::Again;
        }
        let shown = (self.has.open == Some(What::Thinking)).then_some(Unmendable::Thinking);
        let spent = (self.continuations >= self.rules.continuations_max).then_some(Unmendable::Spent);
        if let Some(why) = self.has.unmendable.or(shown).or(spent) {
            return Action::GiveUp(why);
        }
        self.segments += 1;
        self.continuations += 1;
        let goes_on = self.rules.mode == Mode::Continue && self.has.says_something();
        if goes_on { Action::GoOn } else { Action::Again }
    }

    /// The request that asks for the rest, after [`Action::GoOn`]; `body` is the client's.
    pub fn request(&mut self, body: &[u8], request: &MessagesRequest) -> Result<Bytes, Unmendable> {
        let (body, trimmed) = continuation(body, request, &self.has, self.before.output)?;
        self.trimmed = trimmed;
        Ok(body)
    }
}

/// Which block an event is about.
fn index(event: &[u8]) -> Option<u64> {
    RawObject::read(&sse::parts(event).data?).ok()?.parse("index")
}

fn sum(a: &Usage, b: &Usage) -> Usage {
    Usage {
        input: a.input + b.input,
        cache_creation: a.cache_creation + b.cache_creation,
        cache_creation_1h: a.cache_creation_1h + b.cache_creation_1h,
        cache_read: a.cache_read + b.cache_read,
        output: a.output + b.output,
        // Of the last reply: what one request asks for all of its attempts ask for.
        ..*b
    }
}
