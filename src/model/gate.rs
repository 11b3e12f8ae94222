//! The gate of squeeze-and-excite blocks.

use crate::model::conv::{Activation, Conv2d};
use crate::model::error::{Error, Result};
use crate::model::shape::Shape;

/// A value for each channel of each image, by which another link multiplies what it reads: the mean over the pixels,
/// then two pointwise convolutions with their activations. (Squeeze-and-excitation, arXiv 1709.01507.)
///
/// This is `torchvision.ops.SqueezeExcitation` without its multiplication. [`Chain::scales`](crate::Chain::scales) says
/// which link multiplies. Weights are given for both convolutions, that of the squeeze first.
///
/// ```
/// use gpuconv::{Chain, Conv2d, Link, SqueezeExcite};
/// // A depthwise convolution, the gate on its output, and a projection, which reads that output times the gate.
/// let gate = SqueezeExcite::new(16, 8);
/// let links = [Conv2d::depthwise(16, 3).padding(1).into(), Link::SqueezeExcite(gate), Conv2d::pointwise(16, 24).into()];
/// let chain = Chain::new(links).reads(1, 2)?.scales(2, 2)?;
/// let shapes = chain.shapes([1, 16, 28, 28])?;
/// assert_eq!(shapes[2..], [[1, 16, 1, 1].into(), [1, 24, 28, 28].into()]);
/// # Ok::<(), gpuconv::Error>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct SqueezeExcite {
    /// From the means of all channels to a few; ReLU is torchvision's activation.
    pub squeeze: Conv2d,
    /// From these to a value for each channel; its activation is a sigmoid.
    pub excite: Conv2d,
    /// Whether it reads sums of parts of planes, which are f32 in any chain and add up to the means.
    pub(crate) of_sums: bool,
}

impl SqueezeExcite {
    /// A gate for this many channels, with this many between its two convolutions, which have biases.
    pub fn new(channels: u32, squeezed: u32) -> Self {
        Self {
            squeeze: Conv2d::pointwise(channels, squeezed).activation(Activation::Relu),
            excite: Conv2d::pointwise(squeezed, channels).activation(Activation::Sigmoid),
            of_sums: false,
        }
    }

    /// The activations after the squeeze, and of the gate. MobileNetV3 has ReLU and a hard sigmoid, EfficientNet SiLU
    /// and a sigmoid.
    pub fn activations(mut self, squeeze: Activation, excite: Activation) -> Self {
        self.squeeze.activation = squeeze;
        self.excite.activation = excite;
        self
    }

    /// Whether both convolutions have a bias.
    pub fn bias(mut self, bias: bool) -> Self {
        self.squeeze.bias = bias;
        self.excite.bias = bias;
        self
    }

    /// The output's shape for an input's: the input's channels, and a single pixel.
    ///
    /// # Errors
    /// [`Error::EmptyInput`]; [`Error::TooLarge`]; [`Error::Chain`] unless both convolutions are pointwise, without
    /// residual and scale; what [`Conv2d::output_shape`] says of them; [`Error::Channels`] if the second does not give
    /// the input's channels.
    pub fn output_shape(&self, input: impl Into<Shape>) -> Result<Shape> {
        let input = input.into();
        if input.channels == 0 || input.pixels() == 0 {
            return Err(Error::EmptyInput { shape: input });
        }
        input.check_indexable("input")?;
        let plain = |conv: &Conv2d| conv.is_pointwise() && conv.residual.is_none() && !conv.scaled;
        if !plain(&self.squeeze) || !plain(&self.excite) {
            return Err(Error::Chain(
                "a gate's convolutions are pointwise, of one group, without residuals and scales".into(),
            ));
        }
        let squeezed = self.squeeze.output_shape(Shape { height: 1, width: 1, ..input })?;
        let output = self.excite.output_shape(squeezed)?;
        if output.channels != input.channels {
            return Err(Error::Channels { link: 0, expected: output.channels, actual: input.channels });
        }
        Ok(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::chain::{Chain, Link};

    #[test]
    fn a_gate_has_a_value_for_each_channel_of_what_is_read() {
        let gated = |channels: u32, source: usize| {
            let gate = SqueezeExcite::new(4, 2);
            Chain::new([gate.into(), Link::from(Conv2d::pointwise(channels, 3))]).reads(0, 1).unwrap().scales(source, 1)
        };
        assert_eq!(
            gated(4, 1).unwrap().shapes([2, 4, 5, 6]).unwrap()[1..],
            [[2, 4, 1, 1], [2, 3, 5, 6]].map(Shape::from)
        );
        let [expected, actual] = [[2, 4, 1, 1], [2, 4, 5, 6]].map(Shape::from);
        let unequal = gated(4, 0).unwrap().shapes([2, 4, 5, 6]);
        assert_eq!(unequal, Err(Error::ShapeMismatch { tensor: "scale", expected, actual }));
        let pooled = Chain::new([Link::GlobalAveragePool, SqueezeExcite::new(4, 2).into()]).shapes([2, 4, 5, 6]);
        let message = pooled.unwrap_err().to_string();
        assert!(message.contains("link 1 is a gate on tensor 1, 2x4x1x1"), "{message}");
        let wrong = Chain::from(Link::from(SqueezeExcite::new(8, 2))).shapes([2, 4, 5, 6]);
        assert_eq!(wrong, Err(Error::Channels { link: 0, expected: 8, actual: 4 }));
        let twice = [Conv2d::pointwise(4, 4), Conv2d::pointwise(4, 4)].map(|conv| conv.scaled(true));
        assert!(matches!(Chain::new(twice).shapes([1, 4, 2, 2]), Err(Error::Chain(_))));
    }
}
