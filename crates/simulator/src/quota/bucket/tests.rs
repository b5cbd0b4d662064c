//! Levels, drains and accounts, by numbers and by properties.

use super::*;
use proptest::prelude::*;

fn at(ms: u64) -> Moment {
    Moment::from_nanos(ms * 1_000_000)
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn it_starts_full_and_refills_evenly() {
    let mut bucket = Bucket::new(60, MINUTE, at(0));
    bucket.take(60, at(0));
    assert_eq!(bucket.left(at(0)), 0);
    assert_eq!(bucket.left(at(999)), 0);
    assert_eq!(bucket.left(at(1_000)), 1);
    assert_eq!(bucket.until(1, at(1_000)), Some(Duration::ZERO));
    assert_eq!(bucket.until(5, at(1_500)), Some(Duration::from_millis(3_500)));
    assert_eq!(bucket.until_full(at(30_000)), Duration::from_secs(30));
    assert_eq!(bucket.left(at(600_000)), 60, "never more than its capacity");
}

#[test]
fn a_short_burst_saves_up_less_than_a_minute() {
    let mut bucket = Bucket::new(60, Duration::from_secs(1), at(0));
    assert_eq!(bucket.left(at(0)), 1);
    assert_eq!(bucket.until(2, at(0)), None);
}

#[test]
fn debt_is_paid_back_before_anything_passes() {
    let mut bucket = Bucket::new(60, MINUTE, at(0));
    bucket.take(90, at(0));
    assert_eq!(bucket.left(at(0)), 0);
    assert_eq!(bucket.until(1, at(0)), Some(Duration::from_secs(31)));
}

#[test]
fn a_lower_limit_holds_less_and_refills_slower_from_that_moment_on() {
    let mut bucket = Bucket::new(60, MINUTE, at(0));
    bucket.take(50, at(0));
    bucket.change(30, None, at(10_000));
    assert_eq!((bucket.limit(), bucket.left(at(10_000))), (30, 20), "10 and ten seconds at one a second");
    assert_eq!(bucket.left(at(20_000)), 25, "then at half of that");
    bucket.change(10, Some(Duration::from_secs(30)), at(20_000));
    assert_eq!(bucket.left(at(20_000)), 5, "half a minute of ten");
    assert_eq!(bucket.balance(at(20_000)).overflowed, 20);
}

#[test]
fn a_drain_takes_its_share_in_lumps() {
    let mut bucket = Bucket::new(60, MINUTE, at(0));
    bucket.drain(7, 30, Duration::from_secs(10), at(5_000));
    assert_eq!(bucket.left(at(14_999)), 60);
    assert_eq!(bucket.left(at(15_000)), 57, "three tenths of the ten that ten seconds bring");
    assert_eq!(bucket.left(at(24_999)), 60);
    assert_eq!(bucket.left(at(25_000)), 57);
    bucket.take(57, at(25_000));
    assert_eq!(bucket.left(at(45_000)), 14, "two periods of ten less three");
    bucket.undrain(7, at(45_000));
    assert_eq!(bucket.left(at(55_000)), 24);
    let balance = bucket.balance(at(55_000));
    assert_eq!((balance.foreign, balance.used), (12, 57));
}

#[test]
fn a_drain_is_served_even_where_nothing_is_left() {
    let mut bucket = Bucket::new(60, Duration::from_secs(1), at(0));
    bucket.take(1, at(0));
    bucket.drain(0, 100, Duration::from_secs(10), at(0));
    assert_eq!(bucket.balance(at(10_000)).level, 1 - 10);
}

#[test]
fn what_is_given_back_is_as_if_it_had_not_been_taken_up_to_a_full_bucket() {
    let mut bucket = Bucket::new(60, MINUTE, at(0));
    bucket.take(40, at(0));
    bucket.give(10, at(0));
    assert_eq!((bucket.left(at(0)), bucket.balance(at(0)).used), (30, 30));
    bucket.give(40, at(0));
    assert_eq!((bucket.left(at(0)), bucket.balance(at(0)).overflowed), (60, 10));
}

proptest! {
    #[test]
    fn asking_in_between_changes_nothing(limit in 1u64..10_000, steps in proptest::collection::vec((0u64..5_000, 0u64..50), 1..40)) {
        let (mut often, mut seldom) = (Bucket::new(limit, MINUTE, at(0)), Bucket::new(limit, MINUTE, at(0)));
        let mut now = 0;
        for (ms, tokens) in steps {
            now += ms;
            often.left(at(now.saturating_sub(ms / 2)));
            often.take(tokens, at(now));
            seldom.take(tokens, at(now));
        }
        prop_assert_eq!(often.left(at(now)), seldom.left(at(now)));
    }

    #[test]
    fn what_until_promises_is_there_exactly_then(limit in 1u64..1_000_000, taken in 0u64..2_000_000, wanted in 1u64..1_000_000) {
        let mut bucket = Bucket::new(limit, MINUTE, at(0));
        bucket.take(taken, at(0));
        if let Some(wait) = bucket.until(wanted, at(0)) {
            let then = at(0) + wait;
            prop_assert!(bucket.clone().left(then) >= wanted);
            if !wait.is_zero() {
                let before = then - Duration::from_nanos(1);
                prop_assert!(bucket.clone().left(before) < wanted);
            }
        }
    }

    #[test]
    fn the_account_explains_the_level(
        limit in 1u64..100_000, percent in 0u64..=100, every in 1u64..20_000, burst in 1u64..90,
        steps in proptest::collection::vec((0u64..30_000, 0u64..2_000, 0u8..5), 1..40),
    ) {
        let mut bucket = Bucket::new(limit, Duration::from_secs(burst), at(0));
        let mut now = 0;
        for (ms, tokens, kind) in steps {
            now += ms;
            match kind {
                0 => bucket.give(tokens, at(now)),
                1 => bucket.drain(1, percent, Duration::from_millis(every), at(now)),
                2 => bucket.undrain(1, at(now)),
                3 => bucket.change(limit / 2 + tokens, None, at(now)),
                _ => bucket.take(tokens, at(now)),
            }
            let Account { opened_with, refilled, overflowed, foreign, used } = bucket.account;
            prop_assert_eq!(bucket.level, opened_with + refilled - overflowed - foreign - used);
            prop_assert!(bucket.level <= bucket.capacity);
        }
    }

    #[test]
    fn a_drain_takes_the_same_however_often_one_looks(
        limit in 1u64..100_000, percent in 0u64..=100, every in 1u64..5_000, burst in 1u64..20,
        looks in proptest::collection::vec(0u64..20_000, 1..30), taken in 0u64..10_000,
    ) {
        let fresh = || {
            let mut bucket = Bucket::new(limit, Duration::from_secs(burst), at(0));
            bucket.take(taken, at(0));
            bucket.drain(1, percent, Duration::from_millis(every), at(0));
            bucket
        };
        let (mut often, mut seldom, mut now) = (fresh(), fresh(), 0);
        for ms in looks {
            now += ms;
            // A second drain of nothing keeps the first from leaping.
            often.drain(2, 0, Duration::from_secs(1), at(now));
            often.left(at(now));
        }
        prop_assert_eq!(often.balance(at(now)), seldom.balance(at(now)));
    }
}
