//! Shapes and layouts of tensors.

use std::fmt;

use crate::model::dtype::DType;
use crate::model::error::{Error, Result};

/// The most elements of a tensor, since shaders index with 32 bits. Half of that range is left for tiles, whose indices
/// reach past the end before they are clamped.
pub(crate) const MOST_ELEMENTS: u64 = 1 << 31;

/// The extents of a tensor, always in PyTorch's order, in any layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Images in the batch; may be 0.
    pub batch: u32,
    /// Channels.
    pub channels: u32,
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

/// How a tensor lies in memory.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Batch, channels, height, width: PyTorch's default.
    #[default]
    Nchw,
    /// Batch, height, width, channels: PyTorch's `channels_last`.
    Nhwc,
}

impl Shape {
    /// The number of elements.
    pub fn len(&self) -> u64 {
        // A product of four u32s can overflow u64. Saturated, it is still too large.
        [self.batch, self.channels, self.height, self.width]
            .iter()
            .fold(1u64, |product, &extent| product.saturating_mul(extent.into()))
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The size in bytes.
    pub fn bytes(&self, dtype: DType) -> u64 {
        self.len().saturating_mul(dtype.bytes())
    }

    /// The pixels of one channel of one image.
    pub fn pixels(&self) -> u64 {
        u64::from(self.height) * u64::from(self.width)
    }

    /// Refuses tensors whose elements a shader's 32-bit index cannot count.
    pub(crate) fn check_indexable(&self, what: &str) -> Result<()> {
        let limit = MOST_ELEMENTS;
        // An empty tensor's extents are multiplied as well.
        let needed = Self::from(<[u32; 4]>::from(*self).map(|extent| extent.max(1))).len();
        if needed > limit {
            return Err(Error::TooLarge { what: format!("the {what} of {self} elements"), needed, limit });
        }
        Ok(())
    }
}

impl From<[u32; 4]> for Shape {
    fn from([batch, channels, height, width]: [u32; 4]) -> Self {
        Self { batch, channels, height, width }
    }
}

impl From<Shape> for [u32; 4] {
    fn from(shape: Shape) -> Self {
        [shape.batch, shape.channels, shape.height, shape.width]
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}x{}", self.batch, self.channels, self.height, self.width)
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nchw => "nchw",
            Self::Nhwc => "nhwc",
        })
    }
}

/// Reorders the elements of a tensor from NCHW into `layout`. It does not check that `data` has [`Shape::len`] of
/// them.
pub fn from_nchw(data: &[f32], shape: impl Into<Shape>, layout: Layout) -> Vec<f32> {
    let shape = shape.into();
    match layout {
        Layout::Nchw => data.to_vec(),
        Layout::Nhwc => transpose(data, shape.channels as usize, shape.pixels() as usize),
    }
}

/// Reorders the elements of a tensor from `layout` into NCHW. It does not check that `data` has [`Shape::len`] of
/// them.
pub fn to_nchw(data: &[f32], shape: impl Into<Shape>, layout: Layout) -> Vec<f32> {
    let shape = shape.into();
    match layout {
        Layout::Nchw => data.to_vec(),
        Layout::Nhwc => transpose(data, shape.pixels() as usize, shape.channels as usize),
    }
}

/// Transposes each `rows` x `columns` matrix of a batch of them.
fn transpose(data: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(data.len());
    for image in data.chunks_exact(rows.saturating_mul(columns).max(1)) {
        for column in 0..columns {
            out.extend((0..rows).map(|row| image[row * columns + column]));
        }
    }
    out
}
