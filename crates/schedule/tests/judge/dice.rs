//! Sizes, spans and gaps as real traffic has them, drawn from a seed.

use tidegate_base::Prng;

/// A standard normal number (Box and Muller, one of the pair).
fn normal(prng: &mut Prng) -> f64 {
    let radius = (-2.0 * (1.0 - prng.unit()).ln()).sqrt();
    radius * (std::f64::consts::TAU * prng.unit()).cos()
}

/// Between `low` and `high`, all alike.
pub(crate) fn uniform(prng: &mut Prng, low: f64, high: f64) -> f64 {
    low + (high - low) * prng.unit()
}

/// Log-normal with this mean; `sigma` is the deviation of its logarithm.
pub(crate) fn log_normal(prng: &mut Prng, mean: f64, sigma: f64) -> f64 {
    (mean.ln() - sigma * sigma / 2.0 + sigma * normal(prng)).exp()
}

/// Pareto from `least` on: the smaller `alpha`, the heavier the tail.
pub(crate) fn pareto(prng: &mut Prng, least: f64, alpha: f64) -> f64 {
    least * (1.0 - prng.unit()).powf(-1.0 / alpha)
}

/// The gap to the next of `per_second` arrivals whose gaps have the coefficient of variation `cv`:
/// Gamma distributed, so that 1 is Poisson and more comes in bursts.
pub(crate) fn gap(prng: &mut Prng, per_second: f64, cv: f64) -> f64 {
    let shape = 1.0 / (cv * cv);
    gamma(prng, shape) / (shape * per_second)
}

/// Gamma of unit scale (Marsaglia and Tsang; below a shape of 1 by their power trick).
fn gamma(prng: &mut Prng, shape: f64) -> f64 {
    if shape < 1.0 {
        return gamma(prng, shape + 1.0) * (1.0 - prng.unit()).powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(prng);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - prng.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

#[test]
fn means_and_spreads_are_as_asked() {
    let mut prng = Prng::new(5);
    let mut moments = |draw: &dyn Fn(&mut Prng) -> f64| {
        let drawn: Vec<f64> = (0..200_000).map(|_| draw(&mut prng)).collect();
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        let variance = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / drawn.len() as f64;
        (mean, variance.sqrt() / mean)
    };
    let (mean, _) = moments(&|p| log_normal(p, 1_200.0, 1.0));
    assert!((mean - 1_200.0).abs() < 40.0, "{mean}");
    let (mean, cv) = moments(&|p| gap(p, 20.0, 3.0));
    assert!((mean - 0.05).abs() < 0.002 && (cv - 3.0).abs() < 0.2, "{mean} {cv}");
    let (mean, cv) = moments(&|p| gap(p, 20.0, 1.0));
    assert!((mean - 0.05).abs() < 0.001 && (cv - 1.0).abs() < 0.05, "{mean} {cv}");
}
