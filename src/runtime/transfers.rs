//! Tensors on a device: made, written and read back.

use std::borrow::Cow;

use half::f16;

use crate::model::dtype::{DType, bytes_of_halves};
use crate::model::error::{Error, Result};
use crate::model::shape::{Layout, Shape};
use crate::model::weights::length;
#[cfg(not(target_arch = "wasm32"))]
use crate::runtime::block::block_on;
use crate::runtime::device::{Device, in_whole_words};
use crate::runtime::gpu::GpuConv;
use crate::runtime::readback::{Prepared, Readback};
use crate::runtime::tensor::Tensor;

impl GpuConv {
    /// As [`GpuConv::empty`], awaited.
    ///
    /// # Errors
    /// As [`GpuConv::empty`].
    pub async fn empty_async(&self, shape: impl Into<Shape>, layout: Layout) -> Result<Tensor> {
        self.empty_of_async(shape, layout, DType::F32).await
    }

    /// As [`GpuConv::empty_of`], awaited.
    ///
    /// # Errors
    /// As [`GpuConv::empty`].
    pub async fn empty_of_async(&self, shape: impl Into<Shape>, layout: Layout, dtype: DType) -> Result<Tensor> {
        let shape = shape.into();
        let buffer = self.shared.buffer("tensor", shape.bytes(dtype), tensor_usage()).await?;
        self.own_tensor(buffer, shape, layout, dtype)
    }

    /// As [`GpuConv::upload`], awaited.
    ///
    /// # Errors
    /// As [`GpuConv::upload`].
    pub async fn upload_async(&self, values: &[f32], shape: impl Into<Shape>) -> Result<Tensor> {
        self.upload_as_async(values, shape, Layout::Nchw).await
    }

    /// As [`GpuConv::upload_as`], awaited.
    ///
    /// # Errors
    /// As [`GpuConv::upload`].
    pub async fn upload_as_async(&self, values: &[f32], shape: impl Into<Shape>, layout: Layout) -> Result<Tensor> {
        self.upload_of_async(values, shape, layout, DType::F32).await
    }

    /// As [`GpuConv::upload_of`], awaited.
    ///
    /// # Errors
    /// As [`GpuConv::upload`].
    pub async fn upload_of_async(
        &self,
        values: &[f32],
        shape: impl Into<Shape>,
        layout: Layout,
        dtype: DType,
    ) -> Result<Tensor> {
        let shape = shape.into();
        length("tensor".into(), shape.len(), values.len())?;
        let buffer = self.shared.buffer_with("tensor", &dtype.encode(values), tensor_usage()).await?;
        self.own_tensor(buffer, shape, layout, dtype)
    }

    /// As [`GpuConv::upload_f16`], awaited.
    ///
    /// # Errors
    /// As [`GpuConv::upload`].
    pub async fn upload_f16_async(&self, values: &[f16], shape: impl Into<Shape>, layout: Layout) -> Result<Tensor> {
        let shape = shape.into();
        length("tensor".into(), shape.len(), values.len())?;
        let buffer = self.shared.buffer_with("tensor", bytes_of_halves(values), tensor_usage()).await?;
        self.own_tensor(buffer, shape, layout, DType::F16)
    }

    fn own_tensor(&self, buffer: wgpu::Buffer, shape: Shape, layout: Layout, dtype: DType) -> Result<Tensor> {
        Ok(Tensor::from_buffer_of(buffer, 0, shape, layout, dtype)?.of_device(self.shared.identity.clone()))
    }

    /// As [`GpuConv::write`], awaited.
    ///
    /// # Errors
    /// As [`GpuConv::write`].
    pub async fn write_async(&self, tensor: &Tensor, values: &[f32]) -> Result<()> {
        length("tensor".into(), tensor.shape().len(), values.len())?;
        self.write_bytes(tensor, tensor.dtype().encode(values)).await
    }

    /// As [`GpuConv::write_f16`], awaited.
    ///
    /// # Errors
    /// As [`GpuConv::write_f16`].
    pub async fn write_f16_async(&self, tensor: &Tensor, values: &[f16]) -> Result<()> {
        length("tensor".into(), tensor.shape().len(), values.len())?;
        tensor.check_dtype(DType::F16)?;
        self.write_bytes(tensor, bytes_of_halves(values).into()).await
    }

    async fn write_bytes(&self, tensor: &Tensor, bytes: Cow<'_, [u8]>) -> Result<()> {
        tensor.check("tensor", &self.shared)?;
        if !tensor.buffer().usage().contains(wgpu::BufferUsages::COPY_DST) {
            return Err(Error::Usage { tensor: "tensor", missing: "COPY_DST" });
        }
        let bytes = in_whole_words(bytes);
        self.shared.scoped(|| self.shared.queue.write_buffer(tensor.buffer(), tensor.offset(), &bytes)).await
    }

    /// As [`GpuConv::download`], awaited. The copy is submitted at once; in a browser, when the future is first polled.
    /// On native devices the program must poll the device until the future is ready, as for every wgpu read-back.
    ///
    /// # Errors
    /// As [`GpuConv::download`].
    pub fn download_async(&self, tensor: &Tensor) -> impl Future<Output = Result<Vec<f32>>> + Send + use<> {
        let (gpu, tensor) = (self.clone(), tensor.clone());
        let start = async move { gpu.start_download(&tensor).await };
        // This does not wait on native devices: the errors of calls are there at once.
        #[cfg(not(target_arch = "wasm32"))]
        let start = std::future::ready(block_on(start));
        async move { start.await?.read_async().await }
    }

    /// As [`GpuConv::download_f16`], awaited, in the way of [`GpuConv::download_async`].
    ///
    /// # Errors
    /// As [`GpuConv::download_f16`].
    pub fn download_f16_async(&self, tensor: &Tensor) -> impl Future<Output = Result<Vec<f16>>> + Send + use<> {
        let (gpu, tensor) = (self.clone(), tensor.clone());
        let start = async move { gpu.start_download(&tensor).await };
        // As above.
        #[cfg(not(target_arch = "wasm32"))]
        let start = std::future::ready(block_on(start));
        async move { start.await?.read_f16_async().await }
    }

    pub(crate) async fn start_download(&self, tensor: &Tensor) -> Result<Readback> {
        let Device { device, queue, .. } = self.shared();
        let prepared = Prepared::new(self.shared.clone(), tensor).await?;
        // In one scope, for a browser takes a while to say what was wrong.
        let submitted = self.shared.scoped(|| {
            let mut encoder = device.create_command_encoder(&Default::default());
            let readback = prepared.encode(&mut encoder);
            queue.submit([encoder.finish()]);
            readback
        });
        submitted.await
    }

    /// As [`GpuConv::encode_download`], awaited.
    ///
    /// # Errors
    /// As [`GpuConv::download`].
    pub async fn encode_download_async(&self, encoder: &mut wgpu::CommandEncoder, tensor: &Tensor) -> Result<Readback> {
        Ok(Prepared::new(self.shared.clone(), tensor).await?.encode(encoder))
    }
}

fn tensor_usage() -> wgpu::BufferUsages {
    wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST
}
