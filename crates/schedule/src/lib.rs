//! Who goes to the model next, over which key, and what to do when it fails.
//!
//! Pure and synchronous: `now` is an argument, randomness is a seeded [`tidegate_base::Prng`], and
//! nothing here has ever seen a text, a header or a status line. The host (the gateway's `admit`)
//! turns what happens into calls, and answers into waking tasks:
//!
//! ```text
//!   ask ──▶ Go(Lease) ───────────────▶ settle(Lease, Outcome)   exactly once
//!     └───▶ Wait(Ticket) ─ advance ──▶ Go | Refuse
//!     └───▶ Refuse(Refusal)            (a wait that cannot end in time is refused at once)
//! ```
//! This is the scheduler's first form: least requests in flight within a domain, a wait on
//! `retry-after`, and a window of concurrency that shrinks on a 429 and grows on success. The seam
//! is the one that shadow buckets and fair queues will stand behind.

mod retry;
mod scheduler;

pub use retry::{Backoff, Cause, GiveUp, Retry, RetryBudget, RetryRules};
pub use scheduler::{
    Ask, Band, ClassId, DomainView, LaneId, Lease, OrgId, Outcome, QueueRules, Refusal, Scheduler, Ticket, Verdict,
};
