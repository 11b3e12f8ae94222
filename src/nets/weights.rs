//! Weights of networks from safetensors files, by the names that timm and torchvision publish.

use std::collections::BTreeSet;

use safetensors::{Dtype, SafeTensors};

use super::{Names, Network};
use crate::batch_norm::{BatchNorm, OwnedWeights};
use crate::conv::Conv2d;
use crate::error::{Error, Result};
use crate::reference::Weights;

/// PyTorch's, which both publishers keep.
const EPS: f64 = 1e-5;

impl Network {
    /// The weights of the network's convolutions from the bytes of a safetensors file, batch norms folded into them.
    ///
    /// The names are timm's (`mobilenetv1_100`, `mobilenetv2_100`) or torchvision's (`mobilenet_v2`), whichever the
    /// file has. `num_batches_tracked`, which only training needs, is passed over.
    ///
    /// # Errors
    /// [`Error::NotSafetensors`]; [`Error::MissingTensor`], [`Error::SurplusTensor`], [`Error::TensorShape`] and
    /// [`Error::TensorType`] for the first tensor that is not as the network has it; what
    /// [`Weights::fold_batch_norm`] says.
    pub fn weights(&self, file: &[u8]) -> Result<Vec<OwnedWeights>> {
        let mut file = File::read(file)?;
        let is_torchvision = self.torchvision.iter().any(|names| file.has(&format!("{}.weight", names.conv)));
        let names = if is_torchvision { &self.torchvision } else { &self.timm };
        let convolutions = names.iter().zip(self.chain.convolutions());
        let weights = convolutions.map(|(names, (_, conv))| file.convolution(names, conv)).collect::<Result<_>>()?;
        file.is_used_up()?;
        Ok(weights)
    }
}

/// A file, and the tensors of it that nobody has asked for.
struct File<'a> {
    tensors: SafeTensors<'a>,
    unused: BTreeSet<String>,
}

impl<'a> File<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| Error::NotSafetensors(error.to_string()))?;
        let unused = tensors.names().into_iter().map(String::from).collect();
        Ok(Self { tensors, unused })
    }

    fn has(&self, name: &str) -> bool {
        self.tensors.tensor(name).is_ok()
    }

    fn convolution(&mut self, names: &Names, conv: &Conv2d) -> Result<OwnedWeights> {
        let channels = [conv.out_channels as usize];
        let shape = <[u32; 4]>::from(conv.weight_shape()).map(|extent| extent as usize);
        // A classifier is a matrix.
        let rank = if names.norm.is_some() { 4 } else { 2 };
        let weight = self.values(&format!("{}.weight", names.conv), &shape[..rank])?;
        let Some(norm) = &names.norm else {
            let bias = self.values(&format!("{}.bias", names.conv), &channels)?;
            return Ok(OwnedWeights { weight, bias: Some(bias) });
        };
        let mut values = |part| self.values(&format!("{norm}.{part}"), &channels);
        let (scale, bias) = (values("weight")?, values("bias")?);
        let (mean, variance) = (values("running_mean")?, values("running_var")?);
        self.unused.remove(&format!("{norm}.num_batches_tracked"));
        let norm = BatchNorm { weight: &scale, bias: &bias, running_mean: &mean, running_var: &variance, eps: EPS };
        Weights::without_bias(&weight).fold_batch_norm(&norm)
    }

    fn values(&mut self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        let missing = |_| Error::MissingTensor { name: name.into(), expected: expected.to_vec() };
        let tensor = self.tensors.tensor(name).map_err(missing)?;
        if tensor.shape() != expected {
            let (expected, actual) = (expected.to_vec(), tensor.shape().to_vec());
            return Err(Error::TensorShape { name: name.into(), expected, actual });
        }
        if tensor.dtype() != Dtype::F32 {
            return Err(Error::TensorType { name: name.into(), actual: format!("{:?}", tensor.dtype()) });
        }
        self.unused.remove(name);
        // The file is little-endian, and a tensor in it may start at any byte.
        let float = |bytes: &[u8]| bytes.try_into().map_or(f32::NAN, f32::from_le_bytes);
        Ok(tensor.data().chunks_exact(4).map(float).collect())
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
