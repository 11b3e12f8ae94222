//! A device with fewer features and lower limits than its adapter, to see what a smaller device would do.

use clap::{Args, ValueEnum};
use gpuconv::{GpuConv, wgpu};

use super::Outcome;

/// The limits and features of an adapter that the device does not get.
#[derive(Args)]
pub struct DeviceLimits {
    /// Give the device at most these limits: the adapter's own (the default), WebGPU's defaults, or those that
    /// nearly every device has
    #[arg(long, global = true, value_name = "WHICH", help_heading = super::help::DEVICE)]
    limits: Option<Limits>,
    /// Give the device none of these features (a list, separated by commas)
    #[arg(long, global = true, value_name = "FEATURES", value_delimiter = ',', help_heading = super::help::DEVICE)]
    without: Vec<Feature>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Limits {
    Adapter,
    Default,
    Downlevel,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Feature {
    Subgroups,
    Timestamps,
    Int64,
    F16,
    PipelineCache,
    /// Robust buffer access: a Vulkan device without it checks no access to a buffer
    Robustness,
}

impl Feature {
    /// wgpu has no feature for robustness.
    fn of_wgpu(self) -> wgpu::Features {
        match self {
            Self::Subgroups => wgpu::Features::SUBGROUP,
            Self::Timestamps => wgpu::Features::TIMESTAMP_QUERY,
            Self::Int64 => wgpu::Features::SHADER_INT64,
            Self::F16 => wgpu::Features::SHADER_F16,
            Self::PipelineCache => wgpu::Features::PIPELINE_CACHE,
            Self::Robustness => wgpu::Features::empty(),
        }
    }
}

impl DeviceLimits {
    /// The options, and whether they were given.
    pub fn given(&self) -> [(&'static str, bool); 2] {
        [("--limits", self.limits.is_some()), ("--without", !self.without.is_empty())]
    }

    /// A device of an adapter.
    pub fn device(&self, adapter: &wgpu::Adapter) -> Outcome<GpuConv> {
        let (features, limits) = self.of(adapter);
        let device = match self.is_robust() {
            true => pollster::block_on(GpuConv::from_adapter_with(adapter, features, limits)),
            // SAFETY: the device is this program's own, and the program has no shaders but the library's.
            false => pollster::block_on(unsafe { GpuConv::from_adapter_without_robustness(adapter, features, limits) }),
        };
        Ok(device?)
    }

    /// Whether a device gets robust buffer access: the library keeps it if every check is asked for.
    pub fn is_robust(&self) -> bool {
        let is_checked = std::env::var_os("GPUCONV_CHECKED").is_some_and(|value| value == "1");
        is_checked || !self.without.contains(&Feature::Robustness)
    }

    /// The features and limits of an adapter's device.
    pub fn of(&self, adapter: &wgpu::Adapter) -> (wgpu::Features, wgpu::Limits) {
        let without = self.without.iter().fold(wgpu::Features::empty(), |without, feature| without | feature.of_wgpu());
        let features = (adapter.features() & GpuConv::wanted_features()).difference(without);
        let limits = match self.limits.unwrap_or(Limits::Adapter) {
            Limits::Adapter => adapter.limits(),
            // The offset alignment becomes that of the smaller device, which every device supports.
            Limits::Default => wgpu::Limits::defaults().or_worse_values_from(&adapter.limits()),
            Limits::Downlevel => wgpu::Limits::downlevel_defaults().or_worse_values_from(&adapter.limits()),
        };
        (features, limits)
    }
}
