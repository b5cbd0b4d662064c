//! The numbers the scheduler runs under; every one is a setting.

use crate::retry::RetryRules;
use std::time::Duration;

/// The queue's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueRules {
    /// The most requests that wait, over all bands and classes.
    pub waiting_max: usize,
    /// The longest wait, by band (design section 6).
    pub wait_max: [Duration; 3],
}

impl Default for QueueRules {
    fn default() -> Self {
        let s = Duration::from_secs;
        QueueRules { waiting_max: 10_000, wait_max: [s(20), s(60), s(600)] }
    }
}

/// The most that [`Rules::jitter`] may be: ten seconds of a limit kept back are a sixth of a minute's.
pub const JITTER_MAX: Duration = Duration::from_secs(10);

/// The scheduler's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How requests wait.
    pub queue: QueueRules,
    /// Shares of the bands where all have somebody waiting (scheduling page, A2.5).
    pub band_weights: [u32; 3],
    /// A tenant that got nothing out of a band for so long has its first request moved up one.
    pub ageing: Duration,
    /// How failed attempts are repeated.
    pub retry: RetryRules,
    /// How much later than it is reckoned here something may count at the upstream: the network's
    /// jitter, and the 50 ms by which progress is told late. At most [`JITTER_MAX`].
    pub jitter: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            queue: QueueRules::default(),
            band_weights: [16, 4, 1],
            ageing: Duration::from_secs(30),
            retry: RetryRules::default(),
            jitter: Duration::from_millis(100),
        }
    }
}
