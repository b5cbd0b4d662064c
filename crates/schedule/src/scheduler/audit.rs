//! Whether the counters are what the leases add up to. Every lease is settled once, so they are;
//! the host looks every second, and shows it.

use super::Scheduler;
use crate::ask::{LaneId, TenantId};
use std::collections::BTreeMap;

/// What an audit found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Audit {
    /// Leases that are out.
    pub leases: u64,
    /// By how much counters and the sum over the leases differ, in requests and tokens; 0, or there
    /// is a bug.
    pub difference: f64,
}

impl Scheduler {
    /// Compares the counters with the sum over the leases, in one pass over these.
    pub fn audit(&self) -> Audit {
        let mut domains: BTreeMap<(usize, usize), i64> = BTreeMap::new();
        let mut lanes: BTreeMap<LaneId, i64> = BTreeMap::new();
        let mut tenants: BTreeMap<TenantId, i64> = BTreeMap::new();
        let mut levels: BTreeMap<(usize, usize), f64> = BTreeMap::new();
        for f in self.shared.flights.values() {
            *domains.entry((f.class, f.domain)).or_default() += 1;
            *lanes.entry(f.lane).or_default() += 1;
            *tenants.entry(f.tenant).or_default() += 1;
            for level in self.classes[f.class].domains[f.domain].meters.iter().filter(|_| f.metered) {
                *levels.entry((f.class, *level)).or_default() += f.coming.iter().sum::<f64>();
            }
        }
        for (n, class) in self.classes.iter().enumerate() {
            for (m, d) in class.domains.iter().enumerate() {
                *domains.entry((n, m)).or_default() -= i64::from(d.in_flight);
            }
            for (m, meters) in class.meters.iter().enumerate() {
                *levels.entry((n, m)).or_default() -= meters.coming.iter().sum::<f64>();
            }
        }
        for (org, o) in &self.shared.orgs {
            for (key, lane) in (0u16..).zip(&o.lanes) {
                *lanes.entry(LaneId { org: *org, key }).or_default() -= i64::from(lane.in_flight);
            }
        }
        for (id, tenant) in &self.shared.tenants {
            *tenants.entry(*id).or_default() -= i64::from(tenant.in_flight);
        }
        let counts = domains.into_values().chain(lanes.into_values()).chain(tenants.into_values());
        let counted: u64 = counts.map(i64::unsigned_abs).sum();
        // Sums of floating numbers, taken apart in another order than they were put together.
        let summed: f64 = levels.into_values().map(f64::abs).filter(|off| *off > 1.0).sum();
        Audit { leases: self.shared.flights.len() as u64, difference: counted as f64 + summed }
    }
}
