//! Every kernel on every case that it takes, on the device of this machine, against the oracle.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use gpuconv::planner::Schedule;
use gpuconv::verify::{self, Oracle};
use gpuconv::{Caps, GpuConv, Problem, Result};

/// The device, or a loud failure that says what to install.
fn gpu() -> GpuConv {
    GpuConv::new().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_case_of_the_table_reads() {
    for line in verify::lines() {
        let problem: Problem = line.parse().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(problem.to_string().split(' ').count(), line.split(' ').count(), "{line} is not in short form");
    }
    assert_eq!(verify::cases().len(), verify::lines().count());
}

#[test]
fn every_kernel_agrees_with_the_oracle() {
    let checks = check(gpu, verify::schedules);
    assert!(checks > verify::cases().len(), "only {checks} checks");
}

/// A software device is given other variants than a GPU, so those of a GPU run here in its place: the kernels that
/// only a GPU is given on every case, the others on a few, for a software device compiles them slowly.
#[test]
fn the_variants_for_gpus_agree_with_the_oracle() {
    let gpu = || gpu().with_caps(|caps| Caps { is_cpu: false, ..caps });
    let for_gpus = AtomicUsize::new(0);
    check(gpu, |problem, caps, turn| {
        let mut schedules = verify::schedules(problem, caps, turn)?;
        let is_for_gpus = |schedule: &Schedule| {
            let name = schedule.name();
            name.contains("_uniform") || name.starts_with("split") || name.starts_with("matvec")
        };
        schedules.retain(|schedule| turn.is_multiple_of(7) || is_for_gpus(schedule));
        for_gpus.fetch_add(schedules.iter().filter(|schedule| is_for_gpus(schedule)).count(), Ordering::Relaxed);
        Ok(schedules)
    });
    let for_gpus = for_gpus.into_inner();
    assert!(for_gpus > 80, "only {for_gpus} checks of kernels for GPUs");
}

/// A software device without 64-bit integers, as there are, on a part of the cases.
#[test]
fn the_variants_without_64_bit_integers_agree_with_the_oracle() {
    let gpu = || gpu().with_caps(|caps| Caps { int64: false, ..caps });
    let checks = check(gpu, |problem, caps, turn| match turn % 7 {
        3 => verify::schedules(problem, caps, turn),
        _ => Ok(Vec::new()),
    });
    assert!(checks > verify::cases().len() / 7, "only {checks} checks");
}

/// Checks schedules of every case, given its turn, and says how many. Each case has a device of its own: some software
/// devices keep the memory of all they ever compiled.
fn check(
    gpu: impl Fn() -> GpuConv + Sync,
    schedules: impl Fn(&Problem, &Caps, usize) -> Result<Vec<Schedule>> + Sync,
) -> usize {
    let cases = verify::cases();
    let (next, checks, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let check = |turn: usize, problem: &Problem| {
        let gpu = gpu();
        let schedules = schedules(problem, gpu.caps(), turn).unwrap();
        if schedules.is_empty() {
            return;
        }
        let oracle = Oracle::new(problem).unwrap();
        for schedule in schedules {
            checks.fetch_add(1, Ordering::Relaxed);
            let found = oracle.check(&gpu, &schedule);
            if !found.as_ref().is_ok_and(|report| report.passes()) {
                wrong.lock().unwrap().push(format!("{problem}: {}: {found:?}", schedule.name()));
            }
        }
    };
    // Most of the time goes into compiling, and a software device compiles one shader at a time.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    let Some(problem) = cases.get(turn) else { break };
                    check(turn, problem);
                }
            });
        }
    });
    let (checks, wrong) = (checks.into_inner(), wrong.into_inner().unwrap());
    assert!(wrong.is_empty(), "{} of {checks} checks failed:\n{}", wrong.len(), wrong.join("\n"));
    checks
}
