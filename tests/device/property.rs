//! Random problems, each by one of its schedules, on this machine's device, against the oracle (as in src/verify.rs).
//!
//! By default the cases are fixed, and each has several sizes. `PROPTEST_CASES=1000` draws a thousand new cases for
//! each test; `PROPTEST_RNG_SEED` makes them repeatable. A failing case is shrunk, and printed as a problem line if one
//! can express it.

mod bands;
mod draw;
mod graphs;
mod values;
mod workgroup_memory;

use std::cell::{Cell, RefCell};
use std::fmt::Debug;

use self::draw::{Case, Device, Subject};
use gpuconv::internals::kernel_of;
use gpuconv::planner::Schedule;
use gpuconv::verify::{Oracle, Report};
use gpuconv::{Error, GpuConv, Problem, planner};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

/// After this many cases the tests take a new device, because some software devices never free compiled shaders.
const CASES_PER_DEVICE: usize = 100;

/// The result of checking a subject.
enum Verdict {
    Agrees,
    Differs(String),
    /// The check does not apply.
    NotChecked,
}

/// The numbers of subjects that were drawn, and that were checked.
#[derive(Clone, Copy, Default)]
struct Tally {
    drawn: usize,
    checked: usize,
}

/// Draws cases (this many, unless the environment gives another number) and checks each on a device. It also fails if
/// less than `percent` of the subjects were checked, because a test that checks nothing proves nothing.
fn draw_and_check<T: Debug>(
    cases: u32,
    percent: usize,
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
        if *count == CASES_PER_DEVICE {
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
    assert!(checked > 0 && checked * 100 >= drawn * percent, "only {checked} of {drawn} subjects were checked");
}

/// Checks each subject of a case, by the schedule that the case picks among those that qualify.
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
        // A kernel may not take all sizes. If the picked one does not, take another.
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
        return Err(TestCaseError::fail(format!("{complaint}\n{}", how_to_repeat(case.device, subject, schedule))));
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

/// A call of the command line that repeats a failed check, if there is one.
fn how_to_repeat(device: Device, subject: &Subject, schedule: &Schedule) -> String {
    let (name, recipes) = (&subject.name, schedule.name());
    let kernel = kernel_of(&recipes);
    let flag = match device {
        Device::AsItIs | Device::NarrowGrid => "",
        Device::Gpu => " --as-gpu",
        Device::WithoutSubgroups => " --without subgroups",
        Device::WithoutInt64 => " --without int64",
        Device::WithoutF16 => " --without f16",
    };
    let call = match name.parse::<Problem>() {
        Ok(_) => format!("gpuconv verify --all-variants{flag} --kernel {kernel} '{name}'"),
        Err(_) => format!("no problem line can express {name}"),
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

#[test]
#[ignore = "takes minutes"]
fn pools_over_windows_agree_with_the_oracle() {
    agrees_with_the_oracle(12, draw::window_pools());
}

#[test]
#[ignore = "takes minutes"]
fn resizes_agree_with_the_oracle() {
    agrees_with_the_oracle(12, draw::resizes());
}

#[test]
#[ignore = "takes minutes"]
fn transposed_convolutions_agree_with_the_oracle() {
    agrees_with_the_oracle(12, draw::transposed());
}

#[test]
#[ignore = "takes minutes"]
fn shuffles_agree_with_the_oracle() {
    agrees_with_the_oracle(6, draw::shuffles());
}
