//! When a request that input limits refuse for its size is given up.
//!
//! How much of a limit can be saved up the API does not tell, so a request that is larger than what
//! was there is saved for and sent again. It is of no use any more where the limit had all that a
//! minute gives, and where twice no more than the same came together: it was full. A refusal with less
//! than there once was says nothing, as others used it; one with more says that there is still more to
//! come. So nobody is told that an input is too large because it came at three bad moments, and others
//! do not wait a third time while all of a limit is saved for what will never fit.

use tidegate_schedule::OrgId;

/// What is left is told to the nearest thousand.
const ROUNDING: u64 = 1_000;
/// So many refusals for each organisation, and it is given up whatever they told: with each, quota is
/// saved up while others wait. From a second's refill to a minute's, by half as much again each time, it
/// is eleven.
const TIMES_MAX: usize = 12;

/// What a request's refusals for its size told.
#[derive(Debug, Default)]
pub(crate) struct Oversize {
    /// Of each organisation, the most that was there, and whether that is all there can be.
    by_org: Vec<(OrgId, u64, bool)>,
    times: usize,
}

impl Oversize {
    /// An organisation refused it although so much was `left` of a `limit` a minute. Says whether none
    /// of the `places` organisations it could go to will ever take it.
    pub(crate) fn refused(&mut self, org: OrgId, left: u64, limit: u64, places: usize) -> bool {
        self.times += 1;
        let all = left + ROUNDING >= limit;
        match self.by_org.iter_mut().find(|(known, ..)| *known == org) {
            None => self.by_org.push((org, left, all)),
            Some((_, most, is_full)) => {
                // It had been saved for: half as much again would have been there.
                let same = |a: u64, b: u64| a <= b + b / 10 + ROUNDING;
                *is_full = all || same(left, *most) && same(*most, left);
                *most = left.max(*most);
            }
        }
        let full = self.by_org.iter().filter(|(.., is_full)| *is_full).count();
        full >= places || self.times >= TIMES_MAX * places
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
    fn another_organisation_may_hold_more_and_there_is_an_end() {
        let mut o = Oversize::default();
        assert!(!o.refused(A, 100_000, 100_000, 2) && !o.refused(B, 100_000, 1_000_000, 2));
        assert!(o.refused(B, 100_000, 1_000_000, 2));
        let mut o = Oversize::default();
        let times = (1..40).find(|n| o.refused(A, 1_000 << n, 1 << 60, 1));
        assert_eq!(times, Some(TIMES_MAX as u64));
    }
}
