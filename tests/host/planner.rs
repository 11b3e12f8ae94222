//! The planner, without a GPU: which recipes it chooses, what it must not fuse, and the reasons for refusals.

mod cliffs;
mod gates;
mod means;
mod model;
mod prelu;
mod refusals;
mod scaled;

use std::fmt::Write as _;
use std::path::Path;

use gpuconv::gpu::{GpuKind, KNOWN};
use gpuconv::internals::{KERNELS, kernel_of};
use gpuconv::planner::Unsupported;
use gpuconv::planner::{self, Schedule};
use gpuconv::{
    Activation, Caps, Chain, Choice, Conv2d, DType, Error, Fusion, Layout, Link, Problem, Residual, Separable, Shape,
};

/// A desktop GPU of unknown make, with subgroups of 32.
fn gpu() -> Caps {
    Caps {
        max_storage_binding: 1 << 31,
        max_buffer: 1 << 32,
        max_workgroup_memory: 49152,
        max_invocations: 1024,
        subgroup: Some([32, 32]),
        timestamps: true,
        gpu: GpuKind::OtherDiscrete.typical(),
        ..Caps::webgpu()
    }
}

/// A software device with subgroups of 8, like lavapipe with AVX2.
fn cpu() -> Caps {
    Caps { max_workgroup_memory: 32768, subgroup: Some([8, 8]), is_cpu: true, int64: true, ..gpu() }
}

/// A software device whose subgroups nothing asked for, as a page's own device may be.
fn cpu_without_subgroups() -> Caps {
    Caps { subgroup: None, int64: false, ..cpu() }
}

fn devices() -> [(&'static str, Caps); 3] {
    [("gpu", gpu()), ("webgpu", Caps::webgpu()), ("cpu", cpu())]
}

/// One GPU of each maker, by name.
fn makes() -> Vec<(&'static str, Caps)> {
    let names = ["rtx-4090", "rx-7900-xtx", "arc-a770", "apple-m1", "adreno-740", "mali-g710"];
    let makes: Vec<_> = KNOWN.iter().filter(|known| names.contains(&known.name)).collect();
    assert_eq!(makes.len(), names.len());
    makes.iter().map(|known| (known.name, known.caps())).collect()
}

fn parse(line: &str) -> Problem {
    line.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn plan(line: &str, caps: &Caps, choice: Choice) -> Result<Schedule, Error> {
    let problem = parse(line);
    planner::schedule(&problem.chain(), problem.input, problem.layout, caps, &choice)
}

fn named(name: &str) -> Choice {
    Choice::Named(name.into())
}

/// The kernels of a schedule, without their variants.
fn kernels(schedule: &Schedule) -> Vec<&str> {
    schedule.steps.iter().map(|step| kernel_of(&step.recipe.name)).collect()
}

/// Typical layers of networks, including chains that a problem line cannot express.
fn representatives() -> Vec<(String, Chain, Shape, Layout)> {
    let lines = [
        "conv 1x3x224x224 -> 32 k3 s2 p1 relu6",
        "conv 1x64x56x56 -> 64 k3 p1 relu",
        "conv 1x512x128x128 -> 1024 k3 s2 p1",
        "conv 1x64x56x56 -> 64 k3 p1 relu nhwc",
        "conv 1x256x14x14 -> 256 k3 p1 g32",
        "conv 1x64x56x56 -> 64 k3 p1 g32",
        "conv 1x64x256x256 -> 2 k3 p1",
        "conv 1x512x3199x1 -> 512 k3x1 p1,0,1,0",
        "conv 1x64x56x56 -> 64 k1x7 p0,3,0,3 nhwc",
        "depthwise 1x32x112x112 k3 p1 relu6",
        "depthwise 1x512x14x14 k3 p1 relu6 nhwc",
        "depthwise 1x96x14x14 k31 p15",
        "depthwise 1x64x56x56 k9 p4",
        "depthwise 1x64x56x56 k9 p4 nhwc",
        "depthwise 1x64x56x56 k3 p16 d16",
        "depthwise 1x64x56x56 k31x1 p15,0,15,0",
        "conv 1x1x512x512 -> 1 k11 p5",
        "pointwise 1x32x112x112 -> 64 relu6",
        "pointwise 1x512x14x14 -> 512 relu6",
        "pointwise 1x1024x1x1 -> 1000",
        "pointwise 1x4x512x512 -> 4",
        "pointwise 1x512x14x14 -> 512 relu6 nhwc",
        "separable 1x512x128x128 -> 1024 k3 s2 p1",
        "separable 1x32x112x112 -> 64 k3 p1 relu6",
        "separable 1x512x14x14 -> 512 k3 p1 relu6",
        "separable 1x1024x7x7 -> 1024 k3 p1 relu6",
        "separable 1x128x56x56 -> 128 k3 p1 relu6 nhwc",
    ];
    let problems = lines.map(|line| {
        let problem = parse(line);
        (line.to_string(), problem.chain(), problem.input, problem.layout)
    });
    let mut all = problems.to_vec();
    for (input, block) in [
        ([1, 24, 56, 56], Chain::inverted_residual(24, 24, 6, 1)),
        ([1, 96, 14, 14], Chain::inverted_residual(96, 96, 6, 1)),
        ([1, 32, 112, 112], Chain::inverted_residual(32, 16, 1, 1)),
    ] {
        let shape = Shape::from(input);
        all.push((
            format!("inverted residual of {} links on {shape}", block.links().len()),
            block,
            shape,
            Layout::Nchw,
        ));
    }
    all
}

/// `tests/host/planner.txt` lists the choices, so that a reviewer sees every change. `BLESS=1` in the environment
/// rewrites it.
#[test]
fn the_planners_choices_are_those_of_the_table() {
    let mut table =
        String::from("# What the planner chooses. `BLESS=1 cargo test --test host planner` writes this file.\n");
    for (name, chain, input, layout) in representatives() {
        let _ = writeln!(table, "\n{name}");
        let plain = ("cpu plain", cpu_without_subgroups());
        for (device, caps) in devices().into_iter().chain([plain]).chain(makes()) {
            let schedule = planner::schedule(&chain, input, layout, &caps, &Choice::Auto).unwrap();
            let _ = writeln!(table, "    {device:11} {}", schedule.name());
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host/planner.txt");
    if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, &table).unwrap();
    }
    // Git may check out the file with other line endings.
    let expected = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    let changed: Vec<_> = table.lines().filter(|line| !expected.lines().any(|expected| expected == *line)).collect();
    assert!(
        table == expected,
        "tests/host/planner.txt differs; if the new choices are right, run this with BLESS=1 to accept them:\n{}",
        changed.join("\n")
    );
}

#[test]
fn each_kind_of_link_gets_a_kernel_of_its_kind() {
    for (device, caps) in devices() {
        for (line, prefixes) in [
            ("pointwise 1x512x14x14 -> 512 relu6", &["pointwise", "split"][..]),
            ("pointwise 1x512x14x14 -> 512 relu6 nhwc", &["pointwise", "split"]),
            ("depthwise 1x512x14x14 k3 p1 relu6", &["depthwise"]),
            ("depthwise 1x32x112x112 k3 s2 p1 nhwc", &["depthwise"]),
            // Three channels per group are too few for tiles, and not for blocks in registers.
            ("conv 32x6x99x99 -> 6 k3 p1 g2", &["implicit_gemm_uniform", "implicit_gemm_subgroup"]),
            ("separable 1x512x28x28 -> 512 k3 p1", &["separable", "depthwise"]),
        ] {
            let schedule = plan(line, &caps, Choice::Auto).unwrap();
            let first = kernels(&schedule)[0];
            assert!(prefixes.iter().any(|prefix| first.starts_with(prefix)), "{line} on {device}: {first}");
        }
        for line in ["conv 1x64x56x56 -> 64 k3 p1", "conv 1x512x128x128 -> 1024 k3 s2 p1"] {
            let schedule = plan(line, &caps, Choice::Auto).unwrap();
            assert_ne!(kernels(&schedule), ["direct"], "{line} on {device}");
        }
    }
}

#[test]
fn steps_cover_the_chain_without_a_gap_and_cost_something() {
    for (name, chain, input, layout) in representatives() {
        for (device, caps) in devices() {
            for schedule in planner::alternatives(&chain, input, layout, &caps).unwrap() {
                let mut next = 0;
                for step in &schedule.steps {
                    assert_eq!(step.first, next, "{name} on {device}: {}", schedule.name());
                    assert!(step.seconds > 0.0 && step.seconds.is_finite(), "{name} on {device}: {}", schedule.name());
                    next += step.links;
                }
                assert_eq!(next, chain.links().len(), "{name} on {device}: {}", schedule.name());
            }
        }
    }
}

#[test]
fn the_chosen_schedule_is_the_cheapest() {
    for (name, chain, input, layout) in representatives() {
        for (device, caps) in devices() {
            let taken = planner::schedule(&chain, input, layout, &caps, &Choice::Auto).unwrap();
            for other in planner::alternatives(&chain, input, layout, &caps).unwrap() {
                assert!(taken.seconds() <= other.seconds(), "{name} on {device}: {}", other.name());
            }
        }
    }
}

#[test]
fn a_tensor_that_an_edge_needs_is_not_fused_away() {
    let links = || {
        let depthwise = Conv2d::depthwise(64, 3).padding(1).activation(Activation::Relu6);
        [depthwise, Conv2d::pointwise(64, 64), Conv2d::pointwise(64, 64)]
    };
    let fusions = |chain: &Chain| {
        let considered = planner::schedule(chain, [1, 64, 56, 56], Layout::Nchw, &gpu(), &Choice::Auto);
        let considered = considered.unwrap().considered;
        considered.iter().any(|one| one.first == 0 && one.links == 2 && one.answer.is_ok())
    };
    assert!(fusions(&Chain::new(links())), "without an edge the first two links can be one run");
    // Tensor 1 is between them, and the last link adds it.
    let needed = Chain::new(links()).edge(1, 2, Residual::AfterActivation).unwrap();
    assert!(!fusions(&needed), "tensor 1 is needed later");
    // Tensor 0 is the input, which fusion does not remove.
    assert!(fusions(&Chain::new(links()).edge(0, 2, Residual::AfterActivation).unwrap()));

    let named = planner::schedule(&needed, [1, 64, 56, 56], Layout::Nchw, &gpu(), &named("separable+pointwise"));
    assert!(matches!(named, Err(Error::NoKernel { .. })), "{named:?}");
}

#[test]
fn tensors_share_memory_if_their_lifetimes_allow_it() {
    // Seventeen inverted residuals of the same size: at most three tensors are alive at the same time.
    let block = Chain::inverted_residual(16, 16, 6, 1);
    let mut chain = Chain::new((0..17).flat_map(|_| block.links().to_vec()));
    for first in (0..17).map(|block| 3 * block) {
        chain = chain.edge(first, first + 2, Residual::AfterActivation).unwrap();
    }
    let input = Shape::from([1, 16, 28, 28]);
    for name in ["direct", "pointwise+separable"] {
        let wanted = vec![name; if name == "direct" { 1 } else { 17 }].join("+");
        let schedule = planner::schedule(&chain, input, Layout::Nchw, &gpu(), &named(&wanted)).unwrap();
        let workspace = &schedule.workspace;
        let (narrow, wide) = (input.bytes(DType::F32), 6 * input.bytes(DType::F32));
        let (least, without) = match name {
            "direct" => (narrow + 2 * wide, 34 * wide + 16 * narrow),
            _ => (2 * narrow + wide, 17 * wide + 16 * narrow),
        };
        assert_eq!(workspace.bytes_without_reuse(), without, "{name}");
        assert!((least..least + 2 * narrow).contains(&workspace.bytes()), "{name}: {} of {least}", workspace.bytes());
        assert_eq!(workspace.buffers().iter().sum::<u64>(), workspace.bytes());
    }
    // A single step has no tensors between steps.
    assert_eq!(plan("pointwise 1x8x4x4 -> 8", &gpu(), Choice::Auto).unwrap().workspace.bytes(), 0);
}

#[test]
fn a_name_restricts_the_choice() {
    let line = "separable 1x64x28x28 -> 64 k3 p1";
    for (choice, expected) in [
        ("separable", &["separable"][..]),
        ("direct", &["direct", "direct"]),
        ("depthwise+pointwise", &["depthwise", "pointwise"]),
        ("depthwise+pointwise_uniform", &["depthwise", "pointwise_uniform"]),
    ] {
        let schedule = plan(line, &gpu(), named(choice)).unwrap();
        assert_eq!(kernels(&schedule), expected, "{choice}");
        // A schedule's own name gives the same schedule.
        let again = plan(line, &gpu(), named(&schedule.name())).unwrap();
        assert_eq!(again.name(), schedule.name());
    }
}

#[test]
fn fusion_is_forced_and_forbidden() {
    // Expand, depthwise, project: the last two are a separable pair.
    let chain = Chain::inverted_residual(64, 64, 6, 1);
    for (device, caps) in devices() {
        let steps = |fusion| {
            let choice = Choice::Fusion(fusion);
            let schedule = planner::schedule(&chain, [1, 64, 14, 14], Layout::Nchw, &caps, &choice).unwrap();
            let taken: Vec<_> = schedule.steps.iter().map(|step| step.links).collect();
            (taken, schedule.name())
        };
        assert_eq!(steps(Fusion::Never).0, [1, 1, 1], "{device}");
        // The kernel that takes all three links is only for GPUs.
        let fewest = if caps.is_cpu { &[1, 2][..] } else { &[3] };
        assert_eq!(steps(Fusion::Always).0, fewest, "{device}");
        let auto = planner::schedule(&chain, [1, 64, 14, 14], Layout::Nchw, &caps, &Choice::Auto).unwrap();
        assert_eq!(steps(Fusion::Auto).1, auto.name(), "{device}");
    }
}

#[test]
fn every_alternative_can_be_chosen_by_name() {
    for (name, chain, input, layout) in representatives().into_iter() {
        for schedule in planner::alternatives(&chain, input, layout, &gpu()).unwrap() {
            let again = planner::schedule(&chain, input, layout, &gpu(), &named(&schedule.name())).unwrap();
            assert_eq!(again.name(), schedule.name(), "{name}");
        }
    }
}

#[test]
fn an_unknown_name_is_refused_with_the_known_ones() {
    for unknown in ["fastest", "pointwise/1x2x3"] {
        let Err(Error::UnknownKernel { name, known }) = plan("pointwise 1x8x4x4 -> 8", &gpu(), named(unknown)) else {
            panic!("{unknown} was taken");
        };
        assert_eq!(name, unknown);
        for expected in ["direct", "pointwise", "direct/4x4"] {
            assert!(known.iter().any(|known| known == expected), "{expected} is not among {known:?}");
        }
    }
}

/// Kernels see a 1x1 convolution of a pixel, rows without columns, and plain convolutions for transposed ones of stride 1.
/// What was asked for is there all the same.
#[test]
fn a_kernel_that_is_asked_for_takes_images_of_all_sizes() {
    for (line, kernel) in [
        ("conv 1x8x1x1 -> 8 k3 p1", "implicit_gemm"),
        ("conv 1x64x1x40 -> 64 k3 p1", "winograd"),
        ("transposed 1x8x8x8 -> 8 k3 p1", "phases"),
        ("transposed 1x8x8x8 -> 8 k3 p1", "transposed"),
        ("transposed 1x8x8x8 -> 8 k3 p1", "implicit_gemm"),
        // No name for this link: it is computed as the planner likes.
        ("transposed 1x8x8x8 -> 8 k2", "winograd"),
    ] {
        let named = plan(line, &gpu(), named(kernel));
        assert!(named.is_ok(), "{kernel}: {line}: {:?}", named.err());
    }
}

#[test]
fn every_refusal_has_its_reason() {
    let lanes = |subgroup| Caps { subgroup: Some(subgroup), ..cpu() };
    for (line, caps, kernel, expected) in [
        ("conv 1x8x8x8 -> 8 k3", gpu(), "depthwise", Unsupported::Groups(1)),
        ("conv 1x8x8x8 -> 8 k3", gpu(), "pool", Unsupported::Link("a convolution")),
        ("conv 1x8x8x8 -> 8 k3", gpu(), "pointwise", Unsupported::KernelSize([3, 3])),
        ("pointwise 1x8x8x8 -> 8 s2", gpu(), "pointwise", Unsupported::Stride([2, 2])),
        ("pointwise 1x8x8x8 -> 8 p1", gpu(), "pointwise", Unsupported::Padding([1; 4])),
        ("pointwise 1x8x8x8 -> 8", gpu(), "pointwise_subgroup", Unsupported::NeedsSoftwareDevice),
        ("pointwise 1x8x8x8 -> 8", Caps { subgroup: None, ..cpu() }, "pointwise_subgroup", Unsupported::NeedsSubgroups),
        ("pointwise 1x8x8x8 -> 8", lanes([0, 8]), "pointwise_subgroup", Unsupported::NeedsSubgroups),
        ("pointwise 1x8x8x8 -> 8", lanes([3, 8]), "pointwise_subgroup", Unsupported::NeedsSubgroups),
        ("pointwise 1x8x8x8 -> 8", cpu(), "pointwise_uniform", Unsupported::SoftwareDevice),
        ("conv 1x8x8x8 -> 16 k3 nhwc", gpu(), "implicit_gemm_uniform", Unsupported::Layout(Layout::Nhwc)),
        ("conv 1x8x9x9 -> 8 k3 d2", gpu(), "winograd", Unsupported::Dilation([2, 2])),
        ("pointwise 1x8x1x1 -> 8 g2", cpu(), "matvec", Unsupported::Groups(2)),
        ("conv 1x8x2x2 -> 8 k3 p1", gpu(), "matvec", Unsupported::Padding([1; 4])),
        ("transposed 1x8x8x8 -> 8 k1 p1", gpu(), "phases", Unsupported::Padding([1; 4])),
        ("transposed 1x8x8x8 -> 8 k5 s5 g2", gpu(), "phases", Unsupported::Stride([5, 5])),
        ("transposed 1x8x8x8 -> 8 k65 s65", gpu(), "phases", Unsupported::Stride([65, 65])),
        ("transposed 1x8x8x8 -> 8 k3 s2 g8", cpu(), "phases", Unsupported::OutChannels { each: 1, groups: 8 }),
        ("separable 1x6x8x8 -> 8 k3 nhwc", gpu(), "separable", Unsupported::InChannels(6)),
        ("separable 1x8x32x32 -> 8 k9", gpu(), "separable", Unsupported::KernelSize([9, 9])),
    ] {
        let Err(Error::NoKernel { rejected, .. }) = plan(line, &caps, named(kernel)) else {
            panic!("{kernel} took {line}");
        };
        let reasons: Vec<_> = rejected.iter().filter(|(name, _)| name == kernel).map(|(_, reason)| reason).collect();
        assert_eq!(reasons, [&expected], "{line}");
    }
}

#[test]
fn all_kernels_are_asked_about_every_link() {
    let schedule = plan("pool 1x8x7x7", &gpu(), Choice::Auto).unwrap();
    let singles = KERNELS.iter().filter(|kernel| kernel.links == 1).map(|kernel| kernel.name);
    assert!(singles.eq(schedule.considered.iter().map(|answer| answer.kernel)), "{:?}", schedule.considered);
    for answer in schedule.considered.iter().filter(|answer| answer.kernel != "pool") {
        assert_eq!(
            answer.answer.as_ref().err(),
            Some(&Unsupported::Link("a global average pool")),
            "{}",
            answer.kernel
        );
    }
    // Several links in a row may be of any kinds, and then none fuses them.
    let chain = Chain::from(Conv2d::depthwise(8, 3)).then(Link::GlobalAveragePool).then(Conv2d::pointwise(8, 4));
    let schedule = planner::schedule(&chain, [1, 8, 9, 9], Layout::Nchw, &gpu(), &Choice::Auto).unwrap();
    let fused = schedule.considered.iter().filter(|answer| answer.links > 1);
    let reasons: Vec<_> = fused.map(|answer| (answer.kernel, answer.answer.as_ref().err().cloned())).collect();
    let [pool, conv] = ["a global average pool", "a convolution"].map(|kind| Some(Unsupported::Link(kind)));
    let expected = [
        ("separable", pool.clone()),
        ("expand_depthwise", pool.clone()),
        ("pointwise_mean", Some(Unsupported::KernelSize([3, 3]))),
        ("inverted_residual", pool.clone()),
        ("expand_depthwise_gate", conv.clone()),
        ("separable", pool.clone()),
        ("expand_depthwise", pool),
        ("pointwise_mean", conv),
    ];
    assert_eq!(reasons, expected);
}

/// The name of a kernel for convolutions does not restrict the choice for a pool.
#[test]
fn a_name_does_not_apply_to_links_of_other_kinds() {
    let chain = Chain::from(Separable::new(8, 8, 3).padding(1)).then(Link::GlobalAveragePool);
    let named = |name| planner::schedule(&chain, [1, 8, 9, 9], Layout::Nchw, &gpu(), &named(name));
    assert_eq!(kernels(&named("separable").unwrap()), ["separable", "pool"]);
    assert_eq!(kernels(&named("direct").unwrap()), ["direct", "direct", "pool"]);
    assert!(matches!(named("pool"), Err(Error::NoKernel { .. })), "a pool computes no convolution");
    assert!(
        matches!(named("separable+separable"), Err(Error::NoKernel { .. })),
        "a name for each step counts for each"
    );
}

#[test]
fn kernels_for_other_links_explain_nothing() {
    let none = Caps { max_invocations: 1, ..gpu() };
    let refused = |line, choice| match plan(line, &none, choice) {
        Err(Error::NoKernel { rejected, .. }) => rejected.into_iter().map(|(kernel, _)| kernel).collect::<Vec<_>>(),
        other => panic!("{line}: {other:?}"),
    };
    let of_conv = refused("conv 1x8x8x8 -> 8 k3", Choice::Auto);
    assert!(of_conv.contains(&"direct".into()) && !of_conv.contains(&"pool".into()), "{of_conv:?}");
    assert_eq!(refused("pool 1x8x7x7", Choice::Auto), ["pool"]);
}

/// The same memory and the same sums, whichever way the image stands.
#[test]
fn a_column_takes_as_long_as_a_row() {
    for (column, row) in [
        ("conv 1x512x3199x1 -> 512 k3x1 p1,0,1,0", "conv 1x512x1x3199 -> 512 k1x3 p0,1,0,1"),
        ("conv 2x48x700x1 -> 32 k5x1 s2x1 p2,0,1,0 nhwc", "conv 2x48x1x700 -> 32 k1x5 s1x2 p0,2,0,1 nhwc"),
        ("conv 1x64x200x3 -> 64 k3x1 d2x1", "conv 1x64x1x600 -> 64 k1x3 d1x6"),
        ("depthwise 1x64x999x1 k7x1 p3,0,3,0", "depthwise 1x64x1x999 k1x7 p0,3,0,3"),
    ] {
        for (device, caps) in devices() {
            let [column, row] = [column, row].map(|line| plan(line, &caps, Choice::Auto).unwrap());
            assert_eq!(column.name(), row.name(), "on {device}");
            assert_eq!(column.seconds(), row.seconds(), "on {device}");
        }
    }
}

#[test]
fn a_grid_beyond_the_limit_is_folded() {
    // 4096 x 4096 outputs in tiles of 8 x 2 are more workgroups than one dimension can have.
    let schedule = plan("depthwise 1x16x4096x4096 k3 p1", &gpu(), named("depthwise/8x2")).unwrap();
    let pass = &schedule.steps[0].recipe.passes[0];
    assert!(pass.workgroups > gpu().max_workgroups.into(), "{} workgroups need no folding", pass.workgroups);

    // The same on a device with a smaller limit.
    let line = "depthwise 1x64x64x64 k3 p1";
    let workgroups = |caps: &Caps| plan(line, caps, named("direct")).map(|s| s.steps[0].recipe.passes[0].workgroups);
    let needed = workgroups(&gpu()).unwrap();
    let side = needed.isqrt() as u32;
    let small = Caps { max_workgroups: side + 1, ..gpu() };
    assert_eq!(workgroups(&small), Ok(needed));
    let Err(Error::NoKernel { rejected, .. }) = workgroups(&Caps { max_workgroups: side - 1, ..gpu() }) else {
        panic!("{needed} workgroups were taken");
    };
    let limit = u64::from(side - 1).pow(2);
    assert!(rejected.contains(&("direct".into(), Unsupported::Grid { needed, limit })), "{rejected:?}");
}
