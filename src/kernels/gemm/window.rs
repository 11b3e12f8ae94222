//! The input under the kernel of an output, or of some neighbours in a row, for sources that find its rows and columns
//! once for all k. Of those that can never lie in the padding none is checked, and their addresses differ by constants.

use std::collections::BTreeSet;

use crate::model::conv::Conv2d;

/// Beyond this many rows of a kernel, drivers keep too many of their values in registers where they are written out.
pub const MOST_ROWS: u32 = 3;
/// Beyond this the taps of a quad no longer fit into registers beside a product's sums.
pub const MOST_TAPS: u64 = 49;

/// Rows or columns of the input under the kernel, counted from the first.
pub struct Lines {
    pub all: BTreeSet<u32>,
    /// Those that can lie in the padding, or behind the end of a row that is filled up.
    pub padded: BTreeSet<u32>,
}

impl Lines {
    /// The rows under `neighbours` outputs in a column. Columns of the output are filled up with `filled` more.
    pub fn rows(link: &Conv2d, neighbours: u32, filled: u32) -> Self {
        Self::along(0, link, neighbours, filled)
    }

    /// The columns under `neighbours` outputs in a row. Rows of the output are filled up with `filled` more.
    pub fn columns(link: &Conv2d, neighbours: u32, filled: u32) -> Self {
        Self::along(1, link, neighbours, filled)
    }

    fn along(axis: usize, link: &Conv2d, neighbours: u32, filled: u32) -> Self {
        let [stride, dilation] = [link.stride[axis], link.dilation[axis]];
        let taps = move |output: u32| (0..link.kernel_size[axis]).map(move |tap| output * stride + tap * dilation);
        let lines = (0..neighbours).flat_map(taps);
        Self::new(lines.collect(), link.padding[axis], link.padding[axis + 2] + filled * stride)
    }

    /// Only the first lines can lie before the image, and only the last behind it.
    fn new(all: BTreeSet<u32>, before: u32, behind: u32) -> Self {
        let last = all.last().copied().unwrap_or(0);
        let padded = all.iter().copied().filter(|line| *line < before || last - line < behind).collect();
        Self { all, padded }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_are_not_checked_lie_in_the_image() {
        let mut seen = 0;
        let sizes = (1..=20).flat_map(|width| (1..=5).flat_map(move |kernel| (1..=3).map(move |s| (width, kernel, s))));
        for ((width, kernel, stride), block) in sizes.flat_map(|size| [4, 8].map(|block| (size, block))) {
            for (dilation, left, right) in [(1, 0, 0), (1, 1, 1), (2, 0, 3), (1, 4, 1), (2, 3, 2)] {
                let conv = Conv2d::depthwise(1, [1, kernel]).stride([1, stride]).dilation([1, dilation]);
                let conv = conv.padding([0, left, 0, right]);
                let Ok(output) = conv.output_shape([1, 1, 1, width]) else { continue };
                let padded = output.width.next_multiple_of(block);
                let columns = Lines::columns(&conv, block, padded - output.width);
                for column in columns.all.difference(&columns.padded) {
                    for first in (0..padded).step_by(block as usize) {
                        let x = i64::from(first * stride + column) - i64::from(left);
                        assert!((0..i64::from(width)).contains(&x), "{conv:?} on {width}: column {column} of {first}");
                        seen += 1;
                    }
                }
            }
        }
        assert!(seen > 1000, "{seen} columns were seen");
    }
}
