//! The weights of a convolution cut along its input channels, and the grouped convolution that they are the weights of.

use crate::model::conv::{Activation, Conv2d};

/// Channels that a slice has a multiple of where channels do not divide evenly: no product has deeper tiles that go tap
/// by tap, so only the last slice is filled up.
const TILE_DEPTH: u32 = 16;

/// Input channels of a slice. The last one may have fewer.
fn channels(conv: &Conv2d, slices: u32) -> u32 {
    let each = conv.in_channels.div_ceil(slices);
    if conv.in_channels.is_multiple_of(slices) { each } else { each.next_multiple_of(TILE_DEPTH) }
}

/// The convolution whose groups are slices of the input channels, as many as asked for or fewer; its outputs are the
/// slices' sums, `[slice][channel]`. Behind the last channel it has others, whose weights are zero.
pub fn product(conv: &Conv2d, slices: u32) -> Conv2d {
    let each = channels(conv, slices);
    let count = conv.in_channels.div_ceil(each);
    let (in_channels, out_channels) = (each.saturating_mul(count), conv.out_channels.saturating_mul(count));
    let sums = Conv2d { in_channels, out_channels, ..conv.clone() }.groups(count);
    sums.bias(false).activation(Activation::None).residual(None)
}

/// The weights of that convolution, `[slice][output channel][input channel of the slice][tap]`.
pub fn weights(conv: &Conv2d, weight: &[f32], slices: u32) -> Vec<f32> {
    let row = conv.fan_in() as usize;
    let part = product(conv, slices).fan_in() as usize;
    let of_row = |row: &[f32], first: usize| {
        let mut own = row[first..row.len().min(first + part)].to_vec();
        own.resize(part, 0.0);
        own
    };
    (0..row).step_by(part).flat_map(|first| weight.chunks_exact(row).flat_map(move |row| of_row(row, first))).collect()
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

    #[test]
    fn the_last_slice_is_filled_up_with_zeros() {
        let conv = Conv2d::new(37, 2, [1, 2]);
        let weight: Vec<f32> = (1..=148).map(|value| value as f32).collect();
        let product = product(&conv, 4);
        assert_eq!([product.groups, product.group_in_channels(), product.group_out_channels()], [3, 16, 2]);
        let sliced = weights(&conv, &weight, 4);
        assert_eq!(sliced.len() as u64, product.weight_shape().len());
        // The third slice has channels 32 to 36 of each filter, two taps each.
        let last = |first: usize| [&weight[first..first + 10], &[0.0; 22]].concat();
        assert_eq!(sliced[128..], [last(64), last(138)].concat());
        assert_eq!(sliced[32..64], weight[74..106]);
    }
}
