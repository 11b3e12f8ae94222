//! `expand_depthwise`: the first two links of an inverted residual in one dispatch, for blocks whose third cannot follow in
//! the same one, since a gate between them is of all pixels. The expanded tensor is never in memory.

use minijinja::context;
use minijinja::value::merge_maps;

use super::gemm::tiled::Tile;
use super::gemm::window::{Lines, MOST_TAPS};
use super::inverted_residual::{BLOCK_WIDTH, Block, MOST_MEMORY, block_values};
use super::{
    Kernel, Params, Pass, REGISTERS_FOR_ADDRESSES, Recipe, Run, Unsupported, Wgsl, Work, compulsory_bytes, fitting,
    single_pass_operands,
};
use crate::kernels::pack::{Order, Packing, sections};
use crate::kernels::shader;
use crate::model::caps::Caps;
use crate::model::conv::{Activation, Conv2d};
use crate::model::shape::Layout;

pub const EXPAND_DEPTHWISE: Kernel = Kernel { name: "expand_depthwise", links: 2, candidates };

/// Channels and pixels of a workgroup. Many pixels expand fewer inputs twice; strided ones need more memory.
const TILES: &[[u32; 2]] = &[[16, 64], [32, 64], [8, 128], [8, 64], [16, 32], [32, 32]];

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let [expand, depthwise] = run.convs()?;
    if caps.is_cpu {
        return Err(Unsupported::SoftwareDevice);
    }
    let is_plain = depthwise.is_depthwise() && depthwise.out_channels == depthwise.in_channels;
    if !expand.is_pointwise() || !is_plain {
        return Err(Unsupported::NotExpanded);
    }
    if expand.residual.is_some() {
        return Err(Unsupported::InnerResidual);
    }
    // Pixels are read by quads of channels.
    if run.layout == Layout::Nhwc && !expand.in_channels.is_multiple_of(4) {
        return Err(Unsupported::InChannels(expand.in_channels));
    }
    if depthwise.fan_in() > MOST_TAPS {
        return Err(Unsupported::KernelSize(depthwise.kernel_size));
    }
    let tile = |&[channels, pixels]: &[u32; 2]| {
        let tile = Tile { channels, pixels, depth: channels, micro_channels: 4, micro_pixels: 4 };
        Block::new(depthwise, tile).clip(run.input())
    };
    let memory = |block: &Block| block.staged().saturating_mul(16);
    let blocks = TILES.iter().map(tile);
    let recipes: Vec<_> = blocks
        .clone()
        .filter(|block| memory(block) <= MOST_MEMORY)
        .map(|block| recipe(run, [expand, depthwise], block))
        .collect();
    if recipes.is_empty() {
        let needed = blocks.map(|block| memory(&block)).min().unwrap_or(0);
        return Err(Unsupported::WorkgroupMemory { needed, limit: MOST_MEMORY });
    }
    fitting(run, caps, recipes)
}

fn recipe(run: &Run<'_>, [expand, depthwise]: [&Conv2d; 2], block: Block) -> Recipe {
    let Tile { pixels, depth, .. } = block.tile;
    let name = format!("{}/{depth}x{pixels}", EXPAND_DEPTHWISE.name);
    let order = Order::ChannelFirst;
    let (weights, offsets) = sections([
        run.section(0, expand, Packing::Panels { block: depth, k_align: 4, order }),
        run.section(0, expand, Packing::Bias { block: depth }),
        run.section(1, depthwise, Packing::BlockTaps { block: 4 }),
        run.section(1, depthwise, Packing::Bias { block: 1 }),
    ]);
    let output = run.output();
    let tiles = [output.height.div_ceil(pixels / BLOCK_WIDTH), output.width.div_ceil(BLOCK_WIDTH)];
    let panels = depthwise.out_channels.div_ceil(depth);
    let workgroups = u64::from(tiles[0]) * u64::from(tiles[1]) * u64::from(panels) * u64::from(output.batch);

    let neighbours = match run.layout {
        Layout::Nchw => output.width,
        Layout::Nhwc => output.channels,
    };
    let stores_quads = neighbours.is_multiple_of(4);
    let (links, layout, elements, recipe) =
        ([expand.clone(), depthwise.clone()], run.layout, run.elements, name.clone());
    let values = move || {
        // The epilogue activates what is stored.
        let inner = [links[0].clone(), Conv2d { activation: Activation::None, ..links[1].clone() }];
        let own = context! {
            recipe,
            problem => shader::problem_of_run(&links, layout),
            TILE_DEPTH => depth,
            TILE_PIXELS => pixels,
            DEPTH_IS_PADDED => false,
            EXPAND_AT => offsets[0] / 4,
            EXPAND_BIAS_AT => offsets[1] / 4,
            DEPTHWISE_AT => offsets[2] / 4,
            DEPTHWISE_BIAS_AT => offsets[3] / 4,
            elements => elements.values(),
            layout => shader::layout_name(layout),
            input => if layout == Layout::Nhwc { "quads" } else { "scalar" },
            weights => "quads",
            output => if stores_quads { "quads" } else { "scalar" },
        };
        merge_maps([own, block_values(&inner, block, false), shader::epilogue_values(&links[1])])
    };
    let threads = block.tile.threads();
    let (inputs, channels) = (f64::from(block.inputs()), f64::from(block.expanded()));
    let invocations = workgroups as f64 * f64::from(threads);
    let expand_depth = f64::from(expand.in_channels.next_multiple_of(4));
    // Values that are expanded, those of invocations without an input with them; and results.
    let (expanded, results) = (invocations * inputs * f64::from(depth), invocations * 16.0);
    let taps = depthwise.fan_in() as f64;
    let columns = Lines::columns(depthwise, 4, 0).all.len() as f64;
    let of_input = if run.layout == Layout::Nhwc { elements.input.of_wide_load() } else { 1.0 };
    let of_output = if stores_quads { elements.output.of_wide_load() } else { 1.0 };
    let pass = Pass {
        wgsl: Wgsl::template("expand_depthwise.wgsl", values),
        operands: single_pass_operands(run),
        params: Params { tiles_x: tiles[1], tiles_y: tiles[0], panels, work: workgroups as u32, ..Params::of(run) },
        workgroup: threads,
        workgroups,
        workgroup_memory: block.staged() * 16,
        sums: (block.inputs() * block.expanded()).max(16),
        registers: (block.inputs() * (block.expanded() + 4)).max(24 + 4 * depthwise.kernel_size[1].min(4))
            + 2 * block.inputs()
            + REGISTERS_FOR_ADDRESSES,
    };
    Recipe {
        name,
        weights,
        workspace: Vec::new(),
        work: Work {
            mult_adds: expanded * expand_depth + results * taps,
            accesses: expanded * expand_depth * (of_input / channels + 0.25 / inputs)
                + results * (taps / 4.0 + of_output),
            shared: expanded + results * f64::from(depthwise.kernel_size[0]) * columns / 4.0,
            bytes: compulsory_bytes(run),
        },
        passes: vec![pass],
        // A sum in order of the input channels, and one of the taps.
        tolerance: 8.0,
        exact: true,
        spreads_errors: false,
    }
}
