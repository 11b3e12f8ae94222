//! The links that chains are made of.

use std::ops::Range;

use crate::model::concat::{self, Concat};
use crate::model::conv::{Activation, Conv2d, Residual};
use crate::model::dtype::DType;
use crate::model::error::{Error, Result};
use crate::model::gate::SqueezeExcite;
use crate::model::pool::{Pool2d, PoolMode};
use crate::model::prelu::PRelu;
use crate::model::resize::{Resize, ResizeMode};
use crate::model::shape::Shape;
use crate::model::shuffle;
use crate::model::transposed::ConvTranspose2d;

/// One operation of a chain, with its epilogue.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Link {
    /// A convolution with its epilogue.
    Conv(Conv2d),
    /// A transposed convolution with its epilogue.
    ConvTranspose(ConvTranspose2d),
    /// A slope a channel for what is not positive.
    PRelu(PRelu),
    /// A pool over windows.
    Pool(Pool2d),
    /// Channels to pixels: `torch.nn.PixelShuffle`. As many channels as `factor` squared become as many pixels of one.
    PixelShuffle {
        /// How many times as high and wide images become.
        factor: u32,
    },
    /// Pixels to channels: `torch.nn.PixelUnshuffle`.
    PixelUnshuffle {
        /// How many times as high and wide images were.
        factor: u32,
    },
    /// Images of another size.
    Resize(Resize),
    /// Several tensors as one: `torch.cat(tensors, 1)`.
    Concat(Concat),
    /// Some of the channels: `tensor[:, first..end]`.
    Slice {
        /// These of them.
        channels: Range<u32>,
    },
    /// The mean over the pixels of each channel of each image: `torch.nn.AdaptiveAvgPool2d(1)`.
    GlobalAveragePool,
    /// The gate of a squeeze-and-excite block: a value for each channel of each image.
    SqueezeExcite(SqueezeExcite),
    /// The sum over the pixels of each channel of each image, divided by a number: a part of a global average pool
    /// or of a gate whose planes are larger than a binding. One sums pixels, another one, or a gate, adds these sums,
    /// which are f32 in any chain.
    #[doc(hidden)]
    PlaneSum {
        /// What the sum is divided by.
        divisor: u32,
        /// Whether it adds the sums of another one.
        of_sums: bool,
    },
}

impl Link {
    /// The convolution, if it is one.
    pub fn conv(&self) -> Option<&Conv2d> {
        match self {
            Self::Conv(conv) => Some(conv),
            _ => None,
        }
    }

    /// The convolutions that it has weights for: itself, the two of a gate, one with a slope for each channel for a
    /// PReLU, or none. The weights of a transposed convolution are in another order than its numbers say here:
    /// [`ConvTranspose2d::weight_shape`].
    pub fn convolutions(&self) -> impl Iterator<Item = &Conv2d> {
        let convs = match self {
            Self::Conv(conv) => [Some(conv), None],
            Self::ConvTranspose(transposed) => [Some(&transposed.conv), None],
            Self::PRelu(prelu) => [Some(&prelu.conv), None],
            Self::SqueezeExcite(gate) => [Some(&gate.squeeze), Some(&gate.excite)],
            _ => [None, None],
        };
        convs.into_iter().flatten()
    }

    /// Whether no output depends on another channel than its own.
    pub(crate) fn keeps_channels_apart(&self) -> bool {
        match self {
            Self::Conv(conv) => conv.is_depthwise(),
            Self::ConvTranspose(_)
            | Self::PixelShuffle { .. }
            | Self::PixelUnshuffle { .. }
            | Self::Concat(_)
            | Self::Slice { .. }
            | Self::SqueezeExcite(_) => false,
            Self::PRelu(_) | Self::Pool(_) | Self::Resize(_) | Self::GlobalAveragePool | Self::PlaneSum { .. } => true,
        }
    }

    /// Its name, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Conv(_) => "a convolution",
            Self::ConvTranspose(_) => "a transposed convolution",
            Self::PRelu(_) => "a PReLU",
            Self::Pool(Pool2d { mode: PoolMode::Max, .. }) => "a max pool",
            Self::Pool(Pool2d { mode: PoolMode::Average { .. }, .. }) => "an average pool",
            Self::PixelShuffle { .. } => "a pixel shuffle",
            Self::PixelUnshuffle { .. } => "a pixel unshuffle",
            Self::Resize(Resize { mode: ResizeMode::Nearest, .. }) => "a resize by nearest pixels",
            Self::Resize(Resize { mode: ResizeMode::Bilinear { .. }, .. }) => "a bilinear resize",
            Self::Concat(_) => "a concatenation",
            Self::Slice { .. } => "a slice",
            Self::GlobalAveragePool => "a global average pool",
            Self::SqueezeExcite(_) => "a gate",
            Self::PlaneSum { .. } => "a sum of each plane",
        }
    }

    /// Whether and where it adds a residual; only a convolution does.
    pub fn residual(&self) -> Option<Residual> {
        match self {
            Self::Conv(conv) => conv.residual,
            _ => None,
        }
    }

    /// Whether it multiplies what it reads by a value for each image and channel; only a convolution does.
    pub fn is_scaled(&self) -> bool {
        self.conv().is_some_and(|conv| conv.scaled)
    }

    /// The activation after its sum and a residual that is added before it.
    pub(crate) fn activation(&self) -> Activation {
        match self {
            Self::Conv(conv) => conv.activation,
            Self::ConvTranspose(transposed) => transposed.conv.activation,
            Self::SqueezeExcite(gate) => gate.excite.activation,
            _ => Activation::None,
        }
    }

    /// The output's shape for an input's: that of a global pool or a gate has the input's channels and a single pixel.
    ///
    /// # Errors
    /// What [`Conv2d::output_shape`], [`ConvTranspose2d::output_shape`], [`Pool2d::output_shape`],
    /// [`Resize::output_shape`] and [`SqueezeExcite::output_shape`] say; of other links [`Error::EmptyInput`] and
    /// [`Error::TooLarge`], of shuffles also [`Error::PixelShuffle`], [`Error::PixelUnshuffle`] and
    /// [`Error::Parameter`], of slices also [`Error::Slice`]; what [`Concat::output_shape`] says.
    pub fn output_shape(&self, input: impl Into<Shape>) -> Result<Shape> {
        let input = input.into();
        match self {
            Self::Conv(conv) => conv.output_shape(input),
            Self::ConvTranspose(transposed) => transposed.output_shape(input),
            Self::PRelu(prelu) => prelu.output_shape(input),
            Self::Pool(pool) => pool.output_shape(input),
            Self::SqueezeExcite(gate) => gate.output_shape(input),
            Self::PixelShuffle { factor } => shuffle::shuffled(input, *factor),
            Self::PixelUnshuffle { factor } => shuffle::unshuffled(input, *factor),
            Self::Resize(resize) => resize.output_shape(input),
            Self::Concat(concat) => concat.output_shape(input),
            Self::Slice { channels } => concat::sliced(input, channels),
            Self::GlobalAveragePool | Self::PlaneSum { .. } if input.channels == 0 || input.pixels() == 0 => {
                Err(Error::EmptyInput { shape: input })
            }
            Self::GlobalAveragePool | Self::PlaneSum { .. } => {
                input.check_indexable("input")?;
                Ok(Shape { height: 1, width: 1, ..input })
            }
        }
    }
}

impl From<Pool2d> for Link {
    fn from(pool: Pool2d) -> Self {
        Self::Pool(pool)
    }
}

impl From<ConvTranspose2d> for Link {
    fn from(transposed: ConvTranspose2d) -> Self {
        Self::ConvTranspose(transposed)
    }
}

impl From<PRelu> for Link {
    fn from(prelu: PRelu) -> Self {
        Self::PRelu(prelu)
    }
}

impl From<Concat> for Link {
    fn from(concat: Concat) -> Self {
        Self::Concat(concat)
    }
}

impl From<Resize> for Link {
    fn from(resize: Resize) -> Self {
        Self::Resize(resize)
    }
}

impl From<Conv2d> for Link {
    fn from(conv: Conv2d) -> Self {
        Self::Conv(conv)
    }
}

impl From<SqueezeExcite> for Link {
    fn from(gate: SqueezeExcite) -> Self {
        Self::SqueezeExcite(gate)
    }
}

/// The types of the input and the output of links in a chain of one type: that type, but f32 for what one sum of planes
/// gives to another or to a gate.
pub(crate) fn ends(links: &[Link], dtype: DType) -> [DType; 2] {
    let end = |link: Option<&Link>, sums_there: bool| match link {
        Some(Link::PlaneSum { of_sums, .. }) if *of_sums == sums_there => DType::F32,
        Some(Link::SqueezeExcite(gate)) if gate.of_sums && sums_there => DType::F32,
        _ => dtype,
    };
    [end(links.first(), true), end(links.last(), false)]
}
