//! `implicit_gemm` and `implicit_gemm_subgroup`: any dense or grouped convolution as a matrix product whose
//! pixels are gathered as they are needed.

use super::gemm::{self, Source};
use super::pointwise::{TILES, subgroup_blocks};
use super::{Kernel, Recipe, Run, Unsupported, fitting};
use crate::caps::Caps;
use crate::pack::Order;
use crate::shader;
use crate::shader::Shader;
use crate::shape::Layout;

pub const IMPLICIT_GEMM: Kernel = Kernel { name: "implicit_gemm", links: 1, candidates: tiled };
pub const IMPLICIT_GEMM_SUBGROUP: Kernel = Kernel { name: "implicit_gemm_subgroup", links: 1, candidates: subgroup };

/// Below this many output channels in a group, most of a tile would be idle.
const FEWEST_CHANNELS: u32 = 4;

fn tiled(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let source = source(run, IMPLICIT_GEMM.name)?;
    let recipes = TILES.iter().map(|&tile| gemm::tiled(run, &source, tile)).collect();
    fitting(run, caps, recipes)
}

fn subgroup(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let source = source(run, IMPLICIT_GEMM_SUBGROUP.name)?;
    let blocks = subgroup_blocks(caps)?;
    let recipes = blocks.into_iter().map(|block| gemm::subgroup(run, &source, block)).collect();
    fitting(run, caps, recipes)
}

fn source(run: &Run<'_>, kernel: &'static str) -> Result<Source, Unsupported> {
    let link = run.only()?;
    if link.is_pointwise() {
        return Err(Unsupported::Pointwise);
    }
    if link.group_out_channels() < FEWEST_CHANNELS {
        return Err(Unsupported::Groups(link.groups));
    }
    let (file, aligned_input, order) = match run.layout {
        Layout::Nchw => (include_str!("../../shaders/source_window_nchw.wgsl"), false, Order::ChannelFirst),
        Layout::Nhwc => {
            let aligned = link.group_in_channels() % 4 == 0;
            (include_str!("../../shaders/source_window_nhwc.wgsl"), aligned, Order::ChannelLast)
        }
    };
    Ok(Source {
        kernel,
        wgsl: Shader::new(file).constants(&shader::geometry(link)).text(),
        aligned_input,
        order,
        link: 0,
        before: Vec::new(),
        loads: 1.0,
        mult_adds: 0.0,
    })
}
