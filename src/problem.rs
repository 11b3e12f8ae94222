//! A problem as one line of text, the same in the tests, the benches and on the command line.

mod parser;

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::model::chain::{Chain, Link};
use crate::model::concat::Concat;
use crate::model::conv::{Activation, Conv2d, Residual};
use crate::model::dtype::DType;
use crate::model::error::{Error, Result};
use crate::model::gate::SqueezeExcite;
use crate::model::pool::{Pool2d, PoolMode};
use crate::model::prelu::PRelu;
use crate::model::resize::{Resize, ResizeMode, ResizeTo};
use crate::model::separable::Separable;
use crate::model::shape::{Layout, Shape};
use crate::model::transposed::ConvTranspose2d;
use crate::nets::Network;
use parser::Parser;

/// A chain with the shape and layout of its input.
///
/// ```text
/// conv       NxCxHxW -> OC kK|kHxW [sS|sHxW] [pP|pT,L,B,R] [dD|dHxW] [gG] [ACTIVATION] [scaled] [RESIDUAL] [nobias] [f16] [nhwc]
/// depthwise  NxCxHxW [-> OC] kK ...
/// pointwise  NxCxHxW -> OC ... [mean]        `mean` takes that of each channel
/// separable  NxCxHxW -> OC kK ...        the activation follows both halves, `prelu` the second
/// transposed NxCxHxW -> OC kK|kHxW [sS|sHxW] [pP|pT,L,B,R] [oO|oHxW] [dD|dHxW] [gG] [ACTIVATION] [nobias] [f16] [nhwc]
/// prelu      NxCxHxW [f16] [nhwc]        a slope for each channel
/// maxpool    NxCxHxW kK|kHxW [sS|sHxW] [pP|pT,L,B,R] [dD|dHxW] [ceil] [f16] [nhwc]
/// avgpool    NxCxHxW kK|kHxW [sS|sHxW] [pP|pT,L,B,R] [ceil] [excludepad] [f16] [nhwc]
/// pool       NxCxHxW [f16] [nhwc]        the mean of each channel
/// resize     NxCxHxW -> HxW [bilinear [aligned]] [f16] [nhwc]
/// resize     NxCxHxW xF|xF,F ...         by a factor, or one for rows and one for columns
/// pixelshuffle|pixelunshuffle NxCxHxW rR [f16] [nhwc]
/// slice      NxCxHxW FIRST..END [f16] [nhwc]        these of the channels
/// concat     NxCxHxW C,C,... [f16] [nhwc]        slices of C channels each put together, the first from the end
/// gate       NxCxHxW -> SQUEEZED [ACTIVATION GATE] [nobias] [f16] [nhwc]        a value for each channel
/// NETWORK    N|Nx3xHxW [-> CLASSES] [wWIDTH] [f16] [nhwc]
/// ```
///
/// `NETWORK` is a name of [`nets::NETWORKS`](crate::nets::NETWORKS), such as `mobilenet_v2`. Those that enlarge images
/// take any number of channels, and no `CLASSES`. `ACTIVATION` is `relu`, `relu6`, `silu`, `hardswish`, `sigmoid`,
/// `hardsigmoid`, `tanh`, `gelu`, `leakyrelu:SLOPE`, `clamp:LOW,HIGH` or, but for gates, `prelu`, a link behind the
/// convolution; `scaled` multiplies the input by a value for each image and channel; `RESIDUAL` is `residual` (added
/// before the activation) or `residual:after`. Defaults: stride 1, padding 0, dilation 1, one group, a bias, no
/// activation (of gates `relu sigmoid`), elements in f32, NCHW; for pools the kernel as stride, and means that count
/// the padding; for networks images of 224x224, as many classes as their published weights have, width 1.
///
/// ```
/// let problem: gpuconv::Problem = "separable 1x512x128x128 -> 1024 k3 s2 p1".parse()?;
/// assert_eq!(problem.chain().links().len(), 2);
/// assert_eq!(problem.to_string(), "separable 1x512x128x128 -> 1024 k3 s2 p1");
/// # Ok::<(), gpuconv::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// The input's shape.
    pub input: Shape,
    /// The layout of input and output on the device.
    pub layout: Layout,
    /// The element type of tensors and weights.
    pub dtype: DType,
    /// What is computed.
    pub operation: Operation,
}

/// The kinds of problem.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Any convolution.
    Conv(Conv2d),
    /// One filter a channel, or several.
    Depthwise(Conv2d),
    /// A 1x1 convolution.
    Pointwise(Conv2d),
    /// A 1x1 convolution, and the mean of each channel of its output.
    PointwiseMean(Conv2d),
    /// A depthwise and a pointwise convolution.
    Separable(Separable),
    /// A transposed convolution.
    ConvTranspose(ConvTranspose2d),
    /// A slope a channel for what is not positive.
    PRelu(PRelu),
    /// A convolution, a separable or a transposed one, and a slope a channel for what it gives. Others have no problem
    /// line.
    ThenPRelu(Box<Operation>),
    /// A pool over windows.
    Pool2d(Pool2d),
    /// A global average pool.
    Pool,
    /// The gate of a squeeze-and-excite block.
    Gate(SqueezeExcite),
    /// Images of another size.
    Resize(Resize),
    /// Channels to pixels, by a factor.
    PixelShuffle(u32),
    /// Pixels to channels, by a factor.
    PixelUnshuffle(u32),
    /// Some of the channels.
    Slice(Range<u32>),
    /// A concatenation of slices that make up the input, the first of them from the end of its channels.
    Concat(Concat),
    /// A whole network.
    Network(Network),
}

impl Problem {
    /// What is computed, as a chain.
    pub fn chain(&self) -> Chain {
        self.operation.chain().with_dtype(self.dtype)
    }

    /// The output's shape.
    ///
    /// # Errors
    /// What [`Chain::shapes`] says.
    pub fn output(&self) -> Result<Shape> {
        Ok(self.chain().shapes(self.input)?.last().copied().unwrap_or(self.input))
    }

    /// The same problem with a residual added to its last convolution; pools, gates and networks take none.
    pub fn with_residual(mut self, residual: Residual) -> Self {
        let operation = match &mut self.operation {
            Operation::ThenPRelu(operation) => operation,
            operation => operation,
        };
        match operation {
            Operation::Conv(conv) | Operation::Depthwise(conv) | Operation::Pointwise(conv) => {
                conv.residual = Some(residual);
            }
            Operation::Separable(separable) => separable.pointwise.residual = Some(residual),
            _ => {}
        }
        self
    }
}

impl Operation {
    fn chain(&self) -> Chain {
        match self {
            Self::Conv(conv) | Self::Depthwise(conv) | Self::Pointwise(conv) => conv.into(),
            Self::PointwiseMean(conv) => Chain::from(conv).then(Link::GlobalAveragePool),
            Self::Separable(separable) => separable.into(),
            Self::ConvTranspose(transposed) => transposed.clone().into(),
            Self::PRelu(prelu) => prelu.clone().into(),
            Self::ThenPRelu(operation) => {
                let chain = operation.chain();
                let channels = chain.convolutions().last().map_or(0, |(_, conv)| conv.out_channels);
                chain.then(PRelu::new(channels))
            }
            Self::Pool2d(pool) => pool.clone().into(),
            Self::Pool => Link::GlobalAveragePool.into(),
            Self::Gate(gate) => Link::from(gate.clone()).into(),
            Self::Resize(resize) => (*resize).into(),
            Self::PixelShuffle(factor) => Link::PixelShuffle { factor: *factor }.into(),
            Self::PixelUnshuffle(factor) => Link::PixelUnshuffle { factor: *factor }.into(),
            Self::Slice(channels) => Link::Slice { channels: channels.clone() }.into(),
            Self::Concat(concat) => concat.of_slices(),
            Self::Network(network) => network.chain.clone(),
        }
    }

    /// The word that names it.
    fn word(&self) -> &'static str {
        match self {
            Self::Conv(_) => "conv",
            Self::Depthwise(_) => "depthwise",
            Self::Pointwise(_) | Self::PointwiseMean(_) => "pointwise",
            Self::Separable(_) => "separable",
            Self::Pool2d(Pool2d { mode: PoolMode::Max, .. }) => "maxpool",
            Self::Pool2d(Pool2d { mode: PoolMode::Average { .. }, .. }) => "avgpool",
            Self::ConvTranspose(_) => "transposed",
            Self::PRelu(_) => "prelu",
            Self::ThenPRelu(operation) => operation.word(),
            Self::Pool => "pool",
            Self::Gate(_) => "gate",
            Self::Resize(_) => "resize",
            Self::PixelShuffle(_) => "pixelshuffle",
            Self::PixelUnshuffle(_) => "pixelunshuffle",
            Self::Slice(_) => "slice",
            Self::Concat(_) => "concat",
            Self::Network(network) => network.name,
        }
    }
}

/// A batch of images of the size that the published networks were trained on.
fn image(batch: u32) -> Shape {
    [batch, 3, 224, 224].into()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operation {
            Operation::Network(_) if self.input == image(self.input.batch) => {
                write!(f, "{} {}", self.operation.word(), self.input.batch)?;
            }
            _ => write!(f, "{} {}", self.operation.word(), self.input)?,
        }
        let (operation, prelu) = match &self.operation {
            Operation::ThenPRelu(operation) => (&**operation, true),
            operation => (operation, false),
        };
        match operation {
            Operation::Conv(conv) | Operation::Depthwise(conv) | Operation::Pointwise(conv) => {
                operation.write_options(f, conv, conv, prelu)?;
            }
            Operation::PointwiseMean(conv) => {
                operation.write_options(f, conv, conv, prelu)?;
                f.write_str(" mean")?;
            }
            Operation::Separable(Separable { depthwise, pointwise }) => {
                operation.write_options(f, depthwise, pointwise, prelu)?;
            }
            Operation::Pool2d(pool) => write_pool(f, pool)?,
            Operation::ConvTranspose(transposed) => {
                operation.write_options(f, &transposed.conv, &transposed.conv, prelu)?;
                if transposed.output_padding != [0; 2] {
                    write!(f, " o{}", pair(transposed.output_padding))?;
                }
            }
            Operation::PRelu(_) | Operation::ThenPRelu(_) | Operation::Pool => {}
            Operation::Gate(SqueezeExcite { squeeze, excite, .. }) => {
                write!(f, " -> {}", squeeze.out_channels)?;
                if (squeeze.activation, excite.activation) != (Activation::Relu, Activation::Sigmoid) {
                    write!(f, " {} {}", squeeze.activation, excite.activation)?;
                }
                f.write_str(if squeeze.bias { "" } else { " nobias" })?;
            }
            Operation::Resize(resize) => write_resize(f, resize)?,
            Operation::PixelShuffle(factor) | Operation::PixelUnshuffle(factor) => write!(f, " r{factor}")?,
            Operation::Slice(channels) => write!(f, " {}..{}", channels.start, channels.end)?,
            Operation::Concat(concat) => {
                let channels: Vec<_> = concat.channels.iter().map(u32::to_string).collect();
                write!(f, " {}", channels.join(","))?;
            }
            Operation::Network(network) => {
                if network.task.classes().is_some_and(|classes| classes != network.classes) {
                    write!(f, " -> {}", network.classes)?;
                }
                if network.width != 1.0 {
                    write!(f, " w{}", network.width)?;
                }
            }
        }
        if self.dtype != DType::default() {
            write!(f, " {}", self.dtype)?;
        }
        if self.layout == Layout::Nhwc {
            f.write_str(" nhwc")?;
        }
        Ok(())
    }
}

impl Operation {
    /// The convolutions that a line describes: the one with the kernel, and the last, and whether a PReLU is behind
    /// that.
    fn write_options(&self, f: &mut fmt::Formatter<'_>, spatial: &Conv2d, last: &Conv2d, prelu: bool) -> fmt::Result {
        let is_depthwise = matches!(self, Self::Depthwise(_));
        if !is_depthwise || last.out_channels != last.in_channels {
            write!(f, " -> {}", last.out_channels)?;
        }
        if !matches!(self, Self::Pointwise(_) | Self::PointwiseMean(_)) {
            write!(f, " k{}", pair(spatial.kernel_size))?;
        }
        if spatial.stride != [1; 2] {
            write!(f, " s{}", pair(spatial.stride))?;
        }
        write_padding(f, spatial.padding)?;
        if spatial.dilation != [1; 2] {
            write!(f, " d{}", pair(spatial.dilation))?;
        }
        if !matches!(self, Self::Depthwise(_) | Self::Separable(_)) && last.groups != 1 {
            write!(f, " g{}", last.groups)?;
        }
        if last.activation != Activation::None {
            write!(f, " {}", last.activation)?;
        }
        if prelu {
            f.write_str(" prelu")?;
        }
        if spatial.scaled {
            f.write_str(" scaled")?;
        }
        match last.residual {
            None => {}
            Some(Residual::BeforeActivation) => f.write_str(" residual")?,
            Some(Residual::AfterActivation) => f.write_str(" residual:after")?,
        }
        if last.bias { Ok(()) } else { f.write_str(" nobias") }
    }
}

fn write_pool(f: &mut fmt::Formatter<'_>, pool: &Pool2d) -> fmt::Result {
    write!(f, " k{}", pair(pool.kernel_size))?;
    if pool.stride != pool.kernel_size {
        write!(f, " s{}", pair(pool.stride))?;
    }
    write_padding(f, pool.padding)?;
    if pool.dilation != [1; 2] {
        write!(f, " d{}", pair(pool.dilation))?;
    }
    if pool.ceil_mode {
        f.write_str(" ceil")?;
    }
    match pool.mode {
        PoolMode::Average { count_include_pad: false } => f.write_str(" excludepad"),
        _ => Ok(()),
    }
}

fn write_resize(f: &mut fmt::Formatter<'_>, resize: &Resize) -> fmt::Result {
    match resize.to {
        to @ ResizeTo::Size(_) => write!(f, " -> {to}")?,
        to @ ResizeTo::Factor(_) => write!(f, " {to}")?,
    }
    f.write_str(match resize.mode {
        ResizeMode::Nearest => "",
        ResizeMode::Bilinear { align_corners: false } => " bilinear",
        ResizeMode::Bilinear { align_corners: true } => " bilinear aligned",
    })
}

/// `K`, or `HxW`.
fn pair([rows, columns]: [u32; 2]) -> String {
    if rows == columns { rows.to_string() } else { format!("{rows}x{columns}") }
}

fn write_padding(f: &mut fmt::Formatter<'_>, padding: [u32; 4]) -> fmt::Result {
    match padding {
        [0, 0, 0, 0] => Ok(()),
        [top, left, bottom, right] if [left, bottom, right] == [top; 3] => write!(f, " p{top}"),
        [top, left, bottom, right] => write!(f, " p{top},{left},{bottom},{right}"),
    }
}

impl FromStr for Problem {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        Ok(Parser::new(line).problem()?)
    }
}

#[cfg(test)]
mod tests;
