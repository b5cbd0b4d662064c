//! When a request that input limits refuse for its size is given up.
//!
//! How much of a limit can be saved up the API does not tell, so a request that is larger than what
//! was there is saved for and sent again. It is of no use any more where the limit had all that a
//! minute gives, and where twice no more than the same came together: it was full. A refusal with less
//! than there once was says nothing, as others used it; one with more says that there is still more to
//! come. Each organisation that could take it has to have said so, but that of two with the same limit one
//! speaks for both. So nobody is told that an input is too large because it came at three bad moments, and others
//! do not wait a third time while all of a limit is saved for what will never fit.

use tidegate_schedule::OrgId;

/// What is left is told to the nearest thousand.
const ROUNDING: u64 = 1_000;
/// So many refusals, and it is given up whatever they told: with each, quota is saved up while others
/// wait. From a second's refill to a minute's, by half as much again each time, it is eleven.
const TIMES_MAX: u32 = 12;

/// What one organisation told.
#[derive(Debug)]
struct Told {
    org: OrgId,
    limit: u64,
    /// The most that was there.
    most: u64,
    /// It had all that it ever has.
    full: bool,
}

/// What a request's refusals for its size told.
#[derive(Debug, Default)]
pub(crate) struct Oversize {
    told: Vec<Told>,
    times: u32,
}

impl Oversize {
    /// `org` refused it although so much was `left` of its `limit` a minute. Says whether it is of no
    /// use to send it again, to none of the `organisations` that could take it.
    pub(crate) fn refused(&mut self, org: OrgId, left: u64, limit: u64, organisations: usize) -> bool {
        self.times += 1;
        // It had been saved for: half as much again would have been there.
        let within = |a: u64, b: u64| a <= b + b / 10 + ROUNDING;
        let mut full = left + ROUNDING >= limit;
        // Where limits are the same, so is how much of them can be saved up.
        for told in self.told.iter_mut().filter(|told| told.limit == limit) {
            if within(left, told.most) && within(told.most, left) {
                (full, told.full) = (true, true);
            }
        }
        match self.told.iter_mut().find(|told| told.org == org) {
            Some(told) => {
                // Less says nothing: others used it.
                if !within(left, told.most) || full {
                    told.full = full;
                }
                told.most = told.most.max(left);
                told.limit = limit;
            }
            None => self.told.push(Told { org, limit, most: left, full }),
        }
        let all = self.told.len() >= organisations && self.told.iter().all(|told| told.full);
        all || self.times >= TIMES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: OrgId = OrgId(0);
    const B: OrgId = OrgId(1);

    #[test]
    fn a_full_limit_that_refuses_will_always() {
        assert!(Oversize::default().refused(A, 999_500, 1_000_000, 1), "all that a minute gives was there");
        let mut five_seconds = Oversize::default();
        assert!(!five_seconds.refused(A, 83_000, 1_000_000, 1), "nobody knows yet how much it holds");
        assert!(five_seconds.refused(A, 84_000, 1_000_000, 1), "no more came together");
    }

    #[test]
    fn as_long_as_more_comes_together_it_may_become_enough() {
        let mut o = Oversize::default();
        assert!([30_000, 60_000, 90_000].into_iter().all(|left| !o.refused(A, left, 1_000_000, 1)));
        // Others used it meanwhile.
        assert!(!o.refused(A, 40_000, 1_000_000, 1));
        assert!(o.refused(A, 90_000, 1_000_000, 1));
    }

    #[test]
    fn another_organisation_may_hold_more_until_it_has_told_that_it_does_not() {
        let mut o = Oversize::default();
        assert!(!o.refused(A, 100_000, 100_000, 2), "the other one was not asked");
        assert!(!o.refused(A, 100_000, 100_000, 2));
        // As much as the small one has, and a beginning for the large one.
        assert!(!o.refused(B, 100_000, 1_000_000, 2));
        assert!(!o.refused(B, 500_000, 1_000_000, 2));
        assert!(o.refused(B, 510_000, 1_000_000, 2));
    }

    #[test]
    fn of_organisations_with_the_same_limit_one_speaks_for_the_other() {
        let mut o = Oversize::default();
        assert!(!o.refused(A, 83_000, 1_000_000, 2));
        assert!(o.refused(B, 84_000, 1_000_000, 2));
    }

    #[test]
    fn there_is_an_end() {
        let mut o = Oversize::default();
        let times = (1..40).find(|n| o.refused(A, 1_000 << n, 1 << 60, 1));
        assert_eq!(times, Some(TIMES_MAX));
    }
}
