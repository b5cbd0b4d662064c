//! What all threads share: settings, keys, the scheduler's host, budgets, metrics.

use crate::admit::Admission;
use crate::identify::Keys;
use crate::settings::Settings;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_base::ByteBudget;
use tidegate_observe::{Live, Metrics, Records};
use tidegate_schedule::{ClassId, LaneId, OrgId};
use tidegate_transport::Clock;
use tidegate_wire::models;
use tokio::sync::{Semaphore, watch};

/// Different classes of models that get a quota domain of their own; a client that invents more
/// shares the last one.
const CLASSES_MAX: usize = 256;

/// Shared by every data-plane thread and the admin door.
pub(crate) struct House {
    pub(crate) clock: Clock,
    pub(crate) settings: Settings,
    pub(crate) keys: Keys,
    pub(crate) admission: Admission,
    pub(crate) metrics: Metrics,
    pub(crate) records: Arc<dyn Records>,
    pub(crate) live: Live,
    /// One for each client connection and for each HTTP/2 stream on one.
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) bodies: ByteBudget,
    pub(crate) backlogs: ByteBudget,
    draining: watch::Sender<bool>,
    classes: Mutex<BTreeMap<String, ClassId>>,
}

impl House {
    pub(crate) fn new(clock: Clock, settings: Settings, records: Arc<dyn Records>) -> Self {
        let metrics = Metrics::new();
        let keys_by_org: Vec<u16> = settings.organisations.iter().map(|o| o.lanes.len() as u16).collect();
        House {
            admission: Admission::new(clock, &keys_by_org, settings.queue, settings.retry, metrics.clone()),
            keys: Keys::new(&settings.keys),
            permits: Arc::new(Semaphore::new(settings.limits.connections.min(Semaphore::MAX_PERMITS))),
            bodies: ByteBudget::new(settings.limits.bodies_bytes),
            backlogs: ByteBudget::new(settings.limits.backlogs_bytes),
            live: Live::default(),
            draining: watch::Sender::new(false),
            classes: Mutex::default(),
            clock,
            settings,
            metrics,
            records,
        }
    }

    /// The quota class of a request to `door` for `model`.
    pub(crate) fn class(&self, door: &str, model: &str) -> ClassId {
        let name = match door {
            "messages" => models::class(model).to_owned(),
            "count_tokens" => format!("count_tokens/{}", models::class(model)),
            _ => door.to_owned(),
        };
        let mut classes = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        let next = ClassId(classes.len() as u32);
        if classes.len() >= CLASSES_MAX && !classes.contains_key(&name) {
            return ClassId(CLASSES_MAX as u32);
        }
        *classes.entry(name).or_insert(next)
    }

    /// The name of a quota class.
    pub(crate) fn class_name(&self, class: ClassId) -> String {
        let classes = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        classes.iter().find(|(_, id)| **id == class).map_or_else(|| "other".to_owned(), |(name, _)| name.clone())
    }

    /// The place of a lane in the pools: organisations' keys one after another.
    pub(crate) fn lane_index(&self, lane: LaneId) -> usize {
        let OrgId(org) = lane.org;
        let before: usize = self.settings.organisations.iter().take(usize::from(org)).map(|o| o.lanes.len()).sum();
        before + usize::from(lane.key)
    }

    /// The label of a lane.
    pub(crate) fn lane_label(&self, lane: LaneId) -> &str {
        let org = self.settings.organisations.get(usize::from(lane.org.0));
        org.and_then(|o| o.lanes.get(usize::from(lane.key))).map_or("", |l| &l.label)
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
    }
}
