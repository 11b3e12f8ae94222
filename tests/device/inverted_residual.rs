//! The kernel `inverted_residual`, which is for GPUs, on this machine's device against the oracle.

use gpuconv::verify::Oracle;
use gpuconv::{Activation, Chain, Conv2d, DType, Layout, Residual, Shape, planner};

use crate::common::as_gpu;

/// MobileNetV2's block, with another depthwise link.
fn block(in_channels: u32, hidden: u32, out_channels: u32, depthwise: Conv2d) -> Chain {
    Chain::new([
        Conv2d::pointwise(in_channels, hidden).activation(Activation::HardSwish).bias(false),
        depthwise.activation(Activation::Relu),
        Conv2d::pointwise(hidden, out_channels).activation(Activation::Relu6),
    ])
}

/// A chain, its input, and the number of its recipes.
type Case = (Chain, Shape, usize);

/// Cases in NCHW: outputs that fill blocks of 8x8 and 4x8, that are a part of one, or one more; several images;
/// expanded channels that do not fill the last step; input channels that are a multiple of four and that are not;
/// padding on each side; steps of 16, 8 and 4 channels at one to six inputs.
fn nchw_cases() -> Vec<Case> {
    let padded = Conv2d::depthwise(20, 3).padding([2, 0, 1, 3]);
    let strided = Conv2d::depthwise(20, 5).stride(2).padding(2);
    let dilated = Conv2d::depthwise(9, 5).dilation(2).padding(4);
    let residual = Chain::inverted_residual(4, 4, 3, 1).edge(0, 2, Residual::BeforeActivation).unwrap();
    vec![
        (residual, [1, 4, 3, 12].into(), 6),
        (Chain::inverted_residual(8, 8, 6, 1), [2, 8, 9, 16].into(), 6),
        (Chain::inverted_residual(5, 37, 3, 2), [1, 5, 17, 15].into(), 3),
        (block(3, 20, 5, strided), [1, 3, 11, 9].into(), 3),
        (block(6, 20, 129, padded), [1, 6, 7, 8].into(), 6),
        (block(3, 9, 33, dilated), [1, 3, 6, 5].into(), 3),
    ]
}

fn nhwc_cases() -> Vec<Case> {
    let padded = Conv2d::depthwise(20, 3).padding([2, 0, 1, 3]);
    vec![
        (Chain::inverted_residual(4, 8, 3, 1), [1, 4, 5, 9].into(), 6),
        (Chain::inverted_residual(8, 8, 6, 1), [2, 8, 9, 16].into(), 6),
        (Chain::inverted_residual(12, 37, 3, 2), [2, 12, 17, 15].into(), 3),
        (block(4, 20, 129, padded), [1, 4, 7, 8].into(), 6),
        // Six input channels are not a multiple of four.
        (Chain::inverted_residual(6, 6, 3, 1), [1, 6, 8, 8].into(), 0),
    ]
}

#[test]
fn a_block_agrees_with_the_oracle() {
    for (layout, cases) in [(Layout::Nchw, nchw_cases()), (Layout::Nhwc, nhwc_cases())] {
        assert_eq!(check(layout, &cases[..1], false, DType::F32), 1);
    }
}

#[test]
#[ignore = "takes minutes"]
fn every_recipe_of_every_block_agrees_with_the_oracle_in_full() {
    assert_eq!(check(Layout::Nchw, &nchw_cases(), true, DType::F32), 27);
    assert_eq!(check(Layout::Nhwc, &nhwc_cases(), true, DType::F32), 21);
}

#[test]
#[ignore = "takes minutes"]
fn every_recipe_of_every_block_in_f16_agrees_with_the_oracle_in_full() {
    assert_eq!(check(Layout::Nchw, &nchw_cases(), true, DType::F16), 27);
    assert_eq!(check(Layout::Nhwc, &nhwc_cases(), true, DType::F16), 21);
}

/// Checks all recipes of each case, or only the one with the shortest shader. Returns the number of checks.
fn check(layout: Layout, cases: &[Case], all: bool, dtype: DType) -> usize {
    let gpu = as_gpu();
    let mut checks = 0;
    for (index, (chain, input, expected)) in cases.iter().enumerate() {
        let chain = chain.clone().with_dtype(dtype);
        let oracle = Oracle::of_chain(&format!("block {index}"), chain.clone(), *input, layout, u64::MAX).unwrap();
        let mut fused = planner::alternatives(&chain, *input, layout, gpu.caps()).unwrap();
        fused.retain(|schedule| schedule.steps.len() == 1);
        assert_eq!(fused.len(), *expected, "case {index}");
        fused.sort_by_cached_key(|schedule| schedule.steps[0].recipe.passes[0].wgsl.text().unwrap().len());
        for schedule in fused.iter().take(if all { fused.len() } else { 1 }) {
            let report = oracle.check(&gpu, schedule).unwrap();
            assert!(report.passes(), "case {index}: {}: {report:?}", schedule.name());
            checks += 1;
        }
    }
    checks
}
