//! Where in an event a fault strikes: its place, found when the event comes by.

use super::{Playback, Waiting};
use crate::events::{Frame, Kind};
use crate::fault::{Cut, Fault, Place};

impl Playback {
    /// Where in this frame the fault strikes, if it does.
    pub(super) fn offset(&self, waiting: &Waiting, frame: &Frame) -> Option<usize> {
        let (place, whole_events) = match &waiting.fault {
            // A close frame stands between messages.
            Fault::Cut(Cut::Code(_), place) => (*place, true),
            Fault::Cut(_, place) => (*place, false),
            Fault::Stall { place, pings, .. } => (*place, *pings),
            Fault::ErrorEvent(place, _)
            | Fault::Garbage(place)
            | Fault::Unknown(place)
            | Fault::Huge(place, _)
            | Fault::Duplicate(place)
            | Fault::Swap(place)
            | Fault::GoAway(place) => (*place, true),
            _ => return None,
        };
        // An event that is half out already is no place for another; the next one is.
        if whole_events && frame.begun {
            return None;
        }
        if let (Place::Byte(n), true) = (place, whole_events) {
            return (n < self.progress.body_bytes + frame.bytes.len() as u64).then_some(0);
        }
        let offset = match frame.kind {
            Kind::Body => in_body(place, waiting.spot, frame, self.progress.body_bytes),
            _ => self.in_event(place, waiting, frame),
        }?;
        Some(if whole_events { 0 } else { offset })
    }

    fn in_event(&self, place: Place, waiting: &Waiting, frame: &Frame) -> Option<usize> {
        let content = matches!(frame.kind, Kind::Piece | Kind::ThinkingPiece | Kind::InputPiece);
        let far_enough = frame.last_piece || frame.tokens * 1_000 >= self.output_tokens * waiting.spared;
        let inside = || inside_data(&frame.bytes, waiting.spot);
        match place {
            Place::Byte(n) => in_bytes(n, frame, self.progress.body_bytes),
            Place::Event(n) => (self.events == n + 1).then_some(0),
            Place::InUtf8 if !content || !far_enough => None,
            Place::InUtf8 => match frame.bytes.iter().position(|b| *b >= 0x80) {
                Some(at) => Some(at + 1),
                None if frame.last_piece => Some(inside()),
                None => None,
            },
            Place::InData => (content && far_enough).then(inside),
            Place::InText => (frame.kind == Kind::Piece && (far_enough || frame.ends_block)).then(inside),
            // One piece in eight, or else the signature behind them.
            Place::InThinking => {
                let lot = waiting.spot.rotate_left((self.events % 64) as u32).is_multiple_of(8);
                (frame.kind == Kind::Signature || frame.kind == Kind::ThinkingPiece && lot).then(inside)
            }
            Place::InTool => (frame.kind == Kind::InputPiece).then(inside),
            Place::BetweenTools => (frame.kind == Kind::NextCall).then_some(0),
            Place::BeforeDelta => (frame.kind == Kind::MessageDelta).then_some(0),
            Place::BeforeStop => (frame.kind == Kind::MessageStop).then_some(0),
        }
    }
}

fn in_bytes(n: u64, frame: &Frame, sent: u64) -> Option<usize> {
    let offset = n.checked_sub(sent)?;
    (offset < frame.bytes.len() as u64).then_some(offset as usize)
}

/// A buffered answer has no events: named places fall somewhere sensible in its bytes.
fn in_body(place: Place, spot: u64, frame: &Frame, sent: u64) -> Option<usize> {
    let len = frame.bytes.len();
    match place {
        Place::Byte(n) => in_bytes(n, frame, sent),
        Place::InUtf8 => Some(frame.bytes.iter().position(|b| *b >= 0x80).map_or(len / 2, |at| at + 1)),
        _ => Some(len / 4 + (spot % (len as u64 / 2).max(1)) as usize),
    }
}

pub(super) const DATA: &[u8] = b"\ndata: ";

/// A byte inside the event's JSON: after its first and before its last character.
fn inside_data(event: &[u8], spot: u64) -> usize {
    let start = memchr::memmem::find(event, DATA).map_or(0, |at| at + DATA.len()) + 1;
    let end = event.len().saturating_sub(3);
    start + (spot % (end.saturating_sub(start) as u64).max(1)) as usize
}
