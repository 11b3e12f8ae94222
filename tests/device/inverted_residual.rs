//! The fused inverted residual, a kernel for GPUs, on the device of this machine against the oracle.

use std::collections::BTreeSet;

use gpuconv::verify::Oracle;
use gpuconv::{Activation, Caps, Chain, Conv2d, GpuConv, Layout, Residual, Shape, planner};

/// MobileNetV2's block with a depthwise link of another shape.
fn block(in_channels: u32, hidden: u32, out_channels: u32, depthwise: Conv2d) -> Chain {
    Chain::new([
        Conv2d::pointwise(in_channels, hidden).activation(Activation::HardSwish).bias(false),
        depthwise.activation(Activation::Relu),
        Conv2d::pointwise(hidden, out_channels).activation(Activation::Relu6),
    ])
}

/// A chain, its input, its recipes, and those that are run: each is compiled anew, and software devices are slow at that.
type Case = (Chain, Shape, usize, &'static [usize]);

#[test]
fn every_recipe_agrees_with_the_oracle_in_planes() {
    let padded = Conv2d::depthwise(20).kernel_size(3).padding([2, 0, 1, 3]);
    let strided = Conv2d::depthwise(20).kernel_size(5).stride(2).padding(2);
    let dilated = Conv2d::depthwise(9).kernel_size(5).dilation(2).padding(4);
    let residual = Chain::inverted_residual(4, 4, 3, 1).edge(0, 2, Residual::BeforeActivation).unwrap();
    // Blocks of 8x8 and 4x8 outputs, a part of one, one more, and several images; expanded channels that are no multiple
    // of those made at a time; input channels that are whole quads and not; padding on any side; 16, 8 and 4 channels of
    // one to six inputs at a time.
    let cases: [Case; 6] = [
        (Chain::inverted_residual(8, 8, 6, 1), [2, 8, 9, 16].into(), 6, &[0, 1]),
        (Chain::inverted_residual(5, 37, 3, 2), [1, 5, 17, 15].into(), 3, &[1]),
        (block(3, 20, 5, strided), [1, 3, 11, 9].into(), 3, &[2]),
        (block(6, 20, 129, padded), [1, 6, 7, 8].into(), 6, &[2]),
        (block(3, 9, 33, dilated), [1, 3, 6, 5].into(), 3, &[0]),
        (residual, [1, 4, 3, 12].into(), 6, &[5]),
    ];
    let run = check(Layout::Nchw, cases);
    assert_eq!(run.len(), 6, "every recipe is run once at least: {run:?}");
}

#[test]
fn recipes_agree_with_the_oracle_in_quads_of_channels() {
    let padded = Conv2d::depthwise(20).kernel_size(3).padding([2, 0, 1, 3]);
    let cases: [Case; 4] = [
        (Chain::inverted_residual(8, 8, 6, 1), [2, 8, 9, 16].into(), 6, &[1]),
        (Chain::inverted_residual(12, 37, 3, 2), [2, 12, 17, 15].into(), 3, &[2]),
        (block(4, 20, 129, padded), [1, 4, 7, 8].into(), 6, &[3]),
        // No quads.
        (Chain::inverted_residual(6, 6, 3, 1), [1, 6, 8, 8].into(), 0, &[]),
    ];
    let run = check(Layout::Nhwc, cases);
    assert_eq!(run.len(), 3, "{run:?}");
}

/// Says which recipes were run.
fn check(layout: Layout, cases: impl IntoIterator<Item = Case>) -> BTreeSet<String> {
    let gpu = GpuConv::new().unwrap_or_else(|error| panic!("{error}")).with_caps(|caps| Caps { is_cpu: false, ..caps });
    let mut run = BTreeSet::new();
    for (index, (chain, input, expected, turn)) in cases.into_iter().enumerate() {
        let oracle = Oracle::of_chain(&format!("block {index}"), chain.clone(), input, layout, u64::MAX).unwrap();
        let schedules = planner::alternatives(&chain, input, layout, gpu.caps()).unwrap();
        let fused: Vec<_> = schedules.iter().filter(|schedule| schedule.steps.len() == 1).collect();
        assert_eq!(fused.len(), expected, "case {index}");
        for schedule in turn.iter().map(|&recipe| fused[recipe]) {
            let report = oracle.check(&gpu, schedule).unwrap();
            assert!(report.passes(), "case {index}: {}: {report:?}", schedule.name());
            run.insert(schedule.name());
        }
    }
    run
}
