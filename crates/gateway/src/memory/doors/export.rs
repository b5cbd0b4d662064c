//! Exports: JSON Lines, some 8 MiB at a time, and the next only when the client has taken them.
//!
//! ```text
//! log ──8 MiB──▶ here ──256 KiB──▶ connection ──as the client reads──▶ client
//! ```
//! So a slow client holds one chunk, and one that leaves or stands still ends it. An export that fails
//! on its way ends with an error in a line of its own and a body that is broken off: half a backup
//! must not look like a whole one.

use super::{Told, ask};
use crate::answer::Trouble;
use crate::attempt::Stop;
use crate::house::House;
use crate::memory::TurnTrouble;
use crate::reply::Reply;
use tidegate_store::Export;

/// Bytes that are given to the connection at once: other streams of the thread get their turn between.
const SLICE_BYTES: usize = 256 << 10;

/// Gives everything of `what`.
pub(super) async fn export(house: &House, reply: &mut Reply<'_>, what: Export) -> Result<Told, Stop> {
    let store = house.memory.store().map_err(Trouble::from)?;
    let _permit = house.memory.exports.try_acquire().map_err(|_| Trouble::from(TurnTrouble::Exports))?;
    // The first chunk before the head: what is not there gets its true status.
    let mut chunk = ask(reply, store.export(what.clone(), None)).await?;
    reply.begin_lines();
    loop {
        for slice in chunk.lines.chunks(SLICE_BYTES) {
            reply.push_lines(slice);
            reply.all_taken().await?;
        }
        let Some(next) = chunk.next else { return Ok(Told::Lines) };
        // Before the next one is there.
        drop(chunk.lines);
        reply.renew_deadline();
        chunk = ask(reply, store.export(what.clone(), Some(next))).await?;
    }
}
