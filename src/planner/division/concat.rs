//! Concatenations in bands: each of the tensors is a stretch, which writes it into its channels of the output.

use super::band::Links;
use super::stretches::{MOST_BANDS, Source, Stretch, Subject, fits};
use crate::model::chain::Link;
use crate::planner::bands::largest_binding;

impl Subject<'_> {
    /// The stretches that compute a concatenation, and what they take, in bytes that are moved.
    pub(super) fn concatenation(&self, link: usize) -> Option<(f64, Vec<Stretch>)> {
        let (mut first, mut cost, mut stretches) = (0, 0.0, Vec::new());
        for tensor in self.chain.concatenated(link) {
            let (own, stretch) = self.put(link, tensor, first)?;
            first += i64::from(self.shapes[tensor].channels);
            cost += own;
            stretches.push(stretch);
        }
        Some((cost, stretches))
    }

    /// The cheapest way to write a tensor into the channels of a link's output from `first` on.
    fn put(&self, link: usize, tensor: usize, first: i64) -> Option<(f64, Stretch)> {
        let shape = self.shapes[tensor];
        // All of its channels, so that it is itself.
        let own = vec![Link::Slice { channels: 0..shape.channels }];
        let shapes = [shape; 2];
        let links = Links { links: &own, shapes: shapes[..].into(), layout: self.layout, dtype: self.chain.dtype() };
        let (whole, limit) = (links.whole(), largest_binding(self.caps));
        let tried = if fits(&links, whole, limit) { vec![whole] } else { self.extents(&links, whole, limit) };
        let mut best: Option<(f64, Stretch)> = None;
        for extents in tried.into_iter().filter(|extents| extents.bands(whole) <= MOST_BANDS) {
            let Some(mut bands) = links.bands(extents) else { continue };
            for band in &mut bands {
                band.regions[1].start[1] += first;
            }
            let stretch = Stretch {
                links: link..link + 1,
                own: own.clone(),
                shapes: shapes.to_vec(),
                from: Source::Tensor(tensor),
                to: Source::Tensor(link + 1),
                extents,
                whole,
                bands,
                inside: Vec::new(),
                residual: None,
                scale: None,
            };
            let cost = self.cost(&stretch);
            if best.as_ref().is_none_or(|(known, _)| cost < *known) {
                best = Some((cost, stretch));
            }
        }
        best
    }
}
