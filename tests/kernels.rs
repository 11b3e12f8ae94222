//! Every kernel on every case that it takes, on the device of this machine, against the oracle.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use gpuconv::verify::{self, Oracle};
use gpuconv::{Caps, GpuConv, Problem};

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
    check(&verify::cases(), gpu);
}

/// A software device is given other variants than a GPU, so those of a GPU run here in its place: on a part of the
/// cases, for their stores are written out, which a software device compiles slowly.
#[test]
fn the_variants_for_gpus_agree_with_the_oracle() {
    let cases: Vec<_> = verify::cases().into_iter().step_by(5).collect();
    check(&cases, || GpuConv::with_caps(|caps| Caps { is_cpu: false, int64: false, ..caps }).unwrap());
}

/// Checks every kernel that takes a case on a device of its own for each case: some software devices keep the memory
/// of all they ever compiled.
fn check(cases: &[Problem], gpu: impl Fn() -> GpuConv + Sync) {
    let (next, checks, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let check = |turn: usize, problem: &Problem| {
        let (gpu, oracle) = (gpu(), Oracle::new(problem).unwrap());
        for schedule in verify::schedules(problem, gpu.caps(), turn).unwrap() {
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
    assert!(checks > cases.len(), "only {checks} checks of {} cases", cases.len());
}
