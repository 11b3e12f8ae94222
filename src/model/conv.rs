//! One link: a 2-D convolution with its epilogue.

use std::fmt;

use crate::model::error::{Error, Result};
use crate::model::shape::Shape;

/// What happens to a value after bias (and residual) were added.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
    /// x / (1 + exp(-x)), also called swish.
    Silu,
    /// x * min(max(x + 3, 0), 6) / 6, of MobileNetV3 (arXiv 1905.02244).
    HardSwish,
    /// min(max(x, low), high).
    Clamp(f32, f32),
    /// x where it is positive, elsewhere the slope times x. The slope is finite.
    LeakyRelu(f32),
    /// 1 / (1 + exp(-x)).
    Sigmoid,
    /// min(max(x + 3, 0), 6) / 6, of MobileNetV3's gates.
    HardSigmoid,
    /// (exp(x) - exp(-x)) / (exp(x) + exp(-x)).
    Tanh,
    /// x times the normal distribution's share below x: `torch.nn.GELU()`, without its approximation by tanh.
    Gelu,
}

impl Activation {
    /// The bounds of a clamp, infinite where it has none; `None` for other activations.
    pub(crate) fn bounds(self) -> Option<[f32; 2]> {
        match self {
            Self::None => Some([f32::NEG_INFINITY, f32::INFINITY]),
            Self::Relu => Some([0.0, f32::INFINITY]),
            Self::Relu6 => Some([0.0, 6.0]),
            Self::Clamp(low, high) => Some([low, high]),
            Self::Silu
            | Self::HardSwish
            | Self::LeakyRelu(_)
            | Self::Sigmoid
            | Self::HardSigmoid
            | Self::Tanh
            | Self::Gelu => None,
        }
    }

    /// The numbers that shaders get as parameters: a clamp's bounds, or a slope.
    pub(crate) fn parameters(self) -> [f32; 2] {
        match self {
            Self::LeakyRelu(slope) => [slope, 0.0],
            other => other.bounds().unwrap_or_default(),
        }
    }
}

/// Where the residual is added.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual {
    /// Before the activation, as ResNet does.
    BeforeActivation,
    /// After the activation; MobileNetV2 adds after a linear bottleneck.
    AfterActivation,
}

/// A 2-D convolution with its epilogue: `torch.nn.Conv2d`, then bias, residual and activation.
///
/// Made by [`Conv2d::new`], [`Conv2d::depthwise`] or [`Conv2d::pointwise`] and the methods named as
/// PyTorch names its arguments. The numbers are checked when it is used; an [`Error`] then says what is wrong.
///
/// ```
/// use gpuconv::{Activation, Conv2d};
/// let conv = Conv2d::new(3, 32, 3).stride(2).padding(1).activation(Activation::Relu6);
/// assert_eq!(conv.output_shape([1, 3, 224, 224])?, [1, 32, 112, 112].into());
/// # Ok::<(), gpuconv::Error>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct Conv2d {
    /// Channels of the input.
    pub in_channels: u32,
    /// Channels of the output.
    pub out_channels: u32,
    /// Rows and columns of the kernel.
    pub kernel_size: [u32; 2],
    /// Steps down and right between two outputs.
    pub stride: [u32; 2],
    /// Zeros added at the top, left, bottom and right.
    pub padding: [u32; 4],
    /// Distance between two kernel rows and two kernel columns.
    pub dilation: [u32; 2],
    /// Groups of channels that do not see each other; `in_channels` for a depthwise convolution.
    pub groups: u32,
    /// Whether there is a bias.
    pub bias: bool,
    /// What follows bias and residual.
    pub activation: Activation,
    /// Whether and where a tensor of the output's shape is added.
    pub residual: Option<Residual>,
    /// Whether the input is multiplied by a value for each image and channel, as it is read.
    pub scaled: bool,
}

/// One number for both rows and columns, or one each: `3` or `[3, 5]`.
#[derive(Clone, Copy, Debug)]
pub struct Extent(pub(crate) [u32; 2]);

impl From<u32> for Extent {
    fn from(both: u32) -> Self {
        Self([both; 2])
    }
}

impl From<[u32; 2]> for Extent {
    fn from(extents: [u32; 2]) -> Self {
        Self(extents)
    }
}

/// Padding: one number for all sides, `[rows, columns]`, or `[top, left, bottom, right]`.
#[derive(Clone, Copy, Debug)]
pub struct Padding(pub(crate) [u32; 4]);

impl From<u32> for Padding {
    fn from(all: u32) -> Self {
        Self([all; 4])
    }
}

impl From<[u32; 2]> for Padding {
    fn from([rows, columns]: [u32; 2]) -> Self {
        Self([rows, columns, rows, columns])
    }
}

impl From<[u32; 4]> for Padding {
    fn from(sides: [u32; 4]) -> Self {
        Self(sides)
    }
}

impl Conv2d {
    /// A convolution of stride 1 with a bias and no padding, dilation, groups, activation or residual. The methods
    /// change these.
    pub fn new(in_channels: u32, out_channels: u32, kernel_size: impl Into<Extent>) -> Self {
        Self {
            in_channels,
            out_channels,
            kernel_size: kernel_size.into().0,
            stride: [1; 2],
            padding: [0; 4],
            dilation: [1; 2],
            groups: 1,
            bias: true,
            activation: Activation::None,
            residual: None,
            scaled: false,
        }
    }

    /// One filter a channel; see [`Conv2d::channel_multiplier`] for more.
    pub fn depthwise(channels: u32, kernel_size: impl Into<Extent>) -> Self {
        Self::new(channels, channels, kernel_size).groups(channels)
    }

    /// A 1x1 convolution: a matrix product over the channels.
    pub fn pointwise(in_channels: u32, out_channels: u32) -> Self {
        Self::new(in_channels, out_channels, 1)
    }

    /// Output channels for each input channel of a depthwise convolution.
    pub fn channel_multiplier(mut self, multiplier: u32) -> Self {
        self.out_channels = self.in_channels.saturating_mul(multiplier);
        self
    }

    /// Steps down and right between two outputs.
    pub fn stride(mut self, stride: impl Into<Extent>) -> Self {
        self.stride = stride.into().0;
        self
    }

    /// Zeros around the image.
    pub fn padding(mut self, padding: impl Into<Padding>) -> Self {
        self.padding = padding.into().0;
        self
    }

    /// Distance between kernel rows and between kernel columns.
    pub fn dilation(mut self, dilation: impl Into<Extent>) -> Self {
        self.dilation = dilation.into().0;
        self
    }

    /// Groups of channels that do not see each other.
    pub fn groups(mut self, groups: u32) -> Self {
        self.groups = groups;
        self
    }

    /// Whether there is a bias.
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// What follows bias and residual.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// Where a residual is added, if at all.
    pub fn residual(mut self, residual: impl Into<Option<Residual>>) -> Self {
        self.residual = residual.into();
        self
    }

    /// Whether the input is multiplied by a value for each image and channel: a gate's.
    pub fn scaled(mut self, scaled: bool) -> Self {
        self.scaled = scaled;
        self
    }

    /// Whether every group has a single input channel.
    pub fn is_depthwise(&self) -> bool {
        self.groups == self.in_channels
    }

    /// Whether it is a plain matrix product over the channels: 1x1, one group, no stride or padding.
    pub fn is_pointwise(&self) -> bool {
        self.kernel_size == [1, 1] && self.groups == 1 && self.stride == [1, 1] && self.padding == [0; 4]
    }

    /// Input channels that one output channel sees.
    pub fn group_in_channels(&self) -> u32 {
        self.in_channels / self.groups.max(1)
    }

    /// Output channels of one group.
    pub fn group_out_channels(&self) -> u32 {
        self.out_channels / self.groups.max(1)
    }

    /// Weights that go into one output: input channels of a group x kernel rows x kernel columns.
    pub fn fan_in(&self) -> u64 {
        let taps = u64::from(self.kernel_size[0]) * u64::from(self.kernel_size[1]);
        taps.saturating_mul(u64::from(self.group_in_channels()))
    }

    /// The weight's extents: output channels, input channels of a group, kernel rows, kernel columns.
    pub fn weight_shape(&self) -> Shape {
        let [rows, columns] = self.kernel_size;
        [self.out_channels, self.group_in_channels(), rows, columns].into()
    }

    /// Rows and columns that the dilated kernel covers.
    pub fn dilated_kernel(&self) -> [u64; 2] {
        [0, 1].map(|axis| u64::from(self.dilation[axis]) * u64::from(self.kernel_size[axis]).saturating_sub(1) + 1)
    }

    /// Checks the numbers that do not depend on an input.
    ///
    /// # Errors
    /// [`Error::Parameter`], [`Error::Groups`], [`Error::Clamp`], [`Error::Slope`]; [`Error::TooLarge`] if the weight has
    /// too many elements.
    pub fn validate(&self) -> Result<()> {
        // Below this, padded coordinates fit into 32 bits.
        const LARGEST: u32 = 1 << 16;
        let [kernel_rows, kernel_columns] = self.kernel_size;
        let at_least_one = [
            ("in_channels", self.in_channels, u32::MAX),
            ("out_channels", self.out_channels, u32::MAX),
            ("groups", self.groups, u32::MAX),
            ("kernel_size", kernel_rows, LARGEST),
            ("kernel_size", kernel_columns, LARGEST),
            ("stride", self.stride[0], LARGEST),
            ("stride", self.stride[1], LARGEST),
            ("dilation", self.dilation[0], LARGEST),
            ("dilation", self.dilation[1], LARGEST),
        ];
        for (name, value, largest) in at_least_one {
            if value < 1 || value > largest {
                return Err(Error::Parameter { name, value: value.into(), expected: format!("1 to {largest}") });
            }
        }
        for value in self.padding {
            if value > LARGEST {
                let expected = format!("at most {LARGEST}");
                return Err(Error::Parameter { name: "padding", value: value.into(), expected });
            }
        }
        let Self { groups, in_channels, out_channels, .. } = *self;
        if in_channels % groups != 0 || out_channels % groups != 0 {
            return Err(Error::Groups { groups, in_channels, out_channels });
        }
        if let Activation::Clamp(low, high) = self.activation
            && !(low < f32::INFINITY && high > f32::NEG_INFINITY)
        {
            return Err(Error::Clamp { low, high });
        }
        if let Activation::LeakyRelu(slope) = self.activation
            && !slope.is_finite()
        {
            return Err(Error::Slope { slope });
        }
        self.weight_shape().check_indexable("weight")
    }

    /// The output's shape for an input's: `floor((in + padding - dilated kernel) / stride) + 1`.
    ///
    /// # Errors
    /// Those of [`Conv2d::validate`]; [`Error::Channels`], [`Error::EmptyInput`],
    /// [`Error::KernelTooLarge`] where PyTorch refuses as well; [`Error::TooLarge`].
    pub fn output_shape(&self, input: impl Into<Shape>) -> Result<Shape> {
        let input = input.into();
        self.validate()?;
        if input.channels != self.in_channels {
            return Err(Error::Channels { link: 0, expected: self.in_channels, actual: input.channels });
        }
        if input.height == 0 || input.width == 0 {
            return Err(Error::EmptyInput { shape: input });
        }
        let [top, left, bottom, right] = self.padding.map(u64::from);
        let image = [u64::from(input.height) + top + bottom, u64::from(input.width) + left + right];
        let kernel = self.dilated_kernel();
        if kernel[0] > image[0] || kernel[1] > image[1] {
            return Err(Error::KernelTooLarge { kernel, image });
        }
        let extent = |axis: usize| (image[axis] - kernel[axis]) / u64::from(self.stride[axis]) + 1;
        let [height, width] = [extent(0), extent(1)].map(|extent| u32::try_from(extent).unwrap_or(u32::MAX));
        let output = Shape { batch: input.batch, channels: self.out_channels, height, width };
        input.check_indexable("input")?;
        output.check_indexable("output")?;
        Ok(output)
    }
}

impl Conv2d {
    /// The padding that TensorFlow calls `SAME`: as much as makes the output's extents those of the input divided by
    /// the strides and rounded up, of an odd number the smaller half in front.
    pub(crate) fn same_padding(&self, input: Shape) -> [u32; 4] {
        let kernel = self.dilated_kernel();
        let total = |axis: usize, extent: u32| {
            let stride = u64::from(self.stride[axis].max(1));
            let last = u64::from(extent).div_ceil(stride).saturating_sub(1) * stride;
            (last + kernel[axis]).saturating_sub(extent.into())
        };
        let [rows, columns] = [total(0, input.height), total(1, input.width)];
        [rows / 2, columns / 2, rows.div_ceil(2), columns.div_ceil(2)].map(|count| count.min(u32::MAX.into()) as u32)
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Relu => f.write_str("relu"),
            Self::Relu6 => f.write_str("relu6"),
            Self::Silu => f.write_str("silu"),
            Self::HardSwish => f.write_str("hardswish"),
            Self::Clamp(low, high) => write!(f, "clamp:{low},{high}"),
            Self::LeakyRelu(slope) => write!(f, "leakyrelu:{slope}"),
            Self::Sigmoid => f.write_str("sigmoid"),
            Self::HardSigmoid => f.write_str("hardsigmoid"),
            Self::Tanh => f.write_str("tanh"),
            Self::Gelu => f.write_str("gelu"),
        }
    }
}
