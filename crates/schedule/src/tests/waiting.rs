//! Who waits, for how long, and who is refused: bands, tenants, sizes.

use super::*;

#[test]
fn a_large_first_request_is_not_refused_by_limits_that_are_only_assumed() {
    let mut s = scheduler(&[keys(1)]);
    go(&mut s, at(0), Ask { input: Mix { words: 1_000_000, ..Mix::default() }, ..ask() });
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
fn an_estimate_alone_refuses_nobody() {
    let mut s = scheduler(&[keys(1)]);
    s.know(at(0), OrgId(0), None, CLASS, limits(60, 10_000, 10_000));
    // Estimated at 40,000 tokens; it is an image, and will have 1,600.
    let image = Ask { input: Mix { words: 400, encoded: 5_000_000, ..Mix::default() }, ..ask() };
    let lease = go(&mut s, at(0), image);
    s.counted(at(500), lease.id(), 1_700);
    s.settle(at(1_000), lease, spent(1_700, 10));
    // Over the limit as estimated, and perhaps not in truth.
    let text = |words| Ask { input: Mix { words, ..Mix::default() }, band: Band::Background, ..ask() };
    let ticket = wait(&mut s, at(1_000), text(80_000));
    let answers = pass(&mut s, at(1_000), at(120_000));
    let Some((when, _, Verdict::Go(_))) = answers.first().filter(|(_, t, _)| *t == ticket) else {
        panic!("{answers:?}")
    };
    assert!(*when < at(100_000), "{when:?}");
    assert!(matches!(s.ask(at(120_000), text(400_000)), Verdict::Refuse(Refusal::TooLarge { .. })));
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
fn nobody_is_in_debt_for_what_he_took_while_nobody_else_waited() {
    let mut s = full(limits(60_000, 60_000_000, 6_000_000));
    let of = |tenant| Ask { tenant: TenantId(tenant), output_max: None, ..ask() };
    // While nobody waits the first tenant begins a hundred answers, believed to be short.
    let early: Vec<Lease> = (0..100).map(|n| go(&mut s, at(1_000 + n), of(0))).collect();
    // Then the organisation is closed for a while, and both queue up.
    let refused = go(&mut s, at(1_200), of(1));
    s.settle(at(1_200), refused, throttled(Throttle::Unnamed, 5_000));
    let mut whose = std::collections::BTreeMap::new();
    for n in 0..400 {
        let tenant = n % 2;
        whose.insert(wait(&mut s, at(1_300), of(tenant)), tenant);
    }
    // Meanwhile the early ones turn out to be long.
    early.into_iter().for_each(|lease| s.settle(at(1_400), lease, spent(100, 4_000)));
    let (mut counts, mut now) = ([0; 2], at(1_400));
    while counts[0] + counts[1] < 100 && now < at(60_000) {
        now = now + Duration::from_millis(20);
        for (ticket, verdict) in s.advance(now) {
            if counts[0] + counts[1] < 100 {
                counts[whose[&ticket] as usize] += 1;
            }
            let Verdict::Go(lease) = verdict else { panic!("{verdict:?}") };
            s.began(now, lease.id());
            s.settle(now, lease, spent(100, 100));
        }
    }
    assert!(counts[0] >= 40 && counts[1] >= 40, "of the first hundred: {counts:?}");
}

#[test]
fn what_is_saved_for_is_not_looked_at_all_the_time() {
    let mut s = scheduler(&[keys(1)]);
    let told = limits(6_000, 600_000, 600_000);
    s.know(at(0), OrgId(0), None, CLASS, told);
    // Three seconds' worth is all that was ever seen, and the limit recovers from a 429: what is needed
    // for a large request, jitter's part with it, grows while it waits.
    for n in 0..2 {
        let lease = go(&mut s, at(n * 1_000), ask());
        s.heard(at(n * 1_000 + 50), lease.id(), &levels(told, [6_000, 30_000, 600_000]));
        s.settle(at(n * 1_000 + 60), lease, if n == 0 { spent(100, 10) } else { throttled(Throttle::InputTokens, 0) });
    }
    let large = wait(&mut s, at(7_000), Ask { input: Mix { words: 200_000, ..Mix::default() }, ..ask() });
    let (mut now, mut looks) = (at(7_000), 0);
    let went = loop {
        if let Some((ticket, verdict)) = s.advance(now).pop() {
            break (ticket, verdict);
        }
        looks += 1;
        now = s.wake_at(now).unwrap().max(now + Duration::from_millis(1));
        assert!(now < at(30_000) && looks < 20, "{looks} looks by {now:?}");
    };
    assert!(went.0 == large && matches!(went.1, Verdict::Go(_)), "{went:?}");
}

#[test]
fn how_long_those_wait_that_wait_is_told_where_it_can_be() {
    // Sixty a minute, of which none is left: one a second.
    let told = limits(60, 1_000_000, 1_000_000);
    let mut s = scheduler(&[keys(1)]);
    s.know(at(0), OrgId(0), None, CLASS, told);
    let first = go(&mut s, at(0), ask());
    s.heard(at(100), first.id(), &levels(told, [0, 1_000_000, 1_000_000]));
    s.settle(at(200), first, spent(100, 10));
    let tickets: Vec<_> = (0..20).map(|_| wait(&mut s, at(300), ask())).collect();
    s.advance(at(301));
    let waits = s.all_waits(at(302));
    let expected: Vec<_> = tickets.iter().map(|t| waits[t].expected.unwrap().as_secs_f64()).collect();
    assert!(expected.is_sorted() && expected[0] > 0.1, "{expected:?}");
    let view = &s.domains(at(302))[0];
    let all = view.predicted_wait.unwrap().as_secs_f64();
    assert!((10.0..30.0).contains(&all) && (expected[19] - all).abs() < 0.1, "{all} {expected:?}");
    let answers = pass(&mut s, at(302), at(60_000));
    let last = answers.iter().find(|(_, t, _)| *t == tickets[19]).unwrap().0;
    assert!((0.5..2.0).contains(&(last.since(at(302)).as_secs_f64() / all)), "told {all} s, was {last:?}");
}

#[test]
fn how_long_is_not_told_where_nothing_tells_it() {
    let mut s = scheduler(&[keys(1)]);
    go(&mut s, at(0), ask());
    let unknown = wait(&mut s, at(1), ask());
    assert_eq!(s.waits(at(2), unknown).unwrap().expected, None, "the first answer will tell");
    assert_eq!(s.domains(at(2))[0].predicted_wait, None);

    let mut s = unmetered(&[keys(1)]);
    assert_eq!(s.domains(at(1))[0].predicted_wait, Some(Duration::ZERO), "nobody waits");
    let rules = TenantRules { requests: Some(60), concurrent: Some(1), ..TenantRules::default() };
    s.tenant(at(0), TenantId(1), &rules);
    let one = Ask { tenant: TenantId(1), ..ask() };
    go(&mut s, at(1), one);
    let waiting = wait(&mut s, at(1), one);
    let view = s.waits(at(2), waiting).unwrap();
    assert_eq!((view.reason, view.expected), (WaitsFor::Tenant(TenantLimit::Concurrent), None));
}
