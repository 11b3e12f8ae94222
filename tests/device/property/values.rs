//! Special values of f32: NaN, infinities, negative zero, denormals, and very large sums.

use gpuconv::internals::half_unit;
use gpuconv::planner::Schedule;
use gpuconv::shape::{from_nchw, to_nchw};
use gpuconv::verify::Data;
use gpuconv::{
    Caps, Chain, Choice, DType, Error, GpuConv, Layout, Link, Problem, ResizeMode, Result, Shape, f16, planner,
};
use proptest::prelude::*;

use super::draw::{self, Planted, Subject};
use super::{Verdict, draw_and_check, for_each_subject};

/// Rows and columns by which Winograd's method may spread values that are not finite.
const MAX_SPREAD: i64 = 5;

/// An output is NaN or infinite if, and only if, it is with PyTorch's arithmetic. (Winograd's method may spread NaN and
/// infinity to outputs nearby, but no further.) Negative zeros and denormals stay as they are or become zero.
#[test]
#[ignore = "takes minutes"]
fn nan_and_infinity_go_where_they_should() {
    draw_and_check(12, 80, draw::planted(draw::anything()), |gpu, (case, values): &Planted| {
        for_each_subject(
            gpu,
            case,
            |_| true,
            |gpu, subject, schedule| {
                // After another link it may spread from any place. In a mean a weight that is zero may come out as a
                // little more, and zero times infinity is no number.
                if mixes_inputs(schedule) && schedule.steps.len() > 1 || has_means(&subject.chain) {
                    return Ok(Verdict::NotChecked);
                }
                let mut data = data(subject)?;
                let len = data.input.len();
                for (index, value) in values.iter().filter(|_| len > 0) {
                    data.input[index.index(len)] = *value;
                }
                compare(gpu, subject, schedule, &data)
            },
        )
    });
}

/// In a fused block, channels that only pad the last step stay zero, even if the image has NaNs. Without such channels,
/// a pixel's NaNs are told apart from its infinities, which ReLU6 makes finite.
#[test]
#[ignore = "takes minutes"]
fn nan_and_infinity_go_where_they_should_inside_a_fused_block() {
    let gpu = GpuConv::new().unwrap().with_caps(|caps| Caps { is_cpu: false, ..caps });
    for (channels, layout) in [(3, Layout::Nchw), (8, Layout::Nchw), (8, Layout::Nhwc)] {
        let (chain, input) = (Chain::inverted_residual(channels, 5, 4, 1), Shape::from([1, channels, 5, 24]));
        let subject = Subject { name: format!("a block of {} channels", 4 * channels), chain, input, layout };
        let mut data = data(&subject).unwrap();
        let mut plant = |channel: usize, column: usize, value: f32| {
            data.input[(channel * 5 + 2) * 24 + column] = value;
        };
        plant(0, 0, f32::INFINITY);
        plant(1, 6, f32::NAN);
        plant(2, 12, -f32::NAN);
        // Infinity minus infinity is NaN, and some weights subtract these two.
        plant(0, 18, f32::INFINITY);
        plant(1, 18, f32::INFINITY);
        plant(2, 23, f32::NEG_INFINITY);
        let schedules = planner::alternatives(&subject.chain, input, layout, gpu.caps()).unwrap();
        let fused = schedules.iter().find(|schedule| schedule.name().starts_with("inverted_residual")).unwrap();
        let answer = data.answer(&subject.chain, subject.input).unwrap();
        let nans = answer.values.iter().filter(|value| value.is_nan()).count();
        assert!(nans > 0 && nans < answer.values.len() / 2, "{}: {nans} NaNs", subject.name);
        match compare(&gpu, &subject, fused, &data).unwrap() {
            Verdict::Agrees => {}
            _ => panic!("{}, {layout}: differs from the oracle", subject.name),
        }
    }
}

/// If the magnitudes of all terms add up to less than the largest number, no order of addition overflows.
#[test]
#[ignore = "takes minutes"]
fn the_largest_sums_are_finite() {
    // Only single convolutions without Winograd's method: that adds larger terms, and so do several links. A pool adds
    // up all pixels before it divides, as PyTorch's does.
    let subjects = prop_oneof![draw::convolutions(), draw::depthwise(), draw::pointwise()];
    draw_and_check(8, 80, draw::cases(subjects), |gpu, case| {
        for_each_subject(
            gpu,
            case,
            |schedule| !mixes_inputs(schedule),
            |gpu, subject, schedule| {
                let mut data = data(subject)?;
                let answer = data.answer(&subject.chain, subject.input)?;
                let largest = answer.magnitudes.iter().copied().fold(1.0, f64::max);
                let most = if subject.chain.dtype() == DType::F16 { f64::from(f16::MAX) } else { f64::from(f32::MAX) };
                let scale = (most / 2.0 / largest) as f32;
                data.input.iter_mut().chain(data.residual.iter_mut().flatten()).for_each(|value| *value *= scale);
                compare(gpu, subject, schedule, &data)
            },
        )
    });
}

fn data(subject: &Subject) -> Result<Data> {
    Data::random(&subject.name, &subject.chain, subject.input)
}

/// Whether the chain has a resize by weighted means.
fn has_means(chain: &Chain) -> bool {
    let is_mean = |link: &Link| matches!(link, Link::Resize(resize) if resize.mode != ResizeMode::Nearest);
    chain.links().iter().any(is_mean)
}

/// Whether an output depends on more inputs than its own, as with Winograd's method.
fn mixes_inputs(schedule: &Schedule) -> bool {
    schedule.steps.iter().any(|step| step.recipe.spreads_errors)
}

/// Runs a subject on some data and compares each output with the oracle's.
fn compare(gpu: &GpuConv, subject: &Subject, schedule: &Schedule, data: &Data) -> Result<Verdict> {
    let answer = data.answer(&subject.chain, subject.input)?;
    let values = run(gpu, subject, schedule, data)?;
    let mixes_inputs = mixes_inputs(schedule);
    let tolerance: f64 = schedule.steps.iter().map(|step| step.recipe.tolerance + 4.0).sum();
    let largest = answer.magnitudes.iter().copied().filter(|magnitude| magnitude.is_finite()).fold(0.0, f64::max);
    for (index, (&value, &expected)) in values.iter().zip(&answer.values).enumerate() {
        // A neighbour's rounding error may be larger than the output.
        let magnitude = if mixes_inputs { largest } else { answer.magnitudes[index] };
        // A denormal may become zero.
        let bound = (tolerance * f64::from(f32::EPSILON) * magnitude).max(f32::MIN_POSITIVE.into());
        let bound = match subject.chain.dtype() {
            // Each step stores, and the errors of the earlier ones are carried on.
            DType::F16 => bound + (schedule.steps.len() - 1) as f64 * magnitude / 2048.0 + half_unit(magnitude + bound),
            _ => bound,
        };
        let value = f64::from(value);
        let agrees = match expected {
            _ if mixes_inputs && !value.is_finite() => is_near_planted(subject, data, answer.shape, index),
            _ if mixes_inputs && !expected.is_finite() => false,
            _ if expected.is_nan() => value.is_nan(),
            // The bound is no number where an infinity was clamped.
            _ if expected.is_infinite() || value == expected => value == expected,
            _ => f64::abs(value - expected) <= bound,
        };
        if !agrees {
            return Ok(Verdict::Differs(format!("output {index} is {value:e}, not {expected:e}")));
        }
    }
    Ok(Verdict::Agrees)
}

/// Whether the window of an output starts within [`MAX_SPREAD`] rows and columns of an input that is not finite.
fn is_near_planted(subject: &Subject, data: &Data, output: Shape, index: usize) -> bool {
    let Some((_, conv)) = subject.chain.convolutions().next() else { return false };
    let [top, left] = [conv.padding[0], conv.padding[1]].map(i64::from);
    let [image, y, x] = place(output, index);
    let planted = (0..data.input.len()).filter(|&at| !data.input[at].is_finite());
    planted.map(|at| place(subject.input, at)).any(|[planted_image, row, column]| {
        image == planted_image && (row - (y - top)).abs() <= MAX_SPREAD && (column - (x - left)).abs() <= MAX_SPREAD
    })
}

/// Image, row and column of an element in NCHW.
fn place(shape: Shape, index: usize) -> [i64; 3] {
    let (width, pixels) = (shape.width as usize, shape.pixels() as usize);
    let pixel = index % pixels;
    [index / (pixels * shape.channels as usize), pixel / width, pixel % width].map(|part| part as i64)
}

/// Winograd's method spreads a NaN to other outputs of its tile, but not beyond.
#[test]
fn winograd_spreads_nan_only_within_a_tile() {
    let gpu = GpuConv::new().unwrap().with_caps(|caps| Caps { is_cpu: false, ..caps });
    let problem: Problem = "conv 2x3x21x22 -> 4 k3 p1".parse().unwrap();
    let (chain, input, layout) = (problem.chain(), problem.input, problem.layout);
    let subject = Subject { name: problem.to_string(), chain, input, layout };
    let clean = data(&subject).unwrap();
    let schedules = planner::alternatives(&subject.chain, input, layout, gpu.caps()).unwrap();
    // In F(2x2) no output depends on more inputs than its own.
    for (transform, spreads) in [("winograd/2x2", false), ("winograd/4x4", true)] {
        let schedule = schedules.iter().find(|schedule| schedule.name().starts_with(transform)).unwrap();
        let mut data = Data { input: clean.input.clone(), weights: clean.weights.clone(), residual: None, scale: None };
        // One is in a corner, one in the middle of a tile, one at a tile's edge. The second image has none.
        for (channel, row, column) in [(0, 0, 0), (1, 10, 9), (2, 15, 16)] {
            data.input[(channel * 21 + row) * 22 + column] = f32::NAN;
        }
        let values = run(&gpu, &subject, schedule, &data).unwrap();
        let answer = data.answer(&subject.chain, input).unwrap();
        let own = answer.values.iter().filter(|value| !value.is_finite()).count();
        let spread = values.iter().filter(|value| !value.is_finite()).count();
        assert_eq!(spread > own, spreads, "{transform}: {spread} for {own}");
        let is_far = |&at: &usize| !values[at].is_finite() && !is_near_planted(&subject, &data, answer.shape, at);
        assert_eq!((0..values.len()).find(is_far), None, "{transform}");
    }
}

fn run(gpu: &GpuConv, subject: &Subject, schedule: &Schedule, data: &Data) -> Result<Vec<f32>, Error> {
    let Subject { chain, input, layout, .. } = subject;
    let shapes = chain.shapes(*input)?;
    let (layout, dtype) = (*layout, chain.dtype());
    let upload = |values: &[f32], shape| gpu.upload_of(&from_nchw(values, shape, layout), shape, layout, dtype);
    let layer = gpu.chain_with(chain, &data.weights(), Choice::Named(schedule.name()))?;
    let x = upload(&data.input, *input)?;
    let residual = chain.outside_residual().zip(data.residual.as_ref());
    let output = match residual {
        Some((link, values)) => layer.forward((&x, &upload(values, shapes[link + 1])?))?,
        None => layer.forward(&x)?,
    };
    Ok(to_nchw(&gpu.download(&output)?, output.shape(), layout))
}
