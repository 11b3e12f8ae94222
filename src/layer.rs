//! Layers: a chain with its weights on a device, for inputs of any size.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::chain::Chain;
use crate::device::{Device, lock};
use crate::error::{Error, Result};
use crate::gpu::GpuConv;
use crate::plan::{Bound, PackedWeights, Plan};
use crate::planner::{Choice, Schedule};
use crate::reference::{Weights, check_weights};
use crate::shape::{Layout, Shape};
use crate::tensor::Tensor;

/// Plans that a layer keeps: one for each input size, the oldest dropped first.
const MOST_PLANS: usize = 64;
/// Pairs of tensors whose bind groups a layer keeps for [`Layer::encode`]; they keep the tensors alive.
const MOST_BINDINGS: usize = 16;

/// A chain of convolutions with its weights, made by [`GpuConv`].
///
/// It takes inputs of any batch, height and width, in either layout; the output has the input's layout. The
/// plan of a size is made at its first use and kept.
pub struct Layer {
    gpu: GpuConv,
    chain: Chain,
    choice: Choice,
    weights: Vec<(Vec<f32>, Option<Vec<f32>>)>,
    packed: PackedWeights,
    plans: Mutex<VecDeque<Arc<Plan>>>,
    bindings: Mutex<VecDeque<(Tensors, Arc<Bound>)>>,
}

/// Input, residual and output.
type Tensors = (Tensor, Option<Tensor>, Tensor);

/// A layer bound to its tensors, ready to be recorded any number of times.
#[derive(Clone)]
pub struct BoundLayer(Arc<Bound>);

impl BoundLayer {
    /// Records the layer into an encoder, in a compute pass of its own. Allocates nothing and submits nothing.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        self.0.encode(encoder);
    }

    /// Records the layer into a compute pass of the caller's, beside other work.
    pub fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.0.dispatch(pass);
    }
}

impl Layer {
    pub(crate) fn new(gpu: &GpuConv, chain: Chain, weights: &[Weights<'_>], choice: Choice) -> Result<Self> {
        check_weights(&chain, weights)?;
        let owned = |weights: &Weights<'_>| (weights.weight.to_vec(), weights.bias.map(<[f32]>::to_vec));
        Ok(Self {
            gpu: gpu.clone(),
            chain,
            choice,
            weights: weights.iter().map(owned).collect(),
            packed: PackedWeights::default(),
            plans: Mutex::default(),
            bindings: Mutex::default(),
        })
    }

    /// Fixes how inputs of a size are computed, whatever the planner would choose.
    ///
    /// # Errors
    /// What the device says.
    pub(crate) fn fix(&self, input: Shape, layout: Layout, schedule: Schedule) -> Result<()> {
        let plan = Arc::new(self.compile(input, layout, schedule)?);
        let mut plans = lock(&self.plans);
        plans.retain(|plan| plan.input() != input || plan.layout != layout);
        plans.push_back(plan);
        Ok(())
    }

    /// What the layer computes.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The output's shape for an input's.
    ///
    /// # Errors
    /// What [`Chain::shapes`] says.
    pub fn output_shape(&self, input: impl Into<Shape>) -> Result<Shape> {
        let input = input.into();
        Ok(self.chain.shapes(input)?.last().copied().unwrap_or(input))
    }

    /// How an input of a size is computed: the kernels, and why they.
    ///
    /// # Errors
    /// As [`Layer::forward`].
    pub fn schedule(&self, input: impl Into<Shape>, layout: Layout) -> Result<Schedule> {
        Ok(self.plan(input.into(), layout)?.schedule.clone())
    }

    /// Runs the layer: submits it and gives the output, which stays on the GPU.
    ///
    /// # Errors
    /// Shapes that do not fit, as [`Chain::shapes`] says; [`Error::Residual`] if the layer needs one;
    /// [`Error::NoKernel`]; what the device says.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.run(input, None)
    }

    /// As [`Layer::forward`], with the residual that the layer adds.
    ///
    /// # Errors
    /// As [`Layer::forward`].
    pub fn forward_residual(&self, input: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.run(input, Some(residual))
    }

    fn run(&self, input: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let output = self.gpu.empty(self.output_shape(input.shape())?, input.layout())?;
        let bound = self.bind(input, residual, &output)?;
        let Device { device, queue, .. } = self.gpu.shared();
        self.gpu.shared().scoped(|| {
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("gpuconv") });
            bound.encode(&mut encoder);
            queue.submit([encoder.finish()]);
        })?;
        Ok(output)
    }

    /// Records the layer into the caller's encoder. Nothing is submitted; nothing is allocated either from the
    /// second time on with the same tensors, for their bind groups are kept (of the last 16 pairs).
    ///
    /// # Errors
    /// As [`Layer::forward`]; [`Error::ShapeMismatch`], [`Error::LayoutMismatch`], [`Error::Misaligned`] and
    /// [`Error::Aliasing`] for an output that does not fit.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder, input: &Tensor, output: &Tensor) -> Result<()> {
        self.encode_with(encoder, input, None, output)
    }

    /// As [`Layer::encode`], with the residual that the layer adds.
    ///
    /// # Errors
    /// As [`Layer::encode`].
    pub fn encode_residual(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        input: &Tensor,
        residual: &Tensor,
        output: &Tensor,
    ) -> Result<()> {
        self.encode_with(encoder, input, Some(residual), output)
    }

    fn encode_with(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        input: &Tensor,
        residual: Option<&Tensor>,
        output: &Tensor,
    ) -> Result<()> {
        self.gpu.shared().alive()?;
        let mut bindings = lock(&self.bindings);
        let known = bindings.iter().find(|((known_input, known_residual, known_output), _)| {
            known_input == input && known_residual.as_ref() == residual && known_output == output
        });
        if let Some((_, bound)) = known {
            bound.encode(encoder);
            return Ok(());
        }
        let bound = self.bind(input, residual, output)?.0;
        bound.encode(encoder);
        if bindings.len() == MOST_BINDINGS {
            bindings.pop_front();
        }
        bindings.push_back(((input.clone(), residual.cloned(), output.clone()), bound));
        Ok(())
    }

    /// Binds the layer to its tensors, to be recorded by the caller whenever and wherever it likes.
    ///
    /// # Errors
    /// As [`Layer::encode`].
    pub fn bind(&self, input: &Tensor, residual: Option<&Tensor>, output: &Tensor) -> Result<BoundLayer> {
        let expected = self.chain.outside_residual().is_some();
        if residual.is_some() != expected {
            return Err(Error::Residual { expected });
        }
        let plan = self.plan(input.shape(), input.layout())?;
        Ok(BoundLayer(Arc::new(Bound::new(self.gpu.shared(), plan, input, residual, output)?)))
    }

    /// The plan of an input size, made now if it was not before. The lock is held meanwhile, so that two threads
    /// make a plan once.
    fn plan(&self, input: Shape, layout: Layout) -> Result<Arc<Plan>> {
        let mut plans = lock(&self.plans);
        if let Some(plan) = plans.iter().find(|plan| plan.input() == input && plan.layout == layout) {
            return Ok(plan.clone());
        }
        let schedule = self.gpu.schedule(&self.chain, input, layout, &self.choice)?;
        let plan = Arc::new(self.compile(input, layout, schedule)?);
        if plans.len() == MOST_PLANS {
            plans.pop_front();
        }
        plans.push_back(plan.clone());
        Ok(plan)
    }

    fn compile(&self, input: Shape, layout: Layout, schedule: Schedule) -> Result<Plan> {
        let shapes = self.chain.shapes(input)?;
        let weights: Vec<_> =
            self.weights.iter().map(|(weight, bias)| Weights { weight, bias: bias.as_deref() }).collect();
        Plan::new(self.gpu.shared(), &self.chain, &weights, &self.packed, shapes, layout, schedule)
    }
}
