//! How the requests of a crowd ended.

use crate::failure::{Errors, Failure};

/// Counts of one crowd. `started` is the sum of all ways to end and of what was under way when the
/// load ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrowdCount {
    /// Requests begun, or knocks.
    pub started: u64,
    /// Answers that were whole and sound.
    pub whole: u64,
    /// Requests whose client left before the answer's end, as it meant to.
    pub left: u64,
    /// Knocks that came to a connection.
    pub knocks: u64,
    /// Everything else, by kind.
    pub errors: Errors,
    /// Connections opened, each HTTP/2 connection once.
    pub connections: u64,
    /// Events of streams.
    pub events: u64,
    /// Bytes of answers' bodies.
    pub bytes: u64,
}

/// How one turn of a client ended, if it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Whole,
    Left,
    Knocked,
}

impl CrowdCount {
    /// Takes in another's.
    pub fn add(&mut self, more: &CrowdCount) {
        for (slot, by) in [
            (&mut self.started, more.started),
            (&mut self.whole, more.whole),
            (&mut self.left, more.left),
            (&mut self.knocks, more.knocks),
            (&mut self.connections, more.connections),
            (&mut self.events, more.events),
            (&mut self.bytes, more.bytes),
        ] {
            *slot += by;
        }
        self.errors.add(&more.errors);
    }

    pub(super) fn ended(&mut self, ended: Result<Ended, Failure>) {
        match ended {
            Ok(Ended::Whole) => self.whole += 1,
            Ok(Ended::Left) => self.left += 1,
            Ok(Ended::Knocked) => self.knocks += 1,
            Err(failure) => self.errors.count(&failure),
        }
    }
}
