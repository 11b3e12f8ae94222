//! Problems drawn at random, each by one of the schedules that compute it, on the device of this machine, against the
//! oracle: as src/verify.rs checks them.
//!
//! Fixed cases of some sizes each; `PROPTEST_CASES=1000` draws so many others for each test, another time others again
//! unless `PROPTEST_RNG_SEED` says which. What fails is shrunk, and printed as a problem line where one can say it.

mod draw;
mod values;
mod workgroup_memory;

use std::cell::{Cell, RefCell};
use std::fmt::Debug;

use self::draw::{Case, Device, Subject};
use gpuconv::kernels::kernel_of;
use gpuconv::planner::Schedule;
use gpuconv::verify::{Oracle, Report};
use gpuconv::{Error, GpuConv, Problem, planner};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

/// Some software devices keep the memory of all they ever compiled, so the device is another after so many cases.
const CASES_OF_A_DEVICE: usize = 100;

/// What became of a subject.
enum Verdict {
    Agrees,
    Differs(String),
    /// There was nothing to check.
    NotChecked,
}

/// Subjects that were drawn, and those of them that were checked.
#[derive(Clone, Copy, Default)]
struct Tally {
    drawn: usize,
    checked: usize,
}

/// Draws cases, a fixed number of them unless the environment says otherwise, and checks each on a device. Fails as well
/// if less than `least` hundredths of the subjects were checked: a test that checks nothing proves nothing.
fn draw_and_check<T: Debug>(
    cases: u32,
    least: usize,
    strategy: impl Strategy<Value = T>,
    check: impl Fn(&GpuConv, &T) -> Result<Tally, TestCaseError>,
) {
    let config = match std::env::var_os("PROPTEST_CASES") {
        Some(_) => Config::default(),
        None => Config { cases, rng_seed: RngSeed::Fixed(1), max_shrink_iters: 300, ..Config::default() },
    };
    let config = Config { failure_persistence: None, ..config };
    let device = RefCell::new((GpuConv::new().unwrap_or_else(|error| panic!("{error}")), 0));
    let all = Cell::new(Tally::default());
    let outcome = TestRunner::new(config).run(&strategy, |case| {
        let (gpu, count) = &mut *device.borrow_mut();
        if *count == CASES_OF_A_DEVICE {
            (*gpu, *count) = (GpuConv::new().map_err(|error| TestCaseError::fail(error.to_string()))?, 0);
        }
        *count += 1;
        let Tally { drawn, checked } = check(gpu, &case)?;
        all.set(Tally { drawn: all.get().drawn + drawn, checked: all.get().checked + checked });
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let Tally { drawn, checked } = all.get();
    println!("{checked} of {drawn} subjects checked");
    assert!(checked > 0 && checked * 100 >= drawn * least, "only {checked} of {drawn} subjects were checked");
}

/// Checks each subject of a case by the schedule that the case picks from those that qualify.
fn for_each_subject(
    gpu: &GpuConv,
    case: &Case,
    qualifies: impl Fn(&Schedule) -> bool,
    check: impl Fn(&GpuConv, &Subject, &Schedule) -> Result<Verdict, Error>,
) -> Result<Tally, TestCaseError> {
    let gpu = gpu.with_caps(|caps| case.device.caps(caps));
    let (mut picked, mut tally) = (None, Tally::default());
    for subject in &case.subjects {
        let Subject { name, chain, input, layout } = subject;
        tally.drawn += 1;
        let mut schedules = planner::alternatives(chain, *input, *layout, gpu.caps())
            .map_err(|error| TestCaseError::fail(format!("{name}: {error}")))?;
        schedules.retain(&qualifies);
        if picked.is_none() && !schedules.is_empty() {
            picked = Some(schedules[case.which.index(schedules.len())].name());
        }
        // Some kernels take only some sizes; where the picked one does not, another does.
        let same = schedules.iter().find(|schedule| Some(schedule.name()) == picked);
        let another = || (!schedules.is_empty()).then(|| &schedules[case.which.index(schedules.len())]);
        let Some(schedule) = same.or_else(another) else { continue };
        let complaint = match check(&gpu, subject, schedule) {
            Ok(Verdict::Agrees) => {
                tally.checked += 1;
                continue;
            }
            Ok(Verdict::NotChecked) => continue,
            Err(Error::TooLarge { .. }) if matches!(case.device, Device::NarrowGrid) => continue,
            Ok(Verdict::Differs(complaint)) => complaint,
            Err(error) => error.to_string(),
        };
        return Err(TestCaseError::fail(format!("{complaint}\n{}", again(case.device, subject, schedule))));
    }
    Ok(tally)
}

fn agrees_with_the_oracle(cases: u32, subjects: impl Strategy<Value = Vec<Subject>>) {
    draw_and_check(cases, 80, draw::cases(subjects), |gpu, case| for_each_subject(gpu, case, |_| true, oracle_agrees));
}

fn oracle_agrees(gpu: &GpuConv, subject: &Subject, schedule: &Schedule) -> Result<Verdict, Error> {
    let Subject { name, chain, input, layout } = subject;
    Ok(verdict(Oracle::of_chain(name, chain.clone(), *input, *layout, u64::MAX)?.check(gpu, schedule)?))
}

fn verdict(report: Report) -> Verdict {
    if report.passes() { Verdict::Agrees } else { Verdict::Differs(format!("{report:?}")) }
}

/// What failed, as a call of the command line where there is one.
fn again(device: Device, subject: &Subject, schedule: &Schedule) -> String {
    let (name, recipes) = (&subject.name, schedule.name());
    let kernel = kernel_of(&recipes);
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
#[ignore = "takes minutes"]
fn convolutions_agree_with_the_oracle() {
    agrees_with_the_oracle(8, draw::convolutions());
}

#[test]
#[ignore = "takes minutes"]
fn depthwise_convolutions_agree_with_the_oracle() {
    agrees_with_the_oracle(8, draw::depthwise());
}

#[test]
#[ignore = "takes minutes"]
fn products_agree_with_the_oracle() {
    agrees_with_the_oracle(8, draw::pointwise());
}

#[test]
#[ignore = "takes minutes"]
fn separable_convolutions_agree_with_the_oracle() {
    agrees_with_the_oracle(6, draw::separable());
}

#[test]
#[ignore = "takes minutes"]
fn chains_agree_with_the_oracle() {
    agrees_with_the_oracle(8, draw::chains());
}

#[test]
#[ignore = "takes minutes"]
fn pools_agree_with_the_oracle() {
    agrees_with_the_oracle(6, draw::pools());
}
