//! Layers: a chain with its weights on a device, for inputs of any size.

mod cache;

use std::sync::Arc;

use crate::model::chain::Chain;
use crate::model::error::{Error, Result};
use crate::model::shape::{Layout, Shape};
use crate::model::weights::{Weights, check_weights};
use crate::planner::division::Kind;
use crate::planner::{Choice, Division, Schedule};
use crate::runtime::copies::Copies;
use crate::runtime::device::Device;
#[cfg(target_arch = "wasm32")]
use crate::runtime::device::lock;
use crate::runtime::gpu::GpuConv;
use crate::runtime::parts::{Planned, Work};
use crate::runtime::plan::{Callers, Plan, check_tensors};
use crate::runtime::tensor::Tensor;
use crate::runtime::threads;

use cache::MOST_BYTES;
pub use cache::{Cache, Tensors};

/// A chain of convolutions with its weights, made by [`GpuConv`].
///
/// It takes inputs of any batch, height and width, in either layout; the output has the input's layout. The
/// plan of a size is made at its first use and kept; [`GpuConv`] says for how long. While a thread makes one, others
/// that use the layer go on, unless they need the same.
pub struct Layer {
    gpu: GpuConv,
    chain: Chain,
    choice: Choice,
    weights: Vec<(Vec<f32>, Option<Vec<f32>>)>,
    cache: Arc<Cache>,
}

/// What a layer reads: a tensor; the residual that it adds, if it adds one; and the scale by which it multiplies what
/// it reads, if it takes one.
///
/// `&x` converts into it, and `(&x, &residual)`.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The input.
    pub input: &'a Tensor,
    /// The residual, of the shape of the output of the link that adds it, in the input's layout.
    pub residual: Option<&'a Tensor>,
    /// The scale, a value for each image and channel of what the link reads that takes it: N x C x 1 x 1.
    pub scale: Option<&'a Tensor>,
}

impl<'a> From<&'a Tensor> for Inputs<'a> {
    fn from(input: &'a Tensor) -> Self {
        Self { input, residual: None, scale: None }
    }
}

impl<'a> From<(&'a Tensor, &'a Tensor)> for Inputs<'a> {
    fn from((input, residual): (&'a Tensor, &'a Tensor)) -> Self {
        Self { input, residual: Some(residual), scale: None }
    }
}

/// A layer bound to its tensors, ready to be recorded any number of times, also when the layer is gone. It keeps the
/// tensors, the layer's weights and the device's workspace as it was when the layer was bound.
///
/// It records and asks nothing, neither whether the device was lost since nor whether a tensor's buffer was destroyed.
/// If one was, recording does nothing wrong, but the device refuses the encoder when it is submitted: an error for its
/// handlers, by which wgpu panics if there are none. [`Layer::encode`] does ask.
#[derive(Clone)]
pub struct BoundLayer(Arc<Binding>);

struct Binding {
    work: Vec<Work>,
    workspace: Vec<wgpu::Buffer>,
    /// So that the layer counts it as used.
    _plan: Arc<Planned>,
}

impl BoundLayer {
    /// Records the layer into an encoder, in a compute pass of its own. Allocates nothing and submits nothing.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        let descriptor = wgpu::ComputePassDescriptor { label: Some("gpuconv"), timestamp_writes: None };
        self.dispatch(&mut encoder.begin_compute_pass(&descriptor));
    }

    /// Records the layer into a compute pass of the caller's, beside other work.
    pub fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.0.work.iter().for_each(|work| work.dispatch(pass));
    }

    fn workspace(&self) -> &[wgpu::Buffer] {
        &self.0.workspace
    }
}

impl Layer {
    pub(crate) fn new(gpu: &GpuConv, chain: Chain, weights: &[Weights<'_>], choice: Choice) -> Result<Self> {
        check_weights(&chain, weights)?;
        gpu.shared().check_lost()?;
        let cache = Arc::default();
        gpu.shared().watch_layer(&cache);
        let owned = |weights: &Weights<'_>| (weights.weight.to_vec(), weights.bias.map(<[f32]>::to_vec));
        Ok(Self { gpu: gpu.clone(), chain, choice, weights: weights.iter().map(owned).collect(), cache })
    }

    /// Fixes the schedule for inputs of a size, instead of the planner's choice.
    ///
    /// # Errors
    /// What the device says.
    pub(crate) async fn fix(&self, input: Shape, layout: Layout, schedule: Schedule) -> Result<()> {
        let division = Division::of_images(&self.chain, &self.chain.shapes(input)?, vec![schedule]);
        self.cache.fix(input, layout, self.compile(division).await?);
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

    /// As [`Layer::schedule`], awaited.
    ///
    /// # Errors
    /// As [`Layer::schedule`].
    pub async fn schedule_async(&self, input: impl Into<Shape>, layout: Layout) -> Result<Schedule> {
        Ok(self.plan(input.into(), layout).await?.division.schedule())
    }

    /// As [`Layer::warm_up`], on threads of its own: the caller's go on meanwhile, and the future is
    /// `Send`. In a browser, which has no threads, it starts when it is first polled.
    ///
    /// # Errors
    /// As [`Layer::warm_up`].
    pub fn warm_up_async<S: Into<Shape>>(&self, input: S, layout: Layout) -> impl Future<Output = Result<()>> + use<S> {
        let (gpu, chain, choice, input) = (self.gpu.clone(), self.chain.clone(), self.choice.clone(), input.into());
        let planning = gpu.clone();
        let divisions = move || Ok(vec![planning.divide(&chain, input, layout, &choice)?]);
        threads::apart("gpuconv warm-up", move || async move { gpu.compile_ahead(divisions).await })
    }

    /// As [`Layer::forward`], awaited.
    ///
    /// # Errors
    /// As [`Layer::forward`].
    pub async fn forward_async<'a>(&self, inputs: impl Into<Inputs<'a>>) -> Result<Tensor> {
        let inputs = inputs.into();
        let plan = self.plan_for(inputs).await?;
        let shape = plan.shape(self.chain.links().len());
        let output = self.gpu.empty_of_async(shape, inputs.input.layout(), self.chain.ends()[1]).await?;
        let bound = self.bind_to(plan, inputs, &output).await?;
        let Device { device, queue, .. } = self.gpu.shared();
        let submitted = self.gpu.shared().scoped(|| {
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("gpuconv") });
            bound.encode(&mut encoder);
            queue.submit([encoder.finish()]);
        });
        submitted.await?;
        Ok(output)
    }

    /// As [`Layer::encode`], awaited.
    ///
    /// # Errors
    /// As [`Layer::encode`].
    pub async fn encode_async<'a>(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        inputs: impl Into<Inputs<'a>>,
        output: &Tensor,
    ) -> Result<()> {
        let inputs = inputs.into();
        let bound = match self.cached_binding(inputs, output)? {
            Some(bound) => bound,
            None => self.bind_and_keep(inputs, output).await?,
        };
        bound.encode(encoder);
        Ok(())
    }

    /// The cached binding to some tensors.
    fn cached_binding(&self, inputs: Inputs<'_>, output: &Tensor) -> Result<Option<BoundLayer>> {
        let Inputs { input, residual, scale } = inputs;
        let device = self.gpu.shared();
        device.check_lost()?;
        // Bind groups that are kept do not say that a buffer is gone.
        let named = [("input", Some(input)), ("residual", residual), ("scale", scale), ("output", Some(output))];
        for (name, tensor) in named {
            tensor.map_or(Ok(()), |tensor| tensor.check_there(name, device))?;
        }
        Ok(self.cache.binding(&Tensors::new(inputs, output)))
    }

    /// Binds the layer, and keeps the binding.
    async fn bind_and_keep(&self, inputs: Inputs<'_>, output: &Tensor) -> Result<BoundLayer> {
        let bound = self.bind_async(inputs, output).await?;
        self.cache.keep(Tensors::new(inputs, output), bound.clone(), |workspace| self.gpu.shared().shares(workspace));
        Ok(bound)
    }

    /// As [`Layer::bind`], awaited.
    ///
    /// # Errors
    /// As [`Layer::encode`].
    pub async fn bind_async<'a>(&self, inputs: impl Into<Inputs<'a>>, output: &Tensor) -> Result<BoundLayer> {
        let inputs = inputs.into();
        self.gpu.shared().check_lost()?;
        let plan = self.plan_for(inputs).await?;
        self.bind_to(plan, inputs, output).await
    }

    /// The plan for these inputs.
    async fn plan_for(&self, inputs: Inputs<'_>) -> Result<Arc<Planned>> {
        let expected = self.chain.outside_residual().is_some();
        if inputs.residual.is_some() != expected {
            return Err(Error::Residual { expected });
        }
        let expected = self.chain.outside_scale().is_some();
        if inputs.scale.is_some() != expected {
            return Err(Error::Scale { expected });
        }
        self.plan(inputs.input.shape(), inputs.input.layout()).await
    }

    async fn bind_to(&self, plan: Arc<Planned>, inputs: Inputs<'_>, output: &Tensor) -> Result<BoundLayer> {
        let (Inputs { input, residual, scale }, device) = (inputs, self.gpu.shared());
        let tensors = Callers { input, residual, scale, output };
        let [residual, output] = [self.chain.outside_residual().map_or(0, |link| link + 1), self.chain.links().len()];
        let scale = self.chain.outside_scale_shape(&plan.division.shapes).unwrap_or(input.shape());
        check_tensors(device, self.chain.ends(), [plan.shape(residual), scale, plan.shape(output)], tensors)?;
        let workspace = device.workspace(&plan.workspace).await?;
        let work = plan.bind(device, &workspace, tensors).await?;
        Ok(BoundLayer(Arc::new(Binding { work, workspace, _plan: plan })))
    }

    /// The plan of an input size, made now if it was not before.
    async fn plan(&self, input: Shape, layout: Layout) -> Result<Arc<Planned>> {
        let mut is_new = false;
        let make = async {
            // On the heap, to keep the future small for when the plan exists.
            let plan = Box::pin(self.make_plan(input, layout)).await?;
            is_new = true;
            log::debug!("planned {} links on {input}, {layout}", self.chain.links().len());
            Ok(plan)
        };
        let plan = self.cache.plan(input, layout, make).await?;
        if is_new {
            self.cache.trim(&plan, MOST_BYTES);
            self.gpu.shared().fit_workspace();
        }
        Ok(plan)
    }

    /// Plans and compiles. Where the driver refuses a shader, plans again without it.
    async fn make_plan(&self, input: Shape, layout: Layout) -> Result<Planned> {
        loop {
            let refused = self.gpu.shared().refused().len();
            let division = self.gpu.divide(&self.chain, input, layout, &self.choice)?;
            let plan = self.compile(division).await;
            if plan.is_ok() || self.gpu.shared().refused().len() == refused {
                return plan;
            }
        }
    }

    async fn compile(&self, division: Division) -> Result<Planned> {
        let (device, packed) = (self.gpu.shared(), &self.cache.packed);
        let mut plans = Vec::new();
        for kind in &division.kinds {
            let (weights, place) = (self.weights_of(kind), (kind.links.start, kind.slab.clone()));
            plans.push(Arc::new(Plan::new(device, &kind.chain, &weights, packed, &place, &kind.schedule).await?));
        }
        let copies = Copies::new(device, &division).await?;
        Ok(Planned::new(division, plans, copies))
    }

    /// The weights of a part of the chain.
    fn weights_of(&self, kind: &Kind) -> Vec<Weights<'_>> {
        let all = self.chain.convolutions().zip(&self.weights);
        let own: Vec<_> = all.filter(|((link, _), _)| kind.links.contains(link)).collect();
        let input = own.first().map_or(1, |((_, conv), _)| conv.in_channels);
        own.into_iter()
            .map(|((_, conv), (weight, bias))| {
                let (weight, bias) = (&weight[..], bias.as_deref());
                let Some(slab) = &kind.slab else { return Weights { weight, bias } };
                let (outputs, taps) = (slab.outputs(conv, input), conv.fan_in() as usize);
                Weights {
                    weight: &weight[outputs.start * taps..outputs.end * taps],
                    bias: bias.map(|bias| &bias[outputs]),
                }
            })
            .collect()
    }
}

#[cfg(target_arch = "wasm32")]
impl Layer {
    /// Destroys the layer's weights on the device. Otherwise a browser keeps them until some time after its garbage
    /// collector finds them. What was submitted before still has them; what was only recorded, the device refuses. The
    /// next use makes them again.
    pub fn destroy_weights(&self) {
        lock(&self.cache.packed).values().for_each(|buffer| buffer.destroy());
        self.cache.clear();
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        self.cache.clear();
        self.gpu.shared().fit_workspace();
    }
}
