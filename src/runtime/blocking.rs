//! The calls that block until their async versions are done. In a browser threads cannot block, so this is not compiled
//! there.

use half::f16;

use crate::model::chain::Chain;
use crate::model::dtype::DType;
#[cfg(doc)]
use crate::model::error::Error;
use crate::model::error::Result;
use crate::model::shape::{Layout, Shape};
use crate::planner::Schedule;
use crate::runtime::block::block_on;
use crate::runtime::gpu::GpuConv;
use crate::runtime::layer::{BoundLayer, Inputs, Layer};
use crate::runtime::readback::Readback;
use crate::runtime::tensor::Tensor;

/// The value of calls to a device, or the error that they raised.
///
/// # Errors
/// What the device says.
pub fn scoped<T>(gpu: &GpuConv, calls: impl FnOnce() -> T) -> Result<T> {
    block_on(gpu.shared().scoped(calls))
}

impl GpuConv {
    /// The best adapter there is, without a window: a discrete GPU before an integrated one before a software
    /// device. `WGPU_BACKEND` (`vulkan`, `dx12`, `metal`) narrows the choice, `WGPU_ADAPTER_NAME` picks by a part
    /// of the name, `WGPU_POWER_PREF=low` prefers the integrated GPU.
    ///
    /// # Errors
    /// [`Error::NoAdapter`], [`Error::RequestDevice`].
    pub fn new() -> Result<Self> {
        block_on(Self::new_async())
    }

    /// The best adapter whose name or driver contains `name`, in any case.
    ///
    /// # Errors
    /// As [`GpuConv::new`].
    pub fn with_adapter_name(name: &str) -> Result<Self> {
        block_on(Self::with_adapter_name_async(name))
    }

    /// As [`GpuConv::new`], on a Vulkan device without robust buffer access: one that checks no access to a buffer.
    ///
    /// wgpu makes every Vulkan device with `robustBufferAccess`, and `robustBufferAccess2` where there is one. Some
    /// drivers then load one number at a time where they could load four, because they check each one. This device has
    /// neither. Its results are the same bits. [`GpuConv::from_adapter_without_robustness`] takes an adapter of your
    /// choice.
    ///
    /// `GPUCONV_CHECKED=1` in the environment makes it an ordinary device whose shaders are checked as well
    /// ([`GpuConv::checked`]).
    ///
    /// ```
    /// use gpuconv::{Conv2d, GpuConv, Weights};
    /// // SAFETY: the device runs nothing but gpuconv.
    /// let gpu = unsafe { GpuConv::without_robustness() }.or_else(|_| GpuConv::new())?;
    /// let layer = gpu.pointwise(&Conv2d::pointwise(1, 1), Weights::new(&[2.0], &[1.0]))?;
    /// let y = layer.forward(&gpu.upload(&[3.0], [1, 1, 1, 1])?)?;
    /// assert_eq!(gpu.download(&y)?, [7.0]);
    /// # Ok::<(), gpuconv::Error>(())
    /// ```
    ///
    /// # Safety
    /// The device must run no shaders but the library's. wgpu believes that the device checks accesses, so it leaves
    /// the checks out of all shaders, those of `create_shader_module` included. An index out of bounds is then
    /// undefined behaviour: it may read or write any memory of the process that the device can reach. So do not make
    /// shaders or pipelines on [`GpuConv::device`], and give neither it nor a [`GpuConv`] to code that might. Buffers,
    /// encoders, copies and submissions are fine: wgpu checks these on the host.
    ///
    /// The library's own shaders are sound on such a device for three reasons:
    ///
    /// - The device is new, so no other work is on it.
    /// - Every text that it compiles is the library's. Callers choose sizes and names of recipes, never code.
    /// - Every index is in range by construction: positions are clamped to, or guarded by, the extents of the tensors,
    ///   and a tensor is bound only if it has these extents. The comment at the library's one call of wgpu's
    ///   `create_shader_module_trusted` has the argument in full. `scripts/validation` in the repository tests it, with
    ///   Khronos' validation layer.
    ///
    /// # Errors
    /// [`Error::NoAdapter`]; [`Error::RequestDevice`], also if the adapter's backend is not Vulkan. Metal and DirectX
    /// 12 have no such switch.
    pub unsafe fn without_robustness() -> Result<Self> {
        // SAFETY: as the caller says.
        block_on(unsafe { Self::without_robustness_async() })
    }

    /// Waits until all submitted work is done.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn wait(&self) -> Result<()> {
        block_on(self.wait_async())
    }

    /// A new tensor of f32, its elements zero.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::OutOfMemory`].
    pub fn empty(&self, shape: impl Into<Shape>, layout: Layout) -> Result<Tensor> {
        block_on(self.empty_async(shape, layout))
    }

    /// A new tensor of elements of a type, all zero.
    ///
    /// # Errors
    /// As [`GpuConv::empty`].
    pub fn empty_of(&self, shape: impl Into<Shape>, layout: Layout, dtype: DType) -> Result<Tensor> {
        block_on(self.empty_of_async(shape, layout, dtype))
    }

    /// A new NCHW tensor of f32, of values in that order.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::TooLarge`], [`Error::OutOfMemory`].
    pub fn upload(&self, values: &[f32], shape: impl Into<Shape>) -> Result<Tensor> {
        block_on(self.upload_async(values, shape))
    }

    /// A new tensor of values that are in the order of `layout` already;
    /// [`shape::from_nchw`](crate::model::shape::from_nchw) reorders them.
    ///
    /// # Errors
    /// As [`GpuConv::upload`].
    pub fn upload_as(&self, values: &[f32], shape: impl Into<Shape>, layout: Layout) -> Result<Tensor> {
        block_on(self.upload_as_async(values, shape, layout))
    }

    /// A new tensor of elements of a type, of values in the order of `layout`. In f16 they are rounded to the nearest,
    /// ties to even.
    ///
    /// ```
    /// use gpuconv::{DType, GpuConv, Layout};
    /// let gpu = GpuConv::new()?;
    /// let x = gpu.upload_of(&[3.0, 0.1], [1, 1, 1, 2], Layout::Nchw, DType::F16)?;
    /// assert_eq!(gpu.download(&x)?, [3.0, 0.099975586]);
    /// # Ok::<(), gpuconv::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`GpuConv::upload`].
    pub fn upload_of(&self, values: &[f32], shape: impl Into<Shape>, layout: Layout, dtype: DType) -> Result<Tensor> {
        block_on(self.upload_of_async(values, shape, layout, dtype))
    }

    /// A new tensor of f16, of values in the order of `layout`, which go as they are.
    ///
    /// # Errors
    /// As [`GpuConv::upload`].
    pub fn upload_f16(&self, values: &[f16], shape: impl Into<Shape>, layout: Layout) -> Result<Tensor> {
        block_on(self.upload_f16_async(values, shape, layout))
    }

    /// Writes values, in the tensor's layout, into a tensor, rounded if it is of f16. What is submitted later reads
    /// them. Whole words of four bytes are written: behind an odd number of f16, two bytes become zero.
    ///
    /// # Errors
    /// [`Error::Length`]; [`Error::Usage`] if the tensor's buffer lacks `COPY_DST`; [`Error::Destroyed`],
    /// [`Error::ForeignTensor`].
    pub fn write(&self, tensor: &Tensor, values: &[f32]) -> Result<()> {
        block_on(self.write_async(tensor, values))
    }

    /// As [`GpuConv::write`], into a tensor of f16, of values that go as they are.
    ///
    /// # Errors
    /// As [`GpuConv::write`]; [`Error::DTypeMismatch`] if the tensor is not of f16.
    pub fn write_f16(&self, tensor: &Tensor, values: &[f16]) -> Result<()> {
        block_on(self.write_f16_async(tensor, values))
    }

    /// The values of a tensor, in its layout. Blocks until they are computed and copied.
    ///
    /// # Errors
    /// [`Error::Usage`] if the tensor's buffer lacks `COPY_SRC`; [`Error::Destroyed`], [`Error::ForeignTensor`];
    /// [`Error::TooLarge`] if the device has no buffer of eight bytes more than the tensor; what the device says.
    pub fn download(&self, tensor: &Tensor) -> Result<Vec<f32>> {
        block_on(self.start_download(tensor))?.read()
    }

    /// As [`GpuConv::download`], of a tensor of f16, as they are.
    ///
    /// # Errors
    /// As [`GpuConv::download`]; [`Error::DTypeMismatch`] if the tensor is not of f16.
    pub fn download_f16(&self, tensor: &Tensor) -> Result<Vec<f16>> {
        block_on(self.start_download(tensor))?.read_f16()
    }

    /// Records the copy of a tensor to the host into the caller's encoder, behind what computes it: one submission
    /// for both. The values come with [`Readback::read`], once the encoder is submitted, or with
    /// [`Readback::read_async`], which may be called before.
    ///
    /// # Errors
    /// As [`GpuConv::download`].
    pub fn encode_download(&self, encoder: &mut wgpu::CommandEncoder, tensor: &Tensor) -> Result<Readback> {
        block_on(self.encode_download_async(encoder, tensor))
    }

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
        let own = |(chain, input, layout): &(Chain, S, Layout)| (chain.clone(), (*input).into(), *layout);
        block_on(self.warm_up_async::<Shape>(chains.iter().map(own).collect()))
    }
}

impl Layer {
    /// How an input of a size is computed: which kernels, and why. If it is computed in bands, as [`GpuConv::divide`]
    /// says, the steps are those of the first band of each stretch.
    ///
    /// # Errors
    /// As [`Layer::forward`].
    pub fn schedule(&self, input: impl Into<Shape>, layout: Layout) -> Result<Schedule> {
        block_on(self.schedule_async(input, layout))
    }

    /// Compiles what the layer needs for inputs of a size, as [`GpuConv::warm_up`] does.
    ///
    /// # Errors
    /// As [`GpuConv::warm_up`].
    pub fn warm_up(&self, input: impl Into<Shape>, layout: Layout) -> Result<()> {
        block_on(self.warm_up_async(input.into(), layout))
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
    /// Shapes that do not fit, as [`Chain::shapes`] says; [`Error::Residual`] or [`Error::Scale`] if one is missing or
    /// not wanted; [`Error::ShapeMismatch`], [`Error::LayoutMismatch`], [`Error::DTypeMismatch`], [`Error::Misaligned`],
    /// [`Error::Destroyed`] and [`Error::ForeignTensor`] for a tensor; [`Error::TooLarge`]; [`Error::NoKernel`]; what the
    /// device says.
    pub fn forward<'a>(&self, inputs: impl Into<Inputs<'a>>) -> Result<Tensor> {
        block_on(self.forward_async(inputs))
    }

    /// Records the layer into the caller's encoder. Nothing is submitted; nothing is allocated on the device either
    /// from the second time on with the same tensors, for their bind groups are kept (of the last 16 pairs, and until a
    /// larger input of some layer makes the workspace grow that all layers share; [`Layer::bind`] is for ever).
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
    /// As [`Layer::forward`], for the output too; [`Error::Aliasing`].
    pub fn encode<'a>(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        inputs: impl Into<Inputs<'a>>,
        output: &Tensor,
    ) -> Result<()> {
        block_on(self.encode_async(encoder, inputs, output))
    }

    /// Binds the layer to its tensors, to be recorded by the caller whenever and wherever it likes.
    ///
    /// # Errors
    /// As [`Layer::encode`].
    pub fn bind<'a>(&self, inputs: impl Into<Inputs<'a>>, output: &Tensor) -> Result<BoundLayer> {
        block_on(self.bind_async(inputs, output))
    }
}
