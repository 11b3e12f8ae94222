//! `transposed`: any transposed convolution, each phase of its outputs with its own taps.

use minijinja::{Value, context};

use super::{
    Kernel, Params, Pass, REGISTERS_FOR_ADDRESSES, Recipe, Run, Unsupported, Wgsl, Work, compulsory_bytes, fitting,
    single_pass_operands,
};
use crate::kernels::pack::{Packing, sections};
use crate::kernels::shader;
use crate::model::caps::Caps;
use crate::model::chain::Link;
use crate::model::conv::Conv2d;

pub const TRANSPOSED: Kernel = Kernel { name: "transposed", links: 1, candidates };

const PIXELS: u32 = 4;
const WORKGROUP: u32 = 64;

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let conv = match run.links {
        [Link::ConvTranspose(transposed)] => &transposed.conv,
        [link] => return Err(Unsupported::link(link)),
        links => return Err(Unsupported::Links(links.len())),
    };
    // Four channels share a pixel's load where a group has them.
    let blocks: &[u32] = if conv.group_out_channels() == 1 { &[1] } else { &[4, 1] };
    let recipes = blocks.iter().map(|&block| recipe(run, conv, caps, block)).collect();
    fitting(run, caps, recipes)
}

fn recipe(run: &Run<'_>, conv: &Conv2d, caps: &Caps, block: u32) -> Recipe {
    let panels = u64::from(conv.group_out_channels().div_ceil(block));
    let packings = [Packing::TransposedPanels { block }, Packing::Bias { block }];
    let (weights, offsets) = sections(packings.map(|packing| run.section(0, conv, packing)));

    let output = run.output();
    let tiles_x = output.width.div_ceil(conv.stride[1]).div_ceil(PIXELS) * conv.stride[1];
    let channel_blocks = u64::from(conv.groups) * panels;
    let items = u64::from(tiles_x) * u64::from(output.height) * channel_blocks * u64::from(output.batch);

    let name = format!("transposed/{PIXELS}x{block}");
    let (recipe_name, only, layout, elements) = (name.clone(), conv.clone(), run.layout, run.elements);
    let values = move || {
        context! {
            recipe => recipe_name,
            problem => shader::problem(&only, layout),
            BLOCK => block,
            PIXELS,
            WORKGROUP,
            taps => taps(&only),
            geometry => shader::geometry_values(&only),
            elements => elements.values(),
            layout => shader::layout_name(layout),
            input => "scalar",
            weights => if block == 1 { "scalar" } else { "quads" },
            output => "scalar",
            ..shader::epilogue_values(&only)
        }
    };

    // Of a phase; the mean of all.
    let taps = [0, 1].map(|axis| f64::from(conv.kernel_size[axis]) / f64::from(conv.stride[axis]));
    let depth = f64::from(conv.group_in_channels()) * taps[0] * taps[1];
    let (items_f, block_f) = (items as f64, f64::from(block));
    // A software device loads a block's weights as fast as one.
    let weight_loads = if caps.is_cpu { 1.0 } else { block_f };
    let pass = Pass {
        wgsl: Wgsl::template("transposed.wgsl", values),
        operands: single_pass_operands(run),
        params: Params {
            tiles_x,
            tiles_y: output.height,
            work: items as u32,
            bias_at: (offsets[1] / u64::from(block)) as u32,
            ..Params::of(run).grouped(conv, block)
        },
        workgroup: WORKGROUP,
        workgroups: items.div_ceil(WORKGROUP.into()),
        workgroup_memory: 0,
        sums: PIXELS * block,
        registers: PIXELS * block + PIXELS + block + REGISTERS_FOR_ADDRESSES,
    };
    Recipe {
        name,
        weights,
        workspace: Vec::new(),
        work: Work {
            mult_adds: items_f * depth * block_f * f64::from(PIXELS),
            accesses: items_f * (depth * (f64::from(PIXELS) + weight_loads) + f64::from(PIXELS) * block_f),
            shared: 0.0,
            bytes: compulsory_bytes(run),
        },
        passes: vec![pass],
        // One sum in order: an epsilon for each term at the worst, far fewer for terms of either sign.
        tolerance: 4.0,
        exact: true,
        spreads_errors: false,
    }
}

/// What the shader needs to find the taps of a phase: those for which the dilation times the tap is the phase, modulo the
/// stride.
fn taps(conv: &Conv2d) -> Value {
    let axis = |axis: usize| {
        let (stride, dilation) = (conv.stride[axis], conv.dilation[axis]);
        let divisor = greatest_common_divisor(stride, dilation);
        let step = stride / divisor;
        (divisor, step, inverse(dilation / divisor % step, step))
    };
    let [y, x] = [axis(0), axis(1)];
    context! { divisor => [y.0, x.0], step => [y.1, x.1], inverse => [y.2, x.2] }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// The number whose product with another one is 1 modulo `modulus`, which has no divisor with it; 0 if the modulus is 1.
fn inverse(number: u32, modulus: u32) -> u32 {
    (0..modulus).find(|&inverse| u64::from(number) * u64::from(inverse) % u64::from(modulus) == 1).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For each phase, the taps by the shader's arithmetic are those by the definition.
    #[test]
    fn the_taps_of_a_phase_are_those_at_multiples_of_the_stride() {
        for (stride, dilation) in (1..9).flat_map(|stride| (1..9).map(move |dilation| (stride, dilation))) {
            let divisor = greatest_common_divisor(stride, dilation);
            let step = stride / divisor;
            let inverse = inverse(dilation / divisor % step, step);
            for phase in 0..stride {
                let kernel = 20u32;
                let first = if phase % divisor == 0 { phase / divisor * inverse % step } else { kernel };
                let taps: Vec<_> = (first..kernel).step_by(step as usize).collect();
                let expected: Vec<_> = (0..kernel).filter(|tap| (tap * dilation) % stride == phase).collect();
                assert_eq!(taps, expected, "stride {stride}, dilation {dilation}, phase {phase}");
            }
        }
    }
}
