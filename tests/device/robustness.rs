//! A device without robust buffer access: the same numbers, errors and caches as any other.

use std::collections::BTreeSet;
use std::sync::Arc;

use gpuconv::internals::kernel_of;
use gpuconv::internals::timer::Timer;
use gpuconv::planner::{self, Schedule};
use gpuconv::verify::{Data, Oracle};
use gpuconv::{Caps, Choice, Error, GpuConv, Layer, Layout, Problem, wgpu};

use crate::common::gpu;
use crate::kernels::few;

/// The device, made without robust buffer access.
fn unrobust() -> GpuConv {
    // SAFETY: this module makes no shaders on it.
    unsafe { GpuConv::without_robustness() }.unwrap_or_else(|error| panic!("{error}: {error:?}"))
}

/// What a schedule gives on a device, for random numbers that do not depend on it.
fn values(gpu: &GpuConv, problem: &Problem, schedule: &Schedule) -> Vec<u32> {
    let chain = problem.chain();
    let data = Data::random("robustness", &chain, problem.input).unwrap();
    let layer = gpu.chain_with(&chain, &data.weights(), Choice::Named(schedule.name())).unwrap();
    // A software device runs each shader without work.
    layer.warm_up(problem.input, problem.layout).unwrap();
    let upload = |values: &[f32], shape| gpu.upload_of(values, shape, problem.layout, problem.dtype);
    let x = upload(&data.input, problem.input).unwrap();
    let residual = data.residual.map(|values| upload(&values, problem.output().unwrap()));
    let y = match residual {
        Some(residual) => layer.forward((&x, &residual.unwrap())),
        None => layer.forward(&x),
    };
    gpu.download(&y.unwrap()).unwrap().into_iter().map(f32::to_bits).collect()
}

/// Every kernel in both layouts, as software devices and as GPUs get it. `scripts/validation` runs it too.
#[test]
#[ignore = "compiles each shader for two devices"]
fn every_kernel_gives_the_same_bits() {
    let mut kernels = BTreeSet::new();
    for is_cpu in [true, false] {
        let [ordinary, other] = [gpu(), unrobust()].map(|gpu| gpu.with_caps(|caps| Caps { is_cpu, ..caps }));
        for (problem, schedule) in few(ordinary.caps(), |_| true).into_values().flatten() {
            let bits = values(&ordinary, &problem, &schedule[0]);
            assert_eq!(values(&other, &problem, &schedule[0]), bits, "{problem}: {}", schedule[0].name());
            kernels.insert(kernel_of(&schedule[0].name()).to_string());
        }
    }
    assert!(kernels.len() > 9, "only {kernels:?}");
}

fn layer(gpu: &GpuConv) -> Layer {
    let problem: Problem = "pointwise 1x16x12x12 -> 24 relu".parse().unwrap();
    let data = Data::random("robustness", &problem.chain(), problem.input).unwrap();
    gpu.chain(&problem.chain(), &data.weights()).unwrap()
}

/// It has the caps of an ordinary device, its clock and its cache of pipelines, and says what it is. So do the devices
/// that share it.
#[test]
fn it_differs_from_an_ordinary_device_in_nothing_else() {
    let (ordinary, other) = (gpu(), unrobust());
    assert_eq!(ordinary.caps(), other.caps());
    assert_eq!(ordinary.device().features(), other.device().features());
    assert_eq!(ordinary.device().limits(), other.device().limits());
    assert!(ordinary.is_robust() && ordinary.checked().is_robust());
    assert!(!other.is_robust() && !other.checked().is_robust() && !other.with_caps(|caps| caps).is_robust());

    let (layer, input) = (layer(&other), other.empty([1, 16, 12, 12], Layout::Nchw).unwrap());
    layer.warm_up([1, 16, 12, 12], Layout::Nchw).unwrap();
    let output = layer.forward(&input).unwrap();
    let timer = Timer::new(&other).unwrap();
    assert_eq!(timer.has_clock(), other.caps().timestamps);
    assert!(timer.layer(&layer.bind(&input, &output).unwrap(), 1).unwrap() > 0.0);

    other.device().destroy();
    assert!(matches!(layer.forward(&input), Err(Error::DeviceLost(_))));
    assert!(matches!(other.wait(), Err(Error::DeviceLost(_))));
}

/// Drivers compile other code for it, which takes other times.
#[test]
fn caches_and_times_are_kept_apart() {
    let (ordinary, other) = (gpu(), unrobust());
    if let Some(data) = other.pipeline_cache_data() {
        for (gpu, is_taken) in [(&ordinary, false), (&other, true)] {
            // SAFETY: the bytes are what a device of this adapter gave.
            assert_eq!(unsafe { gpu.load_pipeline_cache(&data) }, Ok(is_taken));
        }
    }
    #[cfg(feature = "tuning")]
    for [from, to] in [[&ordinary, &other], [&other, &ordinary], [&other, &other], [&ordinary, &ordinary]] {
        let json = gpuconv::Tuning::new(from, (*from.profile()).clone()).to_json();
        let tuning = gpuconv::Tuning::from_json(json.as_bytes()).unwrap();
        assert_eq!(to.use_tuning(&tuning), from.is_robust() == to.is_robust(), "{json}");
    }
}

/// The device is made past wgpu's own checks of a descriptor.
#[test]
fn more_than_the_adapter_has_is_refused() {
    let adapter = pollster::block_on(GpuConv::adapter(None)).unwrap();
    let new = |features, limits| {
        // SAFETY: this module makes no shaders on it.
        pollster::block_on(unsafe { GpuConv::from_adapter_without_robustness(&adapter, features, limits) })
    };
    let none = wgpu::Features::empty();
    assert!(new(none, wgpu::Limits::downlevel_defaults()).is_ok_and(|gpu| gpu.caps().subgroup.is_none()));
    let missing = wgpu::Features::all_webgpu_mask() - adapter.features();
    let limits = wgpu::Limits { max_bind_groups: 1 << 20, ..adapter.limits() };
    for (outcome, why) in [(new(none, limits), "max_bind_groups"), (new(missing, adapter.limits()), "it has no")] {
        match outcome.map(|_| ()) {
            Err(Error::RequestDevice(cause)) => assert!(cause.to_string().contains(why), "{cause}"),
            other => panic!("{other:?}"),
        }
    }
}

/// Runs a shader with a fault that changes no number on a software device: one that leaves out accesses that are out of
/// bounds, and runs a workgroup's invocations in step.
fn run_with(fault: impl Fn(&str) -> String) {
    let problem: Problem = "pointwise 1x64x8x8 -> 64".parse().unwrap();
    let gpu = unrobust().with_caps(|caps| Caps { is_cpu: false, ..caps });
    let choice = Choice::Named("pointwise/64x64x16".into());
    let mut schedule = planner::schedule(&problem.chain(), problem.input, problem.layout, gpu.caps(), &choice).unwrap();
    let pass = &mut schedule.steps[0].recipe.passes[0];
    let right = pass.wgsl.text().unwrap();
    let wrong = fault(&right);
    assert_ne!(wrong, *right, "the fault is not planted");
    pass.wgsl = Arc::<str>::from(wrong).into();
    // SAFETY: it is none, except on a device as above. That is why these tests are ignored.
    unsafe { Oracle::new(&problem).unwrap().check_as_it_is(&gpu, &schedule) }.unwrap();
}

/// Puts statements at the start of a shader.
fn first(wgsl: &str, statements: &str) -> String {
    let (head, main) = wgsl.split_once("fn main(").unwrap();
    format!("{head}fn main({}", main.replacen(") {\n", &format!(") {{\n{statements}\n"), 1))
}

#[test]
#[ignore = "scripts/validation runs it"]
fn planted_read_out_of_bounds() {
    run_with(|wgsl| first(wgsl, "_ = weights[arrayLength(&weights)];"));
}

#[test]
#[ignore = "scripts/validation runs it"]
fn planted_write_out_of_bounds() {
    run_with(|wgsl| first(wgsl, "output[arrayLength(&output)] = vec4<f32>(7.0);"));
}

#[test]
#[ignore = "scripts/validation runs it"]
fn planted_race_in_workgroup_memory() {
    run_with(|wgsl| wgsl.replacen("workgroupBarrier();", "", 1));
}
