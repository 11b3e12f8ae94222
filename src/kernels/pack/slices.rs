//! The weights of a convolution cut along its input channels, and the grouped convolution that they are the weights of.

use crate::model::conv::{Activation, Conv2d};

/// The convolution whose groups are slices of the input channels; its outputs are the slices' sums, `[slice][channel]`.
pub fn product(conv: &Conv2d, slices: u32) -> Conv2d {
    let out_channels = conv.out_channels.saturating_mul(slices);
    Conv2d { out_channels, ..conv.clone() }.groups(slices).bias(false).activation(Activation::None).residual(None)
}

/// The weights of that convolution, `[slice][output channel][input channel of the slice][tap]`.
pub fn weights(conv: &Conv2d, weight: &[f32], slices: u32) -> Vec<f32> {
    let row = conv.fan_in() as usize;
    let part = row / slices as usize;
    let slice = |slice: usize| weight.chunks_exact(row).flat_map(move |row| &row[slice * part..(slice + 1) * part]);
    (0..slices as usize).flat_map(slice).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_has_its_channels_of_every_filter() {
        let conv = Conv2d::new(4, 2, [1, 2]);
        let weight: Vec<f32> = (0..16).map(|value| value as f32).collect();
        let sliced = weights(&conv, &weight, 2);
        assert_eq!(sliced, [0., 1., 2., 3., 8., 9., 10., 11., 4., 5., 6., 7., 12., 13., 14., 15.]);
        assert_eq!(product(&conv, 2).weight_shape().len(), conv.weight_shape().len());
    }
}
