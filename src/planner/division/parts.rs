//! The parts of a division: each band planned, and places for copies and for tensors between stretches.

use std::collections::HashMap;
use std::sync::Arc;

use super::stretches::{Source, Stretch as Cut, Subject};
use super::{Access, Division, Kind, Part, Spot, Stretch};
use crate::model::caps::Caps;
use crate::model::chain::{Link, scale_shape};
use crate::model::error::{Error, Result};
use crate::planner::workspace::Span;
use crate::planner::workspace::arrange::{self, Limits, Uses};
use crate::planner::{Choice, Planner, Refused};

impl Planner<'_> {
    /// Plans the bands of stretches. There is a choice for each link, or one for all.
    pub(super) fn divided(
        &self,
        refused: &Refused,
        subject: &Subject<'_>,
        cuts: &[Cut],
        choices: &[Choice],
    ) -> Result<Division> {
        let (mut stretches, mut parts, mut kinds) = (Vec::new(), Vec::new(), Vec::<Kind>::new());
        for (number, cut) in cuts.iter().enumerate() {
            let choice = &choices[cut.links.start.min(choices.len() - 1)];
            let links = subject.links_of(cut);
            let (first_kind, first_part) = (kinds.len(), parts.len());
            for band in &cut.bands {
                let chain = links.chain(band, &cut.inside)?;
                let input = band.regions[0].shape();
                let same = |kind: &Kind| (&*kind.chain, kind.schedule.shapes[0]) == (&chain, input);
                // Each slab of channels has weights of its own.
                let slab = band.slab.clone().filter(|_| chain.convolutions().next().is_some());
                let own = &kinds[first_kind..];
                let known = own.iter().position(|kind| same(kind) && kind.slab == slab);
                let kind = known.map_or(kinds.len(), |place| first_kind + place);
                if known.is_none() {
                    let schedule = match own.iter().find(|kind| same(kind)) {
                        Some(kind) => kind.schedule.clone(),
                        None => {
                            // A recipe's name is that of the gate, or of the pool that sums pixels.
                            let is_gate = matches!(subject.chain.links()[cut.links.start], Link::SqueezeExcite(_));
                            let others = if is_gate { cut.to } else { cut.from };
                            let is_other = !own.is_empty() || matches!(others, Source::Sums { .. });
                            self.schedule_band(refused, &chain, input, subject.layout, choice, is_other)?.into()
                        }
                    };
                    let expected = band.regions.iter().map(|region| region.shape());
                    if !schedule.shapes.iter().copied().eq(expected) {
                        let message =
                            format!("a band of links {:?} on {input} has other shapes than its tensors", cut.links);
                        return Err(Error::Internal(message));
                    }
                    kinds.push(Kind { links: cut.links.clone(), chain: Arc::new(chain), slab, schedule });
                }
                let access = |source: Source, tensor: usize, writes: bool, spot: Spot| {
                    let region = &band.regions[tensor];
                    let way = subject.way(source, links.shapes[tensor], region, writes);
                    Access { source, shape: region.shape(), way, spot }
                };
                let residual =
                    cut.residual.map(|(link, source)| access(source, link + 1, false, Spot::Residual(number)));
                let scale = cut.scale.map(|source| {
                    let (shape, region) = (scale_shape(links.input()), band.scale());
                    let way = subject.way(source, shape, &region, false);
                    Access { source, shape: region.shape(), way, spot: Spot::Scale(number) }
                });
                parts.push(Part {
                    kind,
                    scale,
                    input: access(cut.from, 0, false, Spot::Input(number)),
                    residual,
                    output: access(cut.to, links.links.len(), true, Spot::Output(number)),
                });
            }
            let own: &[Part] = &parts[first_part..];
            let bytes = |access: &Access| access.shape.bytes(subject.dtype(access.source));
            let copied = |access: &Access| if access.way.is_copied() { bytes(access) } else { 0 };
            let others = |part: &Part| {
                let [residual, scale] = [&part.residual, &part.scale].map(|other| other.as_ref().map_or(0, copied));
                residual + scale
            };
            let into = |part: &Part| copied(&part.input) + others(part);
            stretches.push(Stretch {
                first: cut.links.start,
                links: cut.links.len(),
                bands: cut.bands.len(),
                extents: cut.extents,
                whole: cut.whole,
                copied: [own.iter().map(into).sum(), own.iter().map(|part| copied(&part.output)).sum()],
                chain: kinds[first_kind].chain.clone(),
                input: kinds[first_kind].schedule.shapes[0],
                schedule: kinds[first_kind].schedule.clone(),
            });
        }
        let (places, buffers) = places(subject, &parts, self.caps);
        Ok(Division { stretches, parts, kinds, shapes: subject.shapes.to_vec(), places, buffers })
    }
}

/// Arranges copies and tensors between stretches.
fn places(subject: &Subject<'_>, parts: &[Part], caps: &Caps) -> (HashMap<Spot, Span>, Vec<u64>) {
    let (mut values, mut sizes, mut dispatches) = (HashMap::<Spot, usize>::new(), Vec::<u64>::new(), Vec::new());
    let count = subject.chain.links().len();
    let mut value = |spot: Spot, bytes: u64| {
        let value = *values.entry(spot).or_insert(sizes.len());
        sizes.resize(sizes.len().max(value + 1), 0);
        sizes[value] = sizes[value].max(bytes.max(4).next_multiple_of(4));
        value
    };
    // Twice for each stretch, so that all that its bands use lives from the first of them to the last.
    let stretches = parts.chunk_by(|a, b| a.output.source == b.output.source);
    for part in stretches.flat_map(|bands| bands.iter().chain(bands)) {
        let mut uses = Uses::default();
        for access in part.accesses() {
            let (writes, dtype) = (matches!(access.spot, Spot::Output(_)), subject.dtype(access.source));
            let between = match access.source {
                Source::Tensor(tensor) if (1..count).contains(&tensor) => {
                    Some(value(Spot::Tensor(tensor), subject.shapes[tensor].bytes(dtype)))
                }
                Source::Sums { link, shape } => Some(value(Spot::Sums(link), shape.bytes(dtype))),
                _ => None,
            };
            let copy = access.way.is_copied().then(|| value(access.spot, access.shape.bytes(dtype)));
            let (first, then) = if writes { (copy, between) } else { (between, copy) };
            if let (Some(first), Some(then)) = (first, then) {
                dispatches.push(Uses { reads: vec![first], writes: vec![then] });
            }
            let bound = copy.or(between);
            if writes { &mut uses.writes } else { &mut uses.reads }.extend(bound);
        }
        dispatches.push(uses);
    }
    let limits = Limits { alignment: caps.storage_offset_alignment.into(), buffer: caps.max_buffer };
    let arrangement = arrange::arrange(&sizes, &dispatches, limits);
    let span = |value: usize| {
        let place = arrangement.places[value];
        Span { buffer: place.buffer, offset: place.offset, bytes: sizes[value] }
    };
    (values.iter().map(|(&spot, &value)| (spot, span(value))).collect(), arrangement.buffers)
}
