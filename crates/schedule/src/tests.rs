//! The scheduler through its own door, rule by rule. The judge (`tests/judge`) has the rest: what
//! comes of all rules together against an upstream.

use crate::*;
use std::collections::BTreeSet;
use std::time::Duration;
use tidegate_base::{Moment, Prng};

const CLASS: ClassId = ClassId(0);
const S: Duration = Duration::from_secs(1);

fn at(ms: u64) -> Moment {
    Moment::from_nanos(ms * 1_000_000)
}

fn keys(n: usize) -> OrgSpec {
    OrgSpec { keys: vec![None; n], ..OrgSpec::default() }
}

fn scheduler(orgs: &[OrgSpec]) -> Scheduler {
    Scheduler::new(orgs, Rules::default())
}

fn limits(requests: u64, input: u64, output: u64) -> Limits {
    Limits { requests: Some(requests), input_tokens: Some(input), output_tokens: Some(output) }
}

/// About a hundred tokens in.
fn ask() -> Ask {
    Ask {
        class: CLASS,
        tenant: TenantId(0),
        band: Band::Normal,
        latest: at(600_000),
        waited: Duration::ZERO,
        input: Mix { words: 435, ..Mix::default() },
        output_max: Some(1_000),
        seen: true,
        prefix: None,
        conversation: None,
        pin: None,
        avoid: None,
    }
}

fn go(s: &mut Scheduler, now: Moment, ask: Ask) -> Lease {
    match s.ask(now, ask) {
        Verdict::Go(lease) => lease,
        other => panic!("not at once: {other:?}"),
    }
}

fn wait(s: &mut Scheduler, now: Moment, ask: Ask) -> Ticket {
    match s.ask(now, ask) {
        Verdict::Wait(ticket) => ticket,
        other => panic!("should wait: {other:?}"),
    }
}

fn spent(input: u64, output: u64) -> Outcome {
    Outcome::Answered(Some(Spent { input, output, ..Spent::default() }))
}

fn throttled(by: Throttle, ms: u64) -> Outcome {
    Outcome::Throttled { by, retry_after: Some(Duration::from_millis(ms)) }
}

fn levels(limits: Limits, remaining: [u64; 3]) -> Levels {
    let level = |limit, n: usize| Level { limit, remaining: Some(remaining[n]) };
    Levels {
        requests: level(limits.requests, 0),
        input_tokens: level(limits.input_tokens, 1),
        output_tokens: level(limits.output_tokens, 2),
    }
}

/// An upstream that told of no limits for each of these organisations.
fn unmetered(orgs: &[OrgSpec]) -> Scheduler {
    let mut s = scheduler(orgs);
    for n in 0..orgs.len() {
        let pin = Some(Pin { org: OrgId(n as u32), workspace: None });
        let lease = go(&mut s, at(0), Ask { pin, ..ask() });
        s.began(at(0), lease.id());
        s.settle(at(0), lease, spent(100, 100));
    }
    s
}

/// Time passes from one wake to the next until `until`; what was answered.
fn pass(s: &mut Scheduler, from: Moment, until: Moment) -> Vec<(Moment, Ticket, Verdict)> {
    let (mut now, mut answers) = (from, Vec::new());
    for _ in 0..100_000 {
        answers.extend(s.advance(now).into_iter().map(|(t, v)| (now, t, v)));
        match s.wake_at(now).map(|at| at.max(now + Duration::from_millis(1))) {
            Some(at) if at <= until => now = at,
            _ => return answers,
        }
    }
    panic!("it wakes without end");
}

#[test]
fn the_least_busy_key_of_the_least_busy_organisation_goes_first() {
    let mut s = unmetered(&[keys(2), keys(1)]);
    let taken: Vec<_> = (0..4).map(|_| go(&mut s, at(1), ask()).lane()).map(|l| (l.org.0, l.key)).collect();
    assert_eq!(taken, [(0, 0), (1, 0), (0, 1), (1, 0)]);
    assert_eq!((s.leased(), s.audit()), (4, Audit { leases: 4, difference: 0.0 }));
}

#[test]
fn a_domain_that_is_not_known_is_asked_by_one_and_the_others_wait_for_its_answer() {
    let mut s = scheduler(&[keys(1)]);
    let probe = go(&mut s, at(0), ask());
    let others: Vec<Ticket> = (0..20).map(|_| wait(&mut s, at(1), ask())).collect();
    assert!(s.advance(at(2)).is_empty());
    assert_eq!(s.waits(at(2), others[0]).unwrap().reason, WaitsFor::Probe);
    // No limits in its answer: there are none.
    s.began(at(300), probe.id());
    assert_eq!(s.advance(at(300)).len(), 20);
    assert_eq!(s.domains(at(300))[0].knowledge, "unmetered");
}

#[test]
fn what_the_first_answer_tells_of_an_idle_organisation_is_believed_at_once() {
    let mut s = scheduler(&[keys(1)]);
    let probe = go(&mut s, at(0), ask());
    let others: Vec<Ticket> = (0..20).map(|_| wait(&mut s, at(1), ask())).collect();
    let told = levels(limits(1_000, 1_000_000, 400_000), [999, 1_000_000, 400_000]);
    s.heard(at(300), probe.id(), &told);
    assert_eq!(s.advance(at(300)).len(), others.len());
    let view = &s.domains(at(300))[0];
    assert_eq!((view.knowledge, view.meters[0].limit, view.meters[0].source), ("metered", Some(1_000), "header"));
    assert!(view.meters[1].low > 900_000.0, "{view:?}");
}

#[test]
fn a_full_organisation_is_not_leapt_upon() {
    let mut s = scheduler(&[keys(1)]);
    let probe = go(&mut s, at(0), ask());
    (0..1_000).for_each(|_| {
        wait(&mut s, at(1), ask());
    });
    let told = limits(3_000, 6_000_000, 12_000_000);
    s.heard(at(300), probe.id(), &levels(told, [2_999, 6_000_000, 12_000_000]));
    let went = pass(&mut s, at(300), at(20_000));
    let by = |ms: u64| went.iter().filter(|(when, ..)| *when <= at(ms)).count();
    assert!((90..170).contains(&by(500)), "{} at once, of 50 a second", by(500));
    assert!(by(1_200) < 500 && by(6_000) == 1_000, "{} {}", by(1_200), by(6_000));
}

#[test]
fn known_limits_begin_empty_and_let_through_what_refills() {
    let mut s = scheduler(&[keys(1)]);
    s.know(at(0), OrgId(0), None, CLASS, limits(60, 1_000_000, 1_000_000));
    go(&mut s, at(0), ask());
    (0..30).for_each(|_| {
        wait(&mut s, at(0), ask());
    });
    let went = pass(&mut s, at(0), at(20_000));
    let gone = went.iter().filter(|(_, _, v)| matches!(v, Verdict::Go(_))).count();
    assert!((17..=20).contains(&gone), "{gone} of one a second in 20 s");
}

#[test]
fn a_429_is_waited_for_as_long_as_the_upstream_asks() {
    let mut s = unmetered(&[keys(1)]);
    let (a, b) = (go(&mut s, at(0), ask()), go(&mut s, at(0), ask()));
    s.settle(at(10), a, throttled(Throttle::Unnamed, 5_000));
    let late = wait(&mut s, at(20), Ask { band: Band::Background, ..ask() });
    let soon = wait(&mut s, at(20), Ask { band: Band::Interactive, ..ask() });
    assert!(s.advance(at(20)).is_empty());
    assert_eq!(s.waits(at(20), soon).unwrap().reason, WaitsFor::RetryAfter);
    let answers = pass(&mut s, at(20), at(5_010));
    // One is in flight and the window shrank to 1.4: the urgent one goes, the other waits on.
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!((answers[0].0, answers[0].1), (at(5_010), soon));
    s.settle(at(5_020), b, Outcome::Answered(None));
    assert_eq!(s.advance(at(5_020))[0].0, late);
}

#[test]
fn after_a_limiter_refused_one_goes_alone_until_it_is_let_through() {
    let mut s = scheduler(&[keys(1)]);
    let told = limits(6_000, 6_000_000, 600_000);
    s.know(at(0), OrgId(0), None, CLASS, told);
    let first = go(&mut s, at(0), ask());
    s.heard(at(100), first.id(), &levels(told, [6_000, 6_000_000, 600_000]));
    s.settle(at(100), first, throttled(Throttle::OutputTokens, 1_000));
    (0..10).for_each(|_| {
        wait(&mut s, at(200), ask());
    });
    let mut answers = pass(&mut s, at(200), at(8_000));
    assert_eq!(answers.len(), 1, "{answers:?}");
    let Some((_, _, Verdict::Go(alone))) = answers.pop() else { panic!() };
    s.began(at(8_000), alone.id());
    assert_eq!(s.advance(at(8_000)).len(), 9);
}

#[test]
fn a_second_429_while_one_is_tried_does_not_shut_the_domain_for_ever() {
    let mut s = scheduler(&[keys(1)]);
    let told = limits(6_000, 6_000_000, 600_000);
    s.know(at(0), OrgId(0), None, CLASS, told);
    let first = go(&mut s, at(0), ask());
    s.heard(at(50), first.id(), &levels(told, [6_000, 6_000_000, 600_000]));
    let slow = go(&mut s, at(60), ask());
    s.settle(at(100), first, throttled(Throttle::OutputTokens, 1_000));
    wait(&mut s, at(200), ask());
    let Some((when, _, Verdict::Go(tried))) = pass(&mut s, at(200), at(9_000)).pop() else { panic!() };
    s.settle(when, slow, throttled(Throttle::OutputTokens, 2_000));
    s.began(when + S, tried.id());
    s.settle(when + 2 * S, tried, spent(100, 10));
    let next = wait(&mut s, when + S, ask());
    assert_eq!(pass(&mut s, when + S, when + 20 * S)[0].1, next);
}

#[test]
fn a_large_first_request_is_not_refused_by_limits_that_are_only_assumed() {
    let mut s = scheduler(&[keys(1)]);
    go(&mut s, at(0), Ask { input: Mix { words: 1_000_000, ..Mix::default() }, ..ask() });
}

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
fn those_bound_to_a_busy_place_hide_nobody() {
    let mut s = unmetered(&[keys(1), keys(1)]);
    let there = Ask { pin: Some(Pin { org: OrgId(0), workspace: None }), ..ask() };
    let one = go(&mut s, at(0), there);
    s.settle(at(0), one, throttled(Throttle::Unnamed, 50_000));
    (0..300).for_each(|_| {
        wait(&mut s, at(1), there);
    });
    go(&mut s, at(2), Ask { tenant: TenantId(1), ..ask() });
    go(&mut s, at(2), ask());
}

#[test]
fn a_slot_that_is_free_in_one_class_serves_the_tenant_in_another() {
    let mut s = scheduler(&[keys(1)]);
    s.tenant(at(0), TenantId(1), &TenantRules { concurrent: Some(1), ..TenantRules::default() });
    let one = Ask { tenant: TenantId(1), ..ask() };
    let first = go(&mut s, at(0), one);
    let second = wait(&mut s, at(0), Ask { class: ClassId(1), band: Band::Interactive, ..one });
    assert!(s.advance(at(1)).is_empty());
    s.settle(at(10), first, Outcome::Answered(None));
    assert_eq!(s.advance(at(10))[0].0, second);
}

#[test]
fn the_upstreams_failures_are_not_charged_to_the_tenant() {
    let mut s = unmetered(&[keys(1)]);
    s.tenant(at(0), TenantId(1), &TenantRules { requests: Some(3), ..TenantRules::default() });
    for n in 0..20 {
        let lease = go(&mut s, at(n), Ask { tenant: TenantId(1), ..ask() });
        s.settle(at(n), lease, Outcome::Overloaded { retry_after: None });
    }
}

#[test]
fn a_huge_retry_after_is_tried_again_within_five_minutes() {
    let mut s = unmetered(&[keys(1)]);
    let a = go(&mut s, at(0), ask());
    s.settle(at(0), a, throttled(Throttle::Unnamed, 86_400_000));
    let ticket = wait(&mut s, at(1), Ask { band: Band::Background, ..ask() });
    let answers = pass(&mut s, at(1), at(301_000));
    assert_eq!((answers[0].0, answers[0].1), (at(300_000), ticket));
}

#[test]
fn a_wait_that_cannot_end_in_time_is_refused_at_once_with_its_length() {
    let mut s = unmetered(&[keys(1)]);
    let a = go(&mut s, at(0), ask());
    s.settle(at(0), a, throttled(Throttle::Unnamed, 90_000));
    let Verdict::Refuse(Refusal::TooLong { retry_after }) = s.ask(at(0), ask()) else { panic!() };
    assert_eq!(retry_after, 30 * S, "from then on it could wait as long as it may");
    wait(&mut s, at(0), Ask { band: Band::Background, ..ask() });
    let waited = Ask { band: Band::Background, waited: 580 * S, ..ask() };
    assert!(matches!(s.ask(at(0), waited), Verdict::Refuse(Refusal::TooLong { .. })), "the cap is on all attempts");
}

#[test]
fn a_rejected_key_is_put_aside_and_tried_again_later_and_without_any_nobody_waits() {
    let mut s = unmetered(&[keys(2)]);
    let rejected = || Outcome::KeyRejected { retry_after: 60 * S };
    let (a, b, c) = (go(&mut s, at(0), ask()), go(&mut s, at(0), ask()), go(&mut s, at(0), ask()));
    s.settle(at(0), a, rejected());
    assert!((0..3).all(|_| go(&mut s, at(1), ask()).lane().key == 1));
    s.settle(at(1), c, throttled(Throttle::Unnamed, 1_000));
    let waiting = wait(&mut s, at(1), ask());
    s.settle(at(2), b, rejected());
    assert_eq!(s.advance(at(2)), [(waiting, Verdict::Refuse(Refusal::NoKey))]);
    assert_eq!(s.ask(at(3), ask()), Verdict::Refuse(Refusal::NoKey));
    go(&mut s, at(60_000), ask());
}

#[test]
fn an_organisation_at_its_spend_cap_is_left_out_and_if_there_is_no_other_it_is_said_so() {
    let mut s = unmetered(&[keys(1), keys(1)]);
    let cap = || Outcome::Throttled { by: Throttle::SpendCap, retry_after: Some(900 * S) };
    let a = go(&mut s, at(0), ask());
    s.settle(at(0), a, cap());
    let b = go(&mut s, at(1), ask());
    assert_eq!(b.lane().org, OrgId(1));
    s.settle(at(1), b, cap());
    assert!(matches!(s.ask(at(2), ask()), Verdict::Refuse(Refusal::SpendCap { .. })));
    go(&mut s, at(900_001), ask());
}

#[test]
fn what_lives_in_one_place_is_served_there_and_nowhere_else() {
    let mut s = unmetered(&[keys(1), keys(1)]);
    let pinned = Ask { pin: Some(Pin { org: OrgId(1), workspace: None }), ..ask() };
    assert!((0..5).all(|_| go(&mut s, at(0), pinned).lane().org == OrgId(1)));
    let one = go(&mut s, at(0), pinned);
    s.settle(at(0), one, throttled(Throttle::Unnamed, 5_000));
    wait(&mut s, at(1), pinned);
    assert_eq!(go(&mut s, at(1), ask()).lane().org, OrgId(0), "it holds nobody else up");
}

#[test]
fn the_lane_that_failed_is_avoided_if_another_is_open() {
    let mut s = unmetered(&[keys(2)]);
    let first = LaneId { org: OrgId(0), key: 0 };
    assert_ne!(go(&mut s, at(0), Ask { avoid: Some(first), ..ask() }).lane(), first);
    let mut s = unmetered(&[keys(1), keys(1)]);
    assert_ne!(go(&mut s, at(0), Ask { avoid: Some(first), ..ask() }).lane(), first);
}

#[test]
fn the_queue_has_a_number() {
    let queue = QueueRules { waiting_max: 1, ..QueueRules::default() };
    let mut s = Scheduler::new(&[keys(1)], Rules { queue, ..Rules::default() });
    go(&mut s, at(0), ask());
    let ticket = wait(&mut s, at(0), ask());
    assert!(matches!(s.ask(at(0), ask()), Verdict::Refuse(Refusal::QueueFull { .. })));
    s.cancel(at(0), ticket);
    wait(&mut s, at(0), ask());
    assert_eq!(s.waiting(), [0, 1, 0]);
}

#[test]
fn an_input_over_every_limit_is_refused_with_the_limit() {
    let mut s = scheduler(&[keys(1)]);
    s.know(at(0), OrgId(0), None, CLASS, limits(60, 10_000, 10_000));
    let huge = Ask { input: Mix { words: 1_000_000, ..Mix::default() }, ..ask() };
    assert_eq!(s.ask(at(0), huge), Verdict::Refuse(Refusal::TooLarge { tokens: 230_000, limit: 10_000 }));
}

#[test]
fn an_input_over_what_can_be_saved_up_goes_when_nothing_more_can_be_saved() {
    let mut s = scheduler(&[keys(1)]);
    let told = limits(600, 60_000, 60_000);
    s.know(at(0), OrgId(0), None, CLASS, told);
    let first = go(&mut s, at(0), ask());
    // A second's worth is all that was ever seen.
    s.heard(at(300), first.id(), &levels(told, [10, 1_000, 1_000]));
    s.settle(at(400), first, spent(100, 10));
    let large = wait(&mut s, at(500), Ask { input: Mix { words: 43_500, ..Mix::default() }, ..ask() });
    let small = wait(&mut s, at(600), ask());
    let answers = pass(&mut s, at(600), at(30_000));
    let went: Vec<_> = answers.iter().map(|(at, t, _)| (*t, *at)).collect();
    assert_eq!((went[0].0, went[1].0), (large, small), "nobody passes it: {answers:?}");
    assert!((at(9_000)..at(14_000)).contains(&went[0].1), "10,000 tokens at 1,000 a second: {:?}", went[0].1);
}

#[test]
fn a_tenants_own_limits_wait_and_then_refuse_by_name() {
    let mut s = unmetered(&[keys(1)]);
    let rules = TenantRules { requests: Some(60), concurrent: Some(100), ..TenantRules::default() };
    s.tenant(at(0), TenantId(1), &rules);
    let one = Ask { tenant: TenantId(1), ..ask() };
    (0..60).for_each(|_| {
        go(&mut s, at(0), one);
    });
    let waiting = wait(&mut s, at(0), one);
    go(&mut s, at(1), ask());
    assert!(s.advance(at(2)).is_empty());
    assert_eq!(s.waits(at(2), waiting).unwrap().reason, WaitsFor::Tenant(TenantLimit::Requests));
    assert_eq!(pass(&mut s, at(2), at(1_100))[0].1, waiting);
    let mut n = 0;
    let refused = loop {
        n += 1;
        match s.ask(at(1_200), one) {
            Verdict::Wait(_) if n < 100 => {}
            other => break other,
        }
    };
    assert!(matches!(refused, Verdict::Refuse(Refusal::Tenant { limit: TenantLimit::Requests, .. })), "{refused:?}");
    assert!((55..=61).contains(&n), "as many as its minute lets through: {n}");
    assert_eq!(s.tenant_levels(at(1_200), TenantId(1)).unwrap().requests.unwrap().remaining, 0);
    assert_eq!(s.tenant_levels(at(1_200), TenantId(0)), None);
}

#[test]
fn requests_at_once_are_counted_and_the_next_goes_when_one_ends() {
    let mut s = unmetered(&[keys(1)]);
    s.tenant(at(0), TenantId(1), &TenantRules { concurrent: Some(1), ..TenantRules::default() });
    let one = Ask { tenant: TenantId(1), ..ask() };
    let first = go(&mut s, at(0), one);
    let second = wait(&mut s, at(0), one);
    assert!(s.advance(at(1)).is_empty());
    s.settle(at(10), first, Outcome::Answered(None));
    assert_eq!(s.advance(at(10))[0].0, second);
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

#[test]
fn bands_share_by_weight_and_age() {
    let mut s = scheduler(&[keys(1)]);
    s.know(at(0), OrgId(0), None, CLASS, limits(600, 10_000_000, 10_000_000));
    go(&mut s, at(0), ask());
    let mut bands = std::collections::BTreeMap::new();
    for n in 0..600 {
        let band = Band::ALL[n % 3];
        let one = Ask { band, waited: Duration::ZERO, ..ask() };
        if let Verdict::Wait(ticket) = s.ask(at(0), one) {
            bands.insert(ticket, band);
        }
    }
    let went = pass(&mut s, at(0), at(10_000));
    let mut counts = [0; 3];
    went.iter().filter(|(.., v)| matches!(v, Verdict::Go(_))).for_each(|(_, t, _)| counts[bands[t] as usize] += 1);
    let all: i32 = counts.iter().sum();
    assert!((85..=105).contains(&all), "{counts:?}");
    assert!(counts[0] >= 70 && counts[1] >= 14 && counts[2] >= 3, "16 to 4 to 1: {counts:?}");
    let mut s = scheduler(&[keys(1)]);
    s.know(at(0), OrgId(0), None, CLASS, limits(60, 10_000_000, 10_000_000));
    go(&mut s, at(0), ask());
    let old = wait(&mut s, at(0), Ask { band: Band::Background, tenant: TenantId(9), ..ask() });
    let mut now = 0;
    let went = loop {
        now += 500;
        assert!(now < 120_000, "starved");
        let _ = s.ask(at(now), Ask { band: Band::Interactive, latest: at(now + 3_000), ..ask() });
        let answers = s.advance(at(now));
        if let Some(n) = answers.iter().position(|(t, _)| *t == old) {
            break matches!(answers[n].1, Verdict::Go(_));
        }
    };
    assert!(went);
}

#[test]
fn a_flood_delays_its_sender_and_nobody_else() {
    let mut s = scheduler(&[keys(1)]);
    s.know(at(0), OrgId(0), None, CLASS, limits(600, 10_000_000, 10_000_000));
    go(&mut s, at(0), ask());
    for _ in 0..500 {
        let _ = s.ask(at(0), ask());
    }
    let quiet = wait(&mut s, at(0), Ask { tenant: TenantId(1), ..ask() });
    let went = pass(&mut s, at(0), at(2_000));
    let place = went.iter().position(|(_, t, _)| *t == quiet).unwrap();
    assert!(place <= 1, "behind {place}");
}

#[test]
fn a_clients_own_credential_has_a_domain_and_a_queue_of_its_own() {
    let mut s = unmetered(&[keys(1)]);
    let (a, b) = (s.credential(at(0), 1), s.credential(at(0), 2));
    assert!(a != b && s.credential(at(1), 1) == a);
    let own = |org| Ask { pin: Some(Pin { org, workspace: None }), ..ask() };
    let lease = go(&mut s, at(1), own(a));
    assert_eq!(lease.lane(), LaneId { org: a, key: 0 });
    s.began(at(2), lease.id());
    s.settle(at(3), lease, throttled(Throttle::Unnamed, 5_000));
    wait(&mut s, at(4), own(a));
    go(&mut s, at(4), own(b));
    assert_eq!(go(&mut s, at(4), ask()).lane().org, OrgId(0));
    for n in 10..5_000 {
        s.credential(at(n), n);
    }
    assert_eq!(s.credential(at(6_000), 1), a, "somebody waits for it: it is kept");
}

#[test]
fn output_that_is_reserved_goes_only_if_all_of_it_is_there_and_comes_back() {
    let mut s = scheduler(&[OrgSpec { reserves_output: true, ..keys(1) }]);
    s.know(at(0), OrgId(0), None, CLASS, limits(60_000, 10_000_000, 60_000));
    let first = go(&mut s, at(0), Ask { output_max: Some(2_000), ..ask() });
    let second = wait(&mut s, at(1), Ask { output_max: Some(2_000), ..ask() });
    let answers = pass(&mut s, at(1), at(1_500));
    assert!(answers.is_empty(), "{answers:?}");
    s.settle(at(1_500), first, spent(100, 50));
    let answers = pass(&mut s, at(1_500), at(10_000));
    assert_eq!(answers[0].1, second);
    assert!(answers[0].0 < at(4_000), "{:?}", answers[0].0);
}

#[test]
fn a_workspace_is_held_to_its_own_limits_and_its_organisations() {
    let spec = OrgSpec { keys: vec![None, Some(WorkspaceId(0))], workspaces: 1, reserves_output: false };
    let mut s = scheduler(&[spec]);
    s.know(at(0), OrgId(0), None, CLASS, limits(600, 10_000_000, 10_000_000));
    s.know(at(0), OrgId(0), Some(WorkspaceId(0)), CLASS, limits(60, 10_000_000, 10_000_000));
    let there = Pin { org: OrgId(0), workspace: Some(Some(WorkspaceId(0))) };
    go(&mut s, at(0), ask());
    for _ in 0..40 {
        wait(&mut s, at(0), Ask { pin: Some(there), ..ask() });
        wait(&mut s, at(0), Ask { pin: Some(Pin { workspace: Some(None), ..there }), ..ask() });
    }
    let went = pass(&mut s, at(0), at(8_000));
    let own = |v: &Verdict| matches!(v, Verdict::Go(lease) if lease.lane().key == 1);
    let (inside, all) = (went.iter().filter(|(.., v)| own(v)).count(), went.len());
    assert!((5..=8).contains(&inside), "{inside} of one a second");
    assert!((40..=50).contains(&all), "{all}: the others' forty, and those");
}

#[test]
fn a_domain_that_fails_is_left_alone_if_there_is_another() {
    let mut s = unmetered(&[keys(1), keys(1)]);
    let first = Ask { pin: Some(Pin { org: OrgId(0), workspace: None }), ..ask() };
    for _ in 0..5 {
        let lease = go(&mut s, at(1), first);
        s.settle(at(1), lease, Outcome::Broken);
    }
    assert_eq!(s.domains(at(1))[0].breaker, "open");
    assert!((0..10).all(|_| go(&mut s, at(2), ask()).lane().org == OrgId(1)));
    let probe = go(&mut s, at(5_002), first);
    wait(&mut s, at(5_003), first);
    s.settle(at(5_100), probe, spent(1, 1));
    assert_eq!(s.advance(at(5_100)).len(), 1);
}

#[test]
fn a_429_for_growing_too_sharply_slows_everything_to_what_it_was() {
    let mut s = scheduler(&[keys(1)]);
    let told = limits(60_000, 60_000_000, 60_000_000);
    s.know(at(0), OrgId(0), None, CLASS, told);
    let mut now = 0;
    for n in 0..100 {
        now = n * 100;
        let lease = go(&mut s, at(now), ask());
        s.heard(at(now), lease.id(), &levels(told, [60_000, 60_000_000, 60_000_000]));
        s.settle(at(now), lease, spent(100, 10));
    }
    let lease = go(&mut s, at(now), ask());
    s.settle(at(now), lease, throttled(Throttle::Ramp, 1_000));
    let rate = s.domains(at(now))[0].meters[0].rate;
    assert!((8.0..10.0).contains(&rate), "nine tenths of ten a second: {rate}");
    let ticket = wait(&mut s, at(now + 1), ask());
    assert_eq!(pass(&mut s, at(now + 1), at(now + 2_000))[0].1, ticket);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 200, ..Default::default() })]

    /// Whatever happens, every ask is answered once, every lease comes back, and the books balance.
    #[test]
    fn nothing_is_lost_or_doubled(seed in 0u64..u64::MAX, metered in 0u8..3) {
        let mut prng = Prng::new(seed);
        let queue = QueueRules { waiting_max: 30, ..QueueRules::default() };
        let mut s = Scheduler::new(&[keys(2), keys(1)], Rules { queue, ..Rules::default() });
        let told = limits(600, 100_000, 100_000);
        if metered > 0 {
            s.know(at(0), OrgId(0), None, CLASS, told);
        }
        s.tenant(at(0), TenantId(2), &TenantRules { requests: Some(30), concurrent: Some(2), ..TenantRules::default() });
        let (mut now, mut held, mut tickets) = (0, Vec::<Lease>::new(), BTreeSet::new());
        for _ in 0..prng.between(1, 300) {
            now += prng.below(500);
            let any = |prng: &mut Prng, held: &mut Vec<Lease>| {
                (!held.is_empty()).then(|| held.swap_remove(prng.below(held.len() as u64) as usize))
            };
            match prng.below(10) {
                0..=3 => {
                    let prefix = prng.chance(0.3).then(|| Prefix { key: prng.below(3), share: 0.9, ttl: 60 * S });
                    let words = prng.between(10, 20_000) as u32;
                    let one = Ask {
                        tenant: TenantId(prng.below(3) as u32),
                        band: Band::ALL[prng.below(3) as usize],
                        latest: at(now + prng.below(30_000)),
                        input: Mix { words, ..Mix::default() },
                        seen: prng.chance(0.7),
                        prefix,
                        conversation: prefix,
                        ..ask()
                    };
                    match s.ask(at(now), one) {
                        Verdict::Go(lease) => held.push(lease),
                        Verdict::Wait(t) => { proptest::prop_assert!(tickets.insert(t)); }
                        Verdict::Refuse(_) => {}
                    }
                }
                4 => if let Some(t) = tickets.pop_first() { s.cancel(at(now), t) },
                5 => if let Some(lease) = held.last() {
                    s.sent(at(now), lease.id());
                    s.heard(at(now), lease.id(), &levels(told, [prng.below(600), prng.below(100_000), prng.below(100_000)]));
                },
                6 => if let Some(lease) = held.last() { s.began(at(now), lease.id()) },
                7 => {
                    let all: Vec<_> = held.iter().map(|l| (l.id(), prng.below(50) as u32)).collect();
                    s.progressed(at(now), &all);
                }
                _ => if let Some(lease) = any(&mut prng, &mut held) {
                    let outcome = match prng.below(8) {
                        0 => throttled(Throttle::InputTokens, prng.below(3_000)),
                        1 => Outcome::Broken,
                        2 => Outcome::NotSent,
                        3 => Outcome::Failed,
                        4 => Outcome::KeyRejected { retry_after: S },
                        5 => throttled(Throttle::Ramp, 100),
                        _ => spent(prng.below(9_000), prng.below(2_000)),
                    };
                    s.settle(at(now), lease, outcome);
                },
            }
            for (ticket, verdict) in s.advance(at(now)) {
                proptest::prop_assert!(tickets.remove(&ticket));
                if let Verdict::Go(lease) = verdict { held.push(lease) }
            }
            proptest::prop_assert_eq!(s.leased(), held.len() as u64);
            proptest::prop_assert_eq!(s.waiting().iter().sum::<usize>(), tickets.len());
            proptest::prop_assert_eq!(s.audit().difference, 0.0);
        }
        for lease in held.drain(..) { s.settle(at(now), lease, Outcome::Answered(None)) }
        for (_, ticket, verdict) in pass(&mut s, at(now), at(now + 700_000)) {
            proptest::prop_assert!(tickets.remove(&ticket));
            if let Verdict::Go(lease) = verdict { s.settle(at(now), lease, Outcome::Answered(None)) }
        }
        proptest::prop_assert!(tickets.is_empty());
        proptest::prop_assert_eq!(s.audit(), Audit::default());
    }
}
