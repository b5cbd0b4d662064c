//! The ledger: what was used, in rows of a day.
//!
//! A row is a tenant, a model, and what became of the attempts; so their number is bounded by
//! tenants, which are configured, and by models, of which a day has room for a thousand names (with
//! tenant): clients choose them. What comes after goes to `(other)`.
//!
//! Where somebody keeps the rows, those here are what is not written yet: they are taken away, and
//! come back if they could not be written. Where nobody does, all of two months are here.

use super::budget::{Budget, Month, Notice};
use super::prices::{Price, Prices, believed};
use super::today::Today;
use crate::live::shortened;
use crate::metrics::Metrics;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidegate_base::{Usd, first_day, month_of};
use tidegate_wire::usage::Usage;

/// Days that are here where nobody keeps them: this month and the one before.
pub const DAYS_IN_MEMORY: u32 = 62;

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It was the answer.
    Answered,
    /// It failed, and another one followed.
    Retried,
    /// It was the last, and no whole answer came of it: the client left, it was cancelled, it failed.
    Abandoned,
    /// A summary that Tidegate asked for in the tenant's name.
    Summary,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Answered, Kind::Retried, Kind::Abandoned, Kind::Summary];

    /// Its name in `/usage`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Answered => "answered",
            Kind::Retried => "retried",
            Kind::Abandoned => "abandoned",
            Kind::Summary => "summary",
        }
    }
}

/// What a row is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowKey {
    /// Days after the epoch, UTC.
    pub day: u32,
    /// Whose.
    pub tenant: Arc<str>,
    /// Of which model.
    pub model: Arc<str>,
    /// What became of the attempts.
    pub kind: Kind,
}

/// Sums of attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// How many, that used something or were answered.
    pub attempts: u64,
    /// Of these, with counts that are partly estimates: the upstream counts the output at the end, or not at all.
    pub estimated: u64,
    /// Of these, without a known cost: no price for the model, or no word of what was used.
    pub unpriced: u64,
    /// Input that was not cached.
    pub input: u64,
    /// Input read from the prompt cache.
    pub cache_read: u64,
    /// Input written to it for five minutes.
    pub cache_write_5m: u64,
    /// The same for an hour.
    pub cache_write_1h: u64,
    /// Output.
    pub output: u64,
    /// What it cost, as far as that is known.
    pub cost: Usd,
}

impl Row {
    /// Adds another one.
    pub fn add(&mut self, more: &Row) {
        let sums = [
            (&mut self.attempts, more.attempts),
            (&mut self.estimated, more.estimated),
            (&mut self.unpriced, more.unpriced),
            (&mut self.input, more.input),
            (&mut self.cache_read, more.cache_read),
            (&mut self.cache_write_5m, more.cache_write_5m),
            (&mut self.cache_write_1h, more.cache_write_1h),
            (&mut self.output, more.output),
        ];
        sums.into_iter().for_each(|(sum, n)| *sum = sum.saturating_add(n));
        self.cost = self.cost.plus(more.cost);
    }
}

/// What one attempt used.
#[derive(Clone, Copy, Debug)]
pub struct Spend {
    /// What became of it.
    pub kind: Kind,
    /// What it used; nothing, if the upstream did not say.
    pub usage: Usage,
    /// Whether that is partly an estimate.
    pub estimated: bool,
}

/// What came of recording a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// What it cost, as far as that is known.
    pub cost: Usd,
    /// Attempts without a known cost.
    pub unpriced: u64,
    /// Whether a share of the budget was passed.
    pub notice: Option<Notice>,
}

#[derive(Debug, Default)]
struct State {
    prices: Arc<Prices>,
    today: Today,
    /// Of other days, and what came back.
    rows: BTreeMap<RowKey, Row>,
    months: BTreeMap<Arc<str>, Month>,
}

/// The ledger.
#[derive(Debug)]
pub struct Ledger {
    state: Mutex<State>,
    metrics: Metrics,
    /// Nobody keeps the rows but this.
    keeps_all: bool,
}

impl Ledger {
    /// An empty one; `keeps_all` if nobody takes its rows away.
    pub fn new(prices: Prices, metrics: Metrics, keeps_all: bool) -> Self {
        let state = State { prices: Arc::new(prices), ..State::default() };
        Ledger { state: Mutex::new(state), metrics, keeps_all }
    }

    /// What tokens cost.
    pub fn prices(&self) -> Arc<Prices> {
        Arc::clone(&self.state().prices)
    }

    /// What tokens cost from now on; what was recorded keeps the cost it had.
    pub fn set_prices(&self, prices: Prices) {
        let mut state = self.state();
        state.today.reprice(&prices);
        state.prices = Arc::new(prices);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tenant's month. Tenants are configured, so there are as many.
    pub(super) fn month<T>(&self, tenant: &Arc<str>, look: impl FnOnce(&mut Month) -> T) -> T {
        self.state().month(tenant, look)
    }

    /// A request ended now that used this, in attempts.
    pub fn record(
        &self,
        now_s: u64,
        tenant: &Arc<str>,
        model: &str,
        fast: bool,
        spends: impl IntoIterator<Item = Spend>,
        budget: Option<&Budget>,
    ) -> Recorded {
        let mut recorded = Recorded::default();
        let mut answered = None;
        let state = &mut *self.state();
        state.turn_to(day_of(now_s), self.keeps_all);
        let prices = &state.prices;
        state.today.name(tenant, shortened(model), (prices, &self.metrics), |named| {
            for spend in spends {
                let usage = believed(&spend.usage);
                let row = row(&usage, spend.estimated, named.price(prices, model, fast || usage.fast));
                recorded.cost = recorded.cost.plus(row.cost);
                recorded.unpriced += row.unpriced;
                if spend.kind == Kind::Answered {
                    answered = Some(usage.output);
                }
                named.add(spend.kind, &row);
            }
            named.cost.inc_by(recorded.cost.nanos());
            named.unpriced.inc_by(recorded.unpriced);
        });
        recorded.notice = state.month(tenant, |month| {
            month.roll(now_s);
            answered.into_iter().for_each(|output| month.answered(output));
            month.spend(recorded.cost, budget)
        });
        recorded
    }

    /// The rows that are here.
    pub fn rows(&self) -> BTreeMap<RowKey, Row> {
        let state = self.state();
        let mut rows = state.rows.clone();
        state.today.rows().for_each(|(key, row)| rows.entry(key).or_default().add(&row));
        rows
    }

    /// Takes the rows away, to be kept elsewhere.
    pub fn take(&self) -> BTreeMap<RowKey, Row> {
        let mut state = self.state();
        state.gather();
        std::mem::take(&mut state.rows)
    }

    /// What tenants have spent of this month by the word of a file that others write too, in place of
    /// what is believed. All but the rows that are here has to be in the file.
    pub fn recount(&self, now_s: u64, spent: impl IntoIterator<Item = (Arc<str>, Usd)>) {
        let (month, first) = (month_of(now_s), first_day(month_of(now_s)));
        let state = &mut *self.state();
        state.gather();
        let mut spent: BTreeMap<Arc<str>, Usd> = spent.into_iter().collect();
        for (key, row) in state.rows.iter().filter(|(key, _)| u64::from(key.day) >= first) {
            let sum = spent.entry(Arc::clone(&key.tenant)).or_default();
            *sum = sum.plus(row.cost);
        }
        for (tenant, spent) in spent {
            state.month(&tenant, |of| of.recount(month, spent));
        }
    }

    /// Rows that could not be kept.
    pub fn give_back(&self, rows: BTreeMap<RowKey, Row>) {
        let mut state = self.state();
        for (key, row) in rows {
            state.rows.entry(key).or_default().add(&row);
        }
    }

    /// A name that has rows today already, from before the process began.
    pub fn knows(&self, now_s: u64, tenant: &str, model: &str) {
        let state = &mut *self.state();
        state.turn_to(day_of(now_s), self.keeps_all);
        state.today.name(&tenant.into(), model, (&state.prices, &self.metrics), |_| ());
    }
}

/// One attempt as a row.
fn row(usage: &Usage, estimated: bool, price: Option<&Price>) -> Row {
    let is_known = usage.input | usage.output | usage.cache_read | usage.cache_creation > 0;
    let price = price.filter(|_| is_known);
    let hour = usage.cache_creation_1h.min(usage.cache_creation);
    Row {
        attempts: 1,
        estimated: u64::from(estimated),
        unpriced: u64::from(price.is_none()),
        input: usage.input,
        cache_read: usage.cache_read,
        cache_write_5m: usage.cache_creation - hour,
        cache_write_1h: hour,
        output: usage.output,
        cost: price.map(|price| price.cost(usage)).unwrap_or_default(),
    }
}

fn day_of(now_s: u64) -> u32 {
    u32::try_from(now_s / 86_400).unwrap_or(u32::MAX)
}

impl State {
    fn month<T>(&mut self, tenant: &Arc<str>, look: impl FnOnce(&mut Month) -> T) -> T {
        // Looked up first: who comes again costs no clone.
        if let Some(month) = self.months.get_mut(tenant) {
            return look(month);
        }
        look(self.months.entry(Arc::clone(tenant)).or_default())
    }

    /// Puts today's rows to the others.
    fn gather(&mut self) {
        for (key, row) in self.today.rows() {
            self.rows.entry(key).or_default().add(&row);
        }
        self.today.clear_rows();
    }

    fn turn_to(&mut self, day: u32, keeps_all: bool) {
        if self.today.day == day {
            return;
        }
        self.gather();
        self.today = Today::of(day);
        if keeps_all {
            self.rows.retain(|key, _| key.day + DAYS_IN_MEMORY > day);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::costs::{NAMES_A_DAY_MAX, OTHER};

    const DAY: u64 = 86_400;

    fn ledger(keeps_all: bool) -> Ledger {
        Ledger::new(Prices::default(), Metrics::new(), keeps_all)
    }

    fn spend(kind: Kind, output: u64) -> Spend {
        Spend { kind, usage: Usage { output, ..Usage::default() }, estimated: kind == Kind::Abandoned }
    }

    fn record(ledger: &Ledger, now_s: u64, model: &str, spends: &[Spend]) -> Recorded {
        ledger.record(now_s, &"acme".into(), model, false, spends.iter().copied(), None)
    }

    #[test]
    fn attempts_are_told_apart_by_what_became_of_them() {
        let ledger = ledger(true);
        let spends = [spend(Kind::Retried, 10), spend(Kind::Retried, 20), spend(Kind::Answered, 100)];
        let recorded = record(&ledger, 5, "claude-opus-5-5", &spends);
        assert_eq!(recorded.cost.nanos(), 130 * 20_000);
        record(&ledger, 6, "claude-opus-5-5", &[spend(Kind::Abandoned, 7)]);
        let rows = ledger.rows();
        let seen: Vec<_> =
            rows.iter().map(|(key, row)| (key.kind.name(), row.attempts, row.output, row.estimated)).collect();
        assert_eq!(seen, [("answered", 1, 100, 0), ("retried", 2, 30, 0), ("abandoned", 1, 7, 1)]);
        assert_eq!(rows.values().map(|row| row.cost).sum::<Usd>().nanos(), 137 * 20_000);
    }

    #[test]
    fn a_day_ends_at_midnight() {
        let ledger = ledger(true);
        for now_s in [DAY - 1, DAY, 2 * DAY - 1] {
            record(&ledger, now_s, "claude-opus-5-5", &[spend(Kind::Answered, 1)]);
        }
        let days: Vec<_> = ledger.rows().iter().map(|(key, row)| (key.day, row.attempts)).collect();
        assert_eq!(days, [(0, 1), (1, 2)]);
    }

    #[test]
    fn an_unknown_price_or_usage_is_counted_as_that() {
        let ledger = ledger(true);
        let known = record(&ledger, 5, "claude-opus-5-5", &[spend(Kind::Answered, 5), spend(Kind::Answered, 0)]);
        assert_eq!((known.cost.nanos(), known.unpriced), (100_000, 1), "of the second nobody said what it used");
        let unknown = record(&ledger, 5, "house-model", &[spend(Kind::Answered, 5)]);
        assert_eq!((unknown.cost, unknown.unpriced), (Usd::ZERO, 1));
        let fast = Spend { usage: Usage { output: 5, fast: true, ..Usage::default() }, ..spend(Kind::Answered, 5) };
        assert_eq!(record(&ledger, 5, "claude-opus-5-5", &[fast]).unpriced, 1, "the upstream says it was fast");
    }

    #[test]
    fn clients_cannot_make_rows_without_end() {
        let ledger = ledger(true);
        for n in 0..2 * NAMES_A_DAY_MAX {
            record(&ledger, 5, &format!("m{n}"), &[spend(Kind::Answered, 1)]);
        }
        let rows = ledger.rows();
        assert_eq!(rows.len(), NAMES_A_DAY_MAX + 1);
        let (_, other) = rows.iter().find(|(key, _)| &*key.model == OTHER).unwrap();
        assert_eq!((other.attempts, other.output), (1_000, 1_000), "nothing is lost");
        let priced = record(&ledger, 5, "claude-opus-5-5", &[spend(Kind::Answered, 1)]);
        assert_eq!(priced.cost.nanos(), 20_000, "who shares a name has its own price");
        record(&ledger, 5, "m0", &[spend(Kind::Answered, 1)]);
        assert_eq!(ledger.rows().len(), NAMES_A_DAY_MAX + 1, "who was there stays itself");
        record(&ledger, 5 + DAY * u64::from(DAYS_IN_MEMORY), "m", &[spend(Kind::Answered, 1)]);
        assert_eq!(ledger.rows().len(), 1, "two months later they are gone");
        record(&ledger, 5 + 62 * DAY, "", &[spend(Kind::Answered, 1)]);
        assert!(ledger.rows().keys().any(|key| &*key.model == OTHER), "no name is no name for the file either");
        let long = record(&ledger, 5 + 63 * DAY, &"x".repeat(10_000), &[spend(Kind::Answered, 1)]);
        assert_eq!(long.unpriced, 1);
        assert!(ledger.rows().keys().all(|key| key.model.len() <= 128));
    }

    #[test]
    fn rows_that_could_not_be_kept_come_back_to_the_others() {
        let ledger = ledger(false);
        ledger.knows(5, "acme", "m");
        record(&ledger, 5, "m", &[spend(Kind::Answered, 1)]);
        let taken = ledger.take();
        assert_eq!((taken.len(), ledger.rows().len()), (1, 0));
        record(&ledger, 5, "m", &[spend(Kind::Answered, 2)]);
        ledger.give_back(taken);
        assert_eq!(ledger.rows().values().map(|row| row.output).collect::<Vec<_>>(), [3]);
    }
}
