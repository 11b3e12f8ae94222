//! Which device a tensor is of.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock, Weak};

#[cfg(not(target_arch = "wasm32"))]
use crate::runtime::block::block_on;
use crate::runtime::device::lock;

/// A wgpu device, one and the same for all handles of it.
///
/// wgpu's handles compare numbers, and an instance numbers its devices and buffers anew: devices of two instances are
/// equal, and their buffers as well.
#[derive(Clone, Debug)]
pub struct Identity(Arc<Known>);

#[derive(Debug)]
struct Known {
    device: wgpu::Device,
    /// Why it was lost, if it is known to be.
    lost: Arc<OnceLock<String>>,
}

/// The devices that a `GpuConv` or a tensor is of.
static KNOWN: Mutex<Vec<Weak<Known>>> = Mutex::new(Vec::new());

impl Identity {
    /// Whose handle it is.
    pub fn of(device: &wgpu::Device) -> Self {
        let mut known = lock(&KNOWN);
        known.retain(|known| known.strong_count() > 0);
        let same = known.iter().filter_map(Weak::upgrade).find(|known| are_one(&known.device, device));
        Self(same.unwrap_or_else(|| {
            let new = Arc::new(Known { device: device.clone(), lost: Arc::default() });
            known.push(Arc::downgrade(&new));
            new
        }))
    }

    /// Where it is noted that the device was lost, and why.
    pub fn lost(&self) -> &Arc<OnceLock<String>> {
        &self.0.lost
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// Whether two handles are of one device. If they are, a scope of one catches the other's errors; if the device is lost
/// there are no errors, and it does not matter.
#[cfg(not(target_arch = "wasm32"))]
fn are_one(one: &wgpu::Device, other: &wgpu::Device) -> bool {
    if one != other {
        return false;
    }
    let usage = wgpu::BufferUsages::empty();
    let wrong = wgpu::BufferDescriptor { label: Some("wrong"), size: 4, usage, mapped_at_creation: false };
    let [_outer, inner] = [one, other].map(|device| device.push_error_scope(wgpu::ErrorFilter::Validation));
    drop(one.create_buffer(&wrong));
    // Native devices have the error at once.
    block_on(inner.pop()).is_some()
}

/// Whether two handles are of one `GPUDevice`: each time that a page gives it, wgpu makes another handle.
#[cfg(target_arch = "wasm32")]
fn are_one(one: &wgpu::Device, other: &wgpu::Device) -> bool {
    let object = |device: &wgpu::Device| device.as_webgpu().map(wasm_bindgen::JsValue::from);
    one == other || object(one).is_some_and(|one| object(other) == Some(one))
}
