//! One link: PReLU.

use crate::model::conv::Conv2d;
use crate::model::error::{Error, Result};
use crate::model::shape::Shape;

/// What is positive stays, and what is not is multiplied by a slope: `torch.nn.PReLU`, with a slope for each channel.
/// Its weights are the slopes, without a bias.
///
/// ```
/// use gpuconv::{Chain, Conv2d, PRelu};
/// let chain = Chain::from(Conv2d::new(3, 16, 3).padding(1)).then(PRelu::new(16));
/// assert_eq!(chain.shapes([1, 3, 8, 8])?[2], [1, 16, 8, 8].into());
/// # Ok::<(), gpuconv::Error>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct PRelu {
    /// The convolution that has as many weights, in the same order: depthwise, of one tap.
    pub(crate) conv: Conv2d,
}

impl PRelu {
    /// With a slope for each of these channels.
    pub fn new(channels: u32) -> Self {
        Self { conv: Conv2d::depthwise(channels, 1).bias(false) }
    }

    /// The channels.
    pub fn channels(&self) -> u32 {
        self.conv.in_channels
    }

    /// The output's shape, which is the input's.
    ///
    /// # Errors
    /// [`Error::Channels`] for another number of them; [`Error::EmptyInput`]; [`Error::TooLarge`].
    pub fn output_shape(&self, input: impl Into<Shape>) -> Result<Shape> {
        let input = input.into();
        if input.channels == 0 || input.pixels() == 0 {
            return Err(Error::EmptyInput { shape: input });
        }
        self.conv.output_shape(input)
    }
}
