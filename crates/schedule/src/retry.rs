//! Whether to try again, and when.
//!
//! Exponential backoff with full jitter: 50 ms, doubled each time, capped at 20 s, or what the
//! upstream asks for if that is longer. A try must fit the deadline. A budget keeps retries from
//! multiplying an outage: each retry costs tokens (14 for a failure, 5 for a refusal under load),
//! each success gives some back, and an empty budget means no. The prices and the 500 tokens are the
//! AWS SDKs' standard retry quota as of 2026 (scheduling page, A2.8). There a success gives one, which
//! is for a process with a few calls. Here a lost connection takes a hundred streams along, and one in
//! four may die on a bad night: so a success gives five, which lets a third as many be repeated as
//! succeed, and the budget holds as much as all that are under way would cost. A domain has one and a
//! tenant has one.
//!
//! A refusal under load (429, 529, 504) is another matter: the client is to see none while there is
//! time, so only its deadline ends it; after a 504, which has cost its time, also the number of
//! attempts. A spent budget makes such a try late, not impossible.

use std::time::Duration;
use tidegate_base::{Moment, Prng};

/// Why an attempt ended without an answer that can be given to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Name, TCP or TLS failed.
    Connect,
    /// The connection broke or closed before the answer's head.
    Broken,
    /// No first byte in time.
    FirstByte,
    /// The stream went silent.
    Gap,
    /// 500, 502, 503 or what means the same inside a stream.
    ServerError,
    /// 504, or `timeout_error` inside a stream: it waited there until its time was over.
    TimedOut,
    /// 529, or `overloaded_error` inside a stream.
    Overloaded,
    /// 429.
    Throttled,
    /// 401: the key is not accepted.
    KeyRejected,
    /// The stream ended, broke or turned to garbage before its content.
    BadStream,
}

impl Cause {
    /// Every cause, for metrics.
    pub const ALL: [Cause; 10] = [
        Cause::Connect,
        Cause::Broken,
        Cause::FirstByte,
        Cause::Gap,
        Cause::ServerError,
        Cause::TimedOut,
        Cause::Overloaded,
        Cause::Throttled,
        Cause::KeyRejected,
        Cause::BadStream,
    ];

    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Connect => "connect",
            Cause::Broken => "broken",
            Cause::FirstByte => "first_byte",
            Cause::Gap => "gap",
            Cause::ServerError => "server_error",
            Cause::TimedOut => "timed_out",
            Cause::Overloaded => "overloaded",
            Cause::Throttled => "throttled",
            Cause::KeyRejected => "key_rejected",
            Cause::BadStream => "bad_stream",
        }
    }

    /// The upstream would do it, but not now: waiting helps.
    pub fn is_refusal_under_load(self) -> bool {
        matches!(self, Cause::Overloaded | Cause::Throttled | Cause::TimedOut)
    }

    fn cost(self) -> u32 {
        match self {
            Cause::Overloaded | Cause::Throttled | Cause::TimedOut | Cause::KeyRejected => 5,
            _ => DEAREST,
        }
    }
}

/// The rules of retrying; every value is a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryRules {
    /// The most attempts of one request, the first included.
    pub attempts_max: u32,
    /// The first wait's upper bound; doubled for each further one.
    pub base: Duration,
    /// No wait of our own choosing is longer.
    pub cap: Duration,
    /// What the budget holds when full.
    pub budget: u32,
}

impl Default for RetryRules {
    fn default() -> Self {
        RetryRules { attempts_max: 10, base: Duration::from_millis(50), cap: Duration::from_secs(20), budget: 500 }
    }
}

/// What a success gives back.
const GIVEN: u32 = 5;
/// What the dearest retry costs.
const DEAREST: u32 = 14;

/// Tokens that retries are paid from.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    left: u32,
    full: u32,
}

impl RetryBudget {
    /// A full budget of `full` tokens.
    pub fn new(full: u32) -> Self {
        RetryBudget { left: full, full }
    }

    /// Tokens left.
    pub fn left(&self) -> u32 {
        self.left
    }

    /// An attempt succeeded, of so many that were under way at once.
    pub fn succeeded(&mut self, at_once: u32) {
        let full = self.full.max(at_once.saturating_mul(DEAREST));
        // What it holds from a time with more under way is not taken away.
        self.left = self.left.saturating_add(GIVEN).min(full.max(self.left));
    }

    /// Takes the price of a retry from all of them, or from none.
    fn pay(budgets: &mut [&mut RetryBudget], cause: Cause) -> bool {
        let price = cause.cost();
        let enough = budgets.iter().all(|budget| budget.left >= price);
        if enough {
            budgets.iter_mut().for_each(|budget| budget.left -= price);
        }
        enough
    }
}

/// Why there is no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// As many attempts as the rules allow were made.
    Attempts,
    /// The next would begin after the deadline. `wanted` is the wait it would have needed.
    Deadline {
        /// How long the next attempt would have had to wait.
        wanted: Duration,
    },
    /// Retries are failing so often that another would only add load.
    Budget,
}

/// The decision about one failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Try again at this moment.
    At(Moment),
    /// Tell the client.
    GiveUp(GiveUp),
}

/// The waits of one request.
#[derive(Clone, Debug)]
pub struct Backoff {
    rules: RetryRules,
    attempts: u32,
}

impl Backoff {
    /// Of a request that was not attempted yet.
    pub fn new(rules: RetryRules) -> Self {
        Backoff { rules, attempts: 0 }
    }

    /// Attempts so far.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// An attempt begins.
    pub fn begin(&mut self) {
        self.attempts += 1;
    }

    /// The attempt failed at `now`: again, or not? `asked` is the upstream's own wish to wait.
    pub fn failed(
        &mut self,
        cause: Cause,
        asked: Option<Duration>,
        now: Moment,
        deadline: Moment,
        budgets: &mut [&mut RetryBudget],
        prng: &mut Prng,
    ) -> Retry {
        let patient = cause.is_refusal_under_load();
        if self.attempts >= self.rules.attempts_max && (!patient || cause == Cause::TimedOut) {
            return Retry::GiveUp(GiveUp::Attempts);
        }
        let doublings = self.attempts.saturating_sub(1).min(20);
        let ceiling = (self.rules.base * 2u32.pow(doublings)).min(self.rules.cap);
        let mut wait = ceiling.mul_f64(prng.unit()).max(asked.unwrap_or_default());
        if now + wait >= deadline {
            return Retry::GiveUp(GiveUp::Deadline { wanted: wait });
        }
        if !RetryBudget::pay(budgets, cause) {
            if !patient {
                return Retry::GiveUp(GiveUp::Budget);
            }
            // As late as the longest backoff, but with half of what is left of its time to spare.
            wait = wait.max(self.rules.cap.min(now.until(deadline) / 2));
        }
        Retry::At(now + wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    struct Scene {
        backoff: Backoff,
        budget: RetryBudget,
        prng: Prng,
    }

    fn scene(seed: u64) -> Scene {
        let rules = RetryRules::default();
        Scene { backoff: Backoff::new(rules), budget: RetryBudget::new(rules.budget), prng: Prng::new(seed) }
    }

    impl Scene {
        fn fail(&mut self, cause: Cause, asked: Option<Duration>, deadline_s: u64) -> Retry {
            self.backoff.begin();
            let deadline = Moment::ZERO + S * deadline_s as u32;
            self.backoff.failed(cause, asked, Moment::ZERO, deadline, &mut [&mut self.budget], &mut self.prng)
        }
    }

    #[test]
    fn waits_stay_under_a_doubling_ceiling() {
        for seed in 0..200 {
            let mut s = scene(seed);
            for n in 0..9u32 {
                let Retry::At(at) = s.fail(Cause::ServerError, None, 3600) else { panic!("gave up") };
                let ceiling = (Duration::from_millis(50) * 2u32.pow(n)).min(Duration::from_secs(20));
                assert!(at.since(Moment::ZERO) <= ceiling, "seed {seed} attempt {n}");
            }
            assert_eq!(s.fail(Cause::ServerError, None, 3600), Retry::GiveUp(GiveUp::Attempts));
        }
    }

    #[test]
    fn the_upstreams_wish_is_honoured_and_the_deadline_kept() {
        let at = scene(1).fail(Cause::Throttled, Some(7 * S), 60);
        assert_eq!(at, Retry::At(Moment::ZERO + 7 * S));
        let wanted = 90 * S;
        assert_eq!(scene(1).fail(Cause::Throttled, Some(wanted), 60), Retry::GiveUp(GiveUp::Deadline { wanted }));
    }

    #[test]
    fn a_spent_budget_says_no_until_successes_fill_it() {
        let mut s = scene(2);
        s.budget = RetryBudget { left: 13, full: 500 };
        assert_eq!(s.fail(Cause::Broken, None, 60), Retry::GiveUp(GiveUp::Budget));
        assert_eq!(s.budget.left(), 13, "a refused retry costs nothing");
        s.budget.succeeded(1);
        assert!(matches!(s.fail(Cause::Broken, None, 60), Retry::At(_)));
        assert_eq!(s.budget.left(), 4);
    }

    #[test]
    fn it_holds_what_all_that_are_under_way_would_cost() {
        let mut budget = RetryBudget::new(500);
        budget.succeeded(10);
        assert_eq!(budget.left(), 500, "never less than it began with");
        (0..1_000).for_each(|_| budget.succeeded(100));
        assert_eq!(budget.left(), 1_400);
        budget.succeeded(1);
        assert_eq!(budget.left(), 1_400);
    }

    #[test]
    fn a_refusal_under_load_ends_with_the_deadline_alone() {
        let mut s = scene(3);
        s.budget = RetryBudget { left: 0, full: 500 };
        for _ in 0..30 {
            let Retry::At(at) = s.fail(Cause::Overloaded, None, 60) else { panic!("gave up") };
            assert!(at >= Moment::ZERO + 20 * S, "late, for want of budget");
        }
        assert!(matches!(s.fail(Cause::Overloaded, Some(61 * S), 60), Retry::GiveUp(GiveUp::Deadline { .. })));
    }

    #[test]
    fn either_budget_says_no_and_neither_pays_alone() {
        let (mut domain, mut tenant) = (RetryBudget::new(500), RetryBudget { left: 10, full: 500 });
        assert!(!RetryBudget::pay(&mut [&mut domain, &mut tenant], Cause::Broken));
        assert_eq!((domain.left(), tenant.left()), (500, 10));
        assert!(RetryBudget::pay(&mut [&mut domain, &mut tenant], Cause::Overloaded));
        assert_eq!((domain.left(), tenant.left()), (495, 5));
    }
}
