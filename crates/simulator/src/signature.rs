//! The seal on a thinking block: opaque to the caller, checked when it comes back.
//!
//! 16 hex digits of a nonce, then 80 characters drawn from a generator that is seeded with a hash of
//! the nonce and the thinking text. It stops nobody who reads this file; it notices what the API
//! notices, a thinking block that was changed on the way.

use tidegate_base::Prng;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The signature of `thinking` under this nonce.
pub(crate) fn sign(thinking: &str, nonce: u64) -> String {
    let mut prng = Prng::new(nonce).fork(thinking);
    let mut signature = format!("{nonce:016x}");
    signature.extend((0..80).map(|_| ALPHABET[prng.below(64) as usize] as char));
    signature
}

/// Whether this is what [`sign`] gave for this text.
pub(crate) fn genuine(thinking: &str, signature: &str) -> bool {
    let nonce = signature.get(..16).and_then(|nonce| u64::from_str_radix(nonce, 16).ok());
    nonce.is_some_and(|nonce| sign(thinking, nonce) == signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_thought_or_seal_is_noticed() {
        let seal = sign("so be it", 7);
        assert!(genuine("so be it", &seal));
        assert!(!genuine("so be it.", &seal));
        assert!(!genuine("so be it", &seal[..90]));
        assert!(!genuine("so be it", "short"));
        assert!(genuine("", &sign("", 1)));
    }
}
