//! Weights of convolutions, as PyTorch orders them.

use crate::model::chain::Chain;
use crate::model::conv::Conv2d;
use crate::model::error::{Error, Result};

/// A convolution's weights: `weight` in PyTorch's order (out channels, in channels of a group, rows, columns),
/// `bias` one value an output channel, if the convolution has a bias.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    /// The weights, in PyTorch's order: [`Conv2d::weight_shape`] of them, of a transposed convolution
    /// [`ConvTranspose2d::weight_shape`](crate::ConvTranspose2d::weight_shape), of a PReLU a slope for each channel.
    pub weight: &'a [f32],
    /// The biases, `out_channels` of them.
    pub bias: Option<&'a [f32]>,
}

impl<'a> Weights<'a> {
    /// Weights with a bias.
    pub fn new(weight: &'a [f32], bias: &'a [f32]) -> Self {
        Self { weight, bias: Some(bias) }
    }

    /// Weights without a bias.
    pub fn without_bias(weight: &'a [f32]) -> Self {
        Self { weight, bias: None }
    }

    /// Checks the lengths.
    ///
    /// # Errors
    /// [`Error::Length`].
    pub fn check(&self, link: usize, conv: &Conv2d) -> Result<()> {
        length(format!("weight of link {link}"), conv.weight_shape().len(), self.weight.len())?;
        let expected = if conv.bias { u64::from(conv.out_channels) } else { 0 };
        length(format!("bias of link {link}"), expected, self.bias.map_or(0, <[f32]>::len))
    }
}

/// Checks the weights of a chain's convolutions.
///
/// # Errors
/// [`Error::Length`] if there are too few or too many, or if one does not fit; what [`Conv2d::validate`] says.
pub(crate) fn check_weights(chain: &Chain, weights: &[Weights<'_>]) -> Result<()> {
    length("list of weights".into(), chain.convolutions().count() as u64, weights.len())?;
    for ((link, conv), weights) in chain.convolutions().zip(weights) {
        conv.validate()?;
        weights.check(link, conv)?;
    }
    Ok(())
}

/// Refuses a slice of the wrong length.
pub(crate) fn length(what: String, expected: u64, actual: usize) -> Result<()> {
    let actual = actual as u64;
    if expected == actual { Ok(()) } else { Err(Error::Length { what, expected, actual }) }
}
