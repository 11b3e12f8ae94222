//! Links that move values or make new ones between pixels: resizes, pixel shuffles, slices and concatenations.

use gpuconv::verify::{self, Oracle};
use gpuconv::{Chain, Choice, Conv2d, Layout, Link, Operation, Problem, Resize, Shape, planner};

use crate::common::gpu;

#[test]
fn every_case_agrees_with_the_oracle() {
    let is_moved = |problem: &Problem| {
        matches!(problem.operation, Operation::Resize(_) | Operation::PixelShuffle(_) | Operation::PixelUnshuffle(_))
            || matches!(problem.operation, Operation::Slice(_) | Operation::Concat(_))
    };
    let (gpu, mut exact, mut checks) = (gpu(), 0, 0);
    for problem in verify::cases().into_iter().filter(is_moved) {
        let schedule =
            planner::schedule(&problem.chain(), problem.input, problem.layout, gpu.caps(), &Choice::Auto).unwrap();
        let report = Oracle::new(&problem).unwrap().check(&gpu, &schedule).unwrap();
        assert!(report.passes(), "{problem}: {}: {report:?}", schedule.name());
        exact += usize::from(schedule.steps[0].recipe.exact);
        checks += 1;
    }
    assert!(checks > 20 && exact > 12, "{exact} of {checks} are exact");
}

/// Enlarged, put through a convolution, and back: a shuffle undoes an unshuffle.
#[test]
fn shuffles_and_resizes_stand_between_convolutions() {
    let conv = Conv2d::new(3, 8, 3).padding(1);
    let chain = Chain::from(conv)
        .then(Link::PixelShuffle { factor: 2 })
        .then(Resize::by(1.5).bilinear(true))
        .then(Conv2d::pointwise(2, 3))
        .then(Link::PixelUnshuffle { factor: 3 })
        .then(Resize::to([5, 3]));
    let input = Shape::from([2, 3, 8, 6]);
    assert_eq!(chain.shapes(input).unwrap()[5..], [[2, 27, 8, 6], [2, 27, 5, 3]].map(Shape::from));
    let gpu = gpu();
    for layout in [Layout::Nchw, Layout::Nhwc] {
        let choice = Choice::Named("direct".into());
        let schedule = planner::schedule(&chain, input, layout, gpu.caps(), &choice).unwrap();
        let oracle = Oracle::of_chain("moved", chain.clone(), input, layout, u64::MAX).unwrap();
        let report = oracle.check(&gpu, &schedule).unwrap();
        assert!(report.passes(), "{layout}: {report:?}");
    }
    let plain = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
    let there_and_back = Chain::from(Link::PixelUnshuffle { factor: 2 }).then(Link::PixelShuffle { factor: 2 });
    let x = gpu.upload(&plain, [1, 1, 2, 4]).unwrap();
    let y = gpu.chain(&there_and_back, &[]).unwrap().forward(&x).unwrap();
    assert_eq!(gpu.download(&y).unwrap(), plain);
}
