//! `direct`: any link there is, by the definition of convolution.

use minijinja::context;

use super::channel_blocks::{Definition, PIXELS, recipes};
use super::{Kernel, Recipe, Run, Unsupported, fitting, split};
use crate::kernels::elements::{Element, Elements};
use crate::kernels::pack::{Order, Packing};
use crate::model::caps::Caps;
use crate::model::conv::{Activation, Conv2d};

/// Columns of the input that Mesa's compiler for Adreno loads ahead if it writes out the kernel's. It spills beside 44.
const MOST_LOADED_AHEAD: u32 = 32;
/// The same with the weights of each column, four channels. It spills beside 78, of a kernel of 15 columns.
const MOST_VALUES_AHEAD: u32 = 72;

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
    // Those of a row that is not dilated are seen by several outputs.
    let [width, stride, dilation] = [link.kernel_size[1], link.stride[1], link.dilation[1]];
    let of_each = width.saturating_mul(PIXELS);
    let columns =
        if dilation == 1 { of_each.min(width.saturating_add((PIXELS - 1).saturating_mul(stride))) } else { of_each };
    let has_registers =
        || columns <= MOST_LOADED_AHEAD && columns.saturating_add(width.saturating_mul(4)) <= MOST_VALUES_AHEAD;
    let written_out = !caps.loads_ahead() || has_registers();
    let own = move |link: &Conv2d| {
        context! { scales => if link.scaled { "scalar" } else { "none" }, WRITTEN_OUT => written_out }
    };
    // Input, weights, output, residual and scale: some devices bind only four buffers.
    if run.is_scaled() && run.has_residual() && caps.max_storage_buffers < 5 {
        let plain = Conv2d { residual: None, activation: Activation::None, ..link.clone() };
        let (links, elements) = ([plain.clone().into()], Elements { output: Element::F32, ..run.elements });
        let product = Run { links: &links, elements, ..*run };
        let products = recipes(&product, &plain, caps, &definition, own);
        return fitting(run, caps, products.into_iter().map(|product| split::apart(run, link, product)).collect());
    }
    fitting(run, caps, recipes(run, link, caps, &definition, own))
}
