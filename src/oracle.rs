//! The oracle: convolutions on the CPU, in f64. Slow, obvious, and never optimised.

mod moved;
mod pool;
mod prelu;
mod transposed;

use crate::model::chain::{Chain, Link, scale_shape};
use crate::model::conv::{Activation, Conv2d, Residual};
use crate::model::dtype::DType;
use crate::model::error::Result;
use crate::model::gate::SqueezeExcite;
use crate::model::shape::Shape;
use crate::model::weights::{Weights, check_weights, length};
pub use moved::{concat, pixel_shuffle, pixel_unshuffle, resize, slice};
pub use pool::pool;
pub use prelu::prelu;
pub use transposed::convolve_transposed;

/// The oracle's answer for one link.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Answer {
    /// The outputs, NCHW.
    pub values: Vec<f64>,
    /// For each output the sum of the magnitudes of its terms in the last link.
    pub terms: Vec<f64>,
    /// The scale of each output's rounding error: the magnitudes of its terms, with those of earlier links carried
    /// through the weights.
    pub magnitudes: Vec<f64>,
    /// The outputs' shape.
    pub shape: Shape,
    /// Whether it makes no difference that the tensors between links are stored in the chain's element type: it has all
    /// their values.
    pub is_stored_exactly: bool,
}

/// One link on NCHW data.
///
/// # Errors
/// What [`Conv2d::output_shape`] and [`Weights::check`] say.
pub fn convolve(
    conv: &Conv2d,
    input: &[f64],
    input_shape: impl Into<Shape>,
    weights: Weights<'_>,
    residual: Option<&[f64]>,
) -> Result<Answer> {
    let input_shape = input_shape.into();
    let shape = conv.output_shape(input_shape)?;
    weights.check(0, conv)?;
    length("input".into(), input_shape.len(), input.len())?;
    let residual = if conv.residual.is_some() { residual.unwrap_or_default() } else { &[] };
    length("residual".into(), if conv.residual.is_some() { shape.len() } else { 0 }, residual.len())?;

    let (mut values, mut magnitudes) = (Vec::new(), Vec::new());
    for batch in 0..shape.batch {
        for channel in 0..shape.channels {
            for y in 0..shape.height {
                for x in 0..shape.width {
                    let (mut sum, mut magnitude) =
                        dot(conv, input, input_shape, weights.weight, [batch, channel, y, x]);
                    if let Some(bias) = weights.bias {
                        sum += f64::from(bias[channel as usize]);
                        magnitude += f64::from(bias[channel as usize]).abs();
                    }
                    let added = residual.get(values.len()).copied().unwrap_or(0.0);
                    let after = conv.residual == Some(Residual::AfterActivation);
                    let activated = activate(conv.activation, if after { sum } else { sum + added });
                    values.push(if after { activated + added } else { activated });
                    // An activation may give more than it takes. Then its output counts as a term.
                    let taken = (magnitude + if after { 0.0 } else { added.abs() }) * gain(conv.activation);
                    magnitudes.push(taken.max(activated.abs()) + if after { added.abs() } else { 0.0 });
                }
            }
        }
    }
    Ok(Answer { values, terms: magnitudes.clone(), magnitudes, shape, is_stored_exactly: true })
}

/// The weighted sum under one output, and the sum of its terms' magnitudes.
fn dot(conv: &Conv2d, input: &[f64], shape: Shape, weight: &[f32], [batch, channel, y, x]: [u32; 4]) -> (f64, f64) {
    let [rows, columns] = conv.kernel_size;
    let (group_in, group_out) = (conv.group_in_channels(), conv.group_out_channels());
    let group = channel / group_out;
    let (mut sum, mut magnitude) = (0.0, 0.0);
    for ic in 0..group_in {
        for row in 0..rows {
            for column in 0..columns {
                let from_top = i64::from(y * conv.stride[0] + row * conv.dilation[0]) - i64::from(conv.padding[0]);
                let from_left = i64::from(x * conv.stride[1] + column * conv.dilation[1]) - i64::from(conv.padding[1]);
                if (0..i64::from(shape.height)).contains(&from_top) && (0..i64::from(shape.width)).contains(&from_left)
                {
                    let plane = batch as usize * shape.channels as usize + (group * group_in + ic) as usize;
                    let pixel = from_top as usize * shape.width as usize + from_left as usize;
                    let weight_row =
                        (channel as usize * group_in as usize + ic as usize) * rows as usize + row as usize;
                    let w = f64::from(weight[weight_row * columns as usize + column as usize]);
                    let term = input[plane * shape.pixels() as usize + pixel] * w;
                    sum += term;
                    magnitude += term.abs();
                }
            }
        }
    }
    (sum, magnitude)
}

/// A whole chain on NCHW data; gives the answer of its last link. `weights` has an entry for each convolution,
/// `residual` is the tensor from outside. [`run_scaled`] takes a scale from outside as well.
///
/// What is given counts as it is stored in the chain's element type: for f16 it is rounded first. Nothing else is
/// rounded, neither sums nor the tensors between links nor the answer.
///
/// ```
/// use gpuconv::{Chain, Conv2d, Weights, oracle};
/// let chain = Chain::from(Conv2d::new(1, 1, [1, 2]).bias(false));
/// let weights = [Weights::without_bias(&[-1.0, 1.0])];
/// let answer = oracle::run(&chain, &[1.0, 2.0, 4.0], [1, 1, 1, 3], &weights, None)?;
/// assert_eq!((answer.values, answer.magnitudes), (vec![1.0, 2.0], vec![3.0, 6.0]));
/// # Ok::<(), gpuconv::Error>(())
/// ```
///
/// # Errors
/// As [`convolve`], and [`Chain::shapes`].
pub fn run(
    chain: &Chain,
    input: &[f32],
    input_shape: impl Into<Shape>,
    weights: &[Weights<'_>],
    residual: Option<&[f32]>,
) -> Result<Answer> {
    run_scaled(chain, input, input_shape, weights, residual, None)
}

/// As [`run`], for a chain that takes a scale from outside, a value for each image and channel.
///
/// # Errors
/// As [`run`].
pub fn run_scaled(
    chain: &Chain,
    input: &[f32],
    input_shape: impl Into<Shape>,
    weights: &[Weights<'_>],
    residual: Option<&[f32]>,
    scale: Option<&[f32]>,
) -> Result<Answer> {
    let input_shape = input_shape.into();
    let shapes = chain.shapes(input_shape)?;
    check_weights(chain, weights)?;
    let dtype = chain.dtype();
    let stored: Vec<_> =
        weights.iter().map(|own| (dtype.stored(own.weight), own.bias.map(|b| dtype.stored(b)))).collect();
    let weights: Vec<_> = stored.iter().map(|(weight, bias)| Weights { weight, bias: bias.as_deref() }).collect();
    let widen = |dtype: DType, values: &[f32]| dtype.stored(values).iter().copied().map(f64::from).collect::<Vec<_>>();
    let [outside, outside_scale] = [residual, scale].map(|values| values.map(|values| widen(dtype, values)));
    let [of_input, _] = chain.ends();
    let mut tensors = vec![Tensor { values: widen(of_input, input), magnitudes: None }];
    let (values, terms, magnitudes) = (Vec::new(), Vec::new(), Vec::new());
    let mut answer = Answer { values, terms, magnitudes, shape: input_shape, is_stored_exactly: true };
    for (index, link) in chain.links().iter().enumerate() {
        let source = chain.input_of(index);
        let (input, shape) = (&tensors[source], shapes[source]);
        let own = chain.of_links(&(index..index + 1), &weights);
        let added = chain.source(index).map(|tensor| &tensors[tensor]);
        let scale = chain.scale_of(index).map(|tensor| &tensors[tensor]);
        let mut made = None;
        if link.is_scaled() {
            let values = scale.map(|scale| &scale.values).or(outside_scale.as_ref());
            let values = values.map_or(&[][..], Vec::as_slice);
            length("scale".into(), scale_shape(shape).len(), values.len())?;
            made = Some(input.scaled(values, scale.and_then(|scale| scale.magnitudes.as_deref()), shape));
        }
        if let Link::Concat(_) = link {
            let parts: Vec<_> = chain.concatenated(index).into_iter().map(|at| (&tensors[at], shapes[at])).collect();
            made = Some(moved::joined(&parts)?);
        }
        let input = made.as_ref().unwrap_or(input);
        let mut next = match (link, &own[..]) {
            (Link::Conv(conv), &[weights]) => {
                let added = added.map(|tensor| &tensor.values).or(outside.as_ref());
                convolve(conv, &input.values, shape, weights, added.map(Vec::as_slice))?
            }
            (Link::SqueezeExcite(excite), &[first, second]) => gate(excite, &input.values, shape, [first, second])?,
            (Link::ConvTranspose(own), &[weights]) => convolve_transposed(own, &input.values, shape, weights)?,
            (Link::PRelu(own), &[weights]) => prelu(own, &input.values, shape, weights)?,
            (Link::Pool(own), _) => pool(own, &input.values, shape)?,
            (Link::PixelShuffle { factor }, _) => pixel_shuffle(*factor, &input.values, shape)?,
            (Link::PixelUnshuffle { factor }, _) => pixel_unshuffle(*factor, &input.values, shape)?,
            (Link::Resize(own), _) => resize(own, &input.values, shape)?,
            (Link::Slice { channels }, _) => slice(channels, &input.values, shape)?,
            (Link::Concat(_), _) => concat(&[(&input.values[..], shapes[index + 1])])?,
            (Link::PlaneSum { divisor, .. }, _) => plane_sum(&input.values, shape, (*divisor).into())?,
            _ => global_average_pool(&input.values, shape)?,
        };
        if let Some(magnitudes) = &input.magnitudes {
            // An error of the input grows with the weights; the scale of the sum follows it.
            let spread = match (link, &own[..]) {
                (Link::Conv(conv), &[weights]) => spread(conv, magnitudes, shape, weights)?,
                (Link::SqueezeExcite(gate), &[first, second]) => {
                    let means = means(gate, magnitudes, shape)?;
                    let squeezed = spread(&gate.squeeze, &means.values, means.shape, first)?;
                    spread(&gate.excite, &squeezed, gate.squeeze.output_shape(means.shape)?, second)?
                }
                (Link::ConvTranspose(own), &[weights]) => transposed::spread(own, magnitudes, shape, weights)?,
                (Link::PRelu(own), &[weights]) => prelu::spread(own, magnitudes, shape, weights)?,
                // Means of magnitudes, or the largest.
                (Link::Pool(own), _) => pool(own, magnitudes, shape)?.values,
                (Link::PixelShuffle { factor }, _) => pixel_shuffle(*factor, magnitudes, shape)?.values,
                (Link::PixelUnshuffle { factor }, _) => pixel_unshuffle(*factor, magnitudes, shape)?.values,
                (Link::Resize(own), _) => resize(own, magnitudes, shape)?.values,
                (Link::Slice { channels }, _) => slice(channels, magnitudes, shape)?.values,
                (Link::Concat(_), _) => magnitudes.clone(),
                (Link::PlaneSum { divisor, .. }, _) => plane_sum(magnitudes, shape, (*divisor).into())?.values,
                _ => global_average_pool(magnitudes, shape)?.values,
            };
            add(&mut next.magnitudes, &spread);
        }
        if let Some(magnitudes) = added.and_then(|tensor| tensor.magnitudes.as_deref()) {
            add(&mut next.magnitudes, magnitudes);
        }
        if let (Link::PRelu(own), &[weights], true) = (link, &own[..], index > 0 && source == index) {
            // A kernel may compute it with the link before it, whose terms are then its own.
            next.terms = prelu::spread(own, &answer.terms, shape, weights)?;
        }
        if index > 0 {
            let is_kept = |&value: &f64| dtype.nearest(value) == value;
            next.is_stored_exactly = answer.is_stored_exactly && answer.values.iter().all(is_kept);
        }
        tensors.push(Tensor { values: next.values.clone(), magnitudes: Some(next.magnitudes.clone()) });
        answer = next;
    }
    Ok(answer)
}

/// A tensor of a chain, NCHW.
struct Tensor {
    values: Vec<f64>,
    /// The scales of its rounding errors; none if it has none.
    magnitudes: Option<Vec<f64>>,
}

impl Tensor {
    /// The tensor times a value for each plane, whose errors have these magnitudes.
    fn scaled(&self, scale: &[f64], of_scale: Option<&[f64]>, shape: Shape) -> Self {
        let pixels = (shape.pixels() as usize).max(1);
        let times = |values: &[f64], scale: &[f64]| -> Vec<f64> {
            let planes = values.chunks(pixels).zip(scale);
            planes.flat_map(|(plane, scale)| plane.iter().map(move |value| value * scale)).collect()
        };
        let sizes = |values: &[f64]| values.iter().map(|value| value.abs()).collect::<Vec<_>>();
        let mut magnitudes = self.magnitudes.as_ref().map(|own| times(own, &sizes(scale)));
        if let Some(of_scale) = of_scale {
            let more = times(&sizes(&self.values), of_scale);
            match &mut magnitudes {
                Some(magnitudes) => add(magnitudes, &more),
                None => magnitudes = Some(more),
            }
        }
        Self { values: times(&self.values, scale), magnitudes }
    }
}

fn add(values: &mut [f64], others: &[f64]) {
    values.iter_mut().zip(others).for_each(|(value, other)| *value += other);
}

/// A gate on NCHW data: the means of the planes, and two convolutions of these.
///
/// # Errors
/// What [`SqueezeExcite::output_shape`] and [`Weights::check`] say; [`Error::Length`](crate::Error::Length).
pub fn gate(
    gate: &SqueezeExcite,
    input: &[f64],
    input_shape: impl Into<Shape>,
    [squeeze, excite]: [Weights<'_>; 2],
) -> Result<Answer> {
    let input_shape = input_shape.into();
    gate.output_shape(input_shape)?;
    let means = means(gate, input, input_shape)?;
    let mut squeezed = convolve(&gate.squeeze, &means.values, means.shape, squeeze, None)?;
    add(&mut squeezed.magnitudes, &spread(&gate.squeeze, &means.magnitudes, means.shape, squeeze)?);
    let mut answer = convolve(&gate.excite, &squeezed.values, squeezed.shape, excite, None)?;
    add(&mut answer.magnitudes, &spread(&gate.excite, &squeezed.magnitudes, squeezed.shape, excite)?);
    Ok(answer)
}

/// Carries the magnitudes of a link's input through its weights.
fn spread(conv: &Conv2d, magnitudes: &[f64], shape: Shape, weights: Weights<'_>) -> Result<Vec<f64>> {
    let bare = Conv2d { activation: Activation::None, residual: None, bias: false, scaled: false, ..conv.clone() };
    let weight: Vec<_> = weights.weight.iter().map(|w| w.abs()).collect();
    Ok(convolve(&bare, magnitudes, shape, Weights::without_bias(&weight), None)?.values)
}

/// The mean over the pixels of each channel of each image, on NCHW data.
///
/// # Errors
/// What [`Link::output_shape`] says; [`Error::Length`](crate::Error::Length).
pub fn global_average_pool(input: &[f64], input_shape: impl Into<Shape>) -> Result<Answer> {
    let input_shape = input_shape.into();
    plane_sum(input, input_shape, input_shape.pixels())
}

/// The means that a gate reads: of its input, or sums that add up to them.
fn means(gate: &SqueezeExcite, input: &[f64], shape: Shape) -> Result<Answer> {
    if gate.of_sums { plane_sum(input, shape, 1) } else { global_average_pool(input, shape) }
}

/// The sum over the pixels of each channel of each image, divided by a number.
fn plane_sum(input: &[f64], input_shape: Shape, divisor: u64) -> Result<Answer> {
    let shape = Link::GlobalAveragePool.output_shape(input_shape)?;
    length("input".into(), input_shape.len(), input.len())?;
    let planes = || input.chunks_exact(input_shape.pixels() as usize);
    let divided = |sum: f64| sum / divisor as f64;
    let terms: Vec<_> = planes().map(|plane| divided(plane.iter().map(|value| value.abs()).sum())).collect();
    Ok(Answer {
        values: planes().map(|plane| divided(plane.iter().sum())).collect(),
        magnitudes: terms.clone(),
        terms,
        shape,
        is_stored_exactly: true,
    })
}

/// The activation of a value.
pub fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Relu => clamp(x, 0.0, f64::INFINITY),
        Activation::Relu6 => clamp(x, 0.0, 6.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::HardSwish => x * clamp(x + 3.0, 0.0, 6.0) / 6.0,
        Activation::Clamp(low, high) => clamp(x, low.into(), high.into()),
        Activation::LeakyRelu(slope) => x * if x > 0.0 { 1.0 } else { f64::from(slope) },
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::HardSigmoid => clamp(x + 3.0, 0.0, 6.0) / 6.0,
        Activation::Tanh => x.tanh(),
        Activation::Gelu => x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)) / 2.0,
    }
}

/// How many times an error of its input an activation can give, where that may be more than the judge forgives.
fn gain(activation: Activation) -> f64 {
    match activation {
        Activation::LeakyRelu(slope) => f64::from(slope).abs().max(1.0),
        _ => 1.0,
    }
}

/// `min(max(x, low), high)` as PyTorch's: NaN stays NaN, and `high` wins where `low` is above it.
fn clamp(x: f64, low: f64, high: f64) -> f64 {
    let raised = if x < low { low } else { x };
    if raised > high { high } else { raised }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dtype::DType;
    use crate::model::error::Error;

    #[test]
    fn a_convolution_worked_out_by_hand() {
        // 2x2 kernel on 1..9, one row of padding at the top.
        let conv = Conv2d::new(1, 1, 2).padding([1, 0, 0, 0]);
        let input: Vec<f64> = (1..=9).map(f64::from).collect();
        let weights = Weights::new(&[1.0, 2.0, 3.0, 4.0], &[0.5]);
        let answer = convolve(&conv, &input, [1, 1, 3, 3], weights, None).unwrap();
        assert_eq!(answer.shape, [1, 1, 3, 2].into());
        assert_eq!(answer.values, [11.5, 18.5, 37.5, 47.5, 67.5, 77.5]);
    }

    #[test]
    fn groups_strides_and_dilations_worked_out_by_hand() {
        let conv = Conv2d::new(2, 2, [1, 2]).groups(2).dilation([1, 2]).stride([1, 2]);
        let input: Vec<f64> = (0..10).map(f64::from).collect();
        let answer =
            convolve(&conv.bias(false), &input, [1, 2, 1, 5], Weights::without_bias(&[1.0, 10.0, 2.0, 1.0]), None);
        assert_eq!(answer.unwrap().values, [20.0, 42.0, 17.0, 23.0]);
    }

    #[test]
    fn a_pool_worked_out_by_hand() {
        let input = [1.0, 2.0, 3.0, -6.0, 0.0, 0.0, 0.0, 2.0];
        let answer = global_average_pool(&input, [2, 1, 2, 2]).unwrap();
        assert_eq!((answer.shape, answer.values), ([2, 1, 1, 1].into(), vec![0.0, 0.5]));
        assert_eq!(answer.magnitudes, [3.0, 0.5]);
        let empty = global_average_pool(&[], [1, 1, 0, 2]);
        assert!(matches!(empty, Err(Error::EmptyInput { .. })));
    }

    #[test]
    fn a_gate_and_what_it_scales_worked_out_by_hand() {
        // Means of 2 and -1; squeezed to max(2 - (-1) + 1, 0) = 4 and max(-3, 0) = 0.
        let input = [1.0, 3.0, -2.0, 0.0];
        let squeeze = Weights::new(&[1.0, -1.0, -1.0, 1.0], &[1.0, 0.0]);
        // 4 * 0.25 - 1 and -4 / 2 + 1: hard sigmoids of 0 and -1.
        let excite = Weights::new(&[0.25, 9.0, -0.5, 9.0], &[-1.0, 1.0]);
        let own = SqueezeExcite::new(2, 2).activations(Activation::Relu, Activation::HardSigmoid);
        let answer = gate(&own, &input.map(f64::from), [1, 2, 1, 2], [squeeze, excite]).unwrap();
        assert_eq!((answer.values, answer.shape), (vec![0.5, 2.0 / 6.0], [1, 2, 1, 1].into()));
        let chain = Chain::new([Link::from(own), Conv2d::pointwise(2, 1).bias(false).into()]);
        let chain = chain.reads(0, 1).unwrap().scales(1, 1).unwrap();
        let weights = [squeeze, excite, Weights::without_bias(&[2.0, 3.0])];
        let answer = run(&chain, &input, [1, 2, 1, 2], &weights, None).unwrap();
        assert_eq!(answer.values, [1.0 - 2.0, 3.0]);
        // The same scale from outside.
        let alone = Chain::from(Conv2d::pointwise(2, 1).bias(false).scaled(true));
        let scaled = |scale| run_scaled(&alone, &input, [1, 2, 1, 2], &weights[2..], None, scale);
        assert_eq!(scaled(Some(&[0.5, 0.25])).unwrap().values, [-0.5, 3.0]);
        assert!(matches!(scaled(None), Err(Error::Length { expected: 2, actual: 0, .. })));
    }

    #[test]
    fn a_link_reads_the_tensor_that_it_is_told_to() {
        // 10x + (x * 2) * 3, the sum of two branches.
        let links = [2.0, 3.0, 10.0].map(|_| Conv2d::pointwise(1, 1).bias(false));
        let chain = Chain::new(links).reads(0, 2).unwrap().edge(2, 2, Residual::AfterActivation).unwrap();
        let weights = [2.0f32, 3.0, 10.0].map(|weight| [weight]);
        let weights: Vec<_> = weights.iter().map(|weight| Weights::without_bias(weight)).collect();
        let answer = run(&chain, &[5.0], [1, 1, 1, 1], &weights, None).unwrap();
        assert_eq!(answer.values, [80.0]);
        // The error of the branch is one of the sum.
        assert!(answer.magnitudes[0] >= 80.0 + 30.0, "{:?}", answer.magnitudes);
    }

    #[test]
    fn what_is_given_in_f16_is_rounded_and_nothing_else() {
        // 2049 lies half way between 2048 and 2050.
        let weights = [Weights::new(&[2049.0], &[0.1]), Weights::without_bias(&[1.0])];
        let chain = |dtype| {
            Chain::new([
                Conv2d::pointwise(1, 1),
                Conv2d::pointwise(1, 1).bias(false).residual(Residual::AfterActivation),
            ])
            .with_dtype(dtype)
        };
        let run = |dtype, x| run(&chain(dtype), &[x], [1, 1, 1, 1], &weights, Some(&[2051.0])).unwrap();
        let half = run(DType::F16, 1.0 / 3.0);
        let third = f64::from(half::f16::from_f32(1.0 / 3.0).to_f32());
        assert_eq!(half.values, [2048.0 * third + DType::F16.nearest(0.1) + 2052.0]);
        assert_eq!(run(DType::F32, 1.0).values, [2049.0 + f64::from(0.1f32) + 2051.0]);
        // The value between the links is no f16; 0.0999755859375 is.
        assert!(!half.is_stored_exactly && run(DType::F16, 0.0).is_stored_exactly);
    }

    #[test]
    fn activations_at_their_knees() {
        let relu6 = |x| activate(Activation::Relu6, x);
        assert_eq!([relu6(-1.0), relu6(3.0), relu6(7.0)], [0.0, 3.0, 6.0]);
        assert_eq!(activate(Activation::HardSwish, 3.0), 3.0);
        assert_eq!(activate(Activation::HardSwish, -3.0), 0.0);
        assert_eq!(activate(Activation::HardSwish, 1.0), 4.0 / 6.0);
        assert!((activate(Activation::Silu, 1.0) - 0.731_058_578_630_004_9).abs() < 1e-15);
        assert_eq!(activate(Activation::Clamp(2.0, 1.0), 5.0), 1.0);
        assert_eq!([-2.0, 0.0, 2.0].map(|x| activate(Activation::LeakyRelu(0.25), x)), [-0.5, 0.0, 2.0]);
        assert_eq!([-3.5, 0.0, 1.5, 4.0].map(|x| activate(Activation::HardSigmoid, x)), [0.0, 0.5, 0.75, 1.0]);
        assert!((activate(Activation::Sigmoid, 1.0) - 0.731_058_578_630_004_9).abs() < 1e-15);
        assert!((activate(Activation::Tanh, 1.0) - 0.761_594_155_955_764_9).abs() < 1e-15);
        assert!((activate(Activation::Gelu, 1.0) - 0.841_344_746_068_542_9).abs() < 1e-15);
        assert!((activate(Activation::Gelu, -1.0) + 0.158_655_253_931_457_1).abs() < 1e-15);
        assert!(activate(Activation::Relu, f64::NAN).is_nan());
    }

    #[test]
    fn a_residual_is_added_where_it_should() {
        let one = Weights::without_bias(&[1.0]);
        let conv = Conv2d::pointwise(1, 1).bias(false).activation(Activation::Relu);
        let added = |residual| {
            let conv = conv.clone().residual(residual);
            convolve(&conv, &[-1.0], [1, 1, 1, 1], one, Some(&[0.5])).unwrap().values[0]
        };
        assert_eq!(added(Residual::BeforeActivation), 0.0);
        assert_eq!(added(Residual::AfterActivation), 0.5);
    }
}
