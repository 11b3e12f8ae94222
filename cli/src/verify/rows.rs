//! Checks, and the row of each kernel. The package for JavaScript has this file, too.

use std::collections::BTreeSet;

use gpuconv::Error;
use gpuconv::internals::{KERNELS, Kernel, kernel_of};
use gpuconv::verify::Report;
use serde::Serialize;

/// One schedule on one problem.
pub struct Check {
    /// The problem's place among the cases.
    pub case: usize,
    pub problem: String,
    pub schedule: String,
    pub outcome: Result<Report, Error>,
}

impl Check {
    pub fn passes(&self) -> bool {
        self.outcome.as_ref().is_ok_and(Report::passes)
    }

    /// What is wrong.
    pub fn complaint(&self) -> String {
        match &self.outcome {
            // A driver's message may have several lines.
            Err(error) => error.to_string().split_whitespace().collect::<Vec<_>>().join(" "),
            Ok(report) => report.complaint(),
        }
    }
}

/// A check that failed.
#[derive(Serialize)]
pub struct Failed {
    pub problem: String,
    pub schedule: String,
    pub complaint: String,
}

impl Failed {
    pub fn new(check: &Check) -> Self {
        Self { problem: check.problem.clone(), schedule: check.schedule.clone(), complaint: check.complaint() }
    }
}

/// The results of a kernel's checks.
#[derive(Default, Serialize)]
pub struct Row {
    pub kernel: &'static str,
    #[serde(serialize_with = "count")]
    pub cases: BTreeSet<usize>,
    pub checks: usize,
    pub failures: usize,
    pub worst_share_of_bound: f64,
    pub worst_rel_err: f64,
}

fn count<S: serde::Serializer>(cases: &BTreeSet<usize>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(cases.len() as u64)
}

impl Row {
    fn add(&mut self, check: &Check) {
        self.cases.insert(check.case);
        self.checks += 1;
        self.failures += usize::from(!check.passes());
        if let Ok(report) = &check.outcome {
            self.worst_share_of_bound = worse(self.worst_share_of_bound, report.share_of_bound);
            self.worst_rel_err = worse(self.worst_rel_err, report.relative_error);
        }
    }
}

/// The larger of two errors. A NaN is worse than any number.
fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// A row for each kernel. A check of two kernels counts for both.
pub fn rows(checks: &[Check]) -> Vec<Row> {
    let row = |kernel: &Kernel| {
        let mut row = Row { kernel: kernel.name, ..Row::default() };
        let uses = |check: &&Check| check.schedule.split('+').any(|recipe| kernel_of(recipe) == kernel.name);
        checks.iter().filter(uses).for_each(|check| row.add(check));
        row
    };
    KERNELS.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schedule: &str, outcome: Result<Report, Error>) -> Check {
        Check { case: 0, problem: "conv".into(), schedule: schedule.into(), outcome }
    }

    #[test]
    fn complaints_say_what_is_wrong() {
        let report = Report { inexact: 3, share_of_bound: f64::NAN, stray: 1, ..Report::default() };
        assert_eq!(
            check("direct", Ok(report)).complaint(),
            "3 outputs of whole numbers differ, 1 elements outside of the output are written, \
             the error is NaN times the bound"
        );
        let report = Report { unstable: 2, relative_error: 1e-4, ..Report::default() };
        assert_eq!(
            check("direct", Ok(report)).complaint(),
            "2 outputs differ when computed again, the relative error is 1.0e-4, above 2e-5"
        );
        assert_eq!(check("direct", Err(Error::DeviceLost("a\nb".into()))).complaint(), "the device is lost: a b");
        assert!(check("direct", Ok(Report::default())).passes());
    }

    #[test]
    fn nothing_is_worse_than_nan() {
        assert!(worse(f64::NAN, 1.0).is_nan() && worse(1.0, -f64::NAN).is_nan());
        assert_eq!(worse(1.0, 2.0), 2.0);
    }
}
