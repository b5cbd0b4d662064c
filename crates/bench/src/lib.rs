//! The load generator: asks a Claude-compatible endpoint over HTTP/1.1 or WebSockets and says how it
//! held up.
//! Beside it [`churn`]: crowds of clients that come, go, dawdle and leave, over HTTP/2 too, for a
//! look at what an endpoint holds on to.
//!
//! ```text
//!   Plan ─▶ Requests (all alike, or a Mix)
//!             │                       ┌─ connection task ─┐   one at a time, kept alive
//!   Turnstile ┴─ when to send next ─▶ │ dial, send, read, │ ─▶ Tally ─▶ Report ─▶ table, JSON
//!                                     │ repeat as an SDK  │
//!   (closed loop, or open at a rate)  └─ StreamWatch ─────┘   (one a thread)
//! ```
//! With a rate the loop is open: every request has a moment at which it should start, all clocks
//! run from that moment, and an endpoint that stalls is charged for the requests that had to wait
//! meanwhile. Without one, each connection sends its next request when the last has ended.
//!
//! A run always ends: every request has a clock, and after the run's duration what is still under
//! way gets a grace and is then given up. The generator shares the machine with what it measures,
//! so an event costs it no allocation, a read costs one look at the clock, and the report says how
//! much processor time the generator itself took.
//!
//! This room never prints; it returns text or writes into what it is given.

mod chart;
mod churn;
mod cpu;
mod failure;
mod idle;
mod latency;
mod mix;
mod names;
mod plan;
mod progress;
mod report;
mod request;
mod resume;
mod retry;
mod run;
mod socket;
mod table;
mod tally;
mod turnstile;
mod watch;
mod worker;

pub use chart::{Bar, Panel, chart};
pub use churn::{Bounds, ChurnReport, Crowd, CrowdCount, Manner, OneLeaves, churn, churn_here};
pub use failure::Errors;
pub use idle::IdleClients;
pub use latency::Percentiles;
pub use mix::{Class, Mix};
pub use plan::{Arrival, BenchError, Mode, Plan};
pub use progress::{Progress, ProgressView};
pub use report::{ClassReport, GeneratorCost, Report};
pub use resume::{ResumeReport, Resuming, resume};
pub use run::{run, run_here};
pub use table::side_by_side;
