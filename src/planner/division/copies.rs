//! How a band lies in its tensor, and what copies it if no binding can start there or hold it.

use std::ops::Range;

use super::band::Region;
use crate::kernels::copy::{Params, Unit};
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
    /// What is copied at a time.
    pub unit: Unit,
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
        let is_whole = |unit: &Unit| {
            let elements = unit.elements(self.dtype);
            let distances = axes[..3].iter().flat_map(|axis| [axis.whole_stride, axis.band_stride]);
            elements > 0
                && [run.extent, run.least, run.count].iter().all(|extent| extent.is_multiple_of(elements))
                && whole_at % i64::from(elements) == 0
                && distances.chain([band_at]).all(|distance| distance.is_multiple_of(elements.into()))
                && (window.end - window.start).is_multiple_of(unit.bytes())
        };
        // The smallest is an element.
        let smallest = if self.dtype.bytes() == 2 { Unit::Half } else { Unit::Word };
        let copied = Unit::ALL.into_iter().find(is_whole).unwrap_or(smallest);
        let unit = copied.elements(self.dtype);
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
        Copy { window, params, unit: copied }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Does to memory what `copy.wgsl` does, in elements; `source` and `destination` are what is bound.
    fn run(copy: &Copy, dtype: DType, source: &[u32], destination: &mut [u32]) {
        let unit = copy.unit.elements(dtype) as usize;
        let Params { extents, reads, writes, least, count } = copy.params;
        let at = |start: [u32; 4], place: [u32; 3]| {
            let outer = (0..3).map(|axis| place[axis].wrapping_mul(start[axis + 1]));
            outer.fold(start[0], u32::wrapping_add)
        };
        let is_there = |axis: usize, place: u32| place.wrapping_sub(least[axis]) < count[axis];
        for run in 0..extents[0] * extents[1] * extents[2] {
            let plane = run / extents[2];
            let place = [plane / extents[1], plane % extents[1], run % extents[2]];
            let [from, to] = [at(reads, place), at(writes, place)];
            for element in 0..extents[3] {
                let inside = (0..3).all(|axis| is_there(axis, place[axis])) && is_there(3, element);
                for part in 0..unit {
                    let index = |start: u32| start.wrapping_add(element) as usize * unit + part;
                    destination[index(to)] = if inside { source[index(from)] } else { 0 };
                }
            }
        }
    }

    /// Numbers that are the same in every run.
    fn draw(seed: &mut u64, below: u64) -> u64 {
        *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*seed >> 33) % below
    }

    /// A tensor's elements by their place, in PyTorch's order of extents; none outside.
    fn index(whole: &Whole, place: [i64; 4]) -> Option<usize> {
        let extents: [u32; 4] = whole.shape.into();
        let inside = (0..4).all(|axis| (0..i64::from(extents[axis])).contains(&place[axis]));
        let (order, strides) = (order(whole.layout), whole.strides());
        inside.then(|| (0..4).map(|axis| place[order[axis]] as usize * strides[axis] as usize).sum())
    }

    /// All places of a region, in the order of its elements in memory.
    fn places(region: &Region, layout: Layout) -> Vec<[i64; 4]> {
        let order = order(layout);
        let extents = order.map(|axis| i64::from(region.extents[axis]));
        let count: i64 = extents.iter().product();
        let place = |mut at: i64| {
            let mut place = region.start;
            for axis in (0..4).rev() {
                place[order[axis]] += at % extents[axis];
                at /= extents[axis];
            }
            place
        };
        (0..count).map(place).collect()
    }

    #[test]
    fn any_region_is_copied_through_any_window() {
        let (mut seed, mut several, mut direct, mut units) = (1, 0, 0, [[0; 3]; 2]);
        for number in 0..8000 {
            let dtype = DType::ALL[number % 2];
            let extents = [3, 5, 9, 9].map(|most| 1 + draw(&mut seed, most) as u32);
            // Often multiples of four.
            let extents = if draw(&mut seed, 2) == 0 { extents } else { [extents[0], 4, extents[2], 8] };
            let layout = [Layout::Nchw, Layout::Nhwc][draw(&mut seed, 2) as usize];
            let whole = Whole { shape: extents.into(), layout, dtype };
            let writes = draw(&mut seed, 2) == 0;
            let mut region = Region { start: [0; 4], extents };
            for (axis, &extent) in extents.iter().enumerate() {
                if draw(&mut seed, 2) == 0 {
                    let first = draw(&mut seed, extent.into()) as u32;
                    let count = 1 + draw(&mut seed, u64::from(extent - first)) as u32;
                    (region.start[axis], region.extents[axis]) = (first.into(), count);
                }
                // Padding of rows and columns, also nothing but padding.
                if axis >= 2 && !writes && draw(&mut seed, 3) == 0 {
                    let before = draw(&mut seed, 4) as u32;
                    region.start[axis] -= i64::from(before);
                    region.extents[axis] = 1 + draw(&mut seed, u64::from(region.extents[axis] + before + 3)) as u32;
                }
            }
            let alignment = [4, 32, 256][draw(&mut seed, 3) as usize];
            let largest = 4 * (64 + draw(&mut seed, 400));
            let caps = Caps { max_storage_binding: largest, storage_offset_alignment: alignment, ..Caps::webgpu() };
            let what = format!("{region:?} of {whole:?}, {largest} bytes from multiples of {alignment}");
            let memory: Vec<u32> = (1..=whole.shape.len() as u32).collect();
            let places = places(&region, layout);
            let expected: Vec<u32> =
                places.iter().map(|&place| index(&whole, place).map_or(0, |at| memory[at])).collect();
            let copies = match whole.way(&region, writes, &caps) {
                Way::Direct(offset) => {
                    direct += 1;
                    let first = (offset / dtype.bytes()) as usize;
                    assert!(offset.is_multiple_of(alignment.into()), "{what}");
                    assert_eq!(memory[first..first + places.len()], expected, "{what}");
                    continue;
                }
                Way::Copied(copies) => copies,
            };
            several += usize::from(copies.len() > 1);
            copies.iter().for_each(|copy| units[number % 2][copy.unit as usize] += 1);
            let (mut band, mut written) = (vec![u32::MAX; places.len()], vec![u32::MAX; memory.len()]);
            for copy in &copies {
                let window = [copy.window.start, copy.window.end].map(|byte| (byte / dtype.bytes()) as usize);
                let window = window[0]..window[1];
                assert!(copy.window.start.is_multiple_of(alignment.into()), "{what}");
                assert!(copy.window.end - copy.window.start <= largest, "{what}");
                match writes {
                    true => run(copy, dtype, &expected, &mut written[window]),
                    false => run(copy, dtype, &memory[window], &mut band),
                }
            }
            if writes {
                let mut right = vec![u32::MAX; memory.len()];
                places.iter().filter_map(|&place| index(&whole, place)).for_each(|at| right[at] = memory[at]);
                assert_eq!(written, right, "{what}");
            } else {
                assert_eq!(band, expected, "{what}");
            }
        }
        assert!(several > 300 && direct > 300, "{several} in several, {direct} direct");
        // An f32 is no half.
        let [[quads, words, halves], of_halves] = units;
        assert!(quads > 300 && words > 300 && halves == 0, "{units:?}");
        assert!(of_halves.iter().all(|&count| count > 100), "{units:?}");
    }
}
