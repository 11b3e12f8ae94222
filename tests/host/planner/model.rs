//! The cost model: how GPUs are told apart, and what their cores can hold.

use gpuconv::gpu::GpuKind;
use gpuconv::internals::{Elements, Run};
use gpuconv::planner::model::{Core, DeviceModel, Parts};
use gpuconv::planner::{self, Unsupported};
use gpuconv::{Caps, Choice, Error, Layout, Shape};

use super::{cpu, cpu_without_subgroups, gpu, makes, named, parse, plan, representatives};

/// The occupancy of a GPU with 24 cores of 128 lanes, and how long arithmetic takes on it, for a pass of workgroups of
/// 128 whose invocations count once each, since they have 16 sums: one keeps two thirds of a core busy.
fn occupancy(device: DeviceModel, workgroups: u64, registers: u32, workgroup_memory: u32) -> (u64, f64, f64) {
    let problem = parse("pointwise 32x512x56x56 -> 512");
    let (chain, shapes) = (problem.chain(), problem.chain().shapes(problem.input).unwrap());
    let run = Run { links: chain.links(), shapes: &shapes, layout: problem.layout, elements: Elements::F32 };
    let schedule = planner::schedule(&chain, problem.input, Layout::Nchw, &gpu(), &named("pointwise/64x64x16"));
    let mut recipe = schedule.unwrap().steps[0].recipe.clone();
    let pass = &mut recipe.passes[0];
    assert_eq!(pass.workgroup, 128);
    (pass.sums, pass.workgroups, pass.registers, pass.workgroup_memory) = (16, workgroups, registers, workgroup_memory);
    let parts = Parts::new(&recipe, &run, &device);
    (device.resident_workgroups(&recipe.passes[0]), parts.occupancy, parts.mult_adds)
}

/// What a workgroup keeps busy of a core.
const ALONE: f64 = 2.0 / 3.0;

#[test]
fn a_low_occupancy_takes_longer() {
    let device = DeviceModel::of(&gpu());
    // Whole rounds, however many workgroups a core holds.
    let workgroups = 24 * 2 * 3 * 4 * 5 * 7;
    let time = |registers, memory| occupancy(device, workgroups, registers, memory);
    let (resident, whole, seconds) = time(68, 8192);
    assert_eq!((resident, whole), (7, 1.0), "bound by registers, and busy");
    for (registers, memory, expected) in [
        (64, 8192, (8, 1.0)),
        (64, 32768, (2, 1.0)),
        (64, 40000, (1, ALONE)),
        (256, 8192, (2, 1.0)),
        (300, 8192, (1, ALONE)),
        // More registers than a core has would spill. With 0, the model must not divide by zero.
        (600, 8192, (1, ALONE)),
        (0, 0, (8, 1.0)),
    ] {
        let (resident, share, longer) = time(registers, memory);
        assert_eq!(resident, expected.0, "{registers} registers, {memory} bytes");
        assert!((share - expected.1).abs() < 1e-9, "{registers} registers, {memory} bytes: {share}");
        assert!((longer / seconds * share - 1.0).abs() < 1e-9, "{registers} registers, {memory} bytes: {longer} s");
    }
    // A core of a software device runs one workgroup at a time.
    let software = DeviceModel::of(&cpu());
    assert_eq!(occupancy(software, 64, 300, 40000), occupancy(software, 64, 68, 8192));
    // A core with half of the registers holds half.
    let mut phone = device;
    if let Core::Parallel { core, .. } = &mut phone.core {
        core.registers /= 2;
    }
    assert_eq!(occupancy(phone, workgroups, 64, 8192), time(128, 8192));
}

/// A part of the invocations that run in step takes as long as all of them.
#[test]
fn a_part_of_a_wave_takes_the_place_of_all() {
    let problem = parse("pointwise 1x512x56x56 -> 512");
    let (chain, shapes) = (problem.chain(), problem.chain().shapes(problem.input).unwrap());
    let run = Run { links: chain.links(), shapes: &shapes, layout: problem.layout, elements: Elements::F32 };
    let phone = GpuKind::Adreno.caps();
    let schedule = planner::schedule(&chain, problem.input, Layout::Nchw, &phone, &named("pointwise")).unwrap();
    let mut recipe = schedule.steps[0].recipe.clone();
    let pass = &mut recipe.passes[0];
    (pass.workgroup, pass.sums, pass.registers, pass.workgroup_memory) = (32, 64, 32, 0);
    let seconds = |in_step: u64| {
        let mut device = DeviceModel::of(&phone);
        if let Core::Parallel { core, .. } = &mut device.core {
            core.in_step = in_step;
        }
        Parts::new(&recipe, &run, &device).mult_adds
    };
    let ratio = seconds(64) / seconds(32);
    assert!((ratio - 2.0).abs() < 0.01, "{ratio}");
}

/// The last workgroups take as long as a whole round does, and few take no less than one.
#[test]
fn the_last_round_counts() {
    let device = DeviceModel::of(&gpu());
    let share = |workgroups| occupancy(device, workgroups, 128, 8192).1;
    // A core holds four, and two keep it busy.
    for (workgroups, expected) in [
        (24 * 4, 1.0),
        (24 * 8, 1.0),
        // One core has a fifth. Alone it takes half as long again, so all take as long as five and a half each.
        (24 * 4 + 1, (24.0 * 4.0 + 1.0) / (24.0 * 5.5)),
        (24 * 6, 1.0),
        (24, ALONE),
        (12, ALONE / 2.0),
        (1, ALONE / 24.0),
    ] {
        assert!((share(workgroups) - expected).abs() < 1e-9, "{workgroups}: {} and not {expected}", share(workgroups));
    }
}

/// The planner knows enough of each make to tell recipes apart: where two take the same time, the order of a list
/// decides.
#[test]
fn few_runs_of_networks_end_in_a_tie() {
    let mut lines = vec!["mobilenet_v1 1", "mobilenet_v2 1"];
    lines.extend(RESNET_18);
    let mut kinds: Vec<_> = GpuKind::ALL.iter().map(|kind| (kind.name(), kind.caps())).collect();
    kinds.extend([("a software device", cpu()), ("one without subgroups", cpu_without_subgroups())]);
    kinds.extend(makes());
    for (make, caps) in kinds {
        let (mut runs, mut ties) = (0, Vec::new());
        for line in &lines {
            let schedule = plan(line, &caps, Choice::Auto).unwrap();
            for run in schedule.runs() {
                let candidates = run.iter().flat_map(|considered| considered.answer.iter().flatten());
                let mut times: Vec<_> = candidates.map(|one| (one.seconds(), one.recipe.name.clone())).collect();
                times.sort_by(|a, b| a.0.total_cmp(&b.0));
                runs += usize::from(!times.is_empty());
                if let [first, second, ..] = &times[..]
                    && second.0 < first.0 * 1.005
                {
                    ties.push(format!("{line} from link {}: {} and {}", run[0].first, first.1, second.1));
                }
            }
        }
        assert!(runs > 80, "{make}: only {runs} runs");
        assert!(ties.len() * 5 <= runs, "{make}: {} of {runs} runs\n{}", ties.len(), ties.join("\n"));
    }
}

/// The layers of ResNet-18.
const RESNET_18: [&str; 12] = [
    "conv 1x3x224x224 -> 64 k7 s2 p3 relu",
    "conv 1x64x56x56 -> 64 k3 p1 relu",
    "conv 1x64x56x56 -> 128 k3 s2 p1 relu",
    "conv 1x64x56x56 -> 128 k1 s2",
    "conv 1x128x28x28 -> 128 k3 p1 relu",
    "conv 1x128x28x28 -> 256 k3 s2 p1 relu",
    "conv 1x128x28x28 -> 256 k1 s2",
    "conv 1x256x14x14 -> 256 k3 p1 relu",
    "conv 1x256x14x14 -> 512 k3 s2 p1 relu",
    "conv 1x256x14x14 -> 512 k1 s2",
    "conv 1x512x7x7 -> 512 k3 p1 relu",
    "pointwise 1x512x1x1 -> 1000",
];

/// This holds what docs/cost-model.md says.
#[test]
fn no_variant_leaves_a_quarter_of_a_core_idle() {
    let mut seen = 0;
    for (text, chain, input, layout) in representatives() {
        let input = Shape { batch: 64, ..input };
        let Ok(schedule) = planner::schedule(&chain, input, layout, &gpu(), &Choice::Auto) else { continue };
        for candidate in schedule.considered.iter().flat_map(|run| run.answer.iter().flatten()) {
            for pass in &candidate.recipe.passes {
                let held = DeviceModel::of(&gpu()).resident_workgroups(pass) as f64 * pass.independent();
                assert!(held >= 384.0, "{text}: {} holds {held}", candidate.recipe.name);
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "{seen} passes were seen");
}

#[test]
fn a_large_plane_is_shared_out() {
    for caps in [gpu(), Caps { is_cpu: true, ..Caps::webgpu() }] {
        for (line, expected) in
            [("pool 1x1x2048x2048", "pool/1024-shares"), ("pool 1x2x1024x999 nhwc", "pool/1024-shares")]
        {
            assert_eq!(plan(line, &caps, Choice::Auto).unwrap().name(), expected, "{line}");
        }
        assert_ne!(plan("pool 1x1280x7x7", &caps, Choice::Auto).unwrap().name(), "pool/1024-shares");
    }
}

/// A recipe that needs more registers than the makers' GPUs have would spill there. Others have it.
#[test]
fn a_recipe_that_would_spill_is_not_offered() {
    let line = "conv 1x64x56x56 -> 64 k3 p1";
    for (make, caps) in makes() {
        let limit = caps.invocation_registers().unwrap();
        let large = plan(line, &caps, named("implicit_gemm_uniform/16x8"));
        assert_eq!(large.is_ok(), limit > 200, "{make}");
        // What Mesa's compilers spilled: pixels with scales of their own, and pairs of channels of a wide kernel.
        let few = limit <= 128 && make != "apple-m1";
        for batch in ["pointwise 8x64x7x7 -> 64 scaled", "conv 8x64x7x7 -> 64 k3 p1 scaled"] {
            let kernel = if batch.starts_with("pointwise") { "pointwise" } else { "implicit_gemm" };
            let tile = |tile: &str| plan(batch, &caps, named(&format!("{kernel}/{tile}"))).is_ok();
            assert_eq!([tile("64x64x16"), tile("32x64x16")], [!few && limit > 64; 2], "{make}: {batch}");
        }
        let pairs = plan("conv 1x64x56x56 -> 4 k8 p4 nhwc f16", &caps, named("implicit_gemm_uniform/4x8"));
        assert!(pairs.is_err() || limit > 128, "{make}");
        // If a kernel has no recipe, it says why. This one has tiles for every GPU but Mali.
        if let Err(Error::NoKernel { rejected, .. }) = plan(line, &caps, named("implicit_gemm")) {
            let why = &rejected.iter().find(|(kernel, _)| kernel == "implicit_gemm").unwrap().1;
            assert!(matches!(why, Unsupported::Registers { needed, limit: 64 } if *needed > 56), "{make}: {why:?}");
        } else {
            assert!(limit > 64, "{make}");
        }
        for run in plan("mobilenet_v2 1", &caps, Choice::Auto).unwrap().runs() {
            let recipes = run.iter().flat_map(|considered| considered.answer.iter().flatten()).map(|one| &one.recipe);
            for (name, pass) in recipes.flat_map(|recipe| recipe.passes.iter().map(|pass| (&recipe.name, pass))) {
                assert!(u64::from(pass.registers) * 8 <= limit * 7, "{make}: {name} takes {}", pass.registers);
            }
        }
    }
}
