//! What the prompt cache has to do with it: leaders, followers, conversations at home.

use super::*;

#[test]
fn a_leader_that_hangs_holds_nobody_for_long_and_what_is_not_cached_has_none() {
    let mut s = unmetered(&[keys(1)]);
    let prefix = Some(Prefix { key: 7, share: 0.9, ttl: 300 * S });
    let long = Ask { prefix, input: Mix { words: 43_500, ..Mix::default() }, ..ask() };
    let leader = go(&mut s, at(0), long);
    (0..3).for_each(|_| {
        wait(&mut s, at(1), long);
    });
    let went = pass(&mut s, at(1), at(10_000));
    assert_eq!(went.len(), 3, "{went:?}");
    assert!((at(2_000)..at(4_000)).contains(&went[0].0), "{:?}", went[0].0);
    // It was answered, and nothing of it was cached: the next ones go side by side.
    s.began(at(11_000), leader.id());
    s.settle(at(12_000), leader, spent(10_000, 10));
    (0..3).for_each(|_| {
        go(&mut s, at(12_001), long);
    });
}

#[test]
fn one_goes_ahead_to_fill_the_cache_and_the_others_follow_when_it_is_answered() {
    let mut s = unmetered(&[keys(1)]);
    let prefix = Some(Prefix { key: 7, share: 0.9, ttl: 300 * S });
    let long = Ask { prefix, input: Mix { words: 43_500, ..Mix::default() }, ..ask() };
    let leader = go(&mut s, at(0), long);
    let followers: BTreeSet<Ticket> = (0..5).map(|_| wait(&mut s, at(1), long)).collect();
    assert!(s.advance(at(1)).is_empty());
    assert!(followers.iter().all(|t| s.waits(at(2), *t).unwrap().reason == WaitsFor::Prefix));
    go(&mut s, at(2), Ask { prefix: Some(Prefix { key: 8, share: 0.01, ttl: 300 * S }), ..long });
    s.began(at(700), leader.id());
    let released: BTreeSet<Ticket> = s.advance(at(700)).into_iter().map(|(t, _)| t).collect();
    assert_eq!(released, followers);
    go(&mut s, at(701), long);
}

#[test]
fn when_the_one_ahead_fails_another_takes_its_place() {
    let mut s = unmetered(&[keys(1)]);
    let prefix = Some(Prefix { key: 7, share: 0.9, ttl: 300 * S });
    let long = Ask { prefix, input: Mix { words: 43_500, ..Mix::default() }, ..ask() };
    let leader = go(&mut s, at(0), long);
    (0..3).for_each(|_| {
        wait(&mut s, at(1), long);
    });
    assert!(s.advance(at(1)).is_empty());
    s.settle(at(500), leader, Outcome::Broken);
    assert_eq!(s.advance(at(500)).len(), 1);
    assert_eq!(s.waiting(), [0, 2, 0]);
}

#[test]
fn a_conversation_stays_where_it_is_warm_until_leaving_is_cheaper() {
    let orgs = [keys(1), keys(1)];
    let mut s = scheduler(&orgs);
    let told = limits(60_000, 600_000, 6_000_000);
    let mut first = Vec::new();
    for n in 0..2 {
        s.know(at(0), OrgId(n), None, CLASS, told);
        let lease = go(&mut s, at(0), Ask { pin: Some(Pin { org: OrgId(n), workspace: None }), ..ask() });
        s.heard(at(100), lease.id(), &levels(told, [60_000, 600_000, 6_000_000]));
        first.push(lease);
    }
    first.into_iter().for_each(|lease| s.settle(at(200), lease, spent(100, 100)));
    let conversation = Some(Prefix { key: 5, share: 1.0, ttl: 300 * S });
    let turn = Ask { conversation, input: Mix { words: 87_000, ..Mix::default() }, ..ask() };
    let lease = go(&mut s, at(1_000), turn);
    let home = lease.lane().org;
    s.began(at(1_500), lease.id());
    let cached = Spent { cache_creation: 19_900, input: 100, output: 100, cache_read: 0 };
    s.settle(at(3_000), lease, Outcome::Answered(Some(cached)));
    for n in 0..20 {
        let lease = go(&mut s, at(4_000 + n), turn);
        assert_eq!(lease.lane().org, home, "the busier of the two, and still the cheaper");
    }
    // Its home asks for half a second's patience: 20,000 tokens elsewhere would cost two seconds.
    let one = go(&mut s, at(5_000), turn);
    s.settle(at(5_000), one, throttled(Throttle::Unnamed, 500));
    wait(&mut s, at(5_001), turn);
    let answers = pass(&mut s, at(5_001), at(5_600));
    let Some((_, _, Verdict::Go(lease))) = answers.first() else { panic!("{answers:?}") };
    assert_eq!(lease.lane().org, home);
    s.began(at(5_700), lease.id());
    // And for ten seconds': too long.
    let one = go(&mut s, at(6_000), turn);
    s.settle(at(6_000), one, throttled(Throttle::Unnamed, 10_000));
    assert_ne!(go(&mut s, at(6_001), turn).lane().org, home);
}
