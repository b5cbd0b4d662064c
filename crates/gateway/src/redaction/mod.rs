//! Phase 5, mask, and what undoes it for a reader: each tenant's filter, and the keys of vaults.
//!
//! ```text
//!   body ─▶ mask ─▶ recall, estimate, upstream, log, journal: masked text, and nothing else
//!             │
//!             └─▶ vaults of this conversation or this request ─▶ restored for whoever reads
//! ```
//! What is found and what stands in its place is the redact room's; here is whose rules hold, which
//! scope a value belongs to, and what happens when a part of it fails: then the request does.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use tidegate_redact::mask::Filter;
use tidegate_redact::rules::{Policy, Style};
use tidegate_redact::vault::KeyRing;
use zeroize::Zeroizing;

/// The keys behind tokens: one that makes them, and those that seal what they stand for.
pub struct VaultKeys {
    /// Makes every scope's key. Where it is changed, old tokens are restored no longer.
    master: Zeroizing<[u8; 32]>,
    /// Seals records; the newest first.
    ring: KeyRing,
}

impl VaultKeys {
    /// The keys.
    pub fn new(master: Zeroizing<[u8; 32]>, ring: KeyRing) -> Self {
        VaultKeys { master, ring }
    }
}

impl fmt::Debug for VaultKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultKeys").field("ring", &self.ring).finish_non_exhaustive()
    }
}

/// What is done with personal data, by tenant.
#[derive(Clone, Debug, Default)]
pub struct Redaction {
    tenants: BTreeMap<Arc<str>, Option<Arc<Filter>>>,
    others: Option<Arc<Filter>>,
    keys: Option<Arc<VaultKeys>>,
    unexplained: bool,
}

impl Redaction {
    /// Nothing is looked for, and nothing is restored.
    pub fn off() -> Self {
        Redaction::default()
    }

    /// Nothing is looked for, but what conversations hold under these keys is restored.
    pub fn with_keys(keys: VaultKeys) -> Self {
        Redaction { keys: Some(Arc::new(keys)), ..Redaction::default() }
    }

    /// The filter of tenants that have none of their own. One whose rules are off is none.
    #[must_use]
    pub fn for_all(self, filter: Option<Arc<Filter>>) -> Self {
        Redaction { others: filter.filter(|filter| !filter.rules().is_off()), ..self }
    }

    /// The filter of one tenant, in place of the one for all; `None` is off.
    #[must_use]
    pub fn for_tenant(mut self, tenant: impl Into<Arc<str>>, filter: Option<Arc<Filter>>) -> Self {
        self.tenants.insert(tenant.into(), filter.filter(|filter| !filter.rules().is_off()));
        self
    }

    /// Whether the model is told, in one line of the system prompt, what tokens are. It is, unless
    /// this says no.
    #[must_use]
    pub fn explained(self, yes: bool) -> Self {
        Redaction { unexplained: !yes, ..self }
    }

    /// Whether some tenant's values get tokens.
    pub fn makes_tokens(&self) -> bool {
        let all = self.tenants.values().chain(std::iter::once(&self.others)).flatten();
        all.into_iter().any(|filter| makes_tokens(filter))
    }

    /// Whether some tenant's values get tokens and there are no keys for that: requests would be
    /// refused.
    pub fn lacks_keys(&self) -> bool {
        self.keys.is_none() && self.makes_tokens()
    }

    /// The filter of a tenant, if anything is looked for.
    pub(crate) fn filter(&self, tenant: &str) -> Option<&Arc<Filter>> {
        self.tenants.get(tenant).unwrap_or(&self.others).as_ref()
    }
}

/// Whether a filter puts tokens in the place of anything.
fn makes_tokens(filter: &Filter) -> bool {
    let rules = filter.rules();
    rules.style == Style::Token && rules.policies.contains(&Policy::Mask)
}
