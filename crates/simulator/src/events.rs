//! An answer as events, one at a time: what is sent when, and how far it brings the answer.
//!
//! ```text
//! message_start ─▶ ( content_block_start ─▶ delta* [signature] ─▶ content_block_stop )* ─▶ message_delta ─▶ message_stop
//!                        └ ping (once)         ping wherever the pace is silent for longer than `ping`
//! ```
//! [`Events`] is lazy: it holds the answer and a place in it, and makes each event's bytes when they
//! are asked for, so that a long stream costs what its text costs. Times count from the response
//! head. The event grammar is this file; `tests/grammar.rs` checks it with a reader of its own.

use crate::pace::Pace;
use crate::reply::{Block, Reply, document};
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tidegate_base::Prng;

/// What an event is, as far as faults care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Start,
    BlockStart,
    /// The start of a tool call that follows another.
    NextCall,
    /// A piece of text.
    Piece,
    /// A piece of visible thinking.
    ThinkingPiece,
    /// A piece of a tool's input.
    InputPiece,
    Signature,
    BlockStop,
    MessageDelta,
    MessageStop,
    Ping,
    /// Not an event: the whole body of a buffered answer.
    Body,
}

/// One event, ready to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// When, from the response head.
    pub(crate) at: Duration,
    pub(crate) bytes: Bytes,
    pub(crate) kind: Kind,
    /// Output tokens produced once it is sent.
    pub(crate) tokens: u64,
    /// Bytes of content (text, visible thinking, tool input) produced once it is sent.
    pub(crate) content_bytes: u64,
    /// Its block has no further piece.
    pub(crate) ends_block: bool,
    /// No piece comes after this one.
    pub(crate) last_piece: bool,
    /// Its first bytes have been sent already.
    pub(crate) begun: bool,
}

/// Where in the answer the next event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Start,
    BlockStart(usize),
    /// The empty piece with which the API begins a tool's input.
    NoInputYet(usize),
    /// Block and byte in its text.
    Piece(usize, usize),
    Signature(usize),
    BlockStop(usize),
    MessageDelta,
    MessageStop,
    Done,
}

/// The events of an answer, in order.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    reply: Arc<Reply>,
    pace: Pace,
    prng: Prng,
    next: Next,
    /// The event after the pings that have to come before it.
    held: Option<Frame>,
    clock: Duration,
    last_sent: Duration,
    first_piece_done: bool,
    greeted: bool,
    tokens_before_block: u64,
    weight_in_block: u64,
    content_bytes: u64,
}

const INPUT_DELTA: &str = "\"input_json_delta\",\"partial_json\":";
const PING: &[u8] = b"event: ping\ndata: {\"type\": \"ping\"}\n\n";

impl Events {
    pub(crate) fn new(reply: Arc<Reply>, pace: Pace) -> Self {
        let prng = reply.prng.clone();
        Events {
            reply,
            pace,
            prng,
            next: Next::Start,
            held: None,
            clock: Duration::ZERO,
            last_sent: Duration::ZERO,
            first_piece_done: false,
            greeted: false,
            tokens_before_block: 0,
            weight_in_block: 0,
            content_bytes: 0,
        }
    }

    /// When the last event would be sent.
    pub(crate) fn duration(&self) -> Duration {
        let mut events = self.clone();
        events.pace.ping = Duration::MAX;
        events.last().map_or(Duration::ZERO, |frame| frame.at)
    }

    fn tokens(&self) -> u64 {
        self.tokens_before_block + self.reply.tokenizer.of_weight(self.weight_in_block)
    }

    fn frame(&self, kind: Kind, bytes: Vec<u8>) -> Frame {
        let tokens = self.tokens();
        Frame {
            at: self.clock,
            bytes: bytes.into(),
            kind,
            tokens,
            content_bytes: self.content_bytes,
            ends_block: false,
            last_piece: false,
            begun: false,
        }
    }

    fn ping(&self, at: Duration) -> Frame {
        Frame { at, bytes: Bytes::from_static(PING), ..self.frame(Kind::Ping, Vec::new()) }
    }

    fn produce(&mut self) -> Option<Frame> {
        let reply = Arc::clone(&self.reply);
        let frame = match self.next {
            Next::Start => {
                self.next = if reply.blocks.is_empty() { Next::MessageDelta } else { Next::BlockStart(0) };
                self.frame(
                    Kind::Start,
                    event("message_start", &json!({"type": "message_start", "message": document::opening(&reply)})),
                )
            }
            Next::BlockStart(n) => {
                let calls = matches!(reply.blocks[n], Block::ToolUse { .. });
                self.next = if calls { Next::NoInputYet(n) } else { Next::Piece(n, 0) };
                let block = match &reply.blocks[n] {
                    Block::Thinking { .. } => json!({"type": "thinking", "thinking": "", "signature": ""}),
                    Block::Text(_) => json!({"type": "text", "text": ""}),
                    Block::ToolUse { id, name, .. } => json!({"type": "tool_use", "id": id, "name": name, "input": {}}),
                };
                let data = json!({"type": "content_block_start", "index": n, "content_block": block});
                let follows = n > 0 && matches!(reply.blocks[n - 1], Block::ToolUse { .. });
                let kind = if calls && follows { Kind::NextCall } else { Kind::BlockStart };
                self.frame(kind, event("content_block_start", &data))
            }
            Next::NoInputYet(n) => {
                self.next = Next::Piece(n, 0);
                let Block::ToolUse { name, .. } = &reply.blocks[n] else { return None };
                self.tokens_before_block += 4 + reply.tokenizer.count(name);
                self.frame(Kind::InputPiece, piece_event(n, INPUT_DELTA, ""))
            }
            Next::Piece(n, at) => return self.piece(&reply, n, at),
            Next::Signature(n) => {
                self.next = Next::BlockStop(n);
                let Block::Thinking { signature, tokens, .. } = &reply.blocks[n] else { return None };
                self.tokens_before_block += *tokens;
                self.weight_in_block = 0;
                let data = json!({"type": "content_block_delta", "index": n, "delta": {"type": "signature_delta", "signature": signature}});
                self.frame(Kind::Signature, event("content_block_delta", &data))
            }
            Next::BlockStop(n) => {
                self.next = if n + 1 < reply.blocks.len() { Next::BlockStart(n + 1) } else { Next::MessageDelta };
                self.frame(
                    Kind::BlockStop,
                    event("content_block_stop", &json!({"type": "content_block_stop", "index": n})),
                )
            }
            Next::MessageDelta => {
                self.next = Next::MessageStop;
                let delta = json!({
                    "stop_reason": reply.stop_reason, "stop_sequence": reply.stop_sequence,
                    "stop_details": document::stop_details(&reply), "container": null,
                });
                let data = json!({"type": "message_delta", "delta": delta, "usage": document::final_usage(&reply)});
                self.frame(Kind::MessageDelta, event("message_delta", &data))
            }
            Next::MessageStop => {
                self.next = Next::Done;
                self.frame(Kind::MessageStop, event("message_stop", &json!({"type": "message_stop"})))
            }
            Next::Done => return None,
        };
        Some(frame)
    }

    /// The next piece of block `n` from byte `at`, or what follows the last.
    fn piece(&mut self, reply: &Reply, n: usize, at: usize) -> Option<Frame> {
        let (text, open, kind) = match &reply.blocks[n] {
            Block::Text(text) => (text, "\"text_delta\",\"text\":", Kind::Piece),
            Block::Thinking { text, .. } => (text, "\"thinking_delta\",\"thinking\":", Kind::ThinkingPiece),
            Block::ToolUse { input, .. } => (input, INPUT_DELTA, Kind::InputPiece),
        };
        if let (Block::Thinking { tokens, .. }, true) = (&reply.blocks[n], text.is_empty()) {
            self.think_unseen(*tokens);
        }
        if at >= text.len() {
            return self.end_of_block(reply, n);
        }
        let rest = &text[at..];
        let chars = self.pace.chars.draw(&mut self.prng).max(1) as usize;
        let end = rest.char_indices().nth(chars).map_or(rest.len(), |(end, _)| end);
        let piece = &rest[..end];
        let weight: u64 = piece.chars().map(|c| reply.tokenizer.weight(c)).sum();
        self.weight_in_block += weight;
        self.content_bytes += end as u64;
        self.advance_clock(weight);
        self.next = Next::Piece(n, at + end);
        let mut frame = self.frame(kind, piece_event(n, open, piece));
        frame.ends_block = at + end >= text.len();
        frame.last_piece = frame.ends_block && n + 1 == reply.blocks.len();
        Some(frame)
    }

    fn end_of_block(&mut self, reply: &Reply, n: usize) -> Option<Frame> {
        self.next = match &reply.blocks[n] {
            Block::Thinking { .. } => Next::Signature(n),
            _ => {
                self.tokens_before_block = self.tokens();
                self.weight_in_block = 0;
                Next::BlockStop(n)
            }
        };
        self.produce()
    }

    /// Passes the time that thinking takes where none of it is shown.
    fn think_unseen(&mut self, tokens: u64) {
        let per_piece = ((self.pace.chars.low + self.pace.chars.high) / 2).max(4) / 4;
        let pieces = (tokens / per_piece).max(1);
        let gap = self.pace.gap(per_piece * 1_000, &mut self.prng);
        self.clock += gap.saturating_mul(u32::try_from(pieces).unwrap_or(u32::MAX));
    }

    fn advance_clock(&mut self, weight: u64) {
        self.clock +=
            if self.first_piece_done { self.pace.gap(weight * 1_000 / 1_200, &mut self.prng) } else { self.pace.first };
        self.first_piece_done = true;
    }
}

impl Iterator for Events {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        if self.held.is_none() {
            self.held = self.produce();
        }
        let at = self.held.as_ref()?.at;
        let silent_until = self.last_sent.saturating_add(self.pace.ping);
        if silent_until < at {
            self.last_sent = silent_until;
            return Some(self.ping(silent_until));
        }
        let frame = self.held.take()?;
        self.last_sent = at;
        if frame.kind == Kind::BlockStart && !self.greeted {
            self.greeted = true;
            self.held = Some(self.ping(at));
        }
        Some(frame)
    }
}

/// An event's bytes.
fn event(name: &str, data: &Value) -> Vec<u8> {
    format!("event: {name}\ndata: {data}\n\n").into_bytes()
}

/// A ping, for faults that send nothing else.
pub(crate) fn ping_bytes() -> Bytes {
    Bytes::from_static(PING)
}

/// A piece of content: the event there are thousands of, so it is written without a JSON value.
fn piece_event(index: usize, delta: &str, piece: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(140 + piece.len());
    bytes.extend_from_slice(b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":");
    bytes.extend_from_slice(index.to_string().as_bytes());
    bytes.extend_from_slice(b",\"delta\":{\"type\":");
    bytes.extend_from_slice(delta.as_bytes());
    // Writing into a vector cannot fail.
    let _ = serde_json::to_writer(&mut bytes, piece);
    bytes.extend_from_slice(b"}}\n\n");
    bytes
}
