//! Weights of networks from safetensors files, by the names that timm and torchvision publish.

use std::collections::BTreeSet;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

use super::{Branch, Names, Network};
use crate::model::batch_norm::{BatchNorm, OwnedWeights};
use crate::model::chain::Link;
use crate::model::conv::Conv2d;
use crate::model::error::{Cause, Error, Result};
use crate::model::weights::Weights;

/// Prefixes that programs put before all names of tensors: PyTorch's `DataParallel` and `compile`, training frameworks,
/// checkpoints that hold more than weights.
const WRAPPERS: [&str; 7] = ["module", "model", "backbone", "_orig_mod", "state_dict", "params", "params_ema"];

impl Network {
    /// The weights of the network's convolutions from the bytes of a safetensors file, batch norms folded into them.
    ///
    /// The names are timm's (`mobilenetv1_100`, `mobilenetv2_100`, …) or torchvision's (`mobilenet_v2`, …), or those of
    /// [`Network::publishers`]. Branches are those that training has, not what timm makes of them (`reparam_conv`). If all
    /// names begin with `module.`, `model.`, `backbone.`, `_orig_mod.`, `state_dict.`, `params.` or `params_ema.`, or several
    /// of these, the prefix is dropped. `num_batches_tracked` is ignored: only training needs it.
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
            _ if names.is_ones => {
                Ok(OwnedWeights { weight: vec![1.0; conv.weight_shape().len() as usize], bias: None })
            }
            _ => file.convolution(names, conv),
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
                .flat_map(|names| std::iter::once(&names.conv).chain(&names.norm));
            let ends = parts.map(|part| format!("{part}.weight"));
            ends.filter(|end| unused.iter().any(|name| name.ends_with(end))).count()
        };
        let [timm, others] = published;
        let is_others = timm.1.is_empty() || known(others.1) > known(timm.1);
        let (publisher, names, eps) = if is_others { others } else { timm };
        let prefix = wrapping(&unused, names);
        Ok(Self { tensors, unused, publisher, names, eps, prefix })
    }

    /// Those of a PReLU, a vector.
    fn slopes(&mut self, names: &Names, conv: &Conv2d) -> Result<OwnedWeights> {
        let weight = self.values(&format!("{}.weight", names.conv), &[conv.out_channels as usize])?;
        Ok(OwnedWeights { weight, bias: None })
    }

    fn convolution(&mut self, names: &Names, conv: &Conv2d) -> Result<OwnedWeights> {
        let channels = [conv.out_channels as usize];
        let shape = <[u32; 4]>::from(conv.weight_shape()).map(|extent| extent as usize);
        let rank = if names.is_matrix { 2 } else { 4 };
        let weight = self.values(&format!("{}.weight", names.conv), &shape[..rank])?;
        let Some(norm) = &names.norm else {
            let bias = match conv.bias {
                true => Some(self.values(&format!("{}.bias", names.conv), &channels)?),
                false => None,
            };
            return Ok(OwnedWeights { weight, bias });
        };
        let eps = if names.own_eps { super::EPS } else { self.eps };
        let mut sum = self.normed(&weight, (norm, eps), conv)?;
        for Branch { conv: of_branch, norm } in &names.branches {
            let weight = match of_branch {
                Some((name, size)) => {
                    let size = *size as usize;
                    let weight = self.values(&format!("{name}.weight"), &[shape[0], shape[1], size, size])?;
                    centred(&weight, size, conv)
                }
                None => identity(conv),
            };
            let part = self.normed(&weight, (norm, eps), conv)?;
            let add = |sum: &mut [f32], part: &[f32]| sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            add(&mut sum.weight, &part.weight);
            if let (Some(sum), Some(part)) = (&mut sum.bias, &part.bias) {
                add(sum, part);
            }
        }
        Ok(sum)
    }

    /// A convolution's weight with the batch norm of this name, and its constant, folded into it.
    fn normed(&mut self, weight: &[f32], (norm, eps): (&str, f64), conv: &Conv2d) -> Result<OwnedWeights> {
        let channels = [conv.out_channels as usize];
        let mut values = |part| self.values(&format!("{norm}.{part}"), &channels);
        let (scale, bias) = (values("weight")?, values("bias")?);
        let (mean, variance) = (values("running_mean")?, values("running_var")?);
        self.unused.remove(&format!("{}{norm}.num_batches_tracked", self.prefix));
        let norm = BatchNorm { weight: &scale, bias: &bias, running_mean: &mean, running_var: &variance, eps };
        Weights::without_bias(weight).fold_batch_norm(&norm)
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
