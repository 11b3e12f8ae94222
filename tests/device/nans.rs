//! NaNs and infinities through kernels that fuse links, whose activations inside clamp by means of their own.

use gpuconv::gpu::GpuKind;
use gpuconv::internals::random;
use gpuconv::shape::{from_nchw, to_nchw};
use gpuconv::{Activation, Caps, Chain, Choice, Conv2d, Layout, Shape};

use crate::common::{as_gpu, borrow, draw, expected, gpu};

/// A recipe, the kinds of GPUs whose shaders differ, a problem, and the layouts.
type Case = (&'static str, &'static [GpuKind], Chain, Shape, &'static [Layout]);

const KINDS: &[GpuKind] = &[GpuKind::AmdDiscrete, GpuKind::Apple];
const LAYOUTS: &[Layout] = &[Layout::Nhwc, Layout::Nchw];

fn separable(channels: u32, stride: u32) -> Chain {
    let depthwise = Conv2d::depthwise(channels, 3).stride(stride).padding(1).activation(Activation::Relu6);
    Chain::new([depthwise, Conv2d::pointwise(channels, 20)])
}

/// What is neither a number nor finite, and where: NaNs of both signs, and infinities, none under the same kernel.
fn place(input: &mut [f32], shape: Shape, channel: u32) {
    let odd = [f32::NAN, f32::from_bits(0xff80_0001), f32::INFINITY, f32::NEG_INFINITY];
    for (value, [y, x]) in odd.into_iter().zip([[0, 1], [4, 7], [8, 2], [2, 4]]) {
        input[((channel * shape.height + y) * shape.width + x) as usize] = value;
    }
}

#[test]
fn a_nan_inside_of_a_fused_run_is_kept_at_its_pixels() {
    let case = ("separable/32x64x32", &KINDS[..1], separable(20, 1), [2, 20, 9, 13].into(), LAYOUTS);
    assert_eq!(check(&[case]), 2);
}

#[test]
#[ignore = "takes minutes"]
fn a_nan_is_kept_at_its_pixels_by_all_shaders_in_full() {
    let cases = [
        ("separable/32x64x32", &KINDS[1..], separable(20, 1), [2, 20, 9, 13].into(), LAYOUTS),
        ("separable/128x32x16", &KINDS[..1], separable(36, 2), [1, 36, 14, 14].into(), LAYOUTS),
        ("separable/64x64x16", &KINDS[..1], separable(20, 1), [2, 20, 9, 13].into(), LAYOUTS),
        ("inverted_residual/32x64x16", KINDS, Chain::inverted_residual(8, 8, 4, 1), [1, 8, 9, 10].into(), LAYOUTS),
    ];
    assert_eq!(check(&cases), 10);
}

/// Slices of channels that do not divide evenly are filled up. What lies there in memory is the next pixel's or image's,
/// and zero weights would not hide its NaNs.
#[test]
fn what_lies_behind_the_last_channel_does_not_reach_a_slice() {
    let gpu = as_gpu();
    // In NHWC channels come in quads if they are a multiple of four; four slices have these evenly.
    for (conv, shape, slices) in [
        (Conv2d::new(131, 9, 3).padding(1), [2, 131, 3, 5], 4),
        (Conv2d::new(516, 5, 2), [2, 516, 3, 4], 16),
        (Conv2d::pointwise(133, 7), [2, 133, 3, 5], 4),
        (Conv2d::pointwise(516, 3), [2, 516, 3, 4], 16),
    ] {
        let recipe = Choice::Named(format!("split/{slices}-32x32x16"));
        let (chain, shape) = (Chain::from(conv), Shape::from(shape));
        let (weights, mut input) = (draw(&chain), random::integers("input", shape.len(), 2));
        let second = input.len() / 2;
        let right = expected(&chain, &input, shape, &borrow(&weights), None);
        input[second..].fill(f32::NAN);
        let layer = gpu.chain_with(&chain, &borrow(&weights), recipe).unwrap();
        for &layout in LAYOUTS {
            let x = gpu.upload_as(&from_nchw(&input, shape, layout), shape, layout).unwrap();
            let y = layer.forward(&x).unwrap();
            let found = to_nchw(&gpu.download(&y).unwrap(), y.shape(), layout);
            let (first, second) = found.split_at(found.len() / 2);
            assert!(first.iter().zip(&right).all(|(found, right)| found == right), "{chain:?} in {layout}");
            assert!(second.iter().all(|value| value.is_nan()), "{chain:?} in {layout}");
        }
    }
}

/// The last piece of a kernel's row is filled up. What lies there is in the image, but under no output's kernel.
#[test]
fn what_lies_behind_the_last_column_does_not_reach_a_piece() {
    let conv = Conv2d::new(4, 4, [1, 13]).padding([0, 6, 0, 6]);
    let case = ("implicit_gemm_uniform/4x4-pieces", &KINDS[..1], conv.into(), [1, 4, 9, 37].into(), LAYOUTS);
    assert_eq!(check(&[case]), 2);
}

/// Compares with the oracle, and gives the number of comparisons.
fn check(cases: &[Case]) -> usize {
    let (device, mut checks) = (gpu(), 0);
    for (recipe, kinds, chain, shape, layouts) in cases {
        let (weights, mut input) = (draw(chain), random::integers("input", shape.len(), 2));
        place(&mut input, *shape, 3);
        let expected = expected(chain, &input, *shape, &borrow(&weights), None);
        assert!(expected.iter().any(|value| value.is_nan()) && expected.iter().any(|value| value.is_finite()));
        for (&layout, &kind) in layouts.iter().flat_map(|layout| kinds.iter().map(move |kind| (layout, kind))) {
            let gpu = device.with_caps(|caps| Caps { is_cpu: false, gpu: kind.typical(), ..caps });
            let layer = gpu.chain_with(chain, &borrow(&weights), Choice::Named((*recipe).into())).unwrap();
            let x = gpu.upload_as(&from_nchw(&input, *shape, layout), *shape, layout).unwrap();
            let y = layer.forward(&x).unwrap();
            let found = to_nchw(&gpu.download(&y).unwrap(), y.shape(), layout);
            for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let is_right = found == expected || (found.is_nan() && expected.is_nan());
                assert!(is_right, "{recipe} in {layout} for {kind:?}: output {at} is {found}, not {expected}");
            }
            checks += 1;
        }
    }
    checks
}
