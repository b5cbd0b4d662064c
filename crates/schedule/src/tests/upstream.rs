//! What the upstream tells, and what is made of it: limits, 429s, keys, caps, failures.

use super::*;

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
fn after_a_429_that_tells_no_limits_a_silent_answer_does_not_hold_the_others() {
    let mut s = unmetered(&[keys(1)]);
    let refused = go(&mut s, at(0), ask());
    s.settle(at(10), refused, throttled(Throttle::Unnamed, 1_000));
    let waiting: Vec<_> = (0..3).map(|_| wait(&mut s, at(20), ask())).collect();
    let went = pass(&mut s, at(20), at(11_500));
    // None of them is answered: the window is one, and every five seconds it is tried with one more.
    let times: Vec<_> = went.iter().map(|(when, id, _)| (*when, *id)).collect();
    assert_eq!(times.iter().map(|(_, id)| *id).collect::<Vec<_>>(), waiting, "{times:?}");
    for ((when, _), due) in times.iter().zip([1_010, 6_010, 11_010]) {
        assert!((at(due)..at(due + 300)).contains(when), "{due}: {times:?}");
    }
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
fn a_huge_retry_after_is_tried_again_within_five_minutes() {
    let mut s = unmetered(&[keys(1)]);
    let a = go(&mut s, at(0), ask());
    s.settle(at(0), a, throttled(Throttle::Unnamed, 86_400_000));
    let ticket = wait(&mut s, at(1), Ask { band: Band::Background, ..ask() });
    let answers = pass(&mut s, at(1), at(301_000));
    assert_eq!((answers[0].0, answers[0].1), (at(300_000), ticket));
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
    assert_eq!(
        s.advance(at(2)),
        [(waiting, Verdict::Refuse(Refusal::NoKey { again: Some(Duration::from_millis(59_998)) }))]
    );
    assert_eq!(s.ask(at(3), ask()), Verdict::Refuse(Refusal::NoKey { again: Some(Duration::from_millis(59_997)) }));
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
fn each_own_credential_is_a_tenant_by_itself_and_goes_with_it() {
    let mut s = unmetered(&[keys(1)]);
    s.own_tenants(&TenantRules { requests: Some(1), ..TenantRules::default() });
    let (a, b) = (s.credential(at(0), 1), s.credential(at(0), 2));
    let own = |org: OrgId| Ask {
        pin: Some(Pin { org, workspace: None }),
        tenant: org.own_tenant(),
        latest: at(1_000),
        ..ask()
    };
    let first = go(&mut s, at(0), own(a));
    let spent = s.ask(at(1), own(a));
    assert!(matches!(spent, Verdict::Refuse(Refusal::Tenant { limit: TenantLimit::Requests, .. })), "{spent:?}");
    go(&mut s, at(1), own(b));
    s.settle(at(2), first, Outcome::Answered(None));
    for n in 10..5_000 {
        s.credential(at(n), n);
    }
    assert!(s.tenant_levels(at(6_000), a.own_tenant()).is_none(), "forgotten with its credential");
    assert!(s.shared.tenants.len() <= 1_026, "{}", s.shared.tenants.len());
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
    let spec = OrgSpec { keys: vec![None, Some(WorkspaceId(0))], workspaces: 1, ..OrgSpec::default() };
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
fn a_class_is_forgotten_only_while_nothing_of_it_goes_on() {
    let mut s = full(limits(6_000, 600_000, 600_000));
    let lease = go(&mut s, at(100), ask());
    assert!(!s.forget(CLASS), "one is under way");
    s.settle(at(200), lease, spent(100, 100));
    assert!(s.forget(CLASS) && s.forget(ClassId(7)));
    assert!(s.domains(at(200)).is_empty() && s.estimator(CLASS).answers() == 0);
    let lease = go(&mut s, at(300), ask());
    assert_eq!(s.domains(at(300))[0].knowledge, "unknown", "it begins anew");
    s.settle(at(300), lease, spent(100, 100));
    assert_eq!(s.audit(), Audit::default());
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

#[test]
fn what_the_upstream_refuses_to_read_is_not_charged() {
    let told = limits(6_000, 600_000, 600_000);
    let long = Ask { input: Mix { words: 1_300_000, ..Mix::default() }, ..ask() };
    for (head, left) in [(None, 590_000.0), (Some(600_000), 590_000.0), (Some(310_000), 300_000.0)] {
        let mut s = full(told);
        s.tenant(at(100), TenantId(0), &TenantRules { tokens: Some(1_000_000), ..TenantRules::default() });
        let lease = go(&mut s, at(100), long);
        assert!(s.domains(at(100))[0].meters[1].low < 310_000.0);
        s.sent(at(101), lease.id());
        if let Some(input) = head {
            s.heard(at(200), lease.id(), &levels(told, [5_999, input, 600_000]));
        }
        s.settle(at(200), lease, Outcome::Rejected);
        let low = s.domains(at(200))[0].meters[1].low;
        assert!((left..left + 12_000.0).contains(&low), "{head:?}: {low}");
        assert_eq!(s.tenant_levels(at(200), TenantId(0)).unwrap().tokens.unwrap().remaining, 1_000_000);
    }
}

#[test]
fn what_was_answered_before_a_429_stays_charged() {
    let mut s = full(limits(6_000, 600_000, 600_000));
    let output = |s: &Scheduler| s.domains(at(100))[0].meters[2].used;
    let before = output(&s);
    let lease = go(&mut s, at(100), ask());
    s.began(at(100), lease.id());
    s.progressed(at(100), &[(lease.id(), 500)]);
    s.settle(at(100), lease, throttled(Throttle::OutputTokens, 1_000));
    assert_eq!(output(&s) - before, 500.0);
}

#[test]
fn an_answer_that_came_whole_tells_nothing_of_how_answers_run() {
    let mut s = full(limits(6_000, 600_000, 600_000));
    let pace = |s: &Scheduler| (s.domains(at(0))[0].first_event, s.domains(at(0))[0].speed);
    let lease = go(&mut s, at(1_000), ask());
    let before = pace(&s);
    s.began(at(31_000), lease.id());
    s.settle(at(31_100), lease, spent(100, 900));
    assert_eq!(pace(&s), before);
    let lease = go(&mut s, at(32_000), ask());
    s.began(at(35_000), lease.id());
    s.settle(at(45_000), lease, spent(100, 1_000));
    assert!(pace(&s).0 > before.0 && pace(&s).1 > before.1, "{:?}", pace(&s));
}

#[test]
fn an_absurd_jitter_is_cut() {
    let rules = Rules { jitter: 86_400 * S, ..Rules::default() };
    let mut s = Scheduler::new(&[keys(1)], rules);
    let lease = go(&mut s, at(0), ask());
    let told = limits(6_000, 600_000, 600_000);
    s.sent(at(200_000), lease.id());
    s.heard(at(300_000), lease.id(), &levels(told, [6_000, 600_000, 600_000]));
    assert_eq!(s.domains(at(300_000))[0].knowledge, "metered");
}
