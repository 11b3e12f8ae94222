//! `inverted_residual`: expand, depthwise and project in one dispatch, over blocks of the image. The expanded tensor,
//! six times as large as input and output in MobileNetV2, is never in memory.
//!
//! The inputs under a block overlap those of its neighbours, and are expanded once for each of them; whether that costs
//! less than the memory traffic the planner decides.

use super::gemm::tiled::{self, Tile};
use super::gemm::{Fetch, Source};
use super::{Kernel, Recipe, Run, Unsupported, fitting};
use crate::caps::Caps;
use crate::conv::Conv2d;
use crate::pack::{Order, Packing};
use crate::shader::{self, Shader};
use crate::shape::Layout;

pub const INVERTED_RESIDUAL: Kernel = Kernel { name: "inverted_residual", links: 3, candidates };

/// Rows and columns of a block, and the output channels of its workgroup.
const BLOCKS: &[([u32; 2], u32)] = &[([8, 8], 32), ([8, 8], 64), ([8, 8], 128), ([4, 8], 64), ([4, 8], 128)];
/// Expanded channels made at a time.
const DEPTH: u32 = 8;
/// The workgroup memory that WebGPU promises everywhere.
const MOST_MEMORY: u32 = 16384;

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let [expand, depthwise, project] = run.links else {
        return Err(Unsupported::Links(run.links.len()));
    };
    if caps.is_cpu {
        return Err(Unsupported::SoftwareDevice);
    }
    if run.layout != Layout::Nchw {
        return Err(Unsupported::Layout(run.layout));
    }
    let is_plain = depthwise.is_depthwise() && depthwise.out_channels == depthwise.in_channels;
    if !expand.is_pointwise() || !is_plain || !project.is_pointwise() {
        return Err(Unsupported::NotInverted);
    }
    if expand.residual.is_some() || depthwise.residual.is_some() {
        return Err(Unsupported::InnerResidual);
    }
    let blocks = BLOCKS.iter().map(|&(block, channels)| (Halo::new(depthwise, block), channels));
    let least = blocks.clone().map(|(halo, channels)| halo.tile(channels).workgroup_memory() + halo.memory()).min();
    let recipes: Vec<_> = blocks
        .filter(|(halo, channels)| halo.tile(*channels).workgroup_memory() + halo.memory() <= MOST_MEMORY)
        .map(|(halo, channels)| tiled::recipe(run, &source([expand, depthwise], halo), halo.tile(channels), caps))
        .collect();
    if recipes.is_empty() {
        return Err(Unsupported::WorkgroupMemory { needed: least.unwrap_or(0), limit: MOST_MEMORY });
    }
    fitting(run, caps, recipes)
}

/// A block of outputs, and the inputs of the depthwise convolution under it.
#[derive(Clone, Copy)]
struct Halo {
    block: [u32; 2],
    height: u32,
    /// Quads of a row.
    quads: u32,
}

impl Halo {
    fn new(depthwise: &Conv2d, block: [u32; 2]) -> Self {
        let extent = |axis: usize| {
            let kernel = (depthwise.kernel_size[axis] - 1).saturating_mul(depthwise.dilation[axis]).saturating_add(1);
            (block[axis] - 1).saturating_mul(depthwise.stride[axis]).saturating_add(kernel)
        };
        Self { block, height: extent(0), quads: extent(1).div_ceil(4) }
    }

    fn pixels(&self) -> u32 {
        self.height.saturating_mul(self.quads).saturating_mul(4)
    }

    /// Workgroup memory for the expanded channels, bytes.
    fn memory(&self) -> u32 {
        self.pixels().saturating_mul(DEPTH * 4)
    }

    fn tile(&self, channels: u32) -> Tile {
        let pixels = self.block[0] * self.block[1];
        Tile { channels, pixels, depth: DEPTH, micro_channels: 8, micro_pixels: 4 }
    }
}

fn source([expand, depthwise]: [&Conv2d; 2], halo: Halo) -> Source {
    let [height, width] = halo.block;
    let taps = depthwise.fan_in();
    let wgsl = Shader::new(include_str!("../../shaders/source_inverted_nchw.wgsl"))
        .add(&shader::inner_activation("activate_expanded", expand.activation))
        .add(&shader::inner_activation("activate_depthwise", depthwise.activation))
        .constants(&shader::geometry(depthwise))
        .constants(&[
            ("BLOCK_HEIGHT", height.into()),
            ("BLOCK_WIDTH", width.into()),
            ("HALO_HEIGHT", halo.height.into()),
            ("HALO_QUADS", halo.quads.into()),
            ("EXPAND_DEPTH", expand.in_channels.into()),
            ("TAP_QUADS", taps.div_ceil(4)),
        ])
        .text();
    let order = Order::ChannelFirst;
    // Expanded channels for each staged value, the halo's with it.
    let expanded = f64::from(halo.pixels()) / f64::from(height * width);
    let inputs = f64::from(expand.in_channels);
    Source {
        kernel: INVERTED_RESIDUAL.name,
        wgsl,
        fetch: Fetch::Blocks { height, width, memory: halo.memory() },
        order,
        link: 2,
        before: vec![
            (0, Packing::Panels { block: DEPTH, k_align: 1, order }, "EXPAND_AT"),
            (0, Packing::Bias { block: DEPTH }, "EXPAND_BIAS_AT"),
            (1, Packing::Panels { block: 1, k_align: 4, order }, "DEPTHWISE_AT"),
            (1, Packing::Bias { block: 1 }, "DEPTHWISE_BIAS_AT"),
        ],
        // Four expanded channels share an input, and four inputs a weight.
        loads: expanded * inputs / 2.0 + taps as f64 / 4.0,
        mult_adds: expanded * inputs + taps as f64,
    }
}
