//! When a request that input limits refuse for its size is given up.
//!
//! How much of a limit can be saved up the API does not tell, so a request that is larger than what
//! was there is saved for and sent again. It is of no use any more where the limit had all that a
//! minute gives, and where twice no more than the same came together: it was full. A refusal with less
//! than there once was says nothing, as others used it; one with more says that there is still more to
//! come. So nobody is told that an input is too large because it came at three bad moments, and others
//! do not wait a third time while all of a limit is saved for what will never fit.

/// What is left is told to the nearest thousand.
const ROUNDING: u64 = 1_000;
/// So many refusals, and it is given up whatever they told: with each, quota is saved up while others
/// wait. From a second's refill to a minute's, by half as much again each time, it is eleven.
const TIMES_MAX: u32 = 12;

/// What a request's refusals for its size told.
#[derive(Debug, Default)]
pub(crate) struct Oversize {
    /// The most that was there.
    most: u64,
    times: u32,
}

impl Oversize {
    /// It was refused although so much was `left` of a `limit` a minute. Says whether it is of no use
    /// to send it again; `elsewhere`: another organisation, which may hold more, could take it.
    pub(crate) fn refused(&mut self, left: u64, limit: u64, elsewhere: bool) -> bool {
        self.times += 1;
        let all = left + ROUNDING >= limit && !elsewhere;
        // It had been saved for: half as much again would have been there.
        let same = |a: u64, b: u64| a <= b + b / 10 + ROUNDING;
        let full = self.times > 1 && same(left, self.most) && same(self.most, left);
        self.most = left.max(self.most);
        all || full || self.times >= TIMES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_limit_that_refuses_will_always() {
        assert!(Oversize::default().refused(999_500, 1_000_000, false), "all that a minute gives was there");
        let mut five_seconds = Oversize::default();
        assert!(!five_seconds.refused(83_000, 1_000_000, false), "nobody knows yet how much it holds");
        assert!(five_seconds.refused(84_000, 1_000_000, false), "no more came together");
    }

    #[test]
    fn as_long_as_more_comes_together_it_may_become_enough() {
        let mut o = Oversize::default();
        assert!([30_000, 60_000, 90_000].into_iter().all(|left| !o.refused(left, 1_000_000, false)));
        // Others used it meanwhile.
        assert!(!o.refused(40_000, 1_000_000, false));
        assert!(o.refused(90_000, 1_000_000, false));
    }

    #[test]
    fn another_organisation_may_hold_more_and_there_is_an_end() {
        let mut o = Oversize::default();
        assert!(!o.refused(100_000, 100_000, true) && !o.refused(1_000_000, 1_000_000, true));
        assert!(o.refused(1_000_000, 1_000_000, true));
        let mut o = Oversize::default();
        let times = (1..40).find(|n| o.refused(1_000 << n, 1 << 60, false));
        assert_eq!(times, Some(TIMES_MAX));
    }
}
