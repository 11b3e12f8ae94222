//! How a band lies in its tensor, and what copies it if no binding can start there or hold it.

use std::ops::Range;

use super::band::Region;
use crate::kernels::copy::Params;
use crate::model::caps::Caps;
use crate::model::dtype::DType;
use crate::model::shape::{Layout, Shape};
use crate::planner::bands::largest_binding;

/// A tensor as it lies in memory.
#[derive(Clone, Copy, Debug)]
pub struct Whole {
    pub shape: Shape,
    pub layout: Layout,
    pub dtype: DType,
}

/// How a band of a tensor is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// As it lies in the tensor, from this byte on.
    Direct(u64),
    /// Through a copy of it.
    Copied(Vec<Copy>),
}

impl Way {
    /// The dispatches of its copy.
    pub fn copies(&self) -> &[Copy] {
        match self {
            Self::Direct(_) => &[],
            Self::Copied(copies) => copies,
        }
    }

    pub fn is_copied(&self) -> bool {
        matches!(self, Self::Copied(_))
    }
}

/// One dispatch of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The bytes of the tensor that it binds.
    pub window: Range<u64>,
    pub params: Params,
    /// Whether an element is four words.
    pub quads: bool,
}

/// A box of a tensor, its extents in their order in memory.
#[derive(Clone, Copy, Debug)]
struct Piece {
    start: [i64; 4],
    extents: [u32; 4],
}

/// One extent of a copy.
#[derive(Clone, Copy, Debug)]
struct Axis {
    extent: u32,
    whole_stride: u64,
    band_stride: u64,
    least: u32,
    count: u32,
}

impl Whole {
    /// How a region of the tensor is bound; `writes` if it is written.
    pub fn way(&self, region: &Region, writes: bool, caps: &Caps) -> Way {
        let alignment = u64::from(caps.storage_offset_alignment.max(1));
        let (piece, strides) = (self.in_memory(region), self.strides());
        let inside = (0..4).all(|axis| piece.start[axis] >= 0 && piece.end(axis) <= self.extents()[axis].into());
        let outermost = piece.extents.iter().position(|&extent| extent != 1).unwrap_or(3);
        let side_by_side = piece.extents[outermost + 1..] == self.extents()[outermost + 1..];
        if inside && side_by_side {
            let start: u64 = (0..4).map(|axis| piece.start[axis] as u64 * strides[axis]).sum();
            let offset = start * self.dtype.bytes();
            let fits = region.shape().bytes(self.dtype) <= largest_binding(caps);
            if fits && offset.is_multiple_of(alignment) {
                return Way::Direct(offset);
            }
        }
        let mut copies = Vec::new();
        self.copies(piece, &piece, writes, (alignment, largest_binding(caps)), &mut copies);
        Way::Copied(copies)
    }

    /// Copies a piece of a band, in halves where its place in the tensor is larger than a binding.
    fn copies(&self, piece: Piece, band: &Piece, writes: bool, limits: (u64, u64), copies: &mut Vec<Copy>) {
        let window = self.window(&piece, limits.0);
        let halved = piece.extents.iter().position(|&extent| extent > 1);
        match halved {
            Some(axis) if window.end - window.start > limits.1 => {
                let (mut first, mut rest) = (piece, piece);
                first.extents[axis] = piece.extents[axis] / 2;
                rest.extents[axis] -= first.extents[axis];
                rest.start[axis] += i64::from(first.extents[axis]);
                self.copies(first, band, writes, limits, copies);
                self.copies(rest, band, writes, limits, copies);
            }
            _ => copies.push(self.copy(&piece, band, writes, window)),
        }
    }

    fn copy(&self, piece: &Piece, band: &Piece, writes: bool, window: Range<u64>) -> Copy {
        let (strides, band_strides) = (self.strides(), row_major(band.extents));
        let axes: [_; 4] = std::array::from_fn(|axis| {
            let there = self.there(piece, axis);
            Axis {
                extent: piece.extents[axis],
                whole_stride: strides[axis],
                band_stride: band_strides[axis],
                least: (there.start - piece.start[axis]) as u32,
                count: (there.end - there.start) as u32,
            }
        });
        let axes = merged(axes);
        let whole_at: i64 = (0..4).map(|axis| piece.start[axis] * strides[axis] as i64).sum::<i64>()
            - (window.start / self.dtype.bytes()) as i64;
        let band_at: u64 = (0..4).map(|axis| (piece.start[axis] - band.start[axis]) as u64 * band_strides[axis]).sum();
        let run = axes[3];
        let by_four = [run.extent, run.least, run.count].iter().all(|extent| extent.is_multiple_of(4))
            && whole_at % 4 == 0
            && band_at.is_multiple_of(4)
            && axes[..3].iter().all(|axis| axis.whole_stride.is_multiple_of(4) && axis.band_stride.is_multiple_of(4))
            && (window.end - window.start).is_multiple_of(16);
        let unit = if by_four { 4 } else { 1 };
        let extents = [axes[0].extent, axes[1].extent, axes[2].extent, run.extent / unit];
        // What is outside of the tensor is not read; where it would be wraps around.
        let [a, b, c, _] = axes.map(|axis| axis.whole_stride as u32 / unit);
        let whole = [(whole_at / i64::from(unit)) as u32, a, b, c];
        let [a, b, c, _] = axes.map(|axis| axis.band_stride as u32 / unit);
        let band = [band_at as u32 / unit, a, b, c];
        let (reads, writes) = if writes { (band, whole) } else { (whole, band) };
        let least = [axes[0].least, axes[1].least, axes[2].least, run.least / unit];
        let count = [axes[0].count, axes[1].count, axes[2].count, run.count / unit];
        let params = Params { extents, reads, writes, least, count };
        Copy { window, params, quads: by_four }
    }

    /// The bytes between which a piece lies, the part of it that is in the tensor.
    fn window(&self, piece: &Piece, alignment: u64) -> Range<u64> {
        let (strides, element) = (self.strides(), self.dtype.bytes());
        let there: [_; 4] = std::array::from_fn(|axis| self.there(piece, axis));
        if there.iter().any(Range::is_empty) {
            // Something must be bound.
            return 0..self.shape.bytes(self.dtype).min(16);
        }
        let first: u64 = (0..4).map(|axis| there[axis].start as u64 * strides[axis]).sum();
        let last: u64 = (0..4).map(|axis| (there[axis].end - 1) as u64 * strides[axis]).sum();
        first * element / alignment * alignment..(last + 1) * element
    }

    /// What of a piece is in the tensor.
    fn there(&self, piece: &Piece, axis: usize) -> Range<i64> {
        let extent = i64::from(self.extents()[axis]);
        let start = piece.start[axis].clamp(0, extent);
        // Where nothing is there, it is an empty range inside of the piece.
        let end = piece.end(axis).clamp(start, extent.max(start));
        if end <= start { piece.start[axis]..piece.start[axis] } else { start..end }
    }

    fn in_memory(&self, region: &Region) -> Piece {
        let order = order(self.layout);
        Piece { start: order.map(|axis| region.start[axis]), extents: order.map(|axis| region.extents[axis]) }
    }

    fn extents(&self) -> [u32; 4] {
        let extents: [u32; 4] = self.shape.into();
        order(self.layout).map(|axis| extents[axis])
    }

    fn strides(&self) -> [u64; 4] {
        row_major(self.extents())
    }
}

impl Piece {
    fn end(&self, axis: usize) -> i64 {
        self.start[axis] + i64::from(self.extents[axis])
    }
}

/// The extents of a shape, from the outermost in memory.
fn order(layout: Layout) -> [usize; 4] {
    match layout {
        Layout::Nchw => [0, 1, 2, 3],
        Layout::Nhwc => [0, 2, 3, 1],
    }
}

/// Distances of neighbours along each extent, the last of which lie side by side.
fn row_major(extents: [u32; 4]) -> [u64; 4] {
    let [_, b, c, d] = extents.map(u64::from);
    [b * c * d, c * d, d, 1]
}

/// The same box with as few extents as possible: those that lie side by side in both become one.
fn merged(axes: [Axis; 4]) -> [Axis; 4] {
    let one = Axis { extent: 1, whole_stride: 0, band_stride: 0, least: 0, count: 1 };
    let mut found = vec![axes[3]];
    for axis in axes[..3].iter().rev() {
        let inner = &mut found[0];
        let steps = u64::from(inner.extent);
        let is_whole = inner.count == inner.extent;
        if is_whole
            && [axis.whole_stride, axis.band_stride] == [inner.whole_stride, inner.band_stride].map(|s| s * steps)
        {
            inner.least = axis.least * inner.extent;
            inner.count = axis.count * inner.extent;
            inner.extent *= axis.extent;
        } else if axis.extent > 1 || axis.count == 0 {
            found.insert(0, *axis);
        }
    }
    while found.len() < 4 {
        found.insert(0, one);
    }
    [found[0], found[1], found[2], found[3]]
}
