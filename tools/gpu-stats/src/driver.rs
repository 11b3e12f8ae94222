//! Vulkan drivers for GPUs that are not here: Mesa's, on top of its "no-op DRM shims", kernel drivers that do nothing.

use std::ffi::{CStr, CString};

use ash::vk;
use gpuconv::gpu::GpuKind;

use crate::Result;
use crate::hot_loop::Dialect;

/// A GPU that a driver can be told to compile for.
pub struct Gpu {
    pub name: &'static str,
    /// The planner's kind for it.
    pub kind: GpuKind,
    /// The variable that names it, and its value.
    chip: (&'static str, &'static str),
    maker: Maker,
}

#[derive(Clone, Copy)]
enum Maker {
    Amd,
    Nvidia,
    Qualcomm,
    Apple,
}

const fn gpu(name: &'static str, maker: Maker, chip: (&'static str, &'static str)) -> Gpu {
    let kind = match maker {
        Maker::Amd => GpuKind::AmdDiscrete,
        Maker::Nvidia => GpuKind::Nvidia,
        Maker::Qualcomm => GpuKind::Adreno,
        Maker::Apple => GpuKind::Apple,
    };
    Gpu { name, kind, chip, maker }
}

pub const GPUS: &[Gpu] = &[
    gpu("navi31", Maker::Amd, ("AMDGPU_GPU_ID", "navi31")),
    gpu("navi21", Maker::Amd, ("AMDGPU_GPU_ID", "navi21")),
    gpu("vega10", Maker::Amd, ("AMDGPU_GPU_ID", "vega10")),
    gpu("gfx1201", Maker::Amd, ("AMDGPU_GPU_ID", "gfx1201")),
    gpu("turing", Maker::Nvidia, ("NOUVEAU_CHIPSET", "164")),
    gpu("ampere", Maker::Nvidia, ("NOUVEAU_CHIPSET", "172")),
    gpu("ada", Maker::Nvidia, ("NOUVEAU_CHIPSET", "192")),
    gpu("blackwell", Maker::Nvidia, ("NOUVEAU_CHIPSET", "1b2")),
    gpu("adreno630", Maker::Qualcomm, ("FD_GPU_ID", "630")),
    gpu("adreno660", Maker::Qualcomm, ("FD_GPU_ID", "660")),
    gpu("adreno740", Maker::Qualcomm, ("FD_GPU_ID", "740")),
    gpu("apple-m1", Maker::Apple, ("DRM_SHIM_DEBUG", "0")),
];

impl Gpu {
    pub fn dialect(&self) -> Dialect {
        match self.maker {
            Maker::Amd => Dialect::Aco,
            Maker::Nvidia => Dialect::Nak,
            Maker::Qualcomm => Dialect::Ir3,
            Maker::Apple => Dialect::Agx,
        }
    }

    /// What makes Vulkan's loader take the driver, and the driver find the GPU.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let (driver, kernel) = match self.maker {
            Maker::Amd => ("radeon", "amdgpu"),
            Maker::Nvidia => ("nouveau", "nouveau"),
            Maker::Qualcomm => ("freedreno", "freedreno"),
            Maker::Apple => ("asahi", "asahi"),
        };
        let mut variables = vec![
            (self.chip.0, self.chip.1.into()),
            ("VK_DRIVER_FILES", format!("/usr/share/vulkan/icd.d/{driver}_icd.json")),
            ("MESA_SHADER_CACHE_DISABLE", "true".into()),
            // A kernel driver that does nothing.
            ("LD_PRELOAD", format!("lib{kernel}_noop_drm_shim.so")),
        ];
        // It has no other way to show its code.
        if matches!(self.maker, Maker::Apple) {
            variables.push(("AGX_MESA_DEBUG", "shaders".into()));
        }
        variables
    }
}

/// A shader as a driver compiled it.
pub struct Code {
    pub statistics: Vec<(String, u64)>,
    pub assembly: String,
    /// As the shader declares it, bytes.
    pub workgroup_memory: u64,
}

pub struct Driver {
    device: ash::Device,
    statistics: ash::khr::pipeline_executable_properties::Device,
    _instance: ash::Instance,
    _entry: ash::Entry,
}

impl Driver {
    /// The driver that the environment names.
    pub fn open(robust: bool) -> Result<Self> {
        // SAFETY: plain Vulkan start-up; the handles live as long as `Driver`, which lives until the process ends.
        unsafe {
            let entry = ash::Entry::load()?;
            let app = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let instance = entry.create_instance(&vk::InstanceCreateInfo::default().application_info(&app), None)?;
            let gpu = *instance.enumerate_physical_devices()?.first().ok_or("the driver shows no GPU")?;
            let mut extensions = vec![ash::khr::pipeline_executable_properties::NAME.as_ptr()];
            // All that the driver has of what shaders may use.
            let mut v11 = vk::PhysicalDeviceVulkan11Features::default();
            let mut v12 = vk::PhysicalDeviceVulkan12Features::default();
            let mut v13 = vk::PhysicalDeviceVulkan13Features::default();
            let mut features =
                vk::PhysicalDeviceFeatures2::default().push_next(&mut v11).push_next(&mut v12).push_next(&mut v13);
            instance.get_physical_device_features2(gpu, &mut features);
            // As wgpu's Vulkan backend does, whatever a shader asks for.
            let core = features.features.robust_buffer_access(robust);
            let mut robustness = vk::PhysicalDeviceRobustness2FeaturesEXT::default().robust_buffer_access2(robust);
            let all = instance.enumerate_device_extension_properties(gpu)?;
            let has_robustness2 =
                all.iter().any(|one| one.extension_name_as_c_str() == Ok(ash::ext::robustness2::NAME));
            if has_robustness2 && robust {
                extensions.push(ash::ext::robustness2::NAME.as_ptr());
            }
            let mut v11 = vk::PhysicalDeviceVulkan11Features { p_next: std::ptr::null_mut(), ..v11 };
            let mut v12 = vk::PhysicalDeviceVulkan12Features { p_next: std::ptr::null_mut(), ..v12 };
            let mut v13 = vk::PhysicalDeviceVulkan13Features { p_next: std::ptr::null_mut(), ..v13 };
            let mut statistics =
                vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default().pipeline_executable_info(true);
            let priority = [1.0];
            let queue = [vk::DeviceQueueCreateInfo::default().queue_priorities(&priority)];
            let mut info = vk::DeviceCreateInfo::default()
                .queue_create_infos(&queue)
                .enabled_extension_names(&extensions)
                .enabled_features(&core)
                .push_next(&mut statistics)
                .push_next(&mut v11)
                .push_next(&mut v12)
                .push_next(&mut v13);
            if has_robustness2 && robust {
                info = info.push_next(&mut robustness);
            }
            let device = instance.create_device(gpu, &info, None)?;
            let statistics = ash::khr::pipeline_executable_properties::Device::new(&instance, &device);
            Ok(Self { device, statistics, _instance: instance, _entry: entry })
        }
    }

    pub fn compile(&self, module: &naga::Module, spirv: &[u32], entry: &str) -> Result<Code> {
        let name = CString::new(entry)?;
        let immediates = [vk::PushConstantRange::default().stage_flags(vk::ShaderStageFlags::COMPUTE).size(128)];
        let capture = Capture::start()?;
        // SAFETY: `spirv` was validated by naga, and every handle comes from the call above it.
        let (statistics, assembly) = unsafe {
            let shader = self.device.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(spirv), None)?;
            let sets = bindings_by_group(module)
                .iter()
                .map(|bindings| {
                    let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(bindings);
                    self.device.create_descriptor_set_layout(&info, None)
                })
                .collect::<std::result::Result<Vec<_>, _>>()?;
            let layout = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets).push_constant_ranges(&immediates);
            let layout = self.device.create_pipeline_layout(&layout, None)?;
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(shader)
                .name(&name);
            let flags = vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
                | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
            let info = vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout).flags(flags);
            let pipeline = self
                .device
                .create_compute_pipelines(vk::PipelineCache::null(), &[info], None)
                .map_err(|(_, error)| error)?[0];
            let of = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline);
            let assembly = self.disassembly(&of);
            let mut statistics = Vec::new();
            for statistic in self.statistics.get_pipeline_executable_statistics(&of)? {
                let name = CStr::from_ptr(statistic.name.as_ptr()).to_str()?.to_owned();
                statistics.push((name, statistic.value.u64));
            }
            self.device.destroy_pipeline(pipeline, None);
            (statistics, assembly)
        };
        let printed = capture.finish()?;
        let workgroup =
            module.global_variables.iter().filter(|(_, variable)| variable.space == naga::AddressSpace::WorkGroup);
        let workgroup_memory =
            workgroup.map(|(_, variable)| u64::from(module.types[variable.ty].inner.size(module.to_ctx()))).sum();
        Ok(Code { statistics, assembly: if assembly.is_empty() { printed } else { assembly }, workgroup_memory })
    }

    /// The driver's "Assembly" text for one pipeline; empty where it gives none.
    unsafe fn disassembly(&self, of: &vk::PipelineExecutableInfoKHR<'_>) -> String {
        let get = self.statistics.fp().get_pipeline_executable_internal_representations_khr;
        let device = self.device.handle();
        let mut count = 0;
        // SAFETY: Vulkan's usual two calls for a list (count, then entries), and a third that fills each entry's
        // buffer.
        unsafe {
            let _ = get(device, of, &mut count, std::ptr::null_mut());
            let mut texts = vec![vk::PipelineExecutableInternalRepresentationKHR::default(); count as usize];
            let _ = get(device, of, &mut count, texts.as_mut_ptr());
            let mut buffers: Vec<Vec<u8>> = texts.iter().map(|text| vec![0; text.data_size]).collect();
            for (text, buffer) in texts.iter_mut().zip(&mut buffers) {
                text.p_data = buffer.as_mut_ptr().cast();
            }
            let _ = get(device, of, &mut count, texts.as_mut_ptr());
            let is_assembly = |text: &vk::PipelineExecutableInternalRepresentationKHR| {
                CStr::from_ptr(text.name.as_ptr()).to_bytes().to_ascii_lowercase().ends_with(b"assembly")
            };
            let at = texts.iter().position(is_assembly);
            at.map(|at| String::from_utf8_lossy(&buffers[at]).trim_end_matches('\0').to_owned()).unwrap_or_default()
        }
    }
}

/// What is written to standard error and output meanwhile: one driver prints its code and has no other way to show it.
struct Capture {
    file: std::fs::File,
    saved: [i32; 2],
}

unsafe extern "C" {
    fn dup(fd: i32) -> i32;
    fn dup2(from: i32, to: i32) -> i32;
    fn close(fd: i32) -> i32;
    fn fflush(stream: *mut std::ffi::c_void) -> i32;
}

impl Capture {
    fn start() -> Result<Self> {
        use std::os::fd::AsRawFd;
        let path = std::env::temp_dir().join(format!("gpu-stats-{}", std::process::id()));
        let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        std::fs::remove_file(&path)?;
        // SAFETY: plain descriptors of this process, put back by `finish`.
        let saved = unsafe {
            fflush(std::ptr::null_mut());
            let saved = [dup(1), dup(2)];
            dup2(file.as_raw_fd(), 1);
            dup2(file.as_raw_fd(), 2);
            saved
        };
        Ok(Self { file, saved })
    }

    fn finish(self) -> Result<String> {
        use std::io::{Read, Seek};
        // SAFETY: see `start`.
        unsafe {
            fflush(std::ptr::null_mut());
            for (from, to) in self.saved.into_iter().zip([1, 2]) {
                dup2(from, to);
                close(from);
            }
        }
        let (mut file, mut bytes) = (self.file, Vec::new());
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn bindings_by_group(module: &naga::Module) -> Vec<Vec<vk::DescriptorSetLayoutBinding<'static>>> {
    let mut groups: Vec<Vec<_>> = Vec::new();
    for (_, variable) in module.global_variables.iter() {
        let Some(binding) = variable.binding else { continue };
        let kind = match variable.space {
            naga::AddressSpace::Uniform => vk::DescriptorType::UNIFORM_BUFFER,
            _ => vk::DescriptorType::STORAGE_BUFFER,
        };
        groups.resize(groups.len().max(binding.group as usize + 1), Vec::new());
        groups[binding.group as usize].push(
            vk::DescriptorSetLayoutBinding::default()
                .binding(binding.binding)
                .descriptor_type(kind)
                .descriptor_count(1)
                .stage_flags(vk::ShaderStageFlags::COMPUTE),
        );
    }
    groups
}
