//! The upstream's answer to the client, as it comes.
//!
//! JSON is held, up to a size, for what is to be changed or learned in it. Everything else goes on
//! piece by piece: the upstream is read when the client has taken what it was given, and not before.
//! One that breaks off is cut off at the client too, so that nobody takes it for whole; one that falls
//! silent runs into the same clocks as a stream.

use super::rewritten::{ids, rewritten};
use crate::answer::Trouble;
use crate::attempt::{Attempt, Failed, Stop};
use crate::exchange::is_of;
use crate::failure::Failure;
use crate::house::House;
use crate::plan::Plan;
use crate::references::Place;
use crate::reply::{Interrupt, Reply};
use crate::settle::End;
use bytes::BytesMut;
use std::future::poll_fn;
use std::task::{Context, Poll};
use tidegate_base::{ByteLease, Moment};
use tidegate_schedule::Cause;
use tidegate_upstream::{Covered, Exchange};
use tidegate_wire::http::Framing;

/// JSON up to this size is held: a page of a thousand batches has some 700 KB.
const HELD_BYTES_MAX: usize = 4 << 20;
/// What a client that reads slowly may have waiting before the upstream is left unread.
const WAITING_BYTES_MAX: usize = 64 * 1024;
/// That, and what one more read brings.
const LEASED_BYTES: u64 = 2 * WAITING_BYTES_MAX as u64;
/// Reads of one upstream in a row before other streams of the thread get their turn.
const READS_IN_A_ROW: usize = 16;

/// What is made of the answer's pieces.
enum Pieces {
    /// They are collected.
    Held(BytesMut),
    /// They go on.
    Passed(Covered),
}

struct Relay<'a> {
    house: &'a House,
    answer: Exchange,
    pieces: Pieces,
    lease: ByteLease,
    last_byte: Moment,
    is_cut: bool,
}

/// Relays an answer whose head has come.
pub(super) async fn relay(
    house: &House,
    reply: &mut Reply<'_>,
    plan: &Plan<'_>,
    place: Place,
    answer: Exchange,
) -> Result<Attempt, Stop> {
    let is_held = is_of(&answer.head, "application/json") && plan.request.head.method() != "HEAD";
    let base = plan.passing.as_ref().and_then(|passing| passing.base.as_deref());
    let passed = Pieces::Passed(Covered::new(answer.veil().clone()));
    let pieces = if is_held { Pieces::Held(BytesMut::new()) } else { passed };
    let now = house.clock.now();
    let mut relay = Relay { house, answer, pieces, lease: house.backlogs.empty_lease(), last_byte: now, is_cut: false };
    if !relay.lease.resize(LEASED_BYTES) {
        return Err(Trouble::BacklogBudget.into());
    }
    if !is_held {
        relay.begin(reply, plan.request.head.method() == "HEAD");
    }
    loop {
        let read = poll_fn(|cx| relay.poll(cx, reply)).await?;
        match (read, &mut relay.pieces) {
            (Ok(true), Pieces::Held(_)) => break,
            (Ok(true), Pieces::Passed(covered)) => {
                reply.push_piece(&covered.rest());
                break;
            }
            (Ok(false), Pieces::Held(held)) if base.is_some() && held.len() > HELD_BYTES_MAX => {
                return Err(Trouble::AnswerTooLarge { limit: HELD_BYTES_MAX as u64 }.into());
            }
            (Ok(false), Pieces::Held(held)) if held.len() > HELD_BYTES_MAX => {
                let held = std::mem::take(held);
                let mut covered = Covered::new(relay.answer.veil().clone());
                relay.begin(reply, false);
                covered.feed(&held, |bytes| reply.push_piece(bytes));
                relay.pieces = Pieces::Passed(covered);
                // Shrinking always succeeds.
                let _ = relay.lease.resize(LEASED_BYTES);
            }
            (Ok(false), Pieces::Held(held)) => {
                let bytes = (held.len() as u64).next_power_of_two().max(LEASED_BYTES);
                if !relay.lease.resize(bytes) {
                    return Err(Trouble::BacklogBudget.into());
                }
            }
            (Ok(false), Pieces::Passed(_)) => {}
            (Err(failure), _) => {
                return Ok(Attempt::Failed(Failed { once: reply.head_sent(), ..Failed::before_content(failure) }));
            }
        }
    }
    if let Pieces::Held(held) = &relay.pieces {
        plan.home.knows(&house.references, place, &ids(held));
        let held = relay.answer.veil().bytes(held);
        let told = base.map_or_else(|| held.to_vec(), |base| rewritten(&held, base));
        reply.whole(&relay.answer.head, &[], &[], &told, relay.lease);
    }
    relay.answer.finish(house.clock.now());
    Ok(Attempt::Ended { end: End::Answered, spent: None, heard: None })
}

impl Relay<'_> {
    /// Sends the head on.
    fn begin(&mut self, reply: &mut Reply<'_>, to_head: bool) {
        let head = &self.answer.head;
        let told = || head.headers.text("content-length").and_then(|n| n.trim().parse().ok());
        let length = match head.framing {
            _ if to_head => told(),
            Framing::Length(n) => Some(n),
            Framing::Empty => Some(0),
            Framing::Chunked | Framing::UntilClose => None,
        };
        reply.begin_passed(&self.answer.head, length);
    }

    /// Moves what there is to be moved. Ready when the answer has ended (true), when some of it was
    /// collected (false), or when it broke off.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        reply: &mut Reply<'_>,
    ) -> Poll<Result<Result<bool, Box<Failure>>, Interrupt>> {
        let now = self.house.clock.now();
        let read = self.poll_read(cx, now, reply);
        let is_full = reply.waiting() >= WAITING_BYTES_MAX;
        if is_full {
            // It is not the upstream that is silent.
            self.last_byte = now;
        }
        if read.is_pending() && !self.is_cut && !self.answer.is_alive(now, self.last_byte) {
            return Poll::Ready(Ok(Err(Box::new(Failure::by_clock(Cause::Gap, "probe")))));
        }
        let gap = self.last_byte + self.house.settings.clocks.gap;
        let due = self.answer.probe_due(self.last_byte).unwrap_or(gap);
        let due = if is_full { Moment::NEVER } else { due };
        if let Poll::Ready(why) = reply.poll_watch(cx, now, due, true) {
            return Poll::Ready(Err(why));
        }
        match read {
            Poll::Ready(read) => Poll::Ready(Ok(read)),
            Poll::Pending if now >= due && self.answer.probe_due(self.last_byte).is_none() => {
                Poll::Ready(Ok(Err(Box::new(Failure::by_clock(Cause::Gap, "gap")))))
            }
            Poll::Pending => {
                if is_full && reply.waiting() < WAITING_BYTES_MAX {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        now: Moment,
        reply: &mut Reply<'_>,
    ) -> Poll<Result<bool, Box<Failure>>> {
        for _ in 0..READS_IN_A_ROW {
            if reply.waiting() >= WAITING_BYTES_MAX {
                return Poll::Pending;
            }
            let pieces = &mut self.pieces;
            let read = self.answer.poll_body(cx, &mut |piece| match pieces {
                Pieces::Held(held) => held.extend_from_slice(piece),
                Pieces::Passed(covered) => covered.feed(piece, |bytes| reply.push_piece(bytes)),
            });
            match read {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(false)) => {
                    self.last_byte = now;
                    if matches!(self.pieces, Pieces::Held(_)) {
                        return Poll::Ready(Ok(false));
                    }
                }
                Poll::Ready(Ok(true)) => return Poll::Ready(Ok(true)),
                Poll::Ready(Err(e)) => {
                    self.is_cut = true;
                    let failure = Failure { clock: e.clock(), ..Failure::new(Cause::BadStream, e.to_string()) };
                    let failure = failure.telling("the upstream's connection broke inside its answer");
                    return Poll::Ready(Err(Box::new(failure)));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
