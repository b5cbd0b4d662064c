//! Whether a silent HTTP/2 connection is alive.
//!
//! ```text
//!   byte ──10 s of silence──▶ PING ──answered within 5 s──▶ alive as of the PING ──10 s──▶ PING …
//!                               └──not answered──▶ dead
//! ```
//! A model may think for minutes over a connection that is fine; a connection that died without a
//! word looks the same. The PING tells them apart in 15 s, for every stream that waits on it.

use std::time::Duration;
use tidegate_base::Moment;
use tidegate_transport::http2::Connection;

/// When to ask, and how long to wait for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeClocks {
    /// Silence after which the connection is asked (design: 10 s).
    pub after: Duration,
    /// How long its answer may take (design: 5 s).
    pub answer: Duration,
}

impl Default for ProbeClocks {
    fn default() -> Self {
        ProbeClocks { after: Duration::from_secs(10), answer: Duration::from_secs(5) }
    }
}

/// One stream's view of its connection.
#[derive(Debug)]
pub(crate) struct Life {
    clocks: ProbeClocks,
    /// When it was last known to be alive, but for bytes of this stream.
    alive: Moment,
    asked: Option<(Moment, u64)>,
}

impl Life {
    pub(crate) fn new(clocks: ProbeClocks, now: Moment) -> Self {
        Life { clocks, alive: now, asked: None }
    }

    /// When to look next, if no byte comes after `last_byte`.
    pub(crate) fn due(&self, last_byte: Moment) -> Moment {
        match self.asked {
            Some((at, _)) if last_byte <= at => at + self.clocks.answer,
            _ => self.alive.max(last_byte) + self.clocks.after,
        }
    }

    /// Looks; false if the connection is dead.
    pub(crate) fn look(&mut self, now: Moment, last_byte: Moment, conn: &Connection) -> bool {
        if let Some((at, probe)) = self.asked {
            if last_byte <= at && !conn.answered(probe) {
                return now < at + self.clocks.answer;
            }
            // The answer may be older than this look; that it came after the question is certain.
            self.alive = at;
            self.asked = None;
        }
        if now >= self.due(last_byte) {
            self.asked = Some((now, conn.probe()));
        }
        true
    }
}
