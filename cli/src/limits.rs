//! A device with less than its adapter has, to see what a lesser one would do.

use clap::{Args, ValueEnum};
use gpuconv::{GpuConv, wgpu};

/// What of an adapter is left unused.
#[derive(Args)]
pub struct DeviceLimits {
    /// Give the device no more than these limits: all that the adapter has, what WebGPU promises, or what nearly every
    /// device has
    #[arg(long, global = true, value_name = "WHICH", default_value = "adapter", help_heading = super::help::DEVICE)]
    limits: Limits,
    /// Give the device no such features (a list, separated by commas)
    #[arg(long, global = true, value_name = "FEATURES", value_delimiter = ',', help_heading = super::help::DEVICE)]
    without: Vec<Feature>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Limits {
    Adapter,
    Default,
    Downlevel,
}

#[derive(Clone, Copy, ValueEnum)]
enum Feature {
    Subgroups,
    Timestamps,
    Int64,
    PipelineCache,
}

impl Feature {
    fn of_wgpu(self) -> wgpu::Features {
        match self {
            Self::Subgroups => wgpu::Features::SUBGROUP,
            Self::Timestamps => wgpu::Features::TIMESTAMP_QUERY,
            Self::Int64 => wgpu::Features::SHADER_INT64,
            Self::PipelineCache => wgpu::Features::PIPELINE_CACHE,
        }
    }
}

impl DeviceLimits {
    /// The features and limits of an adapter's device.
    pub fn of(&self, adapter: &wgpu::Adapter) -> (wgpu::Features, wgpu::Limits) {
        let without = self.without.iter().fold(wgpu::Features::empty(), |without, feature| without | feature.of_wgpu());
        let features = (adapter.features() & GpuConv::wanted_features()).difference(without);
        let limits = match self.limits {
            Limits::Adapter => adapter.limits(),
            // Offsets are aligned as those of the lesser device would be, which every device can.
            Limits::Default => wgpu::Limits::defaults().or_worse_values_from(&adapter.limits()),
            Limits::Downlevel => wgpu::Limits::downlevel_defaults().or_worse_values_from(&adapter.limits()),
        };
        (features, limits)
    }
}
