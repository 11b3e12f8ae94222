//! `pointwise`, `pointwise_uniform` and `pointwise_subgroup`: 1x1 convolutions as a matrix product over the channels.

use super::gemm::{self, Block, Fetch, Source, Tile, WeightLoads};
use super::{Kernel, Recipe, Run, Unsupported, fitting};
use crate::caps::Caps;
use crate::pack::Order;
use crate::shape::Layout;

pub const POINTWISE: Kernel = Kernel { name: "pointwise", links: 1, candidates: tiled };
pub const POINTWISE_UNIFORM: Kernel = Kernel { name: "pointwise_uniform", links: 1, candidates: uniform };
pub const POINTWISE_SUBGROUP: Kernel = Kernel { name: "pointwise_subgroup", links: 1, candidates: subgroup };

fn tiled(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let source = source(run, POINTWISE.name)?;
    let recipes = TILES.iter().map(|&tile| gemm::tiled(run, &source, tile, caps)).collect();
    fitting(run, caps, recipes)
}

fn uniform(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let source = source(run, POINTWISE_UNIFORM.name)?;
    let blocks = uniform_blocks(caps, UNIFORM_BLOCKS)?;
    fitting(run, caps, blocks.into_iter().map(|block| gemm::registers(run, &source, block)).collect())
}

fn subgroup(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let source = source(run, POINTWISE_SUBGROUP.name)?;
    let blocks = subgroup_blocks(caps, SUBGROUP_BLOCKS)?;
    fitting(run, caps, blocks.into_iter().map(|block| gemm::registers(run, &source, block)).collect())
}

/// Tiles of products through workgroup memory. Large ones do more for each value staged, small ones fill a
/// device on small layers.
pub const TILES: &[Tile] = &[
    Tile { channels: 64, pixels: 64, depth: 16, micro_channels: 4, micro_pixels: 4 },
    Tile { channels: 128, pixels: 64, depth: 16, micro_channels: 8, micro_pixels: 4 },
    Tile { channels: 128, pixels: 128, depth: 8, micro_channels: 8, micro_pixels: 8 },
    Tile { channels: 64, pixels: 32, depth: 16, micro_channels: 4, micro_pixels: 4 },
    Tile { channels: 32, pixels: 32, depth: 16, micro_channels: 4, micro_pixels: 4 },
    Tile { channels: 16, pixels: 128, depth: 16, micro_channels: 4, micro_pixels: 4 },
];

/// Channels and pixels of blocks in registers: of a GPU's, and of a software device's, which are memory.
const UNIFORM_BLOCKS: &[[u32; 2]] = &[[16, 4]];
const SUBGROUP_BLOCKS: &[[u32; 2]] = &[[32, 4], [8, 4]];

/// Invocations of a workgroup on a GPU, a multiple of any subgroup.
const THREADS: u32 = 64;

/// Blocks of so many channels and pixels for GPUs.
pub fn uniform_blocks(caps: &Caps, blocks: &[[u32; 2]]) -> Result<Vec<Block>, Unsupported> {
    if caps.is_cpu {
        return Err(Unsupported::SoftwareDevice);
    }
    let block = |&[channels, pixels]: &[u32; 2]| Block {
        channels,
        pixels,
        threads: THREADS,
        steps: 4,
        weights: WeightLoads::Uniform,
        sums_in_array: false,
    };
    Ok(blocks.iter().map(block).collect())
}

/// Blocks of so many channels and pixels for software devices with subgroups.
pub fn subgroup_blocks(caps: &Caps, blocks: &[[u32; 2]]) -> Result<Vec<Block>, Unsupported> {
    let [lanes, threads] = caps.subgroup.ok_or(Unsupported::NeedsSubgroups)?;
    if !caps.is_cpu {
        return Err(Unsupported::NeedsSoftwareDevice);
    }
    let block = |&[channels, pixels]: &[u32; 2]| Block {
        channels,
        pixels,
        // The largest subgroup, so whole subgroups only, whichever size the driver picks.
        threads,
        // Four take twice as long to compile, and run no faster.
        steps: 2,
        weights: WeightLoads::Broadcast { lanes, pairs: caps.int64 },
        sums_in_array: true,
    };
    Ok(blocks.iter().map(block).collect())
}

fn source(run: &Run<'_>, kernel: &'static str) -> Result<Source, Unsupported> {
    let link = run.only()?;
    match () {
        () if link.kernel_size != [1, 1] => return Err(Unsupported::KernelSize(link.kernel_size)),
        () if link.groups != 1 => return Err(Unsupported::Groups(link.groups)),
        () if link.stride != [1, 1] => return Err(Unsupported::Stride(link.stride)),
        () if link.padding != [0; 4] => return Err(Unsupported::Padding(link.padding)),
        () => {}
    }
    let (wgsl, aligned) = match run.layout {
        Layout::Nchw => {
            (include_str!("../../shaders/source_pointwise_nchw.wgsl"), run.input().pixels().is_multiple_of(4))
        }
        Layout::Nhwc => (include_str!("../../shaders/source_pointwise_nhwc.wgsl"), link.in_channels % 4 == 0),
    };
    Ok(Source {
        kernel,
        wgsl: wgsl.into(),
        fetch: Fetch::Quads { aligned },
        order: Order::ChannelFirst,
        link: 0,
        before: Vec::new(),
        loads: 1.0,
        mult_adds: 0.0,
    })
}
