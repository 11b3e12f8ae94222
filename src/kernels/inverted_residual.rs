//! `inverted_residual`: expand, depthwise and project in one dispatch, over blocks of the image. The expanded tensor,
//! six times as large as input and output in MobileNetV2, is never in memory.
//!
//! The inputs under a block overlap those of its neighbours, and are expanded once for each of them; whether that costs
//! less than the memory traffic the planner decides.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::gemm::tiled::{self, Tile};
use super::gemm::window::{Lines, MOST_ROWS, MOST_TAPS};
use super::gemm::{Fetch, Source};
use super::{Kernel, Recipe, Run, Unsupported, fitting};
use crate::caps::Caps;
use crate::conv::Conv2d;
use crate::pack::{Order, Packing};
use crate::shader::{self, COMPONENTS, Shader};
use crate::shape::Layout;

pub const INVERTED_RESIDUAL: Kernel = Kernel { name: "inverted_residual", links: 3, candidates };

/// Columns of a block.
const BLOCK_WIDTH: u32 = 8;
/// The pixels of a tile are those of a block. With a depth of 8 there is memory for the halos of strided blocks.
const TILES: &[Tile] = &[
    Tile { channels: 32, pixels: 64, depth: 16, micro_channels: 8, micro_pixels: 4 },
    Tile { channels: 64, pixels: 64, depth: 16, micro_channels: 8, micro_pixels: 8 },
    Tile { channels: 128, pixels: 64, depth: 16, micro_channels: 8, micro_pixels: 8 },
    Tile { channels: 128, pixels: 32, depth: 16, micro_channels: 8, micro_pixels: 8 },
    Tile { channels: 64, pixels: 32, depth: 16, micro_channels: 8, micro_pixels: 4 },
    Tile { channels: 32, pixels: 64, depth: 8, micro_channels: 8, micro_pixels: 4 },
];
/// Expanded channels that an invocation makes at a time.
const EXPANDED: u32 = 8;
/// The workgroup memory that WebGPU promises everywhere.
const MOST_MEMORY: u32 = 16384;

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let [expand, depthwise, project] = run.links else {
        return Err(Unsupported::Links(run.links.len()));
    };
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
    let blocks = TILES.iter().map(|&tile| Block::new(depthwise, tile));
    let recipes: Vec<_> = blocks
        .clone()
        .filter(|block| block.memory() <= MOST_MEMORY)
        .map(|block| tiled::recipe(run, &source(run.layout, [expand, depthwise], block), block.tile, caps))
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
struct Block {
    tile: Tile,
    halo_height: u32,
    /// Quads of a row.
    halo_quads: u32,
}

impl Block {
    fn new(depthwise: &Conv2d, tile: Tile) -> Self {
        let extent = |axis: usize, outputs: u32| {
            let kernel = (depthwise.kernel_size[axis] - 1).saturating_mul(depthwise.dilation[axis]).saturating_add(1);
            (outputs - 1).saturating_mul(depthwise.stride[axis]).saturating_add(kernel)
        };
        let [halo_height, width] = [extent(0, tile.pixels / BLOCK_WIDTH), extent(1, BLOCK_WIDTH)];
        Self { tile, halo_height, halo_quads: width.div_ceil(4) }
    }

    /// Quads of a channel of the halo.
    fn items(&self) -> u32 {
        self.halo_height.saturating_mul(self.halo_quads)
    }

    /// Quads of workgroup memory for the expanded channels.
    fn staged(&self) -> u32 {
        self.items().saturating_mul(self.tile.depth)
    }

    /// Workgroup memory, bytes.
    fn memory(&self) -> u32 {
        self.tile.workgroup_memory(self.staged())
    }

    /// Quads of a row under four neighbouring outputs.
    fn quads(link: &Conv2d) -> BTreeSet<u32> {
        Lines::columns(link, 4, 0).all.into_iter().map(|column| column / 4).collect()
    }

    /// `depthwise`, for a quad of neighbours: the taps of a row written out, and the rows, if they are few.
    fn depthwise(&self, link: &Conv2d) -> String {
        let [kernel_height, kernel_width] = link.kernel_size;
        let mut text = String::from(
            "fn depthwise(channel: u32, first: u32) -> vec4<f32> {\n\
             \x20   var sum = vec4<f32>(weights[DEPTHWISE_BIAS_AT + channel / 4u][channel % 4u]);\n",
        );
        if kernel_height > MOST_ROWS {
            text.push_str("    for (var ky = 0u; ky < opaque(KERNEL_HEIGHT); ky++) {\n");
            let weight = |kx: u32| {
                let tap = format!("(ky * KERNEL_WIDTH + {kx}u)");
                format!("weights[DEPTHWISE_AT + channel * TAP_QUADS + {tap} / 4u][{tap} % 4u]")
            };
            Self::add_row(&mut text, link, "first + ky * DILATION_Y * HALO_QUADS", weight);
            text.push_str("    }\n");
        } else {
            for quad in 0..link.fan_in().div_ceil(4) {
                let _ = writeln!(text, "    let w{quad} = weights[DEPTHWISE_AT + channel * TAP_QUADS + {quad}u];");
            }
            for ky in 0..kernel_height {
                let weight = |kx: u32| {
                    let tap = ky * kernel_width + kx;
                    format!("w{}.{}", tap / 4, COMPONENTS[tap as usize % 4])
                };
                text.push_str("    {\n");
                Self::add_row(&mut text, link, &format!("first + {ky}u * DILATION_Y * HALO_QUADS"), weight);
                text.push_str("    }\n");
            }
        }
        text.push_str("    return activate_depthwise4(sum);\n}\n");
        text
    }

    /// Adds the products of a row that starts somewhere, with the weights of its taps.
    fn add_row(text: &mut String, link: &Conv2d, at: &str, weight: impl Fn(u32) -> String) {
        let _ = writeln!(text, "        let at = {at};");
        for quad in Self::quads(link) {
            let _ = writeln!(text, "        let v{quad} = channel_tile[at + {quad}u];");
        }
        for kx in 0..link.kernel_size[1] {
            let value = |output: u32| {
                let column = output * link.stride[1] + kx * link.dilation[1];
                format!("v{}.{}", column / 4, COMPONENTS[column as usize % 4])
            };
            let values: Vec<_> = (0..4).map(value).collect();
            let _ =
                writeln!(text, "        sum = fma(vec4<f32>({}), vec4<f32>({}), sum);", values.join(", "), weight(kx));
        }
    }
}

fn source(layout: Layout, [expand, depthwise]: [&Conv2d; 2], block: Block) -> Source {
    let Tile { pixels, depth, .. } = block.tile;
    let height = pixels / BLOCK_WIDTH;
    let taps = depthwise.fan_in();
    // Input channels expanded at a time.
    let step = [4u32, 2, 1].into_iter().find(|step| expand.in_channels.is_multiple_of(*step)).unwrap_or(1);
    let wgsl = Shader::new(include_str!("../../shaders/source_inverted.wgsl"))
        .add(match layout {
            Layout::Nchw => include_str!("../../shaders/expand_nchw.wgsl"),
            Layout::Nhwc => include_str!("../../shaders/expand_nhwc.wgsl"),
        })
        .add(&shader::inner_activation("activate_expanded", expand.activation))
        .add(&shader::inner_activation("activate_depthwise", depthwise.activation))
        .add(&block.depthwise(depthwise))
        .constants(&shader::geometry(depthwise))
        .constants(&[
            ("BLOCK_HEIGHT", height.into()),
            ("BLOCK_WIDTH", BLOCK_WIDTH.into()),
            ("HALO_HEIGHT", block.halo_height.into()),
            ("HALO_QUADS", block.halo_quads.into()),
            ("EXPAND_DEPTH", expand.in_channels.into()),
            ("EXPAND_STEP", step.into()),
            ("EXPANDED", EXPANDED.into()),
            ("TAP_QUADS", taps.div_ceil(4)),
        ])
        .text();
    let order = Order::ChannelFirst;
    // Expanded channels for each staged value, the halo's with it; idle invocations in the last turn make as many.
    let turns = (block.items() * depth / EXPANDED).div_ceil(block.tile.threads());
    let made = turns * block.tile.threads() * EXPANDED * 4;
    let expanded = f64::from(made) / f64::from(pixels * depth);
    let inputs = f64::from(expand.in_channels);
    Source {
        kernel: INVERTED_RESIDUAL.name,
        wgsl,
        fetch: Fetch::Blocks { height, width: BLOCK_WIDTH, staged: block.staged() },
        order,
        link: 2,
        before: vec![
            (0, Packing::Panels { block: depth, k_align: 1, order }, "EXPAND_AT"),
            (0, Packing::Bias { block: depth }, "EXPAND_BIAS_AT"),
            (1, Packing::Panels { block: 1, k_align: 4, order }, "DEPTHWISE_AT"),
            (1, Packing::Bias { block: 1 }, "DEPTHWISE_BIAS_AT"),
        ],
        // Eight expanded channels share an input, and four inputs a weight.
        loads: expanded * inputs * (1.0 / 8.0 + 1.0 / 4.0) + taps as f64 / 4.0,
        mult_adds: expanded * inputs + taps as f64,
        // Quads under four outputs, which were stored before.
        shared: f64::from(depthwise.kernel_size[0]) * Block::quads(depthwise).len() as f64 + expanded,
        // Eight quads of sums, four inputs and eight weights.
        registers: 44,
    }
}
