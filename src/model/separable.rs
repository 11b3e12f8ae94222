//! Depthwise-separable convolutions.

use crate::model::chain::Chain;
use crate::model::conv::{Activation, Conv2d, Extent, Padding, Residual};

/// A depthwise-separable convolution: depthwise, activation, pointwise, activation (arXiv 1704.04861).
///
/// ```
/// use gpuconv::{Activation, Chain, Separable};
/// let mut separable = Separable::new(32, 64, 3).padding(1).activation(Activation::Relu6);
/// // The halves are convolutions like any other; here the second one stays linear.
/// separable.pointwise.activation = Activation::None;
/// assert_eq!(Chain::from(separable).shapes([1, 32, 28, 28])?[2], [1, 64, 28, 28].into());
/// # Ok::<(), gpuconv::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Separable {
    /// The first link.
    pub depthwise: Conv2d,
    /// The second link.
    pub pointwise: Conv2d,
}

impl Separable {
    /// A separable convolution with a depthwise kernel of this size, of stride 1 without padding, with biases.
    pub fn new(in_channels: u32, out_channels: u32, kernel_size: impl Into<Extent>) -> Self {
        Self {
            depthwise: Conv2d::depthwise(in_channels, kernel_size),
            pointwise: Conv2d::pointwise(in_channels, out_channels),
        }
    }

    /// Steps of the depthwise half.
    pub fn stride(mut self, stride: impl Into<Extent>) -> Self {
        self.depthwise = self.depthwise.stride(stride);
        self
    }

    /// Zeros around the image.
    pub fn padding(mut self, padding: impl Into<Padding>) -> Self {
        self.depthwise = self.depthwise.padding(padding);
        self
    }

    /// Distance between the depthwise kernel's rows and columns.
    pub fn dilation(mut self, dilation: impl Into<Extent>) -> Self {
        self.depthwise = self.depthwise.dilation(dilation);
        self
    }

    /// Whether both halves have a bias.
    pub fn bias(mut self, bias: bool) -> Self {
        self.depthwise.bias = bias;
        self.pointwise.bias = bias;
        self
    }

    /// The activation after both halves; the fields take two different ones.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.depthwise.activation = activation;
        self.pointwise.activation = activation;
        self
    }

    /// Where a residual is added to the pointwise half, if at all.
    pub fn residual(mut self, residual: impl Into<Option<Residual>>) -> Self {
        self.pointwise.residual = residual.into();
        self
    }

    /// The standard convolution that this one replaces.
    pub fn standard(&self) -> Conv2d {
        Conv2d {
            out_channels: self.pointwise.out_channels,
            groups: 1,
            activation: self.pointwise.activation,
            residual: self.pointwise.residual,
            ..self.depthwise.clone()
        }
    }
}

impl From<Separable> for Chain {
    fn from(separable: Separable) -> Self {
        Self::new([separable.depthwise, separable.pointwise])
    }
}

impl From<&Separable> for Chain {
    fn from(separable: &Separable) -> Self {
        separable.clone().into()
    }
}
