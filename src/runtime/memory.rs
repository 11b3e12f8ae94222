//! The device's memory: a workspace that all layers share, and what to let go of when there is no more.
//!
//! Plans that never run at the same time can have one workspace, and on one device none do. A device has a single
//! queue, which runs what is submitted in that order, command buffer by command buffer; and between two dispatches of
//! which one writes a buffer that the other uses, wgpu puts a barrier. A plan's dispatches are recorded in one go,
//! through a borrow of the encoder or the pass that nothing else can use meanwhile, so none of another plan comes in
//! between, in any order of recording and submitting, by any threads. And nothing that a plan gives depends on what was
//! in its workspace before it. The price: of two layers in one pass that have nothing to do with each other, the second
//! waits for the first.
//!
//! Bind groups hold their buffers. If the workspace grows, bindings that were made before keep the old buffers. Those
//! that layers keep are dropped. Those that callers hold stay correct.

use std::sync::{Arc, Mutex, Weak};

use crate::model::error::{Error, Result};
use crate::runtime::device::{Device, lock};
use crate::runtime::layer::Cache;

/// What the layers of a device share, and what each of them keeps.
#[derive(Default)]
pub struct Memory {
    /// The workspace: the first buffer is the largest of every plan's, the second the next, and so on.
    workspace: Mutex<Vec<Option<wgpu::Buffer>>>,
    layers: Mutex<Vec<Weak<Cache>>>,
}

/// Puts new buffers into the workspace. Where another thread has put one that is as large meanwhile, that one is taken.
/// Whether a smaller one was replaced.
fn share(slots: &mut Vec<Option<wgpu::Buffer>>, made: &mut [wgpu::Buffer]) -> bool {
    // There may be none: they are dropped when memory runs out.
    slots.resize(slots.len().max(made.len()), None);
    let mut replaced = false;
    for (slot, own) in slots.iter_mut().zip(made) {
        match slot {
            Some(buffer) if buffer.size() >= own.size() => *own = buffer.clone(),
            _ => replaced |= slot.replace(own.clone()).is_some(),
        }
    }
    replaced
}

/// Raises sizes to others, each by its place.
pub fn raise(sizes: &mut Vec<u64>, to: &[u64]) {
    sizes.resize(sizes.len().max(to.len()), 0);
    sizes.iter_mut().zip(to).for_each(|(size, &to)| *size = to.max(*size));
}

impl Device {
    /// Notes what a layer keeps, to be dropped when memory runs out.
    pub fn watch_layer(&self, cache: &Arc<Cache>) {
        let mut layers = lock(&self.memory.layers);
        layers.retain(|layer| layer.strong_count() > 0);
        layers.push(Arc::downgrade(cache));
    }

    fn layers(&self) -> Vec<Arc<Cache>> {
        lock(&self.memory.layers).iter().filter_map(Weak::upgrade).collect()
    }

    /// Buffers of the workspace for a plan that needs them of these sizes. Those that are too small are replaced.
    pub async fn workspace(&self, sizes: &[u64]) -> Result<Vec<wgpu::Buffer>> {
        let found: Vec<_> = {
            let mut slots = lock(&self.memory.workspace);
            let count = slots.len().max(sizes.len());
            slots.resize(count, None);
            // What is too small goes before what is larger comes: there may not be memory for both.
            slots.iter_mut().zip(sizes).for_each(|(slot, &bytes)| drop(slot.take_if(|buffer| buffer.size() < bytes)));
            slots[..sizes.len()].to_vec()
        };
        if found.iter().all(Option::is_some) {
            return Ok(found.into_iter().flatten().collect());
        }
        self.drop_stale_bindings();
        let mut made = Vec::new();
        for (buffer, &bytes) in found.into_iter().zip(sizes) {
            made.push(match buffer {
                Some(buffer) => buffer,
                None => self.buffer("workspace", bytes, wgpu::BufferUsages::STORAGE).await?,
            });
        }
        if share(&mut lock(&self.memory.workspace), &mut made) {
            self.drop_stale_bindings();
        }
        Ok(made)
    }

    /// Whether these buffers are the workspace's.
    pub fn shares(&self, workspace: &[wgpu::Buffer]) -> bool {
        let slots = lock(&self.memory.workspace);
        workspace
            .iter()
            .enumerate()
            .all(|(index, buffer)| slots.get(index).is_some_and(|slot| slot.as_ref() == Some(buffer)))
    }

    /// Drops the buffers of the workspace that are larger than what any layer's plan needs.
    pub fn fit_workspace(&self) {
        let mut needed = Vec::new();
        self.layers().iter().for_each(|layer| raise(&mut needed, &layer.workspace()));
        let needed = needed.into_iter().chain(std::iter::repeat(0));
        let mut slots = lock(&self.memory.workspace);
        let dropped = slots
            .iter_mut()
            .zip(needed)
            .filter_map(|(slot, bytes)| slot.take_if(|buffer| buffer.size() > bytes))
            .count();
        drop(slots);
        if dropped > 0 {
            self.drop_stale_bindings();
        }
    }

    /// Drops the bindings that layers keep to a workspace that there was before.
    fn drop_stale_bindings(&self) {
        self.layers().iter().for_each(|layer| layer.drop_bindings(|workspace| !self.shares(workspace)));
    }

    /// Allocates; where there is no memory, once more without what is kept and not in use.
    pub async fn with_room<T, F: Future<Output = Result<T>>>(&self, allocate: impl Fn() -> F) -> Result<T> {
        match allocate().await {
            Err(Error::OutOfMemory(reason)) => {
                log::debug!("drops what is not in use, for there is no memory: {reason}");
                self.layers().iter().for_each(|layer| layer.drop_idle());
                lock(&self.memory.workspace).clear();
                self.drop_readback();
                // The device frees it once it no longer uses it.
                self.wait().await?;
                allocate().await
            }
            outcome => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::block::block_on;
    use crate::runtime::layer::Tensors;
    use crate::{Conv2d, GpuConv, Layout, Weights};

    #[test]
    fn new_buffers_are_shared_unless_there_are_larger_ones() {
        let gpu = GpuConv::new().unwrap();
        let buffer = |bytes| block_on(gpu.shared().buffer("workspace", bytes, wgpu::BufferUsages::STORAGE)).unwrap();
        // Emptied while these were made.
        let (mut slots, mut made) = (Vec::new(), [buffer(8), buffer(4)]);
        assert!(!share(&mut slots, &mut made));
        assert_eq!(slots, made.clone().map(Some));
        let mut others = [buffer(4), buffer(16), buffer(4)];
        let expected = [made[0].clone(), others[1].clone(), others[2].clone()];
        assert!(share(&mut slots, &mut others));
        assert_eq!((others.clone(), slots), (expected.clone(), expected.map(Some).to_vec()));
    }

    #[test]
    fn what_finds_no_memory_is_tried_once_more_without_what_is_idle() {
        let gpu = GpuConv::new().unwrap();
        let layer = gpu.conv2d(&Conv2d::pointwise(1, 1), Weights::new(&[1.0], &[0.0])).unwrap();
        let tensor = || gpu.empty([1, 1, 4, 4], Layout::Nchw).unwrap();
        let [x, y] = [tensor(), tensor()];
        let tensors = Tensors::new((&x).into(), &y);
        let keep = || {
            layer.encode(&mut gpu.device().create_command_encoder(&Default::default()), &x, &y).unwrap();
        };
        let kept = || gpu.shared().layers()[0].binding(&tensors).is_some();
        let tries = std::cell::Cell::new(0);
        let outcome = |error: fn() -> Error| {
            tries.set(0);
            block_on(gpu.shared().with_room(async || {
                tries.set(tries.get() + 1);
                if kept() { Err(error()) } else { Ok(()) }
            }))
        };
        let out_of_memory = || Error::OutOfMemory("it is full".into());
        keep();
        assert!(kept());
        assert_eq!((outcome(out_of_memory), tries.get(), kept()), (Ok(()), 2, false));
        assert_eq!((outcome(out_of_memory), tries.get()), (Ok(()), 1));
        keep();
        let other = || Error::Internal("it is broken".into());
        assert_eq!((outcome(other), tries.get(), kept()), (Err(other()), 1, true));
        // Not for ever.
        tries.set(0);
        let never = block_on(gpu.shared().with_room(async || {
            tries.set(tries.get() + 1);
            Err::<(), _>(out_of_memory())
        }));
        assert_eq!((never, tries.get()), (Err(out_of_memory()), 2));
    }
}
