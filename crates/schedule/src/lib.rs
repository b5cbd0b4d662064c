//! Who goes to the model next, over which key, and what to do when it fails.
//!
//! Pure and synchronous: `now` is an argument, randomness is a seeded [`tidegate_base::Prng`], and
//! nothing here has ever seen a text, a header or a status line. The host (the gateway's `admit`)
//! turns what happens into calls, and answers into waking tasks:
//!
//! ```text
//!   ask ──▶ Go(Lease) ── sent, heard, began, progressed ──▶ settle(Lease, Outcome)   exactly once
//!     └───▶ Wait(Ticket) ─ advance ──▶ Go | Refuse
//!     └───▶ Refuse(Refusal)            (a wait that cannot end in time is refused at once)
//! ```
//! The aim: use what the upstream's limits allow, all of it, and never meet a 429.
//!
//! | file | what it is |
//! |---|---|
//! | `ask` | the words between the scheduler and its host |
//! | `scheduler` | the whole: organisations, keys, tenants, leases and how they end |
//! | `class` | one class of models: which of those who wait goes where, and when |
//! | `fair` | the order of those who wait: bands, tenants, deadlines |
//! | `domain`, `breaker` | an organisation's workspace in a class; when it is left alone |
//! | `meters` | one level of limits, and whether one more request fits under it |
//! | `bucket`, `ledger` | the shadow of one limiter, between two bounds; what we used over time |
//! | `lengths`, `estimate` | how long answers are; how many tokens an input has |
//! | `warmth` | what the prompt caches hold |
//! | `tenant` | what a tenant may use of us |
//! | `retry` | whether to try again, and when |
//! | `view` | all of it as operators see it |
//!
//! Two things have their seam and are not here: hedging (a second lease for the same request would
//! be one more [`Scheduler::ask`]), and finding the capacity of an upstream that tells no limits
//! (the window in `domain`, which 429s shrink and answers widen, is where it would go).

mod ask;
mod breaker;
mod bucket;
mod class;
mod crowd;
mod domain;
mod estimate;
mod fair;
mod flight;
mod ledger;
mod lengths;
mod meters;
mod retry;
mod rules;
mod scheduler;
mod tenant;
#[cfg(test)]
mod tests;
mod view;
mod warmth;

pub use ask::{
    Ask, Band, ClassId, LaneId, Lease, LeaseId, Level, Levels, Limits, OrgId, OrgSpec, Outcome, Pin, Prefix, Refusal,
    Spent, TenantId, TenantLimit, TenantRules, Throttle, Ticket, Verdict, WaitsFor, WorkspaceId,
};
pub use estimate::{Estimator, Mix};
pub use retry::{Backoff, Cause, GiveUp, Retry, RetryBudget, RetryRules};
pub use rules::{JITTER_MAX, QueueRules, Rules};
pub use scheduler::{Audit, FailedAttempt, Scheduler};
pub use tenant::{TenantLevel, TenantLevels};
pub use view::{DomainView, KeyView, MeterView, WaitView};
