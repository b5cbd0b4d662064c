//! The ground every room stands on: moments and deadlines, dates, units, money, ids, a seeded PRNG, bounded
//! queues, byte budgets and secrets.
//!
//! Nothing here is asynchronous, reads a clock, opens a file or a socket, or knows what HTTP is.
//! Time is always an argument (`Moment`), randomness always comes from a [`Prng`] somebody seeded.

mod budget;
mod calendar;
mod ids;
mod moment;
mod money;
mod prng;
mod queue;
mod secret;
mod units;

pub use budget::{ByteBudget, ByteLease};
pub use calendar::{date, first_day, month_name, month_of, read_date, rfc3339, rfc3339_seconds, to_next_month};
pub use ids::{IdSource, RequestId, StreamId};
pub use moment::{Deadline, Moment};
pub use money::Usd;
pub use prng::Prng;
pub use queue::{Bounded, Full};
pub use secret::Secret;
pub use units::{ByteSize, Span, UnitError};
