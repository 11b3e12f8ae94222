//! Every kernel on the cases that it takes, on this machine's device, against the oracle.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use gpuconv::internals::{KERNELS, kernel_of};
use gpuconv::planner::{self, Schedule};
use gpuconv::verify::{self, Oracle};
use gpuconv::{Caps, Choice, DType, GpuConv, Layout, Operation, PoolMode, Problem, ResizeMode};

use crate::common::{as_gpu, gpu};

/// How many cases of each kernel and layout the quick tests check.
const FEW: usize = 1;
/// Kernels that software devices have, in both layouts.
const SOFTWARE: &[&str] = &[
    "channels",
    "depthwise",
    "direct",
    "gate",
    "implicit_gemm_subgroup",
    "matvec",
    "phases",
    "pointwise_subgroup",
    "prelu",
    "resize",
    "shuffle",
    "transposed",
    "window_pool",
    "winograd",
];

#[test]
fn every_case_of_the_table_reads() {
    for line in verify::lines() {
        let problem: Problem = line.parse().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(problem.to_string().split(' ').count(), line.split(' ').count(), "{line} is not in short form");
    }
    assert_eq!(verify::cases().len(), verify::lines().count());
}

#[test]
fn every_kernel_agrees_with_the_oracle_on_a_few_cases() {
    check_few(gpu, SOFTWARE);
}

/// Runs the variants for GPUs also on a software device, which would get other variants.
#[test]
fn every_kernel_for_gpus_agrees_with_the_oracle_on_a_few_cases() {
    let pointwise = [
        "pointwise",
        "pointwise_mean",
        "pointwise_uniform",
        "matvec",
        "split",
        "window_pool",
        "resize",
        "shuffle",
        "transposed",
        "phases",
        "prelu",
        "channels",
    ];
    let windows = ["depthwise", "direct", "gate", "implicit_gemm", "implicit_gemm_uniform", "separable", "winograd"];
    check_few(as_gpu, &[&pointwise[..], &windows].concat());
}

/// A kernel in a layout, of elements of a type.
type Key = (&'static str, Layout, DType);
/// The length of the shaders of a recipe on the first case that it takes, and all these cases.
type Known = (usize, Vec<(Problem, Schedule)>);

/// A few of the cases of each kernel in each layout, of those that are to be kept: those with the shortest shaders,
/// which a software device compiles fastest, and among these the largest. Of each kernel only one recipe's shaders are
/// made for all cases; making all takes as long as the checks.
pub fn few(caps: &Caps, keep: impl Fn(&Problem) -> bool) -> HashMap<Key, Vec<(Problem, Vec<Schedule>)>> {
    let text = |schedule: &Schedule| -> usize {
        let passes = schedule.steps.iter().flat_map(|step| &step.recipe.passes);
        passes.map(|pass| pass.wgsl.text().unwrap().len()).sum()
    };
    let mut all: HashMap<Key, HashMap<String, Known>> = HashMap::new();
    for problem in verify::cases().into_iter().filter(keep) {
        let alternatives = planner::alternatives(&problem.chain(), problem.input, problem.layout, caps).unwrap();
        for schedule in alternatives.into_iter().filter(|schedule| schedule.steps.len() == 1) {
            let name = schedule.steps[0].recipe.name.clone();
            let Some(kernel) = KERNELS.iter().map(|kernel| kernel.name).find(|kernel| *kernel == kernel_of(&name))
            else {
                continue;
            };
            let recipes = all.entry((kernel, problem.layout, problem.dtype)).or_default();
            let (_, cases) = recipes.entry(name).or_insert_with(|| (text(&schedule), Vec::new()));
            cases.push((problem.clone(), schedule));
        }
    }
    let shortest = |(key, recipes): (Key, HashMap<String, Known>)| {
        let first = recipes.into_iter().min_by_key(|(name, (text, _))| (*text, name.clone()));
        let (_, (_, mut cases)) = first.unwrap();
        cases.sort_by_cached_key(|(problem, schedule)| (text(schedule), Reverse(problem.input.len())));
        (key, cases.into_iter().take(FEW).map(|(problem, schedule)| (problem, vec![schedule])).collect())
    };
    all.into_iter().map(shortest).collect()
}

/// Checks these kernels on a few cases in both layouts, in f32.
fn check_few(gpu: impl Fn() -> GpuConv + Sync, kernels: &[&'static str]) {
    let (few, caps) = (few(gpu().caps(), |problem| problem.dtype == DType::F32), gpu().caps().clone());
    // Products by subgroups are for software devices that have them.
    let is_there = |kernel: &&&str| (caps.is_cpu && caps.subgroup.is_some()) || !kernel.ends_with("_subgroup");
    for kernel in kernels.iter().filter(is_there) {
        for layout in [Layout::Nchw, Layout::Nhwc] {
            let is_known = few.get(&(*kernel, layout, DType::F32)).is_some_and(|cases| cases.len() == FEW);
            assert!(is_known, "{kernel} {layout}");
        }
    }
    check(gpu, &few.into_values().flatten().collect::<Vec<_>>());
}

/// Pieces of a kernel's rows: of several lengths, with pairs of columns and of channels, scales, dilated, in groups.
#[test]
fn rows_in_pieces_agree_with_the_oracle() {
    let gpu = as_gpu();
    for (line, block) in [
        ("conv 1x3x6x38 -> 5 k2x13 p1,6,1,6 relu f16", "4x4"),
        ("conv 2x6x4x50 -> 4 k3x16 p1,7,1,8 scaled f16", "4x8"),
        ("conv 1x6x4x50 -> 3 k1x14 p0,7,0,6 scaled f16 nhwc", "4x4"),
        ("conv 2x4x4x40 -> 8 k1x14 s1x2 p0,3,0,8 d1x2", "8x4"),
        ("conv 1x6x5x50 -> 8 k3x15 p1,7,1,7 d1x3 g2", "4x4"),
        ("conv 1x5x4x44 -> 6 k2x17 p1,8,0,8 scaled nhwc", "4x8"),
        ("conv 1x3x3x80 -> 16 k1x9 p0,32,0,32 d1x8 f16", "16x8"),
    ] {
        let problem: Problem = line.parse().unwrap();
        let name = Choice::Named(format!("implicit_gemm_uniform/{block}-pieces"));
        let report = Oracle::new(&problem).unwrap().check_layer(&gpu, &name).unwrap();
        assert!(report.passes(), "{line}: {report:?}");
    }
}

/// Every case of the table, by one recipe of each kernel, rotating from case to case.
#[test]
#[ignore = "takes minutes"]
fn every_case_agrees_with_the_oracle_in_full() {
    let checks = check(gpu, &rotating(gpu().caps(), |_, _| true));
    assert!(checks > verify::cases().len(), "only {checks} checks");
}

/// The variants for GPUs, on a part of the cases. SwiftShader runs all of them in another test.
#[test]
#[ignore = "takes minutes"]
fn the_variants_for_gpus_agree_with_the_oracle_in_full() {
    let checks = check(as_gpu, &rotating(as_gpu().caps(), |turn, _| turn % 13 == 5));
    assert!(checks > verify::cases().len() / 13, "only {checks} checks");
}

/// Half precision in words of 32 bits, on a part of its cases, as a software device and as a GPU.
#[test]
#[ignore = "takes minutes"]
fn the_variants_without_half_precision_in_shaders_agree_with_the_oracle_in_full() {
    for (device, part) in [(gpu as fn() -> GpuConv, 3), (as_gpu, 9)] {
        let gpu = move || device().with_caps(|caps| Caps { f16: false, ..caps });
        let mut chosen = rotating(gpu().caps(), |turn, _| turn % part == 1);
        chosen.retain(|(problem, _)| problem.dtype == DType::F16);
        let checks = check(gpu, &chosen);
        assert!(checks > chosen.len() / part, "only {checks} checks");
    }
}

/// A software device without 64-bit integers, on a part of the cases.
#[test]
#[ignore = "takes minutes"]
fn the_variants_without_64_bit_integers_agree_with_the_oracle_in_full() {
    let gpu = || gpu().with_caps(|caps| Caps { int64: false, ..caps });
    let checks = check(gpu, &rotating(gpu().caps(), |turn, _| turn % 7 == 3));
    assert!(checks > verify::cases().len() / 7, "only {checks} checks");
}

/// Every recipe that a GPU can get, on a third of the cases that it takes: of each case another third of the recipes.
/// This is for SwiftShader, which compiles fast.
#[test]
#[ignore = "takes minutes"]
fn every_recipe_for_gpus_agrees_with_the_oracle_in_full() {
    let caps = as_gpu().caps().clone();
    let third = |(turn, problem): (usize, Problem)| {
        let schedules = planner::alternatives(&problem.chain(), problem.input, problem.layout, &caps).unwrap();
        let own = schedules.into_iter().enumerate().filter(|(index, _)| (turn + index) % 3 == 0);
        (problem, own.map(|(_, schedule)| schedule).collect::<Vec<_>>())
    };
    let chosen: Vec<_> = verify::cases().into_iter().enumerate().map(third).collect();
    let steps = chosen.iter().flat_map(|(_, schedules)| schedules).flat_map(|schedule| &schedule.steps);
    let recipes: BTreeSet<String> = steps.map(|step| step.recipe.name.clone()).collect();
    let checks = check(as_gpu, &chosen);
    println!("{checks} checks of {} recipes", recipes.len());
    assert!(recipes.len() > 60, "only {recipes:?}");
}

/// The schedules that `gpuconv verify` checks for each case.
fn rotating(caps: &Caps, keep: impl Fn(usize, &Schedule) -> bool) -> Vec<(Problem, Vec<Schedule>)> {
    let choose = |(turn, problem): (usize, Problem)| {
        let mut schedules = verify::schedules(&problem, caps, turn).unwrap();
        schedules.retain(|schedule| keep(turn, schedule));
        (problem, schedules)
    };
    verify::cases().into_iter().enumerate().map(choose).collect()
}

/// Checks schedules of some cases, and returns the number of checks. Each case has its own device, because some
/// software devices never free the memory of compiled shaders.
fn check(gpu: impl Fn() -> GpuConv + Sync, chosen: &[(Problem, Vec<Schedule>)]) -> usize {
    let (next, checks, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let check = |(problem, schedules): &(Problem, Vec<Schedule>)| {
        if schedules.is_empty() {
            return;
        }
        let (gpu, oracle, mut worst) = (gpu(), Oracle::new(problem).unwrap(), 0.0);
        for schedule in schedules {
            checks.fetch_add(1, Ordering::Relaxed);
            let found = oracle.check(&gpu, schedule);
            worst = found.as_ref().map_or(worst, |report| report.share_of_bound.max(worst));
            if !found.as_ref().is_ok_and(|report| report.passes()) {
                wrong.lock().unwrap().push(format!("{problem}: {}: {found:?}", schedule.name()));
            }
        }
        // A bound far above all errors would let wrong results pass. In f16 the rounding of the stores hides most
        // errors.
        if rounds(problem) && problem.dtype == DType::F32 && worst < 2e-5 {
            wrong.lock().unwrap().push(format!("{problem}: only {worst:e} of the bound is used"));
        }
    };
    // Compiling takes most of the time, and a software device compiles one shader at a time; so use two devices.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    check(case);
                }
            });
        }
    });
    let (checks, wrong) = (checks.into_inner(), wrong.into_inner().unwrap());
    assert!(wrong.is_empty(), "{} of {checks} checks failed:\n{}", wrong.len(), wrong.join("\n"));
    checks
}

/// Whether the problem rounds anything: it has outputs, and they are not copies of the inputs.
fn rounds(problem: &Problem) -> bool {
    let is_copy = match &problem.operation {
        Operation::Pool => problem.input.pixels() == 1,
        Operation::Pool2d(pool) => pool.mode == PoolMode::Max,
        Operation::PixelShuffle(_) | Operation::PixelUnshuffle(_) | Operation::Slice(_) | Operation::Concat(_) => true,
        Operation::Resize(resize) => resize.mode == ResizeMode::Nearest,
        // A single value may be positive.
        Operation::PRelu(_) => problem.input.len() == 1,
        _ => false,
    };
    problem.input.batch > 0 && !is_copy
}
