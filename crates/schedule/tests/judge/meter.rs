//! One limiter of the upstream: a token bucket that is refilled continuously and drawn from both at
//! once (a request, its input) and over time (output while it is produced).
//!
//! Between two calls refill and draw are constant, so the level is a straight line cut off at the
//! capacity, and what is cut off is the refill that nobody used. The level may fall below zero:
//! a stream that runs is not stopped when its limiter is empty, only the next request is.
//!
//! Written from the API's documentation, without a look at the scheduler's own idea of a bucket.

/// Half of a millionth of a token: sums of floats are not exact, and a refusal is a yes or no.
const TINY: f64 = 5e-7;

#[derive(Clone, Debug)]
pub(crate) struct Meter {
    per_second: f64,
    burst: f64,
    level: f64,
    draw: f64,
    at: f64,
    counted: f64,
    refilled: f64,
    lost: f64,
}

/// Sums since the beginning; the difference of two says what happened between them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    /// Taken from the bucket.
    pub(crate) counted: f64,
    /// What the rate gave, used or not.
    pub(crate) refilled: f64,
    /// The part of it that found the bucket full.
    pub(crate) lost: f64,
    /// What is in the bucket.
    pub(crate) level: f64,
}

impl Meter {
    /// A full one that holds `burst` seconds of its rate.
    pub(crate) fn full(per_minute: u64, burst: f64) -> Self {
        let per_second = per_minute as f64 / 60.0;
        let level = (per_second * burst).max(1.0);
        Meter { per_second, burst, level, draw: 0.0, at: 0.0, counted: 0.0, refilled: 0.0, lost: 0.0 }
    }

    pub(crate) fn capacity(&self) -> f64 {
        (self.per_second * self.burst).max(1.0)
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.per_second
    }

    /// Brings it to `now`, in seconds.
    pub(crate) fn advance(&mut self, now: f64) {
        let span = now - self.at;
        if span <= 0.0 {
            return;
        }
        self.at = now;
        self.counted += self.draw * span;
        self.refilled += self.per_second * span;
        self.level += (self.per_second - self.draw) * span;
        self.cut();
    }

    fn cut(&mut self) {
        let over = self.level - self.capacity();
        if over > 0.0 {
            self.lost += over;
            self.level -= over;
        }
    }

    /// Whether `cost` may be taken now. What is larger than the bucket may go when that is full.
    pub(crate) fn admits(&self, cost: f64) -> bool {
        self.level + TINY >= cost.min(self.capacity())
    }

    /// How long until `cost` may be taken, if nobody takes anything else.
    pub(crate) fn wait(&self, cost: f64) -> f64 {
        (cost.min(self.capacity()) - self.level).max(0.0) / self.per_second
    }

    pub(crate) fn take(&mut self, cost: f64) {
        self.counted += cost;
        self.level -= cost;
    }

    /// Gives back what was taken and not used.
    pub(crate) fn give_back(&mut self, cost: f64) {
        self.counted -= cost;
        self.level += cost;
        self.cut();
    }

    /// More (or less) is drawn per second from now on.
    pub(crate) fn draw_more(&mut self, per_second: f64) {
        self.draw += per_second;
    }

    /// The limit changes; what is in it stays, as far as it fits.
    pub(crate) fn scale(&mut self, factor: f64) {
        self.per_second *= factor;
        self.level = self.level.min(self.capacity());
    }

    /// What is left, as a header would show it before rounding.
    pub(crate) fn left(&self) -> f64 {
        self.level.max(0.0)
    }

    pub(crate) fn sums(&self) -> Sums {
        Sums { counted: self.counted, refilled: self.refilled, lost: self.lost, level: self.level }
    }
}

#[test]
fn it_refills_without_steps_and_holds_no_more_than_its_burst() {
    let mut meter = Meter::full(60, 5.0);
    assert!(meter.admits(5.0));
    meter.take(5.0);
    assert!(!meter.admits(1.0));
    assert_eq!(meter.wait(1.0), 1.0);
    meter.advance(0.5);
    assert!(meter.admits(0.5) && !meter.admits(0.6));
    meter.advance(60.0);
    assert!(meter.admits(5.0));
    assert_eq!(meter.sums().lost, 55.0);
    assert!(meter.admits(50.0), "what never fits goes when it is full");
    meter.take(50.0);
    assert_eq!((meter.left(), meter.wait(1.0)), (0.0, 46.0));
}

#[test]
fn streams_draw_while_they_run_and_may_leave_a_debt() {
    let mut meter = Meter::full(600, 1.0);
    meter.draw_more(30.0);
    meter.advance(1.0);
    assert_eq!((meter.sums().level, meter.sums().counted), (-10.0, 30.0));
    meter.draw_more(-30.0);
    meter.advance(2.0);
    assert_eq!((meter.sums().level, meter.sums().lost), (0.0, 0.0));
    meter.scale(0.5);
    meter.advance(10.0);
    assert_eq!((meter.left(), meter.sums().lost), (5.0, 35.0));
}
