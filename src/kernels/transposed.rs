//! `transposed`: any transposed convolution, each phase of its outputs with its own taps, by the definition.

use minijinja::{Value, context};

use super::channel_blocks::{Definition, PIXELS, recipes};
use super::{Kernel, Recipe, Run, Unsupported, fitting};
use crate::kernels::pack::Packing;
use crate::kernels::pack::phases::greatest_common_divisor;
use crate::model::caps::Caps;
use crate::model::chain::Link;
use crate::model::conv::Conv2d;

pub const TRANSPOSED: Kernel = Kernel { name: "transposed", links: 1, candidates };

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let conv = match run.links {
        [Link::ConvTranspose(transposed)] => &transposed.conv,
        [link] => return Err(Unsupported::link(link)),
        links => return Err(Unsupported::Links(links.len())),
    };
    // Of a phase; the mean of all.
    let taps_of_phase = [0, 1].map(|axis| f64::from(conv.kernel_size[axis]) / f64::from(conv.stride[axis]));
    let definition = Definition {
        kernel: TRANSPOSED.name,
        file: "transposed.wgsl",
        packing: |block| Packing::TransposedPanels { block },
        tiles_x: run.output().width.div_ceil(conv.stride[1]).div_ceil(PIXELS) * conv.stride[1],
        depth: f64::from(conv.group_in_channels()) * taps_of_phase[0] * taps_of_phase[1],
    };
    fitting(run, caps, recipes(run, conv, caps, &definition, |conv| context! { taps => taps(conv) }))
}

/// What the shader needs to find the taps of a phase: those for which the dilation times the tap is the phase, modulo
/// the stride.
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

/// The number whose product with another one is 1 modulo `modulus`, which has no divisor with it; 0 if the modulus is
/// 1.
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
