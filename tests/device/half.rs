//! How kernels store f16: as NumPy and PyTorch do, on devices with half-precision numbers in shaders and without.

use std::collections::BTreeSet;

use gpuconv::internals::kernel_of;
use gpuconv::shape::{from_nchw, to_nchw};
use gpuconv::{Caps, Chain, Choice, Conv2d, DType, GpuConv, Layout, Link, Shape, Weights, oracle, planner};

use crate::common::gpu;

/// The device as a software device and as a GPU, each with halves in its shaders, if it has them, and without.
fn devices() -> [GpuConv; 4] {
    let device = |is_cpu, f16| gpu().with_caps(|caps| Caps { is_cpu, f16: caps.f16 && f16, ..caps });
    [device(true, true), device(true, false), device(false, true), device(false, false)]
}

/// The least number.
const LEAST: f32 = 5.9604645e-8;

/// Pairs of f16. The first and half of the second add up without rounding in f32 to what lies half way between two
/// numbers of f16 or just beside, among the largest and the least, and to what is none.
const PAIRS: [[f32; 2]; 18] = [
    [2048.0, 2.0],
    [2050.0, 2.0],
    [-2050.0, -2.0],
    [2048.0, 2.0 + 2.0 / 1024.0],
    [2050.0, 2.0 - 1.0 / 1024.0],
    [1.0, 1.0 / 1024.0],
    [1.0 + 1.0 / 1024.0, 1.0 / 1024.0],
    [0.0, LEAST],
    [LEAST, LEAST],
    // The largest subnormal number.
    [1024.0 * LEAST, -2.0 * LEAST],
    [65504.0, 32.0 - 1.0 / 64.0],
    [65504.0, 32.0],
    [-65504.0, -32.0],
    [60000.0, 60000.0],
    [f32::INFINITY, 1.0],
    [f32::INFINITY, f32::NEG_INFINITY],
    [f32::NAN, 1.0],
    // Half way as a mean.
    [2050.0, 2052.0],
];

/// A chain that adds these up, an image for each pair.
struct Adder {
    chain: Chain,
    weights: Vec<Vec<f32>>,
    /// Channels, rows and columns.
    image: [u32; 3],
}

impl Adder {
    fn new(links: impl IntoIterator<Item = Link>, weights: &[&[f32]], image: [u32; 3]) -> Self {
        let weights = weights.iter().map(|weight| weight.to_vec()).collect();
        Self { chain: Chain::new(links).with_dtype(DType::F16), weights, image }
    }

    /// Runs the first recipe of each of some kernels, and gives the kernels' names.
    fn check(&self, layout: Layout, is_chosen: fn(&str) -> bool) -> BTreeSet<String> {
        let [channels, height, width] = self.image;
        let input = Shape { batch: PAIRS.len() as u32, channels, height, width };
        let weights: Vec<_> = self.weights.iter().map(|weight| Weights::without_bias(weight)).collect();
        let answer = oracle::run(&self.chain, PAIRS.as_flattened(), input, &weights, None).unwrap();
        let mut kernels = BTreeSet::new();
        for gpu in devices() {
            let mut seen = BTreeSet::new();
            let schedules = planner::alternatives(&self.chain, input, layout, gpu.caps()).unwrap();
            for name in schedules.iter().map(|schedule| schedule.name()) {
                // Winograd's method rounds on the way, and makes NaNs of infinities.
                let kernel = name.split('+').map(kernel_of).collect::<Vec<_>>().join("+");
                if kernel.contains("winograd") || !is_chosen(&kernel) || !seen.insert(kernel) {
                    continue;
                }
                let layer = gpu.chain_with(&self.chain, &weights, Choice::Named(name.clone())).unwrap();
                let x = from_nchw(PAIRS.as_flattened(), input, layout);
                let y = layer.forward(&gpu.upload_of(&x, input, layout, DType::F16).unwrap()).unwrap();
                let outputs = to_nchw(&gpu.download(&y).unwrap(), y.shape(), layout);
                assert_eq!(outputs.len(), PAIRS.len());
                for ((output, sum), pair) in outputs.iter().zip(&answer.values).zip(PAIRS) {
                    let (output, expected) = (f64::from(*output), DType::F16.nearest(*sum));
                    let agrees = output == expected || output.is_nan() && expected.is_nan();
                    assert!(agrees, "{name}, {layout}, {:?}: {pair:?} gives {output:e}", gpu.caps());
                }
            }
            kernels.append(&mut seen);
        }
        kernels
    }
}

fn plain(conv: Conv2d) -> Link {
    conv.bias(false).into()
}

#[test]
fn sums_are_rounded_to_the_nearest_half_and_overflow_to_infinity() {
    let product = Adder::new([plain(Conv2d::pointwise(2, 1))], &[&[1.0, 0.5]], [2, 1, 1]);
    let kernels = product.check(Layout::Nchw, |kernel| kernel == "direct");
    assert_eq!(kernels.len(), 1);
}

#[test]
#[ignore = "takes minutes"]
fn every_kernel_rounds_to_the_nearest_half_in_full() {
    let middle = |values: &[f32]| {
        values.iter().flat_map(|&value| [0.0, 0.0, 0.0, 0.0, value, 0.0, 0.0, 0.0, 0.0]).collect::<Vec<_>>()
    };
    let dense = Conv2d::new(2, 1, 3).padding(1);
    let pair = Conv2d::depthwise(1, [1, 2]);
    let (row, one) = (plain(pair), plain(Conv2d::pointwise(1, 1)));
    let adders = [
        Adder::new([plain(Conv2d::pointwise(2, 1))], &[&[1.0, 0.5]], [2, 1, 1]),
        Adder::new([plain(dense)], &[&middle(&[1.0, 0.5])], [2, 1, 1]),
        Adder::new([row.clone()], &[&[1.0, 0.5]], [1, 1, 2]),
        Adder::new([row, one], &[&[1.0, 0.5], &[1.0]], [1, 1, 2]),
        Adder::new([Link::GlobalAveragePool], &[], [1, 1, 2]),
        Adder::new(
            [plain(Conv2d::pointwise(2, 2)), plain(Conv2d::depthwise(2, 3).padding(1)), plain(Conv2d::pointwise(2, 1))],
            &[&[1.0, 0.0, 0.0, 1.0], &middle(&[1.0; 2]), &[1.0, 0.5]],
            [2, 1, 1],
        ),
    ];
    let check = |layout| adders.iter().map(|adder| adder.check(layout, |_| true)).collect::<Vec<_>>();
    let kernels: BTreeSet<_> = [Layout::Nchw, Layout::Nhwc].map(check).into_iter().flatten().flatten().collect();
    println!("{kernels:?}");
    assert!(kernels.len() > 8, "{kernels:?}");
}
