//! Every kernel on every case that it takes, on the device of this machine, against the oracle.

use gpuconv::verify::{self, Oracle};
use gpuconv::{GpuConv, planner};

#[test]
fn every_case_of_the_table_reads() {
    for line in verify::lines() {
        let problem: gpuconv::Problem = line.parse().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(problem.to_string().split(' ').count(), line.split(' ').count(), "{line} is not in short form");
    }
}

#[test]
fn every_kernel_agrees_with_the_oracle() {
    let gpu = GpuConv::new().unwrap_or_else(|error| panic!("{error}"));
    let (mut checks, mut wrong) = (0, Vec::new());
    for problem in verify::cases() {
        let oracle = Oracle::new(&problem).unwrap();
        let schedules = planner::alternatives(&problem.chain(), problem.input, problem.layout, gpu.caps()).unwrap();
        for schedule in schedules {
            checks += 1;
            match oracle.check(&gpu, &schedule) {
                Ok(report) if report.passes() => {}
                Ok(report) => wrong.push(format!("{problem}: {}: {report:?}", schedule.name())),
                Err(error) => wrong.push(format!("{problem}: {}: {error}", schedule.name())),
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {checks} checks failed:\n{}", wrong.len(), wrong.join("\n"));
}
