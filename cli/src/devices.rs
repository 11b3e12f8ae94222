//! `devices`: every adapter, its limits and features, and which one the other commands use.

use clap::Args;
use gpuconv::{Caps, Error, GpuConv, wgpu};
use serde::Serialize;

use super::{Failure, Outcome, Target, print, print_json, table};

#[derive(Args)]
pub struct Devices {
    /// Write an array of objects
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Device {
    name: String,
    driver: String,
    driver_info: String,
    backend: String,
    #[serde(rename = "type")]
    device_type: &'static str,
    /// What the planner takes it for.
    planned_as: String,
    /// Whether the other commands run on it.
    taken: bool,
    limits: Limits,
    features: Features,
}

/// Sizes in bytes.
#[derive(Serialize)]
struct Limits {
    max_storage_binding: u64,
    max_buffer: u64,
    workgroup_memory: u32,
    workgroup_invocations: u32,
    workgroups_per_dimension: u32,
    storage_buffers_per_stage: u32,
    storage_offset_alignment: u32,
}

#[derive(Serialize)]
struct Features {
    subgroup: Option<Subgroup>,
    timestamps: bool,
    f16: bool,
    int64: bool,
    /// Robust buffer access, which only Vulkan can turn off.
    robustness: Option<bool>,
}

/// Sizes in lanes.
#[derive(Serialize)]
struct Subgroup {
    min: u32,
    max: u32,
}

impl Devices {
    pub fn execute(&self, target: &Target) -> Outcome {
        let adapters = pollster::block_on(GpuConv::adapters());
        // The option takes precedence over the environment, as in `GpuConv::adapter`.
        let wanted = target.adapter.clone().or_else(|| std::env::var("WGPU_ADAPTER_NAME").ok());
        let taken = adapters.iter().position(|adapter| is_called(&adapter.get_info(), wanted.as_deref()));
        let devices: Vec<_> = adapters
            .iter()
            .enumerate()
            .map(|(index, adapter)| Device::new(adapter, taken == Some(index), target))
            .collect();
        if self.json {
            print_json(&devices)?;
        } else if !devices.is_empty() {
            print(&text(&devices))?;
        }
        if taken.is_none() {
            let found = devices.into_iter().map(|device| device.name).collect();
            return Err(Failure::from(Error::NoAdapter { wanted, found }));
        }
        Ok(())
    }
}

/// Whether an adapter matches a name, by the rule of [`GpuConv::adapter`].
fn is_called(info: &wgpu::AdapterInfo, wanted: Option<&str>) -> bool {
    let wanted = wanted.unwrap_or_default().to_lowercase();
    info.name.to_lowercase().contains(&wanted) || info.driver.to_lowercase().contains(&wanted)
}

impl Device {
    fn new(adapter: &wgpu::Adapter, taken: bool, target: &Target) -> Self {
        let info = adapter.get_info();
        let (features, limits) = target.limits.of(adapter);
        let caps = Caps::from_parts(&limits, features, Some(&info));
        Self {
            device_type: kind(info.device_type),
            planned_as: planned_as(&caps),
            backend: info.backend.to_string(),
            name: info.name,
            driver: info.driver,
            driver_info: info.driver_info,
            taken,
            limits: Limits {
                max_storage_binding: caps.max_storage_binding,
                max_buffer: caps.max_buffer,
                workgroup_memory: caps.max_workgroup_memory,
                workgroup_invocations: caps.max_invocations,
                workgroups_per_dimension: caps.max_workgroups,
                storage_buffers_per_stage: caps.max_storage_buffers,
                storage_offset_alignment: caps.storage_offset_alignment,
            },
            features: Features {
                subgroup: caps.subgroup.map(|[min, max]| Subgroup { min, max }),
                timestamps: caps.timestamps,
                f16: caps.f16,
                int64: caps.int64,
                robustness: (info.backend == wgpu::Backend::Vulkan).then_some(target.limits.is_robust()),
            },
        }
    }
}

/// The word for a type of device.
pub fn kind(device_type: wgpu::DeviceType) -> &'static str {
    match device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete",
        wgpu::DeviceType::IntegratedGpu => "integrated",
        wgpu::DeviceType::VirtualGpu => "virtual",
        wgpu::DeviceType::Cpu => "cpu",
        wgpu::DeviceType::Other => "other",
    }
}

/// What the planner takes a device for.
fn planned_as(caps: &Caps) -> String {
    if caps.is_cpu { "software device".into() } else { caps.gpu.to_string() }
}

/// A small table for each adapter.
fn text(devices: &[Device]) -> String {
    let mut text = String::new();
    for device in devices {
        let Device { limits, features, .. } = device;
        let mut table = table::new([device.name.as_str(), if device.taken { "taken" } else { "" }], 1);
        let yes = |has: bool| String::from(if has { "yes" } else { "no" });
        let subgroup = features.subgroup.as_ref().map_or("no".into(), |Subgroup { min, max }| match min == max {
            true => format!("{min} lanes"),
            false => format!("{min} to {max} lanes"),
        });
        for (name, value) in [
            ("driver", format!("{} {}", device.driver, device.driver_info).trim().into()),
            ("backend", device.backend.clone()),
            ("type", device.device_type.into()),
            ("planned as", device.planned_as.clone()),
            ("largest storage binding, bytes", table::count(limits.max_storage_binding)),
            ("largest buffer, bytes", table::count(limits.max_buffer)),
            ("workgroup memory, bytes", table::count(limits.workgroup_memory.into())),
            ("invocations per workgroup", table::count(limits.workgroup_invocations.into())),
            ("workgroups per dimension", table::count(limits.workgroups_per_dimension.into())),
            ("storage buffers per stage", table::count(limits.storage_buffers_per_stage.into())),
            ("storage offset alignment, bytes", table::count(limits.storage_offset_alignment.into())),
            ("subgroup operations", subgroup),
            ("timestamps", yes(features.timestamps)),
            ("f16", yes(features.f16)),
            ("64-bit integers", yes(features.int64)),
            ("robust buffer access", features.robustness.map_or("-".into(), yes)),
        ] {
            table.add_row([name, &value]);
        }
        text += &format!("{table}\n\n");
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}
