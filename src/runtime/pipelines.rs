//! Compiled pipelines: all before the first frame, and kept from one run of a program to the next.

use std::collections::HashSet;
use std::hash::Hasher;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use fnv::FnvHasher;

use crate::model::chain::Chain;
use crate::model::error::{Error, Result};
use crate::model::shape::{Layout, Shape};
use crate::planner::{self, Choice, Schedule};
use crate::runtime::device::lock;
use crate::runtime::first_run::dispatch_once;
use crate::runtime::gpu::GpuConv;

/// What a pipeline cache's bytes begin with; the digit is the form's.
const MAGIC: &[u8; 8] = b"gpuconv1";
/// Magic, length of the key, length of the data, checksum of both.
const HEADER: usize = 32;

impl GpuConv {
    /// Plans chains for inputs of a size and compiles their pipelines, in parallel: layers of these chains find them
    /// ready. A software device compiles at the first dispatch, one shader after the other; there each is run once
    /// without work, on several devices at a time, which find each other's shaders in the driver's cache.
    ///
    /// ```
    /// use gpuconv::{Chain, Conv2d, GpuConv, Layout};
    /// let gpu = GpuConv::new()?;
    /// let conv = Conv2d::new(3, 8, 3).padding(1);
    /// gpu.warm_up(&[(Chain::from(conv), [1, 3, 16, 16], Layout::Nchw)])?;
    /// // A layer of this chain on such an input starts at once.
    /// # Ok::<(), gpuconv::Error>(())
    /// ```
    ///
    /// # Errors
    /// What [`GpuConv::schedule`] and the device say; of several errors the first that is noticed.
    pub fn warm_up<S: Into<Shape> + Copy>(&self, chains: &[(Chain, S, Layout)]) -> Result<()> {
        self.compile_ahead(|| {
            let mut schedules = Vec::new();
            for (chain, input, layout) in chains {
                for band in planner::band_inputs(chain, (*input).into(), self.caps())? {
                    schedules.push(self.schedule(chain, band, *layout, &Choice::Auto)?);
                }
            }
            Ok(schedules)
        })
    }

    /// Compiles the shaders of schedules. Where the driver refuses one, schedules are made again without it.
    pub(crate) fn compile_ahead(&self, schedules: impl Fn() -> Result<Vec<Schedule>>) -> Result<()> {
        self.shared().check_lost()?;
        loop {
            let refused = self.shared().refused().len();
            let outcome = schedules().and_then(|schedules| self.compile_all(schedules));
            if outcome.is_ok() || self.shared().refused().len() == refused {
                return outcome;
            }
        }
    }

    fn compile_all(&self, schedules: Vec<Schedule>) -> Result<()> {
        let (mut passes, mut seen) = (Vec::new(), HashSet::new());
        for recipe in schedules.into_iter().flat_map(|schedule| schedule.steps).map(|step| step.recipe) {
            for mut pass in recipe.passes {
                let wgsl = pass.wgsl.text()?;
                if seen.insert(wgsl.clone()) {
                    pass.wgsl = wgsl.into();
                    passes.push((recipe.name.clone(), pass));
                }
            }
        }
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
        let work = || {
            while let Some((name, pass)) = passes.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = self.shared().pipeline(name, pass) {
                    lock(&failed).get_or_insert(error);
                    next.store(passes.len(), Ordering::Relaxed);
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(2, NonZero::get).min(passes.len());
        std::thread::scope(|scope| {
            (0..threads).for_each(|_| {
                scope.spawn(work);
            });
        });
        let failed = lock(&failed).take();
        failed.map_or(Ok(()), Err)?;
        match self.device().adapter_info().device_type {
            wgpu::DeviceType::Cpu => dispatch_once(self, passes),
            _ => Ok(()),
        }
    }

    /// As [`GpuConv::warm_up`], on threads of its own: the caller's go on meanwhile.
    ///
    /// # Errors
    /// As [`GpuConv::warm_up`].
    pub fn warm_up_async<S: Into<Shape> + Copy + Send + 'static>(
        &self,
        chains: Vec<(Chain, S, Layout)>,
    ) -> impl Future<Output = Result<()>> + Send + use<S> {
        let (sender, receiver) = futures_intrusive::channel::shared::oneshot_channel();
        let gpu = self.clone();
        let thread = std::thread::Builder::new().name("gpuconv warm-up".into()).spawn(move || {
            let _ = sender.send(gpu.warm_up(&chains));
        });
        async move {
            thread.map_err(|error| Error::Driver(error.to_string()))?;
            receiver.receive().await.unwrap_or_else(|| Err(Error::Internal("the warm-up ended early".into())))
        }
    }

    /// The driver's cache of all pipelines that were compiled here, to be kept for
    /// [`GpuConv::load_pipeline_cache`]. None where the device has no [`wgpu::Features::PIPELINE_CACHE`].
    pub fn pipeline_cache_data(&self) -> Option<Vec<u8>> {
        let data = self.shared().pipeline_cache()?.get_data()?;
        Some(seal(&self.cache_key(), &data))
    }

    /// Gives the driver what [`GpuConv::pipeline_cache_data`] said before, in this or another process, so that it
    /// need not compile again. Do it before anything is compiled. Bytes of another device, driver or version, and
    /// damaged ones, are discarded with a warning. Whether they were taken.
    ///
    /// # Safety
    /// Drivers trust these bytes. They are handed on only with the right key and checksum, which chance does not
    /// forge; but somebody could who means harm, so they must come from where only the user writes.
    ///
    /// # Errors
    /// What the device says.
    pub unsafe fn load_pipeline_cache(&self, bytes: &[u8]) -> Result<bool> {
        let Some(data) = unseal(&self.cache_key(), bytes) else {
            log::warn!("{} bytes of a pipeline cache are discarded: damaged, or not this device's", bytes.len());
            return Ok(false);
        };
        // SAFETY: the caller answers for the bytes' origin; key and checksum say that they are what
        // `pipeline_cache_data` gave for this device and driver.
        unsafe { self.shared().load_pipeline_cache(data) }
    }

    /// Whom a cache is for.
    fn cache_key(&self) -> String {
        let info = self.device().adapter_info();
        let device = wgpu::util::pipeline_cache_key(&info).unwrap_or_default();
        format!("{device} {} {} {} {}", info.name, info.driver, info.driver_info, env!("CARGO_PKG_VERSION"))
    }
}

/// Puts a header before a cache's data.
fn seal(key: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    let body = [key.as_bytes(), data].concat();
    for number in [key.len() as u64, data.len() as u64, checksum(&body)] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(body);
    bytes
}

/// The data behind a header, if all of it is right.
fn unseal<'a>(key: &str, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let (header, body) = bytes.split_at_checked(HEADER)?;
    let number = |at: usize| Some(u64::from_le_bytes(header[at..at + 8].try_into().ok()?));
    let (found, data) = body.split_at_checked(key.len())?;
    let sizes = number(8)? == key.len() as u64 && number(16)? == data.len() as u64;
    let whole = sizes && header.starts_with(MAGIC) && number(24)? == checksum(body);
    (whole && found == key.as_bytes()).then_some(data)
}

/// FNV-1a, 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = FnvHasher::default();
    hasher.write(bytes);
    hasher.finish()
}

/// A device's cache, where it has one.
pub type PipelineCache = Mutex<Option<Arc<wgpu::PipelineCache>>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_bytes_are_discarded() {
        let sealed = seal("a device", b"compiled code");
        assert_eq!(unseal("a device", &sealed), Some(&b"compiled code"[..]));
        assert_eq!(unseal("a device", &seal("a device", b"")), Some(&b""[..]));
        assert_eq!(unseal("b device", &sealed), None);
        assert_eq!(unseal("a devic", &sealed), None);
        for end in 0..sealed.len() {
            assert_eq!(unseal("a device", &sealed[..end]), None, "cut at {end}");
        }
        assert_eq!(unseal("a device", &[&sealed[..], b" "].concat()), None);
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal("a device", &damaged), None, "bit {bit}");
        }
    }
}
