//! A client key as Tidegate keeps it: its SHA-256. Keys are long and random, so a slow hash would
//! only slow the path.

use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use subtle::ConstantTimeEq;

/// The SHA-256 of a client key, written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyHash([u8; 32]);

/// Not a key hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHashError;

impl fmt::Display for KeyHashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a key hash is `sha256:` and 64 hexadecimal digits, as `tidegate key new` prints it; never the key itself",
        )
    }
}

impl std::error::Error for KeyHashError {}

impl KeyHash {
    /// The hash of a key.
    pub fn of(key: &[u8]) -> Self {
        KeyHash(Sha256::digest(key).into())
    }

    /// Its first bytes, to find it by.
    pub(crate) fn prefix(&self) -> [u8; 8] {
        std::array::from_fn(|i| self.0[i])
    }

    /// Whether it is `other`, in constant time.
    pub(crate) fn is(&self, other: &KeyHash) -> bool {
        bool::from(self.0.ct_eq(&other.0))
    }
}

impl FromStr for KeyHash {
    type Err = KeyHashError;
    fn from_str(text: &str) -> Result<Self, KeyHashError> {
        let hex = text.strip_prefix("sha256:").ok_or(KeyHashError)?;
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(KeyHashError);
        }
        let digit = |b: u8| (b as char).to_digit(16).unwrap_or(0) as u8;
        let hex = hex.as_bytes();
        Ok(KeyHash(std::array::from_fn(|i| digit(hex[2 * i]) << 4 | digit(hex[2 * i + 1]))))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_reads_back_and_a_key_is_no_hash() {
        let hash = KeyHash::of(b"x");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        for bad in ["", "tg_abc", "sha256:12", &"sha256:".repeat(10)] {
            assert_eq!(bad.parse::<KeyHash>(), Err(KeyHashError));
        }
    }
}
