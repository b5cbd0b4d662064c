//! A million cancellations, at any moment of a request's life: nothing is left over.
//!
//! Requests of all bands, several tenants, classes and organisations, with shared beginnings and
//! conversations, are asked for, left while they wait, cut off while they run, refused by the
//! upstream and ended, in no order; after every so many steps what the scheduler says it has given
//! out is compared with what is held, and its own audit with its counters.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene should stop")]

use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_base::{Moment, Prng};
use tidegate_schedule::{
    Ask, Band, ClassId, Lease, Level, Levels, Limits, Mix, OrgId, OrgSpec, Outcome, Prefix, Rules, Scheduler, Spent,
    TenantId, Throttle, Ticket, Verdict,
};

const CANCELLATIONS: u64 = 1_000_000;
/// The most leases and tickets that are held at once.
const HELD_MAX: usize = 400;

struct Held {
    scheduler: Scheduler,
    now: Moment,
    leases: Vec<Lease>,
    waiting: Vec<Ticket>,
    /// Where in `waiting` a ticket is.
    place: BTreeMap<Ticket, usize>,
    prng: Prng,
    cancelled: u64,
    answers: u64,
}

impl Held {
    fn new(seed: u64) -> Self {
        let orgs: Vec<OrgSpec> = (0..2).map(|_| OrgSpec { keys: vec![None, None], ..OrgSpec::default() }).collect();
        let mut scheduler = Scheduler::new(&orgs, Rules::default());
        let limits = Limits { requests: Some(60_000), input_tokens: Some(60_000_000), output_tokens: Some(20_000_000) };
        // The other organisation's limits are learned from its heads.
        scheduler.know(Moment::ZERO, OrgId(0), None, ClassId(0), limits);
        Held {
            scheduler,
            now: Moment::ZERO,
            leases: Vec::new(),
            waiting: Vec::new(),
            place: BTreeMap::new(),
            prng: Prng::new(seed),
            cancelled: 0,
            answers: 0,
        }
    }

    fn ask(&mut self) {
        let p = &mut self.prng;
        let share = p.unit() as f32;
        let prefix = Prefix { key: p.below(4), share, ttl: Duration::from_secs(300) };
        let conversation = Prefix { key: 100 + p.below(50), share, ttl: Duration::from_secs(300) };
        let ask = Ask {
            class: ClassId(p.below(2) as u32),
            tenant: TenantId(p.below(5) as u32),
            band: *p.pick(&Band::ALL).unwrap(),
            latest: self.now + Duration::from_millis(p.between(100, 60_000)),
            waited: Duration::ZERO,
            input: Mix { words: p.between(20, 40_000) as u32, ..Mix::default() },
            output_max: p.chance(0.8).then_some(4_096),
            seen: p.chance(0.5),
            prefix: p.chance(0.3).then_some(prefix),
            conversation: p.chance(0.3).then_some(conversation),
            pin: None,
            avoid: None,
        };
        match self.scheduler.ask(self.now, ask) {
            Verdict::Go(lease) => self.leases.push(lease),
            Verdict::Wait(ticket) => {
                assert!(self.place.insert(ticket, self.waiting.len()).is_none(), "a ticket was given out twice");
                self.waiting.push(ticket);
            }
            Verdict::Refuse(_) => {}
        }
    }

    fn no_longer_waits(&mut self, ticket: Ticket) {
        let at = self.place.remove(&ticket).expect("an answer for a ticket that nobody holds");
        self.waiting.swap_remove(at);
        if let Some(moved) = self.waiting.get(at) {
            self.place.insert(*moved, at);
        }
    }

    fn cancel_one_that_waits(&mut self) {
        if let Some(ticket) = self.prng.pick(&self.waiting).copied() {
            self.no_longer_waits(ticket);
            self.scheduler.cancel(self.now, ticket);
            self.cancelled += 1;
        }
    }

    /// Some way into its life, a lease ends in some way.
    fn end_one(&mut self) {
        if self.leases.is_empty() {
            return;
        }
        let at = self.prng.below(self.leases.len() as u64) as usize;
        let (lease, now, p) = (self.leases.swap_remove(at), self.now, &mut self.prng);
        let id = lease.id();
        let how_far = p.below(4);
        if how_far > 0 {
            self.scheduler.sent(now, id);
        }
        if how_far > 1 {
            let level = |limit: u64, left: u64| Level { limit: Some(limit), remaining: Some(left) };
            let (requests, tokens) = (p.between(30_000, 60_000), p.between(10_000, 60_000) * 1_000);
            let levels = Levels {
                requests: level(60_000, requests),
                input_tokens: level(60_000_000, tokens),
                output_tokens: level(20_000_000, tokens / 3),
            };
            self.scheduler.heard(now, id, &levels);
            self.scheduler.began(now, id);
            self.scheduler.counted(now, id, p.between(1, 9_000));
        }
        if how_far > 2 {
            self.scheduler.progressed(now, &[(id, p.between(1, 500) as u32)]);
        }
        let spent = Spent { input: p.between(1, 9_000), cache_creation: 0, cache_read: 0, output: p.between(1, 4_000) };
        let retry_after = Some(Duration::from_millis(p.between(1, 2_000)));
        let outcome = match p.below(40) {
            0 => Outcome::Throttled { by: Throttle::Unnamed, retry_after },
            1 => Outcome::Overloaded { retry_after },
            2 => Outcome::Broken,
            3 => Outcome::KeyRejected { retry_after: Duration::from_millis(500) },
            4..=12 => Outcome::Answered(Some(spent)),
            13..=22 => Outcome::Answered(None),
            23..=30 => Outcome::NotSent,
            _ => Outcome::Failed,
        };
        self.cancelled += u64::from(matches!(outcome, Outcome::Answered(None) | Outcome::NotSent | Outcome::Failed));
        self.scheduler.settle(now, lease, outcome);
        // Of no effect any more, however late it comes.
        self.scheduler.progressed(now, &[(id, 10_000)]);
    }

    fn advance(&mut self) {
        for (ticket, verdict) in self.scheduler.advance(self.now) {
            self.no_longer_waits(ticket);
            self.answers += 1;
            if let Verdict::Go(lease) = verdict {
                self.leases.push(lease);
            }
        }
    }

    fn compare(&self) {
        assert_eq!(self.scheduler.leased(), self.leases.len() as u64);
        assert_eq!(self.scheduler.waiting().iter().sum::<usize>(), self.waiting.len());
        let audit = self.scheduler.audit();
        assert_eq!(audit.leases, self.leases.len() as u64);
        assert!(audit.difference.abs() < 1e-3, "leases and counters differ by {}", audit.difference);
    }
}

#[test]
fn a_million_cancellations_leave_nothing_behind() {
    let mut held = Held::new(4);
    let mut steps = 0u64;
    while held.cancelled < CANCELLATIONS {
        steps += 1;
        assert!(steps < 20 * CANCELLATIONS, "only {} were cancelled in {steps} steps", held.cancelled);
        held.now = held.now + Duration::from_micros(held.prng.below(2_000));
        match held.prng.below(5) {
            0..=2 if held.leases.len() + held.waiting.len() < HELD_MAX => held.ask(),
            3 => held.cancel_one_that_waits(),
            _ => held.end_one(),
        }
        held.advance();
        if steps.is_multiple_of(4_096) {
            held.compare();
        }
    }
    assert!(held.answers > CANCELLATIONS / 50, "only {} waited and were answered", held.answers);
    while !held.leases.is_empty() {
        held.end_one();
    }
    while !held.waiting.is_empty() {
        held.cancel_one_that_waits();
    }
    held.compare();
    assert_eq!((held.scheduler.leased(), held.scheduler.waiting()), (0, [0; 3]));
}
