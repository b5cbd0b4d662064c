//! What can be seen from outside: metrics, the table of live requests, one record per request.
//!
//! No text of a message and no secret ever comes in here, so none can come out. Handles are made
//! once and kept; nothing is looked up by name per event, and nothing per event is shared between
//! threads.

mod configuration;
mod live;
mod memory;
mod metrics;
mod record;
mod redaction;
mod sockets;

pub use live::{Live, LiveRequest, LiveView, Phase};
pub use metrics::{CacheKind, GapCounts, Metrics, TokenLabels};
pub use record::{NoRecords, Record, Records};
