//! What all threads share: settings, keys, the scheduler's host, budgets, metrics.

use crate::admit::Admission;
use crate::classes::{Classed, Classes};
use crate::costs::{Costs, UsageFile};
use crate::identify::Keys;
use crate::memory::Memory;
use crate::references::{Place, References};
use crate::settings::{Organisation, Settings};
use crate::socket::Tickets;
use crate::streams::Streams;
use crate::tenants::{OWN, Tenants};
use std::sync::Arc;
use tidegate_base::{ByteBudget, Prng};
use tidegate_observe::{Finished, Live, Metrics, Records};
use tidegate_schedule::{ClassId, DomainView, LaneId, OrgId, WorkspaceId};
use tidegate_store::Store;
use tidegate_transport::Clock;
use tidegate_upstream::Transport;
use tidegate_wire::cached::HashKey;
use tokio::sync::{Semaphore, watch};

/// Shared by every data-plane thread and the admin door.
pub(crate) struct House {
    pub(crate) clock: Clock,
    pub(crate) settings: Settings,
    pub(crate) keys: Keys,
    pub(crate) tenants: Tenants,
    pub(crate) admission: Admission,
    pub(crate) references: References,
    pub(crate) memory: Memory,
    pub(crate) streams: Streams,
    pub(crate) tickets: Tickets,
    /// The key of every hash that a client could wish to meet another.
    pub(crate) hash_key: HashKey,
    pub(crate) costs: Costs,
    pub(crate) metrics: Metrics,
    pub(crate) records: Arc<dyn Records>,
    pub(crate) live: Live,
    pub(crate) finished: Finished,
    /// One for each client connection.
    pub(crate) connection_permits: Arc<Semaphore>,
    /// One for each stream that shares a connection or outlives it.
    pub(crate) stream_permits: Arc<Semaphore>,
    pub(crate) bodies: ByteBudget,
    pub(crate) backlogs: ByteBudget,
    draining: watch::Sender<bool>,
    classes: Classes,
}

impl House {
    pub(crate) fn new(
        clock: Clock,
        settings: Settings,
        records: Arc<dyn Records>,
        store: Option<Store>,
        usage: UsageFile,
    ) -> Self {
        let metrics = Metrics::new();
        let tenants = Tenants::new(&settings);
        let mut prng = Prng::new(settings.seed).fork("hashes");
        let hash_key = [prng.next_u64(), prng.next_u64()];
        House {
            admission: Admission::new(clock, &settings, &tenants, metrics.clone()),
            keys: Keys::new(&settings, &tenants),
            references: References::new(hash_key, places(&settings)),
            memory: Memory::new(clock, &settings, store),
            costs: Costs::new(clock, &settings, metrics.clone(), usage),
            streams: Streams::new(settings.limits.journals_bytes, settings.clocks.stream_kept),
            tickets: Tickets::default(),
            hash_key,
            tenants,
            connection_permits: permits(settings.limits.connections),
            stream_permits: permits(settings.limits.streams),
            bodies: ByteBudget::new(settings.limits.bodies_bytes),
            backlogs: ByteBudget::new(settings.limits.backlogs_bytes),
            live: Live::default(),
            finished: Finished::default(),
            draining: watch::Sender::new(false),
            classes: Classes::new(&settings.organisations),
            clock,
            settings,
            metrics,
            records,
        }
    }

    /// The quota class of a request to `door` for `model`. A new one is told what the configuration
    /// says of its limits.
    pub(crate) fn class(&self, door: &'static str, model: &str, fast: bool) -> Classed {
        self.classes.of(door, model, fast, |class, name| {
            if !self.admission.forget(class) {
                return false;
            }
            for (n, org) in self.settings.organisations.iter().enumerate() {
                let id = OrgId(n as u32);
                if let Some(limits) = Classes::quota(&org.limits, name) {
                    self.admission.know(id, None, class, limits);
                }
                for (w, workspace) in org.workspaces.iter().enumerate() {
                    if let Some(limits) = Classes::quota(&workspace.limits, name) {
                        self.admission.know(id, Some(WorkspaceId(w as u16)), class, limits);
                    }
                }
            }
            true
        })
    }

    /// An upstream answered a request of this class.
    pub(crate) fn class_answered(&self, classed: &Classed) {
        self.classes.answered(classed);
    }

    /// The name of a quota class.
    pub(crate) fn class_name(&self, class: ClassId) -> String {
        self.classes.name(class)
    }

    /// The name of an organisation.
    pub(crate) fn organisation(&self, org: OrgId) -> &str {
        self.settings.organisations.get(org.0 as usize).map_or(OWN, |o| &o.name)
    }

    /// Where a lane's things live.
    pub(crate) fn place(&self, lane: LaneId) -> Place {
        let org = self.settings.organisations.get(lane.org.0 as usize);
        Place { org: lane.org, workspace: org.and_then(|o| o.workspace(lane.key)) }
    }

    /// The place of a lane in the pools: organisations' keys one after another, then the one way of
    /// all clients' own credentials.
    pub(crate) fn lane_index(&self, lane: LaneId) -> usize {
        let before = self.settings.organisations.iter().take(lane.org.0 as usize).map(|o| o.lanes.len()).sum();
        if lane.org.0 as usize >= self.settings.organisations.len() { before } else { before + usize::from(lane.key) }
    }

    /// What is spoken on a lane.
    pub(crate) fn transport(&self, lane: LaneId) -> Transport {
        let org = self.settings.organisations.get(lane.org.0 as usize);
        org.and_then(|o| o.lanes.get(usize::from(lane.key))).map_or(Transport::Http, |lane| lane.transport())
    }

    /// What the upstream of a lane calls the model that clients call `name`, if that is something else.
    pub(crate) fn their_model(&self, lane: LaneId, name: &str) -> Option<&str> {
        self.settings.organisations.get(lane.org.0 as usize)?.their_model(name)
    }

    /// Whether a lane sets the header line called `name` itself.
    pub(crate) fn lane_sets(&self, lane: LaneId, name: &[u8]) -> bool {
        let org = self.settings.organisations.get(lane.org.0 as usize);
        org.and_then(|o| o.lanes.get(usize::from(lane.key))).is_some_and(|lane| lane.sets(name))
    }

    /// The label of a lane.
    pub(crate) fn lane_label(&self, lane: LaneId) -> &str {
        let org = self.settings.organisations.get(lane.org.0 as usize);
        org.and_then(|o| o.lanes.get(usize::from(lane.key))).map_or(OWN, |l| &l.label)
    }

    /// Whether a drain has begun.
    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Begins a drain.
    pub(crate) fn begin_drain(&self) {
        self.metrics.draining(true);
        self.draining.send_replace(true);
    }

    /// Waits for a drain to begin.
    pub(crate) async fn drain_begun(&self) {
        let mut draining = self.draining.subscribe();
        // The sender lives as long as the house, so this only ends when a drain begins.
        let _ = draining.wait_for(|d| *d).await;
    }

    /// Brings the gauges that are read, not counted, up to date.
    pub(crate) fn refresh_gauges(&self) {
        let (waiting, leased) = self.admission.counts();
        self.metrics.scheduler(waiting, leased);
        self.metrics.budget("bodies", self.bodies.used());
        self.metrics.budget("backlogs", self.backlogs.used());
        self.metrics.budget("journals", self.streams.journals.used());
        self.metrics.streams_kept(self.streams.len());
        let (conversations, bytes) = self.memory.held();
        self.metrics.conversations_held(conversations, bytes);
        for (tenant, budget) in self.tenants.iter().filter_map(|t| Some((&t.name, t.budget?))) {
            let month = self.costs.ledger.budget(self.costs.now_s(), tenant);
            self.metrics.tenant_budget(tenant, budget.monthly, month.spent, month.reserved);
        }
        let domains = self.admission.domains();
        for domain in &domains {
            // Of a class that nothing was learned of yet there is no error to show.
            if domain.estimate_error > 0.0 {
                self.metrics.estimate_error(&self.class_name(domain.class), domain.estimate_error);
            }
        }
        for (n, org) in self.settings.organisations.iter().enumerate() {
            let of_org = domains.iter().filter(|d| d.org == OrgId(n as u32));
            let aside = |d: &DomainView| d.keys.iter().filter(|k| !k.rejected_for.is_zero()).count();
            // A rejected key is so in every class.
            self.metrics.keys_aside(&org.name, of_org.map(aside).max().unwrap_or(0));
        }
    }
}

/// Every place where things of the upstream can live.
fn permits(most: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)))
}

fn places(settings: &Settings) -> Vec<Place> {
    let of_org = |(n, org): (usize, &Organisation)| {
        let place = move |key: usize| Place { org: OrgId(n as u32), workspace: org.workspace(key as u16) };
        (0..org.lanes.len()).map(place).collect::<Vec<_>>()
    };
    settings.organisations.iter().enumerate().flat_map(of_org).collect()
}
