//! How many tokens an input will have, before the upstream has counted it.
//!
//! No tokenizer and none of its tables: the host counts an input's bytes by class (a pass of a
//! nanosecond a byte or less), its messages and its images, and a handful of coefficients turn the
//! counts into tokens: so many for a request, a message, an image and a byte of each class. They
//! start from what is usual and are corrected for each class of models by the usage it reports, so
//! that a new tokenizer or a new language costs a few answers and not a release. The running error is
//! a metric.
//!
//! The correction is a Kalman filter's. Each coefficient has a spread, by which the usual one may
//! reasonably be wrong, and an answer moves it by its part in what may have been wrong there: of a
//! request of ten tokens that is the framing, and next to nothing of what a byte costs. (A fit
//! without a constant has to put the framing of tiny requests down to their bytes; this one's
//! predecessor estimated large texts at a quarter then.) As answers come, what they tell of becomes
//! sure, down to a floor from which it can still follow a change; of what they do not tell nothing
//! moves. A report that is far off moves it no more than one that is as far off as reports get.

#[cfg(test)]
mod tests;

/// What an input is made of: its bytes by class, and what costs beside them.
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
    /// Base64 and the like: bytes of long runs without a blank. Not those of images that are counted.
    pub encoded: u32,
    /// Messages, whose JSON is among the bytes.
    pub messages: u32,
    /// Images.
    pub images: u32,
}

/// What tokens are counted by: the request itself, a message, an image, a byte of each class.
const TERMS: usize = 8;
const IMAGES: usize = 2;
const ENCODED: usize = 7;

/// Tokens of one of each.
struct Term {
    /// Before anything was learned.
    usual: f64,
    /// By how much that is off, two times of three.
    spread: f64,
    /// No report takes it out of these bounds: inputs must not become free, or unaffordable.
    bounds: (f64, f64),
    /// The part of the usual that surely comes true, whatever the tokenizer.
    surely: f64,
}

const fn term(usual: f64, spread: f64, bounds: (f64, f64), surely: f64) -> Term {
    Term { usual, spread, bounds, surely }
}

/// English has about 4.5 letters to a token, digits go in threes at most, a Chinese character (three
/// bytes) is about one token. A message's JSON looks like eight tokens and costs four. An image costs
/// by its pixels, up to 1,600 tokens for most models; a page of a document some 1,500 for 50 to
/// 100 KB. Runs of letters are split somewhere, while an indentation or a rule of dashes may be a
/// single token, and what is encoded may be nearly nothing (a photograph of 5 MB is 1,600 tokens).
const TABLE: [Term; TERMS] = [
    term(0.0, 20.0, (-100.0, 1_000.0), 0.0),
    term(-4.0, 4.0, (-12.0, 30.0), 0.0),
    term(1_300.0, 500.0, (50.0, 10_000.0), 0.0),
    term(0.23, 0.07, (0.05, 1.0), 0.5),
    term(0.40, 0.12, (0.08, 1.6), 0.5),
    term(0.35, 0.15, (0.07, 1.4), 0.15),
    term(0.34, 0.12, (0.07, 1.4), 0.4),
    term(0.02, 0.02, (0.000_2, 0.1), 0.0),
];

/// How far one text's tokens are usually off, as a part, however well its kind is known; the same of
/// what is not text; and tokens, of anything.
const NOISE: f64 = 0.12;
const NOISE_ROUGH: f64 = 0.3;
const NOISE_LEAST: f64 = 4.0;
/// An answer that is off by more than so many times what was to be expected counts as that.
const FARTHEST: f64 = 3.0;
/// What is known stays unsure by this part of the first spread, to follow what changes.
const STEADY: f64 = 0.2;
/// How much one answer counts in the running error.
const ERROR_WEIGHT: f64 = 0.05;

impl Mix {
    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        [self.words, self.digits, self.marks, self.wide, self.encoded].into_iter().map(u64::from).sum()
    }

    fn terms(&self) -> [f64; TERMS] {
        let Mix { words, digits, marks, wide, encoded, messages, images } = *self;
        [1, messages, images, words, digits, marks, wide, encoded].map(f64::from)
    }
}

fn product(a: &[f64; TERMS], b: &[f64; TERMS]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The estimate of one class of models.
#[derive(Clone, Debug)]
pub struct Estimator {
    per: [f64; TERMS],
    /// By how much these may be off, and together: their covariance.
    unsure: [[f64; TERMS]; TERMS],
    error: f64,
    bias: f64,
    answers: u64,
}

impl Default for Estimator {
    fn default() -> Self {
        let mut unsure = [[0.0; TERMS]; TERMS];
        for (n, (row, term)) in unsure.iter_mut().zip(&TABLE).enumerate() {
            row[n] = term.spread * term.spread;
        }
        Estimator { per: TABLE.map(|term| term.usual), unsure, error: 0.0, bias: 0.0, answers: 0 }
    }
}

impl Estimator {
    /// Tokens of such an input; at least 1.
    pub fn tokens(&self, mix: &Mix) -> f64 {
        product(&mix.terms(), &self.per).max(1.0)
    }

    /// Tokens of a piece of an input, without what a request costs by itself; at least 0.
    pub fn piece(&self, mix: &Mix) -> f64 {
        (product(&mix.terms(), &self.per) - self.per[0]).max(0.0)
    }

    /// Tokens that such an input has at the least.
    pub(crate) fn surely(&self, mix: &Mix) -> f64 {
        let least = self.per.iter().zip(&TABLE).map(|(per, term)| per.min(term.usual) * term.surely);
        mix.terms().iter().zip(least).map(|(n, per)| n * per).sum()
    }

    /// Tokens of its text alone: what is encoded is guessed at too roughly to compare by.
    pub(crate) fn plain(&self, mix: &Mix) -> f64 {
        self.tokens(&Mix { encoded: 0, images: 0, ..*mix })
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
        self.correct(&mix.terms(), actual - guess);
    }

    /// An input of these terms had so many tokens more than was thought.
    fn correct(&mut self, terms: &[f64; TERMS], more: f64) {
        let noise = self.noise(terms);
        // What each coefficient may have had to do with it.
        let part = self.unsure.map(|row| product(&row, terms));
        let expected = product(&part, terms) + noise;
        let farthest = FARTHEST * expected.sqrt();
        let more = more.clamp(-farthest, farthest);
        for ((per, part), term) in self.per.iter_mut().zip(part).zip(&TABLE) {
            *per = (*per + more * part / expected).clamp(term.bounds.0, term.bounds.1);
        }
        // It is so much surer now, but for what may change.
        let steady: [f64; TERMS] = std::array::from_fn(|n| (TABLE[n].spread * STEADY).powi(2) * terms[n]);
        let steadily = product(&steady, terms) + noise;
        for (n, row) in self.unsure.iter_mut().enumerate() {
            for (m, cell) in row.iter_mut().enumerate() {
                *cell += steady[n] * steady[m] / steadily - part[n] * part[m] / expected;
            }
        }
    }

    /// The square of what an input would be off by if all coefficients were right.
    fn noise(&self, terms: &[f64; TERMS]) -> f64 {
        let of = |n: usize| terms[n] * self.per[n];
        let rough = of(IMAGES) + of(ENCODED);
        let text: f64 = (IMAGES + 1..ENCODED).map(of).sum();
        NOISE_LEAST.powi(2) + (NOISE * text).powi(2) + (NOISE_ROUGH * rough).powi(2)
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
