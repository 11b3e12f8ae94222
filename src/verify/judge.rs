//! Judges a step's outputs on random numbers.

use std::borrow::Cow;

use crate::oracle::Answer;
use crate::planner::{Recipe, Step};

use super::Report;

/// Roundings that a kernel's tolerance does not count: those of the bias, the residual, and an activation that is not
/// piecewise linear.
const EPILOGUE_TOLERANCE: f64 = 4.0;
/// Terms may cancel to a sum far smaller than its own rounding error. So in the norm of the answer an output counts with
/// at least this share of the magnitudes of its terms.
const LEAST_OF_TERMS: f64 = 1.0 / 64.0;

/// Compares the outputs of a step, or of several in a row, with the oracle's answer on the same inputs. For each output, its
/// error as a share of its bound; for all together, the relative error.
///
/// The bound is the worst that rounding can do. It finds one wrong output among many, but grows with the number of terms.
/// The relative error is small if all outputs are right. It finds outputs that are all a little wrong.
pub fn judge(values: &[f32], answer: &Answer, steps: &[Step], report: &mut Report) {
    let recipes: Vec<&Recipe> = steps.iter().map(|step| &step.recipe).collect();
    let mut error_norm = 0.0;
    for ((&value, expected), bound) in values.iter().zip(&answer.values).zip(bounds(answer, &recipes)) {
        let error = (f64::from(value) - expected).abs();
        report.share_of_bound = worse(report.share_of_bound, error / bound);
        error_norm += error * error;
    }
    report.relative_error = worse(report.relative_error, error_norm.sqrt() / norm(answer));
}

/// The largest error that rounding in some steps in a row can make of each output: `tolerance * epsilon * magnitude`.
pub fn bounds(answer: &Answer, steps: &[&Recipe]) -> Vec<f64> {
    let tolerance: f64 = steps.iter().map(|recipe| recipe.tolerance + EPILOGUE_TOLERANCE).sum();
    let unit = tolerance * f64::from(f32::EPSILON);
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
