//! An upstream that lets requests time out when it has too many at once, and says nothing before.

use super::*;
use std::collections::BTreeMap;

/// Where a request of a run stands.
enum Then {
    Comes,
    Answers(Lease),
    TimesOut(Lease),
}

/// What came of a run.
#[derive(Default)]
struct Came {
    answered: usize,
    timed_out: usize,
    at_once_max: usize,
}

/// `rate` requests a second for `seconds`, each answered in 5 s; of those that go while more than
/// `limit` are open, seven in ten time out after 20 s instead and come again. What came of it in the
/// last half.
fn run(seed: u64, rate: u64, seconds: u64, limit: usize) -> Came {
    let mut s = unmetered(&[keys(1)]);
    let mut prng = Prng::new(seed);
    let mut events: BTreeMap<(Moment, u64), Then> = BTreeMap::new();
    let (mut number, mut open, mut came) = (0, 0, Came::default());
    for n in 0..rate * seconds {
        events.insert((at(1_000 + n * 1_000 / rate), n), Then::Comes);
        number = n;
    }
    let half = at(1_000 + seconds * 500);
    let end = at(1_000 + seconds * 1_000);
    let mut later = |events: &mut BTreeMap<_, _>, when: Moment, then| {
        number += 1;
        events.insert((when, number), then);
    };
    let mut now = at(1_000);
    for _ in 0..1_000_000 {
        let next = events.first_key_value().map(|((when, _), _)| *when);
        let wake = s.wake_at(now).map(|when| when.max(now + Duration::from_millis(1)));
        let Some(step) = next.into_iter().chain(wake).min().filter(|when| *when <= end) else { return came };
        now = step;
        let mut gone: Vec<Lease> = Vec::new();
        // One at a time: what goes meets what is open then.
        if let Some(event) = events.first_entry().filter(|event| event.key().0 <= now) {
            let counts = now >= half;
            match event.remove() {
                Then::Comes => {
                    if let Verdict::Go(lease) = s.ask(now, Ask { latest: now + 600 * S, ..ask() }) {
                        gone.push(lease);
                    }
                }
                Then::Answers(lease) => {
                    open -= 1;
                    came.answered += usize::from(counts);
                    s.settle(now, lease, spent(100, 100));
                }
                Then::TimesOut(lease) => {
                    open -= 1;
                    came.timed_out += usize::from(counts);
                    s.settle(now, lease, Outcome::TimedOut);
                    later(&mut events, now + S, Then::Comes);
                }
            }
        }
        gone.extend(s.advance(now).into_iter().filter_map(|(_, verdict)| match verdict {
            Verdict::Go(lease) => Some(lease),
            _ => None,
        }));
        for lease in gone {
            open += 1;
            if open > limit && prng.chance(0.7) {
                later(&mut events, now + 20 * S, Then::TimesOut(lease));
            } else {
                s.began(now, lease.id());
                later(&mut events, now + 5 * S, Then::Answers(lease));
            }
            if now >= half {
                came.at_once_max = came.at_once_max.max(open);
            }
        }
    }
    panic!("it goes on without end");
}

#[test]
fn what_times_out_for_being_too_much_waits_here_instead() {
    for seed in 0..10 {
        // Twice what 40 at once can do.
        let came = run(seed, 16, 300, 40);
        let rate = came.answered as f64 / 150.0;
        let lost = came.timed_out as f64 / (came.answered + came.timed_out) as f64;
        assert!(rate > 0.88 * 8.0, "seed {seed}: {rate} answers a second of 8, {} timed out", came.timed_out);
        assert!(lost < 0.02, "seed {seed}: {lost} of them timed out, at most {} at once", came.at_once_max);
    }
}

#[test]
fn below_that_level_nothing_is_held_back() {
    let came = run(1, 6, 120, 40);
    assert!(came.timed_out == 0 && came.answered >= 360, "{} timed out", came.timed_out);
}

#[test]
fn an_upstream_that_times_out_alone_opens_the_breaker_and_a_crowded_one_does_not() {
    let mut s = unmetered(&[keys(1), keys(1)]);
    for n in 0..5 {
        let lease = go(&mut s, at(1_000 * n), Ask { pin: Some(Pin { org: OrgId(0), workspace: None }), ..ask() });
        s.settle(at(1_000 * n + 500), lease, Outcome::TimedOut);
        if s.domains(at(1_000 * n + 500))[0].breaker == "open" {
            return;
        }
        pass(&mut s, at(1_000 * n + 500), at(1_000 * (n + 1)));
    }
    panic!("{:?}", s.domains(at(6_000))[0]);
}
