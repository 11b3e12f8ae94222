//! The test of the cost model: how well it orders the candidates, and how much slower its choice is than the best.

use std::collections::BTreeMap;
use std::time::Duration;

use gpuconv::tuner::{Options, Tried, TunedRun};
use gpuconv::{GpuConv, probe};
use serde::Serialize;

use super::{Case, measured, tune_case};
use crate::cli::{Failure, Outcome, adapter_name, print, table};

/// What one run says of the model.
struct Judged {
    name: String,
    candidates: usize,
    /// Spearman's rank correlation of predicted and measured times.
    correlation: Option<f64>,
    /// The model's choice.
    choice: String,
    /// The time of the model's choice over the best one's.
    untuned: f64,
    /// That of the choice by an earlier measurement.
    tuned: f64,
}

/// A candidate with all that the model knows of it, a line each.
#[derive(Serialize)]
struct Line<'a> {
    run: &'a str,
    recipe: &'a str,
    mult_adds: f64,
    accesses: f64,
    shared: f64,
    bytes: f64,
    invocations: f64,
    workgroups: u64,
    workgroup: u32,
    passes: usize,
    predicted_ms: f64,
    measured_ms: Option<f64>,
    again_ms: Option<f64>,
}

pub fn execute(gpu: &GpuConv, cases: &[Case], json: bool) -> Outcome {
    let rates = probe::probe(gpu)?;
    let mut profile = (*gpu.profile()).clone();
    profile.rates = Some(rates);
    gpu.set_profile(profile);
    // Time enough for everything: the test is of the model, not of patience.
    let options = Options { time: Duration::from_secs(3600), thorough: true };
    let mut judged: Vec<Judged> = Vec::new();
    for case in cases {
        let first = tune_case(gpu, case, &options, json)?;
        let second = tune_case(gpu, case, &options, json)?;
        for (first, second) in first.runs.iter().zip(&second.runs) {
            if json {
                lines(first, second)?;
            }
            if judged.iter().all(|known| known.name != first.name) {
                judged.extend(judge(first, second));
            }
        }
    }
    if json { Ok(()) } else { print(&text(&adapter_name(gpu), &format!("{rates:?}"), &judged)) }
}

fn lines(first: &TunedRun, second: &TunedRun) -> Outcome {
    for (tried, again) in first.candidates.iter().zip(&second.candidates) {
        let recipe = &tried.candidate.recipe;
        let work = recipe.work;
        let line = Line {
            run: &first.name,
            recipe: &recipe.name,
            mult_adds: work.mult_adds,
            accesses: work.accesses,
            shared: work.shared,
            bytes: work.bytes,
            invocations: work.invocations,
            workgroups: recipe.passes.iter().map(|pass| pass.workgroups).sum(),
            workgroup: recipe.passes.iter().map(|pass| pass.workgroup).max().unwrap_or(0),
            passes: recipe.passes.len(),
            predicted_ms: tried.candidate.parts.seconds() * 1e3,
            measured_ms: measured(&tried.outcome).map(|seconds| seconds * 1e3),
            again_ms: measured(&again.outcome).map(|seconds| seconds * 1e3),
        };
        let line = serde_json::to_string(&line).map_err(|error| Failure::Call(error.to_string()))?;
        print(&(line + "\n"))?;
    }
    Ok(())
}

/// Judges the model's choice, and a choice by the first measurement, by the second one.
fn judge(first: &TunedRun, second: &TunedRun) -> Option<Judged> {
    let times = |run: &TunedRun| -> BTreeMap<String, f64> {
        let time = |tried: &Tried| Some((tried.candidate.recipe.name.clone(), measured(&tried.outcome)?));
        run.candidates.iter().filter_map(time).collect()
    };
    let (known, truth) = (times(first), times(second));
    let predicted: BTreeMap<_, _> = second
        .candidates
        .iter()
        .filter(|tried| truth.contains_key(&tried.candidate.recipe.name))
        .map(|tried| (tried.candidate.recipe.name.clone(), tried.candidate.parts.seconds()))
        .collect();
    let least =
        |times: &BTreeMap<String, f64>| times.iter().min_by(|a, b| a.1.total_cmp(b.1)).map(|(name, _)| name.clone());
    let (best, choice, tuned) =
        (truth.values().copied().fold(f64::INFINITY, f64::min), least(&predicted)?, least(&known)?);
    let pairs: Vec<_> = predicted.iter().map(|(name, &seconds)| (seconds, truth[name])).collect();
    Some(Judged {
        name: first.name.clone(),
        candidates: pairs.len(),
        correlation: rank_correlation(&pairs),
        untuned: truth[&choice] / best,
        tuned: truth.get(&tuned)? / best,
        choice,
    })
}

/// Spearman's rank correlation; none of fewer than three pairs.
fn rank_correlation(pairs: &[(f64, f64)]) -> Option<f64> {
    let ranks = |values: Vec<f64>| -> Vec<f64> {
        // The mean rank of equals.
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

/// Geometric mean and worst.
fn summary(ratios: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = ratios.clone().count().max(1) as f64;
    let logs: f64 = ratios.clone().map(f64::ln).sum();
    ((logs / count).exp(), ratios.fold(1.0, f64::max))
}

fn text(adapter: &str, rates: &str, judged: &[Judged]) -> String {
    let mut table = table::new(["run", "the model's choice", "candidates", "rank corr.", "untuned", "tuned"], 2);
    for run in judged {
        table.add_row([
            run.name.clone(),
            run.choice.clone(),
            run.candidates.to_string(),
            run.correlation.map_or("-".into(), |correlation| format!("{correlation:.2}")),
            format!("{:.2}", run.untuned),
            format!("{:.2}", run.tuned),
        ]);
    }
    let correlations: Vec<_> = judged.iter().filter_map(|run| run.correlation).collect();
    let mean = correlations.iter().sum::<f64>() / correlations.len().max(1) as f64;
    let (untuned, worst_untuned) = summary(judged.iter().map(|run| run.untuned));
    let (tuned, worst_tuned) = summary(judged.iter().map(|run| run.tuned));
    format!(
        "{adapter}\n{rates}\n{table}\n\nThe time of the choice over the best one's, of {} runs: untuned {untuned:.3} in the \
         geometric mean, {worst_untuned:.2} at the worst; tuned {tuned:.3} and {worst_tuned:.2}. Rank correlation of \
         predicted and measured times, mean: {mean:.2}.\n",
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
