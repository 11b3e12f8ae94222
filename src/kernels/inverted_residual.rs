//! `inverted_residual`: expand, depthwise and project in one dispatch, over blocks of the image. The expanded tensor,
//! six times as large as input and output in MobileNetV2, is never in memory.
//!
//! The inputs under a block overlap those of its neighbours, and are expanded once for each of them; whether that costs
//! less than the memory traffic the planner decides.

use std::fmt::Write as _;

use super::gemm::tiled::{self, Tile};
use super::gemm::window::{Lines, MOST_TAPS};
use super::gemm::{Fetch, Source};
use super::{Kernel, Recipe, Run, Unsupported, Wgsl, fitting};
use crate::kernels::pack::{Order, Packing};
use crate::kernels::shader::{self, COMPONENTS, Shader};
use crate::model::caps::Caps;
use crate::model::conv::Conv2d;
use crate::model::shape::Layout;

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
/// The workgroup memory that WebGPU promises everywhere.
const MOST_MEMORY: u32 = 16384;

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
    let blocks = TILES.iter().map(|&tile| Block::new(depthwise, tile));
    let recipes: Vec<_> = blocks
        .clone()
        .filter(|block| block.memory() <= MOST_MEMORY)
        .map(|block| tiled::recipe(run, &source(run, [expand, depthwise, project], block), block.tile, caps))
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
    halo_width: u32,
}

impl Block {
    fn new(depthwise: &Conv2d, tile: Tile) -> Self {
        let extent = |axis: usize, outputs: u32| {
            let kernel = (depthwise.kernel_size[axis] - 1).saturating_mul(depthwise.dilation[axis]).saturating_add(1);
            (outputs - 1).saturating_mul(depthwise.stride[axis]).saturating_add(kernel)
        };
        let [halo_height, halo_width] = [extent(0, tile.pixels / BLOCK_WIDTH), extent(1, BLOCK_WIDTH)];
        Self { tile, halo_height, halo_width }
    }

    /// Inputs of a row in workgroup memory. An odd number of quads spreads the rows, which neighbouring lanes read, over
    /// all banks, or over half of them at a stride of two.
    fn pitch(&self) -> u32 {
        self.halo_width | 1
    }

    /// Quads of workgroup memory for the expanded channels.
    fn staged(&self) -> u32 {
        self.halo_height.saturating_mul(self.pitch()).saturating_mul(self.tile.depth / 4)
    }

    /// Workgroup memory, bytes.
    fn memory(&self) -> u32 {
        self.tile.workgroup_memory(self.staged())
    }

    /// Inputs that an invocation expands.
    fn inputs(&self) -> u32 {
        self.halo_height.saturating_mul(self.halo_width).div_ceil(self.tile.threads())
    }

    /// To how many channels at a time: as many as there are registers for beside the sums of the product.
    fn expanded(&self) -> u32 {
        match self.inputs() {
            0..=2 => self.tile.depth,
            3..=5 => 8,
            _ => 4,
        }
    }

    /// `Place` and `staged_place`: what an invocation's inputs and results have in common for all k.
    fn place(&self) -> String {
        let mut text = String::from("struct Place {\n");
        for input in 0..self.inputs() {
            let _ = writeln!(text, "    i{input}: HaloInput,");
        }
        text.push_str(
            "    results: HaloResults,\n}\n\
             fn staged_place(first_pixel: u32, group: u32, local: u32) -> Place {\n\
             \x20   let corner = halo_corner(first_pixel);\n\
             \x20   return Place(\n",
        );
        for input in 0..self.inputs() {
            // Neighbouring lanes have neighbouring inputs.
            let _ = writeln!(text, "        halo_input(local + {input}u * THREADS, corner),");
        }
        text.push_str("        halo_results(local),\n    );\n}\n");
        text
    }

    /// `expand`: some channels at all inputs of an invocation.
    fn expand(&self) -> String {
        let (inputs, quads) = (self.inputs(), self.expanded() / 4);
        let mut text = String::from("fn expand(k0: u32, k: u32, place: Place) {\n");
        text.push_str("    let bias_at = EXPAND_BIAS_AT + (k0 + k) / 4u;\n");
        for (input, quad) in (0..inputs).flat_map(|input| (0..quads).map(move |quad| (input, quad))) {
            let _ = writeln!(text, "    var s{input}_{quad} = weights[bias_at + {quad}u];");
        }
        // A panel of weights has TILE_DEPTH expanded channels.
        text.push_str(
            "    let weights_at = EXPAND_AT + (k0 * EXPAND_DEPTH_PADDED + k) / 4u;\n\
             \x20   for (var channel = 0u; channel < opaque(EXPAND_DEPTH); channel += 4u) {\n",
        );
        for input in 0..inputs {
            let _ = writeln!(text, "        let v{input} = load_channels(place.i{input}.at, channel);");
        }
        text.push_str("        let at = weights_at + channel * (TILE_DEPTH / 4u);\n");
        for (channel, component) in COMPONENTS.iter().enumerate() {
            for quad in 0..quads {
                let weight = format!("w{channel}_{quad}");
                let _ =
                    writeln!(text, "        let {weight} = weights[at + {channel}u * (TILE_DEPTH / 4u) + {quad}u];");
                for input in 0..inputs {
                    let sum = format!("s{input}_{quad}");
                    let _ = writeln!(text, "        {sum} = fma(vec4<f32>(v{input}.{component}), {weight}, {sum});");
                }
            }
        }
        text.push_str("    }\n");
        for input in 0..inputs {
            let sums: Vec<_> = (0..quads).map(|quad| format!("s{input}_{quad}")).collect();
            let _ = writeln!(text, "    let at{input} = k / 4u * HALO_ITEMS + place.i{input}.item;");
            let _ = writeln!(text, "    if place.i{input}.inside {{");
            let pointers: Vec<_> = sums.iter().map(|sum| format!("&{sum}")).collect();
            let _ = writeln!(text, "        activate_expanded_pixel({});", pointers.join(", "));
            for (quad, sum) in sums.iter().enumerate() {
                let _ = writeln!(text, "        channel_tile[at{input} + {quad}u * HALO_ITEMS] = {sum};");
            }
            let _ = writeln!(text, "    }} else if place.i{input}.padding {{");
            for quad in 0..quads {
                let _ = writeln!(text, "        channel_tile[at{input} + {quad}u * HALO_ITEMS] = vec4<f32>(0.0);");
            }
            text.push_str("    }\n");
        }
        text.push_str("}\n");
        text
    }
}

/// `depthwise`, for four channels of four neighbours. The taps of a row are written out, each input loaded once; the rows
/// are a loop, for drivers would keep the values of all of them in registers, beside the sums of the product.
fn depthwise(link: &Conv2d) -> String {
    let mut text = String::from(
        "fn depthwise(quad: u32, first: u32) -> Results {\n\
         \x20   let bias = weights[DEPTHWISE_BIAS_AT + quad];\n",
    );
    for output in 0..4 {
        let _ = writeln!(text, "    var s{output} = bias;");
    }
    text.push_str(
        "    for (var ky = 0u; ky < opaque(KERNEL_HEIGHT); ky++) {\n\
         \x20       let row = first + ky * DILATION_Y * HALO_PITCH;\n\
         \x20       let weights_at = DEPTHWISE_AT + (quad * KERNEL_HEIGHT + ky) * KERNEL_WIDTH;\n",
    );
    for column in Lines::columns(link, 4, 0).all {
        let _ = writeln!(text, "        let v{column} = channel_tile[row + {column}u];");
        for (output, kx) in (0..4).flat_map(|output| (0..link.kernel_size[1]).map(move |kx| (output, kx))) {
            if output * link.stride[1] + kx * link.dilation[1] == column {
                // The first output is the first to see a tap.
                if output == 0 {
                    let _ = writeln!(text, "        let w{kx} = weights[weights_at + {kx}u];");
                }
                let _ = writeln!(text, "        s{output} = fma(v{column}, w{kx}, s{output});");
            }
        }
    }
    text.push_str("    }\n");
    for output in 0..4 {
        let _ = writeln!(text, "    activate_depthwise_pixel(&s{output});");
    }
    text.push_str("    return Results(s0, s1, s2, s3);\n}\n");
    text
}

fn source(run: &Run<'_>, [expand, depthwise, project]: [&Conv2d; 3], block: Block) -> Source {
    let Tile { pixels, depth, .. } = block.tile;
    let (height, layout) = (pixels / BLOCK_WIDTH, run.layout);
    let taps = depthwise.fan_in();
    let expand_depth = expand.in_channels.next_multiple_of(4);
    // Channels that fill up a step have weights of zero, which make NaNs of infinities; those no channel may share.
    let share_nans = depthwise.out_channels.is_multiple_of(depth);
    let links = [expand.clone(), depthwise.clone()];
    let wgsl = Wgsl::new(move || {
        let [expand, depthwise] = &links;
        let activation =
            |name: &str, link: &Conv2d, quads| shader::pixel_activation(name, link.activation, quads, share_nans);
        Shader::new(include_str!("../../shaders/source_inverted.wgsl"))
            .add(match layout {
                Layout::Nchw => include_str!("../../shaders/expand_nchw.wgsl"),
                Layout::Nhwc => include_str!("../../shaders/expand_nhwc.wgsl"),
            })
            .add(&activation("activate_expanded", expand, block.expanded() / 4))
            .add(&activation("activate_depthwise", depthwise, 1))
            .add(shader::CLAMP_BITS)
            .add(&block.place())
            .add(&block.expand())
            .add(&self::depthwise(depthwise))
            .constants(&shader::geometry(depthwise))
            .constants(&[
                ("BLOCK_HEIGHT", height.into()),
                ("BLOCK_WIDTH", BLOCK_WIDTH.into()),
                ("HALO_HEIGHT", block.halo_height.into()),
                ("HALO_WIDTH", block.halo_width.into()),
                ("HALO_PITCH", block.pitch().into()),
                ("EXPANDED", block.expanded().into()),
                ("EXPAND_DEPTH", expand.in_channels.into()),
                ("EXPAND_DEPTH_PADDED", expand_depth.into()),
                ("HIDDEN_QUADS", depthwise.out_channels.div_ceil(4).into()),
            ])
            .text()
    });
    let order = Order::ChannelFirst;
    let (inputs, channels) = (f64::from(block.inputs()), f64::from(block.expanded()));
    // Expanded values for each staged one, the halo's with them; invocations without an input make as many.
    let expanded = inputs * f64::from(block.tile.threads()) / f64::from(pixels);
    let columns = Lines::columns(depthwise, 4, 0).all.len() as f64;
    Source {
        template: None,
        kernel: INVERTED_RESIDUAL.name,
        wgsl,
        fetch: Fetch::Blocks { height, width: BLOCK_WIDTH, staged: block.staged() },
        order,
        conv: project.clone(),
        link: 2,
        before: vec![
            (run.section(0, expand, Packing::Panels { block: depth, k_align: 4, order }), "EXPAND_AT"),
            (run.section(0, expand, Packing::Bias { block: depth }), "EXPAND_BIAS_AT"),
            (run.section(1, depthwise, Packing::QuadTaps), "DEPTHWISE_AT"),
            (run.section(1, depthwise, Packing::Bias { block: 1 }), "DEPTHWISE_BIAS_AT"),
        ],
        // Channels share an input, and inputs a weight, of which four come at a time.
        loads: expanded * f64::from(expand_depth) * (1.0 / channels + 0.25 / inputs) + taps as f64 / 4.0,
        mult_adds: expanded * f64::from(expand_depth) + taps as f64,
        // The columns under four outputs, which were stored before.
        shared: f64::from(depthwise.kernel_size[0]) * columns / 4.0 + expanded,
        // Sums and inputs of the expansion, whose weights all lanes share; or those of the depthwise convolution, and the
        // weights of a row, which a wide one loads as it goes.
        registers: (block.inputs() * (block.expanded() + 4)).max(24 + 4 * depthwise.kernel_size[1].min(4)),
    }
}
