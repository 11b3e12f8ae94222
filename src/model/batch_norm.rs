//! Batch normalisation, folded into the convolution before it.

use half::f16;

use crate::model::error::{Error, Result};
use crate::model::weights::{Weights, length};

/// `torch.nn.BatchNorm2d` as it is after training: `(x - running_mean) / sqrt(running_var + eps) * weight + bias`,
/// one value of each a channel (Ioffe and Szegedy, arXiv 1502.03167).
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm<'a> {
    /// The scales.
    pub weight: &'a [f32],
    /// The offsets.
    pub bias: &'a [f32],
    /// The running means of training.
    pub running_mean: &'a [f32],
    /// The running variances of training.
    pub running_var: &'a [f32],
    /// Keeps the divisor from zero; PyTorch's default is 1e-5.
    pub eps: f64,
}

/// Weights with memory of their own, in the order of [`Weights`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnedWeights {
    /// The weights.
    pub weight: Vec<f32>,
    /// The biases, if the convolution has one.
    pub bias: Option<Vec<f32>>,
}

impl OwnedWeights {
    /// As layers and the oracle take them.
    pub fn borrow(&self) -> Weights<'_> {
        Weights { weight: &self.weight, bias: self.bias.as_deref() }
    }

    /// The same numbers in f32. A layer of [`DType::F16`](crate::DType::F16) stores just these halves again.
    ///
    /// ```
    /// use gpuconv::{OwnedWeights, f16};
    /// let weights = OwnedWeights::from_f16(&[f16::from_f32(0.1)], None);
    /// assert_eq!((weights.weight, weights.bias), (vec![0.099975586], None));
    /// ```
    pub fn from_f16(weight: &[f16], bias: Option<&[f16]>) -> Self {
        let widen = |halves: &[f16]| halves.iter().map(|half| half.to_f32()).collect();
        Self { weight: widen(weight), bias: bias.map(widen) }
    }
}

impl Weights<'_> {
    /// The weights and biases of one convolution that computes this one and the batch norm behind it. Computed in f64,
    /// rounded once.
    ///
    /// ```
    /// use gpuconv::{BatchNorm, Weights};
    /// let norm = BatchNorm { weight: &[3.0], bias: &[1.0], running_mean: &[2.0], running_var: &[3.0], eps: 1.0 };
    /// let folded = Weights::without_bias(&[4.0, 8.0]).fold_batch_norm(&norm)?;
    /// assert_eq!((folded.weight, folded.bias), (vec![6.0, 12.0], Some(vec![-2.0])));
    /// # Ok::<(), gpuconv::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Length`] unless there are as many biases, means and variances as scales, and a multiple of them as
    /// weights; [`Error::Variance`].
    pub fn fold_batch_norm(&self, norm: &BatchNorm<'_>) -> Result<OwnedWeights> {
        let channels = norm.weight.len();
        let expected = channels as u64;
        for (name, values) in
            [("bias", norm.bias), ("running_mean", norm.running_mean), ("running_var", norm.running_var)]
        {
            length(format!("{name} of a batch norm"), expected, values.len())?;
        }
        if let Some(bias) = self.bias {
            length("bias before a batch norm".into(), expected, bias.len())?;
        }
        let taps = self.weight.len() / channels.max(1);
        length("weight before a batch norm".into(), (taps * channels) as u64, self.weight.len())?;

        let (mut weight, mut bias) = (Vec::with_capacity(self.weight.len()), Vec::with_capacity(channels));
        for channel in 0..channels {
            let variance = norm.running_var[channel];
            let spread = f64::from(variance) + norm.eps;
            if spread.is_nan() || spread <= 0.0 {
                return Err(Error::Variance { channel, variance, eps: norm.eps });
            }
            let scale = f64::from(norm.weight[channel]) / spread.sqrt();
            let own = self.bias.map_or(0.0, |bias| f64::from(bias[channel]));
            let shift = (own - f64::from(norm.running_mean[channel])) * scale + f64::from(norm.bias[channel]);
            let taps = &self.weight[channel * taps..][..taps];
            weight.extend(taps.iter().map(|&value| (f64::from(value) * scale) as f32));
            bias.push(shift as f32);
        }
        Ok(OwnedWeights { weight, bias: Some(bias) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NORM: BatchNorm<'static> = BatchNorm {
        weight: &[2.0, -1.0],
        bias: &[0.5, 3.0],
        running_mean: &[1.0, -4.0],
        running_var: &[0.25, 4.0],
        eps: 0.0,
    };

    #[test]
    fn a_fold_worked_out_by_hand() {
        let folded = Weights::new(&[1.0, 2.0, 3.0, 4.0], &[1.5, -2.0]).fold_batch_norm(&NORM).unwrap();
        // Scales of 4 and -1/2.
        assert_eq!(folded.weight, [4.0, 8.0, -1.5, -2.0]);
        assert_eq!(folded.bias, Some(vec![0.5 * 4.0 + 0.5, 2.0 * -0.5 + 3.0]));
    }

    #[test]
    fn eps_is_added_to_the_variance() {
        let norm = BatchNorm { running_var: &[0.0, 0.0], eps: 1e-5, ..NORM };
        let folded = Weights::without_bias(&[1.0, 1.0]).fold_batch_norm(&norm).unwrap();
        assert_eq!(folded.weight[0], (2.0 / 1e-5f64.sqrt()) as f32);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let fold = |weight: &[f32], norm: &BatchNorm<'_>| Weights::without_bias(weight).fold_batch_norm(norm);
        let what = "weight before a batch norm".into();
        assert_eq!(fold(&[1.0; 5], &NORM), Err(Error::Length { what, expected: 4, actual: 5 }));
        let short = BatchNorm { running_mean: &[0.0], ..NORM };
        let what = "running_mean of a batch norm".into();
        assert_eq!(fold(&[1.0; 4], &short), Err(Error::Length { what, expected: 2, actual: 1 }));
        for variance in [0.0, -1.0, f32::NAN] {
            let refused = fold(&[1.0; 4], &BatchNorm { running_var: &[1.0, variance], ..NORM });
            assert!(matches!(refused, Err(Error::Variance { channel: 1, .. })), "{variance}: {refused:?}");
        }
        let no_bias = Weights::new(&[1.0; 4], &[]).fold_batch_norm(&NORM);
        assert!(matches!(no_bias, Err(Error::Length { expected: 2, actual: 0, .. })));
    }
}
