//! Which vault a value belongs to: its conversation's, or the one of all that share a prefix.

use crate::kind::Kind;
use crate::token::Token;
use crate::vault::{Vault, VaultError};

/// The vaults of a request: its conversation's own, and the one its tenant's conversations share,
/// for system prompt, tools and documents. Without a shared one, everything is the conversation's.
#[derive(Debug)]
pub struct Scopes<'v> {
    /// The conversation's.
    pub own: &'v mut Vault,
    /// The tenant's.
    pub shared: Option<&'v mut Vault>,
}

impl Scopes<'_> {
    /// The token of `value` if it has one. What is shared never gets a token of one conversation.
    pub(super) fn known(&self, value: &str, shared: bool) -> Option<Token> {
        let tenant = self.shared.as_ref().and_then(|vault| vault.known(value));
        match (&self.shared, shared) {
            (Some(_), true) => tenant,
            _ => self.own.known(value).or(tenant),
        }
    }

    pub(super) fn token(&mut self, kind: Kind, plain: &[u8], value: &str, shared: bool) -> Result<Token, VaultError> {
        if let Some(token) = self.known(value, shared) {
            return Ok(token);
        }
        match &mut self.shared {
            Some(tenant) if shared => tenant.token(kind, plain, value),
            _ => self.own.token(kind, plain, value),
        }
    }

    /// How many values have tokens.
    pub(super) fn len(&self) -> usize {
        self.vaults().map(Vault::len).sum()
    }

    pub(super) fn vaults(&self) -> impl Iterator<Item = &Vault> {
        std::iter::once(&*self.own).chain(self.shared.as_deref())
    }
}
