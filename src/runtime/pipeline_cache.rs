//! The driver's cache of compiled pipelines, which a program can save for its next run. Not for browsers, which have
//! their own.

use std::hash::Hasher;
use std::sync::Arc;

use fnv::FnvHasher;

use crate::model::error::Result;
use crate::runtime::block::block_on;
use crate::runtime::device::Device;
use crate::runtime::gpu::GpuConv;
use crate::runtime::lru::{Place, get_or_make};

/// What a pipeline cache's bytes begin with; the digit is the form's.
const MAGIC: &[u8; 8] = b"gpuconv1";
/// Magic, length of the key, length of the data, checksum of both.
const HEADER: usize = 32;

/// A device's cache, where it has one.
pub type PipelineCache = Place<wgpu::PipelineCache>;

impl Device {
    /// The driver's cache of pipelines, made at its first use; none where the device has none.
    pub async fn pipeline_cache(&self) -> Option<Arc<wgpu::PipelineCache>> {
        if !self.device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        // SAFETY: there is no data that could be wrong.
        get_or_make(&self.cache, async { unsafe { self.make_cache(None) }.await }).await.ok()
    }

    /// Replaces the cache of pipelines by one with data. Whether the device has one.
    ///
    /// # Safety
    /// The data must be what [`wgpu::PipelineCache::get_data`] gave on such a device.
    pub async unsafe fn load_pipeline_cache(&self, data: &[u8]) -> Result<bool> {
        if !self.device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return Ok(false);
        }
        // SAFETY: as the caller says.
        let loaded = unsafe { self.make_cache(Some(data)) }.await?;
        self.cache.set(loaded);
        Ok(true)
    }

    /// # Safety
    /// As [`Device::load_pipeline_cache`].
    async unsafe fn make_cache(&self, data: Option<&[u8]>) -> Result<wgpu::PipelineCache> {
        let descriptor = wgpu::PipelineCacheDescriptor { label: Some("gpuconv"), data, fallback: true };
        // SAFETY: as the caller says; what the driver itself finds wrong it starts without.
        self.scoped(|| unsafe { self.device.create_pipeline_cache(&descriptor) }).await
    }
}

impl GpuConv {
    /// The driver's cache of all pipelines that were compiled here, to be kept for
    /// [`GpuConv::load_pipeline_cache`]. None where the device has no [`wgpu::Features::PIPELINE_CACHE`].
    pub fn pipeline_cache_data(&self) -> Option<Vec<u8>> {
        let data = block_on(self.shared().pipeline_cache())?.get_data()?;
        Some(seal(&self.cache_key(), &data))
    }

    /// Gives the driver what [`GpuConv::pipeline_cache_data`] said before, in this or another process, so that it
    /// need not compile again. Do it before anything is compiled. Bytes of another device, driver or version, and
    /// damaged ones, are discarded with a warning. Whether they were taken.
    ///
    /// # Safety
    /// Drivers trust these bytes. They are handed on only with the right key and checksum, which chance does not
    /// forge; but an attacker could, so they must come from where only the user writes.
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
        block_on(unsafe { self.shared().load_pipeline_cache(data) })
    }

    /// Whom a cache is for.
    fn cache_key(&self) -> String {
        let info = self.device().adapter_info();
        let device = wgpu::util::pipeline_cache_key(&info).unwrap_or_default();
        let robust = if self.is_robust() { "" } else { " without robustness" };
        format!("{device} {} {} {} {}{robust}", info.name, info.driver, info.driver_info, env!("CARGO_PKG_VERSION"))
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
