//! Restoring: tokens become the values they stand for, for a reader who may see them.
//!
//! [`Live`] is what may be restored: the tokens of the vaults that a request had, and no others, so a
//! token of another conversation stays as it is. [`TextRestorer`] finds them in a text that comes in
//! pieces, [`StreamRestorer`] in the events of a Messages stream, [`message`] in a whole answer. All
//! three are pure and forget nothing but what they have given out.

mod message;
mod stream;
mod text;

pub use message::message;
pub use stream::StreamRestorer;
pub use text::{Escape, HELD_BYTES_MAX, Ladder, TextRestorer};

use crate::token::Token;
use crate::vault::{KeyRing, ScopeKey, Vault, VaultError};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_base::Secret;

/// The tokens that may be put back, with their values.
#[derive(Clone, Debug, Default)]
pub struct Live(BTreeMap<Token, Arc<Secret>>);

impl Live {
    /// The tokens of these vaults. Values are shared with them, not copied.
    pub fn of<'v>(vaults: impl IntoIterator<Item = &'v Vault>) -> Live {
        Live(vaults.into_iter().flat_map(Vault::values).map(|(token, value)| (token, Arc::clone(value))).collect())
    }

    /// All of it as bytes, sealed under the key of a scope of its own: for a reader who comes back when
    /// the vaults are not there any more. Records with their lengths before them (u32, BE).
    pub fn seal(&self, key: ScopeKey, ring: &KeyRing) -> Result<Vec<u8>, VaultError> {
        let vault = Vault::copy(key, self.0.iter().map(|(token, value)| (*token, &**value)))?;
        let mut out = Vec::new();
        for record in vault.records(ring)? {
            out.extend_from_slice(&(record.len() as u32).to_be_bytes());
            out.extend_from_slice(&record);
        }
        Ok(out)
    }

    /// What was sealed under that key.
    pub fn open(key: ScopeKey, ring: &KeyRing, mut bytes: &[u8]) -> Result<Live, VaultError> {
        let mut records = Vec::new();
        while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
            let at = u32::from_be_bytes(*length) as usize;
            let (record, rest) = rest.split_at_checked(at).ok_or(VaultError::Format)?;
            records.push(record);
            bytes = rest;
        }
        if bytes.is_empty() { Ok(Live::of([&Vault::open(key, ring, records)?])) } else { Err(VaultError::Format) }
    }

    /// Whether there is nothing to restore.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a token.
    pub fn value(&self, token: Token) -> Option<&str> {
        self.0.get(&token).map(|value| value.expose())
    }

    /// Whether a token begins with these letters.
    fn begins(&self, letters: &[u8]) -> bool {
        let mut least = [0; crate::token::TOKEN_BYTES];
        least[..letters.len()].copy_from_slice(letters);
        let next = self.0.range(Token::least(least)..).next();
        next.is_some_and(|(token, _)| token.as_bytes().starts_with(letters))
    }
}
