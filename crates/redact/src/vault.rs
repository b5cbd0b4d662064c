//! The vault: which token stands for which value, in one scope.
//!
//! A scope is a conversation, or a tenant for what its conversations share. Its key, derived from a
//! master key that is an argument, makes the tokens, so the same value gets the same token in a scope
//! and an unrelated one in any other. A value is kept as it was written, so that it comes back so; it
//! lives in memory in one place that is overwritten when it goes.
//!
//! At rest an entry is a sealed record (`docs/formats/vault.md`): AES-256-GCM-SIV under a key of the
//! ring, bound to its scope and token, so a record that is moved to another scope does not open. The
//! nonce is derived and not random: this room has no dice, and this cipher keeps its promises when a
//! nonce comes twice. The ring's newest key seals, each of them opens: that is how keys are changed.

use crate::kind::Kind;
use crate::token::{HASH_LETTERS, LETTERS, TOKEN_BYTES, Token};
use aes_gcm_siv::aead::{Aead, Payload};
use aes_gcm_siv::{Aes256GcmSiv, Key, KeyInit, Nonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use tidegate_base::Secret;
use zeroize::{Zeroize, Zeroizing};

/// Most entries of one scope: a conversation of 200,000 tokens has room for some ten thousand values.
pub const ENTRIES_MAX: usize = 100_000;
/// Most bytes of one value: a private key of 16,384 bits has 13,000.
pub const VALUE_BYTES_MAX: usize = 64 << 10;
/// Most bytes of all values of one scope.
pub const VAULT_BYTES_MAX: usize = 32 << 20;
/// Most keys of a ring: old ones go when their records are sealed anew.
pub const RING_KEYS_MAX: usize = 16;

/// What an entry takes in memory beside its value: two places in maps, two tokens, a hash.
const ENTRY_BYTES: usize = 160;

/// The first byte of every record.
const RECORD_VERSION: u8 = 1;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// Version, key, token, nonce.
const RECORD_HEAD: usize = 1 + 4 + TOKEN_BYTES + NONCE_BYTES;
/// Values are filled up to a multiple of this, so that a record tells little about a value's length.
const PADDING: usize = 32;

/// Why the vault cannot do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VaultError {
    /// [`ENTRIES_MAX`] or [`VAULT_BYTES_MAX`] is reached.
    Full,
    /// A value is longer than [`VALUE_BYTES_MAX`].
    ValueTooLong,
    /// The ring has no keys, or too many, or one twice.
    Ring,
    /// A record is too short, or of a version that this code does not know.
    Format,
    /// A record was sealed with a key that the ring does not have.
    UnknownKey(u32),
    /// A record does not open: another scope's, or changed.
    Sealed,
}

impl fmt::Display for VaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VaultError::Full => f.write_str("the conversation has more masked values than are kept"),
            VaultError::ValueTooLong => write!(f, "a masked value is longer than {VALUE_BYTES_MAX} bytes"),
            VaultError::Ring => write!(f, "the vault needs 1 to {RING_KEYS_MAX} keys with different numbers"),
            VaultError::Format => f.write_str("a vault record is cut or of an unknown version"),
            VaultError::UnknownKey(id) => write!(f, "a vault record needs key {id}, which is not there"),
            VaultError::Sealed => f.write_str("a vault record does not open: wrong scope, wrong key or changed"),
        }
    }
}

impl std::error::Error for VaultError {}

/// A key of 32 bytes, overwritten when it goes.
#[derive(Clone)]
struct Bytes32([u8; 32]);

impl Drop for Bytes32 {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A scope's key: makes its tokens and binds its records.
#[derive(Clone)]
pub struct ScopeKey(Bytes32);

fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // A key of any length is taken.
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).unwrap_or_else(|_| unreachable!());
    for part in parts {
        // With its length, so that no two lists of parts are the same bytes.
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

impl ScopeKey {
    /// The key of the scope with this tenant and, if it is one's own, conversation.
    pub fn derive(master: &[u8; 32], tenant: &str, conversation: Option<&str>) -> ScopeKey {
        let sort: &[u8] = if conversation.is_some() { b"conversation" } else { b"tenant" };
        let own = conversation.unwrap_or_default().as_bytes();
        ScopeKey(Bytes32(mac(master, &[b"tidegate redact scope", sort, tenant.as_bytes(), own])))
    }

    fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        mac(&self.0.0, parts)
    }

    /// What a request can be known by again, and told apart from others, by whoever has the key and by
    /// nobody else: a plain hash would say which of a few thousand values a known text was sent with.
    pub fn digest(&self, request: &[u8]) -> [u8; 32] {
        self.mac(&[b"request", request])
    }
}

impl fmt::Debug for ScopeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScopeKey(***)")
    }
}

/// The keys that seal records, the newest first.
pub struct KeyRing(Vec<(u32, Bytes32)>);

impl KeyRing {
    /// A ring of keys with their numbers. The first seals; all of them open.
    pub fn new(keys: impl IntoIterator<Item = (u32, [u8; 32])>) -> Result<KeyRing, VaultError> {
        let keys: Vec<(u32, Bytes32)> = keys.into_iter().map(|(id, key)| (id, Bytes32(key))).collect();
        let twice = keys.iter().enumerate().any(|(at, (id, _))| keys[..at].iter().any(|(other, _)| other == id));
        if keys.is_empty() || keys.len() > RING_KEYS_MAX || twice { Err(VaultError::Ring) } else { Ok(KeyRing(keys)) }
    }

    fn cipher(&self, id: u32) -> Option<Aes256GcmSiv> {
        let (_, key) = self.0.iter().find(|(known, _)| *known == id)?;
        Some(Aes256GcmSiv::new(&Key::<Aes256GcmSiv>::from(key.0)))
    }

    /// The number of the key that seals.
    pub fn newest(&self) -> u32 {
        self.0[0].0
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(id, _)| id)).finish()
    }
}

/// The values of one scope by their tokens, and the tokens by values.
#[derive(Debug)]
pub struct Vault {
    key: ScopeKey,
    values: BTreeMap<Token, Arc<Secret>>,
    /// By the HMAC of the value, so that it stands in memory once.
    tokens: BTreeMap<[u8; 32], Token>,
    bytes: usize,
    /// Tokens given out since records were last asked for.
    fresh: Vec<Token>,
}

impl Vault {
    /// The vault of a scope that has no values yet.
    pub fn new(key: ScopeKey) -> Vault {
        Vault { key, values: BTreeMap::new(), tokens: BTreeMap::new(), bytes: 0, fresh: Vec::new() }
    }

    /// The vault of a scope from its records, in any order.
    pub fn open<'r>(
        key: ScopeKey,
        ring: &KeyRing,
        records: impl IntoIterator<Item = &'r [u8]>,
    ) -> Result<Vault, VaultError> {
        let mut vault = Vault::new(key);
        for record in records {
            let (token, value) = vault.unseal(ring, record)?;
            vault.keep(token, value)?;
        }
        Ok(vault)
    }

    /// A vault that holds what others hold, under a key of its own: for records that are kept with
    /// something else than a conversation.
    pub(crate) fn copy<'v>(
        key: ScopeKey,
        entries: impl IntoIterator<Item = (Token, &'v Secret)>,
    ) -> Result<Vault, VaultError> {
        let mut vault = Vault::new(key);
        for (token, value) in entries {
            vault.keep(token, value.clone())?;
        }
        Ok(vault)
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Bytes of its values, and of what stands beside each.
    pub fn held_bytes(&self) -> usize {
        self.bytes + self.values.len() * ENTRY_BYTES
    }

    /// The token of `value`, if it has one.
    pub fn known(&self, value: &str) -> Option<Token> {
        self.tokens.get(&self.id(value)).copied()
    }

    /// The token of `value`; a new one if it has none. `plain` is the value without the way it is
    /// written: other ways of the same get tokens that differ in the counter only.
    pub(crate) fn token(&mut self, kind: Kind, plain: &[u8], value: &str) -> Result<Token, VaultError> {
        if let Some(token) = self.known(value) {
            return Ok(token);
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(VaultError::ValueTooLong);
        }
        let count = LETTERS.len() as u8;
        // A round is left when all its counters are taken: 20 ways to write one value, or values
        // whose letters collide. There are fewer entries than rounds.
        for round in 0..ENTRIES_MAX as u32 {
            let hash = self.key.mac(&[b"token", &[kind.letter()], &round.to_be_bytes(), plain]);
            let hash: [u8; HASH_LETTERS] = std::array::from_fn(|at| hash[at] % count);
            let free = (0..count).map(|n| Token::new(kind, hash, n)).find(|token| !self.values.contains_key(token));
            if let Some(token) = free {
                self.keep(token, Secret::new(value))?;
                self.fresh.push(token);
                return Ok(token);
            }
        }
        Err(VaultError::Full)
    }

    fn keep(&mut self, token: Token, value: Secret) -> Result<(), VaultError> {
        let bytes = value.expose().len();
        if self.values.len() >= ENTRIES_MAX || self.bytes + bytes > VAULT_BYTES_MAX {
            return Err(VaultError::Full);
        }
        self.bytes += bytes;
        self.tokens.insert(self.id(value.expose()), token);
        self.values.insert(token, Arc::new(value));
        Ok(())
    }

    fn id(&self, value: &str) -> [u8; 32] {
        self.key.mac(&[b"value", value.as_bytes()])
    }

    /// Tokens with their values, in the tokens' order.
    pub(crate) fn values(&self) -> impl Iterator<Item = (Token, &Arc<Secret>)> {
        self.values.iter().map(|(token, value)| (*token, value))
    }

    /// Sealed records of what is new since this was last asked: to be kept with the turn, before it is
    /// sent.
    pub fn fresh_records(&mut self, ring: &KeyRing) -> Result<Vec<Vec<u8>>, VaultError> {
        let records = self.fresh.iter().map(|token| self.seal(ring, *token)).collect::<Result<Vec<_>, _>>()?;
        self.fresh.clear();
        Ok(records)
    }

    /// Forgets what is new since records were last asked for: the request that told it came to nothing.
    /// Told again, it gets the same tokens.
    pub fn forget_fresh(&mut self) {
        for token in std::mem::take(&mut self.fresh) {
            if let Some(value) = self.values.remove(&token) {
                self.bytes -= value.expose().len();
                let id = self.id(value.expose());
                self.tokens.remove(&id);
            }
        }
    }

    /// Sealed records of everything, under the ring's newest key: how keys are changed.
    pub fn records(&self, ring: &KeyRing) -> Result<Vec<Vec<u8>>, VaultError> {
        self.values.keys().map(|token| self.seal(ring, *token)).collect()
    }

    /// A record of this scope under the ring's newest key: how keys are changed, record by record.
    pub fn reseal(key: ScopeKey, ring: &KeyRing, record: &[u8]) -> Result<Vec<u8>, VaultError> {
        let mut vault = Vault::new(key);
        let (token, value) = vault.unseal(ring, record)?;
        vault.keep(token, value)?;
        vault.seal(ring, token)
    }

    fn bound_to(&self, id: u32, token: &Token) -> Vec<u8> {
        let scope = self.key.mac(&[b"scope"]);
        [&b"tidegate vault"[..], &[RECORD_VERSION], &id.to_be_bytes(), &scope, token.as_bytes()].concat()
    }

    fn seal(&self, ring: &KeyRing, token: Token) -> Result<Vec<u8>, VaultError> {
        let value = self.values.get(&token).ok_or(VaultError::Format)?.expose();
        let id = ring.newest();
        let cipher = ring.cipher(id).ok_or(VaultError::UnknownKey(id))?;
        let mut plain = Zeroizing::new(Vec::with_capacity((4 + value.len()).next_multiple_of(PADDING)));
        plain.extend_from_slice(&(value.len() as u32).to_be_bytes());
        plain.extend_from_slice(value.as_bytes());
        let padded = plain.len().next_multiple_of(PADDING);
        plain.resize(padded, 0);
        let nonce: [u8; 32] = self.key.mac(&[b"nonce", token.as_bytes(), &id.to_be_bytes()]);
        let nonce = &nonce[..NONCE_BYTES];
        let aad = self.bound_to(id, &token);
        let payload = Payload { msg: &plain, aad: &aad };
        let sealed = cipher.encrypt(&nonce_of(nonce)?, payload).map_err(|_| VaultError::Sealed)?;
        Ok([&[RECORD_VERSION][..], &id.to_be_bytes(), token.as_bytes(), nonce, &sealed].concat())
    }

    fn unseal(&self, ring: &KeyRing, record: &[u8]) -> Result<(Token, Secret), VaultError> {
        if record.len() < RECORD_HEAD + TAG_BYTES || record[0] != RECORD_VERSION {
            return Err(VaultError::Format);
        }
        let id = u32::from_be_bytes([record[1], record[2], record[3], record[4]]);
        let token = Token::read(&record[5..5 + TOKEN_BYTES]).ok_or(VaultError::Format)?;
        let cipher = ring.cipher(id).ok_or(VaultError::UnknownKey(id))?;
        let aad = self.bound_to(id, &token);
        let payload = Payload { msg: &record[RECORD_HEAD..], aad: &aad };
        let nonce = nonce_of(&record[5 + TOKEN_BYTES..RECORD_HEAD])?;
        let plain = Zeroizing::new(cipher.decrypt(&nonce, payload).map_err(|_| VaultError::Sealed)?);
        let (length, rest) = plain.split_first_chunk::<4>().ok_or(VaultError::Format)?;
        let value = rest.get(..u32::from_be_bytes(*length) as usize).ok_or(VaultError::Format)?;
        let value = std::str::from_utf8(value).map_err(|_| VaultError::Format)?;
        Ok((token, Secret::new(value)))
    }
}

fn nonce_of(bytes: &[u8]) -> Result<Nonce, VaultError> {
    let bytes: [u8; NONCE_BYTES] = bytes.try_into().map_err(|_| VaultError::Format)?;
    Ok(Nonce::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(conversation: &str) -> ScopeKey {
        ScopeKey::derive(&[7; 32], "acme", Some(conversation))
    }

    fn vault(conversation: &str) -> Vault {
        Vault::new(scope(conversation))
    }

    #[test]
    fn a_value_has_one_token_in_a_scope_and_another_elsewhere() {
        let (mut a, mut b) = (vault("a"), vault("b"));
        let token = a.token(Kind::Phone, b"13800138000", "138 0013 8000").unwrap();
        assert_eq!(a.token(Kind::Phone, b"13800138000", "138 0013 8000").unwrap(), token);
        assert_ne!(b.token(Kind::Phone, b"13800138000", "138 0013 8000").unwrap(), token);
        let other_way = a.token(Kind::Phone, b"13800138000", "13800138000").unwrap();
        assert_eq!(other_way.as_str()[..8], token.as_str()[..8]);
        assert_ne!(other_way, token);
        assert_eq!(a.len(), 2);
    }

    #[test]
    fn tokens_that_collide_are_counted_in_first_seen_order() {
        let mut vault = vault("a");
        let all: Vec<Token> = (0..45).map(|n| vault.token(Kind::Name, b"x", &n.to_string()).unwrap()).collect();
        let different: std::collections::BTreeSet<&Token> = all.iter().collect();
        assert_eq!(different.len(), 45);
        assert_eq!(all[0].as_str()[..8], all[19].as_str()[..8]);
        assert_ne!(all[0].as_str()[..8], all[20].as_str()[..8]);
    }

    #[test]
    fn records_open_in_their_scope_and_nowhere_else() {
        let ring = KeyRing::new([(2, [2; 32]), (1, [1; 32])]).unwrap();
        let mut a = vault("a");
        let token = a.token(Kind::Email, b"a@b.cn", "a@b.cn").unwrap();
        let records = a.fresh_records(&ring).unwrap();
        assert_eq!(a.fresh_records(&ring).unwrap().len(), 0);
        let open = |key, ring: &KeyRing, record: &[u8]| Vault::open(key, ring, [record]);
        let again = open(scope("a"), &ring, &records[0]).unwrap();
        assert_eq!(again.known("a@b.cn"), Some(token));
        assert_eq!(open(scope("b"), &ring, &records[0]).unwrap_err(), VaultError::Sealed);
        let old = KeyRing::new([(1, [1; 32])]).unwrap();
        assert_eq!(open(scope("a"), &old, &records[0]).unwrap_err(), VaultError::UnknownKey(2));
        for at in 0..records[0].len() {
            let mut changed = records[0].clone();
            changed[at] ^= 1;
            assert!(open(scope("a"), &ring, &changed).is_err(), "byte {at}");
        }
        assert_eq!(open(scope("a"), &ring, &records[0][..20]).unwrap_err(), VaultError::Format);
        assert!(!records[0].windows(6).any(|w| w == b"a@b.cn"));
    }

    #[test]
    fn keys_are_changed_by_sealing_anew() {
        let (old, both) = (KeyRing::new([(1, [1; 32])]).unwrap(), KeyRing::new([(2, [2; 32]), (1, [1; 32])]).unwrap());
        let mut a = vault("a");
        a.token(Kind::Email, b"a@b.cn", "a@b.cn").unwrap();
        let records = a.records(&old).unwrap();
        let opened = Vault::open(scope("a"), &both, records.iter().map(Vec::as_slice)).unwrap();
        let new = KeyRing::new([(2, [2; 32])]).unwrap();
        let records = opened.records(&both).unwrap();
        assert!(Vault::open(scope("a"), &new, records.iter().map(Vec::as_slice)).unwrap().known("a@b.cn").is_some());
        assert_eq!(KeyRing::new([(1, [0; 32]), (1, [1; 32])]).unwrap_err(), VaultError::Ring);
        assert_eq!(KeyRing::new([]).unwrap_err(), VaultError::Ring);
    }

    #[test]
    fn what_came_to_nothing_is_forgotten_and_told_again_is_the_same() {
        let ring = KeyRing::new([(1, [1; 32])]).unwrap();
        let mut a = vault("a");
        let kept = a.token(Kind::Email, b"a@b.cn", "a@b.cn").unwrap();
        let records = a.fresh_records(&ring).unwrap();
        let bytes = a.held_bytes();
        let gone = a.token(Kind::Email, b"c@d.cn", "c@d.cn").unwrap();
        a.forget_fresh();
        assert_eq!((a.known("a@b.cn"), a.known("c@d.cn")), (Some(kept), None));
        assert_eq!((a.len(), a.held_bytes(), records.len()), (1, bytes, 1));
        assert_eq!(a.token(Kind::Email, b"c@d.cn", "c@d.cn").unwrap(), gone);
        assert_ne!(scope("a").digest(b"x"), scope("b").digest(b"x"));
    }

    #[test]
    fn there_is_a_maximum() {
        let long = "x".repeat(VALUE_BYTES_MAX + 1);
        assert_eq!(vault("a").token(Kind::Secret, b"", &long).unwrap_err(), VaultError::ValueTooLong);
        let mut full = vault("a");
        let value = |n: usize| format!("{n:05}{}", "x".repeat(VALUE_BYTES_MAX - 5));
        let fits = VAULT_BYTES_MAX / VALUE_BYTES_MAX;
        (0..fits).for_each(|n| assert!(full.token(Kind::Secret, value(n).as_bytes(), &value(n)).is_ok()));
        assert_eq!(full.token(Kind::Secret, b"", &value(fits)).unwrap_err(), VaultError::Full);
    }

    #[test]
    fn nothing_shows_a_value() {
        let mut a = vault("a");
        a.token(Kind::Email, b"a@b.cn", "a@b.cn").unwrap();
        assert!(!format!("{a:?}").contains("a@b"));
    }
}
