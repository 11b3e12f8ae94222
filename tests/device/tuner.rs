//! Tuning: a wrong candidate never wins, measured times decide, and damaged or foreign files do no harm.

use std::time::{Duration, Instant};

use gpuconv::internals::timer::Timer;
use gpuconv::planner::model::Rates;
use gpuconv::planner::profile::Profile;
use gpuconv::planner::{Candidate, Planner};
use gpuconv::tuner::{self, Options, Outcome};
use gpuconv::{Caps, Chain, Choice, Conv2d, Error, GpuConv, Layout, Problem, Residual, Tuning, Weights, probe};

use crate::common::{as_gpu, gpu};

fn parse(line: &str) -> Problem {
    line.parse().unwrap_or_else(|error| panic!("{error}"))
}

/// The candidates for a problem of one link.
fn candidates(gpu: &GpuConv, problem: &Problem) -> Vec<Candidate> {
    let schedule = gpu.schedule(&problem.chain(), problem.input, problem.layout, &Choice::Auto).unwrap();
    schedule.considered.iter().flat_map(|answer| answer.answer.iter().flatten().cloned()).collect()
}

/// The first candidate of each run is measured, however short the time is.
fn quickly() -> Options {
    Options::within(Duration::from_secs(2))
}

/// Adding to a file reads it and writes it again, so no digit may change.
#[test]
fn a_written_file_reads_back_to_the_last_digit() {
    let json = r#"{ "format": 1, "devices": [{ "device": "a", "driver": "b", "backend": "vulkan", "version": "0",
        "rates": null, "runs": { "pointwise": { "direct/4x4": 2.8131777777777783e-5, "split": 101767781735.17181 } } }] }"#;
    let tuning = Tuning::from_json(json.as_bytes()).unwrap();
    let again = Tuning::from_json(tuning.to_json().as_bytes()).unwrap();
    assert_eq!(again, tuning);
    assert!(tuning.to_json().contains("101767781735.17181"), "{}", tuning.to_json());
}

#[test]
fn a_wrong_candidate_never_wins() {
    let gpu = gpu();
    let problem = parse("pointwise 1x32x24x24 -> 64 relu6");
    let planted = candidates(&gpu, &problem).into_iter().map(|mut candidate| {
        // A candidate that does only a part of the work, in a part of the time. The model takes it for the best.
        if candidate.recipe.name == "direct/4x4" {
            candidate.recipe.passes[0].params.work /= 4;
            candidate.parts = gpuconv::planner::model::Parts { overlap: false, ..Default::default() };
        }
        candidate
    });
    let at = (problem.input, problem.layout);
    let (chain, planted) = (problem.chain(), planted.collect());
    // Enough for two candidates at least.
    let options = Options::within(Duration::from_secs(8));
    // SAFETY: fewer workgroups do a part of the same work.
    let tried = unsafe { tuner::tune_candidates(&gpu, "planted", &chain, at, planted, &options) }.unwrap();
    let wrong: Vec<_> = tried.iter().filter(|tried| matches!(tried.outcome, Outcome::Wrong(_))).collect();
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert_eq!(wrong[0].candidate.recipe.name, "direct/4x4");
    let Outcome::Wrong(report) = &wrong[0].outcome else { unreachable!() };
    assert!(report.unwritten > 0 && !report.passes(), "{report:?}");
    assert!(tried.iter().any(|tried| matches!(tried.outcome, Outcome::Right(_))), "{tried:?}");
}

/// What is larger than a binding is planned band by band, so these are what is measured.
#[test]
fn the_first_band_is_tuned() {
    let gpu = gpu().with_caps(|caps| Caps { max_storage_binding: 4096, ..caps });
    let (chain, input) = (parse("pointwise 1x4x32x32 -> 4").chain(), [1, 4, 32, 32]);
    let report = gpu.tune(&chain, input, Layout::Nchw, &quickly()).unwrap();
    assert_eq!(report.runs.len(), 1, "{report:?}");
    gpu.set_profile(report.profile);
    let division = gpu.divide(&chain, input, Layout::Nchw, &Choice::Auto).unwrap();
    let considered = &division.stretches[0].schedule.considered;
    let mut candidates = considered.iter().flat_map(|answer| answer.answer.iter().flatten());
    assert!(division.is_divided() && candidates.any(|candidate| candidate.measured.is_some()), "{division:?}");
    // The sums of parts of a plane are f32.
    let pool = parse("pool 1x2x64x64 f16");
    let report = gpu.tune(&pool.chain(), pool.input, Layout::Nchw, &quickly()).unwrap();
    let names: Vec<_> = report.runs.iter().map(|run| run.name.as_str()).collect();
    assert_eq!(names, ["pool 1x1x32x64 f16", "pool 1x2x2x1"]);
    let mut outcomes = report.runs.iter().flat_map(|run| &run.candidates).map(|tried| &tried.outcome);
    assert!(outcomes.all(|outcome| !matches!(outcome, Outcome::Wrong(_) | Outcome::Failed(_))), "{report:?}");
}

#[test]
fn a_chain_is_tuned_run_by_run_and_planned_by_these_times() {
    let gpu = gpu();
    let block = Chain::inverted_residual(8, 8, 1, 1);
    let two = Chain::new([block.links(), block.links()].concat());
    let two = two.edge(0, 1, Residual::AfterActivation).unwrap().edge(2, 3, Residual::AfterActivation).unwrap();
    let report = gpu.tune(&two, [1, 8, 9, 9], Layout::Nchw, &quickly()).unwrap();
    let names: Vec<_> = report.runs.iter().map(|run| run.name.as_str()).collect();
    // Each kind of run is tuned once, although the chain has most of them twice.
    assert!(names.contains(&"depthwise 1x8x9x9 k3 p1 relu6"), "{names:?}");
    assert!(names.contains(&"pointwise 1x8x9x9 -> 8 residual:after"), "{names:?}");
    let mut unique = names.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), names.len());
    for run in &report.runs {
        let right = |outcome: &Outcome| matches!(outcome, Outcome::Right(seconds) if *seconds > 0.0);
        // Fused runs may be too slow to be measured.
        let found = run.candidates.iter().any(|tried| right(&tried.outcome));
        assert!(found || run.name.contains(" + "), "{run:?}");
        let known = |outcome: &Outcome| matches!(outcome, Outcome::Hopeless | Outcome::OutOfTime) || right(outcome);
        assert!(run.candidates.iter().all(|tried| known(&tried.outcome)), "{run:?}");
    }
    assert_eq!(*gpu.profile(), report.profile);
    let schedule = gpu.schedule(&two, [1, 8, 9, 9], Layout::Nchw, &Choice::Auto).unwrap();
    for step in &schedule.steps {
        let candidates = schedule.considered.iter().flat_map(|answer| answer.answer.iter().flatten());
        let taken = candidates.filter(|candidate| candidate.recipe.name == step.recipe.name);
        assert!(taken.into_iter().any(|candidate| candidate.measured == Some(step.seconds)), "{}", step.recipe.name);
    }
}

/// At rest a GPU lowers its clock. It is raised once for times that follow each other.
#[test]
fn a_gpu_that_rested_works_before_it_is_timed() {
    let seconds = |gpu: &GpuConv| {
        let layer = gpu.pointwise(&Conv2d::pointwise(4, 4).bias(false), Weights::without_bias(&[1.0; 16])).unwrap();
        let x = gpu.upload(&[1.0; 4 * 64], [1, 4, 8, 8]).unwrap();
        let y = gpu.empty([1, 4, 8, 8], Layout::Nchw).unwrap();
        let (bound, timer) = (layer.bind(&x, &y).unwrap(), Timer::new(gpu).unwrap());
        [(); 2].map(|()| {
            let start = Instant::now();
            timer.raise_clock(&bound).unwrap();
            start.elapsed().as_secs_f64()
        })
    };
    let [first, second] = seconds(&as_gpu());
    assert!(first > 0.4 && second < 0.2, "{first} s, then {second} s");
    let software = gpu();
    assert!(!software.caps().is_cpu || seconds(&software)[0] < 0.2);
}

#[test]
fn a_probe_finds_rates_that_a_device_can_have() {
    let gpu = gpu();
    let rates = probe::probe(&gpu).unwrap();
    assert!(rates.are_sound(), "{rates:?}");
    // From a slow phone to ten times today's largest GPU.
    for (rate, least, most) in [
        (rates.mult_adds, 1e8, 1e15),
        (rates.accesses, 1e7, 1e14),
        (rates.shared, 1e7, 1e15),
        (rates.bytes, 1e8, 1e14),
        (1.0 / rates.dispatch, 1e2, 1e8),
        (rates.parallel, 1.0, 1e5),
    ] {
        assert!((least..most).contains(&rate), "{rates:?}");
    }
    // Half the speed, twice the time; on a GPU nearly, for there the start of a workgroup and a load's latency count too.
    let problem = parse("pointwise 1x32x24x24 -> 64 relu6");
    let seconds = |rates| {
        let profile = Profile { rates: Some(rates), ..Profile::default() };
        let planner = Planner { caps: gpu.caps(), profile: &profile };
        let choice = Choice::Named("direct/4x4".into());
        planner.schedule(&problem.chain(), problem.input, problem.layout, &choice).unwrap().seconds()
    };
    let [mult_adds, accesses, shared, bytes] =
        [rates.mult_adds, rates.accesses, rates.shared, rates.bytes].map(|rate| rate / 2.0);
    let slow = Rates { mult_adds, accesses, shared, bytes, dispatch: rates.dispatch * 2.0, ..rates };
    let longer = seconds(slow) / seconds(rates);
    let least = if gpu.caps().is_cpu { 2.0 - 1e-9 } else { 1.2 };
    assert!((least..2.0 + 1e-9).contains(&longer), "{longer} times as long");
}

/// A profile in which only one recipe of a problem of one link has a time.
fn profile(problem: &str, recipe: &str, seconds: f64) -> Profile {
    let mut profile = Profile::default();
    profile.runs.entry(problem.into()).or_default().insert(recipe.into(), seconds);
    profile
}

#[test]
fn measured_times_take_precedence_over_modelled_ones() {
    let gpu = gpu();
    let line = "pointwise 1x32x24x24 -> 64 relu6";
    let problem = parse(line);
    let planned = |profile: &Profile| {
        let planner = Planner { caps: gpu.caps(), profile };
        planner.schedule(&problem.chain(), problem.input, problem.layout, &Choice::Auto).unwrap().name()
    };
    assert_ne!(planned(&Profile::default()), "direct/4x1");
    // It is slow, but no other recipe has a measured time.
    let mut known = profile(line, "direct/4x1", 1.0);
    assert_eq!(planned(&known), "direct/4x1");
    known.merge(profile(line, "direct/4x4", 0.5));
    assert_eq!(planned(&known), "direct/4x4");
    // Another size was not measured.
    assert_ne!(planned(&profile("pointwise 1x32x24x25 -> 64 relu6", "direct/4x1", 1e-9)), "direct/4x1");
}

#[test]
fn merging_keeps_the_lower_time() {
    let gpu = gpu();
    let line = "pointwise 1x8x4x4 -> 8";
    let mut all = Tuning::new(&gpu, profile(line, "direct/4x4", 0.5));
    all.merge(Tuning::new(&gpu, profile(line, "direct/4x4", 0.25)));
    all.merge(Tuning::new(&gpu, profile(line, "direct/4x4", 0.75)));
    all.merge(Tuning::new(&gpu, profile("pointwise 1x8x5x5 -> 8", "direct/4x1", 0.125)));
    assert_eq!(all.counts(), (2, 1));
    let runs = all.profile(&gpu).unwrap().runs;
    assert_eq!((runs[line]["direct/4x4"], runs["pointwise 1x8x5x5 -> 8"]["direct/4x1"]), (0.25, 0.125));
}

#[test]
fn a_damaged_file_is_an_error_and_one_of_another_version_is_ignored() {
    let gpu = gpu();
    let whole = Tuning::new(&gpu, profile("pointwise 1x8x4x4 -> 8", "direct/4x4", 0.5)).to_json();
    let read = |text: &str| Tuning::from_json(text.as_bytes());
    assert!(read(&whole).unwrap().profile(&gpu).is_some());
    // Cut at every byte, except in the line's end.
    for end in 0..whole.len() - 2 {
        let cut = Tuning::from_json(&whole.as_bytes()[..end]);
        assert!(matches!(cut, Err(Error::DamagedTuning(_))), "cut at {end}: {cut:?}");
    }
    for (from, to) in [("0.5", "-0.5"), ("0.5", "0.0"), ("0.5", "1e999"), ("0.5", "\"fast\""), ("\"runs\"", "\"rns\"")]
    {
        let damaged = read(&whole.replacen(from, to, 1));
        assert!(matches!(damaged, Err(Error::DamagedTuning(_))), "{to}: {damaged:?}");
    }
    // A file of a future format, of another version, and of another driver.
    assert_eq!(read(r#"{"format": 2, "tables": []}"#), Ok(Tuning::default()));
    let version = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    let older = read(&whole.replace(&version, "\"version\": \"0.0.1\"")).unwrap();
    assert_eq!((older.counts(), older.profile(&gpu)), ((1, 1), None));
    let driver = read(&whole.replace("\"driver\": \"", "\"driver\": \"new ")).unwrap();
    assert_eq!(driver.profile(&gpu), None);
    assert!(!gpu.use_tuning(&driver) && gpu.profile().runs.is_empty());
    assert!(gpu.use_tuning(&read(&whole).unwrap()) && gpu.profile().runs.len() == 1);
}
