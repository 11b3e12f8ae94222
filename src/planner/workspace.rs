//! The workspace of a plan: tensors between its steps and the steps' own scratch, in as little memory as their
//! lifetimes allow.

pub(crate) mod arrange;

use std::collections::HashMap;

use crate::kernels::Operand;
use crate::model::caps::Caps;
use crate::model::chain::Chain;
use crate::model::shape::Shape;
use crate::planner::Step;

use arrange::{Arrangement, Limits, Uses, arrange};

/// What a plan needs beside its input, output and weights, and where each part of it lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workspace {
    parts: HashMap<Part, usize>,
    sizes: Vec<u64>,
    arrangement: Arrangement,
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
    pub(crate) fn new(chain: &Chain, shapes: &[Shape], steps: &[Step], caps: &Caps) -> Self {
        let (mut workspace, dtype) = (Self::default(), chain.dtype());
        let mut dispatches = Vec::new();
        let inner = |tensor: usize| (1..shapes.len() - 1).contains(&tensor).then_some(Part::Tensor(tensor));
        for (index, step) in steps.iter().enumerate() {
            let (first, end) = (step.first, step.first + step.links);
            for pass in &step.recipe.passes {
                let mut uses = Uses::default();
                for &operand in &pass.operands {
                    let (part, bytes) = match operand {
                        Operand::Weights => continue,
                        Operand::Input => {
                            let source = chain.input_of(first);
                            (inner(source), shapes[source].bytes(dtype))
                        }
                        Operand::Scale => match chain.scale_of(first) {
                            Some(source) => (inner(source), shapes[source].bytes(dtype)),
                            None => continue,
                        },
                        Operand::Part(place) => match chain.concatenated(first).get(place) {
                            Some(&source) => (inner(source), shapes[source].bytes(dtype)),
                            None => continue,
                        },
                        Operand::Output => (inner(end), shapes[end].bytes(dtype)),
                        Operand::Kept(link) => {
                            let tensor = first + link + 1;
                            (inner(tensor), shapes[tensor].bytes(dtype))
                        }
                        Operand::Residual => match chain.source(end - 1) {
                            Some(source) => (inner(source), shapes[source].bytes(dtype)),
                            None => continue,
                        },
                        Operand::ReadWorkspace(which) | Operand::WriteWorkspace(which) => {
                            (Some(Part::Scratch(index, which)), step.recipe.workspace[which])
                        }
                    };
                    let Some(part) = part else { continue };
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
        Self { parts: HashMap::new(), sizes, arrangement }
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
        let value = *self.parts.get(&part)?;
        let place = self.arrangement.places[value];
        Some(Span { buffer: place.buffer, offset: place.offset, bytes: self.sizes[value] })
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
