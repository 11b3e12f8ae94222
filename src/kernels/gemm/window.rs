//! The input under the kernel of an output, or of some neighbours in a row, for sources that find its rows and columns
//! once for all k. Of those that can never lie in the padding none is checked, and their addresses differ by constants.

use std::collections::BTreeSet;

use crate::model::conv::Conv2d;

/// Beyond this many rows of a kernel, drivers keep too many of their values in registers where they are written out.
pub const MOST_ROWS: u32 = 3;
/// Beyond this the taps of a quad no longer fit into registers beside a product's sums.
pub const MOST_TAPS: u64 = 49;

/// Rows or columns of the input under the kernels of some neighbours, counted from the first.
pub struct Lines {
    pub all: BTreeSet<u32>,
    /// Those that can lie in the padding, or behind the end of a row of outputs that is filled up.
    pub padded: BTreeSet<u32>,
    /// Those of them that an output which is none of those filled up can see.
    pub zeroed: BTreeSet<u32>,
}

impl Lines {
    /// The rows under `neighbours` outputs in a column, on an input of some height. Columns of the output are filled up
    /// to whole neighbours.
    pub fn rows(link: &Conv2d, height: u32, neighbours: u32) -> Self {
        Self::along(0, link, height, neighbours)
    }

    /// The columns under `neighbours` outputs in a row, on an input of some width. Rows of the output are filled up to
    /// whole neighbours.
    pub fn columns(link: &Conv2d, width: u32, neighbours: u32) -> Self {
        Self::along(1, link, width, neighbours)
    }

    /// Columns that may be anywhere.
    pub fn unknown(all: BTreeSet<u32>) -> Self {
        Self { padded: all.clone(), zeroed: all.clone(), all }
    }

    fn along(axis: usize, link: &Conv2d, extent: u32, neighbours: u32) -> Self {
        let (stride, [before, behind]) = (link.stride[axis], [link.padding[axis], link.padding[axis + 2]]);
        let reach = link.dilation[axis].saturating_mul(link.kernel_size[axis].saturating_sub(1)).saturating_add(1);
        let steps = extent.saturating_add(before).saturating_add(behind).saturating_sub(reach);
        let outputs = steps / stride + 1;
        let filled = (outputs.next_multiple_of(neighbours) - outputs) * stride;
        // At a stride the last kernel may end before the padding does. Only the first lines can lie before the image,
        // and only the last behind it.
        let outside = (filled + behind).saturating_sub(steps % stride);
        let all = seen(axis, link, neighbours);
        let last = all.last().copied().unwrap_or(0);
        let among = |is_outside: &dyn Fn(u32) -> bool| {
            all.iter().copied().filter(|line| *line < before || is_outside(last - line)).collect()
        };
        // With much padding those before the last ones see some of it as well, all of whose outputs are stored.
        let is_zeroed = |from_last: u32| {
            (filled..outside).contains(&from_last) || from_last.saturating_add(neighbours * stride) < outside
        };
        Self { padded: among(&|from_last| from_last < outside), zeroed: among(&is_zeroed), all }
    }
}

/// The columns of the input under `neighbours` outputs in a row.
pub fn columns_seen(link: &Conv2d, neighbours: u32) -> BTreeSet<u32> {
    seen(1, link, neighbours)
}

fn seen(axis: usize, link: &Conv2d, neighbours: u32) -> BTreeSet<u32> {
    let [stride, dilation] = [link.stride[axis], link.dilation[axis]];
    let taps = move |output: u32| (0..link.kernel_size[axis]).map(move |tap| output * stride + tap * dilation);
    (0..neighbours).flat_map(taps).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_checked_lies_in_the_image_and_what_is_checked_need_not() {
        let (mut seen, mut padded) = (0, 0);
        let sizes = (1..=20).flat_map(|width| (1..=5).flat_map(move |kernel| (1..=3).map(move |s| (width, kernel, s))));
        for ((width, kernel, stride), block) in sizes.flat_map(|size| [4, 8].map(|block| (size, block))) {
            for (dilation, left, right) in [(1, 0, 0), (1, 1, 1), (2, 0, 3), (1, 4, 1), (2, 3, 2)] {
                let conv = Conv2d::depthwise(1, [1, kernel]).stride([1, stride]).dilation([1, dilation]);
                let conv = conv.padding([0, left, 0, right]);
                let Ok(output) = conv.output_shape([1, 1, 1, width]) else { continue };
                let outputs = output.width.next_multiple_of(block);
                let columns = Lines::columns(&conv, width, block);
                let is_outside = |first: u32, column: u32| {
                    !(0..i64::from(width)).contains(&(i64::from(first * stride + column) - i64::from(left)))
                };
                let sees = |output: u32, column: u32| (0..kernel).any(|tap| output * stride + tap * dilation == column);
                for &column in &columns.all {
                    let firsts = || (0..outputs).step_by(block as usize).filter(|&first| is_outside(first, column));
                    let is_seen = |first: u32| (first..output.width).any(|output| sees(output - first, column));
                    if !columns.padded.contains(&column) {
                        assert_eq!(firsts().count(), 0, "{conv:?} on {width}: column {column}");
                    }
                    if !columns.zeroed.contains(&column) {
                        assert!(!firsts().any(is_seen), "{conv:?} on {width}: column {column} is seen");
                    }
                    seen += 1;
                    // With a kernel that is wider than a stride, the last column before the edge is seen.
                    padded += usize::from(columns.padded.contains(&column) && firsts().count() > 0);
                }
            }
        }
        assert!(seen > 1000 && padded > 1000, "{seen} columns, {padded} of them in the padding");
    }

    #[test]
    fn a_stride_may_leave_padding_unseen() {
        let conv = Conv2d::depthwise(1, [3, 3]).stride([2, 2]).padding([1; 4]);
        let sets = |lines: Lines| [lines.padded, lines.zeroed].map(|set| set.into_iter().collect::<Vec<_>>());
        // Columns -1 to 7 of eight, and then of seven.
        assert_eq!(sets(Lines::columns(&conv, 8, 4)), [vec![0], vec![0]]);
        assert_eq!(sets(Lines::columns(&conv, 7, 4)), [vec![0, 8], vec![0, 8]]);
        // Seven outputs of fourteen are filled up to eight, which sees two columns more.
        assert_eq!(sets(Lines::columns(&conv, 14, 4)), [vec![0, 7, 8], vec![0]]);
    }
}
