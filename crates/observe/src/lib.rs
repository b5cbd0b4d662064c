//! What can be seen from outside: metrics, the table of live requests and the last that are over,
//! one record per request.
//!
//! No text of a message and no secret ever comes in here, so none can come out. Handles are made
//! once and kept; nothing is looked up by name per event, and nothing per event is shared between
//! threads.

mod finished;
mod live;
mod memory;
mod metrics;
mod record;
mod redaction;
mod sockets;

pub use finished::{FINISHED_MAX, Finished, FinishedRequest, FinishedView};
pub use live::{Filter, Live, LiveRequest, LiveView, Phase, Told};
pub use metrics::{CacheKind, GapCounts, Metrics, TokenLabels};
pub use record::{NoRecords, Record, Records};
