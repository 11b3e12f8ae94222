//! Divisions: chains whose tensors or weights are larger than a binding, computed band by band.
//!
//! A chain is cut into stretches of links. What fits is computed at once; else the output of a stretch is cut into
//! bands of images, channels, rows or columns, and each is computed from the part of the input that it depends on, a
//! smaller problem that is planned like any other. Where the weights or the output of a dense convolution are larger
//! than a binding, its output may be cut into slabs of channels, each with weights of its own. A pool whose planes are
//! too large is a sum of the sums of their parts, and so are the means of a gate. A part of a tensor is bound where it
//! lies, if its elements lie side by side and start at an offset that a binding may have. Otherwise it is copied into
//! the workspace, or out of it.

mod band;
mod concat;
mod copies;
mod parts;
mod planes;
mod reach;
mod stretches;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::kernels::copy::{self, Unit};
use crate::model::chain::Chain;
use crate::model::error::{Error, Result};
use crate::model::shape::{Layout, Shape};
use crate::planner::bands::band_inputs;
use crate::planner::workspace::Span;
use crate::planner::{Choice, Considered, Pass, Planner, Refused, Schedule, Step, Workspace};

pub use band::Extents;
pub(crate) use band::Slab;
pub(crate) use copies::{Copy, Way};
pub(crate) use stretches::Source;
use stretches::Subject;

/// How a chain is computed on a device, where need be band by band.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Division {
    /// The stretches, in order: one of a single band if everything fits.
    pub stretches: Vec<Stretch>,
    /// What is computed, in order.
    pub(crate) parts: Vec<Part>,
    /// The problems that parts are of.
    pub(crate) kinds: Vec<Kind>,
    /// The shapes of the chain's tensors, the input's first.
    pub(crate) shapes: Vec<Shape>,
    /// Where copies and the tensors between stretches lie, in buffers beside those of the plans.
    pub(crate) places: HashMap<Spot, Span>,
    /// The sizes of these buffers.
    pub(crate) buffers: Vec<u64>,
}

/// Consecutive links that are computed together, at once or band by band.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Stretch {
    /// The first link.
    pub first: usize,
    /// How many links.
    pub links: usize,
    /// How many bands.
    pub bands: usize,
    /// What a band has, at most.
    pub extents: Extents,
    /// What all of them together have.
    pub whole: Extents,
    /// Bytes that are copied into bands, and out of them.
    pub copied: [u64; 2],
    /// The chain that the first band computes.
    pub chain: Arc<Chain>,
    /// The shape of the first band's input.
    pub input: Shape,
    /// How the first band is computed.
    pub schedule: Arc<Schedule>,
}

/// A problem that bands are of.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    /// The links that it computes.
    pub links: Range<usize>,
    pub chain: Arc<Chain>,
    /// Its channels of the stretch, if it has not all.
    pub slab: Option<Slab>,
    pub schedule: Arc<Schedule>,
}

/// A band: what is computed, and where from and where to.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// The number of its kind.
    pub kind: usize,
    pub input: Access,
    pub residual: Option<Access>,
    pub scale: Option<Access>,
    pub output: Access,
}

/// A part of a tensor.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub source: Source,
    pub shape: Shape,
    pub way: Way,
    /// Where a copy lies.
    pub spot: Spot,
}

/// What lies in the workspace beside what the plans have there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Spot {
    /// A tensor between stretches.
    Tensor(usize),
    /// The sums of parts of planes, of a pool: the link.
    Sums(usize),
    /// Copies of a stretch's bands.
    Input(usize),
    Residual(usize),
    Scale(usize),
    Output(usize),
}

impl Division {
    /// A batch, as many images at a time as fit. The first schedule computes these. If fewer remain at the end, the
    /// second computes them.
    pub(crate) fn of_images(chain: &Chain, shapes: &[Shape], schedules: Vec<Schedule>) -> Self {
        let (links, chain) = (chain.links().len(), Arc::new(chain.clone()));
        let kind = |schedule| Kind { links: 0..links, chain: chain.clone(), slab: None, schedule: Arc::new(schedule) };
        let kinds: Vec<_> = schedules.into_iter().map(kind).collect();
        let (first, batch) = (kinds[0].schedule.clone(), shapes[0].batch);
        let at_once = first.shapes[0].batch.max(1);
        let part = |start: u32| {
            let count = at_once.min(batch - start);
            let access = |source: Source, shape: Shape, spot: Spot| {
                let image = Shape { batch: 1, ..shape }.bytes(chain.dtype());
                let shape = Shape { batch: count, ..shape };
                Access { source, shape, way: Way::Direct(u64::from(start) * image), spot }
            };
            let residual = chain.outside_residual();
            Part {
                kind: usize::from(count < at_once).min(kinds.len() - 1),
                input: access(Source::Tensor(0), shapes[0], Spot::Input(0)),
                residual: residual.map(|link| access(Source::Residual, shapes[link + 1], Spot::Residual(0))),
                scale: chain.outside_scale_shape(shapes).map(|shape| access(Source::Scale, shape, Spot::Scale(0))),
                output: access(Source::Tensor(links), shapes[links], Spot::Output(0)),
            }
        };
        let parts: Vec<_> = (0..batch.max(1)).step_by(at_once as usize).map(part).collect();
        let (input, output) = (shapes[0], shapes[links]);
        let (channels, out_channels) = (input.channels, output.channels);
        let whole = Extents { images: batch, channels, out_channels, rows: output.height, columns: output.width };
        let stretch = Stretch {
            first: 0,
            links,
            bands: parts.len(),
            extents: Extents { images: first.shapes[0].batch, ..whole },
            whole,
            copied: [0, 0],
            chain: chain.clone(),
            input: first.shapes[0],
            schedule: first,
        };
        let (places, buffers) = (HashMap::new(), Vec::new());
        Self { stretches: vec![stretch], parts, kinds, shapes: shapes.to_vec(), places, buffers }
    }

    /// How the chain is computed, or the first band of each stretch if there are several.
    pub fn schedule(&self) -> Schedule {
        if let [only] = &self.stretches[..] {
            return (*only.schedule).clone();
        }
        let (mut steps, mut considered) = (Vec::new(), Vec::new());
        for stretch in &self.stretches {
            let moved = |step: &Step| Step { first: step.first + stretch.first, ..step.clone() };
            steps.extend(stretch.schedule.steps.iter().map(moved));
            let moved = |one: &Considered| Considered { first: one.first + stretch.first, ..one.clone() };
            considered.extend(stretch.schedule.considered.iter().map(moved));
        }
        let workspace = Workspace::of_buffers(self.workspace());
        Schedule { steps, considered: considered.into(), workspace, shapes: self.shapes.clone() }
    }

    /// Whether there is more than one band.
    pub fn is_divided(&self) -> bool {
        self.parts.len() > 1
    }

    /// What all bands take together, seconds, by the times of their schedules. Copies are not counted.
    pub fn seconds(&self) -> f64 {
        self.parts.iter().map(|part| self.kinds[part.kind].schedule.seconds()).sum()
    }

    /// The sizes of the buffers that it needs beside input, output and weights, bytes.
    pub fn workspace(&self) -> Vec<u64> {
        let mut sizes = self.plans_workspace();
        sizes.extend(&self.buffers);
        sizes
    }

    /// The sizes of the buffers that the plans share.
    pub(crate) fn plans_workspace(&self) -> Vec<u64> {
        let mut sizes: Vec<u64> = Vec::new();
        for kind in &self.kinds {
            let own = kind.schedule.workspace.buffers();
            sizes.resize(sizes.len().max(own.len()), 0);
            sizes.iter_mut().zip(own).for_each(|(size, &own)| *size = own.max(*size));
        }
        sizes
    }

    /// The dispatches that copy, each shader once.
    pub(crate) fn copy_passes(&self) -> Vec<Pass> {
        let ways = self.parts.iter().flat_map(Part::accesses).map(|access| &access.way);
        let copies: Vec<_> = ways.flat_map(Way::copies).collect();
        let units = Unit::ALL.into_iter().filter(|&unit| copies.iter().any(|copy| copy.unit == unit));
        units.map(copy::pass).collect()
    }
}

impl Part {
    /// The parts of tensors that it reads, and the one that it writes at last.
    pub fn accesses(&self) -> impl Iterator<Item = &Access> {
        [Some(&self.input), self.residual.as_ref(), self.scale.as_ref(), Some(&self.output)].into_iter().flatten()
    }
}

impl Planner<'_> {
    /// How a chain is computed, band by band where a tensor or weights are larger than a binding.
    ///
    /// ```
    /// use gpuconv::planner::Planner;
    /// use gpuconv::{Caps, Choice, Conv2d, Layout};
    /// // 96 MB in, 32 MB out, and bindings of 16 MB.
    /// let caps = Caps { max_storage_binding: 16 << 20, ..Caps::webgpu() };
    /// let planner = Planner { caps: &caps, profile: &Default::default() };
    /// let conv = Conv2d::pointwise(24, 8);
    /// let division = planner.divide(&conv.into(), [1, 24, 1000, 1000], Layout::Nchw, &Choice::Auto)?;
    /// assert!(division.stretches[0].bands > 5 && division.stretches[0].extents.rows < 1000);
    /// # Ok::<(), gpuconv::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Planner::schedule`]; [`Error::TooLarge`] if a tensor is larger than a buffer, a single output depends on
    /// more than a binding holds, or the weights of a grouped or transposed convolution or a gate are larger than a
    /// binding.
    pub fn divide(&self, chain: &Chain, input: impl Into<Shape>, layout: Layout, choice: &Choice) -> Result<Division> {
        self.divide_without(&Refused::default(), chain, input.into(), layout, choice)
    }

    /// The same without shaders that the driver refused.
    pub(crate) fn divide_without(
        &self,
        refused: &Refused,
        chain: &Chain,
        input: Shape,
        layout: Layout,
        choice: &Choice,
    ) -> Result<Division> {
        let undivided = match self.batches(refused, chain, input, layout, choice) {
            Ok(division) => return Ok(division),
            Err(error) => error,
        };
        let shapes = chain.shapes(input)?;
        let is_size =
            matches!(undivided, Error::TooLarge { .. } | Error::NoKernel { .. } | Error::UnknownKernel { .. });
        let subject = Subject { chain, shapes: &shapes, layout, caps: self.caps };
        if !is_size || subject.fits_bindings() {
            return Err(undivided);
        }
        let divided = |cuts: &[stretches::Stretch], choices: &[Choice]| self.divided(refused, &subject, cuts, choices);
        let names = choice.names();
        if !names.is_empty() {
            // A name may be a kernel's that takes all links together; several are one for each step.
            if let Some(Ok(division)) = subject.as_one().map(|cuts| divided(&cuts, std::slice::from_ref(choice))) {
                return Ok(division);
            }
            if names.len() > 1 {
                let choices: Vec<_> = names.iter().map(|name| choice.renamed(name)).collect();
                let cuts = subject.one_by_one().filter(|_| choices.len() == chain.links().len());
                return cuts.map_or(Err(undivided), |cuts| divided(&cuts, &choices));
            }
        }
        divided(&subject.stretches()?, std::slice::from_ref(choice))
    }

    /// The whole batch at once, or as many images as fit at a time.
    fn batches(
        &self,
        refused: &Refused,
        chain: &Chain,
        input: Shape,
        layout: Layout,
        choice: &Choice,
    ) -> Result<Division> {
        let mut schedules = Vec::new();
        for input in band_inputs(chain, input, self.caps)? {
            let is_other = !schedules.is_empty();
            schedules.push(self.schedule_band(refused, chain, input, layout, choice, is_other)?);
        }
        Ok(Division::of_images(chain, &chain.shapes(input)?, schedules))
    }

    /// How a band is computed: the first, or another one.
    fn schedule_band(
        &self,
        refused: &Refused,
        chain: &Chain,
        input: Shape,
        layout: Layout,
        choice: &Choice,
        is_other: bool,
    ) -> Result<Schedule> {
        match self.schedule_without(refused, chain, input, layout, choice) {
            // The recipe that was asked for may be one of larger bands only.
            Err(Error::UnknownKernel { .. }) if is_other => {
                self.schedule_without(refused, chain, input, layout, &choice.of_kernels())
            }
            schedule => schedule,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::pack::Section;
    use crate::model::caps::Caps;
    use crate::model::chain::Link;
    use crate::model::concat::Concat;
    use crate::model::conv::{Conv2d, Residual};
    use crate::model::dtype::DType;
    use crate::model::gate::SqueezeExcite;
    use crate::model::resize::Resize;
    use crate::model::separable::Separable;
    use crate::model::transposed::ConvTranspose2d;

    /// Two convolutions of the same tensor, the concatenation of all three, and a slice of it.
    fn branches() -> Chain {
        let links = [Conv2d::new(3, 4, 3).padding(1).into(), Link::from(Conv2d::pointwise(3, 2))];
        let chain = Chain::new(links).reads(0, 1).unwrap().then(Link::from(Concat::new([2, 3, 4])));
        chain.concatenates([2, 0, 1], 2).unwrap().then(Link::Slice { channels: 1..6 })
    }

    /// Chains with inputs, and limits for bindings.
    fn subjects() -> Vec<(Chain, [u32; 4], u64)> {
        let add = Residual::AfterActivation;
        let net =
            |size: u32| crate::nets::mobilenet_v2(1.0, 1000).map(|net| (net.chain, [1, 3, size, size], 128 << 20));
        let mut subjects = vec![
            (Conv2d::pointwise(40, 8).into(), [1, 40, 1024, 1024], 128 << 20),
            (Conv2d::pointwise(8, 40).residual(add).into(), [1, 8, 1024, 1024], 128 << 20),
            (Conv2d::depthwise(40, 3).padding(1).into(), [1, 40, 1000, 1000], 128 << 20),
            (Conv2d::depthwise(3, 3).padding(1).stride(2).into(), [12, 3, 1001, 1001], 128 << 20),
            (Separable::new(16, 16, 5).padding(4).dilation(2).residual(add).into(), [2, 16, 999, 777], 16 << 20),
            (Conv2d::new(8, 8, 3).padding(1).into(), [1, 8, 1, 1 << 20], 16 << 20),
            (Link::GlobalAveragePool.into(), [3, 40, 500, 500], 16 << 20),
            (Link::GlobalAveragePool.into(), [1, 2, 2501, 2999], 16 << 20),
            (Link::GlobalAveragePool.into(), [2, 3, 1, 7 << 20], 16 << 20),
            (Chain::from(Conv2d::pointwise(3, 2)).then(Link::GlobalAveragePool), [1, 3, 2501, 2999], 16 << 20),
            (branches(), [2, 3, 999, 1001], 8 << 20),
            (Conv2d::new(512, 4097, 2).residual(add).into(), [2, 512, 3, 4], 16 << 20),
            (Chain::from(Conv2d::pointwise(2048, 6001)).then(Conv2d::pointwise(6001, 9)), [3, 2048, 1, 1], 16 << 20),
            (Conv2d::depthwise(13500, 49).padding(24).into(), [1, 13500, 50, 50], 128 << 20),
            (Conv2d::new(2680, 2680, 3).padding(1).groups(2).into(), [1, 2680, 128, 128], 128 << 20),
            (ConvTranspose2d::new(940, 940, 6).into(), [1, 940, 200, 200], 128 << 20),
            (Conv2d::new(96, 96, 217).padding(108).into(), [1, 96, 217, 217], 128 << 20),
            (ConvTranspose2d::new(8, 4, 4).stride(2).padding(1).into(), [1, 8, 701, 999], 16 << 20),
            (Link::PixelShuffle { factor: 3 }.into(), [1, 18, 601, 499], 16 << 20),
            (Link::PixelUnshuffle { factor: 2 }.into(), [1, 3, 1602, 1502], 16 << 20),
            (Link::Resize(Resize::by(2.0)).into(), [1, 1, 2501, 1499], 16 << 20),
            (Link::Resize(Resize::to([3001, 1777]).bilinear(true)).into(), [1, 1, 2501, 1499], 16 << 20),
            (Link::from(SqueezeExcite::new(12, 4)).into(), [2, 12, 999, 1001], 16 << 20),
        ];
        // Their sums are f32.
        let pools = [[1, 2, 2501, 3999], [2, 3, 1, 9 << 20]];
        let pool = Chain::from(Link::GlobalAveragePool).with_dtype(DType::F16);
        subjects.extend(pools.map(|input| (pool.clone(), input, 16 << 20)));
        subjects.extend(net(3072));
        subjects
    }

    #[test]
    fn bands_make_up_the_output_and_keep_to_the_limits() {
        for (chain, input, limit) in subjects() {
            for layout in [Layout::Nchw, Layout::Nhwc] {
                let caps = Caps { max_storage_binding: limit, max_buffer: 1 << 30, ..Caps::webgpu() };
                let division = crate::planner::divide(&chain, input, layout, &caps, &Choice::Auto).unwrap();
                let what = format!("{} links on {input:?} in {layout}", chain.links().len());
                assert!(division.is_divided(), "{what}");
                for recipe in division.kinds.iter().flat_map(|kind| &kind.schedule.steps).map(|step| &step.recipe) {
                    let weights: u64 = recipe.weights.iter().map(Section::bytes).sum();
                    assert!(weights <= limit, "{what}: {} with {weights} bytes of weights", recipe.name);
                }
                for access in division.parts.iter().flat_map(Part::accesses) {
                    let dtype = access.source.dtype(chain.dtype());
                    let bytes = access.shape.bytes(dtype);
                    assert!(bytes <= limit, "{what}: {access:?}");
                    let whole = match access.source {
                        Source::Tensor(tensor) => division.shapes[tensor].bytes(dtype),
                        Source::Sums { shape, .. } => shape.bytes(dtype),
                        Source::Residual | Source::Scale => u64::MAX,
                    };
                    match &access.way {
                        Way::Direct(offset) => assert!(offset.is_multiple_of(256) && offset + bytes <= whole, "{what}"),
                        Way::Copied(copies) => {
                            let span = division.places[&access.spot];
                            assert!(
                                span.bytes >= bytes && span.offset + bytes <= division.buffers[span.buffer],
                                "{what}"
                            );
                            for Copy { window, .. } in copies {
                                let fits = window.end - window.start <= limit && window.end <= whole;
                                assert!(window.start.is_multiple_of(256) && fits, "{what}: {window:?}");
                            }
                        }
                    }
                }
                // Every element of a tensor is written once: regions do not overlap, for `Links::bands` makes them of
                // ranges.
                for bands in division.parts.chunk_by(|a, b| a.output.source == b.output.source) {
                    let written: u64 = bands.iter().map(|part| part.output.shape.len()).sum();
                    let whole = match bands[0].output.source {
                        Source::Sums { shape, .. } => shape.len(),
                        Source::Tensor(tensor) => division.shapes[tensor].len(),
                        Source::Residual | Source::Scale => 0,
                    };
                    assert_eq!(written, whole, "{what}");
                }
                let bands: usize = division.stretches.iter().map(|stretch| stretch.bands).sum();
                assert_eq!(bands, division.parts.len(), "{what}");
                assert!(division.workspace().iter().all(|&bytes| bytes <= caps.max_buffer), "{what}");
            }
        }
    }

    #[test]
    fn a_single_part_needs_nothing_beside_its_plan() {
        let (chain, input) = (Chain::from(Separable::new(8, 8, 3).padding(1)), [4, 8, 32, 32]);
        let division = crate::planner::divide(&chain, input, Layout::Nchw, &Caps::webgpu(), &Choice::Auto).unwrap();
        let schedule = crate::planner::schedule(&chain, input, Layout::Nchw, &Caps::webgpu(), &Choice::Auto).unwrap();
        assert_eq!((division.parts.len(), division.buffers.len()), (1, 0));
        assert_eq!(division.schedule().name(), schedule.name());
        assert_eq!(division.workspace(), schedule.workspace.buffers());
        assert_eq!(division.parts[0].input.way, Way::Direct(0));
    }
}
