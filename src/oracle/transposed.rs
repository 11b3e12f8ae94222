//! Transposed convolutions.

use super::{Answer, activate, gain};
use crate::model::conv::{Activation, Conv2d};
use crate::model::error::Result;
use crate::model::shape::Shape;
use crate::model::transposed::ConvTranspose2d;
use crate::model::weights::{Weights, length};

/// A transposed convolution on NCHW data, by its definition: each value of the input adds the kernel, times that value.
///
/// # Errors
/// What [`ConvTranspose2d::output_shape`] and [`Weights::check`] say; [`Error::Length`](crate::Error::Length).
pub fn convolve_transposed(
    transposed: &ConvTranspose2d,
    input: &[f64],
    input_shape: impl Into<Shape>,
    weights: Weights<'_>,
) -> Result<Answer> {
    let (input_shape, conv) = (input_shape.into(), &transposed.conv);
    let shape = transposed.output_shape(input_shape)?;
    weights.check(0, conv)?;
    length("input".into(), input_shape.len(), input.len())?;

    let pixels = shape.pixels() as usize;
    let bias = |plane: usize| weights.bias.map_or(0.0, |bias| f64::from(bias[plane % shape.channels as usize]));
    let mut sums: Vec<_> = (0..shape.len() as usize).map(|at| (bias(at / pixels), bias(at / pixels).abs())).collect();
    let (group_in, group_out) = (conv.group_in_channels(), conv.group_out_channels());
    for (at, &value) in input.iter().enumerate() {
        let (plane, pixel) = (at / input_shape.pixels() as usize, at % input_shape.pixels() as usize);
        let [image, channel] = [plane / input_shape.channels as usize, plane % input_shape.channels as usize];
        let [y, x] = [pixel / input_shape.width as usize, pixel % input_shape.width as usize].map(|place| place as i64);
        let group = channel / group_in as usize;
        for of_group in 0..group_out as usize {
            let out_plane = image * shape.channels as usize + group * group_out as usize + of_group;
            let kernel = channel * group_out as usize + of_group;
            for [row, column] in taps(conv) {
                let out_y =
                    y * i64::from(conv.stride[0]) + i64::from(row * conv.dilation[0]) - i64::from(conv.padding[0]);
                let out_x =
                    x * i64::from(conv.stride[1]) + i64::from(column * conv.dilation[1]) - i64::from(conv.padding[1]);
                if !(0..i64::from(shape.height)).contains(&out_y) || !(0..i64::from(shape.width)).contains(&out_x) {
                    continue;
                }
                let weight_row = kernel * conv.kernel_size[0] as usize + row as usize;
                let weight = weights.weight[weight_row * conv.kernel_size[1] as usize + column as usize];
                let term = value * f64::from(weight);
                let (sum, magnitude) =
                    &mut sums[out_plane * pixels + out_y as usize * shape.width as usize + out_x as usize];
                *sum += term;
                *magnitude += term.abs();
            }
        }
    }
    let values: Vec<_> = sums.iter().map(|(sum, _)| activate(conv.activation, *sum)).collect();
    // An activation may give more than it takes. Then its output counts as a term.
    let taken = sums.iter().map(|(_, magnitude)| magnitude * gain(conv.activation));
    let magnitudes: Vec<_> = taken.zip(&values).map(|(taken, value)| taken.max(value.abs())).collect();
    Ok(Answer { values, terms: magnitudes.clone(), magnitudes, shape, is_stored_exactly: true })
}

/// Rows and columns of a kernel.
fn taps(conv: &Conv2d) -> impl Iterator<Item = [u32; 2]> + use<> {
    let [rows, columns] = conv.kernel_size;
    (0..rows).flat_map(move |row| (0..columns).map(move |column| [row, column]))
}

/// Carries the magnitudes of a link's input through its weights.
pub fn spread(own: &ConvTranspose2d, magnitudes: &[f64], shape: Shape, weights: Weights<'_>) -> Result<Vec<f64>> {
    let bare = own.clone().bias(false).activation(Activation::None);
    let weight: Vec<_> = weights.weight.iter().map(|w| w.abs()).collect();
    Ok(convolve_transposed(&bare, magnitudes, shape, Weights::without_bias(&weight))?.values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(own: ConvTranspose2d, input: &[f64], shape: [u32; 4], weight: &[f32]) -> Answer {
        convolve_transposed(&own.bias(false), input, shape, Weights::without_bias(weight)).unwrap()
    }

    #[test]
    fn transposed_convolutions_worked_out_by_hand() {
        let row = |kernel: u32| ConvTranspose2d::new(1, 1, [1, kernel]);
        let three = [1.0, 10.0, 100.0];
        assert_eq!(answer(row(3), &[1.0, 2.0], [1, 1, 1, 2], &three).values, [1.0, 12.0, 120.0, 200.0]);
        let apart = row(3).stride([1, 3]);
        assert_eq!(answer(apart, &[1.0, 2.0], [1, 1, 1, 2], &three).values, [1.0, 10.0, 100.0, 2.0, 20.0, 200.0]);
        let padded = row(3).stride([1, 2]).padding([0, 1]).output_padding([0, 1]);
        let values = answer(padded, &[1.0, 2.0], [1, 1, 1, 2], &three);
        assert_eq!((values.values, values.shape), (vec![10.0, 102.0, 20.0, 200.0], [1, 1, 1, 4].into()));
        let dilated = row(2).dilation([1, 2]);
        assert_eq!(answer(dilated, &[1.0, 2.0], [1, 1, 1, 2], &[1.0, 10.0]).values, [1.0, 2.0, 10.0, 20.0]);
    }

    /// The weights are in the order of input channels.
    #[test]
    fn groups_worked_out_by_hand() {
        let own = ConvTranspose2d::new(4, 6, 1).groups(2);
        let weight: Vec<f32> = (1..=12).map(|weight| weight as f32).collect();
        let values = answer(own, &[1.0, 10.0, 100.0, 1000.0], [1, 4, 1, 1], &weight).values;
        assert_eq!(values, [41.0, 52.0, 63.0, 10700.0, 11800.0, 12900.0]);
    }
}
