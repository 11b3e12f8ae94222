//! `expand_depthwise`: the first two links of an inverted residual in one dispatch, for blocks whose third cannot
//! follow in the same one, since a gate between them is of all pixels. The expanded tensor is never in memory.

use minijinja::context;
use minijinja::value::merge_maps;

use super::gemm::tiled::Tile;
use super::gemm::window::{MOST_TAPS, columns_seen};
use super::inverted_residual::{BLOCK_WIDTH, Block, MOST_MEMORY, block_values};
use super::{
    Kernel, Params, Pass, REGISTERS_FOR_ADDRESSES, Recipe, Run, Unsupported, Wgsl, Work, compulsory_bytes, fitting,
    single_pass_operands,
};
use crate::kernels::pack::{Order, Packing, Section, sections};
use crate::kernels::shader;
use crate::model::caps::Caps;
use crate::model::conv::{Activation, Conv2d};
use crate::model::shape::{Layout, Shape};

pub const EXPAND_DEPTHWISE: Kernel = Kernel { name: "expand_depthwise", links: 2, candidates };

/// Channels and pixels of a workgroup. Many pixels expand fewer inputs twice; strided ones need more memory.
const TILES: &[[u32; 2]] = &[[16, 64], [32, 64], [8, 128], [8, 64], [16, 32], [32, 32]];

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let links = run.convs()?;
    let recipes = blocks(run, links, caps)?.into_iter().map(|block| recipe(run, links, block)).collect();
    fitting(run, caps, recipes)
}

/// The blocks of outputs that a workgroup can compute.
pub fn blocks(run: &Run<'_>, [expand, depthwise]: [&Conv2d; 2], caps: &Caps) -> Result<Vec<Block>, Unsupported> {
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
        let tile = Tile::new([channels, pixels, channels], [4, 4]);
        Block::new(depthwise, tile).clip(run.input())
    };
    let memory = |block: &Block| block.staged().saturating_mul(16);
    // The shader counts the outputs of all blocks.
    let outputs = |block: &Block| {
        let tiles: u64 = tiles(run.output(), *block).map(u64::from).iter().product();
        tiles.saturating_mul(u64::from(run.output().batch) * u64::from(block.tile.pixels))
    };
    let all: Vec<_> = TILES.iter().map(tile).filter(|block| block.suits(caps)).collect();
    let most = u64::from(u32::MAX);
    if let Some(count) = all.iter().map(outputs).max().filter(|&count| count > most) {
        return Err(Unsupported::Outputs { count, most });
    }
    let blocks: Vec<_> = all.iter().copied().filter(|block| memory(block) <= MOST_MEMORY).collect();
    if blocks.is_empty() {
        let needed = all.iter().map(memory).min().unwrap_or(0);
        return Err(Unsupported::WorkgroupMemory { needed, limit: MOST_MEMORY });
    }
    Ok(blocks)
}

fn recipe(run: &Run<'_>, links: [&Conv2d; 2], block: Block) -> Recipe {
    let name = name(EXPAND_DEPTHWISE.name, block);
    let (weights, offsets) = sections(weights(run, links, block));
    let pass = Pass { operands: single_pass_operands(run), ..pass(run, links, block, &name, &offsets, false) };
    Recipe {
        name,
        weights,
        workspace: Vec::new(),
        work: Work { bytes: compulsory_bytes(run), ..work(run, links, block) },
        passes: vec![pass],
        tolerance: TOLERANCE,
        exact: true,
        spreads_errors: false,
    }
}

/// A sum in order of the input channels, and one of the taps.
pub const TOLERANCE: f64 = 8.0;

/// The name of a kernel's recipe with these blocks.
pub fn name(kernel: &str, Block { tile, .. }: Block) -> String {
    format!("{kernel}/{}x{}", tile.depth, tile.pixels)
}

/// The sections of the weights of both links.
pub fn weights(run: &Run<'_>, [expand, depthwise]: [&Conv2d; 2], block: Block) -> [Section; 4] {
    let depth = block.tile.depth;
    let order = Order::ChannelFirst;
    [
        run.section(0, expand, Packing::Panels { block: depth, k_align: 4, order }),
        run.section(0, expand, Packing::Bias { block: depth }),
        run.section(1, depthwise, Packing::BlockTaps { block: 4 }),
        run.section(1, depthwise, Packing::Bias { block: 1 }),
    ]
}

/// Columns and rows of blocks of an image.
pub fn tiles(output: Shape, block: Block) -> [u32; 2] {
    [output.width.div_ceil(BLOCK_WIDTH), output.height.div_ceil(block.tile.pixels / BLOCK_WIDTH)]
}

fn workgroups(run: &Run<'_>, block: Block) -> u64 {
    let output = run.output();
    let tiles: u64 = tiles(output, block).map(u64::from).iter().product();
    tiles * u64::from(output.channels.div_ceil(block.tile.depth)) * u64::from(output.batch)
}

/// The dispatch, without its operands. With `means` it also stores what makes up the mean of each plane.
pub fn pass(
    run: &Run<'_>,
    [expand, depthwise]: [&Conv2d; 2],
    block: Block,
    name: &str,
    offsets: &[u64],
    means: bool,
) -> Pass {
    let Tile { pixels, depth, .. } = block.tile;
    let output = run.output();
    let stores_quads = stores_quads(run);
    let [tiles_x, tiles_y] = tiles(output, block);
    let panels = output.channels.div_ceil(depth);
    let workgroups = workgroups(run, block);
    // The epilogue activates what is stored, unless it was activated to be added up.
    let linear = Conv2d { activation: Activation::None, ..depthwise.clone() };
    let (inner, stored) = if means { (depthwise, &linear) } else { (&linear, depthwise) };
    let [low_bits, high_bits] = stored.activation.parameters().map(f32::to_bits);
    let (inner, stored) = ([expand.clone(), inner.clone()], stored.clone());
    let links = [expand.clone(), depthwise.clone()];
    let (layout, elements, recipe) = (run.layout, run.elements, name.to_string());
    let at: Vec<_> = offsets.iter().map(|offset| offset / 4).collect();
    let values = move || {
        let own = context! {
            recipe,
            problem => shader::problem_of_run(&links, layout),
            means,
            TILE_DEPTH => depth,
            TILE_PIXELS => pixels,
            DEPTH_IS_PADDED => false,
            EXPAND_AT => at[0],
            EXPAND_BIAS_AT => at[1],
            DEPTHWISE_AT => at[2],
            DEPTHWISE_BIAS_AT => at[3],
            elements => elements.values(),
            layout => shader::layout_name(layout),
            input => if layout == Layout::Nhwc { "quads" } else { "scalar" },
            weights => "quads",
            output => if stores_quads { "quads" } else { "scalar" },
        };
        merge_maps([own, block_values(&inner, block, false), shader::epilogue_values(&stored)])
    };
    Pass {
        wgsl: Wgsl::template("expand_depthwise.wgsl", values),
        operands: Vec::new(),
        params: Params { tiles_x, tiles_y, panels, work: workgroups as u32, low_bits, high_bits, ..Params::of(run) },
        workgroup: block.tile.threads(),
        workgroups,
        workgroup_memory: block.staged() * 16,
        sums: (block.inputs() * block.expanded()).max(16),
        registers: (block.inputs() * (block.expanded() + 4)).max(24 + 4 * depthwise.kernel_size[1].min(4))
            + 2 * block.inputs()
            + REGISTERS_FOR_ADDRESSES,
    }
}

/// Whether neighbours in memory come by whole quads.
fn stores_quads(run: &Run<'_>) -> bool {
    let neighbours = match run.layout {
        Layout::Nchw => run.output().width,
        Layout::Nhwc => run.output().channels,
    };
    neighbours.is_multiple_of(4)
}

/// What the dispatch takes, but for bytes.
pub fn work(run: &Run<'_>, [expand, depthwise]: [&Conv2d; 2], block: Block) -> Work {
    let elements = run.elements;
    let (inputs, channels) = (f64::from(block.inputs()), f64::from(block.expanded()));
    let invocations = workgroups(run, block) as f64 * f64::from(block.tile.threads());
    let expand_depth = f64::from(expand.in_channels.next_multiple_of(4));
    // Values that are expanded, those of invocations without an input with them; and results.
    let (expanded, results) = (invocations * inputs * f64::from(block.tile.depth), invocations * 16.0);
    let taps = depthwise.fan_in() as f64;
    let columns = columns_seen(depthwise, 4).len() as f64;
    let of_input = if run.layout == Layout::Nhwc { elements.input.of_wide_load() } else { 1.0 };
    let of_output = if stores_quads(run) { elements.output.of_wide_load() } else { 1.0 };
    Work {
        mult_adds: expanded * expand_depth + results * taps,
        accesses: expanded * expand_depth * (of_input / channels + 0.25 / inputs) + results * (taps / 4.0 + of_output),
        shared: expanded + results * f64::from(depthwise.kernel_size[0]) * columns / 4.0,
        bytes: 0.0,
    }
}
