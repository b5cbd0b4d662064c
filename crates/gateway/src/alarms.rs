//! What an operator has to know at once: an error line in the log when it begins, an info line when
//! it ends, and nothing per request between.
//!
//! A key that is rejected, an organisation that has spent what it may, a breaker that opens; two
//! configured organisations that the upstream calls by the same id (they share one quota, and the
//! scheduler counts it twice), and one that it calls by two (they share none). The last two are
//! mistakes in the configuration and said once each.

use crate::settings::Organisation;
use std::collections::BTreeSet;
use tidegate_schedule::{ClassId, DomainView, LaneId, OrgId, Outcome, Throttle, WorkspaceId};

/// An organisation, and which of its keys are gone: of those nobody has to know anything.
#[derive(Debug)]
struct About {
    name: String,
    labels: Vec<String>,
    gone: BTreeSet<u16>,
    is_open: bool,
}

/// Whether a key is configured no more.
fn is_gone(about: &[About], lane: LaneId) -> bool {
    about.get(lane.org.0 as usize).is_some_and(|about| about.gone.contains(&lane.key))
}

/// What is being complained about.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    /// Organisations, by number.
    about: Vec<About>,
    rejected: BTreeSet<LaneId>,
    capped: BTreeSet<OrgId>,
    open: BTreeSet<(OrgId, Option<WorkspaceId>, ClassId)>,
    /// The upstream's own id of each organisation, as it was first told.
    ids: Vec<Option<String>>,
    /// Organisations of which it was said that they are one, the lower number first; or, twice the
    /// same number, that it is two.
    misnamed: BTreeSet<(usize, usize)>,
}

impl Alarms {
    pub(crate) fn new(organisations: &[Organisation]) -> Self {
        let mut alarms = Alarms::default();
        alarms.are_about(organisations);
        alarms
    }

    /// The organisations are these now; places are kept, so what is known stays with its own.
    pub(crate) fn are_about(&mut self, organisations: &[Organisation]) {
        let about = |o: &Organisation| About {
            name: o.name.clone(),
            labels: o.lanes.iter().map(|l| l.label.clone()).collect(),
            gone: o.closed.clone(),
            is_open: o.is_open(),
        };
        self.about = organisations.iter().map(about).collect();
        self.ids.resize(self.about.len(), None);
        let is_open = |org: OrgId| self.about.get(org.0 as usize).is_none_or(|about| about.is_open);
        let lane_is_open = |lane: &LaneId| !is_gone(&self.about, *lane);
        self.rejected.retain(lane_is_open);
        self.capped.retain(|org| is_open(*org));
        self.open.retain(|(org, ..)| is_open(*org));
        for (id, about) in self.ids.iter_mut().zip(&self.about) {
            // One that comes in its place may be called the same by the upstream.
            *id = id.take().filter(|_| about.is_open);
        }
    }

    fn name(&self, org: OrgId) -> &str {
        self.about.get(org.0 as usize).map_or("", |about| &about.name)
    }

    fn label(&self, lane: LaneId) -> &str {
        let about = self.about.get(lane.org.0 as usize);
        about.and_then(|about| about.labels.get(usize::from(lane.key))).map_or("", |label| label)
    }

    /// Whether an organisation is configured no more.
    fn is_over(&self, org: OrgId) -> bool {
        self.about.get(org.0 as usize).is_some_and(|about| !about.is_open)
    }

    /// An exchange over `lane` ended so.
    pub(crate) fn settled(&mut self, lane: LaneId, outcome: &Outcome) {
        if is_gone(&self.about, lane) {
            return;
        }
        match outcome {
            Outcome::KeyRejected { retry_after } if self.rejected.insert(lane) => {
                tracing::error!(
                    target: "tidegate::upstream",
                    key = self.label(lane),
                    again_s = retry_after.as_secs(),
                    "the upstream rejects this key; it is put aside and tried again later"
                );
            }
            Outcome::Throttled { by: Throttle::SpendCap, .. } if self.capped.insert(lane.org) => {
                tracing::error!(
                    target: "tidegate::upstream",
                    organisation = self.name(lane.org),
                    "this organisation has spent what it may; others take over, and it is tried again now and then"
                );
            }
            Outcome::Answered(_) if !(self.rejected.is_empty() && self.capped.is_empty()) => {
                if self.rejected.remove(&lane) {
                    tracing::info!(target: "tidegate::upstream", key = self.label(lane), "this key is accepted again");
                }
                if self.capped.remove(&lane.org) {
                    tracing::info!(target: "tidegate::upstream", organisation = self.name(lane.org), "this organisation serves again");
                }
            }
            _ => {}
        }
    }

    /// The domains as they are now.
    pub(crate) fn looked(&mut self, domains: &[DomainView]) {
        for domain in domains {
            if self.is_over(domain.org) {
                continue;
            }
            let key = (domain.org, domain.workspace, domain.class);
            let organisation = self.name(domain.org).to_owned();
            if domain.breaker == "open" && self.open.insert(key) {
                tracing::error!(
                    target: "tidegate::upstream",
                    organisation,
                    again_s = domain.breaker_for.as_secs(),
                    "this organisation fails again and again; it is left alone for a while"
                );
            } else if domain.breaker == "closed" && self.open.remove(&key) {
                tracing::info!(target: "tidegate::upstream", organisation, "this organisation answers again");
            }
        }
    }

    /// An answer of `org` says that the upstream calls it `id`.
    pub(crate) fn called(&mut self, org: OrgId, id: &str) {
        let at = org.0 as usize;
        if self.ids.get(at).is_none_or(|known| known.as_deref() == Some(id)) || id.len() > 128 || self.is_over(org) {
            return;
        }
        let is_another = self.ids[at].is_some();
        if is_another && self.misnamed.insert((at, at)) {
            tracing::error!(
                target: "tidegate::upstream",
                organisation = self.name(org),
                "its keys belong to different organisations of the upstream and share no limits: give each a table of its own"
            );
        }
        let same = (0..self.ids.len()).find(|n| *n != at && self.ids[*n].as_deref() == Some(id));
        if let Some(other) = same.filter(|other| self.misnamed.insert((at.min(*other), at.max(*other)))) {
            tracing::error!(
                target: "tidegate::upstream",
                organisation = self.name(org),
                other = self.name(OrgId(other as u32)),
                "these two are one organisation to the upstream and share its limits: put their keys into one table"
            );
        }
        if !is_another {
            self.ids[at] = Some(id.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;
    use tidegate_base::Secret;
    use tidegate_upstream::{Lane, Scheme};

    fn org(name: &str, closed: &[u16]) -> Organisation {
        let lane = Lane::new(format!("{name}/1"), "http://a", Scheme::ApiKey, Secret::new("k")).unwrap();
        Organisation { closed: closed.iter().copied().collect(), ..Organisation::new(name, vec![Arc::new(lane)]) }
    }

    #[test]
    fn nothing_is_said_of_what_is_gone() {
        let mut alarms = Alarms::new(&[org("north", &[])]);
        let lane = LaneId { org: OrgId(0), key: 0 };
        let rejected = Outcome::KeyRejected { retry_after: Duration::ZERO };
        alarms.called(OrgId(0), "theirs");
        alarms.settled(lane, &rejected);
        assert!(alarms.rejected.contains(&lane));
        // Under another name and with another key it is the same to the upstream.
        alarms.are_about(&[org("north", &[0]), org("south", &[])]);
        assert!(alarms.rejected.is_empty());
        alarms.called(OrgId(1), "theirs");
        alarms.called(OrgId(0), "theirs");
        alarms.settled(lane, &rejected);
        assert!(alarms.rejected.is_empty() && alarms.misnamed.is_empty(), "{alarms:?}");
        alarms.are_about(&[org("north", &[0]), org("south", &[]), org("west", &[])]);
        alarms.called(OrgId(2), "theirs");
        assert_eq!(alarms.misnamed.len(), 1, "of those that are there it is said");
    }
}
