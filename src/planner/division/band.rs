//! Bands of a stretch of links: which part of each tensor takes part, and what a band is as a chain of its own.

use std::borrow::Cow;
use std::ops::Range;

use super::reach::Reach;
use crate::model::chain::{Chain, Link};
use crate::model::conv::Conv2d;
use crate::model::dtype::DType;
use crate::model::error::{Error, Result};
use crate::model::pool::Pool2d;
use crate::model::prelu::PRelu;
use crate::model::shape::{Layout, Shape};
use crate::model::transposed::ConvTranspose2d;

/// Outputs of a product's tile: of the largest, and of the smallest. Packed weights have whole tiles.
const OUTPUTS_OF_A_TILE: [u32; 2] = [128, 4];
/// Biases are f32 in every chain.
const BIAS_BYTES: u64 = 4;

/// A box of a tensor, in PyTorch's order of extents. Rows and columns may lie outside of it, in the padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub start: [i64; 4],
    pub extents: [u32; 4],
}

impl Region {
    pub fn shape(&self) -> Shape {
        self.extents.into()
    }

    /// Rows and columns.
    fn pixels(&self) -> [u32; 2] {
        [self.extents[2], self.extents[3]]
    }

    /// Row and column where it begins, in the image.
    fn first_pixel(&self) -> Result<[u32; 2]> {
        let [_, _, row, column] = self.start.map(u32::try_from);
        let outside =
            || Error::Internal(format!("a part of a resize begins outside of its image, at {:?}", self.start));
        Ok([row.map_err(|_| outside())?, column.map_err(|_| outside())?])
    }
}

/// How large a band is, at most: images, channels of the input and of the output, rows and columns of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extents {
    /// Images.
    pub images: u32,
    /// Channels of the input. Where they are not all, the output has those that depend on them.
    pub channels: u32,
    /// Channels of the output, each of which depends on all of the input's. Fewer than all where the weights or the
    /// output of a convolution are larger than a binding.
    pub out_channels: u32,
    /// Rows of the output, or of the input where planes of a pool are cut.
    pub rows: u32,
    /// Columns, as rows.
    pub columns: u32,
}

impl Extents {
    /// How many bands of these extents make up the whole.
    pub(crate) fn bands(self, whole: Self) -> u64 {
        let portions = |full: u32, part: u32| u64::from(full.div_ceil(part.max(1)));
        portions(whole.images, self.images)
            .saturating_mul(portions(whole.channels, self.channels))
            .saturating_mul(portions(whole.out_channels, self.out_channels))
            .saturating_mul(portions(whole.rows, self.rows))
            .saturating_mul(portions(whole.columns, self.columns))
    }
}

/// Consecutive links of a chain that are computed band by band together.
#[derive(Clone, Debug)]
pub struct Links<'a> {
    pub links: &'a [Link],
    /// The shapes of their tensors, the input's first.
    pub shapes: Cow<'a, [Shape]>,
    pub layout: Layout,
    pub dtype: DType,
}

/// A band.
#[derive(Clone, Debug)]
pub struct Band {
    /// Its part of each tensor. That of the input has the padding, if the band is cut in its direction.
    pub regions: Vec<Region>,
    /// The padding of each link.
    padding: Vec<[u32; 4]>,
    /// The output padding of each link.
    output_padding: Vec<[u32; 2]>,
    /// Its channels, if it has not all.
    pub slab: Option<Slab>,
}

/// Some channels: of the input, if no output depends on another channel than its own, or of the output.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Slab {
    Inputs(Range<u32>),
    Outputs(Range<u32>),
}

impl Slab {
    /// The outputs of one of its convolutions, of which the first has this many input channels.
    pub fn outputs(&self, conv: &Conv2d, first_inputs: u32) -> Range<usize> {
        let (channels, each) = match self {
            Self::Inputs(channels) => (channels, conv.out_channels / first_inputs.max(1)),
            Self::Outputs(channels) => (channels, 1),
        };
        channels.start as usize * each as usize..channels.end as usize * each as usize
    }
}

impl Band {
    /// Its part of what the input is multiplied by, a value for each image and channel.
    pub fn scale(&self) -> Region {
        let Region { start: [image, channel, ..], extents: [images, channels, ..] } = self.regions[0];
        Region { start: [image, channel, 0, 0], extents: [images, channels, 1, 1] }
    }
}

/// A direction in which the images of a band are cut, or not: the first is down, the second right.
struct Direction {
    /// The part of each tensor.
    ranges: Vec<Range<i64>>,
    /// The padding of each link, before and behind.
    padding: Vec<[u32; 2]>,
    /// The output padding of each link.
    output_padding: Vec<u32>,
}

impl<'a> Links<'a> {
    pub fn input(&self) -> Shape {
        self.shapes[0]
    }

    pub fn output(&self) -> Shape {
        self.shapes[self.shapes.len() - 1]
    }

    /// One band of everything.
    pub fn whole(&self) -> Extents {
        let (input, output) = (self.input(), self.output());
        let (channels, out_channels) = (input.channels, output.channels);
        Extents { images: input.batch, channels, out_channels, rows: output.height, columns: output.width }
    }

    /// How many channels of the output are computed at a time so that the weights of a dense convolution fit into a
    /// binding: all, or fewer if it is the only link. None if even one output's do not fit.
    pub fn out_channels_at_once(&self, binding: u64) -> Option<u32> {
        let whole = self.output().channels;
        if !self.links.iter().any(|link| is_heavy(link, self.dtype, binding)) {
            return Some(whole);
        }
        let [Link::Conv(conv)] = self.links else { return None };
        let of_one = conv.fan_in() * self.dtype.bytes() + BIAS_BYTES;
        let counts = [most_weights(binding), binding].map(|most| most / of_one);
        let count = u64::from(whole).min(counts.into_iter().find(|count| *count > 0)?) as u32;
        // As many each, and whole tiles where that is possible.
        let even = whole.div_ceil(whole.div_ceil(count));
        let in_tiles = OUTPUTS_OF_A_TILE.map(|tile| [even.next_multiple_of(tile), count / tile * tile]);
        in_tiles.into_iter().flatten().find(|outputs| (1..=count).contains(outputs)).or(Some(even))
    }

    /// Whether no output depends on another channel than its own.
    pub fn keep_channels_apart(&self) -> bool {
        self.links.iter().all(Link::keeps_channels_apart)
    }

    /// How outputs of each link depend on its input, if none depends on all of an image.
    pub fn reaches(&self, axis: usize) -> Option<Vec<Reach>> {
        (0..self.links.len()).map(|link| self.reach(link, axis)).collect()
    }

    fn reach(&self, link: usize, axis: usize) -> Option<Reach> {
        Reach::of(&self.links[link], axis, [self.shapes[link], self.shapes[link + 1]])
    }

    /// The channels of a tensor for channels of the input.
    fn channels(&self, tensor: usize, channels: u32) -> u32 {
        let (own, input) = (self.shapes[tensor].channels, self.input().channels);
        if channels == input { own } else { channels * (own / input.max(1)) }
    }

    /// The shapes of the tensors of a band that has these extents and lies in the middle of the image.
    pub fn largest(&self, extents: Extents) -> Vec<Shape> {
        let heights = self.spans(0, extents.rows, |shape| shape.height);
        let widths = self.spans(1, extents.columns, |shape| shape.width);
        let last = self.shapes.len() - 1;
        let most = |tensor: usize| if tensor == last { extents.out_channels } else { u32::MAX };
        let shape = |tensor: usize| Shape {
            batch: extents.images,
            channels: self.channels(tensor, extents.channels).min(most(tensor)),
            height: heights[tensor],
            width: widths[tensor],
        };
        (0..self.shapes.len()).map(shape).collect()
    }

    /// How far a band of this many rows or columns reaches in each tensor.
    fn spans(&self, axis: usize, count: u32, extent: impl Fn(&Shape) -> u32) -> Vec<u32> {
        let mut spans: Vec<_> = self.shapes.iter().map(&extent).collect();
        let last = spans.len() - 1;
        if count >= spans[last] {
            return spans;
        }
        let mut span = i64::from(count);
        spans[last] = count;
        for tensor in (0..self.links.len()).rev() {
            if let Some(reach) = self.reach(tensor, axis) {
                span = reach.most(span);
            }
            let is_padded = matches!(self.links[tensor], Link::Conv(_));
            if tensor > 0 || !is_padded {
                span = span.min(spans[tensor].into());
            }
            spans[tensor] = u32::try_from(span).unwrap_or(u32::MAX);
        }
        spans
    }

    /// All bands; none if one of them reads no element of a tensor between links.
    pub fn bands(&self, extents: Extents) -> Option<Vec<Band>> {
        let (input, output) = (self.input(), self.output());
        let directions = |axis: usize, count: u32, full: u32| {
            let ranges = ranges(full, count).into_iter();
            ranges.map(|range| self.direction(axis, range, full)).collect::<Option<Vec<_>>>()
        };
        let down = directions(0, extents.rows, output.height)?;
        let right = directions(1, extents.columns, output.width)?;
        let mut bands = Vec::new();
        for images in ranges(input.batch, extents.images) {
            for slab in self.slabs(extents)? {
                for down in &down {
                    bands.extend(right.iter().map(|right| self.band(&images, slab.as_ref(), down, right)));
                }
            }
        }
        Some(bands)
    }

    /// The channels of bands; none for all of them. Bands have not both fewer inputs and fewer outputs.
    fn slabs(&self, extents: Extents) -> Option<Vec<Option<Slab>>> {
        let whole = self.whole();
        let inputs = ranges(whole.channels, extents.channels);
        let outputs = ranges(whole.out_channels, extents.out_channels);
        match [inputs.len(), outputs.len()] {
            [1, 1] => Some(vec![None]),
            [1, _] => Some(outputs.into_iter().map(|range| Some(Slab::Outputs(range))).collect()),
            [_, 1] => Some(inputs.into_iter().map(|range| Some(Slab::Inputs(range))).collect()),
            _ => None,
        }
    }

    /// The bands of a pool whose planes are cut. Its output has a pixel for each part of a plane.
    pub fn bands_of_planes(&self, extents: Extents) -> Vec<Band> {
        let (input, mut bands) = (self.input(), Vec::new());
        for images in ranges(input.batch, extents.images) {
            for channels in ranges(input.channels, extents.channels) {
                let columns = ranges(input.width, extents.columns);
                let rows = ranges(input.height, extents.rows);
                let parts = rows.iter().flat_map(|rows| columns.iter().map(move |columns| (rows, columns)));
                for (part, (rows, columns)) in (0..).zip(parts) {
                    let region = |row: i64, column: i64, pixels: [u32; 2]| Region {
                        start: [images.start.into(), channels.start.into(), row, column],
                        extents: [count(&images), count(&channels), pixels[0], pixels[1]],
                    };
                    let pixels = region(rows.start.into(), columns.start.into(), [rows, columns].map(count));
                    let cut = count(&channels) < input.channels;
                    bands.push(Band {
                        regions: vec![pixels, region(part, 0, [1, 1])],
                        padding: vec![[0; 4]],
                        output_padding: vec![[0; 2]],
                        slab: cut.then(|| Slab::Inputs(channels.clone())),
                    });
                }
            }
        }
        bands
    }

    fn band(&self, images: &Range<u32>, slab: Option<&Slab>, down: &Direction, right: &Direction) -> Band {
        let region = |tensor: usize| {
            let channels = match slab {
                Some(Slab::Inputs(channels)) => {
                    let first = self.channels(tensor, 1) * channels.start;
                    first..first + self.channels(tensor, count(channels))
                }
                Some(Slab::Outputs(channels)) if tensor == self.links.len() => channels.clone(),
                _ => 0..self.shapes[tensor].channels,
            };
            let (rows, columns) = (&down.ranges[tensor], &right.ranges[tensor]);
            Region {
                start: [images.start.into(), channels.start.into(), rows.start, columns.start],
                extents: [count(images), count(&channels), length(rows), length(columns)],
            }
        };
        let padding = |link: usize| {
            let ([top, bottom], [left, right]) = (down.padding[link], right.padding[link]);
            [top, left, bottom, right]
        };
        Band {
            regions: (0..self.shapes.len()).map(region).collect(),
            padding: (0..self.links.len()).map(padding).collect(),
            output_padding: down.output_padding.iter().zip(&right.output_padding).map(|(&y, &x)| [y, x]).collect(),
            slab: slab.cloned(),
        }
    }

    /// What rows (axis 0) or columns (axis 1) of the output depend on.
    fn direction(&self, axis: usize, output: Range<u32>, full: u32) -> Option<Direction> {
        let extent = |shape: &Shape| i64::from([shape.height, shape.width][axis]);
        let mut found = Direction {
            ranges: self.shapes.iter().map(|shape| 0..extent(shape)).collect(),
            padding: self.links.iter().map(|link| own_padding(link, axis)).collect(),
            output_padding: self.links.iter().map(|link| own_output_padding(link)[axis]).collect(),
        };
        if output == (0..full) {
            return Some(found);
        }
        let mut range = i64::from(output.start)..i64::from(output.end);
        found.ranges[self.links.len()] = range.clone();
        for tensor in (0..self.links.len()).rev() {
            // Outside of the image a tensor between links is zero; the links before might give other values there.
            let needed = self.reach(tensor, axis)?.needed(&range, extent(&self.shapes[tensor]), tensor == 0)?;
            (found.padding[tensor], found.output_padding[tensor]) = (needed.padding, needed.output_padding);
            range = needed.inputs;
            found.ranges[tensor] = range.clone();
        }
        Some(found)
    }

    /// A band as a chain. All edges that `edges` lists, from a tensor of these links to a link, are inside of it;
    /// another residual comes from outside.
    pub fn chain(&self, band: &Band, edges: &[(usize, usize)]) -> Result<Chain> {
        let links = (0..self.links.len()).map(|index| self.part(band, index)).collect::<Result<Vec<_>>>()?;
        let mut chain = Chain::new(links).with_dtype(self.dtype);
        for &(source, link) in edges {
            if let Some(residual) = self.links[link].residual() {
                chain = chain.edge(source, link, residual)?;
            }
        }
        Ok(chain)
    }

    /// The link that computes a band of the output of one.
    fn part(&self, band: &Band, index: usize) -> Result<Link> {
        let ([input, output], padding) = ([&band.regions[index], &band.regions[index + 1]], band.padding[index]);
        Ok(match &self.links[index] {
            Link::Conv(conv) => {
                let [in_channels, out_channels] = [input, output].map(|region| region.extents[1]);
                let groups = if let Some(Slab::Inputs(_)) = band.slab { in_channels } else { conv.groups };
                Link::Conv(Conv2d { in_channels, out_channels, groups, padding, ..conv.clone() })
            }
            Link::PRelu(_) => Link::PRelu(PRelu::new(input.extents[1])),
            Link::Pool(pool) => Link::Pool(Pool2d { padding, ..pool.clone() }),
            Link::ConvTranspose(transposed) => {
                let conv = Conv2d { padding, ..transposed.conv.clone() };
                Link::ConvTranspose(ConvTranspose2d { conv, output_padding: band.output_padding[index] })
            }
            Link::Resize(resize) => {
                let shapes = [self.shapes[index], self.shapes[index + 1]];
                let is_whole = |(part, whole): (&Region, Shape)| part.pixels() == [whole.height, whole.width];
                match [input, output].into_iter().zip(shapes).all(is_whole) {
                    true => Link::Resize(*resize),
                    false => {
                        let first = [input.first_pixel()?, output.first_pixel()?];
                        Link::Resize(resize.part(shapes, first, output.pixels()))
                    }
                }
            }
            other => other.clone(),
        })
    }
}

/// Whether a link is a dense convolution whose weights are too many for a binding. (The weights of a depthwise one are
/// cut with its channels, those of others are not.)
pub fn is_heavy(link: &Link, dtype: DType, binding: u64) -> bool {
    is_dense(link) && weights_bytes(link, dtype) > most_weights(binding)
}

/// Whether a link is a convolution each of whose outputs depends on all channels of the input.
pub fn is_dense(link: &Link) -> bool {
    matches!(link, Link::Conv(conv) if conv.groups == 1)
}

/// The most bytes of a slab's weights. Kernels fill k up to whole tiles, which adds little where weights are many.
/// (Outputs may be filled up many times; `direct` does without.)
fn most_weights(binding: u64) -> u64 {
    binding - binding / 16
}

/// Bytes of a link's weights and biases, as far as kernels do not fill them up.
pub fn weights_bytes(link: &Link, dtype: DType) -> u64 {
    let of_one = |conv: &Conv2d| conv.fan_in().saturating_mul(dtype.bytes()).saturating_add(BIAS_BYTES);
    link.convolutions()
        .fold(0, |all: u64, conv| all.saturating_add(of_one(conv).saturating_mul(conv.out_channels.into())))
}

/// Consecutive ranges of at most `count`; one empty range for nothing.
fn ranges(full: u32, count: u32) -> Vec<Range<u32>> {
    let count = count.clamp(1, full.max(1));
    let starts = (0..full.max(1)).step_by(count as usize);
    starts.map(|start| start..full.min(start.saturating_add(count))).collect()
}

/// The padding of a link before and behind.
fn own_padding(link: &Link, axis: usize) -> [u32; 2] {
    let padding = match link {
        Link::Conv(conv) => conv.padding,
        Link::ConvTranspose(transposed) => transposed.conv.padding,
        Link::Pool(pool) => pool.padding,
        _ => [0; 4],
    };
    [padding[axis], padding[axis + 2]]
}

fn own_output_padding(link: &Link) -> [u32; 2] {
    if let Link::ConvTranspose(transposed) = link { transposed.output_padding } else { [0; 2] }
}

fn count(range: &Range<u32>) -> u32 {
    range.end - range.start
}

fn length(range: &Range<i64>) -> u32 {
    u32::try_from(range.end - range.start).unwrap_or(u32::MAX)
}
