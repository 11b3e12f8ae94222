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

/// How large a band is, at most: images, channels of the input, rows and columns of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extents {
    /// Images.
    pub images: u32,
    /// Channels of the input. Where they are not all, so are those of the output.
    pub channels: u32,
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
    /// Its channels of the input, if it has not all.
    pub channels: Option<Range<u32>>,
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
        Extents { images: input.batch, channels: input.channels, rows: output.height, columns: output.width }
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
        let shape = |tensor: usize| Shape {
            batch: extents.images,
            channels: self.channels(tensor, extents.channels),
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
            for channels in ranges(input.channels, extents.channels) {
                for down in &down {
                    bands.extend(right.iter().map(|right| self.band(&images, &channels, down, right)));
                }
            }
        }
        Some(bands)
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
                        channels: cut.then(|| channels.clone()),
                    });
                }
            }
        }
        bands
    }

    fn band(&self, images: &Range<u32>, channels: &Range<u32>, down: &Direction, right: &Direction) -> Band {
        let count = channels.end - channels.start;
        let cut = count < self.input().channels;
        let region = |tensor: usize| {
            let first = if cut { self.channels(tensor, 1) * channels.start } else { 0 };
            let (rows, columns) = (&down.ranges[tensor], &right.ranges[tensor]);
            Region {
                start: [images.start.into(), first.into(), rows.start, columns.start],
                extents: [images.end - images.start, self.channels(tensor, count), length(rows), length(columns)],
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
            channels: cut.then(|| channels.clone()),
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
                let groups = if band.channels.is_some() { in_channels } else { conv.groups };
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
