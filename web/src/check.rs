//! `verify`: every kernel on every case, against the oracle.

use std::collections::{BTreeMap, BTreeSet};

use gpuconv::internals::kernel_of;
use gpuconv::verify::{self, Oracle, Report};
use gpuconv::{Choice, Error, GpuConv, Problem};
use js_sys::Array;
use serde::Serialize;
use wasm_bindgen::{JsCast, JsValue};
use web_time::Instant;

use crate::js::{failed, json, refused, tell};
use crate::options::Options;

/// The results, with the keys of `gpuconv verify --json`.
#[derive(Default, Serialize)]
struct Verified {
    version: &'static str,
    adapter: String,
    cases: usize,
    checks: usize,
    failures: usize,
    seconds: f64,
    kernels: Vec<Row>,
    failed: Vec<Failed>,
}

/// The results of a kernel's checks.
#[derive(Default, Serialize)]
struct Row {
    kernel: String,
    #[serde(serialize_with = "count")]
    cases: BTreeSet<usize>,
    checks: usize,
    failures: usize,
    worst_share_of_bound: f64,
    worst_rel_err: f64,
}

fn count<S: serde::Serializer>(cases: &BTreeSet<usize>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(cases.len() as u64)
}

#[derive(Serialize)]
struct Failed {
    problem: String,
    schedule: String,
    complaint: String,
}

/// Where it is.
#[derive(Serialize)]
struct Progress<'a> {
    /// Cases done, and in all.
    done: usize,
    total: usize,
    checks: usize,
    failures: usize,
    /// The case in work.
    problem: &'a str,
}

/// Checks some problems, by default the table of cases.
pub async fn verify(gpu: &GpuConv, options: &Options<'_>) -> Result<JsValue, JsValue> {
    let problems = match options.get("problems").dyn_ref::<Array>() {
        Some(lines) => lines.iter().map(problem).collect::<Result<_, _>>()?,
        None => verify::cases(),
    };
    let (progress, start) = (options.get("progress"), Instant::now());
    let mut checked = Checked::default();
    for (case, problem) in problems.iter().enumerate() {
        let (line, Verified { checks, failures, .. }) = (problem.to_string(), &checked.all);
        let (checks, failures) = (*checks, *failures);
        tell(&progress, &Progress { done: case, total: problems.len(), checks, failures, problem: &line })?;
        check_case(gpu, problem, case, &mut checked).await.map_err(failed)?;
    }
    let kernels = checked.kernels.into_values().collect();
    let verified = Verified {
        version: env!("CARGO_PKG_VERSION"),
        adapter: gpu.adapter_name(),
        cases: problems.len(),
        seconds: start.elapsed().as_secs_f64(),
        kernels,
        ..checked.all
    };
    Ok(json(&verified))
}

fn problem(line: JsValue) -> Result<Problem, JsValue> {
    let line = line.as_string().ok_or_else(|| refused("problems must be lines of text"))?;
    line.parse().map_err(failed)
}

/// What was checked so far.
#[derive(Default)]
struct Checked {
    all: Verified,
    kernels: BTreeMap<String, Row>,
}

impl Checked {
    /// Counts a check. One of two kernels counts for both.
    fn add(&mut self, case: usize, problem: &Problem, schedule: &str, outcome: Result<Report, Error>) {
        let complaint = match &outcome {
            Ok(report) => report.complaint(),
            Err(error) => error.to_string(),
        };
        let passes = outcome.as_ref().is_ok_and(Report::passes);
        self.all.checks += 1;
        if !passes {
            self.all.failures += 1;
            self.all.failed.push(Failed { problem: problem.to_string(), schedule: schedule.into(), complaint });
        }
        let kernels: BTreeSet<_> = schedule.split('+').map(kernel_of).collect();
        for kernel in kernels {
            let row = self.kernels.entry(kernel.into()).or_default();
            row.kernel = kernel.into();
            row.cases.insert(case);
            row.checks += 1;
            row.failures += usize::from(!passes);
            if let Ok(report) = &outcome {
                row.worst_share_of_bound = row.worst_share_of_bound.max(report.share_of_bound);
                row.worst_rel_err = row.worst_rel_err.max(report.relative_error);
            }
        }
    }
}

async fn check_case(gpu: &GpuConv, problem: &Problem, case: usize, checked: &mut Checked) -> gpuconv::Result<()> {
    let oracle = Oracle::new(problem)?;
    let schedules = match verify::schedules(problem, gpu.caps(), case) {
        Ok(schedules) => schedules,
        // It may be too large for a binding.
        Err(error) => {
            let division = gpu.divide(&problem.chain(), problem.input, problem.layout, &Choice::Auto);
            let Some(division) = division.ok().filter(gpuconv::planner::Division::is_divided) else {
                return Err(error);
            };
            let outcome = oracle.check_layer_async(gpu, &Choice::Auto).await;
            checked.add(case, problem, &division.schedule().name(), outcome);
            return Ok(());
        }
    };
    for schedule in schedules {
        let outcome = oracle.check_async(gpu, &schedule).await;
        if let Err(error @ Error::DeviceLost(_)) = outcome {
            return Err(error);
        }
        checked.add(case, problem, &schedule.name(), outcome);
    }
    Ok(())
}
