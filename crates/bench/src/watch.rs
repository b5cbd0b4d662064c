//! One stream as it arrives: what came with each read, and whether it came to its end.
//!
//! Events that arrive in one read arrived together: the first is measured against the read before
//! it, the others have a gap of zero. Comments are no events.
//!
//! An event may say when it was sent, in the last characters of its text (`tidegate-transport`'s
//! stamps). Where a gateway merged deltas only the newest stamp of them is found.

use std::time::{Duration, SystemTime};
use tidegate_base::Moment;
use tidegate_transport::{STAMP_BYTES, stamped_ago};
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
    /// How long ago the events of the last read were sent; its room is kept from read to read.
    transits: Vec<Duration>,
}

impl StreamWatch {
    pub(crate) fn new() -> Self {
        StreamWatch::default()
    }

    /// Looks at a piece that was read at `now`; pieces of one read share one `brought`.
    /// With the wall time of the read, stamps are looked for.
    pub(crate) fn see(&mut self, piece: &[u8], now: Moment, wall: Option<SystemTime>, brought: &mut Brought) {
        brought.bytes += piece.len() as u64;
        let StreamWatch { splitter, tap, last_event, has_content, rotten, transits } = self;
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
                if let Some(wall) = wall.filter(|_| kind.is_content()) {
                    transits.extend(stamp_of(event).and_then(|stamp| stamped_ago(stamp, wall)));
                }
                if kind.is_content() && !*has_content {
                    *has_content = true;
                    brought.first_content = true;
                }
            }
            Err(_) => *rotten = true,
        });
        self.rotten |= split.is_err();
    }

    /// How long each stamped event since the last call was on its way; `take` sees them all.
    pub(crate) fn take_transits(&mut self, take: impl FnMut(Duration)) {
        self.transits.drain(..).for_each(take);
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

/// The last characters of an event's text.
fn stamp_of(event: &[u8]) -> Option<&[u8]> {
    let end = event.trim_ascii_end().strip_suffix(b"\"}}")?;
    end.get(end.len().checked_sub(STAMP_BYTES)?..)
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
            pieces.iter().for_each(|piece| watch.see(piece.as_bytes(), now, None, &mut brought));
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
    fn stamped_events_tell_how_long_they_were_on_their_way() {
        let sent = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let stamp = String::from_utf8(tidegate_transport::stamp(sent).to_vec()).unwrap();
        let stamped = DELTA.replace("hi", &format!("tide {stamp}"));
        let mut watch = StreamWatch::new();
        let wall = Some(sent + Duration::from_micros(250));
        for piece in [START, DELTA, &stamped[..50], &stamped[50..], &stamped] {
            watch.see(piece.as_bytes(), Moment::ZERO, wall, &mut Brought::default());
        }
        let mut transits = Vec::new();
        watch.take_transits(|span| transits.push(span.as_micros()));
        assert_eq!(transits, [250, 250]);
        watch.take_transits(|_| panic!("they are told once"));
    }

    #[test]
    fn broken_events_are_noticed() {
        let (_, watch) = check(&[&[START, "event: content_block_delta\ndata: {\"type\":\n\n"]]);
        assert!(watch.is_rotten());
        let (_, watch) = check(&[&[DELTA]]);
        assert!(watch.is_rotten(), "content before message_start");
    }
}
