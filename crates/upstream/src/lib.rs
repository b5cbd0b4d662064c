//! The way to the model: lanes, pools of connections, one exchange over one of them.
//!
//! A [`Lane`] is one upstream key with its address. A [`Pool`] belongs to one data-plane thread and
//! keeps that thread's idle connections; nothing is shared with other threads but gauges. An
//! [`Exchange`] is a request that was sent and whose answer has begun. What to send, whether to
//! send it again, and what the answer means are for the rooms above.

mod exchange;
mod lane;
mod life;
mod pool;
mod shelf;
mod socket;
mod upload;
mod veil;

pub use exchange::{Exchange, ExchangeClocks, ExchangeError, Stage};
pub use lane::{Lane, LaneError, Scheme, Transport};
pub use life::ProbeClocks;
pub use pool::{Outgoing, Pool, PoolParts, PoolRules};
pub use upload::{Room, Upload, UploadSink, upload};
pub use veil::{Covered, Veil};
