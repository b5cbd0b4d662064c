//! Costs: what settling writes down, where it is kept, and what admission asks of it.
//!
//! ```text
//!   settle ─▶ ledger ─▶ at once, then every quarter of a second ─▶ a table of an SQLite file
//!               │           what could not be written comes back, and is tried again
//!   /usage ◀────┴─ writes what is not written, then reads: nothing is told twice or left out
//! ```
//! The table is in the conversation log's file where there is one, or in a file of its own; with
//! neither, the ledger has what was used since the process began, and says so. A process that is
//! killed loses the last quarter of a second, and what was under way: of that nobody knows yet what
//! it used. Nothing on a request's path waits for the disk.

mod admit;
mod page;
mod rows;

pub(crate) use admit::{admit, admit_uncounted};
pub(crate) use page::page;

use crate::house::House;
use crate::memory::Memory;
use crate::settings::{Costs as Rules, Settings};
use crate::settle::{Account, End};
use crate::tenants::Tenants;
use rows::stored;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::{Duration, UNIX_EPOCH};
use tidegate_base::{Usd, first_day, month_of};
use tidegate_observe::{Kind, Ledger, Metrics, Notice, Spend};
use tidegate_store::{Store, StoreError, UsageFilter};
use tidegate_transport::{Clock, TaskKind};
use tidegate_wire::usage::Usage;
use tokio::sync::{Mutex, Notify};

/// Between two writes, while there is something to write: a sync of the disk takes milliseconds, and
/// turns of conversations share it.
const WRITE_EVERY: Duration = Duration::from_millis(250);
/// After a write that failed.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
/// How often days that are kept no longer are looked for.
const RETAIN_EVERY: Duration = Duration::from_secs(60 * 60);
/// How often it is read what all that write the file have spent of budgets, in the order of how long an
/// answer takes: a budget cannot be held more sharply than by what is under way.
const RECOUNT_EVERY: Duration = Duration::from_secs(60);
/// Rows in one write.
const WRITE_ROWS_MAX: usize = 5_000;
/// Rows of today that are read at start, for their names.
const NAMES_ROWS_MAX: u32 = 10_000;

pub(crate) const KEEPER: TaskKind = TaskKind {
    name: "usage keeper",
    on_cancel: "ends with the process, after the drain has written what was used",
    on_error: "says so and tries again in a second",
};

/// Where what was used is kept.
#[derive(Debug, Default)]
pub enum UsageFile {
    /// In memory, for as long as the process lives.
    #[default]
    Memory,
    /// In the conversation log's file.
    Conversations,
    /// In a file of its own.
    Own(Store),
}

/// The ledger and its file.
pub(crate) struct Costs {
    pub(crate) ledger: Arc<Ledger>,
    metrics: Metrics,
    file: UsageFile,
    clock: Clock,
    /// When the process began, seconds after the epoch.
    since_s: u64,
    kept_days: AtomicU32,
    /// As they are configured now: what settles has the budget of now, whatever it was when it came.
    tenants: Lock<Arc<Tenants>>,
    /// Held while rows are neither in the ledger nor surely in the file.
    writing: Mutex<()>,
    changed: Notify,
    failing: AtomicBool,
}

impl Costs {
    pub(crate) fn new(
        clock: Clock,
        settings: &Settings,
        tenants: Arc<Tenants>,
        metrics: Metrics,
        file: UsageFile,
    ) -> Self {
        let Rules { prices, kept_days } = &settings.costs;
        let keeps_all = matches!(file, UsageFile::Memory);
        Costs {
            ledger: Arc::new(Ledger::new(prices.clone(), metrics.clone(), keeps_all)),
            metrics,
            file,
            since_s: wall_s(clock),
            clock,
            kept_days: AtomicU32::new(*kept_days),
            tenants: Lock::new(tenants),
            writing: Mutex::new(()),
            changed: Notify::new(),
            failing: AtomicBool::new(false),
        }
    }

    /// Other prices, budgets and days from now on. What was spent stays as it was reckoned.
    pub(crate) fn renew(&self, settings: &Settings, tenants: &Arc<Tenants>) {
        self.ledger.set_prices(settings.costs.prices.clone());
        self.kept_days.store(settings.costs.kept_days, Ordering::Relaxed);
        let mut now = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *now, Arc::clone(tenants));
        for tenant in before.iter().filter(|tenant| tenant.budget.is_some()) {
            if now.named(&tenant.name).is_none_or(|tenant| tenant.budget.is_none()) {
                self.metrics.no_tenant_budget(&tenant.name);
            }
        }
    }

    fn tenants(&self) -> Arc<Tenants> {
        Arc::clone(&self.tenants.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Seconds after the epoch, by the machine's clock: days are the calendar's.
    pub(crate) fn now_s(&self) -> u64 {
        wall_s(self.clock)
    }

    pub(crate) fn kept_days(&self) -> u32 {
        self.kept_days.load(Ordering::Relaxed)
    }

    /// Where rows are written, if anywhere.
    fn store<'a>(&'a self, memory: &'a Memory) -> Option<&'a Store> {
        match &self.file {
            UsageFile::Memory => None,
            UsageFile::Conversations => memory.store().ok(),
            UsageFile::Own(store) => Some(store),
        }
    }

    /// Whether rows are written somewhere.
    pub(crate) fn is_kept(&self, memory: &Memory) -> bool {
        self.store(memory).is_some()
    }

    /// Reads what was spent this month, and which names have rows today.
    pub(crate) async fn restore(&self, memory: &Memory) -> Result<(), StoreError> {
        let Some(store) = self.store(memory) else { return Ok(()) };
        let now_s = self.now_s();
        let (first, today) = (days(first_day(month_of(now_s))), days(now_s / 86_400));
        for (tenant, nanos) in store.spent(first, today).await? {
            self.ledger.restore(now_s, &tenant.into(), Usd::from_nanos(nanos));
        }
        let of_today = UsageFilter { from: today, to: today, rows: NAMES_ROWS_MAX, ..UsageFilter::default() };
        for row in store.usage(of_today).await? {
            self.ledger.knows(now_s, &row.tenant, &row.model);
        }
        Ok(())
    }

    /// Writes what is not written yet.
    pub(crate) async fn write(&self, memory: &Memory) -> Result<(), StoreError> {
        let Some(store) = self.store(memory) else { return Ok(()) };
        let _writing = self.writing.lock().await;
        self.write_alone(store).await
    }

    /// The same, by whoever has the lock.
    async fn write_alone(&self, store: &Store) -> Result<(), StoreError> {
        let mut rows = self.ledger.take();
        while !rows.is_empty() {
            let rest = rows.iter().nth(WRITE_ROWS_MAX).map(|(key, _)| key.clone());
            let rest = rest.map(|key| rows.split_off(&key)).unwrap_or_default();
            let changes = rows.iter().map(|(key, row)| stored(key, row)).collect();
            if let Err(error) = store.add_usage(changes).await {
                self.ledger.give_back(rows);
                self.ledger.give_back(rest);
                return Err(error);
            }
            rows = rest;
        }
        Ok(())
    }

    /// A request was settled.
    pub(crate) fn record(&self, house: &House, account: &Account, end: End) {
        let mut spends = spends(account, end).peekable();
        let Some(tenant) = account.tenant.as_ref().filter(|_| spends.peek().is_some()) else { return };
        let tenants = self.tenants();
        let budget = tenants.named(tenant).and_then(|tenant| tenant.budget.as_ref());
        let recorded = self.ledger.record(self.now_s(), tenant, &account.model, account.fast, spends, budget);
        self.changed.notify_one();
        let Some((notice, budget)) = recorded.notice.zip(budget) else { return };
        let (monthly, spent) = (budget.monthly, self.ledger.budget(self.now_s(), tenant).spent);
        match notice {
            Notice::Warned => {
                house.metrics.budget_action(tenant, "warned");
                tracing::warn!(target: "tidegate::costs", %tenant, %spent, %monthly, "a tenant has spent most of its budget");
            }
            Notice::Reached => {
                house.metrics.budget_action(tenant, "reached");
                let then = budget.reached.name();
                tracing::warn!(target: "tidegate::costs", %tenant, %spent, %monthly, then, "a tenant has reached its budget");
            }
        }
    }

    /// Reads what was spent of budgets by all that write the file: a process that shares it, or the one
    /// before this that still ends its streams.
    async fn recount(&self, store: &Store) -> Result<(), StoreError> {
        if self.tenants().iter().all(|tenant| tenant.budget.is_none()) {
            return Ok(());
        }
        // Held until the sums are in place: what is not in the file is in the ledger.
        let _writing = self.writing.lock().await;
        self.write_alone(store).await?;
        let now_s = self.now_s();
        let (first, today) = (days(first_day(month_of(now_s))), days(now_s / 86_400));
        let spent = store.spent(first, today).await?;
        self.ledger.recount(now_s, spent.into_iter().map(|(tenant, nanos)| (tenant.into(), Usd::from_nanos(nanos))));
        Ok(())
    }

    /// Forgets days that are kept no longer.
    async fn retain(&self, store: &Store) -> Result<(), StoreError> {
        let oldest = days(self.now_s() / 86_400).saturating_sub(self.kept_days());
        while store.retain_usage(oldest).await? {}
        Ok(())
    }
}

/// Writes what was used, for as long as the process lives.
pub(crate) async fn keep(house: Arc<House>) {
    let (costs, clock) = (&house.costs, house.clock);
    let Some(store) = costs.store(&house.memory) else { return };
    let (mut retain_at, mut recount_at) = (clock.now(), clock.now() + RECOUNT_EVERY);
    let mut elder_ended = std::pin::pin!(house.memory.succession.elder_ended());
    let mut is_heir = true;
    loop {
        let woken = async {
            tokio::select! {
                () = costs.changed.notified() => false,
                () = &mut elder_ended, if is_heir => true,
            }
        };
        if clock.by(retain_at.min(recount_at), woken).await == Some(true) {
            // What the process before this one wrote last is there.
            (is_heir, recount_at) = (false, clock.now());
        }
        let mut done = costs.write(&house.memory).await;
        if done.is_ok() && clock.now() >= retain_at {
            done = costs.retain(store).await;
            retain_at = clock.now() + RETAIN_EVERY;
        }
        if done.is_ok() && clock.now() >= recount_at {
            done = costs.recount(store).await;
            recount_at = clock.now() + RECOUNT_EVERY;
        }
        let failing = done.is_err();
        if let Err(error) = done {
            house.metrics.usage_not_written();
            if !costs.failing.load(Ordering::Relaxed) {
                tracing::error!(target: "tidegate::costs", %error, "what was used cannot be written; it is kept in memory and tried again");
            }
            // Whoever waits for a change would wait although there is one.
            costs.changed.notify_one();
        }
        if costs.failing.swap(failing, Ordering::Relaxed) && !failing {
            tracing::info!(target: "tidegate::costs", "what was used can be written again");
        }
        clock.sleep_until(clock.now() + if failing { WRITE_AGAIN } else { WRITE_EVERY }).await;
    }
}

/// The attempts of a request, with what became of each.
fn spends(account: &Account, end: End) -> impl Iterator<Item = Spend> {
    let kind = move |attempt: u32| match end {
        _ if account.is_errand => Kind::Summary,
        _ if attempt < account.attempts => Kind::Retried,
        End::Answered => Kind::Answered,
        _ => Kind::Abandoned,
    };
    let used = |usage: &Usage| usage.input | usage.cache_creation | usage.cache_read | usage.output > 0;
    let told = account.uses.iter().filter(move |one| used(&one.usage));
    let spends = told.map(move |one| Spend { kind: kind(one.attempt), usage: one.usage, estimated: one.estimated });
    let is_told = |attempt| account.uses.iter().any(|one| one.attempt == attempt && used(&one.usage));
    // The upstream did not say what its answer used: an attempt of unknown cost.
    let is_mute = end == End::Answered && account.costs && account.attempts > 0 && !is_told(account.attempts);
    let mute = || Spend { kind: kind(account.attempts), usage: Usage::default(), estimated: false };
    spends.chain(is_mute.then(mute))
}

fn wall_s(clock: Clock) -> u64 {
    clock.shared_wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A number of days; those that do not fit are millions of years away.
fn days(days: u64) -> u32 {
    u32::try_from(days).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settle::Use;

    fn account(uses: &[(u32, u64)], attempts: u32) -> Account {
        let of = |&(attempt, output): &(u32, u64)| Use {
            attempt,
            usage: Usage { output, ..Usage::default() },
            estimated: false,
        };
        Account { uses: uses.iter().map(of).collect(), attempts, costs: true, ..Account::default() }
    }

    fn kinds(account: &Account, end: End) -> Vec<(&'static str, u64)> {
        spends(account, end).map(|spend| (spend.kind.name(), spend.usage.output)).collect()
    }

    #[test]
    fn every_attempt_that_used_something_is_what_became_of_it() {
        let three = account(&[(1, 5), (2, 6), (3, 7)], 3);
        assert_eq!(kinds(&three, End::Answered), [("retried", 5), ("retried", 6), ("answered", 7)]);
        assert_eq!(kinds(&three, End::ClientLeft), [("retried", 5), ("retried", 6), ("abandoned", 7)]);
        // The last attempt was refused and used nothing.
        assert_eq!(kinds(&account(&[(1, 5), (2, 0)], 2), End::UpstreamFailed), [("retried", 5)]);
        let errand = Account { is_errand: true, ..account(&[(1, 5)], 1) };
        assert_eq!(kinds(&errand, End::Answered), [("summary", 5)]);
    }

    #[test]
    fn an_answer_of_which_nothing_was_told_is_an_attempt_of_unknown_cost() {
        assert_eq!(kinds(&account(&[], 1), End::Answered), [("answered", 0)]);
        assert_eq!(kinds(&account(&[(1, 0)], 1), End::Answered), [("answered", 0)]);
        assert_eq!(kinds(&account(&[], 0), End::Answered), [], "a turn that was there already");
        assert_eq!(kinds(&account(&[], 1), End::Said), [], "the upstream's refusal costs nothing");
        let counting = Account { costs: false, ..account(&[], 1) };
        assert_eq!(kinds(&counting, End::Answered), [], "counting tokens is free");
    }
}
