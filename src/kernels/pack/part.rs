//! The part of a link's kernel that is packed, where the kernel's shader has no use for the whole.

use std::borrow::Cow;

use super::by_output_channels;
use crate::model::conv::Conv2d;

/// A kernel without some of its outer rows and columns. It is small, since a planner holds thousands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KernelPart {
    /// Rows and columns left out at the top and the left.
    pub before: [u16; 2],
    /// Rows and columns left out at the bottom and the right.
    pub behind: [u16; 2],
    /// Whether the link is a transposed convolution of stride 1. The part is then of the plain convolution that gives
    /// the same, whose kernel is upside down.
    pub is_transposed: bool,
}

impl KernelPart {
    /// The convolution with the part for a kernel, as far as its weights are concerned.
    pub fn conv(&self, conv: &Conv2d) -> Conv2d {
        let left = |axis: usize| conv.kernel_size[axis] - u32::from(self.before[axis]) - u32::from(self.behind[axis]);
        Conv2d { kernel_size: [left(0), left(1)], ..conv.clone() }
    }

    /// Its weights, of those of the link.
    pub fn weights<'a>(&self, conv: &Conv2d, weight: &'a [f32]) -> Cow<'a, [f32]> {
        let mut plain = Cow::Borrowed(weight);
        let [width, rows, columns] =
            [conv.kernel_size[1], self.conv(conv).kernel_size[0], self.conv(conv).kernel_size[1]].map(|n| n as usize);
        let taps = width * conv.kernel_size[0] as usize;
        if self.is_transposed {
            let mut turned = by_output_channels(conv, weight);
            turned.chunks_exact_mut(taps).for_each(<[f32]>::reverse);
            plain = Cow::Owned(turned);
        }
        if rows * columns == taps {
            return plain;
        }
        let [row, column] = self.before.map(usize::from);
        let starts = |kernel: usize| (row..row + rows).map(move |row| kernel * taps + row * width + column);
        let kernels = 0..plain.len() / taps;
        kernels.flat_map(starts).flat_map(|start| plain[start..start + columns].iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns_of_each_kernel() {
        let conv = Conv2d::new(1, 2, [3, 2]);
        let weight: Vec<f32> = (0..12).map(|value| value as f32).collect();
        let part = KernelPart { before: [1, 1], ..KernelPart::default() };
        assert_eq!(part.weights(&conv, &weight), [3., 5., 9., 11.].as_slice());
        assert_eq!(part.conv(&conv).weight_shape().len(), 4);
        assert_eq!(KernelPart::default().weights(&conv, &weight), weight.as_slice());
    }

    #[test]
    fn kernels_of_transposed_convolutions_are_turned() {
        // Two input channels, one output channel, two groups: `[input][output of the group][tap]`.
        let weight: Vec<f32> = (0..12).map(|value| value as f32).collect();
        let grouped = Conv2d::new(2, 2, [1, 6]).groups(2);
        let part = KernelPart { before: [0, 3], behind: [0, 1], is_transposed: true };
        assert_eq!(part.weights(&grouped, &weight), [2., 1., 8., 7.].as_slice());
        // Two input and three output channels, one group.
        let dense = Conv2d::new(2, 3, [1, 2]);
        let turned = KernelPart { is_transposed: true, ..KernelPart::default() };
        assert_eq!(turned.weights(&dense, &weight), [1., 0., 7., 6., 3., 2., 9., 8., 5., 4., 11., 10.].as_slice());
    }
}
