//! The upstream as a judge: organisations, their limiters, keys, prompt cache and faults.
//!
//! A request passes every limiter that covers it (its organisation's and, if it has limits of its
//! own, its workspace's) or is refused by the one it would wait for longest, which is named. What
//! the documentation leaves open is a switch ([`OrgPlan`]): how much a bucket holds, whether output
//! is counted as it is produced or reserved, when the headers are sampled, whether failed requests
//! are charged.

use crate::meter::{Meter, Sums};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tidegate_base::Prng;
use tidegate_schedule::{Level, Levels, Limits, Prefix, Spent, Throttle};

/// How output is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counting {
    /// As it is produced.
    Produced,
    /// `max_tokens` is taken at the start and what was not used comes back at the end.
    Reserved,
}

/// An organisation: what it is allowed and how its upstream behaves.
#[derive(Clone, Debug)]
pub(crate) struct OrgPlan {
    /// By class of models.
    pub(crate) limits: Vec<Limits>,
    /// Of each workspace, for all classes; the keys say which workspace is theirs.
    pub(crate) workspaces: Vec<Limits>,
    /// The workspace of each key.
    pub(crate) keys: Vec<Option<u16>>,
    /// Seconds of refill a bucket holds.
    pub(crate) burst: f64,
    pub(crate) counting: Counting,
    /// Headers are sampled at admission, or with the first byte.
    pub(crate) sampled_at_admission: bool,
    /// Whether failures cost a request and its input.
    pub(crate) charges_errors: bool,
    /// The ramp rule, and the requests per second below which it lets everything pass.
    pub(crate) ramp_floor: Option<f64>,
}

/// What a request is to the upstream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) class: usize,
    pub(crate) key: u16,
    pub(crate) input: f64,
    pub(crate) output_max: f64,
    pub(crate) prefix: Option<Prefix>,
    pub(crate) conversation: Option<Prefix>,
}

/// Let in: what it is charged, and what its answer's head will say if that is sampled now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admitted {
    pub(crate) spent: Spent,
    pub(crate) head: Levels,
}

/// Not let in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum No {
    Throttled { by: Throttle, retry_after: Option<Duration>, head: Levels },
    Overloaded { retry_after: Option<Duration> },
    Broken,
    KeyRejected,
}

/// The limiters of one class, of an organisation or a workspace: requests, input, output.
#[derive(Clone, Debug, Default)]
struct Pool {
    meters: [Option<Meter>; 3],
    /// What the headers call the limit.
    told: [Option<u64>; 3],
}

const NAMES: [Throttle; 3] = [Throttle::Requests, Throttle::InputTokens, Throttle::OutputTokens];

impl Pool {
    fn new(limits: &Limits, burst: f64) -> Self {
        let told = [limits.requests, limits.input_tokens, limits.output_tokens];
        Pool { meters: told.map(|limit| limit.map(|limit| Meter::full(limit, burst))), told }
    }

    fn advance(&mut self, now: f64) {
        self.meters.iter_mut().flatten().for_each(|meter| meter.advance(now));
    }

    fn take(&mut self, costs: [f64; 3]) {
        for (meter, cost) in self.meters.iter_mut().zip(costs) {
            if let Some(meter) = meter {
                meter.take(cost);
            }
        }
    }

    /// The limiter that holds `costs` back longest, and for how long.
    fn refuses(&self, costs: [f64; 3]) -> Option<(Throttle, f64)> {
        let held = |((meter, cost), name): ((&Option<Meter>, f64), Throttle)| {
            let meter = meter.as_ref().filter(|meter| !meter.admits(cost))?;
            Some((name, meter.wait(cost)))
        };
        let all = self.meters.iter().zip(costs).zip(NAMES).filter_map(held);
        all.max_by(|a, b| a.1.total_cmp(&b.1))
    }

    fn level(&self, which: usize) -> Level {
        let remaining = self.meters[which].as_ref().map(|meter| match which {
            0 => meter.left().round() as u64,
            _ => (meter.left() / 1_000.0).round() as u64 * 1_000,
        });
        Level { limit: self.told[which], remaining }
    }
}

/// What the prompt cache holds for one beginning.
#[derive(Clone, Copy, Debug)]
struct Cached {
    tokens: f64,
    readable_from: f64,
    until: f64,
}

pub(crate) struct Org {
    pub(crate) plan: OrgPlan,
    pools: Vec<Pool>,
    workspaces: Vec<Vec<Pool>>,
    /// By class and hash.
    cache: BTreeMap<(usize, u64), Cached>,
    /// Requests let in, by second, of the last five minutes.
    seconds: VecDeque<(u64, f64)>,
    pub(crate) revoked: Vec<bool>,
    pub(crate) spend_capped: bool,
    pub(crate) overloaded: f64,
    pub(crate) broken: f64,
    /// The share of every limit that somebody else takes.
    pub(crate) foreign: f64,
}

impl Org {
    pub(crate) fn new(plan: &OrgPlan) -> Self {
        let pools = plan.limits.iter().map(|limits| Pool::new(limits, plan.burst)).collect();
        let of_workspace = |limits: &Limits| plan.limits.iter().map(|_| Pool::new(limits, plan.burst)).collect();
        Org {
            pools,
            workspaces: plan.workspaces.iter().map(of_workspace).collect(),
            cache: BTreeMap::new(),
            seconds: VecDeque::new(),
            revoked: vec![false; plan.keys.len()],
            spend_capped: false,
            overloaded: 0.0,
            broken: 0.0,
            foreign: 0.0,
            plan: plan.clone(),
        }
    }

    /// The pools that cover a request.
    fn covering(&mut self, class: usize, key: u16) -> impl Iterator<Item = &mut Pool> {
        let workspace = self.plan.keys[usize::from(key)].map(usize::from);
        let own = workspace.map(|w| &mut self.workspaces[w][class]);
        std::iter::once(&mut self.pools[class]).chain(own)
    }

    /// A request arrives.
    pub(crate) fn admit(&mut self, now: f64, wanted: &Wanted, prng: &mut Prng) -> Result<Admitted, No> {
        self.covering(wanted.class, wanted.key).for_each(|pool| pool.advance(now));
        if self.revoked[usize::from(wanted.key)] {
            return Err(No::KeyRejected);
        }
        let head = self.head(now, wanted.class, wanted.key);
        if self.spend_capped {
            return Err(No::Throttled { by: Throttle::SpendCap, retry_after: None, head: Levels::default() });
        }
        let spent = self.input(now, wanted);
        let costs = self.costs(wanted, &spent);
        let held = self.covering(wanted.class, wanted.key).filter_map(|pool| pool.refuses(costs));
        if let Some((by, wait)) = held.max_by(|a, b| a.1.total_cmp(&b.1)) {
            let retry_after = Some(Duration::from_secs(wait.ceil().max(1.0) as u64));
            return Err(No::Throttled { by, retry_after, head });
        }
        if self.too_sharp(now) {
            return Err(No::Throttled { by: Throttle::Ramp, retry_after: Some(Duration::from_secs(5)), head });
        }
        if let Some(no) = self.fault(prng) {
            if self.plan.charges_errors {
                self.covering(wanted.class, wanted.key).for_each(|pool| pool.take([costs[0], costs[1], 0.0]));
            }
            return Err(no);
        }
        self.covering(wanted.class, wanted.key).for_each(|pool| pool.take(costs));
        *self.second(now) += 1.0;
        self.remember(now, wanted);
        Ok(Admitted { spent, head: self.head(now, wanted.class, wanted.key) })
    }

    fn fault(&self, prng: &mut Prng) -> Option<No> {
        if prng.chance(self.overloaded) {
            let retry_after = prng.chance(0.5).then_some(Duration::from_secs(2));
            return Some(No::Overloaded { retry_after });
        }
        prng.chance(self.broken).then_some(No::Broken)
    }

    /// What the limiters have to hold for a request: of output counted as produced, anything.
    fn costs(&self, wanted: &Wanted, spent: &Spent) -> [f64; 3] {
        let output = match self.plan.counting {
            Counting::Produced => 0.0,
            Counting::Reserved => wanted.output_max,
        };
        [1.0, (spent.input + spent.cache_creation) as f64, output]
    }

    /// How its input is counted, by what the prompt cache holds.
    fn input(&self, now: f64, wanted: &Wanted) -> Spent {
        let marked = |prefix: &Prefix| (wanted.input * f64::from(prefix.share)).min(wanted.input);
        let read = [wanted.prefix, wanted.conversation].into_iter().flatten().filter_map(|prefix| {
            let cached = self.cache.get(&(wanted.class, prefix.key))?;
            let warm = cached.readable_from <= now && now < cached.until;
            warm.then(|| cached.tokens.min(marked(&prefix)))
        });
        let read = read.fold(0.0, f64::max).round() as u64;
        // A conversation marks all of its input for the next turn; a shared beginning only itself.
        let written = match (wanted.conversation, wanted.prefix) {
            (Some(_), _) => wanted.input,
            (None, Some(prefix)) => marked(&prefix),
            (None, None) => 0.0,
        };
        let cache_creation = (written.round() as u64).saturating_sub(read);
        let input = (wanted.input.round() as u64).saturating_sub(read + cache_creation);
        Spent { input, cache_creation, cache_read: read, output: 0 }
    }

    /// The cache will hold what it marked once its answer begins ([`Org::begins`]); its time runs
    /// from now.
    fn remember(&mut self, now: f64, wanted: &Wanted) {
        let marked = wanted.prefix.map(|prefix| (prefix, wanted.input * f64::from(prefix.share)));
        let all = wanted.conversation.map(|conversation| (conversation, wanted.input));
        for (prefix, tokens) in [marked, all].into_iter().flatten() {
            let until = now + prefix.ttl.as_secs_f64();
            let entry = self.cache.entry((wanted.class, prefix.key));
            let cold = Cached { tokens, readable_from: f64::INFINITY, until };
            let held = entry.or_insert(cold);
            if now >= held.until {
                *held = cold;
            }
            held.until = until;
        }
    }

    /// The first byte of an answer is produced: what its request marked can be read from now on.
    pub(crate) fn begins(&mut self, now: f64, wanted: &Wanted, per_second: f64) -> Levels {
        for prefix in [wanted.prefix, wanted.conversation].into_iter().flatten() {
            if let Some(held) = self.cache.get_mut(&(wanted.class, prefix.key)) {
                held.readable_from = held.readable_from.min(now);
                if wanted.conversation.is_some_and(|conversation| conversation.key == prefix.key) {
                    held.tokens = held.tokens.max(wanted.input);
                }
            }
        }
        self.draw(now, wanted, per_second);
        self.head(now, wanted.class, wanted.key)
    }

    /// A stream starts (or, negative, stops) to produce.
    pub(crate) fn draw(&mut self, now: f64, wanted: &Wanted, per_second: f64) {
        let produced = self.plan.counting == Counting::Produced;
        for pool in self.covering(wanted.class, wanted.key) {
            pool.advance(now);
            if let (true, Some(meter)) = (produced, &mut pool.meters[2]) {
                meter.draw_more(per_second);
            }
        }
    }

    /// A stream has ended after `output` tokens.
    pub(crate) fn ends(&mut self, now: f64, wanted: &Wanted, output: f64) {
        if self.plan.counting == Counting::Produced {
            return;
        }
        for pool in self.covering(wanted.class, wanted.key) {
            pool.advance(now);
            if let Some(meter) = &mut pool.meters[2] {
                meter.give_back((wanted.output_max - output).max(0.0));
            }
        }
    }

    /// What a head says: of each limiter the tighter of organisation and workspace.
    pub(crate) fn head(&mut self, now: f64, class: usize, key: u16) -> Levels {
        let mut said = [Level::default(); 3];
        for pool in self.covering(class, key) {
            pool.advance(now);
            for (which, said) in said.iter_mut().enumerate() {
                let level = pool.level(which);
                let tighter = said.remaining.is_none_or(|r| level.remaining.is_some_and(|own| own < r));
                if level.limit.is_some() && tighter {
                    *said = level;
                }
            }
        }
        Levels { requests: said[0], input_tokens: said[1], output_tokens: said[2] }
    }

    fn second(&mut self, now: f64) -> &mut f64 {
        let second = now as u64;
        if self.seconds.back().is_none_or(|(last, _)| *last != second) {
            self.seconds.push_back((second, 0.0));
        }
        while self.seconds.front().is_some_and(|(first, _)| first + 300 < second) {
            self.seconds.pop_front();
        }
        &mut self.seconds.back_mut().expect("one was pushed").1
    }

    /// The ramp rule: the rate of the last ten seconds against one and a half times that of the
    /// last five minutes.
    fn too_sharp(&mut self, now: f64) -> bool {
        let Some(floor) = self.plan.ramp_floor else { return false };
        self.second(now);
        let since = |span: f64| self.seconds.iter().filter(move |(s, _)| *s as f64 > now - span);
        let rate = |span: f64| since(span).map(|(_, n)| n).sum::<f64>() / span;
        rate(10.0) > floor.max(1.5 * rate(300.0))
    }

    /// Somebody else uses the organisation, for the `span` that ends now.
    pub(crate) fn foreign_takes(&mut self, now: f64, span: f64) {
        if self.foreign == 0.0 {
            return;
        }
        for meter in self.pools.iter_mut().flat_map(|pool| pool.meters.iter_mut().flatten()) {
            meter.advance(now);
            let share = meter.per_second() * self.foreign * span;
            if meter.left() >= share {
                meter.take(share);
            }
        }
    }

    /// Every limit changes by a factor; the headers may go on saying the old one.
    pub(crate) fn scale(&mut self, now: f64, factor: f64, told: bool) {
        for pool in &mut self.pools {
            pool.advance(now);
            pool.meters.iter_mut().flatten().for_each(|meter| meter.scale(factor));
            if told {
                pool.told = pool.told.map(|limit| limit.map(|limit| (limit as f64 * factor) as u64));
            }
        }
    }

    /// What a limiter of the organisation has counted so far.
    pub(crate) fn sums(&mut self, now: f64, class: usize, which: usize) -> Sums {
        self.pools[class].advance(now);
        self.pools[class].meters[which].as_ref().map(Meter::sums).unwrap_or_default()
    }
}
