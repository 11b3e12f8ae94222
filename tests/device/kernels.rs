//! Every kernel on the cases that it takes, on the device of this machine, against the oracle.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use gpuconv::kernels::{KERNELS, kernel_of};
use gpuconv::planner::{self, Schedule};
use gpuconv::verify::{self, Oracle};
use gpuconv::{Caps, GpuConv, Layout, Operation, Problem};

use crate::common::{as_gpu, gpu};

/// Cases of a kernel in a layout that are checked where time is short.
const FEW: usize = 1;

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
    let kernels = ["depthwise", "direct", "implicit_gemm_subgroup", "matvec", "pointwise_subgroup", "winograd"];
    check_few(gpu, &kernels);
}

/// A software device is given other variants than a GPU, so those of a GPU run here in its stead.
#[test]
fn every_kernel_for_gpus_agrees_with_the_oracle_on_a_few_cases() {
    let pointwise = ["pointwise", "pointwise_uniform", "matvec", "split"];
    let windows = ["depthwise", "direct", "implicit_gemm", "implicit_gemm_uniform", "separable", "winograd"];
    check_few(as_gpu, &[&pointwise[..], &windows].concat());
}

/// A kernel in a layout.
type Key = (&'static str, Layout);
/// A case, what it is sorted by before it: how long its shader is, then how large its input.
type Ranked = (usize, Reverse<u64>, Problem, Schedule);

/// Each kernel in each layout on a few of the cases that it takes: those with the shortest shaders, which a software
/// device compiles soonest, and of these the largest.
fn few(caps: &Caps) -> HashMap<Key, Vec<(Problem, Vec<Schedule>)>> {
    let mut all: HashMap<Key, Vec<Ranked>> = HashMap::new();
    for problem in verify::cases() {
        let alternatives = planner::alternatives(&problem.chain(), problem.input, problem.layout, caps).unwrap();
        for schedule in alternatives.into_iter().filter(|schedule| schedule.steps.len() == 1) {
            let recipe = &schedule.steps[0].recipe;
            let kernel = KERNELS.iter().map(|kernel| kernel.name).find(|name| *name == kernel_of(&recipe.name));
            let Some(kernel) = kernel else { continue };
            let text = recipe.passes.iter().map(|pass| pass.wgsl.text().unwrap().len()).sum();
            let cases = all.entry((kernel, problem.layout)).or_default();
            cases.push((text, Reverse(problem.input.len()), problem.clone(), schedule));
        }
    }
    let shortest = |(key, mut cases): (Key, Vec<Ranked>)| {
        cases.sort_by_key(|(text, size, ..)| (*text, *size));
        (key, cases.into_iter().take(FEW).map(|(.., problem, schedule)| (problem, vec![schedule])).collect())
    };
    all.into_iter().map(shortest).collect()
}

/// Checks each of some kernels on a few cases in both layouts, but `uniform` ones of windows, which are for planes.
fn check_few(gpu: impl Fn() -> GpuConv + Sync, kernels: &[&'static str]) {
    let few = few(gpu().caps());
    for kernel in kernels {
        for layout in [Layout::Nchw, Layout::Nhwc] {
            let is_known = few.get(&(*kernel, layout)).is_some_and(|cases| cases.len() == FEW);
            let is_for_planes = *kernel == "implicit_gemm_uniform" && layout == Layout::Nhwc;
            assert_eq!(is_known, !is_for_planes, "{kernel} {layout}");
        }
    }
    check(gpu, &few.into_values().flatten().collect::<Vec<_>>());
}

/// Every case of the table, by one recipe of each kernel, another from case to case.
#[test]
#[ignore = "takes minutes"]
fn every_case_agrees_with_the_oracle_in_full() {
    let checks = check(gpu, &rotating(gpu().caps(), |_, _| true));
    assert!(checks > verify::cases().len(), "only {checks} checks");
}

/// What a GPU is given, on a part of the cases; SwiftShader has all of it.
#[test]
#[ignore = "takes minutes"]
fn the_variants_for_gpus_agree_with_the_oracle_in_full() {
    let checks = check(as_gpu, &rotating(as_gpu().caps(), |turn, _| turn % 7 == 5));
    assert!(checks > verify::cases().len() / 7, "only {checks} checks");
}

/// A software device without 64-bit integers, as there are, on a part of the cases.
#[test]
#[ignore = "takes minutes"]
fn the_variants_without_64_bit_integers_agree_with_the_oracle_in_full() {
    let gpu = || gpu().with_caps(|caps| Caps { int64: false, ..caps });
    let checks = check(gpu, &rotating(gpu().caps(), |turn, _| turn % 7 == 3));
    assert!(checks > verify::cases().len() / 7, "only {checks} checks");
}

/// Every recipe that a GPU could be given on every case that it takes. Made for SwiftShader, which compiles fast.
#[test]
#[ignore = "takes minutes"]
fn every_recipe_for_gpus_agrees_with_the_oracle_in_full() {
    let caps = as_gpu().caps().clone();
    let all = |problem: Problem| {
        let schedules = planner::alternatives(&problem.chain(), problem.input, problem.layout, &caps).unwrap();
        (problem, schedules)
    };
    let chosen: Vec<_> = verify::cases().into_iter().map(all).collect();
    let steps = chosen.iter().flat_map(|(_, schedules)| schedules).flat_map(|schedule| &schedule.steps);
    let recipes: BTreeSet<String> = steps.map(|step| step.recipe.name.clone()).collect();
    let checks = check(as_gpu, &chosen);
    println!("{checks} checks of {} recipes", recipes.len());
    assert!(recipes.len() > 60, "only {recipes:?}");
}

/// The schedules that `gpuconv verify` takes of each case.
fn rotating(caps: &Caps, keep: impl Fn(usize, &Schedule) -> bool) -> Vec<(Problem, Vec<Schedule>)> {
    let choose = |(turn, problem): (usize, Problem)| {
        let mut schedules = verify::schedules(&problem, caps, turn).unwrap();
        schedules.retain(|schedule| keep(turn, schedule));
        (problem, schedules)
    };
    verify::cases().into_iter().enumerate().map(choose).collect()
}

/// Checks schedules of some cases, and says how many. Each case has a device of its own: some software devices keep the
/// memory of all they ever compiled.
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
        // A bound that is far above all errors would let wrong numbers pass.
        if rounds(problem) && worst < 1e-4 {
            wrong.lock().unwrap().push(format!("{problem}: only {worst:e} of the bound is used"));
        }
    };
    // Most of the time goes into compiling, and a software device compiles one shader at a time.
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

/// Whether anything is rounded: there are outputs, and they are not copies of the inputs.
fn rounds(problem: &Problem) -> bool {
    let is_copy = problem.operation == Operation::Pool && problem.input.pixels() == 1;
    problem.input.batch > 0 && !is_copy
}
