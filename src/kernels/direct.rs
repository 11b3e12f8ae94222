//! `direct`: any link there is, by the definition of convolution.

use minijinja::context;

use super::channel_blocks::{Definition, PIXELS, recipes};
use super::{Kernel, Recipe, Run, Unsupported, fitting};
use crate::kernels::pack::{Order, Packing};
use crate::model::caps::Caps;
use crate::model::conv::Conv2d;

pub const DIRECT: Kernel = Kernel { name: "direct", links: 1, candidates };

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let link = run.only_conv_or_scaled()?;
    let definition = Definition {
        kernel: DIRECT.name,
        file: "direct.wgsl",
        packing: |block| Packing::Panels { block, k_align: 1, order: Order::ChannelFirst },
        tiles_x: run.output().width.div_ceil(PIXELS),
        depth: link.fan_in() as f64,
    };
    let scales = |link: &Conv2d| context! { scales => if link.scaled { "scalar" } else { "none" } };
    fitting(run, caps, recipes(run, link, caps, &definition, scales))
}
