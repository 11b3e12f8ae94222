//! Tensors: buffers, or slices of buffers, with a shape and a layout.

use std::ops::Range;

use crate::model::dtype::DType;
use crate::model::error::{Error, Result};
use crate::model::shape::{Layout, Shape};
use crate::runtime::device::Device;
use crate::runtime::identity::Identity;

/// Elements in a wgpu buffer, or in a part of one.
///
/// Cloning copies the handle, not the data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tensor {
    buffer: wgpu::Buffer,
    offset: u64,
    shape: Shape,
    layout: Layout,
    dtype: DType,
    /// The device that made it, where this crate did.
    device: Option<Identity>,
}

impl Tensor {
    /// A tensor of f32 in a buffer of the caller's, from `offset` bytes on.
    ///
    /// The buffer needs the usage `STORAGE`; `COPY_SRC` as well to be downloaded, `COPY_DST` to be written by
    /// [`GpuConv::write`](crate::GpuConv::write). The offset must be a multiple of the device's
    /// `min_storage_buffer_offset_alignment`; that is checked when the tensor is used, as is whether the buffer is of
    /// the device that uses it.
    ///
    /// One thing cannot be checked: the buffer must be of that device's [`wgpu::Instance`]. wgpu knows buffers by
    /// numbers, and each instance counts anew. Given a buffer of another instance, it takes the buffer of its own that
    /// has this number, or panics if there is none. (A tensor that [`GpuConv`](crate::GpuConv) made is refused with
    /// [`Error::ForeignTensor`] wherever it does not belong.)
    ///
    /// ```
    /// use gpuconv::{GpuConv, Layout, Tensor};
    /// let gpu = GpuConv::new()?;
    /// // Two images, one behind the other, each on its own.
    /// let buffer = gpu.device().create_buffer(&wgpu::BufferDescriptor {
    ///     label: None,
    ///     size: 2 * 4096,
    ///     usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
    ///     mapped_at_creation: false,
    /// });
    /// let first = Tensor::from_buffer(buffer.clone(), 0, [1, 1, 32, 32], Layout::Nchw)?;
    /// let second = Tensor::from_buffer(buffer, 4096, [1, 1, 32, 32], Layout::Nchw)?;
    /// gpu.write(&second, &[1.0; 1024])?;
    /// assert_eq!(gpu.download(&first)?, [0.0; 1024]);
    /// # Ok::<(), gpuconv::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Length`] if the buffer ends before the tensor does, [`Error::Usage`].
    pub fn from_buffer(buffer: wgpu::Buffer, offset: u64, shape: impl Into<Shape>, layout: Layout) -> Result<Self> {
        Self::from_buffer_of(buffer, offset, shape, layout, DType::F32)
    }

    /// As [`Tensor::from_buffer`], of elements of a type. A device binds words of four bytes, so the buffer must hold
    /// the whole last word; the two bytes behind an odd number of f16 are not written by layers.
    ///
    /// # Errors
    /// As [`Tensor::from_buffer`].
    pub fn from_buffer_of(
        buffer: wgpu::Buffer,
        offset: u64,
        shape: impl Into<Shape>,
        layout: Layout,
        dtype: DType,
    ) -> Result<Self> {
        let shape = shape.into();
        if !buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
            return Err(Error::Usage { tensor: "tensor", missing: "STORAGE" });
        }
        let room = buffer.size().saturating_sub(offset);
        if room < whole_words(shape.bytes(dtype)) {
            let what = format!("buffer of a tensor of {shape} from byte {offset} on");
            return Err(Error::Length { what, expected: shape.len(), actual: room / 4 * 4 / dtype.bytes() });
        }
        Ok(Self { buffer, offset, shape, layout, dtype, device: None })
    }

    /// A part of it, whose elements lie side by side, from this byte of it on.
    pub(crate) fn part(&self, offset: u64, shape: Shape) -> Self {
        Self { offset: self.offset + offset, shape, ..self.clone() }
    }

    /// Another one, as it lies in a buffer of the device's workspace.
    pub(crate) fn in_workspace(&self, buffer: &wgpu::Buffer, offset: u64, shape: Shape, dtype: DType) -> Self {
        Self { buffer: buffer.clone(), offset, shape, dtype, ..self.clone() }
    }

    /// The same tensor, known to be of a device.
    pub(crate) fn of_device(self, device: Identity) -> Self {
        Self { device: Some(device), ..self }
    }

    /// Refuses a tensor that is another device's, or whose buffer was destroyed.
    pub(crate) fn check(&self, name: &'static str, device: &Device) -> Result<()> {
        let is_foreign = match &self.device {
            Some(own) => *own != device.identity,
            None => device.is_foreign(&self.buffer)?,
        };
        if is_foreign {
            device.check_lost()?;
            return Err(Error::ForeignTensor { shape: self.shape });
        }
        self.check_there(name, device)
    }

    /// Refuses a tensor whose buffer was destroyed.
    pub(crate) fn check_there(&self, name: &'static str, device: &Device) -> Result<()> {
        if device.is_destroyed(&self.buffer) {
            // A lost device's buffers are gone as well.
            device.check_lost()?;
            return Err(Error::Destroyed { tensor: name });
        }
        Ok(())
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

    /// The type of its elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The size in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.shape.bytes(self.dtype)
    }

    /// The slice as a shader binds it.
    pub(crate) fn binding(&self) -> wgpu::BindingResource<'_> {
        self.window(0..self.bytes())
    }

    /// Some bytes of it, as a shader binds them: to the end of the last word.
    pub(crate) fn window(&self, bytes: Range<u64>) -> wgpu::BindingResource<'_> {
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &self.buffer,
            offset: self.offset + bytes.start,
            size: std::num::NonZeroU64::new(whole_words(bytes.end - bytes.start)),
        })
    }

    /// Refuses elements of another type.
    pub(crate) fn check_dtype(&self, dtype: DType) -> Result<()> {
        if self.dtype == dtype {
            return Ok(());
        }
        Err(Error::DTypeMismatch { tensor: "tensor", expected: dtype, actual: self.dtype })
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

/// Bytes, up to the end of the last word of four.
pub(crate) fn whole_words(bytes: u64) -> u64 {
    bytes.next_multiple_of(4)
}
