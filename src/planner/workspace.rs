//! The workspace of a plan: tensors between its steps and the steps' own scratch, in as little memory as their
//! lifetimes allow.

pub(crate) mod arrange;
pub(crate) mod in_place;

use std::collections::HashMap;

use crate::model::caps::Caps;

use arrange::{Arrangement, Limits, Uses, arrange};
use in_place::{InPlace, Steps};

/// What a plan needs beside its input, output and weights, and where each part of it lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workspace {
    parts: HashMap<Part, usize>,
    sizes: Vec<u64>,
    arrangement: Arrangement,
    in_place: InPlace,
}

/// A part of a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// A tensor between two steps, by its index in the chain.
    Tensor(usize),
    /// A step's own scratch: the step, and which of its recipe's.
    Scratch(usize, usize),
}

/// Bytes of one of a workspace's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub buffer: usize,
    pub offset: u64,
    pub bytes: u64,
}

impl Workspace {
    /// The workspace of some steps that compute a chain.
    pub(crate) fn new(steps: Steps<'_>, in_place: InPlace, caps: &Caps) -> Self {
        let (mut workspace, mut dispatches) = (Self { in_place, ..Self::default() }, Vec::new());
        for (index, step) in steps.steps.iter().enumerate() {
            for pass in &step.recipe.passes {
                let mut uses = Uses::default();
                for &operand in &pass.operands {
                    let Some((part, bytes)) = steps.part(index, operand, &workspace.in_place) else { continue };
                    let value = workspace.value(part, bytes);
                    if operand.is_written() { &mut uses.writes } else { &mut uses.reads }.push(value);
                }
                dispatches.push(uses);
            }
        }
        let limits = Limits { alignment: caps.storage_offset_alignment.into(), buffer: caps.max_buffer };
        workspace.arrangement = arrange(&workspace.sizes, &dispatches, limits);
        workspace
    }

    /// A workspace of these buffers, of whose parts nothing is known.
    pub(crate) fn of_buffers(buffers: Vec<u64>) -> Self {
        let (sizes, arrangement) = (buffers.clone(), Arrangement { places: Vec::new(), buffers });
        Self { sizes, arrangement, ..Self::default() }
    }

    /// The number of a part, a new one if it has none yet.
    fn value(&mut self, part: Part, bytes: u64) -> usize {
        *self.parts.entry(part).or_insert_with(|| {
            // No empty buffer can be bound.
            self.sizes.push(bytes.max(4).next_multiple_of(4));
            self.sizes.len() - 1
        })
    }

    /// Where a part lies; none for a tensor that is the caller's or that is never in memory.
    pub(crate) fn span(&self, part: Part) -> Option<Span> {
        let (outermost, offset) = self.in_place.outermost(part);
        let value = *self.parts.get(&outermost)?;
        let place = self.arrangement.places[value];
        let bytes = self.in_place.home(part).map_or(self.sizes[value], |home| home.bytes.max(4).next_multiple_of(4));
        Some(Span { buffer: place.buffer, offset: place.offset + offset, bytes })
    }

    /// The tensor of the chain that a tensor lies in, or that tensor.
    pub(crate) fn outermost(&self, tensor: usize) -> usize {
        match self.in_place.outermost(Part::Tensor(tensor)).0 {
            Part::Tensor(outermost) => outermost,
            Part::Scratch(..) => tensor,
        }
    }

    /// Whether a recipe of these steps loads or stores a tensor that lies in another one, by a shader made for that.
    pub(crate) fn has_views(&self, step: usize) -> bool {
        self.in_place.has_views(step)
    }

    /// The sizes of its buffers, bytes, the largest first.
    pub fn buffers(&self) -> &[u64] {
        &self.arrangement.buffers
    }

    /// Bytes that it takes: the peak of a plan beside input, output and weights.
    pub fn bytes(&self) -> u64 {
        self.arrangement.buffers.iter().sum()
    }

    /// Bytes that it would take if no memory were used twice.
    pub fn bytes_without_reuse(&self) -> u64 {
        self.sizes.iter().sum()
    }
}
