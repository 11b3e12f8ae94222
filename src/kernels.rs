//! Kernels: the ways to compute a run of links, each answering with plain data.

mod channel_blocks;
mod channels;
pub mod copy;
mod depthwise;
mod direct;
pub mod elements;
mod expand_depthwise;
mod expand_depthwise_gate;
mod flat;
mod gate;
mod gemm;
mod implicit_gemm;
mod inverted_residual;
mod matvec;
pub mod pack;
pub(crate) mod phases;
mod pointwise;
mod pointwise_mean;
mod pool;
pub(crate) mod prelu;
mod resize;
mod seen;
mod separable;
pub(crate) mod shader;
mod shuffle;
mod single;
mod split;
mod template;
mod transposed;
pub(crate) mod view;
mod window_pool;
mod winograd;

use crate::kernels::elements::Elements;
use crate::kernels::pack::{Packing, Section};
use crate::model::caps::Caps;
use crate::model::chain::{Link, scale_shape};
use crate::model::conv::Conv2d;
use crate::model::cost::params_of;
use crate::model::error::Result;
use crate::model::shape::{Layout, MOST_ELEMENTS, Shape};
pub use crate::model::unsupported::Unsupported;

pub(crate) use crate::kernels::seen::Seen;
pub use crate::kernels::shader::Wgsl;

/// One way to compute a run of links: a shader, and the function that says how to use it.
#[non_exhaustive]
pub struct Kernel {
    /// Its name, the first part of its recipes' names.
    pub name: &'static str,
    /// How many links it computes in one go, without a PReLU that is the activation of the last.
    pub links: usize,
    /// Its recipes for a run on a device, its best guess first, or why it has none. The run is what kernels see of one
    /// (`kernels/seen.rs`), and if that is refused, the run as it stands.
    pub candidates: fn(&Run<'_>, &Caps) -> Result<Vec<Recipe>, Unsupported>,
}

/// All kernels. If the model gives several recipes the same time, the first in this order is taken.
pub const KERNELS: &[Kernel] = &[
    inverted_residual::INVERTED_RESIDUAL,
    separable::SEPARABLE,
    expand_depthwise_gate::EXPAND_DEPTHWISE_GATE,
    expand_depthwise::EXPAND_DEPTHWISE,
    pointwise_mean::POINTWISE_MEAN,
    matvec::MATVEC,
    pointwise::POINTWISE_SUBGROUP,
    pointwise::POINTWISE_UNIFORM,
    pointwise::POINTWISE,
    split::SPLIT,
    depthwise::DEPTHWISE,
    winograd::WINOGRAD,
    implicit_gemm::IMPLICIT_GEMM_SUBGROUP,
    implicit_gemm::IMPLICIT_GEMM_UNIFORM,
    implicit_gemm::IMPLICIT_GEMM,
    direct::DIRECT,
    phases::PHASES,
    transposed::TRANSPOSED,
    prelu::PRELU,
    shuffle::SHUFFLE,
    channels::CHANNELS,
    resize::RESIZE,
    window_pool::WINDOW_POOL,
    pool::POOL,
    gate::GATE,
];

/// The kernel that takes every convolution, unless it is too large for the device.
pub(crate) const DIRECT: &str = direct::DIRECT.name;
/// The kernels that take every link of a kind, unless it is too large for the device.
pub(crate) const TAKE_ALL: &[&str] = &[
    DIRECT,
    transposed::TRANSPOSED.name,
    prelu::PRELU.name,
    shuffle::SHUFFLE.name,
    channels::CHANNELS.name,
    resize::RESIZE.name,
    window_pool::WINDOW_POOL.name,
    pool::POOL.name,
    gate::GATE.name,
];

/// Consecutive links of a chain for one kernel to compute, with the shapes of their tensors.
///
/// Each link reads the output of the one before. Only the last may add a residual, or the one before a PReLU; it comes
/// from outside the run. If a link after the run reads what one inside gives, a kernel must keep that: see
/// [`Operand::Kept`].
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The links, first to last; at least one.
    pub links: &'a [Link],
    /// The shapes of the run's tensors: its input's, then each link's output's.
    pub shapes: &'a [Shape],
    /// The layout of input and output.
    pub layout: Layout,
    /// The types of the elements of tensors and weights.
    pub elements: Elements,
}

impl<'a> Run<'a> {
    /// The run's only link, for kernels that compute one convolution of an input as it is.
    pub fn only_conv(&self) -> Result<&'a Conv2d, Unsupported> {
        self.convs().map(|[conv]| conv)
    }

    /// The same for kernels that also multiply what they read by a scale.
    pub fn only_conv_or_scaled(&self) -> Result<&'a Conv2d, Unsupported> {
        match self.links {
            [Link::Conv(conv)] => Ok(conv),
            _ => self.only_conv(),
        }
    }

    /// The run's links, for kernels that compute `COUNT` convolutions, none of them scaled.
    pub fn convs<const COUNT: usize>(&self) -> Result<[&'a Conv2d; COUNT], Unsupported> {
        let convs: Vec<_> = self
            .links
            .iter()
            .map(|link| link.conv().ok_or(link))
            .collect::<Result<_, _>>()
            .map_err(Unsupported::link)?;
        if self.links.iter().any(Link::is_scaled) {
            return Err(Unsupported::Scaled);
        }
        convs.try_into().map_err(|_| Unsupported::Links(self.links.len()))
    }

    /// Bytes of the input.
    pub(crate) fn input_bytes(&self) -> u64 {
        self.input().bytes(self.elements.input.dtype())
    }

    /// Whether it multiplies its input by a value for each image and channel.
    pub(crate) fn is_scaled(&self) -> bool {
        self.links.first().is_some_and(Link::is_scaled)
    }

    /// Bytes of the scale, if it has one.
    fn scale_bytes(&self) -> u64 {
        if self.is_scaled() { scale_shape(self.input()).bytes(self.elements.input.dtype()) } else { 0 }
    }

    /// Bytes of the residual, if it has one.
    fn residual_bytes(&self) -> u64 {
        if self.has_residual() { self.output_bytes() } else { 0 }
    }

    /// Bytes of the output.
    pub(crate) fn output_bytes(&self) -> u64 {
        self.output().bytes(self.elements.output.dtype())
    }

    /// The shape of the run's input.
    pub fn input(&self) -> Shape {
        self.shapes[0]
    }

    /// The shape of the run's output.
    pub fn output(&self) -> Shape {
        self.shapes[self.shapes.len() - 1]
    }

    /// A section of packed weights for the run's link `link`: this convolution, or one that replaces it.
    pub(crate) fn section(&self, link: usize, conv: &Conv2d, packing: Packing) -> Section {
        Section::new(link, conv, packing, self.elements.weights.dtype())
    }

    /// Whether the run reads a residual.
    pub fn has_residual(&self) -> bool {
        self.links.last().is_some_and(|link| link.residual().is_some())
    }
}

/// How a kernel computes a run: shaders, grids, packed weights and workspace, without a device.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Recipe {
    /// A stable name: the kernel's, then the variant's.
    pub name: String,
    /// The dispatches, in order.
    pub passes: Vec<Pass>,
    /// The sections of the weight buffer, in order.
    #[doc(hidden)]
    pub weights: Vec<Section>,
    /// Sizes of the scratch buffers, bytes.
    pub workspace: Vec<u64>,
    /// Its work, for the cost model.
    pub work: Work,
    /// The rounding error beside that of long sums, in units of f32's epsilon times the sum of the terms' magnitudes.
    pub tolerance: f64,
    /// Whether sums of small whole numbers come out exact, as they do unless a kernel transforms its operands.
    pub exact: bool,
    /// Whether rounding errors, infinities and NaNs spread to neighbouring outputs. They do with Winograd's transforms,
    /// which add terms of the neighbours that cancel in exact arithmetic.
    pub spreads_errors: bool,
}

impl Recipe {
    /// The links before the last whose outputs it stores too.
    pub(crate) fn kept(&self) -> impl Iterator<Item = usize> {
        let operands = self.passes.iter().flat_map(|pass| &pass.operands);
        operands.filter_map(|operand| if let Operand::Kept(link) = operand { Some(*link) } else { None })
    }
}

/// One dispatch.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Pass {
    /// The complete shader; its entry point is `main`.
    pub wgsl: Wgsl,
    /// What is bound at bindings 1, 2, …; binding 0 is the parameter block.
    #[doc(hidden)]
    pub operands: Vec<Operand>,
    /// The numbers that change with the image size.
    #[doc(hidden)]
    pub params: Params,
    /// Invocations in a workgroup.
    pub workgroup: u32,
    /// Workgroups to run, before they are folded into a grid.
    pub workgroups: u64,
    /// Workgroup memory, bytes.
    pub workgroup_memory: u32,
    /// Sums that an invocation makes at a time.
    pub sums: u32,
    /// Registers of 32 bits that an invocation takes. An estimate: compilers differ.
    pub registers: u32,
}

impl Pass {
    /// Effective parallelism of a workgroup, in invocations. An invocation with many sums counts once for each 16, at
    /// most four times.
    pub fn independent(&self) -> f64 {
        let sums = f64::from(self.sums) / f64::from(SUMS_OVERLAPPED);
        f64::from(self.workgroup) * sums.clamp(1.0, MOST_OVERLAPPED)
    }

    /// Effective parallelism of all workgroups.
    fn invocations(&self) -> f64 {
        self.workgroups as f64 * self.independent()
    }
}

/// Sums of an invocation that hide a GPU's latencies as well as another invocation would.
const SUMS_OVERLAPPED: u32 = 16;
/// The most invocations that one with many sums counts as. More sums keep no further part of a core busy.
const MOST_OVERLAPPED: f64 = 4.0;
/// Registers of an invocation for addresses and conditions, besides those for its values.
pub(crate) const REGISTERS_FOR_ADDRESSES: u32 = 24;

/// The name of the kernel that a recipe is of: `pointwise` of `pointwise/64x64x16`, and of itself.
pub fn kernel_of(recipe: &str) -> &str {
    recipe.split('/').next().unwrap_or(recipe)
}

/// What a shader binds.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// The run's input.
    Input,
    /// The packed weights.
    Weights,
    /// The run's output.
    Output,
    /// The residual of the last link.
    Residual,
    /// What the run's input is multiplied by, a value for each image and channel.
    Scale,
    /// The output of this link of the run, not the last, which the pass writes for links after the run.
    Kept(usize),
    /// A tensor that the run concatenates, by its place; the input is at place 0.
    Part(usize),
    /// A scratch buffer that the pass reads.
    ReadWorkspace(usize),
    /// A scratch buffer that the pass writes.
    WriteWorkspace(usize),
}

impl Operand {
    /// Whether the shader writes it.
    pub fn is_written(self) -> bool {
        matches!(self, Self::Output | Self::Kept(_) | Self::WriteWorkspace(_))
    }
}

/// The parameter block: `Params` of `params.wgsl`, number for number. Sizes are here and not constants of the shader,
/// so that layers share shaders: a network has a few kinds of layers in many sizes.
#[non_exhaustive]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Params {
    /// Images.
    pub batch: u32,
    /// Rows of the input.
    pub in_height: u32,
    /// Columns of the input.
    pub in_width: u32,
    /// Rows of the output.
    pub out_height: u32,
    /// Columns of the output.
    pub out_width: u32,
    /// Channels of the input.
    pub in_channels: u32,
    /// Channels of the output.
    pub out_channels: u32,
    /// Groups of channels.
    pub groups: u32,
    /// Input channels of a group.
    pub group_in: u32,
    /// Output channels of a group.
    pub group_out: u32,
    /// Panels of output channels in a group, for products.
    pub panels: u32,
    /// Length of a product's `k`, padded.
    pub padded_depth: u32,
    /// Length of a segment of `k`.
    pub segment_depth: u32,
    /// Where a product's weights start, in elements.
    pub weights_at: u32,
    /// Where the biases start, in elements.
    pub bias_at: u32,
    /// Tiles along a row of the output, for kernels that count them.
    pub tiles_x: u32,
    /// Tiles along a column of the output.
    pub tiles_y: u32,
    /// Rows of such a tile, where they are not fixed.
    pub strip_rows: u32,
    /// Workgroups, or invocations where workgroups do not cooperate; those beyond have no work.
    pub work: u32,
    /// The bits of the least and the greatest output that the last link's activation lets pass, if it is a clamp; here
    /// those of its slope, if it has one.
    pub low_bits: u32,
    /// See `low_bits`.
    pub high_bits: u32,
    /// Where the slopes of a PReLU start that the last link is followed by, in elements.
    pub slopes_at: u32,
    /// How many slopes there are.
    pub slopes: u32,
    /// Pixels of an image of the input, if that lies in another tensor: kernels may see other images than there are.
    pub view_in_pixels: u32,
    /// The same of the output and the residual.
    pub view_out_pixels: u32,
    /// Columns of these.
    pub view_out_width: u32,
    /// Pixels of an image of the tensor of which a pass stores some phases. Its other numbers are of these phases alone.
    pub whole_pixels: u32,
    /// Columns of it.
    pub whole_width: u32,
    /// Row of the input where a part of a resize begins.
    pub first_in_y: u32,
    /// Column of the input.
    pub first_in_x: u32,
    /// Row of the output.
    pub first_out_y: u32,
    /// Column of the output.
    pub first_out_x: u32,
}

impl Params {
    /// The sizes of a run. The kernel fills in tiles and work.
    pub fn of(run: &Run<'_>) -> Self {
        let (input, output) = (run.input(), run.output());
        let parameters = run.links.last().map(|link| link.activation().parameters());
        let [low_bits, high_bits] = parameters.unwrap_or_default().map(f32::to_bits);
        Self {
            batch: input.batch,
            in_height: input.height,
            in_width: input.width,
            out_height: output.height,
            out_width: output.width,
            in_channels: input.channels,
            out_channels: output.channels,
            low_bits,
            high_bits,
            ..Self::default()
        }
    }

    /// Adds the groups of a link, with panels of `block` output channels.
    fn grouped(self, link: &Conv2d, block: u32) -> Self {
        let [group_in, group_out] = [link.group_in_channels(), link.group_out_channels()];
        Self { groups: link.groups, group_in, group_out, panels: group_out.div_ceil(block), ..self }
    }
}

/// The work of a recipe.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Multiply-adds of all invocations, idle and recomputed ones included.
    pub mult_adds: f64,
    /// Loads from and stores to storage of all invocations. Several elements count as one in kernels for devices on
    /// which they cost the same.
    pub accesses: f64,
    /// Elements that all invocations read from workgroup memory.
    pub shared: f64,
    /// Bytes that must move from or to memory: inputs, weights, outputs, workspace.
    pub bytes: f64,
}

/// The operands of a kernel that computes its run in one dispatch.
fn single_pass_operands(run: &Run<'_>) -> Vec<Operand> {
    let mut operands = vec![Operand::Input, Operand::Weights, Operand::Output];
    if run.has_residual() {
        operands.push(Operand::Residual);
    }
    if run.is_scaled() {
        operands.push(Operand::Scale);
    }
    operands
}

/// Bytes that any kernel must move for a run: input, weights, output, residual, scale.
fn compulsory_bytes(run: &Run<'_>) -> f64 {
    let weights: u64 = run.links.iter().map(|link| params_of(link) * run.elements.weights.dtype().bytes()).sum();
    (run.input_bytes() + run.output_bytes() + weights + run.residual_bytes() + run.scale_bytes()) as f64
}

/// Workgroups folded into a grid of two dimensions, each within the limit. None if they do not fit.
pub fn fold(workgroups: u64, limit: u32) -> Option<[u32; 3]> {
    let limit = u64::from(limit);
    let x = workgroups.min(limit);
    let y = workgroups.div_ceil(x.max(1));
    let fits = y <= limit && x * y < 1 << 32;
    fits.then_some([x as u32, y as u32, 1])
}

/// Keeps the recipes that the device can run; the first reason against them if it can run none.
fn fitting(run: &Run<'_>, caps: &Caps, recipes: Vec<Recipe>) -> Result<Vec<Recipe>, Unsupported> {
    let mut reason = None;
    let mut fit = Vec::new();
    for recipe in recipes {
        match unfit(run, caps, &recipe) {
            Some(why) => reason = reason.or(Some(why)),
            None => fit.push(recipe),
        }
    }
    reason.filter(|_| fit.is_empty()).map_or(Ok(fit), Err)
}

/// The reason why the device cannot run a recipe, if there is one.
fn unfit(run: &Run<'_>, caps: &Caps, recipe: &Recipe) -> Option<Unsupported> {
    let weights = recipe.weights.iter().map(Section::bytes).sum();
    // Indices do not reach past 2^31 elements, even if a device can bind more.
    let limit = caps.max_storage_binding.min(caps.max_buffer).min(MOST_ELEMENTS * run.elements.input.dtype().bytes());
    let kept = recipe.kept().map(|link| run.shapes[link + 1].bytes(run.elements.output.dtype()));
    let buffers = [("input", run.input_bytes()), ("output", run.output_bytes()), ("weights", weights)];
    let buffers = buffers.into_iter().chain(kept.map(|bytes| ("tensor between links", bytes)));
    let mut buffers = buffers.chain(recipe.workspace.iter().map(|&bytes| ("scratch memory", bytes)));
    if let Some((what, bytes)) = buffers.find(|(_, bytes)| *bytes > limit) {
        return Some(Unsupported::Binding { what, bytes, limit });
    }
    recipe.passes.iter().find_map(|pass| {
        if pass.workgroup > caps.max_invocations {
            return Some(Unsupported::Invocations { needed: pass.workgroup, limit: caps.max_invocations });
        }
        if pass.workgroup_memory > caps.max_workgroup_memory {
            let (needed, limit) = (pass.workgroup_memory, caps.max_workgroup_memory);
            return Some(Unsupported::WorkgroupMemory { needed, limit });
        }
        let buffers = pass.operands.len() as u32;
        if buffers > caps.max_storage_buffers {
            return Some(Unsupported::StorageBuffers { needed: buffers, limit: caps.max_storage_buffers });
        }
        if let Some(limit) = caps.invocation_registers().filter(|&limit| u64::from(pass.registers) * 8 > limit * 7) {
            return Some(Unsupported::Registers { needed: pass.registers, limit });
        }
        // Shaders index all invocations of the grid, also those that folding adds.
        let most = (1 << 32) / u64::from(pass.workgroup.max(1));
        if fold(pass.workgroups, caps.max_workgroups).is_none_or(|[x, y, _]| u64::from(x) * u64::from(y) > most) {
            let limit = u64::from(caps.max_workgroups).pow(2).min(most);
            return Some(Unsupported::Grid { needed: pass.workgroups, limit });
        }
        None
    })
}
