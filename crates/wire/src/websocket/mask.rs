//! Masking: XOR with four bytes, eight at a time.
//!
//! What a client sends is XORed with a key that goes along with it, so that no script in a browser
//! decides what an intermediary sees on the wire. Doing it twice undoes it.

/// XORs `bytes` with `key`; the first of them is byte number `at` of the frame's payload.
pub fn mask(bytes: &mut [u8], key: [u8; 4], at: usize) {
    let turned: [u8; 8] = std::array::from_fn(|i| key[(at + i) & 3]);
    let word = u64::from_ne_bytes(turned);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    // A plain loop over whole words: the compiler makes it as wide as the machine is.
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (b, k) in rest.iter_mut().zip(turned) {
        *b ^= k;
    }
}

#[cfg(test)]
mod tests {
    use super::mask;

    proptest::proptest! {
        #[test]
        fn it_is_what_the_rfc_says_byte_for_byte(mut bytes: Vec<u8>, key: [u8; 4], at in 0usize..9, cut: usize) {
            let want: Vec<u8> = bytes.iter().enumerate().map(|(i, b)| b ^ key[(at + i) % 4]).collect();
            let cut = cut % (bytes.len() + 1);
            mask(&mut bytes[..cut], key, at);
            mask(&mut bytes[cut..], key, at + cut);
            proptest::prop_assert_eq!(bytes, want);
        }
    }
}
