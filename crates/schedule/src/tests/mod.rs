//! The scheduler through its own door, rule by rule. The judge (`tests/judge`) has the rest: what
//! comes of all rules together against an upstream.

mod cache;
mod crowd;
mod renewal;
mod unseen;
mod upstream;
mod waiting;
mod workspaces;

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

/// An organisation with these limits and full buckets, whose answers were short so far.
fn full(told: Limits) -> Scheduler {
    let mut s = scheduler(&[keys(1)]);
    s.know(at(0), OrgId(0), None, CLASS, told);
    for n in 0..60 {
        let lease = go(&mut s, at(n), ask());
        let remaining = [told.requests, told.input_tokens, told.output_tokens].map(|limit| limit.unwrap_or_default());
        s.heard(at(n), lease.id(), &levels(told, remaining));
        s.began(at(n), lease.id());
        s.settle(at(n), lease, spent(100, 100));
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
