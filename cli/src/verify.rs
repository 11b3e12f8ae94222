//! `verify`: checks every kernel on every case against the oracle, on this device.

mod rows;

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use clap::Args;
use gpuconv::internals::{KERNELS, kernel_of};
use gpuconv::planner::{self, Division, Schedule};
use gpuconv::verify::{self, Oracle};
use gpuconv::{Caps, Choice, Error, GpuConv, Problem};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{Case, Failure, Outcome, Target, adapter_name, device_name, print, print_json, table};
use rows::{Check, Failed, Row, rows};

/// More threads, each with its device, would only wait for each other.
const MAX_THREADS: usize = 8;

#[derive(Args)]
pub struct Verify {
    /// Write an object
    #[arg(long)]
    json: bool,
    /// Check every recipe of every kernel on every case; otherwise one recipe per case, rotating
    #[arg(long)]
    all_variants: bool,
    /// On a software device, check the recipes that a GPU would get
    #[arg(long)]
    as_gpu: bool,
    /// Check this kernel only
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// The problems to check; by default, the table of cases
    problems: Vec<String>,
}

/// The results, in JSON.
#[derive(Serialize)]
struct Verified {
    adapter: String,
    robust: bool,
    cases: usize,
    checks: usize,
    failures: usize,
    seconds: f64,
    kernels: Vec<Row>,
    failed: Vec<Failed>,
}

impl Verified {
    fn new(gpu: &GpuConv, cases: usize, checks: &[Check], seconds: f64) -> Self {
        let failed: Vec<_> = checks.iter().filter(|check| !check.passes()).map(Failed::new).collect();
        Self {
            adapter: adapter_name(gpu),
            robust: gpu.is_robust(),
            cases,
            checks: checks.len(),
            failures: failed.len(),
            seconds,
            kernels: rows(checks),
            failed,
        }
    }
}

impl Verify {
    pub fn execute(&self, target: &Target) -> Outcome {
        let problems = match &self.problems[..] {
            [] => verify::cases(),
            lines => lines.iter().map(|line| Ok(Case::parse(line)?.problem)).collect::<Outcome<_>>()?,
        };
        let known = || KERNELS.iter().map(|kernel| kernel.name.to_string());
        if let Some(name) = self.kernel.as_ref().filter(|name| known().all(|known| known != **name)) {
            let kernel = kernel_of(name);
            if known().any(|known| known == kernel) {
                let message = format!(
                    "--kernel takes the name of a kernel: `{kernel}` with --all-variants checks all its recipes"
                );
                return Err(Failure::Call(message));
            }
            return Err(Error::UnknownKernel { name: name.clone(), known: known().collect() }.into());
        }
        let gpu = target.device()?;
        let start = Instant::now();
        let checks = self.check_all(target, &problems)?;
        if checks.is_empty() {
            let kernel = self.kernel.as_deref().unwrap_or("any kernel");
            return Err(Failure::Call(format!(
                "nothing was checked: {kernel} does not take any of the problems on this device"
            )));
        }
        let failed = checks.iter().filter(|check| !check.passes()).count();
        let what = format!("{} checks on {} cases", checks.len(), problems.len());
        let seconds = start.elapsed().as_secs_f64();
        let printed = match self.json {
            true => print_json(&Verified::new(&gpu, problems.len(), &checks, seconds)),
            false => {
                let mut text = format!("{}\n{}\n", device_name(&gpu), summary(&checks));
                for check in checks.iter().filter(|check| !check.passes()) {
                    text += &format!("failed: {}: {}: {}\n", check.problem, check.schedule, check.complaint());
                }
                if failed == 0 {
                    text += &format!("{what} passed in {seconds:.1} s\n");
                }
                print(&text)
            }
        };
        // Failed checks count even if the table could not be printed.
        if failed > 0 { Err(Failure::Check(format!("{failed} of {what} failed"))) } else { printed }
    }

    /// Shares the cases among threads. Each thread has its own device, because a software device compiles or runs only
    /// one shader at a time.
    fn check_all(&self, target: &Target, problems: &[Problem]) -> Outcome<Vec<Check>> {
        // It hides itself if stderr is not a terminal.
        let bar = if self.json { ProgressBar::hidden() } else { ProgressBar::new(problems.len() as u64) };
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} cases {msg}");
        bar.set_style(style.unwrap_or(ProgressStyle::default_bar()));
        let next = AtomicUsize::new(0);
        let work = || {
            let (mut gpu, mut checks) = (target.device()?, Vec::new());
            if self.as_gpu {
                gpu = gpu.with_caps(|caps| Caps { is_cpu: false, ..caps });
            }
            loop {
                let case = next.fetch_add(1, Ordering::Relaxed);
                let Some(problem) = problems.get(case) else { return Ok(checks) };
                bar.set_message(problem.to_string());
                let outcome = self.check_case(&gpu, problem, case, &mut checks);
                if outcome.is_err() {
                    // This keeps the other threads from starting another case.
                    next.store(problems.len(), Ordering::Relaxed);
                }
                outcome?;
                bar.inc(1);
            }
        };
        let threads = std::thread::available_parallelism().map_or(2, NonZero::get).min(MAX_THREADS);
        let results: Vec<Outcome<Vec<Check>>> = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let broken = |_| Err(Failure::Device("a check ended early".into()));
            handles.into_iter().map(|handle| handle.join().unwrap_or_else(broken)).collect()
        });
        bar.finish_and_clear();
        let mut checks: Vec<_> = results.into_iter().collect::<Outcome<Vec<_>>>()?.into_iter().flatten().collect();
        checks.sort_by_key(|check| check.case);
        Ok(checks)
    }

    fn check_case(&self, gpu: &GpuConv, problem: &Problem, case: usize, checks: &mut Vec<Check>) -> Outcome {
        let schedules = match self.schedules(gpu, problem, case) {
            Ok(schedules) => schedules,
            // It may be too large for a binding.
            Err(error) => {
                let choice = self.kernel.clone().map_or(Choice::Auto, Choice::Named);
                let division = gpu.divide(&problem.chain(), problem.input, problem.layout, &choice);
                let Some(division) = division.ok().filter(Division::is_divided) else { return Err(error) };
                let outcome = Oracle::new(problem)?.check_layer(gpu, &choice);
                let schedule = division.schedule().name();
                checks.push(Check { case, problem: problem.to_string(), schedule, outcome });
                return Ok(());
            }
        };
        let oracle = Oracle::new(problem)?;
        for schedule in schedules {
            let outcome = oracle.check(gpu, &schedule);
            if let Err(error @ (Error::DeviceLost(_) | Error::NoAdapter { .. })) = outcome {
                return Err(error.into());
            }
            checks.push(Check { case, problem: problem.to_string(), schedule: schedule.name(), outcome });
        }
        Ok(())
    }

    /// Every schedule of a problem, or one for each kernel.
    fn schedules(&self, gpu: &GpuConv, problem: &Problem, case: usize) -> Outcome<Vec<Schedule>> {
        let mut schedules = match self.all_variants {
            true => planner::alternatives(&problem.chain(), problem.input, problem.layout, gpu.caps())?,
            false => verify::schedules(problem, gpu.caps(), case)?,
        };
        if let Some(kernel) = &self.kernel {
            schedules.retain(|schedule| schedule.steps.iter().any(|step| kernel_of(&step.recipe.name) == kernel));
        }
        Ok(schedules)
    }
}

fn summary(checks: &[Check]) -> comfy_table::Table {
    let mut table =
        table::new(["kernel", "cases", "checks", "failures", "worst share of bound", "worst rel. error"], 1);
    for row in rows(checks) {
        let worst = |text: String| if row.checks == 0 { "-".into() } else { text };
        table.add_row([
            row.kernel.into(),
            row.cases.len().to_string(),
            row.checks.to_string(),
            row.failures.to_string(),
            worst(format!("{:.3}", row.worst_share_of_bound)),
            worst(format!("{:.1e}", row.worst_rel_err)),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use gpuconv::verify::Report;

    use super::*;

    fn check(schedule: &str, outcome: Result<Report, Error>) -> Check {
        Check { case: 0, problem: "conv".into(), schedule: schedule.into(), outcome }
    }

    #[test]
    fn a_check_counts_for_each_of_its_kernels() {
        let failing = Report { inexact: 1, ..Report::default() };
        let table = summary(&[check("depthwise/a+direct", Ok(failing)), check("direct", Ok(Report::default()))]);
        let row = |kernel: &str| -> Vec<String> {
            let row = table.row_iter().find(|row| row.cell_iter().next().is_some_and(|cell| cell.content() == kernel));
            row.into_iter().flat_map(|row| row.cell_iter().map(|cell| cell.content())).collect()
        };
        assert_eq!(row("direct")[1..4], ["1", "2", "1"]);
        assert_eq!(row("depthwise")[1..4], ["1", "1", "1"]);
    }
}
