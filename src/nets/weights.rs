//! Weights of networks from safetensors files, by the names that timm and torchvision publish.

use std::collections::BTreeSet;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

use super::{Branch, Fold, Names, Network};
use crate::model::batch_norm::{BatchNorm, OwnedWeights};
use crate::model::chain::Link;
use crate::model::conv::Conv2d;
use crate::model::error::{Cause, Error, Result};
use crate::model::shape::Shape;
use crate::model::weights::Weights;

/// Prefixes that programs put before all names of tensors: PyTorch's `DataParallel` and `compile`, training frameworks,
/// checkpoints that hold more than weights.
const WRAPPERS: [&str; 7] = ["module", "model", "backbone", "_orig_mod", "state_dict", "params", "params_ema"];

impl Network {
    /// The weights of the network's convolutions from the bytes of a safetensors file, batch norms folded into them.
    ///
    /// The names are timm's (`mobilenetv1_100`, `mobilenetv2_100`, …) or torchvision's (`mobilenet_v2`, …), or those of
    /// [`Network::publishers`]. Branches are those that training has, or what their publisher makes of them for use
    /// (`reparam_conv`, `rbr_reparam`), in all blocks. If all names begin with `module.`, `model.`, `backbone.`,
    /// `_orig_mod.`, `state_dict.`, `params.` or `params_ema.`, or several of these, the prefix is dropped.
    /// `num_batches_tracked` is ignored: only training needs it.
    ///
    /// F16 and BF16 become the same numbers in f32, F64 the nearest.
    ///
    /// # Errors
    /// [`Error::NotSafetensors`]; [`Error::MissingTensor`], [`Error::SurplusTensor`], [`Error::TensorShape`] and
    /// [`Error::TensorType`] for the first tensor that is not as the network has it; what
    /// [`Weights::fold_batch_norm`] says.
    pub fn weights(&self, file: &[u8]) -> Result<Vec<OwnedWeights>> {
        let ([first, second], [eps, others]) = (self.publishers, self.eps);
        let mut file = File::read(file, [(first, &self.timm, eps), (second, &self.torchvision, others)])?;
        let convolutions = file.names.iter().zip(self.chain.convolutions());
        let weights = convolutions.map(|(names, (link, conv))| match &self.chain.links()[link] {
            Link::PRelu(_) => file.slopes(names, conv),
            link => file.convolution(names, link, conv),
        });
        let weights = weights.collect::<Result<_>>()?;
        file.is_used_up()?;
        Ok(weights)
    }
}

/// A file, and its tensors that are not read yet.
struct File<'a> {
    tensors: SafeTensors<'a>,
    unused: BTreeSet<String>,
    /// The publisher of its names, and the prefix before them.
    publisher: &'static str,
    names: &'a [Names],
    /// The constant in its batch norms.
    eps: f64,
    prefix: String,
    /// Whether batch norms and branches are folded, of networks that have branches.
    is_folded: bool,
}

impl<'a> File<'a> {
    fn read(bytes: &'a [u8], published: [(&'static str, &'a Vec<Names>, f64); 2]) -> Result<Self> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| Error::NotSafetensors(Cause::new(error)))?;
        let unused: BTreeSet<_> = tensors.names().into_iter().map(String::from).collect();
        // Compare the ends of names: the prefix may be none of the known ones.
        let known = |names: &[Names]| {
            let parts = names
                .iter()
                .filter(|names| !names.is_ones)
                .flat_map(|names| std::iter::once(&names.conv).chain(&names.norm).chain(&names.folded));
            let ends = parts.map(|part| format!("{part}.weight"));
            ends.filter(|end| unused.iter().any(|name| name.ends_with(end))).count()
        };
        let [timm, others] = published;
        let is_others = timm.1.is_empty() || known(others.1) > known(timm.1);
        let (publisher, names, eps) = if is_others { others } else { timm };
        let prefix = wrapping(&unused, names);
        let is_there = |name: &String| unused.contains(&format!("{prefix}{name}.weight"));
        let is_folded = names.iter().filter_map(|names| names.folded.as_ref()).any(is_there);
        Ok(Self { tensors, unused, publisher, names, eps, prefix, is_folded })
    }

    /// Those of a PReLU, a vector.
    fn slopes(&mut self, names: &Names, conv: &Conv2d) -> Result<OwnedWeights> {
        let weight = self.values(&format!("{}.weight", names.conv), &[conv.out_channels as usize])?;
        Ok(OwnedWeights { weight, bias: None })
    }

    /// The weights with all that is folded into them.
    fn convolution(&mut self, names: &Names, link: &Link, conv: &Conv2d) -> Result<OwnedWeights> {
        if let Some(folded) = names.folded.as_deref().filter(|_| self.is_folded) {
            return self.own(&Names::biased(folded), link, conv);
        }
        let own = self.own(names, link, conv)?;
        let mut weights = match &names.norm {
            Some(norm) => self.with_norms(&own, norm, names, conv)?,
            None => own,
        };
        for fold in &names.folds {
            match fold {
                Fold::Input(name) => fold_input(&mut weights, self.pair(name)?),
                Fold::Output(name) => fold_output(&mut weights, self.pair(name)?),
                Fold::Line(slope, offset) => fold_output(&mut weights, [*slope, *offset]),
            }
        }
        if let Link::ConvTranspose(transposed) = link {
            let [inputs, outputs, rows, columns] = extents(transposed.weight_shape());
            weights.weight = swapped(&weights.weight, [outputs, inputs, rows * columns]);
        }
        Ok(weights)
    }

    /// The tensors of a convolution without its norm. The weight is by output channels, also of a transposed
    /// convolution.
    fn own(&mut self, names: &Names, link: &Link, conv: &Conv2d) -> Result<OwnedWeights> {
        let (shape, channels) = (extents(conv.weight_shape()), [conv.out_channels as usize]);
        if names.is_ones {
            let weight = vec![1.0; shape.iter().product()];
            return Ok(OwnedWeights { weight, bias: conv.bias.then(|| vec![0.0; channels[0]]) });
        }
        let name = format!("{}.weight", names.conv);
        let weight = match link {
            Link::ConvTranspose(transposed) => {
                let shape @ [inputs, outputs, rows, columns] = extents(transposed.weight_shape());
                swapped(&self.values(&name, &shape)?, [inputs, outputs, rows * columns])
            }
            _ if names.is_matrix => self.values(&name, &shape[..2])?,
            _ => self.values(&name, &shape)?,
        };
        let has_bias = if names.norm.is_some() { names.has_bias } else { conv.bias };
        let bias = has_bias.then(|| self.values(&format!("{}.bias", names.conv), &channels)).transpose()?;
        Ok(OwnedWeights { weight, bias })
    }

    /// A convolution with its norm folded into it, and the branches beside it added.
    fn with_norms(&mut self, own: &OwnedWeights, norm: &str, names: &Names, conv: &Conv2d) -> Result<OwnedWeights> {
        let eps = if names.own_eps { super::EPS } else { self.eps };
        let mut sum = self.normed(own.borrow(), (norm, eps), conv)?;
        for Branch { conv: of_branch, norm } in &names.branches {
            let weight = match of_branch {
                Some((name, size)) => {
                    let ([outputs, inputs, ..], size) = (extents(conv.weight_shape()), *size as usize);
                    let weight = self.values(&format!("{name}.weight"), &[outputs, inputs, size, size])?;
                    centred(&weight, size, conv)
                }
                None => identity(conv),
            };
            let part = self.normed(Weights::without_bias(&weight), (norm, eps), conv)?;
            let add = |sum: &mut [f32], part: &[f32]| sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            add(&mut sum.weight, &part.weight);
            if let (Some(sum), Some(part)) = (&mut sum.bias, &part.bias) {
                add(sum, part);
            }
        }
        Ok(sum)
    }

    /// A convolution with the batch norm of this name, and its constant, folded into it.
    fn normed(&mut self, own: Weights<'_>, (norm, eps): (&str, f64), conv: &Conv2d) -> Result<OwnedWeights> {
        let channels = [conv.out_channels as usize];
        let mut values = |part| self.values(&format!("{norm}.{part}"), &channels);
        let (scale, bias) = (values("weight")?, values("bias")?);
        let (mean, variance) = (values("running_mean")?, values("running_var")?);
        self.unused.remove(&format!("{}{norm}.num_batches_tracked", self.prefix));
        let norm = BatchNorm { weight: &scale, bias: &bias, running_mean: &mean, running_var: &variance, eps };
        own.fold_batch_norm(&norm)
    }

    /// A number that multiplies, and one that is added.
    fn pair(&mut self, name: &str) -> Result<[f32; 2]> {
        let [scale, bias] = ["scale", "bias"].map(|part| self.values(&format!("{name}.{part}"), &[1]));
        let only = |values: Vec<f32>| values.first().copied().unwrap_or(f32::NAN);
        Ok([only(scale?), only(bias?)])
    }

    fn values(&mut self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        let name = format!("{}{name}", self.prefix);
        let Ok(tensor) = self.tensors.tensor(&name) else {
            return Err(Error::MissingTensor { name, publisher: self.publisher, expected: expected.to_vec() });
        };
        if tensor.shape() != expected {
            let (expected, actual) = (expected.to_vec(), tensor.shape().to_vec());
            return Err(Error::TensorShape { name, expected, actual });
        }
        self.unused.remove(&name);
        let bytes = tensor.data();
        match tensor.dtype() {
            Dtype::F32 => Ok(floats(bytes, f32::from_le_bytes)),
            Dtype::F16 => Ok(floats(bytes, |bytes| f16::from_le_bytes(bytes).to_f32())),
            Dtype::BF16 => Ok(floats(bytes, |bytes| bf16::from_le_bytes(bytes).to_f32())),
            Dtype::F64 => Ok(floats(bytes, |bytes| f64::from_le_bytes(bytes) as f32)),
            other => Err(Error::TensorType { name, actual: format!("{other:?}") }),
        }
    }

    fn is_used_up(&self) -> Result<()> {
        match self.unused.first() {
            None => Ok(()),
            Some(name) => {
                let actual = self.tensors.tensor(name).map(|tensor| tensor.shape().to_vec()).unwrap_or_default();
                Err(Error::SurplusTensor { name: name.clone(), actual })
            }
        }
    }
}

/// The longest run of known prefixes that all names begin with.
fn wrapping(tensors: &BTreeSet<String>, names: &[Names]) -> String {
    let mut prefix = String::new();
    for word in tensors.first().map_or("", String::as_str).split('.') {
        let longer = format!("{prefix}{word}.");
        // A network's own names may begin with such a word.
        let is_whole = names.iter().any(|names| tensors.contains(&format!("{prefix}{}.weight", names.conv)));
        if is_whole || !WRAPPERS.contains(&word) || !tensors.iter().all(|name| name.starts_with(&longer)) {
            break;
        }
        prefix = longer;
    }
    prefix
}

fn extents(shape: Shape) -> [usize; 4] {
    <[u32; 4]>::from(shape).map(|extent| extent as usize)
}

/// Has a convolution multiply its input by a number and add another, for all channels the same.
fn fold_input(weights: &mut OwnedWeights, [scale, offset]: [f32; 2]) {
    let biases = weights.bias.as_deref_mut().unwrap_or_default();
    let fan_in = weights.weight.len() / biases.len().max(1);
    for (bias, taps) in biases.iter_mut().zip(weights.weight.chunks_exact(fan_in.max(1))) {
        *bias += (taps.iter().map(|&tap| f64::from(tap)).sum::<f64>() * f64::from(offset)) as f32;
    }
    weights.weight.iter_mut().for_each(|weight| *weight *= scale);
}

/// Has a convolution multiply its output by a number and add another.
fn fold_output(weights: &mut OwnedWeights, [scale, offset]: [f32; 2]) {
    weights.weight.iter_mut().for_each(|weight| *weight *= scale);
    weights.bias.iter_mut().flatten().for_each(|bias| *bias = *bias * scale + offset);
}

/// The values of a tensor with its first two extents swapped. What its other extents have stays together.
fn swapped(values: &[f32], [first, second, rest]: [usize; 3]) -> Vec<f32> {
    let pairs = (0..second).flat_map(|b| (0..first).map(move |a| (a * second + b) * rest));
    pairs.flat_map(|at| values[at..at + rest].iter().copied()).collect()
}

/// Kernels of some rows and columns in the middle of a convolution's, with zeros around them.
fn centred(weight: &[f32], size: usize, conv: &Conv2d) -> Vec<f32> {
    let [rows, columns] = conv.kernel_size.map(|extent| extent as usize);
    let [top, left] = [rows, columns].map(|extent| extent.saturating_sub(size) / 2);
    let inside = |row: usize, column: usize| (top..top + size).contains(&row) && (left..left + size).contains(&column);
    let taps = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    let of_kernel = |kernel: &[f32]| -> Vec<f32> {
        let at = |row: usize, column: usize| kernel[(row - top) * size + column - left];
        taps.clone().map(|(row, column)| if inside(row, column) { at(row, column) } else { 0.0 }).collect()
    };
    weight.chunks_exact((size * size).max(1)).flat_map(of_kernel).collect()
}

/// The weight of a convolution whose outputs are its inputs.
fn identity(conv: &Conv2d) -> Vec<f32> {
    let (inputs, outputs) = (conv.group_in_channels(), conv.group_out_channels().max(1));
    let pairs = (0..conv.out_channels).flat_map(|output| (0..inputs).map(move |input| (output, input)));
    let ones: Vec<_> = pairs.map(|(output, input)| if output % outputs == input { 1.0 } else { 0.0 }).collect();
    centred(&ones, 1, conv)
}

/// The values of a tensor, which are little-endian and may start at any byte.
fn floats<const BYTES: usize>(bytes: &[u8], float: impl Fn([u8; BYTES]) -> f32) -> Vec<f32> {
    bytes.chunks_exact(BYTES).map(|bytes| bytes.try_into().map_or(f32::NAN, &float)).collect()
}
