//! PReLU: alone, and as the activation of the convolution before it.

use gpuconv::internals::kernel_of;
use gpuconv::planner::Schedule;
use gpuconv::verify::{self, Oracle};
use gpuconv::{
    Activation, Caps, Chain, Choice, Conv2d, DType, Fusion, Layout, Operation, PRelu, Problem, Residual, Shape, planner,
};

use crate::common::{as_gpu, gpu};

const LAYOUTS: [Layout; 2] = [Layout::Nchw, Layout::Nhwc];

/// A slope a channel, also where channels, and rows, are computed in bands.
#[test]
fn slopes_stay_with_their_channels() {
    let gpu = gpu();
    let own = |problem: &Problem| matches!(problem.operation, Operation::PRelu(_));
    for problem in verify::cases().into_iter().filter(own) {
        let schedule =
            planner::schedule(&problem.chain(), problem.input, problem.layout, gpu.caps(), &Choice::Auto).unwrap();
        let report = Oracle::new(&problem).unwrap().check(&gpu, &schedule).unwrap();
        assert!(report.passes(), "{problem}: {report:?}");
    }
    let alone = Chain::from(PRelu::new(5));
    let behind = Chain::from(Conv2d::new(5, 5, 3).padding(1)).then(PRelu::new(5));
    for (chain, limit, bands) in [(&alone, 1024, 2), (&alone, 128, 15), (&behind, 1024, 2)] {
        let narrow = gpu.with_caps(|caps| Caps { max_storage_binding: limit, ..caps });
        for layout in LAYOUTS {
            let input = [1, 5, 9, 10];
            let divided = narrow.divide(chain, input, layout, &Choice::Auto).unwrap();
            let stretch = &divided.stretches[0];
            assert!(stretch.bands >= bands && stretch.links == chain.links().len(), "{} bands", stretch.bands);
            let oracle = Oracle::of_chain("slopes", chain.clone(), input, layout, u64::MAX).unwrap();
            let report = oracle.check_layer(&narrow, &Choice::Auto).unwrap();
            assert!(report.passes(), "{layout}: {report:?}");
        }
    }
}

/// What is added before the slopes comes from the run's input, from an earlier tensor, or from outside.
#[test]
fn a_residual_is_added_before_the_slopes() {
    let conv = |inputs: u32, outputs: u32| Conv2d::new(inputs, outputs, 3).padding(1);
    let outside = Chain::from(conv(3, 6).residual(Residual::AfterActivation)).then(PRelu::new(6));
    let twice = outside.clone().then(conv(6, 6)).then(PRelu::new(6));
    let of_input = twice.clone().edge(2, 2, Residual::BeforeActivation).unwrap();
    let of_earlier = twice.then(conv(6, 6)).then(PRelu::new(6)).edge(2, 4, Residual::AfterActivation).unwrap();
    for gpu in [gpu(), as_gpu()] {
        for (name, chain) in [("outside", &outside), ("input", &of_input), ("earlier", &of_earlier)] {
            for layout in LAYOUTS {
                let input = [1, 3, 6, 5];
                let choice = Choice::Fusion(Fusion::Always);
                let schedule = planner::schedule(chain, input, layout, gpu.caps(), &choice).unwrap();
                assert_eq!(schedule.steps.len(), chain.links().len() / 2, "{name}: {}", schedule.name());
                let oracle = Oracle::of_chain(name, chain.clone(), input, layout, u64::MAX).unwrap();
                let report = oracle.check(&gpu, &schedule).unwrap();
                assert!(report.passes(), "{name} {layout}: {}: {report:?}", schedule.name());
            }
        }
    }
}

/// A chain with its name, its input and its layout.
type Named = (String, Chain, Shape, Layout);

/// A recipe of each kernel that takes a line, from line to line another.
fn kernels_agree(lines: &[&str], kernels: &[&str]) {
    let chains = lines.iter().map(|line| {
        let problem: Problem = line.parse().unwrap();
        (line.to_string(), problem.chain(), problem.input, problem.layout)
    });
    chains_agree(&chains.collect::<Vec<_>>(), kernels);
}

/// The same of chains.
fn chains_agree(chains: &[Named], kernels: &[&str]) {
    let mut missing: Vec<_> = kernels.to_vec();
    for gpu in [gpu(), as_gpu()] {
        for (turn, (line, chain, input, layout)) in chains.iter().enumerate() {
            let links = chain.links().len();
            let all = planner::alternatives(chain, *input, *layout, gpu.caps()).unwrap();
            let oracle = Oracle::of_chain(line, chain.clone(), *input, *layout, u64::MAX).unwrap();
            for kernel in kernels {
                let is_whole = |schedule: &&Schedule| {
                    let step = &schedule.steps[0];
                    step.links == links && kernel_of(&step.recipe.name) == *kernel
                };
                let own: Vec<_> = all.iter().filter(is_whole).collect();
                if own.is_empty() {
                    continue;
                }
                let report = oracle.check(&gpu, own[turn % own.len()]).unwrap();
                assert!(report.passes(), "{line}: {}: {report:?}", own[turn % own.len()].name());
                missing.retain(|other| other != kernel);
            }
        }
    }
    // Products by subgroups are for software devices.
    if !gpu().caps().is_cpu {
        missing.retain(|kernel| !kernel.ends_with("_subgroup"));
    }
    assert!(missing.is_empty(), "no recipe of {missing:?}");
}

#[test]
fn small_kernels_end_with_slopes() {
    let lines =
        ["conv 1x6x5x6 -> 9 k3 p1 prelu", "depthwise 1x6x5x8 k3 p1 prelu nhwc", "pointwise 1x32x1x1 -> 9 prelu"];
    kernels_agree(&lines, &["direct", "depthwise", "matvec"]);
    kernels_agree(
        &["transposed 1x3x4x5 -> 6 k3 s2 prelu", "transposed 1x3x4x5 -> 6 k3 s2 prelu nhwc"],
        &["transposed"],
    );
}

#[test]
#[ignore = "takes minutes"]
fn all_kernels_end_with_slopes_in_full() {
    let products = [
        "pointwise",
        "pointwise_uniform",
        "pointwise_subgroup",
        "split",
        "separable",
        "winograd",
        "implicit_gemm",
        "implicit_gemm_uniform",
        "implicit_gemm_subgroup",
    ];
    for layout in ["", " nhwc"] {
        for dtype in ["", " f16"] {
            let lines = [
                "pointwise 2x20x3x5 -> 17 prelu",
                "pointwise 1x256x3x4 -> 24 prelu",
                "separable 1x8x6x8 -> 12 k3 p1 prelu",
                "conv 1x12x9x8 -> 16 k3 p1 prelu",
                "conv 1x128x3x3 -> 9 k3 p1 prelu residual",
            ];
            let lines = lines.map(|line| format!("{line}{dtype}{layout}"));
            kernels_agree(&lines.each_ref().map(String::as_str), &products);
        }
    }
    // What no line says: blocks, one that adds its input before the slopes, and the first two links of one.
    let expand = Conv2d::pointwise(8, 24).activation(Activation::Relu6);
    let expanded = Chain::from(expand).then(Conv2d::depthwise(24, 3).padding(1)).then(PRelu::new(24));
    let [widens, adds] = [12, 8].map(|channels| Chain::inverted_residual(8, channels, 3, 1).then(PRelu::new(channels)));
    for layout in LAYOUTS {
        for dtype in [DType::F32, DType::F16] {
            let named = |name: &str, chain: &Chain| {
                (format!("{name} {dtype} {layout}"), chain.clone().with_dtype(dtype), [2, 8, 7, 9].into(), layout)
            };
            chains_agree(&[named("expanded", &expanded)], &["expand_depthwise"]);
            for (name, block) in [("widens", &widens), ("adds", &adds)] {
                chains_agree(&[named(name, block)], &["inverted_residual"]);
            }
        }
    }
}
