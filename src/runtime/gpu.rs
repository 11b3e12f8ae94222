//! The way in: a device, and the layers and tensors on it.

use std::sync::{Arc, OnceLock};

use crate::model::caps::Caps;
use crate::model::chain::Chain;
use crate::model::conv::Conv2d;
use crate::model::error::{Cause, Error, Result};
use crate::model::separable::Separable;
use crate::model::shape::{Layout, Shape};
use crate::model::weights::Weights;
use crate::planner::profile::Profile;
use crate::planner::{Choice, Division, Planner, Schedule};
#[cfg(target_arch = "wasm32")]
use crate::runtime::browser;
use crate::runtime::device::Device;
use crate::runtime::layer::Layer;

/// A GPU to convolve on: a device, its queue, and the caches that its layers share.
///
/// Cloning is cheap and shares all of it. It is `Send` and `Sync`.
///
/// A program may run for as long as it likes on as many shapes as it likes. What is kept for the next time is bounded:
///
/// - One workspace, for the tensors between the steps of all layers and sizes, and for copies of bands: as large as the
///   largest that a kept plan needs. Layers run one after the other, in the order in which they are submitted, so they
///   can share it.
/// - A layer's plans of the 64 input sizes that it met last, and of those that something is bound to. A plan takes up
///   to 1 MB on the host for a network, and some 10 KB on the device.
/// - A layer's weights, once for each way to lay them out that a kept plan reads. Beside those of the plan that was
///   made last they take up to 256 MiB; older plans go for that.
/// - A layer's bind groups for the 16 pairs of tensors that it recorded last. They keep the tensors: those of the last
///   pair, and up to 256 MiB of the others.
/// - Compiled shaders while a plan uses them, and 256 more, those used last.
///
/// Where the device is out of memory, all of this that is not in use is dropped, but for the shaders, and what found no
/// memory is tried once more. A [`BoundLayer`](crate::BoundLayer) is the caller's: it keeps its plan, its tensors and
/// the workspace as it was when the layer was bound. What the driver itself keeps (see
/// [`GpuConv::pipeline_cache_data`]) is the driver's to bound.
#[derive(Clone)]
pub struct GpuConv {
    pub(super) shared: Arc<Device>,
}

impl GpuConv {
    /// As [`GpuConv::new`], awaited. In a browser this takes the adapter that the browser prefers for speed.
    ///
    /// # Errors
    /// As [`GpuConv::new`].
    pub async fn new_async() -> Result<Self> {
        #[cfg(not(target_arch = "wasm32"))]
        return Self::from_adapter(&Self::adapter(None).await?).await;
        #[cfg(target_arch = "wasm32")]
        browser::open().await.map(|(device, queue)| Self::of_own(Device::new(device, queue)))
    }

    /// As [`GpuConv::with_adapter_name`], awaited.
    ///
    /// # Errors
    /// As [`GpuConv::new`].
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn with_adapter_name_async(name: &str) -> Result<Self> {
        Self::from_adapter(&Self::adapter(Some(name)).await?).await
    }

    /// A new device of an adapter, with the features that kernels can use and all its limits.
    ///
    /// # Errors
    /// [`Error::RequestDevice`].
    pub async fn from_adapter(adapter: &wgpu::Adapter) -> Result<Self> {
        let features = adapter.features() & Self::wanted_features();
        Self::from_adapter_with(adapter, features, adapter.limits()).await
    }

    /// A new device of an adapter with these features and limits and no others, to see how a program does on lesser
    /// devices: with [`wgpu::Limits::downlevel_defaults`], say, and without [`wgpu::Features::SUBGROUP`].
    ///
    /// # Errors
    /// [`Error::RequestDevice`], also if the adapter has less than is asked for.
    pub async fn from_adapter_with(
        adapter: &wgpu::Adapter,
        features: wgpu::Features,
        limits: wgpu::Limits,
    ) -> Result<Self> {
        let requested = adapter.request_device(&Self::descriptor(features, limits)).await;
        let (device, queue) = requested.map_err(|error| Error::RequestDevice(Cause::new(error)))?;
        Ok(Self::of_own(Device::new(device, queue)))
    }

    pub(crate) fn descriptor(features: wgpu::Features, limits: wgpu::Limits) -> wgpu::DeviceDescriptor<'static> {
        wgpu::DeviceDescriptor {
            label: Some("gpuconv"),
            required_features: features,
            required_limits: limits,
            ..Default::default()
        }
    }

    /// A device that the library made.
    pub(crate) fn of_own(device: Device) -> Self {
        device.watch();
        Self { shared: Arc::new(device) }
    }

    /// A device of the caller's. Ask for [`GpuConv::wanted_features`] and the adapter's limits when making it:
    /// what it lacks, kernels do without. Its error and loss handlers stay the caller's. Tensors belong to the device:
    /// of several `GpuConv` made of one, each takes the others'.
    pub fn with_device(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let device = Device::new(device, queue);
        #[cfg(target_arch = "wasm32")]
        device.watch_loss();
        Self { shared: Arc::new(device) }
    }

    /// The same device, whose shaders are compiled with wgpu's run-time checks from now on: no index is out of bounds,
    /// no loop is endless. The library's own shaders need none, and are up to twice as fast without. So it is for the
    /// search of a fault: a program that behaves otherwise with the checks has found one. `GPUCONV_CHECKED=1` in the
    /// environment does the same to every device.
    ///
    /// It shares the device and what was measured on it with `self`, but no caches; tensors belong to both. A device
    /// without robustness still checks no index of a buffer, since wgpu leaves that to the device: there only
    /// `GPUCONV_CHECKED=1` helps, which makes another device.
    ///
    /// ```
    /// use gpuconv::{Conv2d, GpuConv, Weights};
    /// let gpu = GpuConv::new()?.checked();
    /// let layer = gpu.pointwise(&Conv2d::pointwise(1, 1), Weights::new(&[2.0], &[1.0]))?;
    /// let y = layer.forward(&gpu.upload(&[3.0], [1, 1, 1, 1])?)?;
    /// assert_eq!(gpu.download(&y)?, [7.0]);
    /// # Ok::<(), gpuconv::Error>(())
    /// ```
    pub fn checked(&self) -> Self {
        let checked = self.with(|device| device.is_checked = true);
        checked.set_profile((*self.profile()).clone());
        checked
    }

    /// The same device, planned for as if it had other caps: to run on a software device what a GPU would be given.
    /// What the device lacks shows when a layer is used.
    #[doc(hidden)]
    pub fn with_caps(&self, change: impl FnOnce(Caps) -> Caps) -> Self {
        self.with(|device| device.caps = change(device.caps.clone()))
    }

    /// The same device with caches of its own, and some of what is known of it changed.
    fn with(&self, change: impl FnOnce(&mut Device)) -> Self {
        let Device { device, queue, caps, is_checked, is_robust, .. } = self.shared();
        let mut shared = Device::new(device.clone(), queue.clone());
        (shared.caps, shared.is_checked, shared.is_robust) = (caps.clone(), *is_checked, *is_robust);
        change(&mut shared);
        Self { shared: Arc::new(shared) }
    }

    /// The features that kernels use where an adapter has them; none is needed.
    pub fn wanted_features() -> wgpu::Features {
        wgpu::Features::SUBGROUP
            | wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::SHADER_INT64
            | wgpu::Features::SHADER_F16
            | wgpu::Features::PIPELINE_CACHE
    }

    /// The adapters of this machine, the one that [`GpuConv::new`] takes first. A browser shows one. Of a device of it
    /// wgpu knows no subgroups: [`GpuConv::new_async`] does.
    pub async fn adapters() -> Vec<wgpu::Adapter> {
        #[cfg(target_arch = "wasm32")]
        if !browser::has_webgpu() {
            return Vec::new();
        }
        // One for all, since an instance takes another's buffers for its own.
        static INSTANCE: OnceLock<(wgpu::Instance, wgpu::Backends)> = OnceLock::new();
        let (instance, backends) = INSTANCE.get_or_init(|| {
            let descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
            let backends = descriptor.backends;
            (wgpu::Instance::new(descriptor), backends)
        });
        let mut adapters = instance.enumerate_adapters(*backends).await;
        let power = wgpu::PowerPreference::from_env().unwrap_or_default();
        adapters.sort_by_key(|adapter| rank(&adapter.get_info(), power));
        adapters
    }

    /// The best adapter whose name or driver contains `name`, in any case; without a name the one that
    /// [`GpuConv::new`] takes.
    ///
    /// # Errors
    /// [`Error::NoAdapter`].
    pub async fn adapter(name: Option<&str>) -> Result<wgpu::Adapter> {
        let name = name.map(String::from).or_else(|| std::env::var("WGPU_ADAPTER_NAME").ok());
        let adapters = Self::adapters().await;
        let found: Vec<_> = adapters.iter().map(|adapter| adapter.get_info().name).collect();
        let wanted = name.as_deref().map(str::to_lowercase).unwrap_or_default();
        let matching = adapters.into_iter().find(|adapter| {
            let info = adapter.get_info();
            info.name.to_lowercase().contains(&wanted) || info.driver.to_lowercase().contains(&wanted)
        });
        matching.ok_or(Error::NoAdapter { wanted: name, found })
    }

    /// The adapter's name. Most browsers give none, but say who made the GPU, and how they call its kind: `nvidia
    /// ampere`.
    pub fn adapter_name(&self) -> String {
        #[cfg(not(target_arch = "wasm32"))]
        return self.device().adapter_info().name;
        #[cfg(target_arch = "wasm32")]
        browser::Adapter::of(self.device()).name()
    }

    /// What the device can do, as kernels see it.
    pub fn caps(&self) -> &Caps {
        &self.shared.caps
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        &self.shared.device
    }

    /// The device's queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.shared.queue
    }

    /// Whether the device checks accesses to buffers, as far as the library knows: false only after
    /// [`GpuConv::without_robustness`].
    pub fn is_robust(&self) -> bool {
        self.shared().is_robust
    }

    pub(crate) fn shared(&self) -> &Device {
        &self.shared
    }

    /// What was measured on this device: empty until [`GpuConv::set_profile`].
    pub fn profile(&self) -> Arc<Profile> {
        self.shared.profile()
    }

    /// What plans made from now on go by. Plans that layers have made already stay as they are.
    pub fn set_profile(&self, profile: Profile) {
        self.shared.set_profile(profile);
    }

    /// How a chain would be computed here, by what is known of the device: what was measured, and which shaders its
    /// driver refused. All of it at once, that is: if a tensor is too large for a binding, layers compute it in bands,
    /// as [`GpuConv::divide`] says.
    ///
    /// # Errors
    /// As [`Planner::schedule`].
    pub fn schedule(
        &self,
        chain: &Chain,
        input: impl Into<Shape>,
        layout: Layout,
        choice: &Choice,
    ) -> Result<Schedule> {
        let (profile, refused) = (self.profile(), self.shared.refused());
        Planner { caps: self.caps(), profile: &profile }.schedule_without(&refused, chain, input.into(), layout, choice)
    }

    /// How a chain is computed here by layers: as [`GpuConv::schedule`] says, and band by band where a tensor is larger
    /// than a binding.
    ///
    /// # Errors
    /// As [`Planner::divide`].
    pub fn divide(&self, chain: &Chain, input: impl Into<Shape>, layout: Layout, choice: &Choice) -> Result<Division> {
        let (profile, refused) = (self.profile(), self.shared.refused());
        Planner { caps: self.caps(), profile: &profile }.divide_without(&refused, chain, input.into(), layout, choice)
    }

    /// Every schedule worth comparing here.
    ///
    /// # Errors
    /// As [`Planner::schedule`].
    pub fn alternatives(&self, chain: &Chain, input: impl Into<Shape>, layout: Layout) -> Result<Vec<Schedule>> {
        let (profile, refused) = (self.profile(), self.shared.refused());
        Planner { caps: self.caps(), profile: &profile }.alternatives_without(&refused, chain, input.into(), layout)
    }

    /// As [`GpuConv::wait`], awaited. On native devices the program must poll the device meanwhile.
    ///
    /// # Errors
    /// As [`GpuConv::wait`].
    pub async fn wait_async(&self) -> Result<()> {
        self.shared.wait().await
    }

    /// Any convolution. [`GpuConv::depthwise`] and [`GpuConv::pointwise`] do the same, and refuse one of another kind.
    ///
    /// ```
    /// use gpuconv::{Conv2d, GpuConv, Weights};
    /// let gpu = GpuConv::new()?;
    /// let edges = Conv2d::new(1, 1, [1, 3]).bias(false);
    /// let layer = gpu.conv2d(&edges, Weights::without_bias(&[-1.0, 0.0, 1.0]))?;
    /// let y = layer.forward(&gpu.upload(&[0.0, 0.0, 1.0, 1.0], [1, 1, 1, 4])?)?;
    /// assert_eq!(gpu.download(&y)?, [1.0, 1.0]);
    /// # Ok::<(), gpuconv::Error>(())
    /// ```
    ///
    /// # Errors
    /// What [`Conv2d::validate`] says; [`Error::Length`]; what the device says.
    pub fn conv2d(&self, conv: &Conv2d, weights: Weights<'_>) -> Result<Layer> {
        self.chain(&conv.into(), &[weights])
    }

    /// A depthwise convolution: one group a channel.
    ///
    /// ```
    /// use gpuconv::{Conv2d, GpuConv, Weights};
    /// let gpu = GpuConv::new()?;
    /// // Two channels of 2x2 pixels, each with a filter of its own: a sum, and a mean.
    /// let conv = Conv2d::depthwise(2, 2).bias(false);
    /// let layer = gpu.depthwise(&conv, Weights::without_bias(&[1.0, 1.0, 1.0, 1.0, 0.25, 0.25, 0.25, 0.25]))?;
    /// let y = layer.forward(&gpu.upload(&[1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0], [1, 2, 2, 2])?)?;
    /// assert_eq!(gpu.download(&y)?, [10.0, 2.5]);
    /// # Ok::<(), gpuconv::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`GpuConv::conv2d`]; [`Error::Groups`] if it is not depthwise.
    pub fn depthwise(&self, conv: &Conv2d, weights: Weights<'_>) -> Result<Layer> {
        if !conv.is_depthwise() {
            let Conv2d { groups, in_channels, out_channels, .. } = *conv;
            return Err(Error::Groups { groups, in_channels, out_channels });
        }
        self.conv2d(conv, weights)
    }

    /// A pointwise convolution: a 1x1 kernel.
    ///
    /// ```
    /// use gpuconv::{Conv2d, GpuConv, Weights};
    /// let gpu = GpuConv::new()?;
    /// // The sum and the difference of two channels, on three pixels.
    /// let layer = gpu.pointwise(&Conv2d::pointwise(2, 2), Weights::new(&[1.0, 1.0, 1.0, -1.0], &[0.0, 100.0]))?;
    /// let y = layer.forward(&gpu.upload(&[1.0, 2.0, 3.0, 10.0, 20.0, 30.0], [1, 2, 1, 3])?)?;
    /// assert_eq!(gpu.download(&y)?, [11.0, 22.0, 33.0, 91.0, 82.0, 73.0]);
    /// # Ok::<(), gpuconv::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`GpuConv::conv2d`]; [`Error::Parameter`] if the kernel is not 1x1.
    pub fn pointwise(&self, conv: &Conv2d, weights: Weights<'_>) -> Result<Layer> {
        if let Some(&extent) = conv.kernel_size.iter().find(|&&extent| extent != 1) {
            return Err(Error::Parameter { name: "kernel_size", value: extent.into(), expected: "1".into() });
        }
        self.conv2d(conv, weights)
    }

    /// A depthwise-separable convolution: `weights` are the depthwise and the pointwise half's. One dispatch where
    /// that is cheaper, two where it is not.
    ///
    /// # Errors
    /// As [`GpuConv::conv2d`].
    pub fn separable(&self, separable: &Separable, weights: &[Weights<'_>; 2]) -> Result<Layer> {
        self.chain(&separable.into(), weights)
    }

    /// A chain, with the weights of each of its convolutions, in order.
    ///
    /// ```
    /// use gpuconv::{Chain, GpuConv, Link, Conv2d, Weights};
    /// let gpu = GpuConv::new()?;
    /// // The mean of each channel, then a classifier of three classes.
    /// let chain = Chain::new([Link::GlobalAveragePool, Conv2d::pointwise(2, 3).into()]);
    /// let layer = gpu.chain(&chain, &[Weights::new(&[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], &[0.0; 3])])?;
    /// let y = layer.forward(&gpu.upload(&[1.0, 3.0, 10.0, 30.0], [1, 2, 1, 2])?)?;
    /// assert_eq!(gpu.download(&y)?, [2.0, 20.0, 22.0]);
    /// # Ok::<(), gpuconv::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`GpuConv::conv2d`].
    pub fn chain(&self, chain: &Chain, weights: &[Weights<'_>]) -> Result<Layer> {
        self.chain_with(chain, weights, Choice::Auto)
    }

    /// A chain computed by kernels of the caller's choice.
    ///
    /// # Errors
    /// As [`GpuConv::conv2d`]; whether the kernels can compute it shows at the first input.
    pub fn chain_with(&self, chain: &Chain, weights: &[Weights<'_>], choice: Choice) -> Result<Layer> {
        Layer::new(self, chain.clone(), weights, choice)
    }
}

/// Smaller is better.
fn rank(info: &wgpu::AdapterInfo, power: wgpu::PowerPreference) -> u8 {
    let low_power = power == wgpu::PowerPreference::LowPower;
    match info.device_type {
        wgpu::DeviceType::DiscreteGpu => {
            if low_power {
                1
            } else {
                0
            }
        }
        wgpu::DeviceType::IntegratedGpu => {
            if low_power {
                0
            } else {
                1
            }
        }
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}
