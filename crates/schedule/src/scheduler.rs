//! Domains, lanes and the queue in front of them.
//!
//! A *domain* is what the API meters: one organisation and one class of models. A *lane* is one of
//! the organisation's keys. A request may go to any organisation; it takes the open domain with
//! the fewest requests in flight, and in it the open lane with the fewest. A domain closes until
//! its `retry-after` has passed; a lane closes while its key is rejected.
//!
//! A 429 also shrinks the domain's window of concurrency (x 0.7 of what is in flight, at most once
//! a second) and each success widens it by one, so that a queue released by `retry-after` does not
//! run into the same wall at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidegate_base::{Bounded, Full, Moment};

/// An organisation, by its place in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrgId(pub u16);

/// One key of an organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneId {
    /// Whose key.
    pub org: OrgId,
    /// Which of them.
    pub key: u16,
}

/// A class of models that shares limits; the host gives out the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClassId(pub u32);

/// How urgent a request is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Band {
    /// Somebody is watching.
    Interactive,
    /// The usual.
    #[default]
    Normal,
    /// Whenever there is room.
    Background,
}

impl Band {
    /// All bands, most urgent first.
    pub const ALL: [Band; 3] = [Band::Interactive, Band::Normal, Band::Background];

    /// Its name in headers, settings and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Band::Interactive => "interactive",
            Band::Normal => "normal",
            Band::Background => "background",
        }
    }

    /// The band called `name`.
    pub fn of_name(name: &str) -> Option<Band> {
        Band::ALL.into_iter().find(|b| b.name() == name)
    }
}

/// A request for a lease.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// What it wants to use.
    pub class: ClassId,
    /// How urgent it is.
    pub band: Band,
    /// The last moment at which starting is still of use.
    pub latest: Moment,
    /// A lane that just failed for this request; another is preferred if one is open.
    pub avoid: Option<LaneId>,
}

/// The right to one exchange over a lane. Not to be copied; ends in [`Scheduler::settle`].
#[derive(Debug, PartialEq, Eq)]
pub struct Lease {
    lane: LaneId,
    class: ClassId,
}

impl Lease {
    /// The lane to use.
    pub fn lane(&self) -> LaneId {
        self.lane
    }
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Why a request is not served, and when it may come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Every lane of every organisation is closed because its key is rejected.
    NoKey,
    /// The wait would outlast the deadline or the band's cap.
    TooLong {
        /// When a lane is expected to open.
        retry_after: Duration,
    },
    /// The queue holds as many as it may.
    QueueFull {
        /// A guess: the time until the next lane opens, at least a second.
        retry_after: Duration,
    },
}

/// The answer to an [`Ask`].
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go now.
    Go(Lease),
    /// Wait; the answer comes out of [`Scheduler::advance`] under this ticket.
    Wait(Ticket),
    /// No.
    Refuse(Refusal),
}

/// How an exchange ended, as far as quota is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer was given.
    Answered,
    /// It failed in a way that says nothing of the quota.
    Failed,
    /// 429: this domain is closed for so long.
    Throttled {
        /// What the upstream asked for.
        retry_after: Duration,
    },
    /// 401: this key is closed for so long.
    KeyRejected {
        /// How long to leave it alone.
        retry_after: Duration,
    },
}

/// The queue's limits; every value is a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueRules {
    /// The most requests that wait, over all bands.
    pub waiting_max: usize,
    /// The longest wait, by band.
    pub wait_max: [Duration; 3],
}

impl Default for QueueRules {
    fn default() -> Self {
        let s = Duration::from_secs;
        QueueRules { waiting_max: 10_000, wait_max: [s(20), s(60), s(600)] }
    }
}

#[derive(Debug, Default)]
struct Lane {
    in_flight: u32,
    closed_until: Moment,
}

#[derive(Debug)]
struct Domain {
    in_flight: u32,
    closed_until: Moment,
    /// The most requests in flight; `None` until a 429 has shown that there is a limit.
    window: Option<f64>,
    shrunk_at: Moment,
    throttled: u64,
}

impl Domain {
    fn new() -> Self {
        Domain { in_flight: 0, closed_until: Moment::ZERO, window: None, shrunk_at: Moment::ZERO, throttled: 0 }
    }

    fn has_room(&self) -> bool {
        self.window.is_none_or(|w| f64::from(self.in_flight) < w.max(1.0))
    }
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    ask: Ask,
    until: Moment,
}

/// A domain as operators see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DomainView {
    /// Whose.
    pub org: OrgId,
    /// Which models.
    pub class: ClassId,
    /// Requests in flight.
    pub in_flight: u32,
    /// Closed until, if that is not past.
    pub closed_until: Moment,
    /// The window of concurrency, if a 429 was seen.
    pub window: Option<f64>,
    /// 429s so far.
    pub throttled: u64,
}

/// Hands out leases.
#[derive(Debug)]
pub struct Scheduler {
    rules: QueueRules,
    lanes: BTreeMap<LaneId, Lane>,
    domains: BTreeMap<(OrgId, ClassId), Domain>,
    queues: [Bounded<Waiting>; 3],
    next_ticket: u64,
    leased: u64,
}

/// At what a window that has recovered stops mattering.
const WINDOW_OPEN: f64 = 4096.0;
/// How often a window shrinks at most.
const SHRINK_PAUSE: Duration = Duration::from_secs(1);

impl Scheduler {
    /// A scheduler over organisations with so many keys each.
    pub fn new(keys_by_org: &[u16], rules: QueueRules) -> Self {
        let lanes = keys_by_org.iter().enumerate().flat_map(|(org, keys)| {
            (0..*keys).map(move |key| (LaneId { org: OrgId(org as u16), key }, Lane::default()))
        });
        Scheduler {
            rules,
            lanes: lanes.collect(),
            domains: BTreeMap::new(),
            queues: std::array::from_fn(|_| Bounded::new(rules.waiting_max)),
            next_ticket: 0,
            leased: 0,
        }
    }

    /// Leases that are out.
    pub fn leased(&self) -> u64 {
        self.leased
    }

    /// Requests that wait, by band.
    pub fn waiting(&self) -> [usize; 3] {
        [0, 1, 2].map(|band: usize| self.queues[band].len())
    }

    /// The domains seen so far.
    pub fn domains(&self) -> impl Iterator<Item = DomainView> {
        self.domains.iter().map(|(&(org, class), d)| DomainView {
            org,
            class,
            in_flight: d.in_flight,
            closed_until: d.closed_until,
            window: d.window,
            throttled: d.throttled,
        })
    }

    /// Asks for a lease.
    pub fn ask(&mut self, now: Moment, ask: Ask) -> Verdict {
        let queued_before =
            self.queues.iter().take(ask.band as usize + 1).any(|q| q.iter().any(|w| w.ask.class == ask.class));
        if !queued_before && let Some(lease) = self.take(now, &ask) {
            return Verdict::Go(lease);
        }
        if self.no_key(now) {
            return Verdict::Refuse(Refusal::NoKey);
        }
        let opens = self.opens_at(ask.class);
        let until = ask.latest.min(now + self.rules.wait_max[ask.band as usize]);
        if opens > until {
            return Verdict::Refuse(Refusal::TooLong { retry_after: now.until(opens) });
        }
        let full = Verdict::Refuse(Refusal::QueueFull { retry_after: now.until(opens).max(Duration::from_secs(1)) });
        if self.waiting().iter().sum::<usize>() >= self.rules.waiting_max {
            return full;
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        match self.queues[ask.band as usize].push(Waiting { ticket, ask, until }) {
            Ok(()) => Verdict::Wait(ticket),
            Err(Full(_)) => full,
        }
    }

    /// Leaves the queue. Nothing happens if the ticket was answered already.
    pub fn cancel(&mut self, ticket: Ticket) {
        for queue in &mut self.queues {
            queue.retain(|w| w.ticket != ticket);
        }
    }

    /// Answers whoever can be answered now. Call it after every other call, and at
    /// [`Scheduler::wake_at`].
    pub fn advance(&mut self, now: Moment) -> Vec<(Ticket, Verdict)> {
        let mut answers = Vec::new();
        let no_key = self.no_key(now);
        // What one request of a class did not get, no later one gets: the queue may be long.
        let mut full = BTreeSet::new();
        for band in 0..self.queues.len() {
            for _ in 0..self.queues[band].len() {
                let Some(waiting) = self.queues[band].pop() else { break };
                let class = waiting.ask.class;
                let lease = if full.contains(&class) { None } else { self.take(now, &waiting.ask) };
                if let Some(lease) = lease {
                    answers.push((waiting.ticket, Verdict::Go(lease)));
                    continue;
                }
                full.insert(class);
                if no_key {
                    answers.push((waiting.ticket, Verdict::Refuse(Refusal::NoKey)));
                } else if now >= waiting.until {
                    let retry_after = now.until(self.opens_at(class)).max(Duration::from_secs(1));
                    answers.push((waiting.ticket, Verdict::Refuse(Refusal::TooLong { retry_after })));
                } else {
                    // Cannot be full: this one has just left it.
                    let _ = self.queues[band].push(waiting);
                }
            }
        }
        answers
    }

    /// When [`Scheduler::advance`] has something to do again, if nothing else happens before.
    pub fn wake_at(&self, now: Moment) -> Option<Moment> {
        let waiting = || self.queues.iter().flat_map(Bounded::iter);
        let give_up = waiting().map(|w| w.until).min()?;
        let classes: BTreeSet<ClassId> = waiting().map(|w| w.ask.class).collect();
        let opens = classes.into_iter().map(|class| self.opens_at(class)).filter(|at| *at > now).min();
        Some(opens.map_or(give_up, |at| at.min(give_up)))
    }

    /// Ends a lease.
    pub fn settle(&mut self, now: Moment, lease: Lease, outcome: Outcome) {
        self.leased = self.leased.saturating_sub(1);
        if let Some(lane) = self.lanes.get_mut(&lease.lane) {
            lane.in_flight = lane.in_flight.saturating_sub(1);
            if let Outcome::KeyRejected { retry_after } = outcome {
                lane.closed_until = lane.closed_until.max(now + retry_after);
            }
        }
        let Some(domain) = self.domains.get_mut(&(lease.lane.org, lease.class)) else { return };
        let in_flight = domain.in_flight;
        domain.in_flight = in_flight.saturating_sub(1);
        match outcome {
            Outcome::Answered => domain.window = domain.window.map(|w| w + 1.0).filter(|w| *w < WINDOW_OPEN),
            Outcome::Throttled { retry_after } => {
                domain.throttled += 1;
                domain.closed_until = domain.closed_until.max(now + retry_after);
                if domain.window.is_none() || now.since(domain.shrunk_at) >= SHRINK_PAUSE {
                    domain.window = Some((f64::from(in_flight) * 0.7).max(1.0));
                    domain.shrunk_at = now;
                }
            }
            Outcome::Failed | Outcome::KeyRejected { .. } => {}
        }
    }

    /// Whether no key is accepted anywhere at `now`: waiting would not help.
    fn no_key(&self, now: Moment) -> bool {
        self.lanes.values().all(|lane| lane.closed_until > now)
    }

    /// The earliest moment at which a lane for `class` is open: the past if one is open now (and
    /// merely has no room), never if there is no lane at all.
    fn opens_at(&self, class: ClassId) -> Moment {
        let lane_opens = |(id, lane): (&LaneId, &Lane)| {
            let domain = self.domains.get(&(id.org, class)).map_or(Moment::ZERO, |d| d.closed_until);
            lane.closed_until.max(domain)
        };
        self.lanes.iter().map(lane_opens).min().unwrap_or(Moment::NEVER)
    }

    /// Takes a lease if one can be had now.
    fn take(&mut self, now: Moment, ask: &Ask) -> Option<Lease> {
        let load = |(id, lane): (&LaneId, &Lane)| {
            let domain = self.domains.get(&(id.org, ask.class));
            let open = lane.closed_until <= now && domain.is_none_or(|d| d.closed_until <= now && d.has_room());
            let avoided = ask.avoid == Some(*id);
            open.then(|| (avoided, domain.map_or(0, |d| d.in_flight), lane.in_flight, *id))
        };
        let (.., lane) = self.lanes.iter().filter_map(load).min()?;
        self.lanes.get_mut(&lane)?.in_flight += 1;
        self.domains.entry((lane.org, ask.class)).or_insert_with(Domain::new).in_flight += 1;
        self.leased += 1;
        Some(Lease { lane, class: ask.class })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASS: ClassId = ClassId(1);

    fn at(ms: u64) -> Moment {
        Moment::from_nanos(ms * 1_000_000)
    }

    fn ask(band: Band) -> Ask {
        Ask { class: CLASS, band, latest: at(600_000), avoid: None }
    }

    fn go(s: &mut Scheduler, now: Moment) -> Lease {
        match s.ask(now, ask(Band::Normal)) {
            Verdict::Go(lease) => lease,
            other => panic!("not at once: {other:?}"),
        }
    }

    fn throttled(ms: u64) -> Outcome {
        Outcome::Throttled { retry_after: Duration::from_millis(ms) }
    }

    #[test]
    fn the_least_busy_key_of_the_least_busy_organisation_goes_first() {
        let mut s = Scheduler::new(&[2, 1], QueueRules::default());
        let taken: Vec<_> = (0..4).map(|_| go(&mut s, at(0)).lane()).map(|l| (l.org.0, l.key)).collect();
        assert_eq!(taken, [(0, 0), (1, 0), (0, 1), (1, 0)]);
        assert_eq!(s.leased(), 4);
    }

    #[test]
    fn a_429_closes_its_domain_and_the_queue_waits_for_it() {
        let mut s = Scheduler::new(&[1], QueueRules::default());
        let (a, b) = (go(&mut s, at(0)), go(&mut s, at(0)));
        s.settle(at(10), a, throttled(5_000));
        let Verdict::Wait(late) = s.ask(at(20), ask(Band::Background)) else { panic!("should wait") };
        let Verdict::Wait(soon) = s.ask(at(20), ask(Band::Interactive)) else { panic!("should wait") };
        assert!(s.advance(at(5_009)).is_empty());
        assert_eq!(s.wake_at(at(5_009)), Some(at(5_010)));
        // One is in flight and the window shrank to 1.4: the urgent one goes, the other waits on.
        let first = s.advance(at(5_010));
        assert_eq!(first.len(), 1);
        assert_eq!(first[0].0, soon);
        s.settle(at(5_020), b, Outcome::Answered);
        assert_eq!(s.advance(at(5_020))[0].0, late);
    }

    #[test]
    fn a_wait_that_cannot_end_in_time_is_refused_at_once_with_its_length() {
        let mut s = Scheduler::new(&[1], QueueRules::default());
        let a = go(&mut s, at(0));
        s.settle(at(0), a, throttled(90_000));
        let retry_after = Duration::from_secs(90);
        assert_eq!(s.ask(at(0), ask(Band::Normal)), Verdict::Refuse(Refusal::TooLong { retry_after }));
        assert!(matches!(s.ask(at(0), ask(Band::Background)), Verdict::Wait(_)), "background waits longer");
        let hurried = Ask { latest: at(1_000), ..ask(Band::Background) };
        assert_eq!(s.ask(at(0), hurried), Verdict::Refuse(Refusal::TooLong { retry_after }));
    }

    #[test]
    fn other_classes_are_not_held_up() {
        let mut s = Scheduler::new(&[1], QueueRules::default());
        let a = go(&mut s, at(0));
        s.settle(at(0), a, throttled(5_000));
        let other = Ask { class: ClassId(2), ..ask(Band::Normal) };
        assert!(matches!(s.ask(at(1), other), Verdict::Go(_)));
    }

    #[test]
    fn a_rejected_key_is_put_aside_and_tried_again_later() {
        let mut s = Scheduler::new(&[2], QueueRules::default());
        let a = go(&mut s, at(0));
        assert_eq!(a.lane().key, 0);
        s.settle(at(0), a, Outcome::KeyRejected { retry_after: Duration::from_secs(60) });
        assert!((0..3).all(|_| go(&mut s, at(1)).lane().key == 1));
        assert_eq!(go(&mut s, at(60_000)).lane().key, 0);
    }

    #[test]
    fn when_every_key_is_rejected_nobody_is_kept_waiting() {
        let mut s = Scheduler::new(&[1], QueueRules::default());
        let (a, b) = (go(&mut s, at(0)), go(&mut s, at(0)));
        s.settle(at(0), a, throttled(1_000));
        let Verdict::Wait(waiting) = s.ask(at(0), ask(Band::Normal)) else { panic!("should wait") };
        s.settle(at(1), b, Outcome::KeyRejected { retry_after: Duration::from_secs(60) });
        assert_eq!(s.advance(at(1)), [(waiting, Verdict::Refuse(Refusal::NoKey))]);
        assert_eq!(s.ask(at(2), ask(Band::Background)), Verdict::Refuse(Refusal::NoKey));
        go(&mut s, at(60_001));
    }

    #[test]
    fn the_lane_that_failed_is_avoided_if_another_is_open() {
        let mut s = Scheduler::new(&[2], QueueRules::default());
        let first = LaneId { org: OrgId(0), key: 0 };
        let Verdict::Go(lease) = s.ask(at(0), Ask { avoid: Some(first), ..ask(Band::Normal) }) else { panic!() };
        assert_ne!(lease.lane(), first);
    }

    #[test]
    fn the_queue_has_a_number() {
        let mut s = Scheduler::new(&[1], QueueRules { waiting_max: 1, ..QueueRules::default() });
        let a = go(&mut s, at(0));
        s.settle(at(0), a, throttled(5_000));
        let Verdict::Wait(ticket) = s.ask(at(0), ask(Band::Normal)) else { panic!() };
        assert!(matches!(s.ask(at(0), ask(Band::Normal)), Verdict::Refuse(Refusal::QueueFull { .. })));
        s.cancel(ticket);
        assert!(matches!(s.ask(at(0), ask(Band::Normal)), Verdict::Wait(_)));
    }

    #[test]
    fn a_long_queue_costs_little_per_answer() {
        let mut s = Scheduler::new(&[8; 8], QueueRules { waiting_max: 20_000, ..QueueRules::default() });
        let first: Vec<Lease> = (0..8).map(|_| go(&mut s, at(0))).collect();
        first.into_iter().for_each(|lease| s.settle(at(0), lease, throttled(1)));
        let mut held: Vec<Lease> = (0..8).map(|_| go(&mut s, at(2))).collect();
        (0..10_000).for_each(|_| assert!(matches!(s.ask(at(2), ask(Band::Background)), Verdict::Wait(_))));
        // Asking every lane for every request in the queue at every look takes 20 s here.
        for _ in 0..1000 {
            s.settle(at(2), held.remove(0), Outcome::Failed);
            let mut answers = s.advance(at(2));
            assert!(s.wake_at(at(2)).is_some());
            let Some((_, Verdict::Go(lease))) = answers.pop() else { panic!("somebody's turn") };
            held.push(lease);
        }
        assert_eq!((s.waiting(), s.leased()), ([0, 0, 9_000], 8));
    }

    #[test]
    fn no_keys_at_all_is_said_so() {
        let mut s = Scheduler::new(&[], QueueRules::default());
        assert_eq!(s.ask(at(0), ask(Band::Normal)), Verdict::Refuse(Refusal::NoKey));
    }

    proptest::proptest! {
        /// Whatever happens, every ask is answered exactly once and every lease comes back.
        #[test]
        fn nothing_is_lost_or_doubled(steps in proptest::collection::vec((0u8..6, 0u64..4000), 1..200)) {
            let mut s = Scheduler::new(&[2, 1], QueueRules { waiting_max: 8, ..QueueRules::default() });
            let (mut now, mut held, mut tickets) = (0, Vec::new(), std::collections::BTreeSet::new());
            for (what, n) in steps {
                now += n;
                match what {
                    0..=2 => match s.ask(at(now), Ask { latest: at(now + 10_000), ..ask(Band::ALL[what as usize]) }) {
                        Verdict::Go(lease) => held.push(lease),
                        Verdict::Wait(t) => { proptest::prop_assert!(tickets.insert(t)); }
                        Verdict::Refuse(_) => {}
                    },
                    3 => if let Some(lease) = held.pop() { s.settle(at(now), lease, throttled(n)) },
                    4 => if let Some(lease) = held.pop() { s.settle(at(now), lease, Outcome::Answered) },
                    _ => if let Some(t) = tickets.pop_first() { s.cancel(t) },
                }
                for (ticket, verdict) in s.advance(at(now)) {
                    proptest::prop_assert!(tickets.remove(&ticket));
                    if let Verdict::Go(lease) = verdict { held.push(lease) }
                }
                proptest::prop_assert_eq!(s.leased(), held.len() as u64);
                proptest::prop_assert_eq!(s.waiting().iter().sum::<usize>(), tickets.len());
            }
            for lease in held.drain(..) { s.settle(at(now), lease, Outcome::Answered) }
            for (ticket, verdict) in s.advance(at(now + 4_000_000)) {
                proptest::prop_assert!(tickets.remove(&ticket));
                if let Verdict::Go(lease) = verdict { held.push(lease) }
            }
            proptest::prop_assert!(tickets.is_empty() || !held.is_empty());
        }
    }
}
