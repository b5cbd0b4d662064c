//! The scheduler as operators see it: what `/domains` and `/streams` show.

use crate::ask::{ClassId, OrgId, TenantId, Throttle, Ticket, WaitsFor, WorkspaceId};
use crate::bucket::Bucket;
use crate::class::Class;
use crate::domain::Domain;
use crate::flight::Waiting;
use crate::meters::Meters;
use crate::scheduler::Scheduler;
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_base::Moment;

/// One limiter.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MeterView {
    /// Per minute; `None` if there is none, or none is known.
    pub limit: Option<u64>,
    /// Where it is known from: `config`, `header`, `assumed` or `none`.
    pub source: &'static str,
    /// Refill per second as believed: less than the limit after 429s.
    pub rate: f64,
    /// What is there at least.
    pub low: f64,
    /// What is there at most.
    pub high: f64,
    /// What is believed to be saved up at most.
    pub capacity: f64,
    /// Used by us, in all.
    pub used: f64,
    /// Used by somebody else, as far as it was noticed, in all.
    pub foreign: f64,
}

/// One key of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyView {
    /// Its number in the organisation.
    pub key: u16,
    /// Requests under way, of every class.
    pub in_flight: u32,
    /// How long it is still put aside as rejected.
    pub rejected_for: Duration,
}

/// A domain as operators see it.
#[derive(Clone, Debug, PartialEq)]
pub struct DomainView {
    /// Whose.
    pub org: OrgId,
    /// Which workspace's, if not the default one's.
    pub workspace: Option<WorkspaceId>,
    /// Which models.
    pub class: ClassId,
    /// What is known of its limits: `unknown`, `unmetered` or `metered`.
    pub knowledge: &'static str,
    /// Requests, uncached input tokens, output tokens: of the organisation.
    pub meters: [MeterView; 3],
    /// The same of the workspace, where it has limits of its own.
    pub workspace_meters: Option<[MeterView; 3]>,
    /// Requests under way.
    pub in_flight: u32,
    /// The most the output limit can feed, where it is metered.
    pub in_flight_max: Option<u32>,
    /// The window of requests at once, if a 429 made one.
    pub window: Option<f64>,
    /// Who waits for this class, by band. All domains of a class share one queue.
    pub queued: [usize; 3],
    /// Who waits for this class, by tenant.
    pub queued_by_tenant: Vec<(TenantId, usize)>,
    /// What the request next in turn here waits for, and how long still.
    pub head: Option<(WaitsFor, Duration)>,
    /// How long all that waits for this class will take; `None` where nothing tells.
    pub predicted_wait: Option<Duration>,
    /// How long the upstream wished to be left alone still.
    pub closed_for: Duration,
    /// How long the organisation is still taken to have spent what it may.
    pub spend_cap_for: Duration,
    /// `closed`, `open` or `half_open`.
    pub breaker: &'static str,
    /// How long it stays open.
    pub breaker_for: Duration,
    /// 429s so far.
    pub throttled: u64,
    /// The last one: when, and about what.
    pub last_throttle: Option<(Moment, Throttle)>,
    /// From a request to its first event, on average.
    pub first_event: Duration,
    /// Output tokens a second of one answer, on average.
    pub speed: f64,
    /// Output tokens of an answer, on average.
    pub output: f64,
    /// The running mean of how far input estimates of this class are off, as a part of the truth.
    pub estimate_error: f64,
    /// The same with its sign: above 0, estimates are too high.
    pub estimate_bias: f64,
    /// Its keys.
    pub keys: Vec<KeyView>,
}

/// What one that waits waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitView {
    /// What it waits for.
    pub reason: WaitsFor,
    /// How long still; `None` where nothing tells: limits that are not known, answers that have to end.
    pub expected: Option<Duration>,
    /// How many came before it and wait too, in its band or a more urgent one.
    pub ahead: usize,
}

fn shown(bucket: Option<&Bucket>) -> MeterView {
    bucket.map_or(MeterView { source: "none", ..MeterView::default() }, |b| MeterView {
        limit: Some(b.limit()),
        source: b.source().name(),
        rate: b.rate(),
        low: b.low(),
        high: b.high(),
        capacity: b.capacity(),
        used: b.used(),
        foreign: b.foreign(),
    })
}

fn meters(level: &Meters) -> [MeterView; 3] {
    level.buckets().map(shown)
}

impl Scheduler {
    /// What one that waits waits for; `None` if it does not wait any more.
    pub fn waits(&self, now: Moment, ticket: Ticket) -> Option<WaitView> {
        self.shared.queue.get(ticket)?;
        self.all_waits(now).remove(&ticket)
    }

    /// The same of all that wait, in one pass.
    pub fn all_waits(&self, now: Moment) -> BTreeMap<Ticket, WaitView> {
        let mut waiting: Vec<_> = self.shared.queue.iter().collect();
        waiting.sort_by_key(|(_, w)| (w.class, w.place.band, w.place.seq));
        let mut views = BTreeMap::new();
        let (mut class, mut ahead, mut whole) = (usize::MAX, 0, None);
        for (ticket, w) in &waiting {
            if w.class != class {
                (class, ahead) = (w.class, 0);
                whole = self.classes[class].queue_wait(now);
            }
            // All that waits takes `whole`; this one has its part of that before it.
            let all = self.classes[class].waiting().max(1);
            let expected = match w.reason {
                WaitsFor::Tenant(_) => self.tenant_wait(now, w),
                // For an answer to begin; for a key to be accepted.
                WaitsFor::Prefix | WaitsFor::Key => None,
                _ => whole.map(|whole: Duration| whole.mul_f64((ahead + 1) as f64 / all as f64)),
            };
            let expected = expected.map(|wait| wait.min(now.until(w.place.until)));
            views.insert(*ticket, WaitView { reason: w.reason, expected, ahead });
            ahead += 1;
        }
        views
    }

    /// How long its tenant's own limits keep it; nobody knows of the one on requests at once.
    fn tenant_wait(&self, now: Moment, waiting: &Waiting) -> Option<Duration> {
        let tenant = self.shared.tenants.get(&waiting.ask.tenant)?;
        let (_, wait) = tenant.wait(now, waiting.place.input + waiting.place.output)?;
        (!wait.is_zero()).then_some(wait)
    }

    /// The domains seen so far.
    pub fn domains(&self, now: Moment) -> Vec<DomainView> {
        let mut queued = vec![[0; 3]; self.classes.len()];
        for waiting in self.shared.queue.values() {
            queued[waiting.class][waiting.ask.band as usize] += 1;
        }
        let one = |(id, class): (ClassId, usize)| (0..self.classes[class].len()).map(move |n| (id, class, n));
        let view = |(id, class, n): (ClassId, usize, usize)| self.view(now, id, &self.classes[class], n, queued[class]);
        // One whose keys were all taken away is there until what went over them has ended.
        let is_there = |(_, class, n): &(ClassId, usize, usize)| {
            let d = &self.classes[*class].domains[*n];
            !d.keys.is_empty() || d.in_flight > 0
        };
        self.numbered().flat_map(one).filter(is_there).map(view).collect()
    }

    fn view(&self, now: Moment, id: ClassId, class: &Class, n: usize, queued: [usize; 3]) -> DomainView {
        let d: &Domain = &class.domains[n];
        let level = |k: usize| d.meters.get(k).and_then(|n| class.meters.get(*n));
        let (breaker, breaker_for) = d.breaker_shown(now);
        let output = class.lengths.mean();
        let org = self.shared.orgs.get(&d.org);
        let keys = d.keys.iter().map(|key| {
            let lane = org.and_then(|o| o.lanes.get(usize::from(*key))).copied().unwrap_or_default();
            KeyView { key: *key, in_flight: lane.in_flight, rejected_for: now.until(lane.rejected_until) }
        });
        DomainView {
            org: d.org,
            workspace: d.workspace,
            class: id,
            knowledge: d.knowledge.name(),
            meters: level(0).map(meters).unwrap_or_default(),
            workspace_meters: level(1).map(meters),
            in_flight: d.in_flight,
            in_flight_max: level(0).and_then(|m| m.in_flight_max(output, &d.pace)),
            window: d.at_once_max(now),
            queued,
            queued_by_tenant: class.fair.by_tenant().into_iter().collect(),
            head: d.head.map(|h| (h.by, h.wait)),
            predicted_wait: class.queue_wait(now),
            closed_for: now.until(d.closed_until),
            spend_cap_for: org.map_or(Duration::ZERO, |o| now.until(o.spend_until)),
            breaker,
            breaker_for,
            throttled: d.throttled,
            last_throttle: d.last_throttle,
            first_event: Duration::from_secs_f64(d.pace.first.max(0.0)),
            speed: d.pace.speed,
            output,
            estimate_error: class.estimator.error(),
            estimate_bias: class.estimator.bias(),
            keys: keys.collect(),
        }
    }
}
