//! Problems drawn at random, each by one of the schedules that compute it, on the device of this machine, against the
//! oracle: as src/verify.rs checks them.
//!
//! Fixed cases of some sizes each; `PROPTEST_CASES=1000` draws so many others for each test, another time others again
//! unless `PROPTEST_RNG_SEED` says which. What fails is shrunk, and printed as a problem line where one can say it.

mod draw;
mod values;
mod workgroup_memory;

use std::cell::RefCell;
use std::fmt::Debug;

use draw::{Case, Device, Subject};
use gpuconv::planner::Schedule;
use gpuconv::verify::Oracle;
use gpuconv::{Error, GpuConv, Problem, planner};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

/// Some software devices keep the memory of all they ever compiled, so the device is another after so many cases.
const CASES_OF_A_DEVICE: usize = 100;

/// Draws cases, a fixed number of them unless the environment says otherwise, and checks each on a device.
fn draw_and_check<T: Debug>(
    cases: u32,
    strategy: impl Strategy<Value = T>,
    check: impl Fn(&GpuConv, &T) -> Result<(), TestCaseError>,
) {
    let config = match std::env::var_os("PROPTEST_CASES") {
        Some(_) => Config::default(),
        None => Config { cases, rng_seed: RngSeed::Fixed(1), max_shrink_iters: 300, ..Config::default() },
    };
    let config = Config { failure_persistence: None, ..config };
    let device = RefCell::new((GpuConv::new().unwrap_or_else(|error| panic!("{error}")), 0));
    let outcome = TestRunner::new(config).run(&strategy, |case| {
        let (gpu, count) = &mut *device.borrow_mut();
        if *count == CASES_OF_A_DEVICE {
            (*gpu, *count) = (GpuConv::new().map_err(|error| TestCaseError::fail(error.to_string()))?, 0);
        }
        *count += 1;
        check(gpu, &case)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// Checks each subject of a case by the schedule that the case picks.
fn for_each_subject(
    gpu: &GpuConv,
    case: &Case,
    check: impl Fn(&GpuConv, &Subject, &Schedule) -> Result<Result<(), String>, Error>,
) -> Result<(), TestCaseError> {
    let gpu = gpu.with_caps(|caps| case.device.caps(caps));
    let mut picked = None;
    for subject in &case.subjects {
        let Subject { name, chain, input, layout } = subject;
        let schedules = planner::alternatives(chain, *input, *layout, gpu.caps())
            .map_err(|error| TestCaseError::fail(format!("{name}: {error}")))?;
        let picked = picked.get_or_insert_with(|| schedules[case.which.index(schedules.len())].name());
        // Some kernels take only some sizes.
        let Some(schedule) = schedules.iter().find(|schedule| schedule.name() == *picked) else { continue };
        let complaint = match check(&gpu, subject, schedule) {
            Ok(Ok(())) => continue,
            Err(Error::TooLarge { .. }) if matches!(case.device, Device::NarrowGrid) => continue,
            Ok(Err(complaint)) => complaint,
            Err(error) => error.to_string(),
        };
        return Err(TestCaseError::fail(format!("{complaint}\n{}", again(case.device, subject, schedule))));
    }
    Ok(())
}

fn agrees_with_the_oracle(cases: u32, subjects: impl Strategy<Value = Vec<Subject>>) {
    draw_and_check(cases, draw::cases(subjects), |gpu, case| for_each_subject(gpu, case, oracle_agrees));
}

fn oracle_agrees(gpu: &GpuConv, subject: &Subject, schedule: &Schedule) -> Result<Result<(), String>, Error> {
    let Subject { name, chain, input, layout } = subject;
    let report = Oracle::of_chain(name, chain.clone(), *input, *layout, u64::MAX)?.check(gpu, schedule)?;
    Ok(if report.passes() { Ok(()) } else { Err(format!("{report:?}")) })
}

/// What failed, as a call of the command line where there is one.
fn again(device: Device, subject: &Subject, schedule: &Schedule) -> String {
    let (name, recipes) = (&subject.name, schedule.name());
    let kernel = recipes.split('/').next().unwrap_or_default();
    let flag = match device {
        Device::AsItIs | Device::NarrowGrid => "",
        Device::Gpu => " --as-gpu",
        Device::WithoutSubgroups => " --without subgroups",
        Device::WithoutInt64 => " --without int64",
    };
    let call = match name.parse::<Problem>() {
        Ok(_) => format!("gpuconv verify --all-variants{flag} --kernel {kernel} '{name}'"),
        Err(_) => format!("no problem line says {name}"),
    };
    format!("{recipes} on {device:?}\n{call}")
}

#[test]
fn convolutions_agree_with_the_oracle() {
    agrees_with_the_oracle(15, draw::convolutions());
}

#[test]
fn depthwise_convolutions_agree_with_the_oracle() {
    agrees_with_the_oracle(15, draw::depthwise());
}

#[test]
fn products_agree_with_the_oracle() {
    agrees_with_the_oracle(15, draw::pointwise());
}

#[test]
fn separable_convolutions_agree_with_the_oracle() {
    agrees_with_the_oracle(10, draw::separable());
}

#[test]
fn chains_agree_with_the_oracle() {
    agrees_with_the_oracle(15, draw::chains());
}

#[test]
fn pools_agree_with_the_oracle() {
    agrees_with_the_oracle(10, draw::pools());
}
