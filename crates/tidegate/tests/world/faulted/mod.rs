//! Faulted streams: every answer breaks in some way, and whoever reads it, however often it comes
//! back and from where, is told what the simulated API said, each byte once.
//!
//! A seed makes one small world of some dozen requests (`plan.rs`): the faults of the whole list
//! (`fault.rs`), streams that can be come back to and plain ones, mended and not, read over HTTP/1.1,
//! HTTP/2 and shared WebSockets (`visit.rs`, `socket.rs`) by clients that leave at random bytes and
//! return with random cursors (`draw.rs`, `asker.rs`). All that is read of one stream goes into one book
//! (`book.rs`), which notices at once whether two readings differ. What has to hold in the end is in
//! `checks.rs` and `ends.rs`, written from the documents and without the gateway's code; what was
//! seen is counted in `case.rs` and `tally.rs`. Some worlds keep conversations (`talk.rs`).
//!
//! *Limits.* A plain stream has no numbers over HTTP, so there a lost event shows only in its text.
//! Which of two events that changed places came first nobody can tell; there the text has to be the
//! true one but for that.

pub(crate) mod asker;
pub(crate) mod book;
pub(crate) mod case;
pub(crate) mod checks;
pub(crate) mod draw;
pub(crate) mod ends;
pub(crate) mod fault;
pub(crate) mod plan;
pub(crate) mod socket;
pub(crate) mod stage;
pub(crate) mod talk;
pub(crate) mod tally;
pub(crate) mod visit;

use plan::Plan;
use tally::Tally;

/// What is left of a world: the hash of all that was seen, what broke, and what was counted.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) trace: u64,
    pub(crate) broken: Vec<String>,
    pub(crate) tally: Tally,
}

/// Runs the world of `seed` with so many streams.
pub(crate) fn run(seed: u64, streams: u64) -> Outcome {
    run_plan(&Plan::of(seed, streams))
}

/// Whether the world of `seed` keeps conversations, and so is not the same twice.
pub(crate) fn keeps_talks(seed: u64) -> bool {
    Plan::talks(seed)
}

/// Runs this world and checks it.
pub(crate) fn run_plan(plan: &Plan) -> Outcome {
    let over = stage::live(plan);
    let trace = over.trace;
    let mut broken = Vec::new();
    let tally = checks::check(over, &mut broken);
    Outcome { trace, broken, tally }
}
