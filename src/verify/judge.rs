//! Judges a step's outputs on random numbers.

use std::borrow::Cow;

use crate::model::chain::Chain;
use crate::model::dtype::DType;
use crate::model::rounding::half_unit;
use crate::oracle::Answer;
use crate::planner::{Recipe, Step};

use super::Report;

/// Roundings that a kernel's tolerance does not count: those of the bias, the residual, and an activation that is not
/// piecewise linear.
const EPILOGUE_TOLERANCE: f64 = 4.0;
/// Terms may cancel to a sum far smaller than its own rounding error. So in the norm of the answer an output counts
/// with at least this share of the magnitudes of its terms.
const LEAST_OF_TERMS: f64 = 1.0 / 64.0;

/// Compares the outputs of a step, or of several in a row, with the oracle's answer of their chain on the same inputs. For
/// each output, its error as a share of its bound; for all together, the relative error.
///
/// The bound is what rounding makes of random numbers. It finds one wrong output among many, but grows with the number of
/// terms. The relative error is small if all outputs are right. It finds outputs that are all a little wrong.
///
/// Storing in f16 rounds by itself. Only an error beyond that counts.
pub fn judge(values: &[f32], answer: &Answer, chain: &Chain, steps: &[Step], report: &mut Report) {
    let recipes: Vec<&Recipe> = steps.iter().map(|step| &step.recipe).collect();
    let [_, dtype] = chain.ends();
    let mut error_norm = 0.0;
    let expected = answer.values.iter().zip(&answer.magnitudes).zip(bounds(answer, chain, &recipes));
    for (&value, ((&expected, &magnitude), bound)) in values.iter().zip(expected) {
        let value = f64::from(value);
        let error = match dtype {
            // Not even where both are infinite.
            _ if value == expected => 0.0,
            DType::F32 => (value - expected).abs(),
            // Half a unit in the last place is at most 2^-11 of a number. The tensors between steps are numbers of at
            // most these magnitudes, carried through the weights.
            DType::F16 => {
                beyond_stores(value, expected, bound, steps.len().saturating_sub(1) as f64 * magnitude / 2048.0)
            }
        };
        report.share_of_bound = worse(report.share_of_bound, error / bound);
        error_norm += error * error;
    }
    report.relative_error = worse(report.relative_error, error_norm.sqrt() / norm(answer));
}

/// The error of an f16 beyond what storing may change: itself, and tensors between the steps before it. `bound` is the
/// most by which the sum may be off.
fn beyond_stores(value: f64, expected: f64, bound: f64, between: f64) -> f64 {
    let largest = expected.abs() + bound + between;
    if value.is_infinite() && DType::F16.nearest(largest.copysign(expected)) == value {
        return 0.0;
    }
    let error = (value - expected).abs() - half_unit(largest) - between;
    // NaN is no small error, which `max` would make of it.
    if error < 0.0 { 0.0 } else { error }
}

/// The largest error that rounding in some steps in a row makes of each output of their chain, if numbers are random:
/// `tolerance * epsilon * magnitude`.
///
/// The errors of a sum whose terms are added one after the other go to either side, so they grow as the square root of
/// the number of terms: half a unit times that (Higham and Mary, "A New Approach to Probabilistic Rounding Error Analysis",
/// SIAM Journal on Scientific Computing 41(5), 2019). Where they all go to one side, as of equal terms, it may be half a unit
/// times the number.
pub fn bounds(answer: &Answer, chain: &Chain, steps: &[&Recipe]) -> Vec<f64> {
    let of_sums: f64 = chain.convolutions().map(|(_, conv)| (conv.fan_in() as f64).sqrt() / 2.0).sum();
    let tolerance: f64 = steps.iter().map(|recipe| recipe.tolerance + EPILOGUE_TOLERANCE).sum();
    let unit = (tolerance + of_sums) * f64::from(f32::EPSILON);
    let spreads = steps.iter().any(|recipe| recipe.spreads_errors);
    let magnitudes = if spreads { largest_of_planes(answer) } else { Cow::from(&answer.magnitudes) };
    magnitudes.iter().map(|magnitude| unit * magnitude.max(f64::from(f32::MIN_POSITIVE))).collect()
}

/// The norm of an answer, by which that of the errors is divided.
pub fn norm(answer: &Answer) -> f64 {
    let squares = answer.values.iter().zip(&answer.terms);
    let squares = squares.map(|(value, terms)| value.abs().max(terms * LEAST_OF_TERMS).powi(2));
    squares.sum::<f64>().max(f64::MIN_POSITIVE).sqrt()
}

/// The larger of two errors. A NaN is worse than any number, which `max` would drop.
fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::INFINITY } else { a.max(b) }
}

/// For each output the largest magnitude of its plane: what the error of kernels that mix neighbours is measured by.
fn largest_of_planes(answer: &Answer) -> Cow<'_, [f64]> {
    let pixels = (answer.shape.pixels() as usize).max(1);
    let largest = |plane: &[f64]| plane.iter().copied().fold(0.0, f64::max);
    answer.magnitudes.chunks(pixels).flat_map(|plane| std::iter::repeat_n(largest(plane), plane.len())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_in_f16_round_by_half_a_unit_and_no_more() {
        let beyond = |value: f64, expected: f64| beyond_stores(value, expected, 1e-6, 0.0);
        // Units between 1 and 2 are 2^-10, and subnormal ones 2^-24.
        let (unit, least) = (2f64.powi(-10), 2f64.powi(-24));
        assert_eq!([beyond(1.0, 1.0 + unit / 2.0), beyond(1.0 + unit, 1.0 + unit / 2.0)], [0.0; 2]);
        assert!((beyond(1.0, 1.0 + 0.6 * unit) - 0.1 * unit).abs() < 1e-12);
        assert_eq!(beyond_stores(0.0, least / 2.0, 1e-12, 0.0), 0.0);
        assert!(beyond_stores(0.0, 0.6 * least, 1e-12, 0.0) > 0.0);
        // Just below a power of two units are half as long, but the sum may have been just above.
        assert_eq!(beyond(1.0, 1.0 - unit / 4.0), 0.0);
        assert!(beyond(1.0, 1.0 - unit / 3.0) > 0.0);
        // 65520 is the first number that becomes infinite.
        let infinity = f64::INFINITY;
        assert_eq!([beyond(infinity, 65520.0), beyond(-infinity, -70000.0), beyond(65504.0, 65519.0)], [0.0; 3]);
        assert_eq!([beyond(infinity, 65519.0), beyond(-infinity, 65520.0)], [infinity; 2]);
        assert!(beyond(65504.0, 65521.0) > 0.0 && beyond(f64::NAN, 1.0).is_nan());
        // A store before this one.
        assert_eq!(beyond_stores(1.0, 1.0 + 0.6 * unit, 1e-6, 0.2 * unit), 0.0);
    }
}
