//! What was used: rows that only grow, by day, and go after their time.

use crate::{Folder, open};
use tidegate_store::{Settings, Store, StoreError, UsageFilter, UsageRow};

/// A row with every number from `n` on.
pub(crate) fn row(day: u32, model: &str, kind: u8, n: u64) -> UsageRow {
    UsageRow {
        day,
        tenant: "acme".to_owned(),
        model: model.to_owned(),
        kind,
        attempts: n,
        estimated: n + 1,
        unpriced: n + 2,
        input: n + 3,
        cache_read: n + 4,
        cache_write_5m: n + 5,
        cache_write_1h: n + 6,
        output: n + 7,
        nanos: n + 8,
    }
}

/// Every row there is.
pub(crate) fn all() -> UsageFilter {
    UsageFilter { to: u32::MAX, rows: 100_000, ..UsageFilter::default() }
}

#[test]
fn rows_add_up_and_are_there_after_another_opening() {
    let folder = Folder::new();
    let store = open(&folder.log());
    store.add_usage(vec![row(5, "m", 0, 100), row(5, "m", 1, 1), row(6, "m", 0, 1)]).wait().unwrap();
    store.add_usage(vec![row(5, "m", 0, 1_000), row(5, "m", 0, 0)]).wait().unwrap();
    drop(store);
    let store = open(&folder.log());
    let rows = store.usage(all()).wait().unwrap();
    assert_eq!(rows.iter().map(|r| (r.day, r.kind)).collect::<Vec<_>>(), [(5, 0), (5, 1), (6, 0)]);
    let sum = UsageRow {
        estimated: 1_103,
        unpriced: 1_106,
        input: 1_109,
        cache_read: 1_112,
        cache_write_5m: 1_115,
        cache_write_1h: 1_118,
        output: 1_121,
        nanos: 1_124,
        ..row(5, "m", 0, 1_100)
    };
    assert_eq!(rows[0], sum);
    assert_eq!(store.spent(5, 5).wait().unwrap(), [("acme".to_owned(), 1_124 + 9)]);
    assert_eq!(store.spent(7, 9).wait().unwrap(), []);
    assert_eq!(store.check().wait().unwrap(), [""; 0]);
}

#[test]
fn a_filter_reads_what_it_names_and_shows_that_there_is_more() {
    let folder = Folder::new();
    let store = open(&folder.log());
    let other = UsageRow { tenant: "zeta".to_owned(), ..row(6, "m", 0, 1) };
    store
        .add_usage(vec![row(5, "m", 0, 1), row(6, "m", 0, 1), row(6, "n", 0, 1), row(7, "m", 0, 1), other])
        .wait()
        .unwrap();
    let read = |filter: UsageFilter| store.usage(filter).wait().unwrap().len();
    assert_eq!(read(UsageFilter { from: 6, to: 6, ..all() }), 3);
    assert_eq!(read(UsageFilter { from: 6, to: 6, tenant: Some("acme".to_owned()), ..all() }), 2);
    assert_eq!(read(UsageFilter { model: Some("n".to_owned()), ..all() }), 1);
    assert_eq!(read(UsageFilter { rows: 2, ..all() }), 3, "one more than was asked for");
    assert!(store.retain_usage(7).wait().is_ok_and(|more| !more));
    assert_eq!(read(all()), 1);
}

#[test]
fn processes_that_share_a_file_add_to_the_same_rows_and_nobody_else_has_it_meanwhile() {
    let folder = Folder::new();
    let shared = || Store::open(&folder.log(), Settings { shared: true, ..Settings::default() });
    let (one, two) = (shared().unwrap(), shared().unwrap());
    let adding = |store: &Store| {
        let pending: Vec<_> = (0..50).map(|n| store.add_usage(vec![row(5, "m", n % 2, 1)])).collect();
        pending.into_iter().for_each(|pending| pending.wait().unwrap());
    };
    std::thread::scope(|scope| {
        scope.spawn(|| adding(&one));
        scope.spawn(|| adding(&two));
    });
    let rows = one.usage(all()).wait().unwrap();
    assert_eq!(rows.iter().map(|row| row.attempts).collect::<Vec<_>>(), [50, 50]);
    let alone = || Store::open(&folder.log(), Settings::default());
    assert!(matches!(alone(), Err(StoreError::Held { .. })));
    drop(one);
    assert_eq!(two.usage(all()).wait().unwrap(), rows, "the other one goes on");
    drop(two);
    let alone = alone().unwrap();
    assert!(matches!(shared(), Err(StoreError::Held { .. })), "who is alone stays alone");
    assert_eq!(alone.usage(all()).wait().unwrap(), rows);
}

#[test]
fn absurd_numbers_stay_the_largest_and_bad_rows_change_nothing() {
    let folder = Folder::new();
    let store = open(&folder.log());
    let most = i64::MAX as u64;
    for n in [u64::MAX - 8, 5, most] {
        store.add_usage(vec![row(5, "m", 0, n.min(u64::MAX - 8))]).wait().unwrap();
    }
    let rows = store.usage(all()).wait().unwrap();
    assert_eq!((rows[0].attempts, rows[0].nanos), (most, most));
    let long = row(5, &"x".repeat(600), 0, 1);
    let refused = store.add_usage(vec![row(9, "m", 0, 1), long]).wait();
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    let refused = store.add_usage(vec![row(9, "m", 0, 1); 10_001]).wait();
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
    assert_eq!(store.usage(all()).wait().unwrap().len(), 1);
}
