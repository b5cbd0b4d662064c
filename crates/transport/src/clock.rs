//! The one reader of time.
//!
//! A clock is an origin on tokio's monotonic clock and the wall time of that origin. Under tokio's
//! paused clock both stand still and jump together, so a run in virtual time is the same run every
//! time. Copy it freely; it holds two numbers and whether they are the machine's.

use std::future::Future;
use std::time::{Duration, SystemTime};
use tidegate_base::Moment;
use tokio::time::{Instant, Sleep};

/// Tells the time, and sleeps until one.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    wall_at_origin: SystemTime,
    is_machines: bool,
}

impl Clock {
    /// The machine's clocks; moments count from now.
    #[expect(clippy::disallowed_methods, reason = "this is the room that reads clocks")]
    pub fn real() -> Self {
        Clock { origin: Instant::now(), wall_at_origin: SystemTime::now(), is_machines: true }
    }

    /// Tokio's clock of the current runtime (paused or not), with a wall time of the caller's.
    #[expect(clippy::disallowed_methods, reason = "this is the room that reads clocks")]
    pub fn from_wall(wall_now: SystemTime) -> Self {
        Clock { origin: Instant::now(), wall_at_origin: wall_now, is_machines: false }
    }

    /// This moment.
    #[expect(clippy::disallowed_methods, reason = "this is the room that reads clocks")]
    pub fn now(&self) -> Moment {
        let nanos = Instant::now().saturating_duration_since(self.origin).as_nanos();
        Moment::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The wall time at `moment`. It never jumps with the machine's wall clock during a run.
    pub fn wall_at(&self, moment: Moment) -> SystemTime {
        self.wall_at_origin + Duration::from_nanos(moment.as_nanos())
    }

    /// The wall time now.
    pub fn wall(&self) -> SystemTime {
        self.wall_at(self.now())
    }

    /// The wall time as another process on this machine reads it at this moment. Unlike
    /// [`Clock::wall`] it follows the machine's clock when that is set.
    #[expect(clippy::disallowed_methods, reason = "this is the room that reads clocks")]
    pub fn shared_wall(&self) -> SystemTime {
        if self.is_machines { SystemTime::now() } else { self.wall() }
    }

    fn instant(&self, moment: Moment) -> Instant {
        // tokio cannot hold a moment centuries away; a year is "never" for a process.
        let span = Duration::from_nanos(moment.as_nanos()).min(Duration::from_secs(365 * 86_400));
        self.origin + span
    }

    /// A future that is ready at `moment`.
    pub fn sleep_until(&self, moment: Moment) -> Sleep {
        tokio::time::sleep_until(self.instant(moment))
    }

    /// Moves a pinned sleep to another moment.
    pub fn reset(&self, sleep: std::pin::Pin<&mut Sleep>, moment: Moment) {
        sleep.reset(self.instant(moment));
    }

    /// `future`'s answer, or `None` if it has not come by `moment`.
    pub async fn by<F: Future>(&self, moment: Moment, future: F) -> Option<F::Output> {
        tokio::time::timeout_at(self.instant(moment), future).await.ok()
    }

    /// `future`'s answer, or `None` if it has not come within `span`.
    pub async fn within<F: Future>(&self, span: Duration, future: F) -> Option<F::Output> {
        tokio::time::timeout(span, future).await.ok()
    }
}
