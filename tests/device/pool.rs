//! Pools: every recipe for each kind of device against the oracle, and pools between convolutions.

use gpuconv::verify::{self, Data, Oracle};
use gpuconv::{
    Activation, Caps, Chain, Choice, Conv2d, Error, GpuConv, Layout, Link, Operation, Pool2d, Problem, Residual, Shape,
    planner, shape,
};

/// The device, planned for as a software device or as a GPU.
fn device(is_cpu: bool) -> GpuConv {
    GpuConv::new().unwrap_or_else(|error| panic!("{error}")).with_caps(|caps| Caps { is_cpu, ..caps })
}

#[test]
fn every_recipe_agrees_with_the_oracle() {
    let mut checks = 0;
    for gpu in [device(true), device(false)] {
        for problem in verify::cases().into_iter().filter(is_pool) {
            let oracle = Oracle::new(&problem).unwrap();
            for schedule in planner::alternatives(&problem.chain(), problem.input, problem.layout, gpu.caps()).unwrap()
            {
                let report = oracle.check(&gpu, &schedule).unwrap();
                assert!(report.passes(), "{problem}: {}: {report:?}", schedule.name());
                checks += 1;
            }
        }
    }
    // Of global pools one recipe for software devices and three for GPUs, on 21 cases; one more for each on the five
    // large ones. One recipe for either of pools over windows, and those of global pools for a mean of a whole image.
    let windows = verify::cases().iter().filter(|problem| matches!(problem.operation, Operation::Pool2d(_))).count();
    assert_eq!(checks, 94 + 2 * windows + 4);
    assert!(windows > 20);
}

/// Rounded sums of one value all err to the same side, so a sum in order is off by half as many units as it has terms.
#[test]
fn the_mean_of_a_value_is_the_value() {
    for gpu in [device(true), device(false)] {
        for (input, layout) in
            [([1, 1, 1, 16383], Layout::Nchw), ([1, 3, 300, 500], Layout::Nhwc), ([1, 2, 700, 300], Layout::Nchw)]
        {
            let pool = Chain::new([Link::GlobalAveragePool]);
            let x = gpu.upload_as(&vec![0.1; Shape::from(input).len() as usize], input, layout).unwrap();
            for schedule in planner::alternatives(&pool, input, layout, gpu.caps()).unwrap() {
                let layer = gpu.chain_with(&pool, &[], Choice::Named(schedule.name())).unwrap();
                for mean in gpu.download(&layer.forward(&x).unwrap()).unwrap() {
                    let units = (mean - 0.1).abs() / (0.1 * f32::EPSILON);
                    assert!(units < 100.0, "{input:?}, {}: {mean} is off by {units} units", schedule.name());
                }
            }
        }
    }
}

fn is_pool(problem: &Problem) -> bool {
    matches!(problem.operation, Operation::Pool | Operation::Pool2d(_))
}

/// The end of typical networks: a convolution, a pool and a classifier.
fn head() -> Chain {
    let conv = Conv2d::new(3, 10, 3).stride(2).padding(1).activation(Activation::Relu6);
    Chain::new([conv.into(), Link::GlobalAveragePool, Conv2d::pointwise(10, 7).into()])
}

#[test]
fn a_chain_can_contain_a_pool() {
    let input = Shape::from([3, 3, 9, 11]);
    let data = Data::random("head", &head(), input).unwrap();
    assert_eq!(data.weights.len(), 2, "only convolutions have weights");
    let expected = data.answer(&head(), input).unwrap();
    for gpu in [device(true), device(false)] {
        // The convolutions by the kernel that compiles fastest.
        let layer = gpu.chain_with(&head(), &data.weights(), Choice::Named("direct".into())).unwrap();
        for layout in [Layout::Nchw, Layout::Nhwc] {
            let x = gpu.upload_as(&shape::from_nchw(&data.input, input, layout), input, layout).unwrap();
            let y = layer.forward(&x).unwrap();
            assert_eq!(y.shape(), [3, 7, 1, 1].into());
            let values = gpu.download(&y).unwrap();
            for ((value, expected), magnitude) in values.iter().zip(&expected.values).zip(&expected.magnitudes) {
                assert!((f64::from(*value) - expected).abs() < 1e-6 * magnitude, "{layout}: {value}, not {expected}");
            }
        }
    }
}

/// ResNet's beginning, and means of planes of odd sizes.
#[test]
fn pools_over_windows_stand_between_convolutions() {
    let conv = Conv2d::new(3, 6, 3).stride(2).padding(1).activation(Activation::Relu);
    let average = Pool2d::average(2).ceil_mode(true).count_include_pad(false);
    let chain = Chain::from(conv).then(Pool2d::max(3).stride(2).padding(1)).then(Conv2d::pointwise(6, 4)).then(average);
    let input = Shape::from([2, 3, 19, 21]);
    assert_eq!(chain.shapes(input).unwrap()[2..], [[2, 6, 5, 6], [2, 4, 5, 6], [2, 4, 3, 3]].map(Shape::from));
    for layout in [Layout::Nchw, Layout::Nhwc] {
        let gpu = device(true);
        let choice = Choice::Named("direct".into());
        let schedule = planner::schedule(&chain, input, layout, gpu.caps(), &choice).unwrap();
        let oracle = Oracle::of_chain("resnet", chain.clone(), input, layout, u64::MAX).unwrap();
        let report = oracle.check(&gpu, &schedule).unwrap();
        assert!(report.passes(), "{layout}: {report:?}");
    }
}

/// A NaN is the largest value of its windows, an infinity of either sign a number like others, and a negative number
/// larger than the padding.
#[test]
fn the_largest_value_may_be_no_number() {
    let gpu = device(true);
    let chain = Chain::from(Pool2d::max([1, 2]).padding([0, 1]));
    let values = [-3.0, f32::NAN, 1.0, 2.0, f32::NAN, f32::NEG_INFINITY, f32::NEG_INFINITY, f32::INFINITY, -4.0];
    let x = gpu.upload(&values, [1, 1, 1, 9]).unwrap();
    let y = gpu.download(&gpu.chain(&chain, &[]).unwrap().forward(&x).unwrap()).unwrap();
    assert!(y[1].is_nan() && y[2].is_nan(), "{y:?}");
    assert_eq!([y[0], y[3], y[4]], [-3.0, f32::NEG_INFINITY, f32::INFINITY]);
}

#[test]
fn no_run_spans_a_pool_and_names_of_other_kernels_skip_it() {
    let plan = |chain: &Chain, name: &str| {
        let choice = Choice::Named(name.into());
        planner::schedule(chain, [1, 3, 8, 8], Layout::Nchw, &Caps::webgpu(), &choice)
    };
    let auto = planner::schedule(&head(), [1, 3, 8, 8], Layout::Nchw, &Caps::webgpu(), &Choice::Auto).unwrap();
    assert!(auto.considered.iter().all(|run| run.links == 1 || run.answer.is_err()), "a run spans the pool");
    assert_eq!(plan(&head(), &auto.name()).unwrap().name(), auto.name());

    let names = plan(&head(), "direct").unwrap().name();
    assert!(names.starts_with("direct/") && names.contains("+pool/"), "{names}");
    assert!(plan(&head(), "direct+pool+direct").is_ok());
    assert!(matches!(plan(&head(), "direct+direct+direct"), Err(Error::NoKernel { .. })));
    let pool = Chain::new([Link::GlobalAveragePool]);
    assert_eq!(plan(&pool, "pool/serial").unwrap().name(), "pool/serial");
}

#[test]
fn a_pool_takes_no_residual_and_no_empty_image() {
    let edge = head().edge(1, 1, Residual::AfterActivation);
    assert!(matches!(edge, Err(Error::Chain(_))), "{edge:?}");
    let pool = Chain::new([Link::GlobalAveragePool]);
    assert_eq!(pool.shapes([2, 5, 0, 3]), Err(Error::EmptyInput { shape: [2, 5, 0, 3].into() }));
    assert_eq!(pool.shapes([0, 5, 4, 3]).unwrap()[1], [0, 5, 1, 1].into());
}
