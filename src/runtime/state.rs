//! Whether a device is lost, whether a buffer is another device's, and whether it was destroyed.
//!
//! wgpu has no query for any of these. But its native devices refuse wrong calls at once, with an error that tells. A
//! browser does not answer at once: there, the error scopes of later calls catch the errors.

use crate::model::error::{Error, Result};
use crate::runtime::device::Device;
use crate::runtime::scopes::{ALL, raised};

/// A small buffer of the library's own, which exists as long as the device.
pub struct Own {
    /// The words 1 and 2, to copy from and for nothing else.
    pub marks: wgpu::Buffer,
    /// What wgpu says of a range that no buffer has.
    #[cfg(not(target_arch = "wasm32"))]
    no_range: String,
}

impl Device {
    /// An error if the device is known to be lost.
    pub fn alive(&self) -> Result<()> {
        match self.identity.lost().get() {
            Some(message) => Err(Error::DeviceLost(message.clone())),
            None => Ok(()),
        }
    }

    /// Records that the device is lost, and returns the error.
    pub fn note_lost<T>(&self, message: &str) -> Result<T> {
        Err(Error::DeviceLost(self.identity.lost().get_or_init(|| message.into()).clone()))
    }

    /// The library's own buffer, made at its first use.
    pub async fn own(&self) -> Result<&Own> {
        if let Some(own) = self.own.get() {
            return Ok(own);
        }
        let usage = wgpu::BufferUsages::COPY_SRC;
        let descriptor = wgpu::BufferDescriptor { label: Some("marks"), size: 8, usage, mapped_at_creation: true };
        let make = || {
            let marks = self.device.create_buffer(&descriptor);
            // There is no range of a buffer that could not be made.
            marks.get_mapped_range_mut(..).ok()?.copy_from_slice(bytemuck::bytes_of(&[1u32, 2]));
            marks.unmap();
            Some(Own {
                #[cfg(not(target_arch = "wasm32"))]
                no_range: native::impossible_range(&marks)?,
                marks,
            })
        };
        match self.caught(ALL, make).await {
            (_, Some(error)) => Err(raised(error)),
            (Some(own), None) => Ok(self.own.get_or_init(|| own)),
            (None, None) => self.note_lost("it was lost before it was used"),
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use wgpu::wgc::device::DeviceError;
    use wgpu::wgc::device::queue::QueueWriteError;
    use wgpu::wgc::error::ContextError;

    use super::{Device, Error, Own, Result};
    use crate::runtime::block::block_on;

    impl Device {
        /// [`Device::own`], which is ready at once on native devices.
        fn own_now(&self) -> Result<&Own> {
            self.own.get().map_or_else(|| block_on(self.own()), Ok)
        }

        /// Asks whether the device is lost: calls on a lost device raise no error, its callback comes late, and a
        /// device of the caller's has the caller's. But a wrong call is refused, unless the device is lost.
        pub fn check_lost(&self) -> Result<()> {
            self.alive()?;
            match self.own_now() {
                // Nothing may be written into it.
                Ok(own) if self.refusal(&own.marks).is_none() => {
                    self.note_lost("it was destroyed, or its driver gave it up")
                }
                Err(error @ Error::DeviceLost(_)) => Err(error),
                // A device that has no memory for it is there.
                _ => Ok(()),
            }
        }

        /// What wgpu has against a write into a buffer, asked by one of no bytes: wgpu checks that, and does nothing.
        /// Of a lost device it has nothing to say.
        fn refusal(&self, buffer: &wgpu::Buffer) -> Option<wgpu::Error> {
            let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
            self.queue.write_buffer(buffer, 0, &[]);
            block_on(scope.pop())
        }

        /// Whether a buffer is another device's, of the same instance.
        ///
        /// # Errors
        /// [`Error::Validation`] if it could not be made.
        pub fn is_foreign(&self, buffer: &wgpu::Buffer) -> Result<bool> {
            let Some(wgpu::Error::Validation { source, description }) = self.refusal(buffer) else { return Ok(false) };
            let context = source.downcast_ref::<ContextError>();
            match context.and_then(|context| context.source.downcast_ref()) {
                Some(QueueWriteError::Queue(DeviceError::DeviceMismatch(_))) => Ok(true),
                Some(QueueWriteError::InvalidResource(_)) => Err(Error::Validation(description)),
                // Into a tensor that is only read nothing may be written.
                _ => Ok(false),
            }
        }

        /// Whether a buffer was destroyed.
        pub fn is_destroyed(&self, buffer: &wgpu::Buffer) -> bool {
            // wgpu says it in words only, but it says something else of a buffer that is there.
            self.own_now().is_ok_and(|own| impossible_range(buffer).is_some_and(|words| words != own.no_range))
        }
    }

    /// What wgpu says of a range that no buffer has, since it starts between two words. Whether the buffer is there it
    /// says first; whether it is mapped it does not come to.
    pub fn impossible_range(buffer: &wgpu::Buffer) -> Option<String> {
        // Of an empty buffer it is outside, at which wgpu panics.
        if buffer.size() == 0 {
            return None;
        }
        buffer.get_mapped_range(1..1).err().map(|error| error.to_string())
    }
}

#[cfg(target_arch = "wasm32")]
impl Device {
    /// An error if the device is known to be lost.
    pub fn check_lost(&self) -> Result<()> {
        self.alive()
    }

    /// A browser tells only when the buffer is used.
    pub fn is_foreign(&self, _: &wgpu::Buffer) -> Result<bool> {
        Ok(false)
    }

    /// A browser tells only when the buffer is used.
    pub fn is_destroyed(&self, _: &wgpu::Buffer) -> bool {
        false
    }
}
