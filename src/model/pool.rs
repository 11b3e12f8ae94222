//! One link: a pool over windows.

use crate::model::conv::{Extent, Padding};
use crate::model::error::{Error, Result};
use crate::model::shape::Shape;

/// What a pool makes of the values of a window.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMode {
    /// The largest value; NaN where there is one. Padding is less than any number.
    Max,
    /// The mean.
    Average {
        /// Whether padding counts, as zeros. What of a window lies beyond the padding never counts.
        count_include_pad: bool,
    },
}

/// A pool over windows: `torch.nn.MaxPool2d` or `torch.nn.AvgPool2d`.
///
/// Made by [`Pool2d::max`] or [`Pool2d::average`] and the methods named as PyTorch names its arguments. The numbers are
/// checked when it is used; an [`Error`] then says what is wrong.
///
/// ```
/// use gpuconv::{Chain, Pool2d};
/// // ResNet's.
/// let pool = Pool2d::max(3).stride(2).padding(1);
/// assert_eq!(pool.output_shape([1, 64, 112, 112])?, [1, 64, 56, 56].into());
/// # Ok::<(), gpuconv::Error>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool2d {
    /// What it makes of a window.
    pub mode: PoolMode,
    /// Rows and columns of a window.
    pub kernel_size: [u32; 2],
    /// Steps down and right between two windows.
    pub stride: [u32; 2],
    /// Rows and columns added at the top, left, bottom and right, at most half a window each.
    pub padding: [u32; 4],
    /// Distance between two rows and two columns of a window; 1 for means.
    pub dilation: [u32; 2],
    /// Whether a last window that reaches beyond the padding counts. It must start in the image, or before it.
    pub ceil_mode: bool,
}

impl Pool2d {
    fn new(mode: PoolMode, kernel_size: impl Into<Extent>) -> Self {
        let kernel_size = kernel_size.into().0;
        Self { mode, kernel_size, stride: kernel_size, padding: [0; 4], dilation: [1; 2], ceil_mode: false }
    }

    /// The largest value of each window; windows lie side by side, without padding. The methods change that.
    pub fn max(kernel_size: impl Into<Extent>) -> Self {
        Self::new(PoolMode::Max, kernel_size)
    }

    /// The mean of each window, padding included; windows lie side by side, without padding. The methods change that.
    pub fn average(kernel_size: impl Into<Extent>) -> Self {
        Self::new(PoolMode::Average { count_include_pad: true }, kernel_size)
    }

    /// Steps down and right between two windows.
    pub fn stride(mut self, stride: impl Into<Extent>) -> Self {
        self.stride = stride.into().0;
        self
    }

    /// Rows and columns around the image, at most half a window on each side.
    pub fn padding(mut self, padding: impl Into<Padding>) -> Self {
        self.padding = padding.into().0;
        self
    }

    /// Distance between a window's rows and between its columns; for the largest value alone.
    pub fn dilation(mut self, dilation: impl Into<Extent>) -> Self {
        self.dilation = dilation.into().0;
        self
    }

    /// Whether a last window that reaches beyond the padding counts.
    pub fn ceil_mode(mut self, ceil_mode: bool) -> Self {
        self.ceil_mode = ceil_mode;
        self
    }

    /// Whether the padding counts in a mean. It says nothing of the largest value.
    pub fn count_include_pad(mut self, count: bool) -> Self {
        if let PoolMode::Average { count_include_pad } = &mut self.mode {
            *count_include_pad = count;
        }
        self
    }

    /// Rows and columns that a dilated window covers.
    pub fn dilated_kernel(&self) -> [u64; 2] {
        [0, 1].map(|axis| u64::from(self.dilation[axis]) * u64::from(self.kernel_size[axis]).saturating_sub(1) + 1)
    }

    /// Checks the numbers that do not depend on an input.
    ///
    /// # Errors
    /// [`Error::Parameter`] and [`Error::PoolPadding`].
    pub fn validate(&self) -> Result<()> {
        // Below this, padded coordinates fit into 32 bits.
        const LARGEST: u32 = 1 << 16;
        let most = if self.mode == PoolMode::Max { LARGEST } else { 1 };
        for (name, values, most) in [
            ("kernel_size", self.kernel_size, LARGEST),
            ("stride", self.stride, LARGEST),
            ("dilation", self.dilation, most),
        ] {
            if let Some(value) = values.into_iter().find(|&value| value < 1 || value > most) {
                let expected = if most == 1 { "1 in a mean".into() } else { format!("1 to {most}") };
                return Err(Error::Parameter { name, value: value.into(), expected });
            }
        }
        let (padding, kernel) = (self.padding, self.kernel_size);
        if (0..4).any(|side| padding[side] > kernel[side % 2] / 2) {
            return Err(Error::PoolPadding { padding, kernel });
        }
        Ok(())
    }

    /// The output's shape for an input's: `floor((in + padding - dilated kernel) / stride) + 1`, or `ceil` if
    /// `ceil_mode` and the last window does not start beyond the image.
    ///
    /// # Errors
    /// Those of [`Pool2d::validate`]; [`Error::EmptyInput`] and [`Error::KernelTooLarge`] where PyTorch refuses as
    /// well; [`Error::TooLarge`].
    pub fn output_shape(&self, input: impl Into<Shape>) -> Result<Shape> {
        let input = input.into();
        self.validate()?;
        if input.channels == 0 || input.pixels() == 0 {
            return Err(Error::EmptyInput { shape: input });
        }
        let (kernel, extents) = (self.dilated_kernel(), [input.height, input.width].map(u64::from));
        let [before, after] = [0, 2].map(|side| [self.padding[side], self.padding[side + 1]].map(u64::from));
        let image = [0, 1].map(|axis| before[axis] + extents[axis] + after[axis]);
        let extent = |axis: usize| {
            let stride = u64::from(self.stride[axis]);
            let beyond = if self.ceil_mode { stride - 1 } else { 0 };
            let count = (image[axis] + beyond).checked_sub(kernel[axis])? / stride + 1;
            let starts_beyond = (count - 1) * stride >= before[axis] + extents[axis];
            Some(if self.ceil_mode && starts_beyond { count - 1 } else { count })
        };
        let (Some(height), Some(width)) = (extent(0), extent(1)) else {
            return Err(Error::KernelTooLarge { kernel, image });
        };
        let [height, width] = [height, width].map(|extent| u32::try_from(extent).unwrap_or(u32::MAX));
        let output = Shape { height, width, ..input };
        input.check_indexable("input")?;
        output.check_indexable("output")?;
        Ok(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes that `torch.nn.MaxPool2d` gives.
    #[test]
    fn shapes_are_pytorchs() {
        for (pool, input, output) in [
            (Pool2d::max(3).stride(2).padding(1), [112, 112], [56, 56]),
            (Pool2d::max(2), [7, 8], [3, 4]),
            (Pool2d::max(2).ceil_mode(true), [7, 8], [4, 4]),
            // The window that would be the fourth starts in the padding behind the image.
            (Pool2d::max(2).padding(1), [5, 6], [3, 4]),
            (Pool2d::max(2).padding(1).ceil_mode(true), [5, 6], [3, 4]),
            (Pool2d::max([3, 2]).stride([2, 1]).padding([1, 0]), [9, 9], [5, 8]),
            (Pool2d::max(3).stride(2).ceil_mode(true), [2, 2], [1, 1]),
            (Pool2d::max(3).dilation(2).stride(1), [9, 7], [5, 3]),
            (Pool2d::average(3).stride(3).ceil_mode(true), [10, 11], [4, 4]),
            // One that starts behind the image is none.
            (Pool2d::average(1).stride(3).ceil_mode(true), [7, 6], [3, 2]),
        ] {
            let shape = pool.output_shape([1, 1, input[0], input[1]]).unwrap();
            assert_eq!([shape.height, shape.width], output, "{pool:?} on {input:?}");
        }
    }

    #[test]
    fn errors_have_their_numbers() {
        let on = |pool: Pool2d| pool.output_shape([1, 3, 4, 5]).unwrap_err();
        assert_eq!(
            on(Pool2d::max([3, 4]).padding([1, 3])),
            Error::PoolPadding { padding: [1, 3, 1, 3], kernel: [3, 4] }
        );
        assert_eq!(on(Pool2d::max(5)), Error::KernelTooLarge { kernel: [5, 5], image: [4, 5] });
        assert!(matches!(on(Pool2d::max(0)), Error::Parameter { name: "kernel_size", value: 0, .. }));
        assert!(matches!(on(Pool2d::max(2).stride(0)), Error::Parameter { name: "stride", value: 0, .. }));
        assert!(matches!(on(Pool2d::average(2).dilation(2)), Error::Parameter { name: "dilation", value: 2, .. }));
        let empty = Pool2d::max(1).output_shape([1, 2, 0, 3]);
        assert_eq!(empty, Err(Error::EmptyInput { shape: [1, 2, 0, 3].into() }));
    }
}
