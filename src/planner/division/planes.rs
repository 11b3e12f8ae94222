//! Pools and gates in parts of their planes: the sums of some pixels each, then the sums of these.

use super::band::{Extents, Links};
use super::stretches::{MOST_BANDS, SMALLEST_SHARE, Source, Stretch, Subject, largest, rounded};
use crate::model::chain::Link;
use crate::model::gate::SqueezeExcite;
use crate::model::shape::{Layout, Shape};
use crate::planner::bands::largest_binding;

impl Subject<'_> {
    /// Ways to compute a pool or a gate as two stretches: bands of pixels, whose sums are divided by the pixels of a
    /// plane, and the sums of these, which are f32 also for f16, or the gate that adds them up. None for another link.
    pub fn in_parts_of_planes(&self, link: usize) -> Vec<Vec<Stretch>> {
        let is_pooled = matches!(self.chain.links()[link], Link::GlobalAveragePool | Link::SqueezeExcite(_));
        let limit = largest_binding(self.caps);
        let sizes = [limit, limit / SMALLEST_SHARE].into_iter().filter(|_| is_pooled);
        let extents = sizes.flat_map(|most| self.parts_of_planes(self.shapes[self.chain.input_of(link)], most));
        extents.filter_map(|extents| self.sum_of_sums(link, extents, limit)).collect()
    }

    /// Extents of parts that have at most this many bytes. Their elements are neighbours in memory where possible.
    fn parts_of_planes(&self, input: Shape, most: u64) -> Vec<Extents> {
        let bytes = |extents: Extents| {
            let shape = [extents.images, extents.channels, extents.rows, extents.columns];
            Shape::from(shape).bytes(self.chain.dtype())
        };
        let pixel = Extents { images: 1, channels: 1, out_channels: input.channels, rows: 1, columns: 1 };
        let plane = Extents { rows: input.height, columns: input.width, ..pixel };
        let channels = match self.layout {
            // Whole planes: of a gate, which needs all channels at the end.
            Layout::Nchw if bytes(plane) <= most => {
                let channels = largest(input.channels, |channels| bytes(Extents { channels, ..plane }) <= most);
                let aligned = self.step([bytes(plane); 2]);
                let channels = channels.into_iter().flat_map(|channels| rounded(input.channels, channels, aligned));
                return channels.map(|channels| Extents { channels, ..plane }).collect();
            }
            Layout::Nchw => Some(1),
            Layout::Nhwc => largest(input.channels, |channels| bytes(Extents { channels, ..pixel }) <= most),
        };
        let Some(channels) = channels else { return Vec::new() };
        let pixel = Extents { channels, ..pixel };
        let row = Extents { columns: input.width, ..pixel };
        if let Some(rows) = largest(input.height, |rows| bytes(Extents { rows, ..row }) <= most) {
            let aligned = self.step([bytes(row); 2]);
            return rounded(input.height, rows, aligned).map(|rows| Extents { rows, ..row }).collect();
        }
        let columns = largest(input.width, |columns| bytes(Extents { columns, ..pixel }) <= most);
        let aligned = self.step([bytes(pixel); 2]);
        let columns = columns.into_iter().flat_map(|columns| rounded(input.width, columns, aligned));
        columns.map(|columns| Extents { columns, ..pixel }).collect()
    }

    /// The two stretches.
    fn sum_of_sums(&self, link: usize, extents: Extents, limit: u64) -> Option<Vec<Stretch>> {
        let (input, output) = (self.shapes[self.chain.input_of(link)], self.shapes[link + 1]);
        let (rows, columns) = (input.height, input.width);
        let (images, channels) = (input.batch, input.channels);
        let whole = Extents { images, channels, out_channels: channels, rows, columns };
        let parts = u64::from(rows.div_ceil(extents.rows)) * u64::from(columns.div_ceil(extents.columns));
        let sums = Shape { height: u32::try_from(parts).ok()?, width: 1, ..input };
        let source = self.chain.input_of(link);
        let between = Source::Sums { link, shape: sums };
        let gate = if let Link::SqueezeExcite(gate) = &self.chain.links()[link] { Some(gate) } else { None };
        // Whole planes of a pool need no second stretch.
        if parts < 2 && gate.is_none() || extents.bands(whole) > MOST_BANDS || sums.bytes(self.dtype(between)) > limit {
            return None;
        }
        let divisor = u32::try_from(input.pixels()).ok()?;
        let stretch = |own: Link, shapes: [Shape; 2], [from, to]: [Source; 2], parts: Option<[Extents; 2]>| {
            let own = vec![own];
            let links =
                Links { links: &own, shapes: shapes[..].into(), layout: self.layout, dtype: self.chain.dtype() };
            let (bands, [extents, whole]) = match parts {
                Some(parts) => (links.bands_of_planes(parts[0]), parts),
                None => (links.bands(links.whole())?, [links.whole(); 2]),
            };
            let (shapes, inside, residual, scale) = (shapes.to_vec(), Vec::new(), None, None);
            let links = link..link + 1;
            Some(Stretch { links, own, shapes, from, to, extents, whole, bands, inside, residual, scale })
        };
        let sum = Link::PlaneSum { divisor, of_sums: false };
        let sum_of_sums = match gate {
            Some(gate) => Link::SqueezeExcite(SqueezeExcite { of_sums: true, ..gate.clone() }),
            None => Link::PlaneSum { divisor: 1, of_sums: true },
        };
        let first = stretch(sum, [input, sums], [Source::Tensor(source), between], Some([extents, whole]))?;
        let last = stretch(sum_of_sums, [sums, output], [between, Source::Tensor(link + 1)], None)?;
        Some(vec![first, last])
    }
}
