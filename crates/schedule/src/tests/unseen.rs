//! Answers whose making is not shown: what is taken for them meanwhile, and what of few answers seen.

use super::*;

fn output_low(s: &Scheduler, now: Moment) -> f64 {
    s.domains(now)[0].meters[2].low
}

/// Short answers that ran at so many tokens a second, until the speed is known anew.
fn others_run_at(s: &mut Scheduler, from: u64, speed: u64) -> u64 {
    let each = 1_000 * 60 / speed;
    for n in 0..100 {
        let lease = go(s, at(from + n * each), ask());
        s.began(at(from + n * each), lease.id());
        s.settle(at(from + (n + 1) * each), lease, spent(100, 60));
        s.advance(at(from + (n + 1) * each));
    }
    from + 100 * each
}

#[test]
fn what_was_produced_unseen_is_not_reckoned_anew_when_others_run_faster() {
    let told = limits(60_000, 60_000_000, 6_000_000);
    let mut s = full(told);
    let unseen = Ask { seen: false, output_max: Some(64_000), ..ask() };
    let long: Vec<Lease> = (0..20).map(|_| go(&mut s, at(1_000), unseen)).collect();
    long.iter().for_each(|lease| s.began(at(1_000), lease.id()));
    let now = others_run_at(&mut s, 1_000, 60);
    assert!(now > 100_000, "they have run for long");
    // Twice as fast now: what the twenty produced until now is what it was.
    let before: f64 = s.shared.flights.values().map(|f| f.produced).sum();
    let now = others_run_at(&mut s, now, 120);
    let after: f64 = s.shared.flights.values().map(|f| f.produced).sum();
    let made = (after - before) / 20.0;
    assert!((4_500.0..6_000.0).contains(&made), "fifty seconds at 60 to 120: {made}");
    assert!(output_low(&s, at(now)) > 0.0);
}

#[test]
fn one_short_answer_lets_no_crowd_go() {
    let mut s = scheduler(&[keys(1)]);
    let told = limits(20_000, 20_000_000, 400_000);
    s.know(at(0), OrgId(0), None, CLASS, told);
    let probe = go(&mut s, at(0), ask());
    for _ in 0..400 {
        wait(&mut s, at(0), ask());
    }
    s.heard(at(900), probe.id(), &levels(told, [19_999, 20_000_000, 400_000]));
    s.began(at(900), probe.id());
    s.settle(at(910), probe, spent(100, 2));
    let went = pass(&mut s, at(910), at(1_400)).len();
    assert!((10..80).contains(&went), "twice what the limit feeds of usual answers, doubled each second: {went}");
}
