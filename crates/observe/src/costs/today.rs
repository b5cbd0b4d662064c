//! Today's names: everything that a request needs of its tenant and model is found once.
//!
//! A name holds its price, its counters and today's rows, so that settling a request looks up one
//! entry and adds to it; what is not here yet is looked up elsewhere once a day.

use super::ledger::{Kind, Row, RowKey};
use super::prices::{Price, Prices};
use crate::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names of tenant and model a day has room for: some hundred are many.
pub const NAMES_A_DAY_MAX: usize = 1_000;
/// What models are called that came after.
pub const OTHER: &str = "(other)";

/// One name of today.
#[derive(Debug)]
pub(super) struct Named {
    /// Others share it: what they cost is looked up for each.
    shared: bool,
    /// What its tokens cost, and those of a fast answer.
    prices: [Option<Price>; 2],
    pub(super) cost: Counter,
    pub(super) unpriced: Counter,
    /// By kind; without attempts until there are some, and again when they were taken away.
    rows: [Row; Kind::ALL.len()],
}

impl Named {
    /// The price of the tokens of `model`, whose name this is or who shares it.
    pub(super) fn price<'a>(&'a self, all: &'a Prices, model: &str, fast: bool) -> Option<&'a Price> {
        if self.shared { all.of(model, fast) } else { self.prices[usize::from(fast)].as_ref() }
    }

    /// Adds to today's row of a kind.
    pub(super) fn add(&mut self, kind: Kind, row: &Row) {
        self.rows[kind as usize].add(row);
    }
}

/// Today's names, by tenant and model.
#[derive(Debug, Default)]
pub(super) struct Today {
    pub(super) day: u32,
    names: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Named>>,
    /// How many have a name of their own.
    count: usize,
}

impl Today {
    /// A day without names.
    pub(super) fn of(day: u32) -> Self {
        Today { day, ..Today::default() }
    }

    /// Does something to the entry of a tenant's model, or to the one that it shares with others; makes
    /// it if it is not there.
    pub(super) fn name<T>(
        &mut self,
        tenant: &Arc<str>,
        model: &str,
        (prices, metrics): (&Prices, &Metrics),
        done: impl FnOnce(&mut Named) -> T,
    ) -> T {
        if let Some(named) = self.names.get_mut(tenant).and_then(|models| models.get_mut(model)) {
            return done(named);
        }
        // The file takes no name without letters.
        let shared = self.count >= NAMES_A_DAY_MAX || model.is_empty() || model == OTHER;
        let name = if shared { OTHER } else { model };
        let models = self.names.entry(Arc::clone(tenant)).or_default();
        if let Some(named) = models.get_mut(name) {
            return done(named);
        }
        self.count += usize::from(!shared);
        let (cost, unpriced) = metrics.cost_counters(tenant, name);
        let prices = [false, true].map(|fast| prices.of(name, fast).copied());
        let named = Named { shared, prices, cost, unpriced, rows: Default::default() };
        done(models.entry(name.into()).or_insert(named))
    }

    /// Other prices from now on.
    pub(super) fn reprice(&mut self, prices: &Prices) {
        for (name, named) in self.names.values_mut().flatten() {
            named.prices = [false, true].map(|fast| prices.of(name, fast).copied());
        }
    }

    /// The rows that are here.
    pub(super) fn rows(&self) -> impl Iterator<Item = (RowKey, Row)> {
        let day = self.day;
        let of_tenant = move |(tenant, models): (&Arc<str>, &BTreeMap<Arc<str>, Named>)| {
            let of_model = |(model, named): (&Arc<str>, &Named)| {
                let key = |kind| RowKey { day, tenant: Arc::clone(tenant), model: Arc::clone(model), kind };
                let rows = Kind::ALL.map(|kind| (key(kind), named.rows[kind as usize]));
                rows.into_iter().filter(|(_, row)| row.attempts > 0).collect::<Vec<_>>()
            };
            models.iter().flat_map(of_model).collect::<Vec<_>>()
        };
        self.names.iter().flat_map(of_tenant)
    }

    /// Forgets the rows; the names stay.
    pub(super) fn clear_rows(&mut self) {
        let all = self.names.values_mut().flat_map(BTreeMap::values_mut);
        all.for_each(|named| named.rows = Default::default());
    }
}
