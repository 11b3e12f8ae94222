//! `bench`: how long problems take.

use gpuconv::internals::timer::Timer;
use gpuconv::shape::{from_nchw, to_nchw};
use gpuconv::verify::Data;
use gpuconv::{BoundLayer, Chain, Choice, DType, GpuConv, Inputs, Layout, Problem, Shape, Tensor, cost, f16, tuner};
use js_sys::{Float32Array, Function, Reflect};
use serde::Serialize;
use wasm_bindgen::{JsCast, JsValue};
use web_time::Instant;

use crate::js::{failed, json, refused};
use crate::options::{Options, text};
use crate::spread::Spread;

/// The oracle checks problems of fewer floating-point operations than this; it is slow.
const MOST_CHECKED: u64 = 2_000_000_000;

/// Bytes of input, output and weights: a module has less than 4 GiB, and holds some of them twice.
const MOST_BYTES: u64 = 1 << 30;

/// Measured times, with the keys of `gpuconv bench --json`.
#[derive(Serialize)]
pub struct Bench {
    problem: String,
    kernel: String,
    adapter: String,
    /// From typed array to typed array.
    e2e_ms: Spread,
    /// Weights to the device, and compiling.
    load_ms: f64,
    /// The first run.
    first_ms: f64,
    mult_adds: u64,
    /// Norm of the error over the norm of the oracle's answer, which is that of the data in f32 for f16 too; none for
    /// what takes the oracle too long.
    rel_err: Option<f64>,
}

/// A layer on the device, bound to its tensors.
struct Subject {
    gpu: GpuConv,
    layer: BoundLayer,
    /// What is written before each run: the input, and the residual and the scale that the layer takes.
    inputs: Vec<(Tensor, Float32Array)>,
    output: Tensor,
}

pub async fn bench(gpu: &GpuConv, line: &str, seconds: f64, options: &Options<'_>) -> Result<Bench, JsValue> {
    if !(0.0..=3600.0).contains(&seconds) {
        return Err(refused(&format!("seconds must be from 0 to 3600, not {seconds}")));
    }
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    let problem: Problem = line.parse().map_err(failed)?;
    let (chain, choice) = (problem.chain(), choice(options)?);
    check_room(&chain, problem.input)?;
    let data = Data::random(&line, &chain, problem.input).map_err(failed)?;
    let start = Instant::now();
    let (subject, kernel) = load(gpu, &problem, &data, choice).await.map_err(failed)?;
    let load_ms = milliseconds(start);
    let start = Instant::now();
    subject.run().await.map_err(failed)?;
    let first_ms = milliseconds(start);
    let values = subject.run().await.map_err(failed)?;
    let (all, mut samples) = (Instant::now(), Vec::new());
    while samples.len() < 3 || milliseconds(all) < 1e3 * seconds {
        let start = Instant::now();
        subject.run().await.map_err(failed)?;
        samples.push(milliseconds(start));
    }
    let cost = cost::chain(&chain, problem.input).map_err(failed)?;
    let is_checked = 2 * cost.mult_adds < MOST_CHECKED;
    let rel_err = match is_checked {
        true => {
            let answer = data.answer(&chain.with_dtype(DType::F32), problem.input).map_err(failed)?;
            Some(relative_error(&values.to_vec(), &answer.values))
        }
        false => None,
    };
    // It has no form in JSON.
    if rel_err.is_some_and(|error| !error.is_finite()) {
        return Err(refused("the output is not finite"));
    }
    let (adapter, mult_adds) = (gpu.adapter_name(), cost.mult_adds);
    Ok(Bench { problem: line, kernel, adapter, e2e_ms: Spread::of(samples), load_ms, first_ms, mult_adds, rel_err })
}

/// Refuses a problem whose data the module has no memory for.
fn check_room(chain: &Chain, input: Shape) -> Result<(), JsValue> {
    let shapes = chain.shapes(input).map_err(failed)?;
    let tensors = [shapes.first(), shapes.last()].into_iter().flatten().map(|shape| shape.len());
    let weights = chain.convolutions().map(|(_, conv)| conv.weight_shape().len());
    let bytes = tensors.chain(weights).fold(0u64, |sum, len| sum.saturating_add(len.saturating_mul(4)));
    match bytes > MOST_BYTES {
        true => Err(refused(&format!("its data take {bytes} bytes, and `bench` holds at most {MOST_BYTES} here"))),
        false => Ok(()),
    }
}

async fn load(gpu: &GpuConv, problem: &Problem, data: &Data, choice: Choice) -> gpuconv::Result<(Subject, String)> {
    let layer = gpu.chain_with(&problem.chain(), &data.weights(), choice)?;
    let (shape, layout) = (layer.output_shape(problem.input)?, problem.layout);
    let input = gpu.empty_of_async(problem.input, layout, problem.dtype).await?;
    let output = gpu.empty_of_async(shape, layout, problem.dtype).await?;
    let residual = match &data.residual {
        Some(_) => Some(gpu.empty_of_async(shape, layout, problem.dtype).await?),
        None => None,
    };
    let planes = Shape { height: 1, width: 1, ..problem.input };
    let scale = match &data.scale {
        Some(_) => Some(gpu.empty_of_async(planes, layout, problem.dtype).await?),
        None => None,
    };
    let inputs = Inputs { input: &input, residual: residual.as_ref(), scale: scale.as_ref() };
    let bound = layer.bind_async(inputs, &output).await?;
    let kernel = layer.schedule_async(problem.input, layout).await?.name();
    let with = |values: &[f32]| Float32Array::from(values);
    let mut inputs = vec![(input, with(&data.input))];
    inputs.extend(residual.zip(data.residual.as_deref().map(with)));
    inputs.extend(scale.zip(data.scale.as_deref().map(with)));
    Ok((Subject { gpu: gpu.clone(), layer: bound, inputs, output }, kernel))
}

impl Subject {
    /// From typed arrays to a typed array, in PyTorch's order for both layouts of the device.
    async fn run(&self) -> gpuconv::Result<Float32Array> {
        self.inputs.iter().for_each(|(tensor, values)| write(&self.gpu, tensor, values));
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        self.layer.encode(&mut encoder);
        let readback = self.gpu.encode_download_async(&mut encoder, &self.output).await?;
        self.gpu.queue().submit([encoder.finish()]);
        let values = readback.read_async().await?;
        Ok(match self.output.layout() {
            Layout::Nchw => Float32Array::from(&values[..]),
            layout => Float32Array::from(&to_nchw(&values, self.output.shape(), layout)[..]),
        })
    }
}

/// Writes values, which are in PyTorch's order.
fn write(gpu: &GpuConv, tensor: &Tensor, values: &Float32Array) {
    // As they are, they need not be copied into the module's memory first.
    if (tensor.layout(), tensor.dtype()) == (Layout::Nchw, DType::F32) && write_as_is(gpu, tensor, values).is_some() {
        return;
    }
    let mut values = values.to_vec();
    if tensor.layout() != Layout::Nchw {
        values = from_nchw(&values, tensor.shape(), tensor.layout());
    }
    let mut bytes: Vec<u8> = match tensor.dtype() {
        DType::F16 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    };
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    gpu.queue().write_buffer(tensor.buffer(), tensor.offset(), &bytes);
}

/// Has the browser write an array. `None` if it has no way.
fn write_as_is(gpu: &GpuConv, tensor: &Tensor, values: &Float32Array) -> Option<()> {
    let queue: &JsValue = gpu.queue().as_webgpu()?.as_ref();
    let write: Function = Reflect::get(queue, &"writeBuffer".into()).ok()?.dyn_into().ok()?;
    write.call3(queue, tensor.buffer().as_webgpu()?.as_ref(), &(tensor.offset() as f64).into(), values).ok().map(|_| ())
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Norm of the error over the norm of the oracle's answer.
fn relative_error(values: &[f32], oracle: &[f64]) -> f64 {
    let (mut error, mut norm) = (0.0, 0.0);
    for (&value, expected) in values.iter().zip(oracle) {
        error += (f64::from(value) - expected).powi(2);
        norm += expected * expected;
    }
    if error == 0.0 { 0.0 } else { (error / norm).sqrt() }
}

/// A step of a schedule, its time on the device, and what it does.
#[derive(Serialize)]
struct MeasuredStep {
    recipe: String,
    /// Its links as problems, joined by ` + `.
    layer: String,
    first: usize,
    links: usize,
    ms: f64,
    /// Floating-point operations, two for each multiply-add.
    flops: u64,
    /// With idle and recomputed ones.
    flops_done: u64,
    /// Bytes from and to memory.
    bytes: u64,
    is_by_device_clock: bool,
}

/// The time of each step of a problem.
pub async fn steps(gpu: &GpuConv, line: &str, options: &Options<'_>) -> Result<JsValue, JsValue> {
    let problem: Problem = line.parse().map_err(failed)?;
    measured(gpu, &problem, &choice(options)?).await.map(|steps| json(&steps)).map_err(failed)
}

/// Whether links are fused.
fn choice(options: &Options<'_>) -> Result<Choice, JsValue> {
    match options.get("fusion") {
        fusion if fusion.is_undefined() => Ok(Choice::Auto),
        fusion => Ok(Choice::Fusion(fusion.as_string().unwrap_or_else(|| text(&fusion)).parse().map_err(failed)?)),
    }
}

async fn measured(gpu: &GpuConv, problem: &Problem, choice: &Choice) -> gpuconv::Result<Vec<MeasuredStep>> {
    let (chain, layout) = (problem.chain(), problem.layout);
    let schedule = gpu.schedule(&chain, problem.input, layout, choice)?;
    let shapes = chain.shapes(problem.input)?;
    let seconds = tuner::measure_async(gpu, &chain, problem.input, layout, &schedule).await?;
    let (cost, has_clock) = (cost::chain(&chain, problem.input)?, Timer::new_async(gpu).await?.has_clock());
    let mut steps = Vec::new();
    for (step, seconds) in schedule.steps.iter().zip(seconds) {
        let links = step.first..step.first + step.links;
        let run = gpuconv::internals::Run {
            links: &chain.links()[links.clone()],
            shapes: &chain.run_shapes(links.clone(), &shapes),
            layout,
            elements: gpuconv::internals::Elements::new(problem.dtype, gpu.caps()),
        };
        steps.push(MeasuredStep {
            recipe: step.recipe.name.clone(),
            layer: gpuconv::internals::run_name(&run),
            first: step.first,
            links: step.links,
            ms: seconds * 1e3,
            flops: cost.links[links].iter().map(|link| 2 * link.mult_adds).sum(),
            flops_done: (2.0 * step.recipe.work.mult_adds) as u64,
            bytes: step.recipe.work.bytes as u64,
            is_by_device_clock: has_clock,
        });
    }
    Ok(steps)
}
