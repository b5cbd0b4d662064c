//! The seeded generator behind everything random: simulator replies, jitter, ids, World faults.
//!
//! xoshiro256** (Blackman and Vigna, 2018), its state filled from a 64-bit seed by splitmix64.
//! Not for secrets: keys and vault material come from the operating system. The stream of numbers
//! is part of the simulator's contract (same seed, same bytes) and may not change within a major
//! version; a test pins it.

/// A seeded pseudo-random generator; clone it to repeat, [`fork`](Prng::fork) it to branch.
#[derive(Clone, Debug)]
pub struct Prng {
    s: [u64; 4],
}

fn splitmix64(x: &mut u64) -> u64 {
    *x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *x;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Prng {
    /// The generator of `seed`. Every seed, zero included, gives a full-period stream.
    pub fn new(seed: u64) -> Self {
        let mut x = seed;
        Prng { s: std::array::from_fn(|_| splitmix64(&mut x)) }
    }

    /// A generator for one named purpose, independent of how far `self` has been used elsewhere
    /// with other labels. The label is hashed with FNV-1a.
    pub fn fork(&self, label: &str) -> Prng {
        let mut h = 0xcbf2_9ce4_8422_2325u64;
        for b in label.as_bytes() {
            h = (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        let mut x = self.s[0] ^ self.s[2].rotate_left(17) ^ h;
        Prng { s: std::array::from_fn(|_| splitmix64(&mut x)) }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let out = self.s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = self.s[1] << 17;
        self.s[2] ^= self.s[0];
        self.s[3] ^= self.s[1];
        self.s[1] ^= self.s[2];
        self.s[0] ^= self.s[3];
        self.s[2] ^= t;
        self.s[3] = self.s[3].rotate_left(45);
        out
    }

    /// A number in `0..n`, without modulo bias worth naming (Lemire's multiply-shift); 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        let span = high.saturating_sub(low);
        if span == u64::MAX { self.next_u64() } else { low + self.below(span + 1) }
    }

    /// A number in `[0, 1)` with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// One of `items`, or `None` if there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len() as u64) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_a_seed_is_pinned() {
        let mut p = Prng::new(42);
        let first: Vec<u64> = (0..3).map(|_| p.next_u64()).collect();
        assert_eq!(first, [1546998764402558742, 6990951692964543102, 12544586762248559009]);
    }

    #[test]
    fn forks_differ_by_label_and_repeat_by_seed() {
        let p = Prng::new(7);
        assert_eq!(p.fork("a").next_u64(), Prng::new(7).fork("a").next_u64());
        assert_ne!(p.fork("a").next_u64(), p.fork("b").next_u64());
    }

    #[test]
    fn ranges_hold_their_ends() {
        let mut p = Prng::new(1);
        let seen: std::collections::BTreeSet<u64> = (0..200).map(|_| p.between(3, 5)).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(p.below(0), 0);
        assert_eq!(p.pick::<u8>(&[]), None);
    }
}
