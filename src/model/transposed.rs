//! One link: a transposed 2-D convolution with its epilogue.

use crate::model::conv::{Activation, Conv2d, Extent, Padding};
use crate::model::error::{Error, Result};
use crate::model::shape::Shape;

/// A transposed 2-D convolution: `torch.nn.ConvTranspose2d`, then bias and activation.
///
/// Each value of the input adds the kernel, times that value, to the output. Of neighbouring values the kernels are a
/// stride apart.
///
/// Made by [`ConvTranspose2d::new`] and the methods named as PyTorch names its arguments. The numbers are checked when
/// it is used; an [`Error`] then says what is wrong.
///
/// ```
/// use gpuconv::ConvTranspose2d;
/// let conv = ConvTranspose2d::new(64, 32, 3).stride(2).padding(1).output_padding(1);
/// assert_eq!(conv.output_shape([1, 64, 20, 30])?, [1, 32, 40, 60].into());
/// # Ok::<(), gpuconv::Error>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct ConvTranspose2d {
    /// Its numbers, which mean what PyTorch's mean: the stride is of the output, and the padding is what is cut off it.
    /// Of the weights there are as many as of this convolution, but in another order:
    /// [`ConvTranspose2d::weight_shape`].
    pub conv: Conv2d,
    /// Rows and columns added at the bottom and the right, which have the sums of all that reaches there: below the
    /// stride or the dilation.
    pub output_padding: [u32; 2],
}

impl ConvTranspose2d {
    /// A transposed convolution of stride 1 with a bias and no padding, dilation, groups or activation. The methods
    /// change these.
    pub fn new(in_channels: u32, out_channels: u32, kernel_size: impl Into<Extent>) -> Self {
        Self { conv: Conv2d::new(in_channels, out_channels, kernel_size), output_padding: [0; 2] }
    }

    /// Steps down and right between the kernels of two values.
    pub fn stride(mut self, stride: impl Into<Extent>) -> Self {
        self.conv = self.conv.stride(stride);
        self
    }

    /// Rows and columns of the output that are cut off.
    pub fn padding(mut self, padding: impl Into<Padding>) -> Self {
        self.conv = self.conv.padding(padding);
        self
    }

    /// Rows and columns added at the bottom and the right.
    pub fn output_padding(mut self, output_padding: impl Into<Extent>) -> Self {
        self.output_padding = output_padding.into().0;
        self
    }

    /// Distance between kernel rows and between kernel columns.
    pub fn dilation(mut self, dilation: impl Into<Extent>) -> Self {
        self.conv = self.conv.dilation(dilation);
        self
    }

    /// Groups of channels that do not see each other.
    pub fn groups(mut self, groups: u32) -> Self {
        self.conv = self.conv.groups(groups);
        self
    }

    /// Whether there is a bias.
    pub fn bias(mut self, bias: bool) -> Self {
        self.conv = self.conv.bias(bias);
        self
    }

    /// What follows the bias.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.conv = self.conv.activation(activation);
        self
    }

    /// The weight's extents: input channels, output channels of a group, kernel rows, kernel columns.
    pub fn weight_shape(&self) -> Shape {
        let [rows, columns] = self.conv.kernel_size;
        [self.conv.in_channels, self.conv.group_out_channels(), rows, columns].into()
    }

    /// Checks the numbers that do not depend on an input.
    ///
    /// # Errors
    /// What [`Conv2d::validate`] says; [`Error::OutputPadding`]; [`Error::Chain`] if it is to add a residual or to be
    /// scaled.
    pub fn validate(&self) -> Result<()> {
        self.conv.validate()?;
        let Conv2d { stride, dilation, .. } = self.conv;
        let output_padding = self.output_padding;
        if (0..2).any(|axis| output_padding[axis] >= stride[axis].max(dilation[axis])) {
            return Err(Error::OutputPadding { output_padding, stride, dilation });
        }
        if self.conv.residual.is_some() || self.conv.scaled {
            return Err(Error::Chain("a transposed convolution adds no residual, and takes no scale".into()));
        }
        Ok(())
    }

    /// The output's shape for an input's: `(in - 1) * stride - padding + dilated kernel + output padding`.
    ///
    /// # Errors
    /// Those of [`ConvTranspose2d::validate`]; [`Error::Channels`]; [`Error::EmptyInput`]; [`Error::EmptyOutput`] if
    /// the padding cuts all off; [`Error::TooLarge`].
    pub fn output_shape(&self, input: impl Into<Shape>) -> Result<Shape> {
        let input = input.into();
        self.validate()?;
        if input.channels != self.conv.in_channels {
            return Err(Error::Channels { link: 0, expected: self.conv.in_channels, actual: input.channels });
        }
        let image = [input.height, input.width];
        if image.contains(&0) {
            return Err(Error::EmptyInput { shape: input });
        }
        let (kernel, padding) = (self.conv.dilated_kernel(), self.conv.padding.map(i64::from));
        let size = [0, 1].map(|axis| {
            let steps = i64::from(image[axis] - 1) * i64::from(self.conv.stride[axis]);
            let cut = padding[axis] + padding[axis + 2];
            steps + kernel[axis] as i64 + i64::from(self.output_padding[axis]) - cut
        });
        if size.into_iter().any(|extent| extent < 1) {
            return Err(Error::EmptyOutput { image, size });
        }
        let [height, width] = size.map(|extent| u32::try_from(extent).unwrap_or(u32::MAX));
        let output = Shape { batch: input.batch, channels: self.conv.out_channels, height, width };
        input.check_indexable("input")?;
        output.check_indexable("output")?;
        Ok(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes that `torch.nn.ConvTranspose2d` gives.
    #[test]
    fn shapes_are_pytorchs() {
        let new = |kernel: [u32; 2]| ConvTranspose2d::new(2, 3, kernel);
        for (conv, output) in [
            (new([2, 2]).stride(2), [10, 14]),
            (new([3, 4]).stride(2).padding(1), [9, 14]),
            (new([3, 3]).stride([2, 3]).padding(1).output_padding([1, 2]), [10, 21]),
            (new([3, 1]).dilation([2, 1]), [9, 7]),
            (new([3, 3]).padding(3).dilation(2).output_padding(1), [4, 6]),
        ] {
            let shape = conv.output_shape([1, 2, 5, 7]).unwrap();
            assert_eq!((shape.channels, [shape.height, shape.width]), (3, output), "{conv:?}");
        }
    }

    #[test]
    fn errors_have_their_numbers() {
        let on = |conv: ConvTranspose2d| conv.output_shape([1, 2, 5, 7]).unwrap_err();
        let new = || ConvTranspose2d::new(2, 3, 3);
        let (stride, dilation, output_padding) = ([2, 3], [1, 1], [1, 3]);
        let too_much = Error::OutputPadding { output_padding, stride, dilation };
        assert_eq!(on(new().stride(stride).output_padding(output_padding)), too_much);
        assert_eq!(on(new().padding(4)), Error::EmptyOutput { image: [5, 7], size: [-1, 1] });
        assert!(matches!(on(ConvTranspose2d::new(3, 3, 3)), Error::Channels { expected: 3, actual: 2, .. }));
        assert!(matches!(on(new().groups(2)), Error::Groups { groups: 2, .. }));
    }
}
