//! The vaults of a request: of its conversation, or of itself.
//!
//! A conversation has two scopes: its own, and the one that its tenant's conversations share for
//! system prompts, tools, documents and metadata, so that what is the same in many stays cached. What
//! it told in either is kept with it and goes with it. A fork goes on in its parent's scope: the
//! history that both have is the same bytes.
//!
//! A request without a conversation brings its history along each time. Its scope is made of the texts
//! of its first message, and its vaults hold what it holds and nothing else: the same history gets the
//! same tokens on every thread and after every restart, nothing has to be kept for it, and no token of
//! somebody else's request is ever in them.

use super::VaultKeys;
use tidegate_base::StreamId;
use tidegate_redact::mask::Scopes;
use tidegate_redact::restore::Live;
use tidegate_redact::vault::{ScopeKey, Vault, VaultError};
use tidegate_store::{VaultRecord, VaultRecords};

/// Both vaults of a conversation or of a request.
#[derive(Debug)]
pub(crate) struct Vaults {
    scope: String,
    own: Vault,
    shared: Vault,
}

impl VaultKeys {
    /// The key of the scope `name` of a tenant.
    pub(crate) fn scope(&self, tenant: &str, name: &str) -> ScopeKey {
        ScopeKey::derive(&self.master, tenant, Some(name))
    }

    /// What a request is known by again.
    pub(crate) fn digest(&self, tenant: &str, body: &[u8]) -> [u8; 32] {
        self.shared(tenant).digest(body)
    }

    /// The key of what all of a tenant's conversations share.
    pub(crate) fn shared(&self, tenant: &str) -> ScopeKey {
        ScopeKey::derive(&self.master, tenant, None)
    }

    /// The key under which the values of a durable stream are sealed. No conversation's id has a control
    /// character.
    fn of_stream(&self, tenant: &str, stream: StreamId) -> ScopeKey {
        self.scope(tenant, &format!("\u{1}{stream}"))
    }

    /// What a durable stream's readers get, sealed for it alone.
    pub(crate) fn seal(&self, live: &Live, tenant: &str, stream: StreamId) -> Result<Vec<u8>, VaultError> {
        live.seal(self.of_stream(tenant, stream), &self.ring)
    }

    /// The same, opened.
    pub(crate) fn unseal(&self, sealed: &[u8], tenant: &str, stream: StreamId) -> Result<Live, VaultError> {
        Live::open(self.of_stream(tenant, stream), &self.ring, sealed)
    }

    /// Empty vaults of the scope `name`.
    pub(crate) fn vaults(&self, tenant: &str, name: &str) -> Vaults {
        let (own, shared) = (self.scope(tenant, name), self.shared(tenant));
        Vaults { scope: name.to_owned(), own: Vault::new(own), shared: Vault::new(shared) }
    }

    /// Empty vaults of a request that begins with `texts`.
    pub(crate) fn of_request(&self, tenant: &str, texts: &[u8]) -> Vaults {
        let mark = self.shared(tenant).digest(texts);
        let hex: String = mark.iter().map(|byte| format!("{byte:02x}")).collect();
        self.vaults(tenant, &format!("\u{2}{hex}"))
    }

    /// The vaults that a conversation's records are.
    pub(crate) fn open(&self, tenant: &str, kept: &VaultRecords) -> Result<Vaults, VaultError> {
        let of = |shared: bool| kept.records.iter().filter(move |r| r.shared == shared).map(|r| &r.content[..]);
        Ok(Vaults {
            own: Vault::open(self.scope(tenant, &kept.scope), &self.ring, of(false))?,
            shared: Vault::open(self.shared(tenant), &self.ring, of(true))?,
            scope: kept.scope.clone(),
        })
    }
}

impl Vaults {
    /// What a filter needs of them.
    pub(super) fn scopes(&mut self) -> Scopes<'_> {
        Scopes { own: &mut self.own, shared: Some(&mut self.shared) }
    }

    /// What may be restored: what they hold, and nothing else.
    pub(crate) fn live(&self) -> Live {
        Live::of([&self.own, &self.shared])
    }

    /// Records of what is new since this was last asked; `None` if nothing is.
    pub(crate) fn fresh(&mut self, keys: &VaultKeys) -> Result<Option<VaultRecords>, VaultError> {
        let mut records = Vec::new();
        for (shared, vault) in [(false, &mut self.own), (true, &mut self.shared)] {
            let fresh = vault.fresh_records(&keys.ring)?;
            records.extend(fresh.into_iter().map(|content| VaultRecord { shared, content }));
        }
        Ok((!records.is_empty()).then(|| VaultRecords { scope: self.scope.clone(), records }))
    }

    /// The request came to nothing, and so does what it told.
    pub(crate) fn forget_fresh(&mut self) {
        self.own.forget_fresh();
        self.shared.forget_fresh();
    }

    /// Bytes they take.
    pub(crate) fn bytes(&self) -> usize {
        self.own.held_bytes() + self.shared.held_bytes()
    }
}
