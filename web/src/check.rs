//! `verify`: every kernel on every case, against the oracle.

use gpuconv::verify::{self, Oracle};
use gpuconv::{Choice, Error, GpuConv, Problem};
use js_sys::Array;
use serde::Serialize;
use wasm_bindgen::{JsCast, JsValue};
use web_time::Instant;

use crate::chain;
use crate::js::{failed, json, refused, tell};
use crate::options::{Options, text};
use crate::rows::{Check, Failed, Row, rows};

/// The results, with the keys of `gpuconv verify --json`.
#[derive(Serialize)]
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
    /// What failed since it was told before: whoever stops has these alone.
    failed: Vec<Failed>,
}

/// Checks some problems, by default the table of cases.
pub async fn verify(gpu: &GpuConv, options: &Options<'_>) -> Result<JsValue, JsValue> {
    let wanted = options.get("problems");
    let problems = match wanted.dyn_ref::<Array>() {
        Some(lines) => lines.iter().map(|line| chain::problem(&line)).collect::<Result<_, _>>()?,
        None if wanted.is_undefined() => verify::cases(),
        None => return Err(refused(&format!("problems must be an array of problem lines, not {}", text(&wanted)))),
    };
    let (progress, start) = (options.function("progress")?, Instant::now());
    let (mut checked, mut told) = (Vec::new(), 0);
    for (case, problem) in problems.iter().enumerate() {
        let line = problem.to_string();
        let mut now = |checked: &[Check]| {
            let (checks, failures, total) = (checked.len(), failed_of(checked).count(), problems.len());
            let failed = failed_of(&checked[told..]).map(Failed::new).collect();
            told = checks;
            tell(&progress, &Progress { done: case, total, checks, failures, problem: &line, failed })
        };
        now(&checked)?;
        if let Err(error) = check_case(gpu, problem, case, &mut checked).await {
            // What this case found before. An error of the caller's function matters less than this one.
            let _ = now(&checked);
            return Err(failed(error));
        }
    }
    let failed: Vec<_> = failed_of(&checked).map(Failed::new).collect();
    let verified = Verified {
        version: env!("CARGO_PKG_VERSION"),
        adapter: gpu.adapter_name(),
        cases: problems.len(),
        checks: checked.len(),
        failures: failed.len(),
        seconds: start.elapsed().as_secs_f64(),
        kernels: rows(&checked).into_iter().filter(|row| row.checks > 0).collect(),
        failed,
    };
    Ok(json(&verified))
}

fn failed_of(checks: &[Check]) -> impl Iterator<Item = &Check> {
    checks.iter().filter(|check| !check.passes())
}

async fn check_case(gpu: &GpuConv, problem: &Problem, case: usize, checks: &mut Vec<Check>) -> gpuconv::Result<()> {
    let mut add = |schedule, outcome| checks.push(Check { case, problem: problem.to_string(), schedule, outcome });
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
            add(division.schedule().name(), outcome);
            return Ok(());
        }
    };
    for schedule in schedules {
        let outcome = oracle.check_async(gpu, &schedule).await;
        if let Err(error @ Error::DeviceLost(_)) = outcome {
            return Err(error);
        }
        add(schedule.name(), outcome);
    }
    Ok(())
}
