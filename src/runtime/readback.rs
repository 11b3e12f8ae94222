//! Read-backs: the way of a tensor's values to the host.

#[cfg(not(target_arch = "wasm32"))]
use std::pin::pin;
use std::sync::Arc;
#[cfg(not(target_arch = "wasm32"))]
use std::task::{Context, Poll, Waker};

use futures_intrusive::channel::shared::{OneshotReceiver, oneshot_channel};
use half::f16;

use crate::model::dtype::{DType, halves};
use crate::model::error::{Error, Result};
#[cfg(not(target_arch = "wasm32"))]
use crate::runtime::block::block_on;
use crate::runtime::device::Device;
use crate::runtime::tensor::{Tensor, whole_words};

/// Bytes before the values: the mark, and what aligns the values for a mapping.
const HEADER: u64 = wgpu::MAP_ALIGNMENT;

/// A copy of a tensor on its way to the host, recorded by
/// [`GpuConv::encode_download`](crate::GpuConv::encode_download).
///
/// The values are those that the tensor has when the encoder's commands are executed: submit it, then
/// [`read`](Readback::read). A future of them, [`read_async`](Readback::read_async), may be made before as well.
#[must_use = "the values come with `read` or `read_async`"]
pub struct Readback {
    device: Arc<Device>,
    /// None for an empty tensor.
    copy: Option<(Copy, Mapped)>,
}

/// A buffer that read-backs are copied to.
pub struct Target {
    pub buffer: wgpu::Buffer,
    /// What the last read-back left in its header, 0 in a new one. The next one leaves something else, and so shows
    /// that it was executed: a buffer whose encoder the device refused is mapped like any other.
    pub mark: u32,
}

/// A copy that was recorded.
struct Copy {
    /// With the mark that the copy leaves.
    target: Target,
    bytes: u64,
    dtype: DType,
}

/// Says that the buffer is mapped, or that it cannot be; says nothing more once the commands were dropped.
type Mapped = OneshotReceiver<Outcome>;

/// Makes values of bytes.
type Decode<T> = fn(DType, &[u8]) -> Vec<T>;

type Outcome = Result<(), wgpu::BufferAsyncError>;

/// What the copy of a tensor needs.
pub struct Prepared<'a> {
    device: Arc<Device>,
    tensor: &'a Tensor,
    /// The buffer of marks, and the target. None for an empty tensor.
    buffers: Option<(wgpu::Buffer, Target)>,
}

impl<'a> Prepared<'a> {
    pub async fn new(device: Arc<Device>, tensor: &'a Tensor) -> Result<Self> {
        device.check_lost()?;
        tensor.check("tensor", &device)?;
        if !tensor.buffer().usage().contains(wgpu::BufferUsages::COPY_SRC) {
            return Err(Error::Usage { tensor: "tensor", missing: "COPY_SRC" });
        }
        let buffers = match tensor.bytes() {
            0 => None,
            bytes => {
                let marks = device.own().await?.marks.clone();
                Some((marks, device.take_target(HEADER + whole_words(bytes)).await?))
            }
        };
        Ok(Self { device, tensor, buffers })
    }

    /// Records the copy.
    pub fn encode(self, encoder: &mut wgpu::CommandEncoder) -> Readback {
        let Self { device, tensor, buffers } = self;
        let Some((marks, Target { buffer, mark })) = buffers else { return Readback { device, copy: None } };
        let (bytes, mark) = (tensor.bytes(), if mark == 1 { 2 } else { 1 });
        let copied = whole_words(bytes);
        encoder.copy_buffer_to_buffer(&marks, 4 * u64::from(mark - 1), &buffer, 0, 4);
        encoder.copy_buffer_to_buffer(tensor.buffer(), tensor.offset(), &buffer, HEADER, copied);
        let (sender, mapped) = oneshot_channel();
        encoder.map_buffer_on_submit(&buffer, wgpu::MapMode::Read, ..HEADER + copied, move |outcome| {
            let _ = sender.send(outcome);
        });
        let copy = Copy { target: Target { buffer, mark }, bytes, dtype: tensor.dtype() };
        Readback { device, copy: Some((copy, mapped)) }
    }
}

impl Readback {
    /// The values, in the tensor's layout. Blocks until the device has computed and copied them.
    ///
    /// # Errors
    /// [`Error::NotSubmitted`] if the encoder was not submitted before, or the device refused it; what the device says.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(self) -> Result<Vec<f32>> {
        self.read_as(DType::decode)
    }

    /// As [`Readback::read`], of a tensor of f16, as they are.
    ///
    /// # Errors
    /// As [`Readback::read`]; [`Error::DTypeMismatch`] if the tensor is not of f16.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_f16(self) -> Result<Vec<f16>> {
        self.check_f16()?.read_as(|_, bytes| halves(bytes))
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn read_as<T>(self, decode: Decode<T>) -> Result<Vec<T>> {
        block_on(self.device.wait())?;
        let Some((copy, mapped)) = self.copy else { return Ok(Vec::new()) };
        // Awaited, it would block for ever if the copy was never submitted.
        let outcome = pin!(mapped.receive()).poll(&mut Context::from_waker(Waker::noop()));
        // What was submitted is mapped by now. That may not have been said yet, if another thread polled as well.
        let outcome = if let Poll::Ready(outcome) = outcome { outcome } else { Some(Ok(())) };
        copy.values(&self.device, outcome, decode)
    }

    /// As [`Readback::read`], without blocking, and before the encoder is submitted as well as behind: the future is
    /// ready some time after that, provided that someone polls the device, as for every wgpu read-back.
    ///
    /// # Errors
    /// As [`Readback::read`]; [`Error::NotSubmitted`] once the encoder, or what it was finished to, was dropped.
    pub async fn read_async(self) -> Result<Vec<f32>> {
        self.read_as_async(DType::decode).await
    }

    /// As [`Readback::read_async`], of a tensor of f16, as they are.
    ///
    /// # Errors
    /// As [`Readback::read_async`]; [`Error::DTypeMismatch`] if the tensor is not of f16.
    pub async fn read_f16_async(self) -> Result<Vec<f16>> {
        self.check_f16()?.read_as_async(|_, bytes| halves(bytes)).await
    }

    async fn read_as_async<T>(self, decode: Decode<T>) -> Result<Vec<T>> {
        let Some((copy, mapped)) = self.copy else {
            return self.device.check_lost().map(|()| Vec::new());
        };
        let outcome = self.device.told(mapped).await?;
        #[cfg(target_arch = "wasm32")]
        if matches!(outcome, Some(Err(_))) {
            crate::runtime::browser::until_told().await;
        }
        copy.values(&self.device, outcome, decode)
    }

    fn check_f16(self) -> Result<Self> {
        match self.copy.as_ref().map(|(copy, _)| copy.dtype) {
            Some(actual) if actual != DType::F16 => {
                Err(Error::DTypeMismatch { tensor: "tensor", expected: DType::F16, actual })
            }
            _ => Ok(self),
        }
    }
}

impl Copy {
    /// The values, if the buffer is mapped and the copy was executed.
    fn values<T>(self, device: &Device, outcome: Option<Outcome>, decode: Decode<T>) -> Result<Vec<T>> {
        let Self { target, bytes, dtype } = self;
        let failure = match outcome {
            Some(Ok(())) => {
                let view = target.buffer.get_mapped_range(..HEADER + whole_words(bytes)).ok();
                if let Some(view) = view.filter(|view| view[..4] == target.mark.to_ne_bytes()) {
                    let values = decode(dtype, &view[HEADER as usize..(HEADER + bytes) as usize]);
                    drop(view);
                    device.keep_target(target);
                    return Ok(values);
                }
                Error::NotSubmitted
            }
            Some(Err(error)) => Error::Driver(error.to_string()),
            None => Error::NotSubmitted,
        };
        // A lost device executes nothing either.
        device.check_lost()?;
        Err(failure)
    }
}
