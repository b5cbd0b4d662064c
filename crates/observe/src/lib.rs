//! What can be seen from outside: metrics, the table of live requests and the last that are over,
//! one record per request, what was used and what it costs.
//!
//! No text of a message and no secret ever comes in here, so none can come out. Handles are made
//! once and kept; nothing is looked up by name per event, and nothing per event is shared between
//! threads.

mod configuration;
mod costs;
mod finished;
mod live;
mod memory;
mod metrics;
mod record;
mod redaction;
mod sockets;
mod spending;

pub use costs::{
    Admitted, Budget, BudgetView, DAYS_IN_MEMORY, Kind, Ledger, NAMES_A_DAY_MAX, Notice, OTHER, Price, Prices, Reached,
    Recorded, Refused, Reservation, Row, RowKey, Spend, TOKENS_MAX, Unpriced, Wanted, per_million,
};
pub use finished::{FINISHED_MAX, Finished, FinishedRequest, FinishedView};
pub use live::{Filter, Live, LiveRequest, LiveView, Phase};
pub use metrics::{CacheKind, GapCounts, Metrics, TokenLabels};
pub use record::{NoRecords, Record, Records};
