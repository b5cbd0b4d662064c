//! The shadow of one of the upstream's buckets: between `low` and `high`, never a point.
//!
//! The upstream refills a bucket continuously and tells its level only now and then, rounded, of
//! an instant somewhere between our request and its answer. So two bounds are kept. Both refill and
//! both fall with what we use; what an answer's head says brings `high` down at once (somebody else
//! used some, or the limit changed) and lifts `low` slowly. Admission asks `low` alone.
//!
//! Two things are easy to get wrong and were (scheduling page, A2.2): a level from a head without
//! what we used since is too high by thousands of 429s, and so is one that forgets that what we
//! used a moment ago may not have arrived there.

use crate::ledger::{Ledger, MEMORY};
use std::time::Duration;
use tidegate_base::Moment;

/// Looks at the span in which a head may have been sampled, at most; each stands for a stretch, of
/// which the worst is taken.
const LOOKS: u32 = 48;
/// How much of the way to a higher `low` one head goes.
const LIFT: f64 = 0.2;
/// A limiter blamed for a 429 is believed to be slower by this, at most once per [`BLAME_PAUSE`].
const BLAMED: f64 = 0.85;
const BLAME_PAUSE: Duration = Duration::from_secs(2);
/// After so long without one the belief recovers, per second by this part of the limit.
const CALM: Duration = Duration::from_secs(5);
const RECOVERY: f64 = 0.002;
/// Slower than this part of its limit no limiter is believed to be.
const SLOWEST: f64 = 0.05;
/// Two heads so far apart tell how much others used in between: so long, or as long as it takes to
/// refill what rounding may hide of a small limit so many times.
const DRAIN_SPAN: Duration = Duration::from_secs(3);
const DRAIN_ROUNDINGS: f64 = 10.0;
/// And further apart they tell too little of now.
const DRAIN_SPAN_MAX: Duration = Duration::from_secs(30);
/// Others are not believed to use more than this part of a limit.
const DRAIN_MOST: f64 = 0.9;
/// And so long they are believed to go on when nothing tells.
const DRAIN_HALF_LIFE_S: f64 = 300.0;
/// After a ramp limit the rate grows by this part of itself a second: a tenth a minute.
const RAMP_GROWTH: f64 = 0.1 / 60.0;
/// Over so long what went is measured.
const RAMP_SPAN: Duration = Duration::from_secs(10);
/// However sharply usage had to be cut, so many a second stay.
const RAMP_LEAST_PER_S: f64 = 0.2;
/// So much of a second's refill may be saved up beyond what somebody needs.
const SLACK_S: f64 = 0.25;
/// Half-life of the highest level seen, which says how much can be saved up.
const SEEN_HALF_LIFE_S: f64 = 600.0;
/// And how long it is believed to hold no more than was found after a saving.
const HOLDS_FOR: Duration = Duration::from_secs(600);

/// What one bucket counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Requests,
    Input,
    Output,
}

impl Kind {
    /// What a single request may be off by: the guard's grain (scheduling page, A2.3).
    fn grain(self) -> f64 {
        match self {
            Kind::Requests => 1.0,
            Kind::Input => 1_500.0,
            Kind::Output => 300.0,
        }
    }

    /// What the header's rounding may hide.
    fn rounding(self) -> f64 {
        match self {
            Kind::Requests => 1.0,
            Kind::Input | Kind::Output => 500.0,
        }
    }
}

/// Where a limit is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Config,
    Header,
    /// Assumed until an answer says otherwise.
    Assumed,
}

impl Source {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Source::Config => "config",
            Source::Header => "header",
            Source::Assumed => "assumed",
        }
    }
}

/// What a head told of one limiter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) remaining: u64,
    /// By how much a second our own count of what was used may be off.
    pub(crate) unsure: f64,
    /// And by how much what was taken for the request that it answers.
    pub(crate) off: f64,
}

/// One limiter's shadow.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    kind: Kind,
    /// Per minute.
    limit: u64,
    source: Source,
    low: f64,
    high: f64,
    at: Moment,
    /// The highest level seen, decayed: how much is believed to be saved up at most.
    seen: f64,
    /// Part of the limit that is believed, after 429s.
    trust: f64,
    blamed_at: Option<Moment>,
    /// `trust` was cut for growing too sharply, and recovers as slowly as growth is allowed.
    ramped: bool,
    /// A head told its level.
    heard_at: Option<Moment>,
    ledger: Ledger,
    /// How much was found missing that we did not use: another consumer, or a limit that was cut
    /// and not told, in all.
    foreign: f64,
    /// The same, a second, as believed now.
    drain: f64,
    /// The bounds an earlier head gave, when, and what we had used by then.
    earlier: Option<Earlier>,
    /// What is being saved up for somebody, if it is more than was ever seen.
    saving: Option<f64>,
    /// The last that was saved for, until a head tells of it.
    saved: Option<Saved>,
    /// It holds no more than this, as found then.
    holds: Option<(f64, Moment)>,
}

/// A request that was saved for went.
#[derive(Clone, Copy, Debug)]
struct Saved {
    went: Moment,
    /// What was there then, if there was room for it.
    level: f64,
    amount: f64,
}

#[derive(Clone, Copy, Debug)]
struct Earlier {
    at: Moment,
    low: f64,
    high: f64,
    used: f64,
}

impl Bucket {
    /// An empty bucket: what the upstream has saved up is not counted on.
    pub(crate) fn new(kind: Kind, limit: u64, source: Source, now: Moment) -> Self {
        Bucket {
            kind,
            limit,
            source,
            low: 0.0,
            high: limit as f64,
            at: now,
            seen: 0.0,
            trust: 1.0,
            blamed_at: None,
            ramped: false,
            heard_at: None,
            ledger: Ledger::default(),
            foreign: 0.0,
            drain: 0.0,
            earlier: None,
            saving: None,
            saved: None,
            holds: None,
        }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn source(&self) -> Source {
        self.source
    }

    pub(crate) fn low(&self) -> f64 {
        self.low
    }

    pub(crate) fn high(&self) -> f64 {
        self.high
    }

    /// Tokens (or requests) used in all.
    pub(crate) fn used(&self) -> f64 {
        self.ledger.total()
    }

    /// Refill per second, by the limit.
    pub(crate) fn nominal(&self) -> f64 {
        self.limit as f64 / 60.0
    }

    /// Refill per second, as believed: by the limit, less what 429s and others take off.
    pub(crate) fn rate(&self) -> f64 {
        let nominal = self.nominal();
        (nominal * self.trust - self.drain).max(nominal * self.trust.min(SLOWEST))
    }

    /// The most that is believed to be saved up: what was seen, and a second's refill at least.
    pub(crate) fn capacity(&self) -> f64 {
        // Who grew too sharply may not spend at once what others would let him save up.
        if self.ramped { self.rate().max(1.0) } else { self.seen.max(self.nominal()).max(1.0) }
    }

    /// The most it can hold at all, as far as that is known.
    fn holds(&self) -> f64 {
        self.holds.map_or(f64::INFINITY, |(most, _)| most.max(self.capacity()))
    }

    /// What is kept back, so that lateness and rounding do not add up to a 429.
    pub(crate) fn guard(&self, jitter: Duration) -> f64 {
        let capacity = self.capacity();
        (self.rate() * jitter.as_secs_f64() + self.kind.grain() + 0.03 * capacity).min(0.4 * capacity)
    }

    /// Refills up to `now`. `room` is how much a waiting request needs at once, if that is more than
    /// was ever seen: nothing else is let through meanwhile, so it may be believed to fill so far, and
    /// a little more, since what is needed may grow meanwhile and must not be run after.
    pub(crate) fn advance(&mut self, now: Moment, room: f64) {
        let span = now.since(self.at).as_secs_f64();
        if span <= 0.0 {
            return;
        }
        self.at = now;
        if self.trust < 1.0 && self.blamed_at.is_none_or(|at| now.since(at) > CALM) {
            let more = if self.ramped { self.trust * RAMP_GROWTH } else { RECOVERY };
            self.trust = (self.trust + more * span).min(1.0);
            self.ramped &= self.trust < 1.0;
        }
        self.seen *= 0.5f64.powf(span / SEEN_HALF_LIFE_S);
        self.drain *= 0.5f64.powf(span / DRAIN_HALF_LIFE_S);
        // Never down to the capacity: what is there was told, or saved for somebody.
        self.saving = (room > self.capacity()).then_some(room);
        let room = if room > 0.0 { room + self.rate() * SLACK_S } else { 0.0 };
        let most = self.capacity().max(room).max(self.low);
        self.holds = self.holds.filter(|(_, found)| now.since(*found) < HOLDS_FOR);
        self.low = (self.low + self.rate() * span).min(most);
        self.high = (self.high + self.nominal() * span).min((self.limit as f64).max(self.low));
    }

    /// `amount` was used, or is about to be; a negative one was not used after all.
    pub(crate) fn take(&mut self, now: Moment, amount: f64) {
        if let Some(need) = self.saving.take_if(|_| amount > 0.0) {
            // What was saved may have run over: that it may be there was reason enough to try, and is none
            // to count on the rest.
            self.saved = Some(Saved { went: now, level: self.low, amount });
            let sure = self.capacity();
            self.low = self.low.min(if amount > sure { sure } else { need });
        }
        self.low -= amount;
        self.high -= amount;
        self.ledger.add(now, amount);
    }

    /// `amount` more was used at `then` than was taken for it; fewer if negative. It is put where it
    /// belongs, or heads of answers from before now would see it come and go a second time.
    pub(crate) fn amend(&mut self, then: Moment, amount: f64) {
        self.low -= amount;
        self.high -= amount;
        self.note(then, amount);
    }

    fn note(&mut self, then: Moment, amount: f64) {
        self.ledger.amend(then, amount);
        if let Some(earlier) = self.earlier.as_mut().filter(|e| e.at >= then) {
            earlier.used += amount;
        }
    }

    /// The same of what was used bit by bit since `then`, unseen: what heads have told since has it
    /// already.
    pub(crate) fn amend_unseen(&mut self, then: Moment, amount: f64) {
        if self.heard_at.is_some_and(|at| at > then) {
            self.note(then, amount);
        } else {
            self.amend(then, amount);
        }
    }

    /// `amount` that was taken may have been given back, or not.
    pub(crate) fn maybe_back(&mut self, amount: f64) {
        self.high += amount;
    }

    /// The limit was told.
    pub(crate) fn tell_limit(&mut self, limit: u64, source: Source) {
        if limit == self.limit && source == self.source {
            return;
        }
        if limit != self.limit {
            (self.trust, self.drain, self.earlier) = (1.0, 0.0, None);
            self.low = self.low.min(limit as f64);
            self.high = if limit > self.limit { self.high + (limit - self.limit) as f64 } else { self.high };
            self.high = self.high.min(limit as f64).max(self.low);
            self.seen = self.seen.min(limit as f64);
            (self.saved, self.holds) = (None, None);
        }
        (self.limit, self.source) = (limit, source);
    }

    /// A head told a level, of an instant between `sent` and `now`. `late` is how long what we
    /// used may have been under way; `alone`: nothing else of ours was in flight.
    pub(crate) fn hear(&mut self, now: Moment, sent: Moment, told: &Told, late: Duration, alone: bool) {
        let (remaining, saving) = (told.remaining, self.saving);
        self.advance(now, 0.0);
        self.saving = saving;
        let (unsure, off) = (told.unsure, told.off);
        let (told, err) = (remaining as f64, self.kind.rounding() + unsure * now.since(sent).as_secs_f64());
        self.seen = self.seen.max(told);
        let is_first = self.heard_at.replace(now).is_none();
        let (low, high) = self.bounds(now, sent.max(now - MEMORY.saturating_sub(late)), told, err, late);
        let left = self.tells_of_saving(now, sent, told, err + off, high);
        // What can be there falls only as we use it. A bucket that may be full loses what does not fit.
        if !is_first && high < self.capacity() - self.kind.rounding() {
            self.foreign += (self.high - high).max(0.0);
        }
        if high < self.low {
            // Nothing of what was believed is left to believe: the head's own bounds hold.
            self.low = if remaining > 0 { self.low.min(low) } else { high };
        }
        self.compare(now, if remaining > 0 { low } else { f64::NEG_INFINITY }, high, unsure);
        self.high = if low > self.high { high } else { self.high.min(high) };
        // Where growth is limited the level says nothing of what may go.
        if remaining > 0 && low > self.low && !self.ramped {
            self.low = if alone { low } else { self.low + LIFT * (low - self.low) };
        }
        self.low = self.low.max(left.unwrap_or(f64::NEG_INFINITY));
        self.low = self.low.min(self.high);
    }

    /// The first head since a saving ended tells what was there then, and so what can be there: `told`
    /// less `off` at least, of some time after a request that went at `sent`, and `high` at most by now.
    /// If all that was saved would have been more, it ran over, and the bucket holds no more than it had.
    /// The head of the very request it was saved for has seen that request; what must be left then is
    /// the answer.
    fn tells_of_saving(&mut self, now: Moment, sent: Moment, told: f64, off: f64, high: f64) -> Option<f64> {
        let saved = self.saved.take_if(|saved| saved.went <= sent)?;
        let refilled = self.nominal() * now.since(saved.went).as_secs_f64();
        let used = self.ledger.total() - self.ledger.by(saved.went);
        if refilled > used {
            // It may have run over since.
            return None;
        }
        let there = high + off + used - refilled;
        if there < saved.level.min(self.holds()) {
            self.holds = Some((there.max(self.capacity()), now));
        }
        if told <= off || sent > saved.went {
            return None;
        }
        self.seen = self.seen.max(told - off + saved.amount - refilled);
        Some(told - off - (used - saved.amount).max(0.0))
    }

    /// What others used since an earlier head lies between what is surely missing and what may be;
    /// what is believed of them is moved between the two. A bucket that may have been full in
    /// between lost some of its refill to nobody, and tells nothing; one that is full has no others.
    fn compare(&mut self, now: Moment, low: f64, high: f64, unsure: f64) {
        let this = Earlier { at: now, low, high, used: self.ledger.total() };
        let Some(earlier) = self.earlier.filter(|e| now.since(e.at) < DRAIN_SPAN_MAX) else {
            self.earlier = (low > f64::NEG_INFINITY).then_some(this);
            return;
        };
        let span = now.since(earlier.at).as_secs_f64();
        // A head that says zero has no lower bound to compare with later.
        let long = DRAIN_SPAN.as_secs_f64().max(DRAIN_ROUNDINGS * self.kind.rounding() / self.nominal().max(1e-6));
        if span < long || low == f64::NEG_INFINITY {
            return;
        }
        self.earlier = Some(this);
        let refill = self.nominal() * span;
        let full = self.capacity();
        if high >= full - self.kind.rounding() {
            self.drain = 0.0;
        } else if earlier.high + refill < full {
            let change = refill - (this.used - earlier.used);
            let surely = (earlier.low + change - high) / span - unsure;
            let at_most = (earlier.high + change - low) / span + unsure;
            self.drain = self.drain.min(at_most).max(surely).clamp(0.0, DRAIN_MOST * self.nominal());
        }
    }

    /// The least and the most that can be there now, by what a head said.
    fn bounds(&self, now: Moment, sent: Moment, told: f64, err: f64, late: Duration) -> (f64, f64) {
        let step = now.since(sent) / LOOKS;
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        let total = self.ledger.total();
        for n in 0..LOOKS {
            // The stretch from `a` to `b`: refill is least from `b`, use is most from `a`.
            let (a, b) = (sent + step * n, sent + step * (n + 1));
            let refill = |from: Moment| self.rate() * now.since(from).as_secs_f64();
            low = low.min(refill(b) - (total - self.ledger.by(a - late)));
            // Output is known later than it was used, requests and input earlier.
            let surely_after = if self.kind == Kind::Output { b + late } else { b };
            let refill = self.nominal() * now.since(a).as_secs_f64();
            high = high.max(refill - (total - self.ledger.with(surely_after)));
            if step.is_zero() {
                break;
            }
        }
        (told - err + low, told + err + high)
    }

    /// A 429 blamed this limiter, and asked to wait for `asked`: until then it has just enough for
    /// that one request, so what refills meanwhile is spoken for.
    pub(crate) fn blame(&mut self, now: Moment, asked: Duration) {
        self.advance(now, 0.0);
        if self.blamed_at.is_none_or(|at| now.since(at) >= BLAME_PAUSE) {
            self.trust = (self.trust * BLAMED).max(SLOWEST);
            self.blamed_at = Some(now);
        }
        self.low = self.low.min(0.0).min(-self.rate() * asked.as_secs_f64());
        // What was found may have been others' use.
        (self.saved, self.holds) = (None, None);
    }

    /// Usage as a whole grew too sharply: slow down to nine tenths of what went in the last ten
    /// seconds, or, where it was slowed down already, by a third; to grow again slowly. What was
    /// saved up is not to be spent at once either.
    pub(crate) fn slow(&mut self, now: Moment) {
        self.advance(now, 0.0);
        let recent = self.used_since(now - RAMP_SPAN) / RAMP_SPAN.as_secs_f64();
        let slower = if self.ramped { self.rate() * 0.7 } else { recent * 0.9 };
        let least = RAMP_LEAST_PER_S * self.kind.grain();
        self.trust = self.trust.min(slower.max(least) / self.nominal().max(f64::MIN_POSITIVE));
        (self.ramped, self.blamed_at) = (true, Some(now));
        self.low = self.low.min(self.capacity());
    }

    /// What was used since `then`.
    pub(crate) fn used_since(&self, then: Moment) -> f64 {
        self.ledger.total() - self.ledger.by(then)
    }

    /// How long until `amount` is there above the guard and above `doubt`; zero if it is now. More
    /// than can ever be saved up is taken for there once the bucket is as full as it can be.
    pub(crate) fn wait(&self, amount: f64, doubt: f64, jitter: Duration) -> Duration {
        let missing = self.need(amount, doubt, jitter) - self.low;
        if missing <= 0.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64((missing / self.rate().max(1e-6)).min(86_400.0))
    }

    /// The level at which `amount` may go, if it may be off by `doubt`.
    pub(crate) fn need(&self, amount: f64, doubt: f64, jitter: Duration) -> f64 {
        let guard = self.guard(jitter) + doubt.min(0.3 * self.capacity());
        let full = (0.999 * (self.limit as f64).max(self.capacity())).min(self.holds() + guard);
        (amount + guard).min(full.max(guard))
    }

    /// What was used by others, as far as it was noticed.
    pub(crate) fn foreign(&self) -> f64 {
        self.foreign
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidegate_base::Prng;

    fn at(ms: u64) -> Moment {
        Moment::from_nanos(ms * 1_000_000)
    }

    const MS: Duration = Duration::from_millis(1);
    const S: Duration = Duration::from_secs(1);

    fn told(remaining: u64) -> Told {
        Told { remaining, unsure: 0.0, off: 0.0 }
    }

    /// The upstream's own bucket, exact.
    struct Real {
        rate_per_ms: f64,
        most: f64,
        level: f64,
        at: u64,
    }

    impl Real {
        fn level(&mut self, ms: u64) -> f64 {
            self.level = (self.level + (ms - self.at) as f64 * self.rate_per_ms).min(self.most);
            self.at = ms;
            self.level
        }
    }

    #[test]
    fn it_begins_empty_and_holds_what_was_seen() {
        let mut b = Bucket::new(Kind::Input, 60_000, Source::Config, at(0));
        b.advance(at(500), 0.0);
        assert_eq!(b.low(), 500.0);
        b.advance(at(60_000), 0.0);
        assert_eq!(b.low(), 1_000.0, "a second's refill, since more was never seen");
        b.advance(at(70_000), 5_000.0);
        assert_eq!(b.low(), 5_250.0, "and more for whom it is saved");
        assert_eq!(b.wait(5_000.0, 0.0, 100 * MS), Duration::from_secs_f64(0.15), "the guard");
    }

    #[test]
    fn a_head_lifts_slowly_unless_nothing_else_was_under_way_and_lowers_at_once() {
        let mut b = Bucket::new(Kind::Input, 60_000, Source::Config, at(0));
        b.hear(at(1_000), at(900), &told(50_000), 100 * MS, false);
        assert!((9_000.0..11_500.0).contains(&b.low()), "{}", b.low());
        b.hear(at(1_000), at(900), &told(50_000), 100 * MS, true);
        assert!((49_000.0..50_000.0).contains(&b.low()), "{}", b.low());
        b.hear(at(1_000), at(900), &told(2_000), 100 * MS, false);
        assert!(b.low() <= 2_600.0 && b.high() <= 2_700.0, "{} {}", b.low(), b.high());
        assert!(b.foreign() > 45_000.0);
    }

    #[test]
    fn nothing_left_says_nothing_of_how_deep_it_is() {
        let mut b = Bucket::new(Kind::Output, 60_000, Source::Config, at(0));
        b.take(at(0), 30_000.0);
        b.hear(at(1_000), at(900), &told(0), 100 * MS, true);
        assert!(b.low() < -28_000.0, "a head that says zero does not lift: {}", b.low());
    }

    #[test]
    fn a_blamed_limiter_is_slower_for_a_while() {
        let mut b = Bucket::new(Kind::Requests, 600, Source::Header, at(0));
        b.blame(at(10_000), Duration::ZERO);
        b.blame(at(11_000), 2 * S);
        assert_eq!(b.rate(), 8.5, "once in two seconds");
        assert_eq!(b.low(), -17.0, "empty when it may be asked again");
        b.blame(at(12_000), Duration::ZERO);
        assert!((b.rate() - 7.225).abs() < 1e-9 && b.low() <= 0.0);
        b.advance(at(17_000), 0.0);
        assert!((b.rate() - 7.225).abs() < 1e-9);
        b.advance(at(67_000), 0.0);
        assert!((8.2..8.3).contains(&b.rate()), "a fifth of a percent a second: {}", b.rate());
        (0..100).for_each(|n| b.blame(at(70_000 + n * 3_000), Duration::ZERO));
        assert_eq!(b.rate(), 0.5, "never nothing");
    }

    #[test]
    fn what_others_use_is_believed_to_go_on_and_their_end_is_noticed() {
        let mut b = Bucket::new(Kind::Input, 600_000, Source::Header, at(0));
        let mut level = 30_000.0;
        b.hear(at(0), at(0), &told(600_000), 100 * MS, false);
        let mut run = |b: &mut Bucket, from: u64, others: f64| {
            for n in 1..=200 {
                level += (10_000.0 - others) * 0.1;
                let now = from + n * 100;
                b.hear(at(now), at(now - 50), &told(level.max(0.0) as u64), 100 * MS, false);
                let use_now = (b.low() - 20_000.0).max(0.0);
                b.take(at(now), use_now);
                level -= use_now;
            }
        };
        run(&mut b, 0, 0.0);
        assert!(b.rate() > 9_800.0, "{}", b.rate());
        run(&mut b, 20_000, 5_000.0);
        assert!((4_500.0..6_500.0).contains(&b.rate()), "half is taken by others: {}", b.rate());
        run(&mut b, 40_000, 0.0);
        assert!(b.rate() > 8_500.0, "they have gone: {}", b.rate());
    }

    #[test]
    fn what_others_take_of_a_small_limit_is_noticed_although_heads_are_rounded() {
        for (others, noticed) in [(0.0, 0.0..1_500.0), (16.7, 8_000.0..25_000.0)] {
            let mut b = Bucket::new(Kind::Output, 60_000, Source::Header, at(0));
            let mut level = 5_000.0f64;
            for n in 1..=1_200 {
                let now = n * 50;
                level = (level + 50.0 - if level > others { others } else { 0.0 }).min(5_000.0);
                b.advance(at(now), 0.0);
                let use_now = (b.low() - 600.0).max(0.0);
                b.take(at(now), use_now);
                level -= use_now;
                let rounded = (level.max(0.0) / 1_000.0).round() * 1_000.0;
                b.hear(at(now), at(now - 50), &told(rounded as u64), 100 * MS, false);
            }
            assert!(noticed.contains(&b.foreign()), "{others}: {}", b.foreign());
        }
    }

    #[test]
    fn what_ran_over_is_not_counted_on_and_tells_how_much_it_holds() {
        let mut b = Bucket::new(Kind::Input, 600_000, Source::Config, at(0));
        let mut real = Real { rate_per_ms: 10.0, most: 50_000.0, level: 50_000.0, at: 0 };
        let (mut now, mut waits) = (0, Vec::new());
        for amount in [90_000.0, 40_000.0, 60_000.0, 90_000.0] {
            let began = now;
            while b.low() < b.need(amount, 0.0, 100 * MS) {
                now += 50;
                b.advance(at(now), b.need(amount, 0.0, 100 * MS));
                assert!(now < began + 40_000);
            }
            waits.push(now - began);
            b.take(at(now), amount);
            assert!(real.level(now) >= amount.min(50_000.0), "it can be let in");
            real.level -= amount;
            assert!(b.low() <= real.level(now), "{} over {}", b.low(), real.level);
            now += 500;
            let remaining = real.level(now).max(0.0) as u64;
            b.hear(at(now), at(now - 500), &told(remaining), 100 * MS, false);
        }
        // At first until all of it would be there, and at last only until the bucket is full.
        assert!(waits[0] > 9_000 && waits[3] < 8_000, "{waits:?}");
        assert!((50_000.0..70_000.0).contains(&b.holds()), "{}", b.holds());
        b.blame(at(now), S);
        assert_eq!(b.holds(), f64::INFINITY, "it may have been somebody else's use");
    }

    #[test]
    fn a_limit_that_is_told_counts_from_then_on() {
        let mut b = Bucket::new(Kind::Requests, 600, Source::Assumed, at(0));
        b.hear(at(1_000), at(900), &told(590), 100 * MS, true);
        b.tell_limit(300, Source::Header);
        assert_eq!((b.rate(), b.limit(), b.source().name()), (5.0, 300, "header"));
        assert!(b.low() <= 300.0 && b.high() <= 300.0);
    }

    proptest! {
        /// With an upstream that is used by us alone, what is really there is never below `low` and
        /// never above `high`, however late requests arrive and heads come back. But for one thing:
        /// a full bucket takes in nothing while what we used is on its way to it, and here it does.
        /// That is at most the refill of the lateness, and what the guard is for.
        #[test]
        fn the_truth_lies_between_the_bounds(seed in any::<u64>(), burst in 1u64..60, requests in any::<bool>()) {
            let mut prng = Prng::new(seed);
            let kind = if requests { Kind::Requests } else { Kind::Input };
            let limit = if requests { 6_000 } else { 600_000 };
            let rate_per_ms = limit as f64 / 60_000.0;
            let most = rate_per_ms * 1_000.0 * burst as f64;
            let mut real = Real { rate_per_ms, most, level: most, at: 0 };
            let mut b = Bucket::new(kind, limit, Source::Config, at(0));
            let late = 100;
            // What arrives there, and heads that come back: by time.
            let mut arrivals = std::collections::BTreeMap::<(u64, u64), f64>::new();
            let mut heads = std::collections::BTreeMap::<(u64, u64), (u64, u64)>::new();
            let mut under_way = 0.0;
            for now in 1..6_000u64 {
                while let Some(entry) = arrivals.first_entry().filter(|e| e.key().0 <= now) {
                    let ((_, sent), amount) = entry.remove_entry();
                    real.level(now);
                    real.level -= amount;
                    under_way -= amount;
                    // Told as it stands now, heard later; tokens in thousands.
                    let told = real.level.max(0.0);
                    let told = if requests { told.floor() } else { (told / 1_000.0).round() * 1_000.0 };
                    heads.insert((now + prng.between(1, 2_000), sent), (sent, told as u64));
                }
                while let Some(entry) = heads.first_entry().filter(|e| e.key().0 <= now) {
                    let (_, (sent, told)) = entry.remove_entry();
                    b.hear(at(now), at(sent), &Told { remaining: told, unsure: 0.0, off: 0.0 }, Duration::from_millis(late), false);
                }
                b.advance(at(now), 0.0);
                if prng.chance(0.05) {
                    let amount = if requests { 1.0 } else { prng.between(1, 2_000) as f64 };
                    if b.low() >= amount {
                        b.take(at(now), amount);
                        under_way += amount;
                        arrivals.insert((now + prng.between(1, late - 50), now), amount);
                    }
                }
                let truth = real.level(now) - under_way;
                let lost = rate_per_ms * late as f64;
                prop_assert!(b.low() <= truth + lost, "{now} ms: low {} over {truth}", b.low());
                prop_assert!(b.high() >= truth - 1e-6, "{now} ms: high {} under {truth}", b.high());
            }
        }
    }
}
