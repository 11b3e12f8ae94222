//! What a layer keeps from one call to the next, within bounds: plans, the weights packed for them, and bindings.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::{BoundLayer, Inputs};
use crate::model::error::Result;
use crate::model::shape::{Layout, Shape};
use crate::runtime::device::lock;
use crate::runtime::lru::{self, Slots, get_or_make};
use crate::runtime::memory::raise;
use crate::runtime::parts::Planned;
use crate::runtime::plan::PackedWeights;
use crate::runtime::tensor::Tensor;

/// Plans that are kept though nothing is bound by them: one for each input size.
const MOST_PLANS: usize = 64;
/// Pairs of tensors whose bindings are kept; they keep the tensors.
const MOST_BINDINGS: usize = 16;
/// Bytes of tensors that are kept beside those of the last binding; and of weights and parameters beside those of the
/// last plan.
pub const MOST_BYTES: u64 = 256 << 20;

/// The tensors that a layer was bound to.
#[derive(Clone, PartialEq)]
pub struct Tensors {
    input: Tensor,
    residual: Option<Tensor>,
    scale: Option<Tensor>,
    output: Tensor,
}

impl Tensors {
    pub fn new(inputs: Inputs<'_>, output: &Tensor) -> Self {
        let Inputs { input, residual, scale } = inputs;
        let (residual, scale) = (residual.cloned(), scale.cloned());
        Self { input: input.clone(), residual, scale, output: output.clone() }
    }
}

/// Everything that a layer keeps. Each lock is for a moment: none is held while something is made.
pub struct Cache {
    plans: Mutex<Slots<(Shape, Layout), Planned>>,
    /// Packed weights, for as long as a plan reads them.
    pub packed: PackedWeights,
    bindings: Mutex<VecDeque<(Tensors, BoundLayer)>>,
}

impl Default for Cache {
    fn default() -> Self {
        Self { plans: Slots::new(MOST_PLANS).into(), packed: Slots::new(0).into(), bindings: Mutex::default() }
    }
}

impl Cache {
    /// The plan of an input size, made now if it was not before, by one task.
    pub async fn plan(
        &self,
        input: Shape,
        layout: Layout,
        make: impl Future<Output = Result<Planned>>,
    ) -> Result<Arc<Planned>> {
        let place = lock(&self.plans).place((input, layout));
        get_or_make(&place, make).await
    }

    /// Replaces the plan of an input size.
    pub fn fix(&self, input: Shape, layout: Layout, plan: Planned) {
        let place = lock(&self.plans).place((input, layout));
        place.set(plan);
        lock(&self.bindings).clear();
    }

    /// The binding to some tensors, if it is kept.
    pub fn binding(&self, tensors: &Tensors) -> Option<BoundLayer> {
        let mut bindings = lock(&self.bindings);
        lru::find(&mut bindings, |(known, _)| known == tensors).map(|(_, bound)| bound.clone())
    }

    /// Keeps a binding, if its workspace is still the one there is.
    pub fn keep(&self, tensors: Tensors, bound: BoundLayer, is_current: impl Fn(&[wgpu::Buffer]) -> bool) {
        let mut bindings = lock(&self.bindings);
        // Asked with the lock in hand: whoever replaces the workspace drops bindings after that.
        if is_current(bound.workspace()) {
            bindings.retain(|(known, _)| *known != tensors);
            bindings.push_back((tensors, bound));
            while bindings.len() > MOST_BINDINGS || bytes_before_last(&bindings) > MOST_BYTES {
                bindings.pop_front();
            }
        }
    }

    /// Drops bindings to a workspace that is not wanted.
    pub fn drop_bindings(&self, unwanted: impl Fn(&[wgpu::Buffer]) -> bool) {
        lock(&self.bindings).retain(|(_, bound)| !unwanted(bound.workspace()));
    }

    /// Drops plans and bindings, those that were not used for longest first, until plans keep no more than `most` bytes
    /// beside those of a new one.
    pub fn trim(&self, newest: &Planned, most: u64) {
        lock(&self.packed).drop_idle(0);
        while self.bytes_beside(newest) > most {
            let plan = lock(&self.plans).drop_oldest();
            if !plan && lock(&self.bindings).pop_front().is_none() {
                return;
            }
            lock(&self.packed).drop_idle(0);
        }
    }

    fn bytes_beside(&self, newest: &Planned) -> u64 {
        let weights: u64 =
            lock(&self.packed).values().filter(|weights| !newest.reads(weights)).map(|weights| weights.size()).sum();
        let parameters: u64 = lock(&self.plans).values().map(|plan| plan.parameters()).sum();
        weights + parameters.saturating_sub(newest.parameters())
    }

    /// Drops all that is not in use.
    pub fn drop_idle(&self) {
        lock(&self.bindings).clear();
        lock(&self.plans).drop_idle(0);
        lock(&self.packed).drop_idle(0);
    }

    /// Drops all.
    pub fn clear(&self) {
        lock(&self.bindings).clear();
        lock(&self.plans).clear();
        lock(&self.packed).clear();
    }

    /// The sizes of the workspace's buffers that all plans do with.
    pub fn workspace(&self) -> Vec<u64> {
        let mut sizes = Vec::new();
        lock(&self.plans).values().for_each(|plan| raise(&mut sizes, &plan.workspace));
        sizes
    }
}

/// Bytes of the buffers that bindings keep and the last of them does not.
fn bytes_before_last(bindings: &VecDeque<(Tensors, BoundLayer)>) -> u64 {
    let buffers = |Tensors { input, residual, scale, output }: &'_ Tensors| {
        let tensors = [Some(input), residual.as_ref(), scale.as_ref(), Some(output)];
        tensors.into_iter().flatten().map(|tensor| tensor.buffer().clone()).collect::<Vec<_>>()
    };
    let mut seen = bindings.back().map(|(tensors, _)| buffers(tensors)).unwrap_or_default();
    let mut bytes = 0;
    for buffer in bindings.iter().flat_map(|(tensors, _)| buffers(tensors)) {
        if !seen.contains(&buffer) {
            bytes += buffer.size();
            seen.push(buffer);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::block::block_on;
    use crate::{Conv2d, GpuConv, Weights};

    #[test]
    fn what_plans_keep_is_bounded_in_bytes() {
        let gpu = GpuConv::new().unwrap();
        let conv = Conv2d::pointwise(8, 8);
        let layer = gpu.conv2d(&conv, Weights::new(&[0.5; 64], &[0.5; 8])).unwrap();
        // Two ways to pack the weights.
        let tensors = [3, 4].map(|width| {
            let tensor = || gpu.empty([1, 8, 4, width], Layout::Nchw).unwrap();
            Tensors { input: tensor(), residual: None, scale: None, output: tensor() }
        });
        let encode = |Tensors { input, output, .. }: &Tensors| {
            layer.encode(&mut gpu.device().create_command_encoder(&Default::default()), input, output).unwrap();
        };
        for (tensors, recipe) in tensors.iter().zip(["direct/4x1", "direct/4x4"]) {
            let input = &tensors.input;
            let (chain, choice) = (layer.chain(), crate::Choice::Named(recipe.into()));
            let schedule = gpu.schedule(chain, input.shape(), Layout::Nchw, &choice).unwrap();
            block_on(layer.fix(input.shape(), Layout::Nchw, schedule)).unwrap();
            encode(tensors);
        }
        let cache = &layer.cache;
        let newest = block_on(layer.plan(tensors[1].input.shape(), Layout::Nchw)).unwrap();
        let counts = || {
            let bindings = lock(&cache.bindings).len();
            [lock(&cache.plans).values().count(), lock(&cache.packed).values().count(), bindings]
        };
        let bytes = cache.bytes_beside(&newest);
        // The weights are not padded, so they are as long as each other.
        assert_eq!(bytes, 4 * (64 + 8) + newest.parameters());
        cache.trim(&newest, bytes);
        assert_eq!(counts(), [2, 2, 1], "`fix` drops bindings");
        encode(&tensors[0]);
        assert_eq!(counts(), [2, 2, 2]);
        cache.trim(&newest, bytes - 1);
        // A binding holds its plan.
        assert_eq!((counts(), cache.bytes_beside(&newest)), ([1, 1, 0], 0));
        encode(&tensors[1]);
        cache.trim(&newest, 0);
        assert_eq!(counts(), [1, 1, 1], "the newest stays");
        drop(newest);
        cache.drop_idle();
        assert_eq!(counts(), [0, 0, 0]);
    }
}
