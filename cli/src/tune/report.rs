//! `tune --report`: how well the cost model orders the candidates, and how much slower its choice is than the best.

use std::time::Duration;

use gpuconv::planner::model::Rates;
use gpuconv::planner::profile::Profile;
use gpuconv::planner::{Planner, Schedule};
use gpuconv::tuner::{Options, Report, Tried, TunedRun};
use gpuconv::{Choice, GpuConv, probe};
use serde::Serialize;

use super::{Case, measured, tune_case};
use crate::{Failure, Outcome, device_name, print, table};

/// How the model did on one problem.
#[derive(Serialize)]
struct Judged {
    problem: String,
    /// The model's choice.
    choice: String,
    candidates: usize,
    /// Spearman's rank correlation of predicted and measured times, the mean over the problem's runs.
    correlation: Option<f64>,
    /// The time of the model's choice over that of the best.
    untuned: f64,
    /// The time of the choice by an earlier measurement, over that of the best.
    tuned: f64,
}

/// A candidate, with all that the model knows about it: one line of the output.
#[derive(Serialize)]
struct Line<'a> {
    run: &'a str,
    recipe: &'a str,
    mult_adds: f64,
    accesses: f64,
    shared: f64,
    bytes: f64,
    occupancy: f64,
    workgroups: u64,
    workgroup: u32,
    passes: usize,
    predicted_ms: f64,
    measured_ms: Option<f64>,
    again_ms: Option<f64>,
}

pub fn execute(gpu: &GpuConv, cases: &[Case], json: bool) -> Outcome {
    let rates = probe::probe(gpu)?;
    gpu.set_profile(Profile { rates: Some(rates), ..Profile::default() });
    if json {
        line(&rates)?;
    }
    // This is enough time to measure every candidate.
    let options = Options::within(Duration::from_secs(3600)).thorough();
    let mut judged = Vec::new();
    for case in cases {
        let first = tune_case(gpu, case, &options, json)?;
        let second = tune_case(gpu, case, &options, json)?;
        let problem = judge(gpu, case, &first, &second)?;
        if json {
            first.runs.iter().zip(&second.runs).try_for_each(|(first, second)| lines(first, second))?;
            line(&problem)?;
        }
        judged.push(problem);
    }
    if json { Ok(()) } else { print(&text(&device_name(gpu), &rates, &judged)) }
}

/// Writes an object as one line.
fn line(value: &impl Serialize) -> Outcome {
    let line = serde_json::to_string(value).map_err(|error| Failure::Call(error.to_string()))?;
    print(&(line + "\n"))
}

fn lines(first: &TunedRun, second: &TunedRun) -> Outcome {
    for (tried, again) in first.candidates.iter().zip(&second.candidates) {
        let recipe = &tried.candidate.recipe;
        let work = recipe.work;
        line(&Line {
            run: &first.name,
            recipe: &recipe.name,
            mult_adds: work.mult_adds,
            accesses: work.accesses,
            shared: work.shared,
            bytes: work.bytes,
            occupancy: tried.candidate.parts.occupancy,
            workgroups: recipe.passes.iter().map(|pass| pass.workgroups).sum(),
            workgroup: recipe.passes.iter().map(|pass| pass.workgroup).max().unwrap_or(0),
            passes: recipe.passes.len(),
            predicted_ms: tried.candidate.parts.seconds() * 1e3,
            measured_ms: measured(&tried.outcome).map(|seconds| seconds * 1e3),
            again_ms: measured(&again.outcome).map(|seconds| seconds * 1e3),
        })?;
    }
    Ok(())
}

/// Judges two choices by the second measurement: the model's, and the choice by the first measurement.
fn judge(gpu: &GpuConv, case: &Case, first: &Report, second: &Report) -> Outcome<Judged> {
    let (chain, input, layout) = (case.problem.chain(), case.problem.input, case.problem.layout);
    let plan = |profile: &Profile, choice: Choice| {
        Planner { caps: gpu.caps(), profile }.schedule(&chain, input, layout, &choice)
    };
    let [guessed, known, best] = [&*gpu.profile(), &first.profile, &second.profile].map(|p| plan(p, Choice::Auto));
    let (guessed, known, best) = (guessed?, known?, best?.seconds());
    let truth = |choice: &Schedule| plan(&second.profile, Choice::Named(choice.name())).map(|plan| plan.seconds());
    let correlations: Vec<_> = second.runs.iter().filter_map(correlation).collect();
    Ok(Judged {
        problem: case.text.clone(),
        candidates: second.runs.iter().map(|run| run.candidates.len()).sum(),
        correlation: (!correlations.is_empty()).then(|| correlations.iter().sum::<f64>() / correlations.len() as f64),
        untuned: truth(&guessed)? / best,
        tuned: truth(&known)? / best,
        choice: guessed.name(),
    })
}

/// The rank correlation over a run's measured candidates.
fn correlation(run: &TunedRun) -> Option<f64> {
    let pair = |tried: &Tried| Some((tried.candidate.parts.seconds(), measured(&tried.outcome)?));
    rank_correlation(&run.candidates.iter().filter_map(pair).collect::<Vec<_>>())
}

/// Spearman's rank correlation; `None` for fewer than three pairs.
fn rank_correlation(pairs: &[(f64, f64)]) -> Option<f64> {
    let ranks = |values: Vec<f64>| -> Vec<f64> {
        // Equal values get their mean rank.
        let below = |value: f64| values.iter().filter(|&&other| other < value).count() as f64;
        let same = |value: f64| values.iter().filter(|&&other| other == value).count() as f64;
        values.iter().map(|&value| below(value) + (same(value) - 1.0) / 2.0).collect()
    };
    let a = ranks(pairs.iter().map(|pair| pair.0).collect());
    let b = ranks(pairs.iter().map(|pair| pair.1).collect());
    let mean = (pairs.len() as f64 - 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum() };
    let scale = (product(&a, &a) * product(&b, &b)).sqrt();
    (pairs.len() > 2 && scale > 0.0).then(|| product(&a, &b) / scale)
}

/// Geometric mean and maximum.
fn summary(ratios: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = ratios.clone().count().max(1) as f64;
    let logs: f64 = ratios.clone().map(f64::ln).sum();
    ((logs / count).exp(), ratios.fold(1.0, f64::max))
}

fn text(adapter: &str, rates: &Rates, judged: &[Judged]) -> String {
    let mut table = table::new(["problem", "the model's choice", "candidates", "rank corr.", "untuned", "tuned"], 2);
    for problem in judged {
        table.add_row([
            problem.problem.clone(),
            problem.choice.clone(),
            problem.candidates.to_string(),
            problem.correlation.map_or("-".into(), |correlation| format!("{correlation:.2}")),
            format!("{:.2}", problem.untuned),
            format!("{:.2}", problem.tuned),
        ]);
    }
    let correlations: Vec<_> = judged.iter().filter_map(|problem| problem.correlation).collect();
    let mean = correlations.iter().sum::<f64>() / correlations.len().max(1) as f64;
    let (untuned, worst_untuned) = summary(judged.iter().map(|problem| problem.untuned));
    let (tuned, worst_tuned) = summary(judged.iter().map(|problem| problem.tuned));
    let giga = |rate: f64| table::figure(rate / 1e9);
    format!(
        "{adapter}\n\
         probed: {} G multiply-adds/s, {} G loads/s, {} G loads of workgroup memory/s, {} GB/s, {} us per dispatch, \
         {} workgroups at a time\n{table}\n\n\
         The time of the choice over that of the best, for {} problems: untuned {untuned:.3} in the geometric mean, \
         {worst_untuned:.2} at worst; tuned {tuned:.3} and {worst_tuned:.2}. Mean rank correlation of predicted and \
         measured times: {mean:.2}.\n",
        giga(rates.mult_adds),
        giga(rates.accesses),
        giga(rates.shared),
        giga(rates.bytes),
        table::figure(rates.dispatch * 1e6),
        table::figure(rates.parallel),
        judged.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_correlations_worked_out_by_hand() {
        let of = |pairs: &[(f64, f64)]| rank_correlation(pairs);
        assert_eq!(of(&[(1.0, 10.0), (2.0, 20.0), (3.0, 300.0)]), Some(1.0));
        assert_eq!(of(&[(1.0, 30.0), (2.0, 20.0), (3.0, 10.0)]), Some(-1.0));
        // Ranks 0 1 2 3 against 1 0 3 2: squared differences of 4 in all, 1 - 6 * 4 / (4 * 15).
        let mixed = of(&[(1.0, 2.0), (2.0, 1.0), (3.0, 4.0), (4.0, 3.0)]);
        assert!((mixed.unwrap() - 0.6).abs() < 1e-12, "{mixed:?}");
        assert_eq!((of(&[(1.0, 1.0), (2.0, 2.0)]), of(&[(1.0, 1.0); 3])), (None, None));
    }

    #[test]
    fn means_of_ratios_worked_out_by_hand() {
        assert_eq!(summary([1.0, 4.0].into_iter()), (2.0, 4.0));
        assert_eq!(summary([].into_iter()), (1.0, 1.0));
    }
}
