//! A tenant's budget for a month: warned at a share of it, then refused, or served as background.
//!
//! What a request will cost is known when it has ended. So one that is admitted reserves what it is
//! thought to cost, and the budget counts as reached when what was spent and what is reserved are
//! as much as it. A budget can be overspent by what the requests under way cost beyond what was
//! reserved for them, and by the one that was let in last; nothing that is under way is ever cut.

use super::ledger::Ledger;
use super::prices::Prices;
use std::sync::Arc;
use tidegate_base::{Usd, first_day, month_of};
use tidegate_wire::usage::Usage;

/// Output tokens that an answer is thought to have while nothing is known of its tenant's.
const OUTPUT_USUAL: u64 = 1_024;
/// Each answer moves what the next is thought to have by this part of the difference.
const OUTPUT_LEARNS: u64 = 8;

/// What happens when a budget is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reached {
    /// Requests are refused until the month ends.
    #[default]
    Refuse,
    /// They are served as background, behind everybody else.
    Queue,
    /// Nothing but a word of it.
    Warn,
}

impl Reached {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Reached::Refuse => "refuse",
            Reached::Queue => "queue",
            Reached::Warn => "warn",
        }
    }
}

/// What becomes of a request whose price is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unpriced {
    /// It is served, and counted in tokens: the budget does not see it.
    #[default]
    Serve,
    /// It is refused.
    Refuse,
}

/// A tenant's budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// For a month of UTC.
    pub monthly: Usd,
    /// From this share on it is warned of, hundredths.
    pub warn_percent: u8,
    /// What happens when it is reached.
    pub reached: Reached,
    /// What becomes of a request whose price is not known.
    pub unpriced: Unpriced,
}

/// Why a request may not go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The month's budget is reached.
    Reached {
        /// The budget.
        monthly: Usd,
        /// What was spent of it.
        spent: Usd,
        /// What is reserved for requests under way.
        reserved: Usd,
        /// When the month ends, seconds after the epoch.
        anew: u64,
    },
    /// The model has no price, and this tenant's requests need one.
    NoPrice,
}

/// What a request that may go is told.
#[derive(Debug)]
pub struct Admitted {
    /// What it holds of the budget until it is settled.
    pub reservation: Reservation,
    /// It has to wait behind everybody else.
    pub background: bool,
    /// The share that was spent, hundredths, from the one on that is warned of.
    pub warned: Option<u64>,
}

/// What one request holds of its tenant's budget; dropping it gives it back, and does nothing else.
#[derive(Debug)]
pub struct Reservation {
    ledger: Arc<Ledger>,
    tenant: Arc<str>,
    amount: Usd,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.ledger.month(&self.tenant, |month| month.reserved = month.reserved.less(self.amount));
    }
}

/// That a share of a budget was passed, once a month and process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The one that is warned of.
    Warned,
    /// All of it.
    Reached,
}

/// A tenant's month.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Month {
    /// Which one.
    number: u32,
    pub(super) spent: Usd,
    pub(super) reserved: Usd,
    /// What was told last, and of which budget: one that is changed is told of again.
    noticed: Option<(Notice, Budget)>,
    /// Output tokens its answers have, about; 0 while nothing is known.
    output: u64,
}

impl Month {
    /// Begins anew if the month has. What is reserved is so still: it is spent in the month it ends in.
    pub(super) fn roll(&mut self, now_s: u64) {
        let number = month_of(now_s);
        if self.number != number {
            *self = Month { number, reserved: self.reserved, output: self.output, ..Month::default() };
        }
    }

    /// What was spent of the month `number`, as it stands in a file; of one that is over nothing is
    /// believed any more.
    pub(super) fn recount(&mut self, number: u32, spent: Usd) {
        if self.number > number {
            return;
        }
        if self.number < number {
            *self = Month { number, reserved: self.reserved, output: self.output, ..Month::default() };
        }
        self.spent = spent;
    }

    /// An answer had so many output tokens.
    pub(super) fn answered(&mut self, output: u64) {
        let before = if self.output == 0 { OUTPUT_USUAL } else { self.output };
        self.output = ((before * (OUTPUT_LEARNS - 1) + output) / OUTPUT_LEARNS).max(1);
    }

    /// What a request is thought to cost: its input as if nothing of it were cached, and the output
    /// that is usual.
    fn estimate(&self, prices: &Prices, model: &str, fast: bool, input: u64, output_max: Option<u64>) -> Option<Usd> {
        let usual = if self.output == 0 { OUTPUT_USUAL } else { self.output };
        let usage = Usage { input, output: usual.min(output_max.unwrap_or(u64::MAX)), ..Usage::default() };
        prices.of(model, fast).map(|price| price.cost(&usage))
    }

    /// Adds what was spent; whether a share was passed that nobody was told of yet.
    pub(super) fn spend(&mut self, cost: Usd, budget: Option<&Budget>) -> Option<Notice> {
        self.spent = self.spent.plus(cost);
        let budget = budget?;
        let percent = self.spent.percent_of(budget.monthly);
        let now = match percent {
            100.. => Notice::Reached,
            _ if percent >= u64::from(budget.warn_percent) => Notice::Warned,
            _ => return None,
        };
        let told = self.noticed.filter(|(_, of)| of == budget).map(|(notice, _)| notice);
        let is_news = told.is_none() || (now == Notice::Reached && told == Some(Notice::Warned));
        is_news.then(|| self.noticed.insert((now, *budget)).0)
    }
}

/// What a request is, as far as its cost is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The model asked for.
    pub model: &'a str,
    /// Whether a fast answer is.
    pub fast: bool,
    /// Input tokens, as an estimate.
    pub input: u64,
    /// The most output tokens.
    pub output_max: Option<u64>,
}

/// A budget and its month, as `/usage` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetView {
    /// The month, as `month_of` numbers them.
    pub month: u32,
    /// What was spent.
    pub spent: Usd,
    /// What is reserved.
    pub reserved: Usd,
}

impl Ledger {
    /// Whether a request may go under a tenant's budget; what it holds of it if so.
    pub fn admit(
        self: &Arc<Self>,
        now_s: u64,
        tenant: &Arc<str>,
        budget: &Budget,
        wanted: Wanted<'_>,
    ) -> Result<Admitted, Refused> {
        let (model, fast, prices) = (wanted.model, wanted.fast, self.prices());
        let admitted = self.month(tenant, |month| {
            month.roll(now_s);
            let estimate = month.estimate(&prices, model, fast, wanted.input, wanted.output_max);
            if estimate.is_none() && budget.unpriced == Unpriced::Refuse {
                return Err(Refused::NoPrice);
            }
            let is_reached = month.spent.plus(month.reserved) >= budget.monthly;
            if is_reached && budget.reached == Reached::Refuse {
                let (spent, reserved, anew) = (month.spent, month.reserved, first_day(month.number + 1) * 86_400);
                return Err(Refused::Reached { monthly: budget.monthly, spent, reserved, anew });
            }
            let amount = estimate.unwrap_or_default();
            month.reserved = month.reserved.plus(amount);
            let percent = month.spent.percent_of(budget.monthly);
            let warned = (percent >= u64::from(budget.warn_percent)).then_some(percent);
            Ok((amount, is_reached && budget.reached == Reached::Queue, warned))
        });
        let (amount, background, warned) = admitted?;
        let reservation = Reservation { ledger: Arc::clone(self), tenant: Arc::clone(tenant), amount };
        Ok(Admitted { reservation, background, warned })
    }

    /// What was spent and is reserved of a tenant's month.
    pub fn budget(&self, now_s: u64, tenant: &Arc<str>) -> BudgetView {
        self.month(tenant, |month| {
            month.roll(now_s);
            BudgetView { month: month.number, spent: month.spent, reserved: month.reserved }
        })
    }

    /// What a tenant had spent of this month before the process began.
    pub fn restore(&self, now_s: u64, tenant: &Arc<str>, spent: Usd) {
        self.month(tenant, |month| {
            month.roll(now_s);
            month.spent = month.spent.plus(spent);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::costs::{Kind, Spend};
    use crate::metrics::Metrics;

    /// 23 November 2026, 12:00 UTC.
    const NOON: u64 = 1_795_435_200;

    fn budget(reached: Reached) -> Budget {
        Budget { monthly: Usd::from_nanos(1_000_000_000), warn_percent: 80, reached, unpriced: Unpriced::Serve }
    }

    fn wanted(model: &str) -> Wanted<'_> {
        Wanted { model, fast: false, input: 0, output_max: Some(100_000) }
    }

    /// An answer of this many dollars' hundredths: Opus 5.5 takes 20 dollars for a million tokens.
    fn spend(ledger: &Ledger, tenant: &Arc<str>, now_s: u64, cents: u64, budget: &Budget) -> Option<Notice> {
        let usage = Usage { output: cents * 500, ..Usage::default() };
        let spend = Spend { kind: Kind::Answered, usage, estimated: false };
        ledger.record(now_s, tenant, "claude-opus-5-5", false, [spend], Some(budget)).notice
    }

    fn scene() -> (Arc<Ledger>, Arc<str>) {
        (Arc::new(Ledger::new(Prices::default(), Metrics::new(), false)), "acme".into())
    }

    #[test]
    fn a_budget_is_warned_of_once_reached_once_and_begins_anew_with_the_month() {
        let (ledger, acme) = scene();
        let budget = budget(Reached::Refuse);
        let told: Vec<_> = [79, 1, 19, 1, 50].map(|cents| spend(&ledger, &acme, NOON, cents, &budget)).into();
        assert_eq!(told, [None, Some(Notice::Warned), None, Some(Notice::Reached), None]);
        let refused = ledger.admit(NOON, &acme, &budget, wanted("claude-opus-5-5")).unwrap_err();
        let anew = 1_796_083_200; // 1 December 2026
        let (monthly, spent) = (budget.monthly, Usd::from_nanos(1_500_000_000));
        assert_eq!(refused, Refused::Reached { monthly, spent, reserved: Usd::ZERO, anew });
        assert!(ledger.admit(anew - 1, &acme, &budget, wanted("claude-opus-5-5")).is_err());
        let admitted = ledger.admit(anew, &acme, &budget, wanted("claude-opus-5-5")).unwrap();
        assert_eq!((admitted.background, admitted.warned), (false, None));
        assert_eq!(spend(&ledger, &acme, anew, 90, &budget), Some(Notice::Warned), "it is told of again");
    }

    #[test]
    fn requests_under_way_hold_their_part_until_they_are_settled() {
        let (ledger, acme) = scene();
        let budget = budget(Reached::Refuse);
        // 1,024 tokens are thought of: 2.048 cents; forty-nine of them are a dollar.
        let mut held = Vec::new();
        while let Ok(admitted) = ledger.admit(NOON, &acme, &budget, wanted("claude-opus-5-5")) {
            held.push(admitted);
            assert!(held.len() < 100);
        }
        assert_eq!(held.len(), 49);
        let other: Arc<str> = "zeta".into();
        assert!(ledger.admit(NOON, &other, &budget, wanted("claude-opus-5-5")).is_ok(), "another's is another");
        held.pop();
        assert!(ledger.admit(NOON, &acme, &budget, wanted("claude-opus-5-5")).is_ok());
        drop(held);
        assert_eq!(ledger.budget(NOON, &acme).reserved, Usd::ZERO);
    }

    #[test]
    fn what_is_reserved_follows_the_answers_and_never_exceeds_what_was_asked_for() {
        let (ledger, acme) = scene();
        let budget = budget(Reached::Warn);
        for _ in 0..100 {
            spend(&ledger, &acme, NOON, 20, &budget);
        }
        let reserved = |wanted: Wanted<'_>| {
            let _held = ledger.admit(NOON, &acme, &budget, wanted).unwrap();
            ledger.budget(NOON, &acme).reserved.nanos()
        };
        let all = reserved(wanted("claude-opus-5-5"));
        assert!((199_000_000..=200_000_000).contains(&all), "{all}: twenty cents each, rounded down");
        assert_eq!(reserved(Wanted { output_max: Some(10), ..wanted("claude-opus-5-5") }), 200_000);
        assert_eq!(reserved(Wanted { output_max: Some(10), input: 50, ..wanted("claude-opus-5-5") }), 400_000);
    }

    #[test]
    fn past_a_budget_a_request_waits_behind_all_others_or_is_only_told_as_it_is_set() {
        let (ledger, acme) = scene();
        spend(&ledger, &acme, NOON, 120, &budget(Reached::Queue));
        let of = |reached| {
            let admitted = ledger.admit(NOON, &acme, &budget(reached), wanted("claude-opus-5-5")).unwrap();
            (admitted.background, admitted.warned)
        };
        assert_eq!(of(Reached::Queue), (true, Some(120)));
        assert_eq!(of(Reached::Warn), (false, Some(120)));
    }

    #[test]
    fn a_model_without_a_price_is_served_or_refused_as_it_is_set() {
        let (ledger, acme) = scene();
        let strict = Budget { unpriced: Unpriced::Refuse, ..budget(Reached::Refuse) };
        assert_eq!(ledger.admit(NOON, &acme, &strict, wanted("m")).unwrap_err(), Refused::NoPrice);
        let _held = ledger.admit(NOON, &acme, &budget(Reached::Refuse), wanted("m")).unwrap();
        assert_eq!(ledger.budget(NOON, &acme).reserved, Usd::ZERO);
    }

    #[test]
    fn other_prices_hold_for_what_ends_from_then_on() {
        let (ledger, acme) = scene();
        let budget = budget(Reached::Refuse);
        spend(&ledger, &acme, NOON, 10, &budget);
        let mut prices = Prices::default();
        prices.set("claude-opus-5-5", false, crate::costs::Price::usual(8_000_000, 40_000_000));
        ledger.set_prices(prices);
        spend(&ledger, &acme, NOON, 10, &budget);
        assert_eq!(ledger.budget(NOON, &acme).spent, Usd::from_nanos(300_000_000), "ten cents, then twenty");
        let held = ledger.admit(NOON, &acme, &budget, wanted("claude-opus-5-5")).unwrap();
        let usual = ledger.budget(NOON, &acme).reserved.nanos();
        assert!(usual.is_multiple_of(40_000), "{usual}: by the new price");
        drop(held);
    }

    #[test]
    fn a_budget_that_was_changed_is_told_of_again() {
        let (ledger, acme) = scene();
        let small = budget(Reached::Refuse);
        let large = Budget { monthly: Usd::from_nanos(2_000_000_000), ..small };
        assert_eq!(spend(&ledger, &acme, NOON, 100, &small), Some(Notice::Reached));
        assert_eq!(spend(&ledger, &acme, NOON, 50, &large), None, "three quarters of it");
        assert_eq!(spend(&ledger, &acme, NOON, 20, &large), Some(Notice::Warned));
        assert_eq!(spend(&ledger, &acme, NOON, 30, &large), Some(Notice::Reached));
    }

    #[test]
    fn what_others_spent_is_read_and_what_is_not_written_yet_counts_beside_it() {
        let (ledger, acme) = scene();
        let budget = budget(Reached::Refuse);
        let cents = |cents: u64| Usd::from_nanos(cents * 10_000_000);
        spend(&ledger, &acme, NOON, 10, &budget);
        // Written: the file has it now, and what another process spent.
        ledger.take();
        spend(&ledger, &acme, NOON, 5, &budget);
        ledger.recount(NOON, [(Arc::clone(&acme), cents(10 + 70))]);
        assert_eq!(ledger.budget(NOON, &acme).spent, cents(85));
        ledger.recount(NOON, []);
        assert_eq!(ledger.budget(NOON, &acme).spent, cents(5), "only what is here");
        // A month that has begun meanwhile is not taken for the one before.
        let next = 1_796_083_200;
        spend(&ledger, &acme, next, 1, &budget);
        ledger.recount(NOON, [(Arc::clone(&acme), cents(80))]);
        assert_eq!(ledger.budget(next, &acme).spent, cents(1));
        ledger.recount(next, [(Arc::clone(&acme), cents(3))]);
        assert_eq!(ledger.budget(next, &acme).spent, cents(4), "what was spent in November is not December's");
    }

    #[test]
    fn what_was_spent_before_a_restart_counts() {
        let (ledger, acme) = scene();
        ledger.restore(NOON, &acme, Usd::from_nanos(999_999_999));
        let budget = budget(Reached::Refuse);
        let first = ledger.admit(NOON, &acme, &budget, wanted("claude-opus-5-5"));
        assert_eq!(first.map(|admitted| admitted.warned), Ok(Some(99)));
        spend(&ledger, &acme, NOON, 1, &budget);
        assert!(ledger.admit(NOON, &acme, &budget, wanted("claude-opus-5-5")).is_err());
    }
}
