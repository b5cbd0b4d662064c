//! How long answers are, and how much of one that is under way is still to come.
//!
//! `max_tokens` says nothing of that: most answers are a fraction of it. So the lengths seen are
//! kept in logarithmic bins with their sums, old ones fading, and the expected rest of an answer of
//! which `p` tokens are there is the mean of `x - p` over the lengths `x` above `p`. Heavy tails
//! come out right: the longer an answer is already, the longer it will still be.

/// Bins, each half an octave wide: up to 2^18 tokens, above every model's longest answer.
const BINS: usize = 37;
/// With fewer samples it is not trusted that an answer over the mean is about to end, nor the mean
/// alone: what is usual counts as a fifth of those that are missing. (Seen: a first answer of a few
/// tokens let hundreds of requests go that were taken to be as short.)
const FEW: f32 = 50.0;
const USUAL_COUNTS: f32 = 0.2;
const REST_AT_LEAST: f64 = 200.0;
/// Before anything was seen: what chats usually answer (scheduling page, A2.10).
const USUAL: f64 = 550.0;
/// From this weight on everything is halved, so that a thousand new answers outweigh all before.
const WEIGHT_MAX: f32 = 2_000.0;

/// Lengths of answers, tokens.
#[derive(Clone, Debug)]
pub(crate) struct Lengths {
    bins: [Bin; BINS],
    /// Of each bin and all above it.
    tails: [Bin; BINS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    count: f32,
    sum: f32,
}

impl Default for Lengths {
    fn default() -> Self {
        Lengths { bins: [Bin::default(); BINS], tails: [Bin::default(); BINS] }
    }
}

/// Half octaves, read off a number's exponent: asked of each answer under way every 50 ms.
fn bin(tokens: f64) -> usize {
    let bits = tokens.max(1.0).to_bits();
    let (octave, part) = ((bits >> 52) as usize - 1_023, bits & ((1 << 52) - 1));
    let upper = part >= std::f64::consts::SQRT_2.to_bits() & ((1 << 52) - 1);
    (octave * 2 + usize::from(upper)).min(BINS - 1)
}

impl Lengths {
    /// An answer ended with so many tokens.
    pub(crate) fn add(&mut self, tokens: u64) {
        let n = bin(tokens as f64);
        let add = |bin: &mut Bin| {
            bin.count += 1.0;
            bin.sum += tokens as f32;
        };
        add(&mut self.bins[n]);
        self.tails[..=n].iter_mut().for_each(add);
        if self.tails[0].count > WEIGHT_MAX {
            self.fade();
        }
    }

    /// Halves everything; and no rounding error of the tails outlives it.
    fn fade(&mut self) {
        for bin in &mut self.bins {
            bin.count /= 2.0;
            bin.sum /= 2.0;
        }
        let mut tail = Bin::default();
        for (bin, slot) in self.bins.iter().zip(&mut self.tails).rev() {
            tail = Bin { count: tail.count + bin.count, sum: tail.sum + bin.sum };
            *slot = tail;
        }
    }

    /// Whether enough was seen to say anything of tails.
    pub(crate) fn is_known(&self) -> bool {
        self.tails[0].count >= FEW
    }

    /// The mean length.
    pub(crate) fn mean(&self) -> f64 {
        let all = self.tails[0];
        let usual = (FEW - all.count).max(0.0) * USUAL_COUNTS;
        f64::from((all.sum + usual * USUAL as f32) / (all.count + usual))
    }

    /// What is expected still to come of an answer of which `produced` tokens are there.
    pub(crate) fn rest(&self, produced: f64) -> f64 {
        if !self.is_known() {
            return (self.mean() - produced).max(REST_AT_LEAST);
        }
        if produced < 1.0 {
            return self.mean();
        }
        let n = bin(produced);
        let (own, above) = (self.bins[n], self.tails.get(n + 1).copied().unwrap_or_default());
        // Of the lengths in the same bin, those that are above: about as many as there is room.
        let top = 2f64.powf((n + 1) as f64 / 2.0);
        let width = top * (1.0 - std::f64::consts::FRAC_1_SQRT_2);
        let part = ((top - produced) / width).clamp(0.0, 1.0);
        let own_count = f64::from(own.count) * part;
        let own_rest = own_count * (top - produced) / 2.0;
        let count = own_count + f64::from(above.count);
        if count < 0.5 {
            // Longer than anything seen: as long again, like other heavy tails.
            return produced.max(REST_AT_LEAST);
        }
        (own_rest + f64::from(above.sum) - f64::from(above.count) * produced) / count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_base::Prng;

    #[test]
    fn the_rest_is_the_mean_of_what_lies_above() {
        let (mut l, mut prng, mut all) = (Lengths::default(), Prng::new(3), Vec::new());
        for _ in 0..1_900 {
            // Log-normal, about: the sum of twelve even numbers is nearly normal.
            let normal: f64 = (0..12).map(|_| prng.unit()).sum::<f64>() - 6.0;
            let x = (5.8 + 1.1 * normal).exp();
            all.push(x.floor());
            l.add(x as u64);
        }
        for p in [0.0, 10.0, 100.0, 200.0, 500.0, 850.0, 2_000.0] {
            let above: Vec<f64> = all.iter().filter(|x| **x > p).map(|x| x - p).collect();
            let want = above.iter().sum::<f64>() / above.len() as f64;
            let got = l.rest(p);
            assert!((got / want - 1.0).abs() < 0.12, "{p}: {got} for {want}");
        }
        assert!(l.rest(60_000.0) >= 60_000.0, "past everything seen");
    }

    #[test]
    fn bins_are_half_octaves() {
        for tokens in (0..300_000).map(f64::from).chain([0.5, 1.414, 1.415, 2.8284, 2.8285, 1e12, f64::INFINITY]) {
            assert_eq!(bin(tokens), ((tokens.max(1.0).log2() * 2.0) as usize).min(BINS - 1), "{tokens}");
        }
        assert_eq!(bin(f64::NAN), 0);
    }

    #[test]
    fn little_seen_is_little_trusted() {
        let mut l = Lengths::default();
        assert_eq!((l.mean(), l.rest(0.0), l.rest(10_000.0)), (USUAL, USUAL, REST_AT_LEAST));
        l.add(100);
        assert!((500.0..515.0).contains(&l.mean()) && l.rest(0.0) == l.mean(), "one short answer: {}", l.mean());
        assert_eq!(l.rest(10_000.0), REST_AT_LEAST);
        (0..25).for_each(|_| l.add(100));
        assert!((150.0..180.0).contains(&l.mean()), "{}", l.mean());
        (0..25).for_each(|_| l.add(100));
        assert_eq!(l.mean(), 100.0);
    }

    #[test]
    fn what_was_long_ago_fades() {
        let mut l = Lengths::default();
        (0..5_000).for_each(|_| l.add(10_000));
        (0..5_000).for_each(|_| l.add(100));
        assert!(l.mean() < 1_500.0, "{}", l.mean());
    }
}
