//! The scheduler's rules through the public door, in virtual time: what a rule is there for has to
//! be seen by clients and by the API, and each of these fails without its rule.

mod limits;
mod places;
pub(crate) mod stage;

use stage::Told;

/// Nobody saw the upstream's quota: every answer is whole, or a wait that was refused beforehand.
#[track_caller]
pub(crate) fn none_was_turned_away_upstream(told: &[Told]) {
    let odd: Vec<_> = told.iter().filter(|t| !t.is_whole() && !t.is_shed()).collect();
    assert!(odd.is_empty(), "{} of {}: {:?}", odd.len(), told.len(), odd.first());
}

/// All were served.
#[track_caller]
pub(crate) fn all_whole(told: &[Told]) {
    let odd: Vec<_> = told.iter().filter(|t| !t.is_whole()).collect();
    assert!(!told.is_empty() && odd.is_empty(), "{} of {}: {:?}", odd.len(), told.len(), odd.first());
}
