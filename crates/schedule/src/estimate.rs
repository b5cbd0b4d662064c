//! How many tokens an input will have, before the upstream has counted it.
//!
//! No tokenizer and none of its tables: the host counts an input's bytes by class (a pass of a
//! nanosecond a byte or less), and a handful of coefficients turn the counts into tokens. They
//! start from what is usual and are corrected for each class of models by the usage it reports
//! (normalised least mean squares, a small step each time), so that a new tokenizer or a new
//! language costs a few answers and not a release. The running error is a metric.

/// What an input is made of: its bytes by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mix {
    /// ASCII letters and the single spaces between words.
    pub words: u32,
    /// ASCII digits.
    pub digits: u32,
    /// Other ASCII: punctuation, line breaks, JSON's own.
    pub marks: u32,
    /// Bytes of characters beyond ASCII.
    pub wide: u32,
    /// Base64 and the like: bytes of long runs without a blank.
    pub encoded: u32,
}

const CLASSES: usize = 5;

/// Tokens per byte before anything was learned. English has about 4.5 letters to a token, digits go
/// in threes at most, a Chinese character (three bytes) is about one token. A run of base64 is an
/// image or a document page: some 1,500 tokens for 100 to 300 KB.
const USUAL: [f64; CLASSES] = [0.23, 0.40, 0.35, 0.34, 0.008];
/// No coefficient leaves this span around the usual one: a few absurd reports must not make inputs
/// free, or unaffordable. What is encoded may be far less: a photograph of 5 MB is 1,600 tokens.
const LEAST: [f64; CLASSES] = [0.2, 0.2, 0.2, 0.2, 0.02];
const MOST: f64 = 5.0;
/// The part of the usual coefficients that surely comes true, whatever the tokenizer: runs of letters
/// are split somewhere, while an indentation or a rule of dashes may be a single token, and what is
/// encoded may be nearly nothing.
const SURELY: [f64; CLASSES] = [0.5, 0.5, 0.15, 0.4, 0.0];
/// How far one answer moves the coefficients towards what would have been right.
const STEP: f64 = 0.1;
/// How much one answer counts in the running error.
const ERROR_WEIGHT: f64 = 0.05;

impl Mix {
    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        self.parts().iter().map(|n| *n as u64).sum()
    }

    fn parts(&self) -> [f64; CLASSES] {
        [self.words, self.digits, self.marks, self.wide, self.encoded].map(f64::from)
    }
}

/// The estimate of one class of models.
#[derive(Clone, Debug)]
pub struct Estimator {
    per_byte: [f64; CLASSES],
    error: f64,
    bias: f64,
    answers: u64,
}

impl Default for Estimator {
    fn default() -> Self {
        Estimator { per_byte: USUAL, error: 0.0, bias: 0.0, answers: 0 }
    }
}

impl Estimator {
    /// Tokens of such an input; at least 1.
    pub fn tokens(&self, mix: &Mix) -> f64 {
        let sum: f64 = mix.parts().iter().zip(self.per_byte).map(|(bytes, per)| bytes * per).sum();
        sum.max(1.0)
    }

    /// Tokens that such an input has at the least.
    pub(crate) fn surely(&self, mix: &Mix) -> f64 {
        let least = self.per_byte.iter().zip(USUAL).zip(SURELY).map(|((per, usual), part)| per.min(usual) * part);
        mix.parts().iter().zip(least).map(|(bytes, per)| bytes * per).sum()
    }

    /// Tokens of its text alone: what is encoded is guessed at too roughly to compare by.
    pub(crate) fn plain(&self, mix: &Mix) -> f64 {
        self.tokens(&Mix { encoded: 0, ..*mix })
    }

    /// The upstream counted `actual` tokens, cached ones included.
    pub fn learn(&mut self, mix: &Mix, actual: u64) {
        let actual = actual as f64;
        if actual < 1.0 || mix.bytes() == 0 {
            return;
        }
        let guess = self.tokens(mix);
        let off = (guess - actual) / actual;
        // The first answers count fully, so that the shown error is not an average with nothing.
        let weight = ERROR_WEIGHT.max(1.0 / (self.answers + 1) as f64);
        self.error += weight * (off.abs() - self.error);
        self.bias += weight * (off - self.bias);
        self.answers += 1;
        // In units of the usual coefficients the parts are comparable; one class of bytes that
        // makes up nearly all of an input then takes nearly all of the correction.
        let parts: [f64; CLASSES] = std::array::from_fn(|n| mix.parts()[n] * USUAL[n]);
        let norm: f64 = parts.iter().map(|p| p * p).sum();
        if norm <= 0.0 {
            return;
        }
        // Early answers teach more: a tokenizer that is off by a constant is off at once.
        let step = STEP.max(0.5 / self.answers as f64);
        for (((coefficient, part), usual), least) in self.per_byte.iter_mut().zip(parts).zip(USUAL).zip(LEAST) {
            let better = *coefficient + step * (actual - guess) * part / norm * usual;
            *coefficient = better.clamp(usual * least, usual * MOST);
        }
    }

    /// The running mean of |estimate - actual| / actual.
    pub fn error(&self) -> f64 {
        self.error
    }

    /// The running mean of (estimate - actual) / actual: above 0, estimates are too high.
    pub fn bias(&self) -> f64 {
        self.bias
    }

    /// Answers it has learned from.
    pub fn answers(&self) -> u64 {
        self.answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_base::Prng;

    fn mix(prng: &mut Prng) -> Mix {
        let mut n = |most: u64| prng.below(most) as u32;
        Mix { words: 50 + n(8_000), digits: n(500), marks: 20 + n(1_500), wide: n(2_000), encoded: 0 }
    }

    fn truth(m: &Mix, per: [f64; 5]) -> u64 {
        (m.parts().iter().zip(per).map(|(b, p)| b * p).sum::<f64>()).round() as u64
    }

    #[test]
    fn english_and_chinese_are_about_right_before_anything_was_learned() {
        let e = Estimator::default();
        let english = e.tokens(&Mix { words: 4_400, digits: 20, marks: 180, ..Mix::default() });
        assert!((900.0..1_300.0).contains(&english), "{english}");
        let chinese = e.tokens(&Mix { wide: 3_000, marks: 20, ..Mix::default() });
        assert!((800.0..1_300.0).contains(&chinese), "{chinese}");
        assert_eq!(e.tokens(&Mix::default()), 1.0);
    }

    #[test]
    fn another_tokenizer_is_learned_within_some_answers() {
        for seed in 0..20 {
            let (mut e, mut prng) = (Estimator::default(), Prng::new(seed));
            let per = [0.31, 0.55, 0.50, 0.60, 0.02];
            for _ in 0..100 {
                let m = mix(&mut prng);
                e.learn(&m, truth(&m, per));
            }
            for _ in 0..50 {
                let m = mix(&mut prng);
                let off = e.tokens(&m) / truth(&m, per) as f64 - 1.0;
                assert!(off.abs() < 0.15, "seed {seed}: {off}");
            }
            assert!(e.error() < 0.12 && e.bias().abs() < 0.1, "seed {seed}: {} {}", e.error(), e.bias());
        }
    }

    #[test]
    fn photographs_are_learned_to_be_small_and_nothing_is_sure_of_what_is_encoded() {
        let mut e = Estimator::default();
        let photograph = Mix { words: 200, encoded: 5_000_000, ..Mix::default() };
        assert!(e.tokens(&photograph) > 30_000.0 && e.surely(&photograph) < 50.0);
        (0..100).for_each(|_| e.learn(&photograph, 1_650));
        assert!((1_400.0..1_900.0).contains(&e.tokens(&photograph)), "{}", e.tokens(&photograph));
        let text = Mix { words: 40_000, ..Mix::default() };
        assert!((0.45..0.55).contains(&(e.surely(&text) / Estimator::default().tokens(&text))));
        assert_eq!(e.plain(&Mix { words: 40_000, ..photograph }), e.tokens(&text));
    }

    #[test]
    fn absurd_reports_move_it_only_so_far() {
        let (mut e, m) = (Estimator::default(), Mix { words: 1_000, ..Mix::default() });
        (0..10_000).for_each(|_| e.learn(&m, u64::MAX));
        assert!(e.tokens(&m) <= 1_000.0 * USUAL[0] * MOST + 1.0);
        (0..10_000).for_each(|_| e.learn(&m, 1));
        assert!(e.tokens(&m) >= 1_000.0 * USUAL[0] * LEAST[0] - 1.0);
    }
}
