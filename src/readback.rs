//! Read-backs: the way of a tensor's values to the host.

use std::sync::Arc;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// A copy of a tensor on its way to the host, recorded by [`GpuConv::encode_download`](crate::GpuConv::encode_download).
///
/// Submit the encoder, then read.
#[must_use = "the values come with `read` or `read_async`"]
pub struct Readback {
    device: Arc<Device>,
    /// None for an empty tensor.
    buffer: Option<wgpu::Buffer>,
    bytes: u64,
}

impl Readback {
    /// Records the copy.
    pub(crate) fn encode(device: Arc<Device>, encoder: &mut wgpu::CommandEncoder, tensor: &Tensor) -> Result<Self> {
        device.check_lost()?;
        tensor.check("tensor", &device)?;
        if !tensor.buffer().usage().contains(wgpu::BufferUsages::COPY_SRC) {
            return Err(Error::Usage { tensor: "tensor", missing: "COPY_SRC" });
        }
        let bytes = tensor.shape().bytes();
        if bytes == 0 {
            return Ok(Self { device, buffer: None, bytes });
        }
        let buffer = device.take_readback(bytes)?;
        encoder.copy_buffer_to_buffer(tensor.buffer(), tensor.offset(), &buffer, 0, bytes);
        Ok(Self { device, buffer: Some(buffer), bytes })
    }

    /// The values, in the tensor's layout. Blocks until the device has computed and copied them.
    ///
    /// # Errors
    /// What the device says.
    pub fn read(self) -> Result<Vec<f32>> {
        let device = self.device.clone();
        let values = self.read_async();
        device.wait()?;
        pollster::block_on(values)
    }

    /// As [`Readback::read`], without blocking: the future is ready some time after the encoder was submitted,
    /// provided that someone polls the device, as for every wgpu read-back.
    ///
    /// # Errors
    /// As [`Readback::read`].
    pub fn read_async(self) -> impl Future<Output = Result<Vec<f32>>> + Send + use<> {
        let Self { device, buffer, bytes } = self;
        let (sender, receiver) = futures_intrusive::channel::shared::oneshot_channel();
        let mapping = device.scoped(|| {
            if let Some(buffer) = &buffer {
                buffer.map_async(wgpu::MapMode::Read, ..bytes, move |result| {
                    let _ = sender.send(result);
                });
            }
        });
        async move {
            mapping?;
            let Some(buffer) = buffer else { return Ok(Vec::new()) };
            match receiver.receive().await {
                Some(Ok(())) => {}
                Some(Err(error)) => return Err(device.alive().err().unwrap_or(Error::Internal(error.to_string()))),
                None => return Err(Error::DeviceLost("the read-back was dropped".into())),
            }
            let view = buffer.get_mapped_range(..bytes).map_err(|error| Error::Internal(error.to_string()))?;
            let values = bytemuck::pod_collect_to_vec(&view);
            drop(view);
            buffer.unmap();
            device.keep_readback(buffer);
            Ok(values)
        }
    }
}
