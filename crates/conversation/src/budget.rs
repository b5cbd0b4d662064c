//! How many tokens a window may have, and the marks between which it breathes.
//!
//! ```text
//! 0 ────── low ─────── soft ───── high ──── room          (tokens of messages)
//!          │           │          │          └ nothing larger is sent
//!          │           │          └ a window that grew past here is cut ...
//!          │           └ a summary is made ahead
//!          └ ... down to here
//! ```
//! Between two cuts a window only grows at its end, so the prompt cache holds. The marks are shares
//! of the room, moved by up to 5 % per conversation: conversations that grow alike must not all
//! write their caches anew in the same minute.

/// What one request may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Tokens of the model's window, or fewer if an operator says so.
    pub window: u64,
    /// The request's `max_tokens`: the answer has to fit too.
    pub max_tokens: u64,
    /// What estimates may be wrong by.
    pub margin: u64,
    /// Tokens of what every request of the conversation carries: system prompt and tools.
    pub fixed: u64,
}

impl Budget {
    /// Tokens that are left for messages.
    pub fn room(&self) -> u64 {
        self.window.saturating_sub(self.max_tokens).saturating_sub(self.margin).saturating_sub(self.fixed)
    }
}

/// How windows are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Percent of the room at which a window is cut.
    pub high_percent: u8,
    /// Percent at which a summary is made ahead.
    pub soft_percent: u8,
    /// Percent down to which it is cut.
    pub low_percent: u8,
    /// The last groups that stay whole, but for results of tools; at least one.
    pub keep_groups: usize,
    /// Bytes from which on a tool result is worth eliding: what stands for it takes some fifty.
    pub elide_bytes_min: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Rules { high_percent: 75, soft_percent: 60, low_percent: 40, keep_groups: 2, elide_bytes_min: 400 }
    }
}

/// The marks of one conversation, tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// What a cut aims at.
    pub low: u64,
    /// From here on a summary is made.
    pub soft: u64,
    /// From here on a window is cut.
    pub high: u64,
    /// The most there is room for.
    pub room: u64,
}

/// How far the marks are moved, thousandths to either side.
const JITTER_PERMILLE: u64 = 50;

impl Rules {
    /// The marks in `room` tokens for the conversation with this hash.
    pub fn marks(&self, room: u64, conversation: u64) -> Marks {
        let permille = 1_000 - JITTER_PERMILLE + conversation % (2 * JITTER_PERMILLE + 1);
        let share = |percent: u8| {
            let tokens = u128::from(room) * u128::from(percent) * u128::from(permille) / 100_000;
            u64::try_from(tokens).unwrap_or(u64::MAX).min(room)
        };
        let high = share(self.high_percent);
        Marks { low: share(self.low_percent).min(high), soft: share(self.soft_percent).min(high), high, room }
    }
}

impl Marks {
    /// What a cut must save to be worth its cache: a quarter of the way down. Below that, a window
    /// past its high mark is left alone while it fits.
    pub(crate) fn gain_min(&self) -> u64 {
        (self.high - self.low) / 4
    }

    /// Half way between the marks: protected groups are touched only above it.
    pub(crate) fn middle(&self) -> u64 {
        self.low + (self.high - self.low) / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_shares_of_the_room_moved_by_the_conversation() {
        let budget = Budget { window: 200_000, max_tokens: 8_000, margin: 2_000, fixed: 10_000 };
        assert_eq!(budget.room(), 180_000);
        let rules = Rules::default();
        assert_eq!(rules.marks(100_000, 50), Marks { low: 40_000, soft: 60_000, high: 75_000, room: 100_000 });
        assert_eq!(rules.marks(100_000, 0).high, 71_250);
        assert_eq!(rules.marks(100_000, 100).high, 78_750);
        assert_eq!(Rules { high_percent: 100, ..rules }.marks(100, 100).high, 100);
        assert_eq!(Budget { window: 10, max_tokens: 20, margin: 0, fixed: 0 }.room(), 0);
    }
}
