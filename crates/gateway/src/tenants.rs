//! Who calls us, by number: the scheduler knows tenants as numbers, everybody else by name.

use crate::settings::Settings;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidegate_observe::Budget;
use tidegate_schedule::{Band, TenantId, TenantRules};

/// The tenant of whoever asks where no client keys are configured.
pub(crate) const NOBODY: &str = "default";

/// The tenant of whoever brings an upstream credential of their own: one name, and its rules for each
/// credential apart.
pub(crate) const OWN: &str = "own";

/// One tenant.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    pub(crate) name: Arc<str>,
    /// The band of its requests that name none.
    pub(crate) band: Band,
    pub(crate) rules: TenantRules,
    /// Most tokens of a request of its conversations, if it has a limit of its own.
    pub(crate) window: Option<u64>,
    /// What it may spend in a month.
    pub(crate) budget: Option<Budget>,
}

impl Tenant {
    /// Whether it has limits that its answers tell of.
    pub(crate) fn is_metered(&self) -> bool {
        self.rules.requests.is_some() || self.rules.tokens.is_some()
    }
}

/// Every tenant there is: those with keys, those with rules, [`NOBODY`] and [`OWN`].
#[derive(Debug, Default)]
pub(crate) struct Tenants {
    /// By number; those that are gone keep theirs, for requests of theirs that are under way.
    all: Vec<Arc<Tenant>>,
    /// Those that may ask.
    by_name: BTreeMap<Arc<str>, usize>,
}

impl Tenants {
    pub(crate) fn new(settings: &Settings) -> Self {
        Tenants::default().renewed(settings)
    }

    /// The tenants of other settings: who was there before keeps the number.
    pub(crate) fn renewed(&self, settings: &Settings) -> Self {
        let rules: BTreeMap<&str, _> = settings.tenants.iter().map(|t| (&*t.name, t)).collect();
        let keys = settings.keys.iter().map(|k| Arc::clone(&k.tenant));
        let named = settings.tenants.iter().map(|t| Arc::clone(&t.name));
        let names: BTreeSet<Arc<str>> = keys.chain(named).chain([NOBODY.into(), OWN.into()]).collect();
        let known: BTreeMap<&str, usize> = self.all.iter().enumerate().map(|(n, t)| (&*t.name, n)).collect();
        let mut tenants = Tenants { all: self.all.clone(), by_name: BTreeMap::new() };
        for name in names {
            let n = known.get(&*name).copied().unwrap_or(tenants.all.len());
            let own = rules.get(&*name);
            let tenant = Arc::new(Tenant {
                id: TenantId(n as u32),
                band: own.and_then(|t| t.band).unwrap_or_default(),
                rules: own.map(|t| t.rules).unwrap_or_default(),
                window: own.and_then(|t| t.window),
                budget: own.and_then(|t| t.budget),
                name: Arc::clone(&name),
            });
            tenants.by_name.insert(name, n);
            match tenants.all.get_mut(n) {
                Some(before) => *before = tenant,
                None => tenants.all.push(tenant),
            }
        }
        tenants
    }

    /// The tenant called `name`.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.all.get(*self.by_name.get(name)?)
    }

    /// How many there were.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The tenant numbered `id`. Clients with a credential of their own are numbered by the scheduler
    /// and have one name.
    pub(crate) fn name(&self, id: TenantId) -> &str {
        self.all.get(id.0 as usize).map_or(OWN, |t| &t.name)
    }

    /// Those that are configured, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Tenant> {
        self.by_name.values().filter_map(|n| self.all.get(*n)).map(|t| &**t)
    }
}
