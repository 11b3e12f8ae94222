//! Tensors: buffers, or slices of buffers, with a shape and a layout.

use crate::error::{Error, Result};
use crate::shape::{Layout, Shape};

/// f32 elements in a wgpu buffer, or in a part of one.
///
/// Cloning copies the handle, not the data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tensor {
    buffer: wgpu::Buffer,
    offset: u64,
    shape: Shape,
    layout: Layout,
    /// The device that made it, where this crate did: wgpu's handles alone do not tell devices apart.
    device: Option<u64>,
}

impl Tensor {
    /// A tensor in a buffer of the caller's, from `offset` bytes on.
    ///
    /// The buffer needs the usage `STORAGE`; `COPY_SRC` as well to be downloaded, `COPY_DST` to be written by
    /// [`GpuConv::write`](crate::GpuConv::write). The offset must be a multiple of the device's
    /// `min_storage_buffer_offset_alignment`; that is checked when the tensor is used.
    ///
    /// # Errors
    /// [`Error::Length`] if the buffer ends before the tensor does, [`Error::Usage`].
    pub fn from_buffer(buffer: wgpu::Buffer, offset: u64, shape: impl Into<Shape>, layout: Layout) -> Result<Self> {
        let shape = shape.into();
        if !buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
            return Err(Error::Usage { tensor: "tensor", missing: "STORAGE" });
        }
        let room = buffer.size().saturating_sub(offset);
        if room < shape.bytes() {
            let what = format!("buffer of a tensor of {shape} from byte {offset} on");
            return Err(Error::Length { what, expected: shape.len(), actual: room / 4 });
        }
        Ok(Self { buffer, offset, shape, layout, device: None })
    }

    /// The same tensor, known to be of a device.
    pub(crate) fn of_device(self, device: u64) -> Self {
        Self { device: Some(device), ..self }
    }

    /// Refuses a tensor that is known to be another device's.
    pub(crate) fn check_device(&self, device: u64) -> Result<()> {
        if self.device.is_none_or(|own| own == device) {
            Ok(())
        } else {
            Err(Error::ForeignTensor { shape: self.shape })
        }
    }

    /// The buffer.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Where in the buffer it starts, bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Its extents.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// How its elements are ordered.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The slice as a shader binds it.
    pub(crate) fn binding(&self) -> wgpu::BindingResource<'_> {
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &self.buffer,
            offset: self.offset,
            size: std::num::NonZeroU64::new(self.shape.bytes()),
        })
    }

    /// Refuses an offset at which the device cannot bind a buffer.
    pub(crate) fn check_alignment(&self, alignment: u32) -> Result<()> {
        let alignment = u64::from(alignment);
        if self.offset.is_multiple_of(alignment) {
            Ok(())
        } else {
            Err(Error::Misaligned { offset: self.offset, alignment })
        }
    }
}
