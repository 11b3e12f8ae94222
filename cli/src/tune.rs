//! `tune`: measures the kernels for problems on this device, and keeps their times.

mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use gpuconv::planner::profile::Profile;
use gpuconv::tuner::{self, Options, Outcome as Found, Tried, TunedRun};
use gpuconv::{GpuConv, Tuning, probe};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{
    Case, Failure, Outcome, Target, device_name, files, near, pipelines, print, print_json, table, tuning_file,
};

#[derive(Args)]
pub struct Tune {
    /// Write one object per run
    #[arg(long)]
    json: bool,
    /// Tune for the problems of a file, one per line; lines that begin with # are comments
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
    /// Tune for a network; a problem line such as "mobilenet_v2 8 w0.5 nhwc" has more options
    #[arg(long, value_name = "NAME", value_parser = near::networks())]
    network: Option<String>,
    /// Number of images for the --network
    #[arg(long, default_value_t = 1, requires = "network", allow_negative_numbers = true)]
    batch: u32,
    /// How many seconds a problem may take at most
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = super::bench::seconds,
        allow_negative_numbers = true)]
    time: Duration,
    /// Add the times to this file instead of the user's own
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Measure nothing; add the times of these files to the user's file or the --output
    #[arg(long, value_name = "FILE", num_args = 2..,
        conflicts_with_all = ["cases", "problems", "network", "batch", "time", "report"])]
    merge: Vec<PathBuf>,
    /// Test the cost model: measure every candidate twice, for the problems or a table of layers, and keep nothing
    #[arg(long, conflicts_with_all = ["output", "time"])]
    report: bool,
    /// The problems to tune for
    problems: Vec<String>,
}

/// A run in JSON. Times in milliseconds.
#[derive(Serialize)]
struct Run<'a> {
    run: &'a str,
    candidates: Vec<Candidate<'a>>,
}

/// What `--merge` did, in JSON.
#[derive(Serialize)]
struct Merged<'a> {
    runs: usize,
    devices: usize,
    file: &'a Path,
}

#[derive(Serialize)]
struct Candidate<'a> {
    recipe: &'a str,
    predicted_ms: f64,
    measured_ms: Option<f64>,
    /// `right`, `hopeless`, `wrong`, `failed` or `out of time`.
    outcome: &'static str,
}

impl Tune {
    pub fn execute(&self, target: &Target) -> Outcome {
        if !self.merge.is_empty() {
            target.check("tune --merge", false, false)?;
            return self.merge_files();
        }
        let cases = self.case_list()?;
        let gpu = target.device()?;
        if self.report {
            return report::execute(&gpu, &cases, self.json);
        }
        let file = self.file()?;
        let mut profile = Profile { rates: Some(probe::probe(&gpu)?), ..Profile::default() };
        gpu.set_profile(profile.clone());
        let mut wrong = Vec::new();
        for case in &cases {
            let runs = tune_case(&gpu, case, &Options::within(self.time), self.json)?;
            for run in &runs.runs {
                let is_wrong = |tried: &&Tried| matches!(tried.outcome, Found::Wrong(_));
                let names = run.candidates.iter().filter(is_wrong);
                wrong.extend(names.map(|tried| format!("{} on {}", tried.candidate.recipe.name, run.name)));
            }
            profile.merge(runs.profile.clone());
            // Save after each problem, so that no times are lost if a later one fails.
            tuning_file::add_to(&file, &Tuning::new(&gpu, profile.clone()))?;
            if self.json {
                for run in &runs.runs {
                    let line = serde_json::to_string(&Run::new(run)).map_err(|e| Failure::Call(e.to_string()))?;
                    print(&(line + "\n"))?;
                }
            } else {
                print(&text(&case.text, &runs.runs))?;
            }
        }
        pipelines::save(&gpu, &file)?;
        if !self.json {
            print(&format!("{}: {} runs, in {}\n", device_name(&gpu), profile.runs.len(), file.display()))?;
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Failure::Check(format!("wrong, which is a bug: {}", wrong.join("; ")))),
        }
    }

    fn case_list(&self) -> Outcome<Vec<Case>> {
        let file = match &self.cases {
            Some(path) => fs::read_to_string(path).map_err(|error| unreadable(path, &error))?,
            None => String::new(),
        };
        let lines = (1..).zip(file.lines().map(str::trim));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let of_file = lines.map(|(number, line)| {
            let path = self.cases.as_deref().unwrap_or(Path::new("")).display();
            Case::parse(line).map_err(|error| error.at(format_args!("{path}:{number}")))
        });
        let network = self.network.as_ref().map(|name| format!("{name} {}", self.batch));
        let given = self.problems.iter().map(String::as_str).chain(network.as_deref());
        let cases = given.map(Case::parse).chain(of_file).collect::<Outcome<Vec<_>>>()?;
        match cases.is_empty() {
            false => Ok(cases),
            true if self.report => tuner::cases().map(Case::parse).collect(),
            true => {
                Err(Failure::Call("nothing to tune for; name a problem, or a file of problems with --cases".into()))
            }
        }
    }

    /// The file that the times go to. Its folder is there.
    fn file(&self) -> Outcome<PathBuf> {
        let of_user = || Failure::Call("this user has no cache folder; name a file with --output".into());
        let file = self.output.clone().or_else(tuning_file::of_user).ok_or_else(of_user)?;
        let folder = files::folder(&file);
        // Only the place of the user's own file is ours to make. A missing folder of another is a slip, to be told
        // before anything is measured.
        let is_there = if self.output.is_some() { fs::metadata(folder).map(drop) } else { fs::create_dir_all(folder) };
        is_there.map_err(|error| Failure::Call(format!("cannot write {}: {error}", file.display())))?;
        Ok(file)
    }

    fn merge_files(&self) -> Outcome {
        let mut all = Tuning::default();
        for path in &self.merge {
            all.merge(tuning_file::load(path)?);
        }
        let file = self.file()?;
        tuning_file::add_to(&file, &all)?;
        let (runs, devices) = all.counts();
        if self.json {
            return print_json(&Merged { runs, devices, file: &file });
        }
        print(&format!("{runs} runs on {devices} devices, in {}\n", file.display()))
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Call(format!("cannot read {}: {error}", path.display()))
}

/// Tunes for a problem, with a progress bar unless `quiet`.
fn tune_case(gpu: &GpuConv, case: &Case, options: &Options, quiet: bool) -> Outcome<tuner::Report> {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::no_length() };
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}");
    bar.set_style(style.unwrap_or(ProgressStyle::default_bar()));
    let problem = &case.problem;
    let report = tuner::tune(gpu, &problem.chain(), problem.input, problem.layout, options, &mut |progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        bar.set_message(format!("{}: {}", progress.run, progress.recipe));
    });
    bar.finish_and_clear();
    Ok(report?)
}

impl<'a> Run<'a> {
    fn new(run: &'a TunedRun) -> Self {
        let candidate = |tried: &'a Tried| Candidate {
            recipe: &tried.candidate.recipe.name,
            predicted_ms: tried.candidate.parts.seconds() * 1e3,
            measured_ms: measured(&tried.outcome).map(|seconds| seconds * 1e3),
            outcome: word(&tried.outcome),
        };
        Self { run: &run.name, candidates: run.candidates.iter().map(candidate).collect() }
    }
}

fn measured(outcome: &Found) -> Option<f64> {
    match outcome {
        Found::Right(seconds) => Some(*seconds),
        _ => None,
    }
}

fn word(outcome: &Found) -> &'static str {
    match outcome {
        Found::Right(_) => "right",
        Found::Hopeless => "hopeless",
        Found::Wrong(_) => "wrong",
        Found::Failed(_) => "failed",
        Found::OutOfTime => "out of time",
        _ => "other",
    }
}

fn text(problem: &str, runs: &[TunedRun]) -> String {
    let mut table = table::new(["run", "recipe", "measured ms", "model ms", ""], 2);
    for run in runs {
        let mut candidates: Vec<_> = run.candidates.iter().collect();
        let seconds = |tried: &&Tried| measured(&tried.outcome).unwrap_or(f64::INFINITY);
        candidates.sort_by(|a, b| seconds(a).total_cmp(&seconds(b)));
        for (index, tried) in candidates.into_iter().enumerate() {
            let outcome = word(&tried.outcome);
            table.add_row([
                if index == 0 { run.name.clone() } else { String::new() },
                tried.candidate.recipe.name.clone(),
                measured(&tried.outcome).map_or("-".into(), |seconds| table::figure(seconds * 1e3)),
                table::figure(tried.candidate.parts.seconds() * 1e3),
                if outcome == "right" { String::new() } else { outcome.into() },
            ]);
        }
    }
    format!("{problem}\n{table}\n\n")
}
