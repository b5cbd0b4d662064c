//! One stream as it arrives: what came with each read, and whether it came to its end.
//!
//! Events that arrive in one read arrived together: the first is measured against the read before
//! it, the others have a gap of zero. Comments are no events.

use std::time::Duration;
use tidegate_base::Moment;
use tidegate_wire::event::{Kind, Tap};
use tidegate_wire::sse::Splitter;

/// What one read brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Brought {
    /// Bytes of the body.
    pub(crate) bytes: u64,
    /// Whole events.
    pub(crate) events: u64,
    /// From the last event of an earlier read to the first of this one.
    pub(crate) gap: Option<Duration>,
    /// Events that came together with one before them.
    pub(crate) gaps_of_zero: u64,
    /// Whether the first content event of the stream was among them.
    pub(crate) first_content: bool,
}

/// Watches one stream.
#[derive(Default)]
pub(crate) struct StreamWatch {
    splitter: Splitter,
    tap: Tap,
    last_event: Option<Moment>,
    has_content: bool,
    rotten: bool,
}

impl StreamWatch {
    pub(crate) fn new() -> Self {
        StreamWatch::default()
    }

    /// Looks at a piece that was read at `now`; pieces of one read share one `brought`.
    pub(crate) fn see(&mut self, piece: &[u8], now: Moment, brought: &mut Brought) {
        brought.bytes += piece.len() as u64;
        let StreamWatch { splitter, tap, last_event, has_content, rotten } = self;
        let split = splitter.feed(piece, |event| match tap.see(event) {
            Ok(Kind::Comment) => {}
            Ok(kind) => {
                match last_event {
                    Some(last) if brought.events == 0 => brought.gap = Some(now.since(*last)),
                    Some(_) => brought.gaps_of_zero += 1,
                    None => {}
                }
                *last_event = Some(now);
                brought.events += 1;
                if kind.is_content() && !*has_content {
                    *has_content = true;
                    brought.first_content = true;
                }
            }
            Err(_) => *rotten = true,
        });
        self.rotten |= split.is_err();
    }

    /// Whether an event was not what it should be.
    pub(crate) fn is_rotten(&self) -> bool {
        self.rotten
    }

    /// What the stream said of itself: usage, stop reason, error, end.
    pub(crate) fn tap(&self) -> &Tap {
        &self.tap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\"}}\n\n";
    const PING: &str = "event: ping\ndata: {\"type\":\"ping\"}\n\n";
    const DELTA: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"hi\"}}\n\n";

    /// What reads of `pieces`, 10 ms apart, bring.
    fn check(reads: &[&[&str]]) -> (Vec<Brought>, StreamWatch) {
        let mut watch = StreamWatch::new();
        let brought = reads.iter().enumerate().map(|(n, pieces)| {
            let now = Moment::ZERO + Duration::from_millis(10 * n as u64);
            let mut brought = Brought::default();
            pieces.iter().for_each(|piece| watch.see(piece.as_bytes(), now, &mut brought));
            brought
        });
        (brought.collect(), watch)
    }

    #[test]
    fn gaps_are_between_reads_and_zero_within_one() {
        let (brought, _) =
            check(&[&[START, PING], &[": note\n\n"], &[DELTA, DELTA, DELTA], &[&DELTA[..9]], &[&DELTA[9..]]]);
        let gaps: Vec<_> = brought.iter().map(|b| (b.events, b.gap.map(|g| g.as_millis()), b.gaps_of_zero)).collect();
        assert_eq!(gaps, [(2, None, 1), (0, None, 0), (3, Some(20), 2), (0, None, 0), (1, Some(20), 0)]);
        let total: u64 = brought.iter().map(|b| b.bytes).sum();
        assert_eq!(total as usize, START.len() + PING.len() + 8 + 4 * DELTA.len());
    }

    #[test]
    fn content_begins_once_and_not_with_a_ping() {
        let (brought, watch) = check(&[&[START], &[PING], &[DELTA], &[DELTA]]);
        assert_eq!(brought.iter().map(|b| b.first_content).collect::<Vec<_>>(), [false, false, true, false]);
        assert!(!watch.is_rotten() && !watch.tap().stopped);
    }

    #[test]
    fn broken_events_are_noticed() {
        let (_, watch) = check(&[&[START, "event: content_block_delta\ndata: {\"type\":\n\n"]]);
        assert!(watch.is_rotten());
        let (_, watch) = check(&[&[DELTA]]);
        assert!(watch.is_rotten(), "content before message_start");
    }
}
