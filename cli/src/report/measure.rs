//! Measures the data of a report.

use std::time::SystemTime;

use gpuconv::internals::timer::Timer;
use gpuconv::internals::{Elements, Run, run_name};
use gpuconv::planner::{Division, Extents, Schedule};
use gpuconv::verify::Data;
use gpuconv::{Choice, Error, Fusion, GpuConv, Inputs, Operation, Problem, cost, planner, probe, tuner};
use indicatif::{ProgressBar, ProgressStyle};

use super::data::{self, Ceilings, Comparison, Device, Form, Memory, Network, Report, Step};
use crate::{Case, Outcome, devices, kernels as kernel_names};

/// Measures the ceilings, then each problem as it is planned. Separable problems are measured in all three forms.
pub fn measure(gpu: &GpuConv, cases: &[Case], quiet: bool) -> Outcome<Report> {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(cases.len() as u64 + 1) };
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}");
    bar.set_style(style.unwrap_or(ProgressStyle::default_bar()));
    bar.set_message("the device's ceilings");
    let ceilings = ceilings(gpu)?;
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION").into(),
        time: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        device: device(gpu),
        ceilings,
        layers: Vec::new(),
        separable: Vec::new(),
        networks: Vec::new(),
        memory: Vec::new(),
    };
    for case in cases {
        bar.inc(1);
        bar.set_message(case.text.clone());
        add(&mut report, gpu, case)?;
    }
    bar.finish_and_clear();
    Ok(report)
}

fn device(gpu: &GpuConv) -> Device {
    let (info, caps) = (gpu.device().adapter_info(), gpu.caps());
    Device {
        kind: devices::kind(info.device_type).into(),
        backend: info.backend.to_string() + if gpu.is_robust() { "" } else { " without robustness" },
        driver: format!("{} {}", info.driver, info.driver_info).trim().into(),
        name: info.name,
        subgroup: caps.subgroup,
        workgroup_memory: caps.max_workgroup_memory,
        max_storage_binding: caps.max_storage_binding,
        has_clock: caps.timestamps,
    }
}

fn ceilings(gpu: &GpuConv) -> Outcome<Ceilings> {
    Ok(Ceilings::new(&probe::probe(gpu)?))
}

/// How often the whole of a layer that is computed band by band is measured.
const ROUNDS: usize = 5;

/// A measured schedule.
struct Measured {
    schedule: Schedule,
    steps: Vec<Step>,
}

impl Measured {
    fn ms(&self) -> f64 {
        self.steps.iter().map(|step| step.ms).sum()
    }

    fn bytes(&self) -> u64 {
        self.steps.iter().map(|step| step.bytes).sum()
    }
}

fn add(report: &mut Report, gpu: &GpuConv, case: &Case) -> Outcome {
    let case = &one_band(gpu, case)?;
    let problem = &case.problem;
    if let Operation::Separable(separable) = &problem.operation {
        let standard = Problem { operation: Operation::Conv(separable.standard()), ..problem.clone() };
        let mut measured = |problem: &Problem, choice: Choice| -> Outcome<Option<(Form, usize)>> {
            let Some(measured) = possible(gpu, problem, &choice, &report.ceilings)? else { return Ok(None) };
            measured.steps.iter().for_each(|step| add_layer(&mut report.layers, step));
            Ok(Some((form(&measured), measured.steps.len())))
        };
        let standard = measured(&standard, Choice::Auto)?;
        let unfused = measured(problem, Choice::Fusion(Fusion::Never))?;
        let fused = measured(problem, Choice::Fusion(Fusion::Always))?;
        report.separable.push(Comparison {
            problem: case.text.clone(),
            standard: standard.map(|(form, _)| form),
            unfused: unfused.map(|(form, _)| form),
            // If no kernel computes both halves, even forced fusion gives two steps.
            fused: fused.filter(|(_, steps)| *steps == 1).map(|(form, _)| form),
        });
    }
    let (chain, input, layout) = (problem.chain(), problem.input, problem.layout);
    if chain.links().len() > 1 {
        let planned = gpu.divide(&chain, input, layout, &Choice::Auto)?;
        report.memory.push(memory(case, &planned, &report.ceilings)?);
    }
    // The plan of a separable problem is one of the forms measured above.
    if !matches!(problem.operation, Operation::Separable(_)) {
        let planned = of_choice(gpu, problem, &Choice::Auto, &report.ceilings)?;
        planned.steps.iter().for_each(|step| add_layer(&mut report.layers, step));
        if let Operation::Network(_) = problem.operation {
            report.networks.push(Network { problem: case.text.clone(), ms: planned.ms(), steps: planned.steps });
        }
    }
    Ok(())
}

/// The problem with as many images as a layer computes at a time; all of them if images are cut, too.
fn one_band(gpu: &GpuConv, case: &Case) -> Outcome<Case> {
    let mut problem = case.problem.clone();
    let batch = match planner::images_at_once(&problem.chain(), problem.input, gpu.caps()) {
        Ok(batch) if batch < problem.input.batch => batch,
        Ok(_) | Err(Error::TooLarge { .. }) => return Ok(Case { text: case.text.clone(), problem }),
        Err(error) => return Err(error.into()),
    };
    problem.input.batch = batch;
    Ok(Case { text: problem.to_string(), problem })
}

/// Keeps each pair of layer and recipe once, with its minimum time: disturbances only make a measurement longer.
fn add_layer(layers: &mut Vec<Step>, step: &Step) {
    match layers.iter_mut().find(|known| (&known.layer, &known.recipe) == (&step.layer, &step.recipe)) {
        Some(known) if known.ms <= step.ms => {}
        Some(known) => *known = step.clone(),
        None => layers.push(step.clone()),
    }
}

/// Like [`of_choice`], but `None` if the device cannot compute the problem.
fn possible(gpu: &GpuConv, problem: &Problem, choice: &Choice, ceilings: &Ceilings) -> Outcome<Option<Measured>> {
    let (chain, input, layout) = (problem.chain(), problem.input, problem.layout);
    match gpu.divide(&chain, input, layout, choice) {
        Err(Error::NoKernel { .. } | Error::TooLarge { .. }) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(_) => of_choice(gpu, problem, choice, ceilings).map(Some),
    }
}

fn of_choice(gpu: &GpuConv, problem: &Problem, choice: &Choice, ceilings: &Ceilings) -> Outcome<Measured> {
    let (chain, input, layout) = (problem.chain(), problem.input, problem.layout);
    let division = gpu.divide(&chain, input, layout, choice)?;
    let (schedule, scales) = (division.schedule(), scales(&division));
    let seconds = match division.is_divided() {
        false => tuner::measure(gpu, &chain, input, layout, &schedule)?,
        true => in_bands(gpu, problem, choice, &division, &scales)?,
    };
    let (shapes, cost) = (chain.shapes(input)?, cost::chain(&chain, input)?);
    let steps = schedule.steps.iter().zip(seconds).zip(scales).map(|((step, seconds), scale)| {
        let links = step.first..step.first + step.links;
        let (of_chain, shapes) = (&chain.links()[links.clone()], &chain.run_shapes(links.clone(), &shapes));
        let elements = Elements::new(chain.dtype(), gpu.caps());
        let run = Run { links: of_chain, shapes, layout, elements };
        let flops: u64 = links.map(|link| 2 * cost.links[link].mult_adds).sum();
        let work = step.recipe.work;
        let run = data::Run {
            layer: run_name(&run),
            recipe: step.recipe.name.clone(),
            first: step.first,
            links: step.links,
            ms: seconds * 1e3,
            flops,
            flops_done: (2.0 * work.mult_adds * scale) as u64,
            bytes: (work.bytes * scale) as u64,
        };
        Step::new(run, ceilings)
    });
    let steps = steps.collect();
    Ok(Measured { schedule, steps })
}

/// How many times the work of a stretch's first band the whole is, for each step.
fn scales(division: &Division) -> Vec<f64> {
    let size = |extents: Extents| {
        let Extents { images, channels, out_channels, rows, columns } = extents;
        [images, channels, out_channels, rows, columns].map(f64::from).iter().product::<f64>()
    };
    let stretches = division.stretches.iter();
    let scale = |stretch: &planner::Stretch| size(stretch.whole) / size(stretch.extents).max(1.0);
    stretches.flat_map(|stretch| vec![scale(stretch).max(1.0); stretch.schedule.steps.len()]).collect()
}

/// The seconds of a layer that is computed band by band, copies included. Its steps share them as their first bands do.
fn in_bands(
    gpu: &GpuConv,
    problem: &Problem,
    choice: &Choice,
    division: &Division,
    scales: &[f64],
) -> Outcome<Vec<f64>> {
    let (chain, input, layout) = (problem.chain(), problem.input, problem.layout);
    let data = Data::random("measured", &chain, input)?;
    let output = problem.output()?;
    let empty = |shape: gpuconv::Shape| gpu.empty_of(shape, layout, problem.dtype);
    let [x, y] = [empty(input)?, empty(output)?];
    let residual = data.residual.as_ref().map(|_| empty(output)).transpose()?;
    let layer = gpu.chain_with(&chain, &data.weights(), choice.clone())?;
    let of_pixel = gpuconv::Shape { height: 1, width: 1, ..input };
    let scale = data.scale.as_ref().map(|_| empty(of_pixel)).transpose()?;
    let layer = layer.bind(Inputs { input: &x, residual: residual.as_ref(), scale: scale.as_ref() }, &y)?;
    let timer = Timer::new(gpu)?;
    // The first run compiles.
    timer.layer(&layer, 1)?;
    timer.raise_clock(&layer)?;
    let times = (0..ROUNDS).map(|_| Ok(timer.layer(&layer, 1)?)).collect::<Outcome<Vec<_>>>()?;
    let whole = times.into_iter().fold(f64::INFINITY, f64::min);
    if scales.len() == 1 {
        return Ok(vec![whole]);
    }
    let mut shares = Vec::new();
    for stretch in &division.stretches {
        shares.extend(tuner::measure(gpu, &stretch.chain, stretch.input, layout, &stretch.schedule)?);
    }
    shares.iter_mut().zip(scales).for_each(|(share, scale)| *share *= scale);
    let sum = shares.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    Ok(shares.into_iter().map(|share| whole * share / sum).collect())
}

fn form(measured: &Measured) -> Form {
    let halves = |flops: fn(&Step) -> u64| measured.steps.iter().map(flops).sum::<u64>() / 2;
    Form {
        schedule: kernel_names(&measured.schedule),
        ms: measured.ms(),
        mult_adds: halves(|step| step.flops),
        mult_adds_done: halves(|step| step.flops_done),
        bytes: measured.bytes(),
    }
}

fn memory(case: &Case, planned: &Division, ceilings: &Ceilings) -> Outcome<Memory> {
    let steps = planned.schedule().steps;
    let bytes = steps.iter().zip(scales(planned)).map(|(step, scale)| step.recipe.work.bytes * scale);
    let copied = planned.stretches.iter().flat_map(|stretch| stretch.copied).sum::<u64>();
    let cost = cost::chain(&case.problem.chain(), case.problem.input)?;
    let ms = |bytes: u64| bytes as f64 / (ceilings.gbps * 1e6);
    Ok(Memory {
        problem: case.text.clone(),
        // Each tensor is written once and read once. If an edge starts at it, it is read again, which counts as the
        // residual of the link that adds it.
        between: (cost.bytes_unfused - cost.bytes_fused) / 2,
        unfused: cost.bytes_unfused,
        fused: cost.bytes_fused,
        // What is copied is read and written.
        planned: bytes.map(|bytes| bytes as u64).sum::<u64>() + 2 * copied,
        intensity_unfused: cost.intensity_unfused(),
        intensity_fused: cost.intensity_fused(),
        unfused_ms: ms(cost.bytes_unfused),
        fused_ms: ms(cost.bytes_fused),
    })
}
