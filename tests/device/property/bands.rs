//! What does not fit into a binding gives what it gives where it fits.

use gpuconv::shape::from_nchw;
use gpuconv::verify::Data;
use gpuconv::{Caps, Choice, DType, Error, GpuConv, Inputs, Layer, Link, Result, Tensor};
use proptest::prelude::*;

use super::draw::{self, Subject};
use super::{Tally, draw_and_check};

/// The largest difference of two orders of adding up, as a share of the largest output; in f16 a unit in the last
/// place.
fn most(dtype: DType) -> f32 {
    if dtype == DType::F16 { 2e-3 } else { 1e-5 }
}

/// The kernel that adds up in the same order for any size of the image.
fn direct() -> Choice {
    Choice::Named("direct".into())
}

/// Draws problems, and for each a limit for bindings, from what a band of some outputs needs to what does not fit at
/// once.
#[test]
#[ignore = "takes minutes"]
fn bands_give_what_the_whole_gives() {
    give_what_the_whole_gives(12, 50, draw::anything(), direct());
}

#[test]
#[ignore = "takes minutes"]
fn bands_of_graphs_give_what_the_whole_gives() {
    give_what_the_whole_gives(8, 20, super::graphs::graphs(), direct());
}

/// By any kernel: links that `direct` does not compute.
#[test]
#[ignore = "takes minutes"]
fn bands_of_what_moves_give_what_the_whole_gives() {
    let subjects = prop_oneof![draw::transposed(), draw::shuffles(), draw::resizes()];
    give_what_the_whole_gives(12, 50, subjects, Choice::Auto);
}

fn give_what_the_whole_gives(
    count: u32,
    percent: usize,
    subjects: impl Strategy<Value = Vec<Subject>>,
    choice: Choice,
) {
    let cases = (subjects, 1u64..1000, prop_oneof![Just(32u32), Just(256)]);
    draw_and_check(count, percent, cases, |gpu, (subjects, share, alignment)| {
        let mut tally = Tally::default();
        for subject in subjects.iter().filter(|subject| subject.input.batch > 0) {
            tally.drawn += 1;
            let agrees = check(gpu, subject, *share, *alignment, &choice);
            match agrees.map_err(|error| error.to_string()).and_then(|outcome| outcome.map_or(Ok(false), |()| Ok(true)))
            {
                Ok(checked) => tally.checked += usize::from(checked),
                Err(complaint) => {
                    let Subject { name, layout, .. } = subject;
                    return Err(TestCaseError::fail(format!("{complaint}\n{name} {layout}, {share} thousandths")));
                }
            }
        }
        Ok(tally)
    });
}

/// Compares the two; nothing if it cannot be divided.
fn check(gpu: &GpuConv, subject: &Subject, share: u64, alignment: u32, choice: &Choice) -> Result<Option<()>> {
    let Subject { name, chain, input, layout } = subject;
    let shapes = chain.shapes(*input)?;
    let largest = shapes.iter().map(|shape| shape.bytes(chain.dtype())).max().unwrap_or(0);
    // Weights must fit as well, of dense convolutions those of some outputs; some are padded to panels of four.
    let weights = chain.convolutions().map(|(link, conv)| {
        let is_cut = conv.groups == 1 && matches!(chain.links()[link], Link::Conv(_));
        let outputs = if is_cut { conv.out_channels.min(4) } else { conv.out_channels };
        16 * (conv.fan_in() + 1) * u64::from(outputs)
    });
    let limit = (largest * share / 1000).max(weights.max().unwrap_or(0)) / 4 * 4;
    let narrow = gpu.with_caps(|caps| {
        let storage_offset_alignment = alignment.max(caps.storage_offset_alignment);
        Caps { max_storage_binding: limit, storage_offset_alignment, ..caps }
    });
    match narrow.divide(chain, *input, *layout, choice) {
        Ok(division) if division.is_divided() => {}
        Ok(_) | Err(Error::TooLarge { .. }) => return Ok(None),
        Err(error) => return Err(error),
    }
    let data = Data::random(name, chain, *input)?;
    let (layout, dtype) = (*layout, chain.dtype());
    let upload =
        |gpu: &GpuConv, values: &[f32], shape| gpu.upload_of(&from_nchw(values, shape, layout), shape, layout, dtype);
    let run = |gpu: &GpuConv| -> Result<Vec<f32>> {
        let layer: Layer = gpu.chain_with(chain, &data.weights(), choice.clone())?;
        let x = upload(gpu, &data.input, *input)?;
        let residual = match (&data.residual, chain.outside_residual()) {
            (Some(values), Some(link)) => Some(upload(gpu, values, shapes[link + 1])?),
            _ => None,
        };
        let output = shapes[shapes.len() - 1];
        let y: Tensor = upload(gpu, &vec![f32::NAN; output.len() as usize], output)?;
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        layer.encode(&mut encoder, Inputs { input: &x, residual: residual.as_ref(), scale: None }, &y)?;
        gpu.queue().submit([encoder.finish()]);
        gpu.download(&y)
    };
    let (whole, divided) = (run(gpu)?, run(&narrow)?);
    let scale = whole.iter().fold(1.0f32, |scale, value| scale.max(value.abs()));
    let differ = |(a, b): (&f32, &f32)| (a - b).abs() > most(dtype) * scale || b.is_nan();
    let wrong = whole.iter().zip(&divided).position(differ);
    let complain = |at: usize| Error::Internal(format!("output {at} is {} and not {}", divided[at], whole[at]));
    wrong.map_or(Ok(Some(())), |at| Err(complain(at)))
}
