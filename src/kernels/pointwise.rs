//! `pointwise`, `pointwise_uniform` and `pointwise_subgroup`: 1x1 convolutions, grouped ones too, as a matrix product
//! over the channels.

use std::sync::Arc;

use minijinja::context;

use super::gemm::{self, Fetch, Source, registers, tiled};
use super::{Kernel, Recipe, Run, Unsupported, fitting};
use crate::kernels::pack::Order;
use crate::kernels::shader::Values;
use crate::model::caps::Caps;
use crate::model::shape::Layout;

pub const POINTWISE: Kernel = Kernel { name: "pointwise", links: 1, candidates: by_tiles };
pub const POINTWISE_UNIFORM: Kernel = Kernel { name: "pointwise_uniform", links: 1, candidates: by_uniform_loads };
pub const POINTWISE_SUBGROUP: Kernel = Kernel { name: "pointwise_subgroup", links: 1, candidates: by_broadcasts };

fn by_tiles(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let link = run.only_conv_or_scaled()?;
    if link.groups > 1 {
        gemm::fills_tiles(link)?;
    }
    tiles(run, caps)
}

/// The product through workgroup memory, with any number of output channels in a group.
pub fn tiles(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let source = source(run, POINTWISE.name)?;
    let sliced = (!caps.is_cpu).then_some(tiled::SLICED);
    let tiles = tiled::TILES.iter().copied().filter(|tile| tile.suits_scales(run, caps)).chain(sliced);
    fitting(run, caps, tiles.map(|tile| tiled::recipe(run, &source, tile, caps)).collect())
}

fn by_uniform_loads(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let source = source(run, POINTWISE_UNIFORM.name)?;
    let blocks = registers::uniform_blocks(run, caps, uniform_blocks(caps))?;
    registers::recipes(run, caps, &source.conv, &blocks, |block| registers::recipe(run, &source, block))
}

fn by_broadcasts(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let source = source(run, POINTWISE_SUBGROUP.name)?;
    let blocks = registers::subgroup_blocks(run, caps, &source.conv, SUBGROUP_BLOCKS)?;
    fitting(run, caps, blocks.into_iter().map(|block| registers::recipe(run, &source, block)).collect())
}

/// Channels and pixels of blocks in registers, on GPUs and on software devices. Where channels are few, what is done
/// once for an invocation takes most of the time, so it has more pixels there. Software devices keep the sums of 32 or 16
/// channels in memory, unless subgroups share the weights.
const UNIFORM_BLOCKS: &[[u32; 2]] = &[[4, 4], [8, 4], [16, 4]];
const UNIFORM_BLOCKS_CPU: &[[u32; 2]] = &[[8, 8], [8, 4], [4, 8], [4, 4]];
pub const SUBGROUP_BLOCKS: &[[u32; 2]] = &[[32, 4], [8, 4], [4, 8], [2, 8]];

/// The blocks of products whose lanes all load the same weights.
pub fn uniform_blocks(caps: &Caps) -> &'static [[u32; 2]] {
    if caps.is_cpu { UNIFORM_BLOCKS_CPU } else { UNIFORM_BLOCKS }
}

/// The source of a product whose pixels are the input itself.
pub fn source(run: &Run<'_>, kernel: &'static str) -> Result<Source, Unsupported> {
    let link = run.only_conv_or_scaled()?;
    match () {
        () if link.kernel_size != [1, 1] => return Err(Unsupported::KernelSize(link.kernel_size)),
        () if link.stride != [1, 1] => return Err(Unsupported::Stride(link.stride)),
        () if link.padding != [0; 4] => return Err(Unsupported::Padding(link.padding)),
        () if link.groups > 1 && link.is_depthwise() => gemm::fills_tiles(link)?,
        () => {}
    }
    let aligned = match run.layout {
        Layout::Nchw => run.input().pixels().is_multiple_of(4),
        Layout::Nhwc => [link.group_in_channels(), run.input().channels].iter().all(|all| all.is_multiple_of(4)),
    };
    let group = gemm::group_values(run, link);
    let values = move || context! { geometry => (), ..group() };
    let template = ("source_pointwise.wgsl", Arc::new(values) as Values);
    let source = Source::loaded(kernel, link, template, Fetch::Quads { aligned }, Order::ChannelFirst);
    let mult_adds = if run.is_scaled() { 1.0 } else { 0.0 };
    Ok(Source { loads: 1.0 + gemm::of_scales(run), mult_adds, ..source })
}
