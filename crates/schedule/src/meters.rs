//! One level of limits, of an organisation or a workspace in one class of models: its three shadow
//! buckets, what its running answers are still going to produce, and whether one more may go.
//!
//! Requests and input are taken when a request goes. Output is not: it comes while the answer runs,
//! so what matters is whether the bucket would run dry at some time in the next minute, with what is
//! already under way and with the new one. That is asked at five horizons ([`HORIZONS`]).

use crate::ask::{Level, Levels, Limits, Throttle, WaitsFor};
use crate::bucket::{Bucket, Kind, Source, Told};
use std::time::Duration;
use tidegate_base::Moment;

/// Times at which the output bucket must not have run dry, seconds.
pub(crate) const HORIZONS: [f64; 5] = [1.0, 3.0, 8.0, 20.0, 60.0];
/// What an organisation is taken to have until an answer tells: the API's smallest tier.
pub(crate) const ASSUMED: Limits =
    Limits { requests: Some(50), input_tokens: Some(30_000), output_tokens: Some(8_000) };
/// Times Little's law: more in flight only lengthens what is late to be learned (A2.10).
const IN_FLIGHT_FACTOR: f64 = 2.0;
/// So many may always be in flight: the law says little of a few.
const IN_FLIGHT_LEAST: f64 = 8.0;
/// Times the mean error: two standard deviations, about, of errors spread evenly.
pub(crate) const DOUBT: f64 = 2.3;
/// So many may always go in a second.
const LEAP_LEAST: f64 = 10.0;
/// How long nothing can be heard of a request, beside the network's jitter.
const TRANSIT: Duration = Duration::from_millis(50);
/// What each of those counts, output tokens.
const GRAIN: f64 = 300.0;
/// A wait that depends on answers under way is looked at again after so long at the latest.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Output an answer will produce within each horizon, tokens.
pub(crate) type Coming = [f64; HORIZONS.len()];

/// What will come of an answer with `rest` tokens to go, at `speed` tokens a second.
pub(crate) fn coming(rest: f64, speed: f64) -> Coming {
    HORIZONS.map(|h| (speed * h).min(rest))
}

/// What a request asks of the meters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    /// Uncached input tokens.
    pub(crate) input: f64,
    /// Output tokens, expected.
    pub(crate) output: f64,
    /// Output tokens reserved at once, where the provider does that.
    pub(crate) reserved: f64,
}

/// How a domain's answers run: what the output test needs of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// From a request to its first event, seconds, on average.
    pub(crate) first: f64,
    /// Output tokens a second of one answer, on average.
    pub(crate) speed: f64,
}

/// Why a request cannot go now, and for how long still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocked {
    pub(crate) wait: Duration,
    pub(crate) by: WaitsFor,
}

impl Blocked {
    /// The later of two.
    pub(crate) fn max(a: Option<Blocked>, b: Option<Blocked>) -> Option<Blocked> {
        match (a, b) {
            (Some(a), Some(b)) => Some(if b.wait > a.wait { b } else { a }),
            (a, b) => a.or(b),
        }
    }
}

/// One level of limits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meters {
    pub(crate) requests: Option<Bucket>,
    pub(crate) input: Option<Bucket>,
    pub(crate) output: Option<Bucket>,
    /// What the answers under way will produce.
    pub(crate) coming: Coming,
    /// By how much a second what they are taken to produce unseen may be off.
    pub(crate) unsure: f64,
    /// Squares of the inputs under way that the upstream has not counted yet.
    pub(crate) uncounted: f64,
    pub(crate) in_flight: u32,
    /// What the request next in turn needs at once, more than was ever seen: requests, input, output.
    room: [f64; 3],
    /// An input so large was refused although the bucket was as full as it gets; and when.
    too_large: Option<(f64, Moment)>,
}

/// How long an input that was found too large stays so.
const TOO_LARGE_FOR: Duration = Duration::from_secs(600);

impl Meters {
    /// Empty buckets with these limits.
    pub(crate) fn new(limits: Limits, source: Source, now: Moment) -> Self {
        let mut meters = Meters::default();
        meters.limit(limits, source, now);
        meters
    }

    /// Takes over limits; what is `None` stays as it is.
    pub(crate) fn limit(&mut self, limits: Limits, source: Source, now: Moment) {
        let set = |bucket: &mut Option<Bucket>, kind, limit: Option<u64>| match (bucket, limit) {
            (_, None) => {}
            (Some(bucket), Some(limit)) => bucket.tell_limit(limit, source),
            (bucket, Some(limit)) => *bucket = Some(Bucket::new(kind, limit, source, now)),
        };
        set(&mut self.requests, Kind::Requests, limits.requests);
        set(&mut self.input, Kind::Input, limits.input_tokens);
        set(&mut self.output, Kind::Output, limits.output_tokens);
    }

    /// What this level has of its own, as answers told; what it was thought to have and has not is
    /// dropped, unless the configuration says so.
    pub(crate) fn own(&mut self, limits: Limits, now: Moment) {
        let mut news = limits.parts();
        let buckets = [&mut self.requests, &mut self.input, &mut self.output];
        for (bucket, own) in buckets.into_iter().zip(&mut news) {
            if own.is_none() && bucket.as_ref().is_some_and(|b| b.source() == Source::Header) {
                *bucket = None;
            }
            // What is known already stays known from where it was.
            own.take_if(|own| bucket.as_ref().is_some_and(|b| b.limit() == *own));
        }
        self.limit(Limits::of_parts(news), Source::Header, now);
    }

    /// Drops what was only assumed: nothing is known to be metered.
    pub(crate) fn forget_assumed(&mut self) {
        for bucket in [&mut self.requests, &mut self.input, &mut self.output] {
            if bucket.as_ref().is_some_and(|b| b.source() == Source::Assumed) {
                *bucket = None;
            }
        }
    }

    /// The three, in the order in which they are shown.
    pub(crate) fn buckets(&self) -> [Option<&Bucket>; 3] {
        [self.requests.as_ref(), self.input.as_ref(), self.output.as_ref()]
    }

    /// Refills up to `now`.
    pub(crate) fn advance(&mut self, now: Moment) {
        let buckets = [&mut self.requests, &mut self.input, &mut self.output];
        for (bucket, room) in buckets.into_iter().zip(self.room) {
            if let Some(bucket) = bucket {
                bucket.advance(now, room);
            }
        }
    }

    /// The request next in turn waits here: what it needs may be saved up. Says how long that takes
    /// if it is more than was ever seen at once; zero if it is not.
    pub(crate) fn make_room(&mut self, demand: &Demand, error: f64, jitter: Duration) -> Duration {
        let mut longest = Duration::ZERO;
        let doubt = self.doubt(demand, error);
        let buckets =
            [(&self.requests, 1.0, 0.0), (&self.input, demand.input, doubt), (&self.output, demand.reserved, 0.0)];
        for ((bucket, amount, doubt), room) in buckets.into_iter().zip(&mut self.room) {
            let Some(bucket) = bucket else { continue };
            *room = bucket.need(amount, doubt, jitter);
            if *room > bucket.capacity() {
                // What is owed is to be refilled first.
                let missing = *room - bucket.low().min(0.0);
                longest = longest.max(Duration::from_secs_f64((missing / bucket.rate().max(1e-6)).min(86_400.0)));
            }
        }
        longest
    }

    /// By how much the inputs that the upstream has not counted yet, and this one, may be off.
    fn doubt(&self, demand: &Demand, error: f64) -> f64 {
        DOUBT * error * (self.uncounted.max(0.0) + demand.input * demand.input).sqrt()
    }

    /// Nobody waits here for more than usual.
    pub(crate) fn no_room(&mut self) {
        self.room = [0.0; 3];
    }

    /// Whether an input can never go, and what the limit is: it has `surely` more tokens than that, or
    /// its text alone (`plain`, as estimated) is as long as what was refused.
    pub(crate) fn never(&self, now: Moment, surely: f64, plain: f64) -> Option<u64> {
        // What is only assumed refuses nobody.
        let limit = self.input.as_ref().filter(|b| b.source() != Source::Assumed).map(|b| b.limit())?;
        let refused = self.too_large.filter(|(_, at)| now.since(*at) < TOO_LARGE_FOR).map(|(tokens, _)| tokens);
        (surely > limit as f64 || refused.is_some_and(|tokens| plain >= tokens * 0.95)).then_some(limit)
    }

    /// Why a request cannot go at this level now; `None`: it can.
    ///
    /// `error` is how far estimates of inputs are off on average: the errors of those that the
    /// upstream has not counted yet add up, like any that know nothing of each other.
    pub(crate) fn blocked(
        &self,
        now: Moment,
        demand: &Demand,
        error: f64,
        pace: &Pace,
        jitter: Duration,
    ) -> Option<Blocked> {
        let doubt = self.doubt(demand, error);
        let limiter = |bucket: &Option<Bucket>, amount: f64, doubt: f64, by: Throttle| {
            let wait = bucket.as_ref()?.wait(amount, doubt, jitter);
            (!wait.is_zero()).then_some(Blocked { wait, by: WaitsFor::Limit(by) })
        };
        let requests = limiter(&self.requests, 1.0, 0.0, Throttle::Requests);
        let input = limiter(&self.input, demand.input, doubt, Throttle::InputTokens);
        let output = self.output_blocked(now, demand, pace, jitter);
        Blocked::max(Blocked::max(requests, input), output)
    }

    fn output_blocked(&self, now: Moment, demand: &Demand, pace: &Pace, jitter: Duration) -> Option<Blocked> {
        let bucket = self.output.as_ref()?;
        let by = WaitsFor::Limit(Throttle::OutputTokens);
        if demand.reserved > 0.0 {
            let wait = bucket.wait(demand.reserved, 0.0, jitter);
            return (!wait.is_zero()).then_some(Blocked { wait, by });
        }
        // A level that is misjudged should cost a few 429s and not a batch of them: what has just gone
        // and cannot be heard of yet counts a little, whatever it will produce.
        let going = self.requests.as_ref().map_or(0.0, |b| b.used_since(now - jitter - TRANSIT));
        let (rate, guard) = (bucket.rate(), bucket.guard(jitter) + going.max(0.0) * GRAIN);
        let new = coming(demand.output, pace.speed);
        let mut missing = guard - bucket.low();
        for ((h, coming), new) in HORIZONS.into_iter().zip(self.coming).zip(new) {
            missing = missing.max(guard + coming + new - bucket.low() - rate * h);
        }
        if missing > 0.0 {
            let wait = Duration::from_secs_f64((missing / rate.max(1e-6)).min(86_400.0));
            return Some(Blocked { wait: wait.max(Duration::from_millis(1)), by });
        }
        let most = self.in_flight_max(demand.output, pace)?;
        (self.in_flight >= most).then_some(Blocked { wait: LOOK_AGAIN, by: WaitsFor::InFlight })
    }

    /// The most in flight that the output limit can feed, by Little's law.
    pub(crate) fn in_flight_max(&self, output: f64, pace: &Pace) -> Option<u32> {
        let bucket = self.output.as_ref()?;
        let output = output.max(1.0);
        let lasts = pace.first + output / pace.speed.max(1.0);
        Some((IN_FLIGHT_FACTOR * bucket.rate() / output * lasts).clamp(IN_FLIGHT_LEAST, 1e6) as u32)
    }

    /// A request goes.
    pub(crate) fn goes(&mut self, now: Moment, demand: &Demand, coming: &Coming) {
        self.in_flight += 1;
        self.no_room();
        self.take(now, 1.0, demand.input, demand.reserved);
        self.uncounted += demand.input * demand.input;
        self.comes(coming, 1.0);
    }

    /// One that went before counts here too.
    pub(crate) fn joins(&mut self, coming: &Coming, uncounted: f64) {
        self.in_flight += 1;
        self.uncounted += uncounted * uncounted;
        self.comes(coming, 1.0);
    }

    /// A request that went at `then` used so much more than was taken for it; less if negative.
    pub(crate) fn amend(&mut self, then: Moment, requests: f64, input: f64) {
        for (bucket, amount) in [(&mut self.requests, requests), (&mut self.input, input)] {
            if let (Some(bucket), true) = (bucket, amount != 0.0) {
                bucket.amend(then, amount);
            }
        }
    }

    /// So much of what was reserved is given back. The upstream did so up to `late` ago, and a head may
    /// have told of it before it is known here: what is noted as long ago as that cannot be counted
    /// twice.
    pub(crate) fn unreserve(&mut self, now: Moment, output: f64, late: Duration) {
        if let Some(bucket) = &mut self.output {
            bucket.amend(now - late * 2, -output);
        }
    }

    /// An answer that began at `then` produced so much more, unseen, than was taken for it.
    pub(crate) fn amend_unseen(&mut self, then: Moment, output: f64) {
        if let Some(bucket) = &mut self.output {
            bucket.amend_unseen(then, output);
        }
    }

    /// Takes from the buckets; negative amounts give back.
    pub(crate) fn take(&mut self, now: Moment, requests: f64, input: f64, output: f64) {
        let take = |bucket: &mut Option<Bucket>, amount: f64| {
            if let (Some(bucket), true) = (bucket, amount != 0.0) {
                bucket.take(now, amount);
            }
        };
        take(&mut self.requests, requests);
        take(&mut self.input, input);
        take(&mut self.output, output);
    }

    /// A request that went at `then` was refused unread: its input was, as a rule, not charged. If its
    /// answer's head told of `remaining` input, that says whether it was.
    pub(crate) fn unread(&mut self, now: Moment, then: Moment, input: f64, remaining: Option<u64>, late: Duration) {
        if let Some(bucket) = &mut self.requests {
            bucket.maybe_back(1.0);
        }
        let alone = self.in_flight == 0;
        if let Some(bucket) = &mut self.input {
            bucket.amend(then, -input);
            if let Some(remaining) = remaining {
                bucket.hear(now, then, &Told { remaining, unsure: 0.0, off: 0.0 }, late, alone);
            }
        }
    }

    /// What was taken for a request may have been given back.
    pub(crate) fn maybe_back(&mut self, input: f64) {
        if let Some(bucket) = &mut self.requests {
            bucket.maybe_back(1.0);
        }
        if let Some(bucket) = &mut self.input {
            bucket.maybe_back(input);
        }
    }

    /// Adds (or, with -1, takes off) what an answer will produce.
    pub(crate) fn comes(&mut self, coming: &Coming, times: f64) {
        for (sum, part) in self.coming.iter_mut().zip(coming) {
            *sum += part * times;
        }
        if self.in_flight == 0 {
            self.uncounted = 0.0;
            // No rounding error outlives the answers it came from.
            self.coming = Coming::default();
        }
    }

    /// A head told levels, for a request that went at `sent`, whose input may be off by `off`.
    pub(crate) fn hear(&mut self, now: Moment, sent: Moment, levels: &Levels, off: f64, late: Duration, alone: bool) {
        self.limit(levels.limits(), Source::Header, now);
        let hear = |bucket: &mut Option<Bucket>, level: &Level, unsure: f64, off: f64| {
            if let (Some(bucket), Some(remaining)) = (bucket, level.remaining) {
                bucket.hear(now, sent, &Told { remaining, unsure, off }, late, alone);
            }
        };
        hear(&mut self.requests, &levels.requests, 0.0, 0.0);
        hear(&mut self.input, &levels.input_tokens, 0.0, off);
        hear(&mut self.output, &levels.output_tokens, self.unsure, 0.0);
    }

    /// A 429 named a limiter and asked to wait; `tokens` is the input it refused although it had been
    /// saved for, else 0.
    pub(crate) fn blame(&mut self, now: Moment, by: Throttle, asked: Duration, tokens: f64) {
        match by {
            Throttle::Requests => self.requests.iter_mut().for_each(|b| b.blame(now, asked)),
            Throttle::InputTokens => {
                if let Some(bucket) = &mut self.input {
                    // It had been saved for, so nothing will ever be enough.
                    if tokens > bucket.capacity() && tokens > bucket.nominal() * 1.5 {
                        self.too_large = Some((tokens, now));
                    } else {
                        bucket.blame(now, asked);
                    }
                }
            }
            Throttle::OutputTokens => self.output.iter_mut().for_each(|b| b.blame(now, asked)),
            Throttle::Ramp | Throttle::Unnamed | Throttle::Concurrent | Throttle::SpendCap => {}
        }
    }

    /// Usage grew too sharply. Tokens follow requests, so where these are metered they alone are cut:
    /// a second's worth of a small rate is less than one long input.
    pub(crate) fn slow(&mut self, now: Moment) {
        if let Some(bucket) = self.requests.as_mut().or(self.input.as_mut()) {
            bucket.slow(now);
        }
    }

    /// Whether so many have gone in the last second that one more would be a leap: the domain was
    /// idle until `elapsed` ago, and twice what refills, doubled each second, is the most.
    pub(crate) fn leaps(&self, now: Moment, output: f64, elapsed: Duration) -> bool {
        let Some(requests) = &self.requests else { return false };
        let by_output = self.output.as_ref().map_or(f64::INFINITY, |b| b.rate() / output.max(1.0));
        let most = (2.0 * requests.rate().min(by_output)).max(LEAP_LEAST) * 2f64.powf(elapsed.as_secs_f64());
        requests.used_since(now - Duration::from_secs(1)) >= most
    }
}
