//! Pools: every recipe for each kind of device against the oracle, and pools between convolutions.

use gpuconv::verify::{self, Data, Oracle};
use gpuconv::{
    Activation, Caps, Chain, Choice, Conv2d, Error, GpuConv, Layout, Link, Operation, Residual, Shape, planner, shape,
};

/// The device, planned for as a software device or as a GPU.
fn device(is_cpu: bool) -> GpuConv {
    GpuConv::new().unwrap_or_else(|error| panic!("{error}")).with_caps(|caps| Caps { is_cpu, ..caps })
}

#[test]
fn every_recipe_agrees_with_the_oracle() {
    let mut checks = 0;
    for gpu in [device(true), device(false)] {
        for problem in verify::cases().into_iter().filter(|problem| problem.operation == Operation::Pool) {
            let oracle = Oracle::new(&problem).unwrap();
            for schedule in planner::alternatives(&problem.chain(), problem.input, problem.layout, gpu.caps()).unwrap()
            {
                let report = oracle.check(&gpu, &schedule).unwrap();
                assert!(report.passes(), "{problem}: {}: {report:?}", schedule.name());
                checks += 1;
            }
        }
    }
    // One recipe for software devices and three for GPUs, on 21 cases; one more for each on the five large ones.
    assert_eq!(checks, 94);
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
