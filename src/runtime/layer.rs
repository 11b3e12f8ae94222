//! Layers: a chain with its weights on a device, for inputs of any size.

mod cache;

use std::sync::Arc;

use crate::model::chain::Chain;
use crate::model::error::{Error, Result};
use crate::model::shape::{Layout, Shape};
use crate::model::weights::{Weights, check_weights};
use crate::planner::{self, Choice, Schedule};
use crate::runtime::device::Device;
use crate::runtime::gpu::GpuConv;
use crate::runtime::plan::{Bound, Plan, check_tensors};
use crate::runtime::tensor::Tensor;

pub use cache::Cache;
use cache::{MOST_BYTES, Planned};

/// A chain of convolutions with its weights, made by [`GpuConv`].
///
/// It takes inputs of any batch, height and width, in either layout; the output has the input's layout. The
/// plan of a size is made at its first use and kept; [`GpuConv`] says for how long. While a thread makes one, others that
/// use the layer go on, unless they need the same.
pub struct Layer {
    gpu: GpuConv,
    chain: Chain,
    choice: Choice,
    weights: Vec<(Vec<f32>, Option<Vec<f32>>)>,
    cache: Arc<Cache>,
}

/// What a layer reads: a tensor, and the residual that it adds, if it adds one.
///
/// `&x` converts into it, and `(&x, &residual)`.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The input.
    pub input: &'a Tensor,
    /// The residual, of the shape of the output of the link that adds it, in the input's layout.
    pub residual: Option<&'a Tensor>,
}

impl<'a> From<&'a Tensor> for Inputs<'a> {
    fn from(input: &'a Tensor) -> Self {
        Self { input, residual: None }
    }
}

impl<'a> From<(&'a Tensor, &'a Tensor)> for Inputs<'a> {
    fn from((input, residual): (&'a Tensor, &'a Tensor)) -> Self {
        Self { input, residual: Some(residual) }
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
    bands: Vec<Bound>,
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
        self.0.bands.iter().for_each(|band| band.dispatch(pass));
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

    /// Fixes how inputs of a size are computed, whatever the planner would choose.
    ///
    /// # Errors
    /// What the device says.
    pub(crate) fn fix(&self, input: Shape, layout: Layout, schedule: Schedule) -> Result<()> {
        let bands = vec![(0, Arc::new(self.compile(input, schedule)?))];
        self.cache.fix(input, layout, Planned::new(bands));
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

    /// How an input of a size is computed: the kernels, and why they. Of a batch that is computed in bands, since a
    /// binding holds less, the first band's.
    ///
    /// # Errors
    /// As [`Layer::forward`].
    pub fn schedule(&self, input: impl Into<Shape>, layout: Layout) -> Result<Schedule> {
        Ok(self.plan(input.into(), layout)?.bands[0].1.schedule.clone())
    }

    /// Compiles what the layer needs for inputs of a size, as [`GpuConv::warm_up`] does.
    ///
    /// # Errors
    /// As [`GpuConv::warm_up`].
    pub fn warm_up(&self, input: impl Into<Shape>, layout: Layout) -> Result<()> {
        let input = input.into();
        self.gpu.compile_ahead(|| {
            let bands = planner::band_inputs(&self.chain, input, self.gpu.caps())?;
            let schedule = |(band, input)| self.schedule_band(band > 0, input, layout);
            bands.into_iter().enumerate().map(schedule).collect()
        })
    }

    /// Runs the layer: submits it and gives the output, which stays on the GPU and has the input's layout. Its shape
    /// is [`Layer::output_shape`]'s.
    ///
    /// ```
    /// use gpuconv::{Conv2d, GpuConv, Weights};
    /// let gpu = GpuConv::new()?;
    /// let layer = gpu.conv2d(&Conv2d::new(1, 1, 2), Weights::new(&[1.0; 4], &[0.5]))?;
    /// // The same layer, for inputs of any size.
    /// for (size, sum) in [(2, 4.5), (3, 4.5)] {
    ///     let x = gpu.upload(&vec![1.0; (size * size) as usize], [1, 1, size, size])?;
    ///     assert_eq!(gpu.download(&layer.forward(&x)?)?[0], sum);
    /// }
    /// # Ok::<(), gpuconv::Error>(())
    /// ```
    ///
    /// A layer that adds a residual takes both:
    ///
    /// ```
    /// # use gpuconv::{Conv2d, GpuConv, Residual, Weights};
    /// # let gpu = GpuConv::new()?;
    /// let conv = Conv2d::pointwise(1, 1).residual(Residual::AfterActivation);
    /// let layer = gpu.pointwise(&conv, Weights::new(&[2.0], &[0.0]))?;
    /// let [x, residual] = [gpu.upload(&[1.0], [1, 1, 1, 1])?, gpu.upload(&[10.0], [1, 1, 1, 1])?];
    /// assert_eq!(gpu.download(&layer.forward((&x, &residual))?)?, [12.0]);
    /// # Ok::<(), gpuconv::Error>(())
    /// ```
    ///
    /// # Errors
    /// Shapes that do not fit, as [`Chain::shapes`] says; [`Error::Residual`] if the layer needs one;
    /// [`Error::NoKernel`]; what the device says.
    pub fn forward<'a>(&self, inputs: impl Into<Inputs<'a>>) -> Result<Tensor> {
        let inputs = inputs.into();
        let output = self.gpu.empty(self.output_shape(inputs.input.shape())?, inputs.input.layout())?;
        let bound = self.bind(inputs, &output)?;
        let Device { device, queue, .. } = self.gpu.shared();
        self.gpu.shared().scoped(|| {
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("gpuconv") });
            bound.encode(&mut encoder);
            queue.submit([encoder.finish()]);
        })?;
        Ok(output)
    }

    /// Records the layer into the caller's encoder. Nothing is submitted; nothing is allocated on the device either from the
    /// second time on with the same tensors, for their bind groups are kept (of the last 16 pairs, and until a larger input
    /// of some layer makes the workspace grow that all layers share; [`Layer::bind`] is for ever).
    ///
    /// ```
    /// use gpuconv::{Conv2d, GpuConv, Layout, Weights};
    /// let gpu = GpuConv::new()?;
    /// let layer = gpu.pointwise(&Conv2d::pointwise(1, 1), Weights::new(&[2.0], &[1.0]))?;
    /// let x = gpu.upload(&[1.0, 2.0], [1, 1, 1, 2])?;
    /// let y = gpu.empty([1, 1, 1, 2], Layout::Nchw)?;
    ///
    /// let mut encoder = gpu.device().create_command_encoder(&Default::default());
    /// // Passes of the program's own may be before it, and behind.
    /// layer.encode(&mut encoder, &x, &y)?;
    /// let values = gpu.encode_download(&mut encoder, &y)?;
    /// gpu.queue().submit([encoder.finish()]);
    /// assert_eq!(values.read()?, [3.0, 5.0]);
    /// # Ok::<(), gpuconv::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Layer::forward`]; [`Error::ShapeMismatch`], [`Error::LayoutMismatch`], [`Error::Misaligned`] and
    /// [`Error::Aliasing`] for an output that does not fit; [`Error::Destroyed`] and [`Error::ForeignTensor`] for any
    /// tensor.
    pub fn encode<'a>(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        inputs: impl Into<Inputs<'a>>,
        output: &Tensor,
    ) -> Result<()> {
        let inputs = inputs.into();
        let Inputs { input, residual } = inputs;
        let device = self.gpu.shared();
        device.check_lost()?;
        // Bind groups that are kept do not say that a buffer is gone.
        for (name, tensor) in [("input", Some(input)), ("residual", residual), ("output", Some(output))] {
            tensor.map_or(Ok(()), |tensor| tensor.check_there(name, device))?;
        }
        let tensors = (input.clone(), residual.cloned(), output.clone());
        if let Some(bound) = self.cache.binding(&tensors) {
            bound.encode(encoder);
            return Ok(());
        }
        let bound = self.bind(inputs, output)?;
        bound.encode(encoder);
        self.cache.keep(tensors, bound, |workspace| device.shares(workspace));
        Ok(())
    }

    /// Binds the layer to its tensors, to be recorded by the caller whenever and wherever it likes.
    ///
    /// # Errors
    /// As [`Layer::encode`].
    pub fn bind<'a>(&self, inputs: impl Into<Inputs<'a>>, output: &Tensor) -> Result<BoundLayer> {
        let Inputs { input, residual } = inputs.into();
        self.gpu.shared().check_lost()?;
        let expected = self.chain.outside_residual().is_some();
        if residual.is_some() != expected {
            return Err(Error::Residual { expected });
        }
        let (device, plan) = (self.gpu.shared(), self.plan(input.shape(), input.layout())?);
        let shapes = self.chain.shapes(input.shape())?;
        let outputs = [self.chain.outside_residual().map_or(0, |link| link + 1), shapes.len() - 1].map(|at| shapes[at]);
        check_tensors(device, self.chain.dtype(), outputs, input, residual, output)?;
        let workspace = device.workspace(&plan.workspace)?;
        let bind = |(first, band): &(u32, Arc<Plan>)| {
            let images = |tensor: &Tensor| tensor.images(*first, band.input().batch);
            let residual = residual.map(images);
            Bound::new(device, band.clone(), &workspace, &images(input), residual.as_ref(), &images(output))
        };
        let bands = plan.bands.iter().map(bind).collect::<Result<_>>()?;
        Ok(BoundLayer(Arc::new(Binding { bands, workspace, _plan: plan })))
    }

    /// The plan of an input size, made now if it was not before.
    fn plan(&self, input: Shape, layout: Layout) -> Result<Arc<Planned>> {
        let mut is_new = false;
        let plan = self.cache.plan(input, layout, || {
            let bands = self.make_bands(input, layout)?;
            is_new = true;
            log::debug!("planned {} links on {input}, {layout}", self.chain.links().len());
            Ok(Planned::new(bands))
        })?;
        if is_new {
            self.cache.trim(&plan, MOST_BYTES);
            self.gpu.shared().fit_workspace();
        }
        Ok(plan)
    }

    /// One plan for the whole batch where that can be, else one for each band of images; bands of a size share it.
    fn make_bands(&self, input: Shape, layout: Layout) -> Result<Vec<(u32, Arc<Plan>)>> {
        let inputs = planner::band_inputs(&self.chain, input, self.gpu.caps())?;
        let plan = |(band, &input)| Ok(Arc::new(self.make_plan(band > 0, input, layout)?));
        let plans = inputs.iter().enumerate().map(plan).collect::<Result<Vec<_>>>()?;
        let (at_once, whole) = (inputs[0].batch, &plans[0]);
        let count = input.batch.checked_div(at_once).unwrap_or(1);
        let mut bands: Vec<_> = (0..count).map(|index| (index * at_once, whole.clone())).collect();
        bands.extend(plans.get(1).map(|rest| (count * at_once, rest.clone())));
        Ok(bands)
    }

    /// How a band is computed: the first, or the rest of the batch.
    fn schedule_band(&self, is_rest: bool, input: Shape, layout: Layout) -> Result<Schedule> {
        match self.gpu.schedule(&self.chain, input, layout, &self.choice) {
            // The recipe that was asked for may be one of larger batches only.
            Err(Error::UnknownKernel { .. }) if is_rest => {
                self.gpu.schedule(&self.chain, input, layout, &self.choice.of_kernels())
            }
            schedule => schedule,
        }
    }

    /// Plans and compiles. Where the driver refuses a shader, plans again without it.
    fn make_plan(&self, is_rest: bool, input: Shape, layout: Layout) -> Result<Plan> {
        loop {
            let refused = self.gpu.shared().refused().len();
            let schedule = self.schedule_band(is_rest, input, layout)?;
            let plan = self.compile(input, schedule);
            if plan.is_ok() || self.gpu.shared().refused().len() == refused {
                return plan;
            }
        }
    }

    fn compile(&self, input: Shape, schedule: Schedule) -> Result<Plan> {
        let shapes = self.chain.shapes(input)?;
        let weights: Vec<_> =
            self.weights.iter().map(|(weight, bias)| Weights { weight, bias: bias.as_deref() }).collect();
        Plan::new(self.gpu.shared(), &self.chain, &weights, &self.cache.packed, shapes, schedule)
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        self.cache.clear();
        self.gpu.shared().fit_workspace();
    }
}
