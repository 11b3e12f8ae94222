//! `inverted_residual`: expand, depthwise and project in one dispatch, over blocks of the image. The expanded tensor,
//! six times as large as input and output in MobileNetV2, is never in memory.
//!
//! The inputs under a block overlap those under its neighbours, and are expanded once for each block. The planner
//! decides whether that costs less than the memory traffic.

use std::sync::Arc;

use minijinja::{Value, context};

use super::gemm::tiled::{self, Tile};
use super::gemm::window::{MOST_TAPS, columns_seen};
use super::gemm::{Fetch, Source};
use super::{Kernel, Recipe, Run, Unsupported, fitting};
use crate::kernels::pack::{Order, Packing};
use crate::kernels::shader;
use crate::model::caps::Caps;
use crate::model::conv::Conv2d;
use crate::model::shape::{Layout, Shape};

pub const INVERTED_RESIDUAL: Kernel = Kernel { name: "inverted_residual", links: 3, candidates };

/// Columns of a block.
pub const BLOCK_WIDTH: u32 = 8;
/// The pixels of a tile are those of a block. With a depth of 8 there is memory for the halos of strided blocks.
const TILES: &[Tile] = &[
    Tile::new([32, 64, 16], [8, 4]),
    Tile::new([64, 64, 16], [8, 8]),
    Tile::new([128, 64, 16], [8, 8]),
    Tile::new([128, 32, 16], [8, 8]),
    Tile::new([64, 32, 16], [8, 4]),
    Tile::new([32, 64, 8], [8, 4]),
];
/// The workgroup memory that WebGPU promises everywhere.
pub const MOST_MEMORY: u32 = 16384;

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let [expand, depthwise, project] = run.convs()?;
    if caps.is_cpu {
        return Err(Unsupported::SoftwareDevice);
    }
    let is_plain = depthwise.is_depthwise() && depthwise.out_channels == depthwise.in_channels;
    if !expand.is_pointwise() || !is_plain || !project.is_pointwise() {
        return Err(Unsupported::NotInverted);
    }
    if expand.residual.is_some() || depthwise.residual.is_some() {
        return Err(Unsupported::InnerResidual);
    }
    // Pixels are read by quads of channels.
    if run.layout == Layout::Nhwc && !expand.in_channels.is_multiple_of(4) {
        return Err(Unsupported::InChannels(expand.in_channels));
    }
    if depthwise.fan_in() > MOST_TAPS {
        return Err(Unsupported::KernelSize(depthwise.kernel_size));
    }
    let blocks = TILES.iter().map(|&tile| Block::new(depthwise, tile)).filter(|block| block.suits(caps));
    let recipes: Vec<_> = blocks
        .clone()
        .filter(|block| block.memory() <= MOST_MEMORY)
        .map(|block| tiled::recipe(run, &source(run, [expand, depthwise, project], block, caps), block.tile, caps))
        .collect();
    if recipes.is_empty() {
        return Err(Unsupported::WorkgroupMemory {
            needed: blocks.map(|block| block.memory()).min().unwrap_or(0),
            limit: MOST_MEMORY,
        });
    }
    fitting(run, caps, recipes)
}

/// A block of outputs, and the inputs of the depthwise convolution under it, the halo.
#[derive(Clone, Copy)]
pub struct Block {
    pub tile: Tile,
    halo_height: u32,
    halo_width: u32,
    /// The most rows and columns of the halo that are in the image, if only these are expanded.
    clipped: Option<[u32; 2]>,
}

impl Block {
    pub fn new(depthwise: &Conv2d, tile: Tile) -> Self {
        let extent = |axis: usize, outputs: u32| {
            let kernel = (depthwise.kernel_size[axis] - 1).saturating_mul(depthwise.dilation[axis]).saturating_add(1);
            (outputs - 1).saturating_mul(depthwise.stride[axis]).saturating_add(kernel)
        };
        let [halo_height, halo_width] = [extent(0, tile.pixels / BLOCK_WIDTH), extent(1, BLOCK_WIDTH)];
        Self { tile, halo_height, halo_width, clipped: None }
    }

    /// The same for small images, of which no block sees a whole halo: only what is in the image is expanded, and zeros
    /// are put around it before.
    pub fn clip(self, image: Shape) -> Self {
        let inside = [self.halo_height.min(image.height), self.halo_width.min(image.width)];
        let is_smaller = inside != [self.halo_height, self.halo_width];
        Self { clipped: is_smaller.then_some(inside), ..self }
    }

    /// Inputs of a row in workgroup memory. An odd number of quads spreads the rows, which neighbouring lanes read,
    /// over all banks, or over half of them at a stride of two.
    fn pitch(&self) -> u32 {
        self.halo_width | 1
    }

    /// Quads of workgroup memory for the expanded channels.
    pub fn staged(&self) -> u32 {
        self.halo_height.saturating_mul(self.pitch()).saturating_mul(self.tile.depth / 4)
    }

    /// Workgroup memory, bytes.
    fn memory(&self) -> u32 {
        self.tile.workgroup_memory(self.staged())
    }

    /// Inputs that an invocation expands.
    pub fn inputs(&self) -> u32 {
        let [rows, columns] = self.clipped.unwrap_or([self.halo_height, self.halo_width]);
        rows.saturating_mul(columns).div_ceil(self.tile.threads())
    }

    /// Whether a compiler that loads ahead has registers for what it expands at a time: Mesa's for Adreno 630 spills
    /// beside more channels.
    pub fn suits(&self, caps: &Caps) -> bool {
        !caps.loads_ahead() || self.expanded() <= 8
    }

    /// To how many channels at a time: as many as there are registers for beside the sums of the product.
    pub fn expanded(&self) -> u32 {
        match self.inputs() {
            0..=2 => self.tile.depth,
            3..=5 => 8,
            _ => 4,
        }
    }
}

fn source(run: &Run<'_>, [expand, depthwise, project]: [&Conv2d; 3], block: Block, caps: &Caps) -> Source {
    let Tile { pixels, depth, .. } = block.tile;
    let height = pixels / BLOCK_WIDTH;
    let taps = depthwise.fan_in();
    let expand_depth = expand.in_channels.next_multiple_of(4);
    let links = [expand.clone(), depthwise.clone()];
    // Channels that fill up a step have weights of zero, which make NaNs of infinities; those no channel may share.
    let share_nans = depthwise.out_channels.is_multiple_of(depth) && !caps.selects_as_it_compares();
    let values = move || block_values(&links, block, share_nans);
    let order = Order::ChannelFirst;
    let (inputs, channels) = (f64::from(block.inputs()), f64::from(block.expanded()));
    // Expanded values for each staged one, the halo's with them; invocations without an input make as many.
    let expanded = inputs * f64::from(block.tile.threads()) / f64::from(pixels);
    let columns = columns_seen(depthwise, 4).len() as f64;
    Source {
        kernel: INVERTED_RESIDUAL.name,
        template: ("source_inverted.wgsl", Arc::new(values)),
        fetch: Fetch::Blocks { height, width: BLOCK_WIDTH, staged: block.staged() },
        order,
        conv: project.clone(),
        link: 2,
        before: vec![
            (run.section(0, expand, Packing::Panels { block: depth, k_align: 4, order }), "EXPAND_AT"),
            (run.section(0, expand, Packing::Bias { block: depth }), "EXPAND_BIAS_AT"),
            (run.section(1, depthwise, Packing::BlockTaps { block: 4 }), "DEPTHWISE_AT"),
            (run.section(1, depthwise, Packing::Bias { block: 1 }), "DEPTHWISE_BIAS_AT"),
        ],
        // Channels share an input, and inputs a weight, of which four come at a time.
        loads: expanded * f64::from(expand_depth) * (1.0 / channels + 0.25 / inputs) + taps as f64 / 4.0,
        mult_adds: expanded * f64::from(expand_depth) + taps as f64,
        // The columns under four outputs, which were stored before.
        shared: f64::from(depthwise.kernel_size[0]) * columns / 4.0 + expanded,
        // Sums and inputs of the expansion, whose weights all lanes share; or those of the depthwise convolution, and
        // the weights of a row, which a wide one loads as it goes.
        registers: (block.inputs() * (block.expanded() + 4)).max(24 + 4 * depthwise.kernel_size[1].min(4)),
        place: 0,
        kept: 0,
    }
}

/// What the source's template asks for. With `share_nans` the channels of a pixel may, for all are added up in the end.
pub fn block_values([expand, depthwise]: &[Conv2d; 2], block: Block, share_nans: bool) -> Value {
    let pixels = block.tile.pixels;
    let activation =
        |name, link: &Conv2d, quads| shader::inner_activation_values(name, link.activation, quads, share_nans);
    context! {
        geometry => shader::geometry_values(depthwise),
        inner_activations => [
            activation("expanded", expand, block.expanded() / 4),
            activation("depthwise", depthwise, 1),
        ],
        BLOCK_HEIGHT => pixels / BLOCK_WIDTH,
        BLOCK_WIDTH,
        HALO_HEIGHT => block.halo_height,
        HALO_WIDTH => block.halo_width,
        HALO_PITCH => block.pitch(),
        CLIPPED => block.clipped.is_some(),
        INPUT_COLUMNS => block.clipped.map_or(block.halo_width, |[_, columns]| columns),
        INPUTS => block.inputs(),
        EXPANDED => block.expanded(),
        EXPAND_DEPTH => expand.in_channels,
        HIDDEN_CHANNELS => depthwise.out_channels,
        WINDOW_COLUMNS => columns_seen(depthwise, 4),
    }
}
