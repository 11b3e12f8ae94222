//! PReLU.

use super::Answer;
use crate::model::error::Result;
use crate::model::prelu::PRelu;
use crate::model::shape::Shape;
use crate::model::weights::{Weights, length};

/// PReLU on NCHW data. The weights are a slope for each channel.
///
/// # Errors
/// What [`PRelu::output_shape`] and [`Weights::check`] say; [`Error::Length`](crate::Error::Length).
pub fn prelu(own: &PRelu, input: &[f64], input_shape: impl Into<Shape>, weights: Weights<'_>) -> Result<Answer> {
    let shape = own.output_shape(input_shape.into())?;
    weights.check(0, &own.conv)?;
    length("input".into(), shape.len(), input.len())?;
    let slope = |at: usize| weights.weight[at / shape.pixels() as usize % shape.channels as usize];
    let value = |(at, &value): (usize, &f64)| if value > 0.0 { value } else { f64::from(slope(at)) * value };
    let values: Vec<_> = input.iter().enumerate().map(value).collect();
    let terms: Vec<_> = values.iter().map(|value| value.abs()).collect();
    Ok(Answer { values, magnitudes: terms.clone(), terms, shape, is_stored_exactly: true })
}

/// Carries the magnitudes of a link's input through the slopes, or past them.
pub fn spread(own: &PRelu, magnitudes: &[f64], shape: Shape, weights: Weights<'_>) -> Result<Vec<f64>> {
    let steepest: Vec<_> = weights.weight.iter().map(|slope| slope.abs().max(1.0)).collect();
    let negative: Vec<_> = magnitudes.iter().map(|magnitude| -magnitude).collect();
    Ok(prelu(own, &negative, shape, Weights::without_bias(&steepest))?.magnitudes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_channel_has_its_slope() {
        let slopes = Weights::without_bias(&[0.5, -2.0]);
        let answer = prelu(&PRelu::new(2), &[1.0, -4.0, 3.0, -1.0], [1, 2, 1, 2], slopes).unwrap();
        assert_eq!(answer.values, [1.0, -2.0, 3.0, 2.0]);
        let carried = spread(&PRelu::new(2), &[1.0; 4], [1, 2, 1, 2].into(), slopes).unwrap();
        assert_eq!(carried, [1.0, 1.0, 2.0, 2.0]);
    }
}
