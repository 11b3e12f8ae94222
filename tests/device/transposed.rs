//! Transposed convolutions: every recipe against the oracle, and between other links.

use gpuconv::verify::{self, Oracle};
use gpuconv::{
    Activation, Caps, Chain, Choice, Conv2d, ConvTranspose2d, Error, Layout, Operation, Shape, Weights, planner,
};

use crate::common::gpu;

#[test]
fn every_recipe_agrees_with_the_oracle() {
    let (gpu, mut checks) = (gpu(), 0);
    for problem in verify::cases() {
        if !matches!(problem.operation, Operation::ConvTranspose(_)) {
            continue;
        }
        let oracle = Oracle::new(&problem).unwrap();
        for schedule in planner::alternatives(&problem.chain(), problem.input, problem.layout, gpu.caps()).unwrap() {
            let report = oracle.check(&gpu, &schedule).unwrap();
            assert!(report.passes(), "{problem}: {}: {report:?}", schedule.name());
            checks += 1;
        }
    }
    assert!(checks > 25, "{checks} checks");
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

#[test]
fn what_does_not_fit_is_cut_into_images_or_refused() {
    let narrow = gpu().with_caps(|caps| Caps { max_storage_binding: 1024, ..caps });
    let conv = Chain::from(ConvTranspose2d::new(1, 2, 2).stride(2));
    let divide = |input: [u32; 4]| narrow.divide(&conv, input, Layout::Nchw, &Choice::Auto);
    assert!(divide([3, 1, 8, 4]).unwrap().is_divided());
    assert!(matches!(divide([1, 1, 9, 8]), Err(Error::TooLarge { needed: 2304, limit: 1024, .. })));
    let wrong = gpu().chain(&conv, &[Weights::new(&[0.0; 7], &[0.0; 2])]);
    assert!(matches!(wrong.err(), Some(Error::Length { expected: 8, actual: 7, .. })));
}
