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
use tidegate_upstream::{Lane, Transport};
use tidegate_wire::cached::HashKey;
use tokio::sync::{Semaphore, watch};

/// How a process goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// Another process accepts in its place; what comes on connections that it has is served.
    HandedOver,
    /// What is not under way yet is refused.
    Draining,
}

/// Whether the process goes. It may drain after it has handed over.
#[derive(Clone, Copy, Debug, Default)]
struct Left {
    handed_over: bool,
    drains: bool,
}

/// Shared by every data-plane thread and the admin door. What settings change is of one generation: a
/// request has the house that was there when it came, to its end. What lives longer than that is the
/// same in all of them.
#[derive(Clone)]
pub(crate) struct House {
    pub(crate) clock: Clock,
    pub(crate) settings: Arc<Settings>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) admission: Admission,
    pub(crate) references: Arc<References>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) streams: Arc<Streams>,
    pub(crate) tickets: Arc<Tickets>,
    /// The key of every hash that a client could wish to meet another.
    pub(crate) hash_key: HashKey,
    pub(crate) costs: Arc<Costs>,
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
    left: Arc<watch::Sender<Left>>,
    classes: Arc<Classes>,
    /// The way of those who bring their own credential; there too after they no longer may, for those
    /// of their requests that are under way.
    own_lane: Option<Arc<Lane>>,
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
        let tenants = Arc::new(tenants);
        let costs = Costs::new(clock, &settings, Arc::clone(&tenants), metrics.clone(), usage);
        House {
            admission: Admission::new(clock, &settings, &tenants, metrics.clone()),
            keys: Arc::new(Keys::new(&settings, &tenants)),
            references: Arc::new(References::new(hash_key, places(&settings))),
            memory: Arc::new(Memory::new(clock, &settings, store)),
            streams: Arc::new(Streams::new(settings.limits.journals_bytes, settings.clocks.stream_kept)),
            tickets: Arc::default(),
            hash_key,
            tenants,
            costs: Arc::new(costs),
            connection_permits: permits(settings.limits.connections),
            stream_permits: permits(settings.limits.streams),
            bodies: ByteBudget::new(settings.limits.bodies_bytes),
            backlogs: ByteBudget::new(settings.limits.backlogs_bytes),
            live: Live::default(),
            finished: Finished::default(),
            left: Arc::new(watch::Sender::new(Left::default())),
            classes: Arc::new(Classes::new(&settings.organisations)),
            own_lane: settings.own_credentials.clone(),
            clock,
            settings: Arc::new(settings),
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
            self.tell_limits(class, name);
            true
        })
    }

    /// Tells the scheduler what the configuration says of a class.
    fn tell_limits(&self, class: ClassId, name: &str) {
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
    }

    /// The house under other settings, arranged by `renewal::arrange`: requests that come from now on
    /// are to have it. The scheduler is the same one, and knows them at once.
    pub(crate) fn renewed(&self, settings: Settings) -> Self {
        let tenants = Arc::new(self.tenants.renewed(&settings));
        self.admission.renew(&settings, &tenants);
        self.costs.renew(&settings, &tenants);
        let house = House {
            keys: Arc::new(Keys::new(&settings, &tenants)),
            references: Arc::new(self.references.with_places(places(&settings))),
            own_lane: settings.own_credentials.clone().or_else(|| self.own_lane.clone()),
            tenants,
            settings: Arc::new(settings),
            ..self.clone()
        };
        for (class, name) in house.classes.configure(&house.settings.organisations) {
            house.tell_limits(class, &name);
        }
        house
    }

    /// Every lane and whether it is used, in the order of [`House::lane_index`].
    pub(crate) fn lanes(&self) -> Vec<(Arc<Lane>, bool)> {
        let organisations = self.settings.organisations.iter();
        let of_org = |o: &Organisation| {
            let is_open = |key: usize| !o.closed.contains(&(key as u16));
            o.lanes.iter().cloned().enumerate().map(|(key, lane)| (lane, is_open(key))).collect::<Vec<_>>()
        };
        // Last, the way of those who bring their own credential.
        let own = self.own_lane.clone().map(|lane| (lane, self.settings.own_credentials.is_some()));
        organisations.flat_map(of_org).chain(own).collect()
    }

    /// How many organisations may be asked.
    pub(crate) fn organisations_open(&self) -> usize {
        self.settings.organisations.iter().filter(|o| o.is_open()).count()
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

    /// Whether a drain has begun: what is not under way yet is refused.
    pub(crate) fn is_draining(&self) -> bool {
        self.left.borrow().drains
    }

    /// Whether the process goes, now or when its clients have: each connection is told after its request.
    pub(crate) fn is_leaving(&self) -> bool {
        let Left { handed_over, drains } = *self.left.borrow();
        handed_over || drains
    }

    /// Whether another process accepts in the place of this one.
    pub(crate) fn has_handed_over(&self) -> bool {
        self.left.borrow().handed_over
    }

    /// Begins to leave.
    pub(crate) fn leave(&self, how: Leaving) {
        self.metrics.draining(true);
        self.left.send_modify(|left| match how {
            Leaving::HandedOver => left.handed_over = true,
            Leaving::Draining => left.drains = true,
        });
    }

    /// Waits for a drain to begin.
    pub(crate) async fn drain_begun(&self) {
        // The sender lives as long as the house, so this only ends when a drain begins.
        let _ = self.left.subscribe().wait_for(|left| left.drains).await;
    }

    /// Waits until another process accepts in the place of this one.
    pub(crate) async fn handed_over(&self) {
        let _ = self.left.subscribe().wait_for(|left| left.handed_over).await;
    }

    /// Waits for the process to begin to leave, however.
    pub(crate) async fn leave_begun(&self) {
        let _ = self.left.subscribe().wait_for(|left| left.handed_over || left.drains).await;
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
            if !org.is_open() {
                self.metrics.keys_aside(&org.name, 0);
                continue;
            }
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
        org.open_keys().map(|key| place(usize::from(key))).collect::<Vec<_>>()
    };
    settings.organisations.iter().enumerate().flat_map(of_org).collect()
}
