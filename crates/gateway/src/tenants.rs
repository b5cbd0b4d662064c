//! Who calls us, by number: the scheduler knows tenants as numbers, everybody else by name.

use crate::settings::Settings;
use std::collections::BTreeMap;
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
pub(crate) struct Tenants(Vec<Arc<Tenant>>);

impl Tenants {
    pub(crate) fn new(settings: &Settings) -> Self {
        let rules: BTreeMap<&str, _> = settings.tenants.iter().map(|t| (&*t.name, t)).collect();
        let mut names: Vec<Arc<str>> = vec![NOBODY.into(), OWN.into()];
        names.extend(settings.keys.iter().map(|k| Arc::clone(&k.tenant)));
        names.extend(settings.tenants.iter().map(|t| Arc::clone(&t.name)));
        names.sort();
        names.dedup();
        let numbered = names.into_iter().enumerate().map(|(n, name)| {
            let known = rules.get(&*name);
            Arc::new(Tenant {
                id: TenantId(n as u32),
                band: known.and_then(|t| t.band).unwrap_or_default(),
                rules: known.map(|t| t.rules).unwrap_or_default(),
                window: known.and_then(|t| t.window),
                budget: known.and_then(|t| t.budget),
                name,
            })
        });
        Tenants(numbered.collect())
    }

    /// The tenant called `name`.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Tenant>> {
        let at = self.0.binary_search_by(|t| (*t.name).cmp(name)).ok()?;
        self.0.get(at)
    }

    /// The tenant numbered `id`. Clients with a credential of their own are numbered by the scheduler
    /// and have one name.
    pub(crate) fn name(&self, id: TenantId) -> &str {
        self.0.get(id.0 as usize).map_or(OWN, |t| &t.name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Tenant> {
        self.0.iter().map(|t| &**t)
    }
}
