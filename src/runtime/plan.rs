//! Plans: a schedule compiled for a device, with its weights and workspace in place.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::kernels::pack::{self, Section};
use crate::kernels::{Operand, fold};
use crate::model::chain::{Chain, Link};
use crate::model::dtype::DType;
use crate::model::error::{Error, Result};
use crate::model::shape::Shape;
use crate::model::weights::Weights;
use crate::planner::Schedule;
use crate::planner::division::Slab;
use crate::planner::workspace::{Part, Span};
use crate::runtime::device::{Device, Pipeline, lock};
use crate::runtime::lru::{Slots, get_or_make};
use crate::runtime::tensor::Tensor;

/// Packed weight buffers, by the run's first link, the place of the chain that the run is of if that has not all
/// channels, and the sections: plans of all image sizes share them, unless images are so small that parts of kernels
/// see only padding. (A slab has channels of that chain's input or
/// output. Between its input and the run there may be a depthwise convolution that makes several of each.)
pub type PackedWeights = Mutex<Slots<(usize, Option<Place>, Vec<Section>), wgpu::Buffer>>;

/// The first link of what weights are for, in the layer's chain, and the channels that a band has if it has not all.
pub type Place = (usize, Option<Slab>);

/// What a schedule needs to be run: everything but the tensors and the workspace, whose sizes are in the schedule.
pub struct Plan {
    passes: Vec<PlannedPass>,
    params: wgpu::Buffer,
}

struct PlannedPass {
    pipeline: Arc<Pipeline>,
    grid: [u32; 3],
    /// Where its parameter block is in the plan's.
    params_at: u64,
    params_size: u64,
    /// The buffers of bindings 1, 2, ….
    slots: Vec<Slot>,
}

/// Where a binding's buffer comes from.
enum Slot {
    Input,
    Output,
    Residual,
    Scale,
    Weights(Arc<wgpu::Buffer>),
    Workspace(Span),
}

/// A plan bound to its tensors and a workspace: to encode it allocates nothing.
pub struct Bound {
    plan: Arc<Plan>,
    groups: Vec<wgpu::BindGroup>,
}

impl Plan {
    /// Compiles the shaders, packs the weights and writes the parameters of a schedule. The place is that of the chain,
    /// a part of the layer's, and of its weights.
    pub async fn new(
        device: &Device,
        chain: &Chain,
        weights: &[Weights<'_>],
        packed: &PackedWeights,
        place: &Place,
        schedule: &Schedule,
    ) -> Result<Self> {
        let last = schedule.shapes.len() - 1;
        let part = |part| match schedule.workspace.span(part) {
            Some(span) => Ok(Slot::Workspace(span)),
            None => Err(Error::Internal(format!("the workspace of {} has no place for {part:?}", schedule.name()))),
        };
        // A tensor may lie in the input or the output.
        let tensor = |index: usize| match schedule.workspace.outermost(index) {
            0 => Ok(Slot::Input),
            outermost if outermost == last => Ok(Slot::Output),
            _ => part(Part::Tensor(index)),
        };

        let alignment = u64::from(device.device.limits().min_uniform_buffer_offset_alignment);
        let (mut passes, mut params) = (Vec::new(), Vec::new());
        for (index, step) in schedule.steps.iter().enumerate() {
            let recipe = &step.recipe;
            let range = step.first..step.first + step.links;
            let weights = packed_weights(device, chain, weights, packed, place, range.clone(), &recipe.weights).await?;
            for pass in &recipe.passes {
                let slot = |operand: Operand| match operand {
                    Operand::Input => tensor(chain.input_of(range.start)),
                    Operand::Output => tensor(range.end),
                    Operand::Kept(link) => tensor(range.start + link + 1),
                    Operand::Residual => chain.added(&range).map_or(Ok(Slot::Residual), tensor),
                    Operand::Scale => chain.scale_of(range.start).map_or(Ok(Slot::Scale), tensor),
                    Operand::Part(place) => match chain.concatenated(range.start).get(place) {
                        Some(&source) => tensor(source),
                        None => Err(Error::Internal(format!("{} reads tensor {place} of too few", recipe.name))),
                    },
                    Operand::Weights => match &weights {
                        Some(buffer) => Ok(Slot::Weights(buffer.clone())),
                        None => Err(Error::Internal(format!("{} reads weights and packs none", recipe.name))),
                    },
                    Operand::ReadWorkspace(which) | Operand::WriteWorkspace(which) => part(Part::Scratch(index, which)),
                };
                let grid = fold(pass.workgroups, device.caps.max_workgroups).ok_or_else(|| Error::TooLarge {
                    what: format!("the grid of {}", recipe.name),
                    needed: pass.workgroups,
                    limit: u64::from(device.caps.max_workgroups).pow(2),
                })?;
                let params_at = params.len() as u64;
                params.extend_from_slice(bytemuck::bytes_of(&pass.params));
                let params_size = params.len() as u64 - params_at;
                params.resize(params.len().next_multiple_of(alignment as usize), 0);
                passes.push(PlannedPass {
                    pipeline: device.pipeline(&recipe.name, pass).await?,
                    grid,
                    params_at,
                    params_size,
                    slots: pass.operands.iter().map(|&operand| slot(operand)).collect::<Result<_>>()?,
                });
            }
        }
        let params = device.buffer_with("parameters", &params, wgpu::BufferUsages::UNIFORM).await?;
        Ok(Self { passes, params })
    }

    /// The weights that it reads, some more than once.
    pub fn weights(&self) -> impl Iterator<Item = &Arc<wgpu::Buffer>> {
        self.passes.iter().flat_map(|pass| &pass.slots).filter_map(|slot| match slot {
            Slot::Weights(weights) => Some(weights),
            _ => None,
        })
    }

    /// Bytes of its parameters.
    pub fn parameters(&self) -> u64 {
        self.params.size()
    }
}

async fn packed_weights(
    device: &Device,
    chain: &Chain,
    weights: &[Weights<'_>],
    packed: &PackedWeights,
    chains: &Place,
    links: Range<usize>,
    sections: &[Section],
) -> Result<Option<Arc<wgpu::Buffer>>> {
    if sections.is_empty() {
        return Ok(None);
    }
    let (first, slab) = chains;
    let of_channels = slab.is_some().then(|| chains.clone());
    let place = lock(packed).place((first + links.start, of_channels, sections.to_vec()));
    let make = async {
        let convs: Vec<_> = chain.links()[links.clone()].iter().flat_map(Link::convolutions).collect();
        let bytes = pack::buffer(&convs, &chain.of_links(&links, weights), sections, chain.dtype())?;
        device.buffer_with("weights", &bytes, wgpu::BufferUsages::STORAGE).await
    };
    Ok(Some(get_or_make(&place, make).await?))
}

/// The caller's tensors, or parts of them.
#[derive(Clone, Copy)]
pub struct Callers<'a> {
    pub input: &'a Tensor,
    pub residual: Option<&'a Tensor>,
    pub scale: Option<&'a Tensor>,
    pub output: &'a Tensor,
}

/// Checks the tensors of a layer, whose input has the right shape; the shapes are those of residual, scale and output,
/// the types the input's and the output's.
pub fn check_tensors(device: &Device, types: [DType; 2], shapes: [Shape; 3], tensors: Callers<'_>) -> Result<()> {
    let Callers { input, residual, scale, output } = tensors;
    let layout = input.layout();
    let named = [("residual", residual), ("scale", scale), ("output", Some(output))];
    let given = named.into_iter().zip(shapes).filter_map(|((name, tensor), shape)| Some((name, tensor?, shape)));
    for (name, tensor, expected) in given {
        if tensor.shape() != expected {
            return Err(Error::ShapeMismatch { tensor: name, expected, actual: tensor.shape() });
        }
        if tensor.layout() != layout {
            return Err(Error::LayoutMismatch { tensor: name, expected: layout, actual: tensor.layout() });
        }
    }
    for (name, tensor) in named.into_iter().chain([("input", Some(input))]) {
        let Some(tensor) = tensor else { continue };
        let expected = types[usize::from(name != "input")];
        if tensor.dtype() != expected {
            return Err(Error::DTypeMismatch { tensor: name, expected, actual: tensor.dtype() });
        }
        tensor.check(name, device)?;
        tensor.check_alignment(device.caps.storage_offset_alignment)?;
    }
    for (tensor, name) in [(Some(input), "input"), (residual, "residual"), (scale, "scale")] {
        if tensor.is_some_and(|tensor| tensor.buffer() == output.buffer()) {
            return Err(Error::Aliasing { tensor: name });
        }
    }
    Ok(())
}

impl Bound {
    /// Makes the bind groups of a plan, its tensors, which were checked, and a workspace that is large enough for it.
    pub async fn new(
        device: &Device,
        plan: Arc<Plan>,
        workspace: &[wgpu::Buffer],
        tensors: Callers<'_>,
    ) -> Result<Self> {
        if tensors.output.shape().is_empty() {
            return Ok(Self { plan, groups: Vec::new() });
        }
        let bind = |pass| bind(device, &plan, pass, workspace, tensors);
        let groups = device.scoped(|| plan.passes.iter().map(bind).collect::<Result<_>>()).await??;
        Ok(Self { plan, groups })
    }

    /// Records the dispatches into a compute pass of the caller's.
    pub fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        for (planned, group) in self.plan.passes.iter().zip(&self.groups) {
            pass.set_pipeline(&planned.pipeline.pipeline);
            pass.set_bind_group(0, group, &[]);
            let [x, y, z] = planned.grid;
            pass.dispatch_workgroups(x, y, z);
        }
    }
}

/// A tensor of the caller's that a pass reads.
fn given<'a>(tensor: Option<&'a Tensor>, name: &str) -> Result<&'a Tensor> {
    tensor.ok_or_else(|| Error::Internal(format!("a pass reads a {name}, and the layer was given none")))
}

fn bind(
    device: &Device,
    plan: &Plan,
    pass: &PlannedPass,
    workspace: &[wgpu::Buffer],
    Callers { input, residual, scale, output }: Callers<'_>,
) -> Result<wgpu::BindGroup> {
    let params = wgpu::BufferBinding {
        buffer: &plan.params,
        offset: pass.params_at,
        size: std::num::NonZeroU64::new(pass.params_size),
    };
    let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(params) }];
    for (index, slot) in pass.slots.iter().enumerate() {
        let resource = match slot {
            Slot::Input => input.binding(),
            Slot::Output => output.binding(),
            Slot::Residual => given(residual, "residual")?.binding(),
            Slot::Scale => given(scale, "scale")?.binding(),
            Slot::Weights(buffer) => buffer.as_entire_binding(),
            Slot::Workspace(span) => wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: &workspace[span.buffer],
                offset: span.offset,
                size: std::num::NonZeroU64::new(span.bytes),
            }),
        };
        entries.push(wgpu::BindGroupEntry { binding: index as u32 + 1, resource });
    }
    Ok(device.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some("gpuconv"),
        layout: &pass.pipeline.layout,
        entries: &entries,
    }))
}
