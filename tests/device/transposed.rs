//! Transposed convolutions: recipes against the oracle, and between other links.

use std::collections::BTreeSet;

use gpuconv::planner::Schedule;
use gpuconv::verify::{self, Oracle};
use gpuconv::{
    Activation, Caps, Chain, Choice, Concat, Conv2d, ConvTranspose2d, DType, Error, GpuConv, Layout, Link, PRelu,
    Problem, Shape, Weights, planner,
};

use crate::common::{as_gpu, gpu};

/// Recipes by their kernel, for phases by the product that computes these: `phases/pointwise`. Those that multiply by
/// zeros are apart.
fn kind(schedule: &Schedule) -> String {
    let name = schedule.name();
    let product = name.split_once('-').map_or(name.split('/').next(), |(product, _)| Some(product));
    format!("{}{}", product.unwrap_or_default(), if name.ends_with("-joined") { " joined" } else { "" })
}

/// A recipe of each kind for a problem, or all.
fn schedules(gpu: &GpuConv, problem: &Problem, is_full: bool) -> Vec<Schedule> {
    let mut kinds = BTreeSet::new();
    let all = planner::alternatives(&problem.chain(), problem.input, problem.layout, gpu.caps()).unwrap();
    let single = all.into_iter().filter(|schedule| schedule.steps.len() == 1);
    single.filter(|schedule| kinds.insert(kind(schedule)) || is_full).collect()
}

fn check(gpu: &GpuConv, problem: &Problem, schedule: &Schedule) {
    let report = Oracle::new(problem).unwrap().check(gpu, schedule).unwrap();
    assert!(report.passes(), "{problem}: {}: {report:?}", schedule.name());
}

fn cases() -> impl Iterator<Item = Problem> {
    let is_transposed = |problem: &Problem| problem.to_string().starts_with("transposed");
    verify::cases().into_iter().filter(is_transposed)
}

/// By the definition, and by phases of another kind from case to case.
#[test]
fn recipes_agree_with_the_oracle() {
    let (gpu, mut checked) = (gpu(), 0);
    for (turn, problem) in cases().enumerate() {
        let (phases, others): (Vec<_>, Vec<_>) =
            schedules(&gpu, &problem, false).into_iter().partition(|schedule| schedule.name().starts_with("phases"));
        assert!(!others.is_empty(), "{problem}");
        let of_phases = phases.get(turn % phases.len().max(1));
        for schedule in others.iter().chain(of_phases) {
            check(&gpu, &problem, schedule);
        }
        checked += usize::from(of_phases.is_some());
    }
    assert!(checked > 12, "{checked} by phases");
}

/// What images of one row or column see does not depend on the stride.
#[test]
fn images_of_one_value_agree_with_the_oracle() {
    for (index, line) in [
        "transposed 1x100x1x1 -> 64 k4",
        "transposed 3x10x1x1 -> 6 k4 s2 p1",
        "transposed 2x10x1x5 -> 6 k3x4 s2",
        "transposed 2x10x5x1 -> 7 k3x4 s2 nhwc",
        "transposed 2x8x1x1 -> 6 k3 s2 p1 o1 d2 relu",
        "transposed 2x8x1x1 -> 6 k3 s3 o2 nhwc",
        "transposed 2x8x1x1 -> 6 k2 s4 o3 f16",
        "transposed 1x8x1x1 -> 4 k1x9 p0,2,0,3 tanh",
    ]
    .into_iter()
    .enumerate()
    {
        let gpu = if index % 2 == 0 { gpu() } else { as_gpu() };
        let problem = line.parse().unwrap();
        for schedule in schedules(&gpu, &problem, false) {
            check(&gpu, &problem, &schedule);
        }
    }
}

#[test]
#[ignore = "takes minutes"]
fn all_recipes_agree_with_the_oracle_in_full() {
    for gpu in [gpu(), as_gpu()] {
        for problem in cases() {
            schedules(&gpu, &problem, true).iter().for_each(|schedule| check(&gpu, &problem, schedule));
        }
    }
}

/// Phases by all products, with `halves` where shaders have these.
#[test]
fn phases_go_where_they_belong() {
    for (line, recipe, halves) in [
        // As many channels as phases have, no quads of them.
        ("transposed 2x8x4x5 -> 3 k2 s2 prelu", "pointwise_uniform-8x4", true),
        ("transposed 2x8x4x5 -> 3 k2 s2 prelu nhwc", "pointwise_uniform-8x4", true),
        ("transposed 2x8x4x5 -> 4 k2 s2 prelu nhwc", "pointwise-32x32x16", true),
        ("transposed 1x16x5x7 -> 6 k3 s2 p1 o1 relu f16", "implicit_gemm_uniform-8x4", true),
        ("transposed 1x16x5x7 -> 8 k4 s2 p1 f16 nhwc", "implicit_gemm-32x32x16-joined", true),
        // Words of two halves, of which each pass stores one.
        ("transposed 1x16x5x3 -> 6 k4x3 s2x3 p1,0,0,1 f16", "implicit_gemm_uniform-4x4", false),
        ("transposed 1x16x5x3 -> 4 k2 s2 f16 nhwc", "pointwise_uniform-8x4", false),
        ("transposed 2x8x4x5 -> 8 k4x5 s2x3 p1,2,0,1 o1x0 g2 nhwc", "implicit_gemm_uniform-4x8", true),
        ("transposed 1x6x4x9 -> 5 k3 s2 p1 d2x3 o1x2", "implicit_gemm_uniform-8x4", true),
        ("transposed 2x4x7x6 -> 6 k3 s1 p1 silu", "implicit_gemm_uniform-8x4", true),
        // Windows that begin behind the first value, or end before the last, and phases that see nothing.
        ("transposed 1x6x6x7 -> 5 k3 s2 p2", "implicit_gemm_uniform-8x4", true),
        ("transposed 1x6x6x7 -> 5 k4 s2 p3,2,3,3 nhwc", "implicit_gemm_uniform-4x8-joined", true),
        ("transposed 1x6x4x5 -> 5 k2x3 s4 relu", "implicit_gemm_uniform-8x4", true),
        // Cut along the input channels: evenly, and with fewer of them in the last slice.
        ("transposed 1x130x4x5 -> 9 k4 s2 p1 relu", "split-4-32x32x16", true),
        ("transposed 2x131x3x5 -> 5 k4 s2 p1 prelu nhwc", "split-4-32x32x16-joined", true),
        ("transposed 1x137x4x5 -> 6 k3 s2 p1 o1 silu f16", "split-4-32x32x16", false),
        ("transposed 2x133x4x3 -> 6 k2 s2 prelu f16", "split-4-32x32x16", true),
        ("transposed 2x128x4x3 -> 8 k2 s2 f16 nhwc", "split-4-32x32x16", false),
        ("transposed 1x160x4x3 -> 3 k4x5 s2x3 p1,2,0,1 o1x0 tanh", "split-4-32x32x16-joined", true),
        ("transposed 3x512x1x1 -> 7 k4 s2 p1 nhwc", "split-16-32x32x16", true),
        ("transposed 2x128x5x4 -> 3 k3 s2x1 p1 nobias", "split-4-32x32x16", true),
        // By Winograd's transforms: phases together, and each by itself, beside one that sees fewer taps.
        ("transposed 1x8x9x7 -> 6 k4 s2 p1 silu", "winograd-4x4-32x32x16-joined", true),
        ("transposed 2x6x5x7 -> 5 k4 s2 p1 prelu nhwc", "winograd-2x2-32x32x16-joined", true),
        ("transposed 2x5x8x6 -> 3 k4 s2 p1 prelu f16", "winograd-2x2-32x32x16-joined", false),
        ("transposed 1x8x6x7 -> 4 k6 s2 p2 nobias f16 nhwc", "winograd-4x4-32x32x16", true),
        ("transposed 1x8x6x7 -> 7 k6 s2 p2 tanh", "winograd-2x2-32x32x16", true),
        ("transposed 1x8x6x7 -> 7 k5x3 s2x1 p2,1,2,1 relu nhwc", "winograd-4x4-32x32x16", true),
    ] {
        let problem: Problem = line.parse().unwrap();
        let gpu = as_gpu().with_caps(|caps| Caps { f16: halves && caps.f16, ..caps });
        let choice = Choice::Named(format!("phases/{recipe}"));
        let schedule = planner::schedule(&problem.chain(), problem.input, problem.layout, gpu.caps(), &choice).unwrap();
        check(&gpu, &problem, &schedule);
    }
}

/// The decoder of a U-Net: what is enlarged lies among the channels of an earlier tensor, and in batches of NCHW and in
/// NHWC is stored there by a view.
#[test]
fn phases_are_stored_among_other_channels() {
    let by_blocks = (4, "phases/pointwise_uniform-8x4");
    for (gpu, dtype, (channels, phases)) in [
        (gpu(), DType::F32, (4, "phases")),
        (as_gpu(), DType::F32, by_blocks),
        (as_gpu(), DType::F16, by_blocks),
        (as_gpu(), DType::F32, (128, "phases/split-4-32x32x16")),
        (as_gpu(), DType::F16, (128, "phases/split-4-32x32x16")),
        (as_gpu(), DType::F32, (4, "phases/winograd-4x4-32x32x16-joined")),
        (as_gpu(), DType::F16, (4, "phases/winograd-4x4-32x32x16-joined")),
    ] {
        let (kernel, padding) = if phases.contains("winograd") { (4, 1) } else { (2, 0) };
        for (layout, batch, prelu) in [(Layout::Nchw, 2, true), (Layout::Nhwc, 1, false), (Layout::Nchw, 1, false)] {
            let up = ConvTranspose2d::new(channels, 4, kernel).stride(2).padding(padding);
            let chain = Chain::from(Conv2d::new(3, 4, 3).padding(1)).then(Conv2d::new(4, channels, 2).stride(2));
            let chain = if prelu { chain.then(up).then(PRelu::new(4)) } else { chain.then(up) };
            let (upper, whole) = (chain.links().len(), chain.links().len() + 1);
            let chain = chain.then(Link::from(Concat::new([4, 4]))).then(Conv2d::pointwise(8, 2));
            let chain = chain.concatenates([1, upper], whole - 1).unwrap().with_dtype(dtype);
            let input = Shape::from([batch, 3, 6, 10]);
            let choice = Choice::Named(format!("direct+direct+{phases}+channels+direct"));
            let schedule = planner::schedule(&chain, input, layout, gpu.caps(), &choice).unwrap();
            let concat = schedule.steps.iter().find(|step| step.first == whole - 1).unwrap();
            // What reads the earlier tensor for 128 channels loads it so often that it is copied.
            let copies = concat.recipe.passes.len();
            assert!(copies <= usize::from(channels > 4), "{layout} {batch}: {copies}: {}", schedule.name());
            let oracle = Oracle::of_chain("decoder", chain, input, layout, u64::MAX).unwrap();
            let report = oracle.check(&gpu, &schedule).unwrap();
            assert!(report.passes(), "{layout}: {}: {report:?}", schedule.name());
        }
    }
}

/// Weights are in PyTorch's order: input channels first.
#[test]
fn weights_go_where_pytorch_has_them() {
    let gpu = gpu();
    let conv = ConvTranspose2d::new(2, 3, [1, 2]).stride([1, 2]).bias(false);
    let weight = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 70.0, 80.0, 90.0, 100.0, 110.0, 120.0];
    let layer = gpu.chain(&conv.into(), &[Weights::without_bias(&weight)]).unwrap();
    let y = layer.forward(&gpu.upload(&[1.0, 10.0], [1, 2, 1, 1]).unwrap()).unwrap();
    assert_eq!(y.shape(), [1, 3, 1, 2].into());
    assert_eq!(gpu.download(&y).unwrap(), [701.0, 802.0, 903.0, 1004.0, 1105.0, 1206.0]);
}

/// The head of a text detector: two of them, with their activations.
#[test]
fn they_stand_between_convolutions() {
    let gpu = gpu();
    let twice = |inputs, outputs, activation| ConvTranspose2d::new(inputs, outputs, 2).stride(2).activation(activation);
    let chain = Chain::from(Conv2d::new(6, 4, 3).padding(1))
        .then(twice(4, 4, Activation::Relu))
        .then(Conv2d::depthwise(4, 3).padding(1))
        .then(twice(4, 1, Activation::Sigmoid));
    let input = Shape::from([2, 6, 5, 7]);
    assert_eq!(chain.shapes(input).unwrap()[4], [2, 1, 20, 28].into());
    for layout in [Layout::Nchw, Layout::Nhwc] {
        let choice = Choice::Named("direct".into());
        let schedule = planner::schedule(&chain, input, layout, gpu.caps(), &choice).unwrap();
        let oracle = Oracle::of_chain("detector", chain.clone(), input, layout, u64::MAX).unwrap();
        let report = oracle.check(&gpu, &schedule).unwrap();
        assert!(report.passes(), "{layout}: {report:?}");
    }
}

/// Kernels that fuse a depthwise and a pointwise convolution take a transposed one of stride 1 for the first.
#[test]
fn those_of_stride_1_are_fused() {
    let gpu = as_gpu();
    let depthwise = ConvTranspose2d::new(8, 8, [3, 2]).padding([1, 0]).groups(8).activation(Activation::Relu6);
    let chain = Chain::from(depthwise).then(Conv2d::pointwise(8, 12));
    for layout in [Layout::Nchw, Layout::Nhwc] {
        let input = Shape::from([1, 8, 9, 7]);
        let choice = Choice::Named("separable".into());
        let schedule = planner::schedule(&chain, input, layout, gpu.caps(), &choice).unwrap();
        assert_eq!(schedule.steps.len(), 1, "{layout}");
        let oracle = Oracle::of_chain("block", chain.clone(), input, layout, u64::MAX).unwrap();
        let report = oracle.check(&gpu, &schedule).unwrap();
        assert!(report.passes(), "{layout}: {report:?}");
    }
}

#[test]
fn weights_of_another_length_are_refused() {
    let conv = Chain::from(ConvTranspose2d::new(1, 2, 2).stride(2));
    let wrong = gpu().chain(&conv, &[Weights::new(&[0.0; 7], &[0.0; 2])]);
    assert!(matches!(wrong.err(), Some(Error::Length { expected: 8, actual: 7, .. })));
}
