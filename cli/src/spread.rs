//! Times of several runs. The package for JavaScript has this file, too.

use serde::Serialize;

/// Measured times, in milliseconds.
#[derive(Serialize)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
    pub runs: usize,
}

impl Spread {
    /// Of at least one run.
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let (last, half) = (samples.len() - 1, samples.len() / 2);
        // The mean of the two in the middle if the count is even.
        let median = (samples[half] + samples[last - half]) / 2.0;
        Self { min: samples[0], median, max: samples[last], runs: samples.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_worked_out_by_hand() {
        let spread = |samples: &[f64]| Spread::of(samples.to_vec());
        assert_eq!(spread(&[3.0, 1.0, 2.0]).median, 2.0);
        assert_eq!(spread(&[4.0, 1.0, 2.0, 8.0]).median, 3.0);
        assert_eq!((spread(&[3.0, 1.0]).min, spread(&[3.0, 1.0]).max), (1.0, 3.0));
    }
}
