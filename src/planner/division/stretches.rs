//! Where a chain is cut into stretches, and how large the bands of each are: what moves the fewest bytes, by dynamic
//! programming.

use std::ops::Range;

use super::band::{Band, Extents, Links, is_dense, is_heavy, weights_bytes};
use super::copies::{Way, Whole};
use super::reach::Reach;
use crate::model::caps::Caps;
use crate::model::chain::{Chain, Link};
use crate::model::cost::mult_adds_of;
use crate::model::dtype::DType;
use crate::model::error::{Error, Result};
use crate::model::shape::{Layout, Shape};
use crate::planner::bands::{largest_binding, step};

/// More bands than these are not tried.
pub(super) const MOST_BANDS: u64 = 1 << 16;
/// More links than these are not computed band by band together: the window of the last grows with each.
const MOST_LINKS: usize = 8;
/// Multiply-adds that count as much as a byte.
const MULT_ADDS_PER_BYTE: f64 = 8.0;
/// Bytes that count as much as a dispatch.
const BYTES_PER_DISPATCH: f64 = 65536.0;
/// Moves of a byte that count as much as a byte of memory that is taken.
const MOVES_PER_BYTE_TAKEN: f64 = 0.25;
/// Bands are at least this part of a binding, where that is cheaper.
pub(super) const SMALLEST_SHARE: u64 = 4;

/// Where a band is taken from or put to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A tensor of the chain.
    Tensor(usize),
    /// The residual from outside.
    Residual,
    /// The scale from outside.
    Scale,
    /// The sums of parts of planes, of a pool.
    Sums {
        /// The pool.
        link: usize,
        /// A pixel for each part.
        shape: Shape,
    },
}

impl Source {
    /// Its type, in a chain of one.
    pub fn dtype(self, of_chain: DType) -> DType {
        if matches!(self, Self::Sums { .. }) { DType::F32 } else { of_chain }
    }
}

/// A stretch and its bands.
#[derive(Clone, Debug)]
pub struct Stretch {
    pub links: Range<usize>,
    /// The links as they are computed, and the shapes of their tensors.
    pub own: Vec<Link>,
    pub shapes: Vec<Shape>,
    pub from: Source,
    pub to: Source,
    pub extents: Extents,
    pub whole: Extents,
    pub bands: Vec<Band>,
    /// Edges inside of it, from a tensor of its own to a link of its own.
    pub inside: Vec<(usize, usize)>,
    /// The link of its own that adds what is outside of it, and what that is.
    pub residual: Option<(usize, Source)>,
    /// What its first link multiplies its input by.
    pub scale: Option<Source>,
}

/// A chain on an input, for a device.
pub struct Subject<'a> {
    pub chain: &'a Chain,
    pub shapes: &'a [Shape],
    pub layout: Layout,
    pub caps: &'a Caps,
}

impl<'a> Subject<'a> {
    /// The cheapest stretches.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if a tensor that must be in memory is larger than a buffer, or the smallest band than a
    /// binding.
    pub fn stretches(&self) -> Result<Vec<Stretch>> {
        self.check_buffers()?;
        let count = self.chain.links().len();
        let mut best: Vec<Option<(f64, Vec<Stretch>)>> = vec![None; count + 1];
        best[0] = Some((0.0, Vec::new()));
        for first in 0..count {
            let Some((before, path)) = best[first].clone() else { continue };
            for (end, so_far) in best.iter_mut().enumerate().skip(first + 1) {
                let Some((cost, stretch)) = self.stretch(first..end) else { continue };
                if so_far.as_ref().is_none_or(|(known, _)| before + cost < *known) {
                    *so_far = Some((before + cost, [&path[..], &stretch].concat()));
                }
            }
        }
        best.pop().flatten().map(|(_, path)| path).ok_or_else(|| self.too_large())
    }

    /// The whole chain as one stretch.
    pub fn as_one(&self) -> Option<Vec<Stretch>> {
        self.check_buffers().ok()?;
        self.stretch(0..self.chain.links().len()).map(|(_, stretch)| stretch)
    }

    /// Each link as a stretch.
    pub fn one_by_one(&self) -> Option<Vec<Stretch>> {
        self.check_buffers().ok()?;
        let stretches = (0..self.chain.links().len()).map(|link| Some(self.stretch(link..link + 1)?.1));
        Some(stretches.collect::<Option<Vec<_>>>()?.concat())
    }

    pub fn links(&self, range: Range<usize>) -> Links<'a> {
        let shapes = self.chain.run_shapes(range.clone(), self.shapes).into();
        Links { links: &self.chain.links()[range], shapes, layout: self.layout, dtype: self.chain.dtype() }
    }

    /// The links of a stretch.
    pub fn links_of<'b>(&self, stretch: &'b Stretch) -> Links<'b> {
        Links {
            links: &stretch.own,
            shapes: stretch.shapes.as_slice().into(),
            layout: self.layout,
            dtype: self.chain.dtype(),
        }
    }

    /// The type of what is taken from somewhere or put there.
    pub fn dtype(&self, source: Source) -> DType {
        source.dtype(self.chain.dtype())
    }

    /// How a region of a tensor is bound.
    pub fn way(&self, source: Source, shape: Shape, region: &super::band::Region, writes: bool) -> Way {
        let shape = match source {
            Source::Tensor(tensor) => self.shapes[tensor],
            Source::Residual | Source::Scale => shape,
            Source::Sums { shape, .. } => shape,
        };
        Whole { shape, layout: self.layout, dtype: self.dtype(source) }.way(region, writes, self.caps)
    }

    /// The best way to compute some links as a stretch, or as two where the planes of a pool are cut, and its cost in
    /// bytes.
    fn stretch(&self, range: Range<usize>) -> Option<(f64, Vec<Stretch>)> {
        let (count, dtype) = (self.chain.links().len(), self.chain.dtype());
        let between = |tensor: usize| if (1..count).contains(&tensor) { self.shapes[tensor].bytes(dtype) } else { 0 };
        let leaves = self
            .chain
            .edges()
            .iter()
            .any(|edge| (range.start + 1..range.end).contains(&edge.tensor) && edge.link >= range.end);
        // These begin stretches of their own.
        let begins = |link: usize| self.chain.input_of(link) != link || self.chain.links()[link].is_scaled();
        let is_concat = |link: usize| matches!(self.chain.links()[link], Link::Concat(_));
        let is_alone = self.chain.links()[range.start].is_scaled() || range.clone().any(is_concat);
        if is_alone && range.len() > 1 || (range.start + 1..range.end).any(begins) {
            return None;
        }
        if leaves || between(range.start) > self.caps.max_buffer || between(range.end) > self.caps.max_buffer {
            return None;
        }
        let taken = MOVES_PER_BYTE_TAKEN * between(range.end) as f64;
        if is_concat(range.start) {
            return self.concatenation(range.start).map(|(cost, stretches)| (cost + taken, stretches));
        }
        let links = self.links(range.clone());
        let limit = largest_binding(self.caps);
        let mut best: Option<(f64, Vec<Stretch>)> = None;
        let all = Extents { out_channels: links.out_channels_at_once(limit)?, ..links.whole() };
        let is_whole = fits(&links, all, limit);
        let tried = match is_whole {
            true => vec![all],
            false if range.len() > MOST_LINKS => return None,
            false => self.extents(&links, all, limit),
        };
        for extents in tried {
            let Some(stretch) = self.banded(&links, range.clone(), extents) else { continue };
            let fits = |band: &Band| band.regions.iter().all(|region| region.shape().bytes(dtype) <= limit);
            if !stretch.bands.iter().all(fits) {
                continue;
            }
            let cost = self.cost(&stretch) + taken;
            if best.as_ref().is_none_or(|(known, _)| cost < *known) {
                best = Some((cost, vec![stretch]));
            }
        }
        let in_parts = !is_whole && range.len() == 1;
        let parts = if in_parts { self.in_parts_of_planes(range.start) } else { Vec::new() };
        for stretches in parts {
            let cost = stretches.iter().map(|stretch| self.cost(stretch)).sum::<f64>() + taken;
            if best.as_ref().is_none_or(|(known, _)| cost < *known) {
                best = Some((cost, stretches));
            }
        }
        best
    }

    fn banded(&self, links: &Links<'_>, range: Range<usize>, extents: Extents) -> Option<Stretch> {
        let whole = links.whole();
        let has_windows = extents.rows < whole.rows || extents.columns < whole.columns;
        let is_cut = has_windows || extents.out_channels < whole.out_channels;
        let (mut inside, mut residual) = (Vec::new(), None);
        let input = self.chain.input_of(range.start);
        for link in range.clone().filter(|&link| self.chain.links()[link].residual().is_some()) {
            match self.chain.source(link) {
                // Within a band such a tensor has other rows than the link's output.
                Some(source) if source > range.start && has_windows => return None,
                Some(source) if source > range.start => inside.push((source - range.start, link - range.start)),
                Some(source) if source == input && !is_cut => inside.push((0, link - range.start)),
                _ if residual.is_some() => return None,
                source => residual = Some((link - range.start, source.map_or(Source::Residual, Source::Tensor))),
            }
        }
        if extents.bands(whole) > MOST_BANDS {
            return None;
        }
        let bands = links.bands(extents)?;
        let (from, to) = (Source::Tensor(input), Source::Tensor(range.end));
        let (own, shapes) = (links.links.to_vec(), links.shapes.to_vec());
        let scale = links.links.first().is_some_and(Link::is_scaled);
        let scale = scale.then(|| self.chain.scale_of(range.start).map_or(Source::Scale, Source::Tensor));
        Some(Stretch { links: range, own, shapes, from, to, extents, whole, bands, inside, residual, scale })
    }

    /// What it takes, in bytes that are moved.
    pub(super) fn cost(&self, stretch: &Stretch) -> f64 {
        let links = self.links_of(stretch);
        let last = links.links.len();
        let bytes = |tensor: usize, shape: Shape| {
            let dtype = match tensor {
                0 => self.dtype(stretch.from),
                _ if tensor == last => self.dtype(stretch.to),
                _ => links.dtype,
            };
            shape.bytes(dtype) as f64
        };
        let (mut cost, mut copied) = (0.0, [0.0f64; 3]);
        for band in &stretch.bands {
            let ends = [
                Some((stretch.from, 0, false)),
                Some((stretch.to, last, true)),
                stretch.residual.map(|(link, source)| (source, link + 1, false)),
            ];
            for (place, (source, tensor, writes)) in ends.into_iter().enumerate().filter_map(|(i, end)| Some((i, end?)))
            {
                let region = &band.regions[tensor];
                if let Way::Copied(copies) = self.way(source, links.shapes[tensor], region, writes) {
                    let bytes = bytes(tensor, region.shape());
                    cost += 2.0 * bytes + BYTES_PER_DISPATCH * copies.len() as f64;
                    // Of short runs most of what is fetched is for others.
                    let shortest = copies.iter().map(|copy| copy.params.extents[3]).min().unwrap_or(16).clamp(1, 16);
                    cost += bytes * (16.0 / f64::from(shortest) - 1.0) / 4.0;
                    copied[place] = copied[place].max(bytes);
                }
            }
            for (index, link) in links.links.iter().enumerate() {
                let [input, output] = [index, index + 1].map(|tensor| band.regions[tensor].shape());
                let mult_adds = mult_adds_of(link, input, output);
                let written = bytes(index + 1, output);
                let residual = if link.residual().is_some() { written } else { 0.0 };
                // A band that has not all channels reads the weights of its own.
                let weights = weights_bytes(link, links.dtype) as f64 * f64::from(output.channels)
                    / f64::from(links.shapes[index + 1].channels.max(1));
                cost += bytes(index, input) + written + residual + weights;
                cost += mult_adds as f64 / MULT_ADDS_PER_BYTE + BYTES_PER_DISPATCH;
            }
        }
        let inner = |band: &Band| (1..last).map(|tensor| bytes(tensor, band.regions[tensor].shape())).sum::<f64>();
        let taken = stretch.bands.iter().map(inner).fold(0.0, f64::max) + copied.iter().sum::<f64>();
        cost + MOVES_PER_BYTE_TAKEN * taken
    }

    /// Extents of bands of `whole` that are worth a try.
    pub(super) fn extents(&self, links: &Links<'_>, whole: Extents, limit: u64) -> Vec<Extents> {
        let mut found = Vec::new();
        for most in [limit, limit / SMALLEST_SHARE] {
            let one = Extents { images: 1, ..whole };
            if let Some(images) = largest(whole.images, |images| fits(links, Extents { images, ..whole }, most)) {
                let image = |shape: Shape| Shape { batch: 1, ..shape }.bytes(links.dtype);
                let aligned = self.step([image(links.input()), image(links.output())]);
                found.extend(rounded(whole.images, images, aligned).map(|images| Extents { images, ..whole }));
            }
            if links.keep_channels_apart()
                && let Some(channels) =
                    largest(whole.channels, |channels| fits(links, Extents { channels, ..one }, most))
            {
                let plane = |shape: Shape| shape.pixels() * links.dtype.bytes();
                let aligned = match links.layout {
                    Layout::Nchw => self.step([plane(links.input()), plane(links.output())]),
                    Layout::Nhwc => 1,
                };
                found.extend(rounded(whole.channels, channels, aligned).map(|channels| Extents { channels, ..one }));
            }
            // In NCHW the channels of an image lie side by side in memory, so some of them can be bound.
            if links.layout == Layout::Nchw
                && links.links.len() == 1
                && is_dense(&links.links[0])
                && let Some(outputs) =
                    largest(whole.out_channels, |out_channels| fits(links, Extents { out_channels, ..one }, most))
            {
                let aligned = self.step([0, links.output().pixels() * links.dtype.bytes()]);
                let counts = rounded(whole.out_channels, outputs, aligned);
                found.extend(counts.map(|out_channels| Extents { out_channels, ..one }));
            }
            let mut counts = vec![one.channels];
            // In NCHW rows of one channel lie side by side; and of all channels what a row depends on may not fit.
            if links.keep_channels_apart() && one.channels > 1 && !fits(links, Extents { channels: 1, ..one }, most) {
                counts.push(1);
            }
            let bands = |channels| self.rows_or_columns(links, Extents { channels, ..one }, most, most == limit);
            found.extend(counts.into_iter().flat_map(bands));
        }
        found
    }

    /// Bands of rows of what `one` has, or of columns if not even one row fits and these are wanted.
    fn rows_or_columns(&self, links: &Links<'_>, one: Extents, most: u64, has_columns: bool) -> Vec<Extents> {
        let (Some(down), Some(right)) = (links.reaches(0), links.reaches(1)) else { return Vec::new() };
        let [height, width] = [&down, &right].map(|reaches| multiple(reaches));
        let fitting = |rows: u32| fits(links, Extents { rows, ..one }, most);
        if let Some(rows) = largest(one.rows, fitting).filter(|&rows| rows >= height.min(one.rows)) {
            let row = |shape: Shape| {
                let together = if links.layout == Layout::Nchw { 1 } else { u64::from(shape.channels) };
                u64::from(shape.width) * together * links.dtype.bytes()
            };
            let stride = down.iter().fold(1u64, |all, reach| all.saturating_mul(reach.stride()));
            let aligned = self.step([row(links.input()).saturating_mul(stride), row(links.output())]);
            let rows = rounded(one.rows, rows, aligned.saturating_mul(height));
            let rows = rows.filter_map(|rows| whole_multiple(rows, one.rows, height));
            return rows.map(|rows| Extents { rows, ..one }).collect();
        }
        let row = Extents { rows: height.min(one.rows), ..one };
        let columns = largest(one.columns, |columns| fits(links, Extents { columns, ..row }, most));
        let columns = columns.filter(|_| has_columns).and_then(|columns| whole_multiple(columns, one.columns, width));
        columns.into_iter().map(|columns| Extents { columns, ..row }).collect()
    }

    /// How many of what takes these bytes start at an offset where a binding may.
    pub(super) fn step(&self, bytes: [u64; 2]) -> u32 {
        let steps = bytes.map(|bytes| step(bytes, u64::from(self.caps.storage_offset_alignment)));
        u32::try_from(steps[0].max(steps[1])).unwrap_or(u32::MAX)
    }

    /// Whether bindings hold each tensor, and the weights of each dense convolution.
    pub fn fits_bindings(&self) -> bool {
        let (limit, links) = (largest_binding(self.caps), self.chain.links());
        self.shapes.iter().all(|shape| shape.bytes(self.chain.dtype()) <= limit)
            && !links.iter().any(|link| is_heavy(link, self.chain.dtype(), limit))
    }

    /// Refuses what fits into no buffer.
    fn check_buffers(&self) -> Result<()> {
        let outside = self.chain.outside_residual().map(|link| link + 1);
        for tensor in [Some(0), outside, Some(self.chain.links().len())].into_iter().flatten() {
            self.check_buffer(self.shapes[tensor])?;
        }
        Ok(())
    }

    fn check_buffer(&self, shape: Shape) -> Result<()> {
        let (needed, limit) = (shape.bytes(self.chain.dtype()), self.caps.max_buffer);
        if needed > limit {
            return Err(Error::TooLarge { what: format!("a buffer of {shape}, in bytes,"), needed, limit });
        }
        Ok(())
    }

    /// Why there are no stretches.
    fn too_large(&self) -> Error {
        let limit = largest_binding(self.caps);
        for link in 0..self.chain.links().len() {
            let links = self.links(link..link + 1);
            // Of a concatenation every pixel is computed alone, of a pool or a gate parts of planes.
            if matches!(self.chain.links()[link], Link::Concat(_)) || !self.in_parts_of_planes(link).is_empty() {
                continue;
            }
            let channels = if links.keep_channels_apart() { 1 } else { links.input().channels };
            let whole = Extents { images: 1, channels, ..links.whole() };
            let smallest = match [links.reaches(0), links.reaches(1)] {
                [Some(down), Some(right)] => {
                    let rows = multiple(&down).min(whole.rows);
                    Extents { rows, columns: multiple(&right).min(whole.columns), ..whole }
                }
                _ => whole,
            };
            let shapes = links.largest(smallest);
            if let Some(shape) = shapes.into_iter().find(|shape| shape.bytes(links.dtype) > limit) {
                let what = format!("a binding of {shape}, the least of link {link}, in bytes,");
                return Error::TooLarge { what, needed: shape.bytes(links.dtype), limit };
            }
            if links.out_channels_at_once(limit).is_none() {
                let outputs = u64::from(links.output().channels.max(1));
                let what = format!("a binding for the weights of an output of link {link}, in bytes,");
                let needed = weights_bytes(&links.links[0], links.dtype) / outputs;
                return Error::TooLarge { what, needed, limit };
            }
        }
        let refused = self.shapes.iter().find_map(|&shape| self.check_buffer(shape).err());
        refused.unwrap_or_else(|| Error::Internal("a chain has no bands, though each of its links has".into()))
    }
}

/// Whether all tensors of a band fit into this many bytes each.
pub(super) fn fits(links: &Links<'_>, extents: Extents, most: u64) -> bool {
    links.largest(extents).iter().all(|shape| shape.bytes(links.dtype) <= most)
}

/// What bands of the output should be a multiple of.
fn multiple(reaches: &[Reach]) -> u32 {
    reaches.iter().fold(1, |all, reach| all.saturating_mul(reach.multiple()))
}

/// The largest multiple up to `count`, unless that is all; none if there is none.
fn whole_multiple(count: u32, full: u32, multiple: u32) -> Option<u32> {
    let rounded = if count >= full { full } else { count / multiple * multiple };
    (rounded > 0).then_some(rounded)
}

/// The largest count up to `full` that fits, if one does.
pub(super) fn largest(full: u32, fits: impl Fn(u32) -> bool) -> Option<u32> {
    let (mut low, mut high) = (0, full);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    (low > 0).then_some(low)
}

/// Counts up to the largest: itself; what makes all bands as large; and the largest multiple of `step`.
pub(super) fn rounded(full: u32, largest: u32, step: u32) -> impl Iterator<Item = u32> {
    let even = full.div_ceil(full.div_ceil(largest));
    let aligned = largest / step * step;
    [Some(even), Some(largest), (aligned > 0).then_some(aligned)].into_iter().flatten()
}
