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

/// What is being complained about.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    /// Names of organisations, and labels of their keys.
    names: Vec<(String, Vec<String>)>,
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
        let labels = |o: &Organisation| o.lanes.iter().map(|l| l.label.clone()).collect();
        self.names = organisations.iter().map(|o| (o.name.clone(), labels(o))).collect();
        self.ids.resize(self.names.len(), None);
    }

    fn name(&self, org: OrgId) -> &str {
        self.names.get(org.0 as usize).map_or("", |(name, _)| name)
    }

    fn label(&self, lane: LaneId) -> &str {
        let labels = self.names.get(lane.org.0 as usize).map(|(_, labels)| labels);
        labels.and_then(|l| l.get(usize::from(lane.key))).map_or("", |label| label)
    }

    /// An exchange over `lane` ended so.
    pub(crate) fn settled(&mut self, lane: LaneId, outcome: &Outcome) {
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
        if self.ids.get(at).is_none_or(|known| known.as_deref() == Some(id)) || id.len() > 128 {
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
