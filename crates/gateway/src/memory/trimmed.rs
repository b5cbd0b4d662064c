//! Windows without a conversation: a full history is trimmed to its budget, and nothing is stored.
//!
//! To keep the prompt cache from turn to turn, each request must be cut where the one before it was.
//! That place, and nothing of what was said, is remembered under a hash of tenant and first message,
//! for as many conversations as there is room for. One that is forgotten is cut anew.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tidegate_conversation::window::View;

/// Views that are remembered. One takes some 200 bytes, and 24 for each tool result it elides.
const VIEWS_MAX: usize = 16_384;
/// Elided results from which on a view is not worth its place.
const ELIDED_MAX: usize = 4_096;

#[derive(Default)]
struct State {
    views: BTreeMap<u64, (View, u64)>,
    order: BTreeMap<u64, u64>,
    uses: u64,
}

/// The views, by hash.
#[derive(Default)]
pub(super) struct Trimmed(Mutex<State>);

impl Trimmed {
    /// The view of the last window of this history, if it was cut and is remembered.
    pub(super) fn view(&self, key: u64) -> View {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.views.get(&key).map(|(view, _)| view.clone()).unwrap_or_default()
    }

    /// Remembers a view; one that cuts nothing need not be.
    pub(super) fn keep(&self, key: u64, view: View) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.views.remove(&key);
        if let Some((_, used)) = before {
            state.order.remove(&used);
        }
        if view == View::default() || view.elided.len() > ELIDED_MAX {
            return;
        }
        while state.views.len() >= VIEWS_MAX {
            let Some((_, oldest)) = state.order.pop_first() else { break };
            state.views.remove(&oldest);
        }
        state.uses += 1;
        let now = state.uses;
        state.order.insert(now, key);
        state.views.insert(key, (view, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_views_are_forgotten() {
        let trimmed = Trimmed::default();
        let view = |cut| View { cut, ..View::default() };
        trimmed.keep(0, view(7));
        trimmed.keep(1, View::default());
        assert_eq!((trimmed.view(0), trimmed.view(1)), (view(7), View::default()));
        (1..VIEWS_MAX as u64).for_each(|key| trimmed.keep(key, view(1)));
        // Used again, it is the newest.
        trimmed.keep(0, view(9));
        trimmed.keep(u64::MAX, view(2));
        assert_eq!((trimmed.view(0), trimmed.view(1), trimmed.view(2)), (view(9), View::default(), view(1)));
        assert_eq!(trimmed.0.lock().unwrap().views.len(), VIEWS_MAX);
    }
}
