//! Chains whose links read earlier tensors: blocks with a projection, and gates.

use gpuconv::verify::{Data, Oracle};
use gpuconv::{
    Activation, Caps, Chain, Choice, Conv2d, DType, Error, GpuConv, Inputs, Layout, Link, Residual, Shape,
    SqueezeExcite, Weights, planner, shape,
};

use crate::common::{as_gpu, borrow, draw, expected, gpu};

/// ResNet's block with a projection: two convolutions, and a third one of the block's input whose residual is their
/// output.
fn projected(dtype: DType) -> Chain {
    let relu = |conv: Conv2d| conv.activation(Activation::Relu);
    let first = relu(Conv2d::new(4, 8, 3).stride(2).padding(1));
    let project = relu(Conv2d::pointwise(4, 8).stride(2));
    let chain = Chain::new([first, Conv2d::new(8, 8, 3).padding(1), project]).reads(0, 2).unwrap();
    chain.edge(2, 2, Residual::BeforeActivation).unwrap().with_dtype(dtype)
}

/// An inverted residual with a gate, between two other links.
fn gated(dtype: DType) -> Chain {
    let swish = |conv: Conv2d| conv.activation(Activation::HardSwish);
    let gate = SqueezeExcite::new(12, 4).activations(Activation::Relu, Activation::HardSigmoid);
    let links: [Link; 6] = [
        Conv2d::new(3, 6, 3).stride(2).padding(1).activation(Activation::Relu).into(),
        swish(Conv2d::pointwise(6, 12)).into(),
        swish(Conv2d::depthwise(12, 5).padding(2)).into(),
        gate.into(),
        Conv2d::pointwise(12, 6).into(),
        Conv2d::pointwise(6, 5).into(),
    ];
    let chain = Chain::new(links).reads(3, 4).unwrap().scales(4, 4).unwrap();
    chain.edge(1, 4, Residual::AfterActivation).unwrap().with_dtype(dtype)
}

/// The kernel that a software device compiles fastest.
fn direct() -> Choice {
    Choice::Named("direct".into())
}

/// Checks a choice for a chain on a device, step by step, and the whole against its steps.
fn agrees(gpu: &GpuConv, name: &str, chain: &Chain, input: [u32; 4], layout: Layout, choice: &Choice) {
    let oracle = Oracle::of_chain(name, chain.clone(), input, layout, u64::MAX).unwrap();
    let schedule = planner::schedule(chain, input, layout, gpu.caps(), choice).unwrap();
    let report = oracle.check(gpu, &schedule).unwrap();
    // In f16 the rounding of the stores hides most errors.
    let is_checked = report.share_of_bound > 0.0 || chain.dtype() == DType::F16;
    assert!(report.passes() && is_checked, "{name} {layout}: {report:?}");
}

#[test]
fn a_block_with_a_projection_agrees_with_the_oracle() {
    for layout in [Layout::Nchw, Layout::Nhwc] {
        agrees(&gpu(), "projected", &projected(DType::F32), [2, 4, 9, 7], layout, &direct());
    }
    agrees(&as_gpu(), "projected", &projected(DType::F16), [2, 4, 9, 7], Layout::Nchw, &direct());
}

#[test]
fn a_block_with_a_gate_agrees_with_the_oracle() {
    let gpu = gpu();
    let product = if gpu.caps().is_cpu && gpu.caps().subgroup.is_some() { "pointwise_subgroup" } else { "pointwise" };
    let names = Choice::Named(format!("direct+direct+direct+gate+{product}+direct"));
    agrees(&gpu, "gated", &gated(DType::F32), [2, 3, 13, 11], Layout::Nchw, &names);
    agrees(&gpu, "gated", &gated(DType::F32), [2, 3, 13, 11], Layout::Nhwc, &direct());
    agrees(&as_gpu(), "gated", &gated(DType::F16), [2, 3, 13, 11], Layout::Nhwc, &direct());
}

/// Whole numbers through a layer as callers use it, with the same tensor read by three links.
#[test]
fn a_layer_reads_earlier_tensors() {
    let links = [2, 3, 2].map(|_| Conv2d::pointwise(2, 2));
    let chain = Chain::new(links).reads(0, 1).unwrap().reads(0, 2).unwrap();
    let chain = chain.edge(1, 1, Residual::AfterActivation).unwrap().edge(2, 2, Residual::AfterActivation).unwrap();
    let (gpu, weights, input) = (gpu(), draw(&chain), Shape::from([2, 2, 3, 2]));
    let values: Vec<f32> = (0..input.len()).map(|value| value as f32 - 11.0).collect();
    let layer = gpu.chain(&chain, &borrow(&weights)).unwrap();
    for layout in [Layout::Nchw, Layout::Nhwc] {
        let x = gpu.upload_as(&shape::from_nchw(&values, input, layout), input, layout).unwrap();
        let y = layer.forward(&x).unwrap();
        let found = shape::to_nchw(&gpu.download(&y).unwrap(), y.shape(), layout);
        assert_eq!(found, expected(&chain, &values, input, &borrow(&weights), None), "{layout}");
    }
}

#[test]
fn a_scale_from_outside_is_asked_for_and_checked() {
    let gpu = gpu();
    let layer =
        gpu.conv2d(&Conv2d::pointwise(2, 1).bias(false).scaled(true), Weights::without_bias(&[1.0, 10.0])).unwrap();
    let x = gpu.upload(&[1.0, 2.0, 3.0, 4.0], [2, 2, 1, 1]).unwrap();
    let scale = gpu.upload(&[1.0, 2.0, 3.0, -1.0], [2, 2, 1, 1]).unwrap();
    let y = layer.forward(Inputs { input: &x, residual: None, scale: Some(&scale) }).unwrap();
    assert_eq!(gpu.download(&y).unwrap(), [41.0, -31.0]);
    assert_eq!(layer.forward(&x).unwrap_err(), Error::Scale { expected: true });
    let wide = gpu.upload(&[1.0; 8], [2, 2, 2, 1]).unwrap();
    let wrong = layer.forward(Inputs { input: &x, residual: None, scale: Some(&wide) });
    let [expected, actual] = [[2, 2, 1, 1].into(), [2, 2, 2, 1].into()];
    assert_eq!(wrong.unwrap_err(), Error::ShapeMismatch { tensor: "scale", expected, actual });
}

/// PyTorch multiplies first, and then there are zeros around the image.
#[test]
fn padding_stays_zero_whatever_the_scale() {
    let gpu = gpu();
    let chain = Chain::from(Conv2d::new(2, 3, 3).padding(1).bias(false).scaled(true));
    let named = |name: &str| Choice::Named(name.into());
    let choices = [named("direct/4x4"), named("direct/4x1"), Choice::Auto];
    let layouts = [Layout::Nchw, Layout::Nhwc];
    for (layout, choice) in layouts.into_iter().flat_map(|layout| choices.clone().map(|choice| (layout, choice))) {
        let layer = gpu.chain_with(&chain, &[Weights::without_bias(&[1.0; 54])], choice.clone()).unwrap();
        let x = gpu.upload_as(&[1.0; 40], [1, 2, 4, 5], layout).unwrap();
        let scale = gpu.upload_as(&[f32::INFINITY, 1.0], [1, 2, 1, 1], layout).unwrap();
        let y = layer.forward(Inputs { input: &x, residual: None, scale: Some(&scale) }).unwrap();
        assert_eq!(gpu.download(&y).unwrap(), [f32::INFINITY; 60], "{choice:?} {layout}");
    }
}

/// Batches and rows that do not fit into a binding.
#[test]
fn graphs_are_computed_in_bands() {
    let images = |chain: &Chain, input: [u32; 4], limit: u64| {
        let gpu = gpu().with_caps(|caps| Caps { max_storage_binding: limit, ..caps });
        let division = gpu.divide(chain, input, Layout::Nchw, &direct()).unwrap();
        assert!(division.is_divided(), "{input:?}");
        let oracle = Oracle::of_chain("bands", chain.clone(), input, Layout::Nchw, u64::MAX).unwrap();
        let report = oracle.check_layer(&gpu, &direct()).unwrap();
        assert!(report.passes(), "{input:?}: {report:?}");
        let cut = |stretch: &planner::Stretch| match (stretch.extents, stretch.whole) {
            (part, whole) if part.rows < whole.rows => "rows",
            (part, whole) if part.out_channels < whole.out_channels => "outputs",
            (part, whole) if part.images < whole.images => "images",
            _ => "",
        };
        division.stretches.iter().map(cut).collect::<Vec<_>>()
    };
    let pointwise = |inputs: u32, outputs: u32| Conv2d::pointwise(inputs, outputs);
    // 64 KB and 32 KB an image.
    let scaled = pointwise(64, 32).scaled(true);
    assert_eq!(images(&scaled.clone().into(), [4, 64, 16, 16], 128 << 10), ["images"]);
    // Rows of an image, and channels of the output where that alone is too large.
    assert_eq!(images(&scaled.into(), [1, 64, 32, 32], 128 << 10), ["rows"]);
    assert_eq!(images(&pointwise(8, 64).scaled(true).into(), [1, 8, 32, 32], 128 << 10), ["outputs"]);
    // Planes of 390 bytes, which start at no aligned offset: what is not bound is copied.
    let odd = pointwise(6, 40).residual(Residual::BeforeActivation).activation(Activation::Relu);
    assert_eq!(images(&Chain::from(odd).with_dtype(DType::F16), [2, 6, 15, 13], 8 << 10), ["outputs"]);
    let links = [Conv2d::new(8, 16, 3).padding(1), pointwise(8, 16)];
    let chain = Chain::new(links).reads(0, 1).unwrap().edge(1, 1, Residual::AfterActivation).unwrap();
    assert!(images(&chain, [1, 8, 64, 64], 64 << 10).contains(&"rows"));
    // The gate's own tensor fits, what the projection makes does not.
    let links: [Link; 2] = [SqueezeExcite::new(4, 2).into(), pointwise(4, 32).into()];
    let chain = Chain::new(links).reads(0, 1).unwrap().scales(1, 1).unwrap();
    assert_eq!(images(&chain, [1, 4, 80, 80], 128 << 10), ["", "outputs"]);
    // Nor do the planes that the gate reads: their parts are summed.
    assert_eq!(images(&chain, [1, 4, 80, 80], 16 << 10), ["rows", "", "rows"]);
}

#[test]
fn data_of_a_graph_has_weights_for_each_convolution() {
    let data = Data::random("gated", &gated(DType::F32), [1, 3, 8, 8]).unwrap();
    assert_eq!(data.weights.len(), 7);
}

/// The first two links of blocks: outputs that fill blocks and that do not, expanded channels that fill steps and that
/// do not, strides, large kernels, padding on some sides, one to many inputs an invocation.
fn expansions() -> Vec<(Chain, [u32; 4])> {
    let chain = |inputs: u32, depthwise: Conv2d| {
        let expand = Conv2d::pointwise(inputs, depthwise.in_channels).activation(Activation::HardSwish);
        Chain::new([expand, depthwise.activation(Activation::Relu6)])
    };
    let residual = chain(4, Conv2d::depthwise(20, 3).padding(1).residual(Residual::BeforeActivation));
    vec![
        (chain(4, Conv2d::depthwise(32, 3).padding(1)), [2, 4, 8, 16]),
        (chain(8, Conv2d::depthwise(20, 5).padding(2).stride(2)), [1, 8, 17, 15]),
        (chain(12, Conv2d::depthwise(37, 3).padding([0, 1, 2, 0])), [2, 12, 9, 7]),
        (chain(8, Conv2d::depthwise(18, 3).dilation(2).padding(2).bias(false)), [1, 8, 7, 10]),
        (residual, [1, 4, 9, 12]),
    ]
}

#[test]
fn expansions_fused_with_the_depthwise_link_agree_with_the_oracle() {
    assert_eq!(check_expansions(&expansions()[..1], 1, DType::F32), 2);
}

/// The first three links of a block with a gate, by every recipe that computes them together, and the block's last
/// link, which reads what they keep.
fn check_gated(expansion: &(Chain, [u32; 4]), most: usize, dtype: DType) -> usize {
    let (chain, input) = expansion;
    let channels = chain.links()[0].conv().unwrap().out_channels;
    let gate = SqueezeExcite::new(channels, 5).activations(Activation::Relu, Activation::HardSigmoid);
    let chain = chain.clone().then(Link::from(gate)).then(Conv2d::pointwise(channels, 6));
    let chain = chain.reads(2, 3).unwrap().scales(3, 3).unwrap().with_dtype(dtype);
    let (gpu, mut checks) = (as_gpu(), 0);
    for layout in [Layout::Nchw, Layout::Nhwc] {
        let oracle = Oracle::of_chain("gated expansion", chain.clone(), *input, layout, u64::MAX).unwrap();
        let mut fused = planner::alternatives(&chain, *input, layout, gpu.caps()).unwrap();
        fused.retain(|schedule| schedule.name().starts_with("expand_depthwise_gate"));
        assert!(!fused.is_empty(), "{chain:?} in {layout}");
        for schedule in fused.iter().take(most) {
            let report = oracle.check(&gpu, schedule).unwrap();
            assert!(report.passes(), "{chain:?}: {layout} {}: {report:?}", schedule.name());
            checks += 1;
        }
    }
    checks
}

#[test]
#[ignore = "takes minutes"]
fn every_recipe_of_every_expansion_agrees_with_the_oracle_in_full() {
    assert!(check_expansions(&expansions(), usize::MAX, DType::F32) > 40);
    assert!(check_expansions(&expansions(), usize::MAX, DType::F16) > 40);
    // A gate is of a tensor without a residual.
    for dtype in [DType::F32, DType::F16] {
        let checks: usize = expansions()[..4].iter().map(|expansion| check_gated(expansion, usize::MAX, dtype)).sum();
        assert!(checks > 24, "{checks}");
    }
}

/// Checks some recipes of each case in both layouts.
fn check_expansions(cases: &[(Chain, [u32; 4])], most: usize, dtype: DType) -> usize {
    let (gpu, mut checks) = (as_gpu(), 0);
    for (index, (chain, input)) in cases.iter().enumerate() {
        let chain = chain.clone().with_dtype(dtype);
        for layout in [Layout::Nchw, Layout::Nhwc] {
            let oracle =
                Oracle::of_chain(&format!("expansion {index}"), chain.clone(), *input, layout, u64::MAX).unwrap();
            let mut fused = planner::alternatives(&chain, *input, layout, gpu.caps()).unwrap();
            fused.retain(|schedule| schedule.name().starts_with("expand_depthwise"));
            assert!(!fused.is_empty(), "case {index} in {layout}");
            for schedule in fused.iter().take(most) {
                let report = oracle.check(&gpu, schedule).unwrap();
                assert!(report.passes(), "case {index}: {layout} {}: {report:?}", schedule.name());
                checks += 1;
            }
        }
    }
    checks
}
