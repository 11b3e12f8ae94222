//! `split`: a product cut along its input channels (split-K), for layers with too few outputs to fill a GPU, such as
//! classifiers and the last layers of a network.
//!
//! Two passes: each slice of the input channels is a group of a grouped convolution, whose outputs are the slices'
//! sums; then these are added up. Where the channels do not divide evenly, the last slice has fewer.

use minijinja::context;

use super::{
    Kernel, Operand, Params, Pass, REGISTERS_FOR_ADDRESSES, Recipe, Run, Unsupported, Wgsl, Work, fitting,
    implicit_gemm, pointwise,
};
use crate::kernels::elements::{Element, Elements};
use crate::kernels::pack::{self, Packing, slices};
use crate::kernels::shader;
use crate::model::caps::Caps;
use crate::model::conv::Conv2d;
use crate::model::dtype::DType;
use crate::model::shape::Shape;

pub const SPLIT: Kernel = Kernel { name: "split", links: 1, candidates };

/// Slices to cut into.
const SLICES: &[u32] = &[4, 16];
/// Input channels that a slice has at the least, in the mean; with fewer, adding up would take as long as multiplying.
const FEWEST_IN_SLICE: u32 = 32;
/// The same of a window with few output channels: each adds up several taps for each channel.
const FEWEST_IN_WINDOW: u32 = 16;
/// Output channels of such a window, at most.
const FEW_CHANNELS: u32 = 4;
/// Sums of all slices beyond which every GPU is full without, and storing them takes too long.
const MOST_SUMS: u64 = 1 << 22;
const WORKGROUP: u32 = 64;

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let link = run.only_conv_or_scaled()?;
    // Each core of a software device computes a whole product as fast as a slice.
    if caps.is_cpu {
        return Err(Unsupported::SoftwareDevice);
    }
    if link.groups != 1 {
        return Err(Unsupported::Groups(link.groups));
    }
    let (outputs, most) = (run.output().len(), MOST_SUMS / u64::from(SLICES[0]));
    if outputs > most {
        return Err(Unsupported::Outputs { count: outputs, most });
    }
    let mut recipes = Vec::new();
    let is_thin_window = !link.is_pointwise() && link.out_channels <= FEW_CHANNELS;
    let fewest = if is_thin_window { FEWEST_IN_WINDOW } else { FEWEST_IN_SLICE };
    let pays = |slices: u32| link.in_channels / slices >= fewest && outputs * u64::from(slices) <= MOST_SUMS;
    for &slices in SLICES.iter().filter(|&&slices| pays(slices)) {
        let product = slices::product(link, slices);
        let partial = Shape { channels: product.out_channels, ..run.output() };
        let shapes = [run.input(), partial];
        let product = [product.into()];
        // The slices' sums are not rounded before they are added.
        let elements = Elements { output: Element::F32, ..run.elements };
        let sliced = Run { links: &product, shapes: &shapes, elements, ..*run };
        let products = match link.is_pointwise() {
            true => pointwise::tiles(&sliced, caps)?,
            false => implicit_gemm::tiles(&sliced, caps)?,
        };
        recipes.extend(products.into_iter().map(|product| recipe(run, link, slices, partial, product)));
    }
    if recipes.is_empty() {
        return Err(Unsupported::InChannels(link.in_channels));
    }
    fitting(run, caps, recipes)
}

fn recipe(run: &Run<'_>, link: &Conv2d, slices: u32, partial: Shape, product: Recipe) -> Recipe {
    let biases = link.bias.then(|| run.section(0, link, Packing::Bias { block: 1 }));
    let (weights, bias_at) = pack::replacement_sections(&product.weights, biases, |block, k_align, order| {
        Packing::Slices { slices, block, k_align, order }
    });
    // Where channels do not divide evenly there may be fewer than asked for.
    let count = partial.channels / link.out_channels.max(1);
    let (outputs, partial_bytes) = (run.output().len(), partial.bytes(DType::F32));
    let work = product.work;
    let mut passes: Vec<_> = product.passes;
    for pass in &mut passes {
        pass.operands = vec![Operand::Input, Operand::Weights, Operand::WriteWorkspace(0)];
        pass.operands.extend(run.is_scaled().then_some(Operand::Scale));
    }
    passes.push(sum_pass(run, link, count, bias_at));
    let variant = product.name.split_once('/').map_or("", |(_, variant)| variant);
    Recipe {
        name: format!("{}/{slices}-{variant}", SPLIT.name),
        passes,
        weights,
        workspace: vec![partial_bytes],
        work: Work {
            accesses: work.accesses + (outputs * (u64::from(count) + 1)) as f64,
            // The product has counted the sums once, and they are read once more.
            bytes: work.bytes + (partial_bytes + run.output_bytes() + run.residual_bytes()) as f64,
            ..work
        },
        tolerance: product.tolerance,
        exact: product.exact,
        spreads_errors: product.spreads_errors,
    }
}

/// A convolution whose sums, biases among them, are stored in f32, and whose residual and activation come in a second
/// pass.
pub fn apart(run: &Run<'_>, link: &Conv2d, product: Recipe) -> Recipe {
    let (outputs, sums) = (run.output().len(), run.output().bytes(DType::F32));
    let mut passes = product.passes;
    for operand in passes.iter_mut().flat_map(|pass| &mut pass.operands) {
        if *operand == Operand::Output {
            *operand = Operand::WriteWorkspace(0);
        }
    }
    passes.push(sum_pass(run, &Conv2d { bias: false, ..link.clone() }, 1, 0));
    Recipe {
        name: format!("{}-apart", product.name),
        passes,
        workspace: vec![sums],
        work: Work {
            accesses: product.work.accesses + 3.0 * outputs as f64,
            // The product has counted the sums once, and they are read once more.
            bytes: product.work.bytes + (sums + run.output_bytes() + run.residual_bytes()) as f64,
            ..product.work
        },
        ..product
    }
}

fn sum_pass(run: &Run<'_>, link: &Conv2d, slices: u32, bias_at: u64) -> Pass {
    let outputs = run.output().len();
    let (last, layout, elements) = (link.clone(), run.layout, Elements { input: Element::F32, ..run.elements });
    let values = move || {
        context! {
            recipe => format!("{}/{slices}", SPLIT.name),
            SLICES => slices,
            WORKGROUP,
            bias => last.bias,
            geometry => (),
            elements => elements.values(),
            layout => shader::layout_name(layout),
            input => "scalar",
            weights => "scalar",
            output => "scalar",
            ..shader::epilogue_values(&last)
        }
    };
    let mut operands = vec![Operand::ReadWorkspace(0), Operand::Weights, Operand::Output];
    operands.extend(run.has_residual().then_some(Operand::Residual));
    Pass {
        wgsl: Wgsl::template("split_sum.wgsl", values),
        operands,
        params: Params { work: outputs as u32, bias_at: bias_at as u32, ..Params::of(run) },
        workgroup: WORKGROUP,
        workgroups: outputs.div_ceil(WORKGROUP.into()),
        workgroup_memory: 0,
        sums: 1,
        registers: REGISTERS_FOR_ADDRESSES,
    }
}
