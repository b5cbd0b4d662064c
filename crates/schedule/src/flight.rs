//! One request that waits, and one that is under way.

use crate::ask::{Ask, Band, LaneId, LeaseId, Prefix, TenantId, Ticket, WaitsFor};
use crate::estimate::Mix;
use crate::fair::Place;
use crate::lengths::Lengths;
use crate::meters::{Coming, coming};
use slotmap::SlotMap;
use tidegate_base::Moment;

/// Where one that waits stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// In the fair order.
    No,
    /// Beside it, until the first with the same beginning has filled the cache of this domain.
    ForPrefix(usize, u64),
}

/// One that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) ask: Ask,
    pub(crate) class: usize,
    pub(crate) place: Place,
    /// The whole input, tokens, as estimated.
    pub(crate) tokens: f64,
    pub(crate) held: Held,
    pub(crate) reason: WaitsFor,
    /// It is next in turn and needs more than was ever seen at once: when that must be there.
    pub(crate) saving_since: Option<Moment>,
}

/// One under way.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) lane: LaneId,
    pub(crate) class: usize,
    pub(crate) domain: usize,
    pub(crate) tenant: TenantId,
    pub(crate) band: Band,
    pub(crate) mix: Mix,
    pub(crate) went: Moment,
    /// Requests of its domain under way then, itself among them.
    pub(crate) beside: u32,
    pub(crate) began: Option<Moment>,
    pub(crate) metered: bool,
    /// Its head told levels: for each limiter of which level of its domain's limits, and how much input
    /// is left.
    pub(crate) told: Option<([usize; 3], Option<u64>)>,
    /// Uncached input taken, tokens: as estimated, or as counted.
    pub(crate) input: f64,
    /// It had been saved for: the bucket was as full as it gets.
    pub(crate) saved: bool,
    /// The upstream has counted it.
    pub(crate) counted: bool,
    /// Output reserved, tokens; zero where the provider does not.
    pub(crate) reserved: f64,
    pub(crate) output_max: f64,
    /// Output produced so far, seen or assumed, and taken from the buckets.
    pub(crate) produced: f64,
    pub(crate) seen: bool,
    /// What it adds to the levels' sums.
    pub(crate) coming: Coming,
    /// What its tenant was charged: of the class' quota, nanoseconds; of its own limit, tokens.
    pub(crate) cost: f64,
    pub(crate) tenant_tokens: f64,
    /// Others waited in its band when it went.
    pub(crate) contested: bool,
    pub(crate) prefix: Option<Prefix>,
    /// Tokens of that beginning, as estimated.
    pub(crate) prefix_tokens: f64,
    pub(crate) conversation: Option<Prefix>,
    /// Others wait for it to fill the cache with its beginning.
    pub(crate) leads: bool,
}

impl Flight {
    /// What it will still produce, if its tenant's answers are so long and run at this speed.
    pub(crate) fn still_coming(&self, lengths: &Lengths, speed: f64) -> Coming {
        if self.reserved > 0.0 {
            return Coming::default();
        }
        let most = (self.output_max - self.produced).max(0.0);
        coming(lengths.rest(self.produced).min(most), speed)
    }
}

/// All that wait, of every class.
pub(crate) type Queue = SlotMap<Ticket, Waiting>;
/// All that are under way, of every class.
pub(crate) type Flights = SlotMap<LeaseId, Flight>;
