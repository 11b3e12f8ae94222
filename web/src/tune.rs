//! `tune`: measures and checks what could compute a problem.

use std::time::Duration;

use gpuconv::tuner::{self, Outcome};
use gpuconv::{GpuConv, Problem};
use serde::Serialize;
use wasm_bindgen::JsValue;

use crate::js::{failed, json, refused, tell};
use crate::options::Options;

#[derive(Serialize)]
struct Progress<'a> {
    done: usize,
    total: usize,
    run: &'a str,
    recipe: &'a str,
}

/// A run, and what became of its candidates.
#[derive(Serialize)]
struct Run {
    run: String,
    candidates: Vec<Candidate>,
}

#[derive(Serialize)]
struct Candidate {
    recipe: String,
    predicted_ms: f64,
    /// Its time, if it is right.
    ms: Option<f64>,
    /// What became of it, if it has no time.
    outcome: Option<String>,
}

pub async fn tune(gpu: &GpuConv, line: &str, options: &Options<'_>) -> Result<JsValue, JsValue> {
    let problem: Problem = line.parse().map_err(failed)?;
    let seconds = options.float("seconds", 60.0)?;
    let time = Duration::try_from_secs_f64(seconds)
        .map_err(|_| refused(&format!("seconds must be from 0 to 1e19, not {seconds:e}")))?;
    let progress = options.function("progress")?;
    let watch = |at: tuner::Progress<'_>| {
        let tuner::Progress { done, total, run, recipe, .. } = at;
        // What the caller's function throws does not stop it; the signal does.
        let _ = tell(&progress, &Progress { done, total, run, recipe });
    };
    let (chain, options) = (problem.chain(), tuner::Options::within(time));
    let report = tuner::tune_async(gpu, &chain, problem.input, problem.layout, &options, watch).await;
    let report = report.map_err(failed)?;
    let mut profile = (*gpu.profile()).clone();
    profile.merge(report.profile.clone());
    gpu.set_profile(profile);
    let runs = report
        .runs
        .iter()
        .map(|run| Run { run: run.name.clone(), candidates: run.candidates.iter().map(candidate).collect() });
    Ok(json(&runs.collect::<Vec<_>>()))
}

fn candidate(tried: &tuner::Tried) -> Candidate {
    let (ms, outcome) = match &tried.outcome {
        Outcome::Right(seconds) => (Some(seconds * 1e3), None),
        Outcome::Hopeless => (None, Some("hopeless".into())),
        Outcome::OutOfTime => (None, Some("out of time".into())),
        Outcome::Wrong(report) => (None, Some(format!("wrong: {}", report.complaint()))),
        Outcome::Failed(error) => (None, Some(format!("failed: {error}"))),
        _ => (None, Some("unknown".into())),
    };
    let (recipe, predicted_ms) = (tried.candidate.recipe.name.clone(), tried.candidate.parts.seconds() * 1e3);
    Candidate { recipe, predicted_ms, ms, outcome }
}
