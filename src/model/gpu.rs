//! What GPUs there are, as far as kernels and the planner tell them apart. `docs/devices.md` has the sources of the
//! numbers.

mod known;

use std::fmt;

use crate::model::caps::Caps;
pub use known::KNOWN;

/// A GPU: its kind, and how large it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpu {
    /// The kind.
    pub kind: GpuKind,
    /// Its cores, as the maker counts them: NVIDIA's multiprocessors, AMD's compute units, Intel's Xe cores or
    /// subslices.
    pub cores: f64,
    /// Multiply-adds that a core starts in a clock.
    pub lanes: f64,
    /// Its clock under load, hertz.
    pub hertz: f64,
    /// Bytes a second from and to memory.
    pub bytes: f64,
}

/// A kind of GPU. Those of a kind have cores that work alike.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GpuKind {
    /// NVIDIA's.
    Nvidia,
    /// AMD's on a card.
    AmdDiscrete,
    /// AMD's in a processor.
    AmdIntegrated,
    /// Intel's on a card (Arc).
    IntelDiscrete,
    /// Intel's in a processor.
    IntelIntegrated,
    /// Apple's.
    Apple,
    /// Qualcomm's.
    Adreno,
    /// Arm's.
    Mali,
    /// Of another maker, on a card; or unknown.
    OtherDiscrete,
    /// Of another maker, in a processor.
    OtherIntegrated,
}

/// A core of a GPU.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Multiprocessor {
    /// Registers of 32 bits.
    pub registers: u64,
    /// The most registers that an invocation may have. A compiler moves further values to memory.
    pub invocation_registers: u64,
    /// Workgroup memory, bytes.
    pub workgroup_memory: u64,
    /// The most invocations that it holds.
    pub invocations: u64,
    /// The most workgroups that it holds.
    pub workgroups: u64,
    /// Invocations that run in step, so that a part of them takes the place of all.
    pub in_step: u64,
    /// Elements of 32 bits a clock that loads from its cache give.
    pub loads: f64,
    /// Elements of 32 bits a clock from workgroup memory. One that several invocations read in the same clock counts
    /// for each.
    pub shared: f64,
    /// Seconds that a dispatch takes which does nothing and waits for the one before.
    pub dispatch: f64,
}

/// A common GPU by name.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KnownGpu {
    /// As `plan --device` takes it: `rtx-4090`.
    pub name: &'static str,
    /// A part of its adapter's name that no other has, in lower case.
    pub adapter: &'static str,
    /// The GPU.
    pub gpu: Gpu,
}

impl GpuKind {
    /// All kinds.
    pub const ALL: [Self; 10] = [
        Self::Nvidia,
        Self::AmdDiscrete,
        Self::AmdIntegrated,
        Self::IntelDiscrete,
        Self::IntelIntegrated,
        Self::Apple,
        Self::Adreno,
        Self::Mali,
        Self::OtherDiscrete,
        Self::OtherIntegrated,
    ];

    /// The kind of an adapter, by the vendor's PCI number, whether it shares the host's memory, and the words that its
    /// driver gives.
    pub fn of(vendor: u32, integrated: bool, adapter: &str, driver: &str) -> Self {
        let words = format!("{adapter} {driver}").to_lowercase();
        let says = |any: &[&str]| any.iter().any(|word| words.contains(word));
        let [amd, intel, other] = match integrated {
            true => [Self::AmdIntegrated, Self::IntelIntegrated, Self::OtherIntegrated],
            false => [Self::AmdDiscrete, Self::IntelDiscrete, Self::OtherDiscrete],
        };
        match vendor {
            // Microsoft's Vulkan on top of Direct3D; it names the GPU, and is nowhere near as fast.
            _ if words.starts_with("microsoft direct3d12") => other,
            0x10de => Self::Nvidia,
            0x1002 => amd,
            0x8086 => intel,
            0x106b => Self::Apple,
            0x5143 => Self::Adreno,
            0x13b5 => Self::Mali,
            // Metal and browsers give no number. Mesa has one of its own, for GPUs of several makers.
            _ if says(&["nvidia", "geforce"]) => Self::Nvidia,
            _ if says(&["radeon", "amd "]) => amd,
            _ if says(&["intel"]) => intel,
            _ if says(&["adreno"]) => Self::Adreno,
            _ if says(&["mali-", "immortalis"]) => Self::Mali,
            _ if says(&["apple"]) => Self::Apple,
            _ => other,
        }
    }

    /// The kind of a GPU by the words of a browser, WebGPU's `vendor` and `architecture`. They say of few whether they
    /// share the host's memory; most do.
    #[cfg(any(test, target_arch = "wasm32"))]
    fn of_browser(vendor: &str, architecture: &str) -> Self {
        match (vendor, architecture) {
            ("nvidia", _) => Self::Nvidia,
            ("amd", _) => Self::AmdIntegrated,
            ("intel", "gen-12hp" | "xe-hpg" | "xe-2hpg") => Self::IntelDiscrete,
            ("intel", _) => Self::IntelIntegrated,
            ("apple", _) => Self::Apple,
            ("qualcomm", _) => Self::Adreno,
            ("arm", _) => Self::Mali,
            _ => Self::OtherIntegrated,
        }
    }

    /// The kind in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nvidia => "NVIDIA",
            Self::AmdDiscrete => "AMD, discrete",
            Self::AmdIntegrated => "AMD, integrated",
            Self::IntelDiscrete => "Intel Arc",
            Self::IntelIntegrated => "Intel, integrated",
            Self::Apple => "Apple",
            Self::Adreno => "Adreno",
            Self::Mali => "Mali",
            Self::OtherDiscrete => "unknown, discrete",
            Self::OtherIntegrated => "unknown, integrated",
        }
    }

    /// A GPU of the kind of middle size, for one whose name is unknown.
    pub const fn typical(self) -> Gpu {
        let size = match self {
            // About an RTX 3060, an RX 6600, a Radeon 680M, an Arc A750, an Iris Xe, an M1, an Adreno 660 and a
            // Mali-G710.
            Self::Nvidia => [28.0, 128.0, 1.75, 350.0],
            Self::AmdDiscrete => [28.0, 64.0, 2.4, 240.0],
            Self::AmdIntegrated => [12.0, 64.0, 2.3, 90.0],
            Self::IntelDiscrete => [28.0, 128.0, 2.3, 500.0],
            Self::IntelIntegrated => [6.0, 128.0, 1.3, 60.0],
            Self::Apple => [8.0, 128.0, 1.3, 70.0],
            Self::Adreno => [3.0, 256.0, 0.8, 50.0],
            Self::Mali => [10.0, 64.0, 0.8, 50.0],
            Self::OtherDiscrete => [24.0, 128.0, 1.6, 250.0],
            Self::OtherIntegrated => [8.0, 128.0, 1.0, 50.0],
        };
        Gpu::new(self, size)
    }

    /// A core of the kind.
    pub fn core(self) -> Multiprocessor {
        let [registers, invocation_registers, workgroup_memory, invocations, in_step, loads, shared] = match self {
            // Ampere's; Hopper and Turing differ in what a core holds.
            Self::Nvidia => [65536, 255, 100 << 10, 1536, 32, 32, 32],
            Self::AmdDiscrete | Self::AmdIntegrated => [65536, 256, 64 << 10, 1024, 32, 32, 64],
            Self::IntelDiscrete => [131072, 128, 128 << 10, 2048, 16, 32, 64],
            Self::IntelIntegrated => [114688, 128, 128 << 10, 1792, 16, 16, 64],
            Self::Apple => [53248, 128, 60 << 10, 3072, 32, 16, 64],
            // With 192 registers, as the hardware allows, it holds two waves.
            Self::Adreno => [32768, 128, 32 << 10, 2048, 64, 20, 32],
            // Workgroup memory is in memory, behind the same cache.
            Self::Mali => [32768, 64, 32 << 10, 1024, 16, 16, 16],
            Self::OtherDiscrete => [65536, 255, 64 << 10, 1024, 32, 32, 64],
            Self::OtherIntegrated => [65536, 128, 32 << 10, 1024, 32, 16, 32],
        };
        let dispatch = match self {
            Self::AmdDiscrete => 1.5e-6,
            Self::Nvidia | Self::Apple => 2e-6,
            Self::AmdIntegrated | Self::OtherDiscrete => 3e-6,
            Self::IntelDiscrete => 4e-6,
            Self::IntelIntegrated => 6e-6,
            Self::OtherIntegrated => 8e-6,
            Self::Adreno | Self::Mali => 2e-5,
        };
        Multiprocessor {
            registers,
            invocation_registers,
            workgroup_memory,
            invocations,
            workgroups: 16,
            in_step,
            loads: loads as f64,
            shared: shared as f64,
            dispatch,
        }
    }

    /// What wgpu gives devices of the kind, through Vulkan, or through Metal for Apple's. It binds at most 2 GiB in
    /// Vulkan.
    pub fn caps(self) -> Caps {
        let (binding, memory, invocations, subgroup) = match self {
            Self::Nvidia => ((2 << 30) - 4, 48 << 10, 1024, Some([32, 32])),
            Self::AmdDiscrete | Self::AmdIntegrated => ((2 << 30) - 4, 64 << 10, 1024, Some([32, 64])),
            Self::IntelDiscrete | Self::IntelIntegrated => ((1 << 30) - 4, 64 << 10, 1024, Some([8, 32])),
            Self::Apple => ((2 << 30) - 4, 32 << 10, 1024, Some([4, 64])),
            Self::Adreno => (128 << 20, 32 << 10, 1024, Some([64, 128])),
            Self::Mali => (128 << 20, 32 << 10, 512, Some([16, 16])),
            Self::OtherDiscrete | Self::OtherIntegrated => ((2 << 30) - 4, 32 << 10, 1024, Some([32, 64])),
        };
        Caps {
            max_storage_binding: binding,
            max_buffer: binding.max(256 << 20),
            max_workgroup_memory: memory,
            max_invocations: invocations,
            subgroup,
            // wgpu asks Vulkan for 16-bit numbers in uniform buffers as well, which Adreno has not.
            f16: !matches!(self, Self::Adreno | Self::OtherDiscrete | Self::OtherIntegrated),
            gpu: self.typical(),
            ..Caps::webgpu()
        }
    }
}

impl Gpu {
    /// A GPU by its cores, lanes of a core, clock in gigahertz, and gigabytes a second.
    const fn new(kind: GpuKind, [cores, lanes, gigahertz, gigabytes]: [f64; 4]) -> Self {
        Self { kind, cores, lanes, hertz: gigahertz * 1e9, bytes: gigabytes * 1e9 }
    }

    /// The GPU of an adapter, by the numbers and words that its driver gives. One with an unknown name has the middle
    /// size of its kind.
    pub fn of(vendor: u32, integrated: bool, adapter: &str, driver: &str) -> Self {
        let kind = GpuKind::of(vendor, integrated, adapter, driver);
        let adapter = adapter.to_lowercase();
        let found = KNOWN.iter().filter(|known| known.gpu.kind == kind && known.is_called(&adapter));
        found.max_by_key(|known| known.adapter.len()).map_or_else(|| kind.typical(), |known| known.gpu)
    }

    /// The GPU of an adapter by the words of a browser, which has a description to give for few.
    #[cfg(any(test, target_arch = "wasm32"))]
    pub(crate) fn of_browser(vendor: &str, architecture: &str, description: &str) -> Self {
        let adapter = description.to_lowercase();
        let kind = GpuKind::of_browser(vendor, architecture);
        // The name tells an AMD GPU on a card from one in a processor.
        let is_of_vendor = |known: &&KnownGpu| match known.gpu.kind {
            GpuKind::AmdDiscrete => kind == GpuKind::AmdIntegrated,
            GpuKind::IntelDiscrete => vendor == "intel",
            other => other == kind,
        };
        let found = KNOWN.iter().filter(is_of_vendor).filter(|known| known.is_called(&adapter));
        found.max_by_key(|known| known.adapter.len()).map_or_else(|| kind.typical(), |known| known.gpu)
    }
}

impl fmt::Display for Gpu {
    /// `NVIDIA, rtx-3060: 28 cores of 128 lanes at 1.78 GHz, 360 GB/s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, cores, lanes, hertz, bytes } = self;
        f.write_str(kind.name())?;
        match KNOWN.iter().find(|known| known.gpu == *self) {
            Some(known) => write!(f, ", {}", known.name)?,
            None => f.write_str(", of middle size")?,
        }
        write!(f, ": {cores} cores of {lanes} lanes at {:.2} GHz, {:.0} GB/s", hertz / 1e9, bytes / 1e9)
    }
}

impl KnownGpu {
    /// Whether an adapter's name, in lower case, is this one's, and not that of a larger or smaller sister.
    fn is_called(&self, adapter: &str) -> bool {
        const SISTERS: &[&str] =
            &["ti", "super", "xt", "xtx", "pro", "max", "ultra", "laptop", "mobile", "max-q", "pcie"];
        adapter.match_indices(self.adapter).any(|(at, _)| {
            let rest = &adapter[at + self.adapter.len()..];
            let next = rest.split_whitespace().next().unwrap_or_default();
            !rest.starts_with(char::is_alphanumeric) && !SISTERS.contains(&next)
        })
    }

    /// The caps of a device with the GPU.
    pub fn caps(&self) -> Caps {
        Caps { gpu: self.gpu, ..self.gpu.kind.caps() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_are_told_apart() {
        const NVIDIA: u32 = 0x10de;
        for (vendor, integrated, adapter, driver, expected) in [
            (NVIDIA, false, "NVIDIA GeForce RTX 3060", "NVIDIA 570.86", "NVIDIA, rtx-3060"),
            (NVIDIA, false, "NVIDIA GeForce RTX 3060 Ti", "NVIDIA", "NVIDIA, rtx-3060-ti"),
            (NVIDIA, false, "NVIDIA GeForce RTX 3060 Laptop GPU", "NVIDIA", "NVIDIA, of middle size"),
            (NVIDIA, false, "NVIDIA H100 80GB HBM3", "NVIDIA", "NVIDIA, h100"),
            (NVIDIA, false, "NVIDIA H100 PCIe", "NVIDIA", "NVIDIA, h100-pcie"),
            (NVIDIA, false, "NVIDIA L40S", "NVIDIA", "NVIDIA, l40s"),
            (NVIDIA, false, "NVIDIA L40", "NVIDIA", "NVIDIA, of middle size"),
            (NVIDIA, false, "Tesla V100-SXM2-16GB", "NVIDIA", "NVIDIA, v100"),
            (NVIDIA, false, "NVIDIA GeForce RTX 4070 Ti SUPER", "NVIDIA", "NVIDIA, rtx-4070-ti-super"),
            (0x1002, false, "AMD Radeon RX 7900 XTX (RADV NAVI31)", "radv", "AMD, discrete, rx-7900-xtx"),
            (0x1002, false, "AMD Radeon RX 7900 XT (RADV NAVI31)", "radv", "AMD, discrete, rx-7900-xt"),
            (0x1002, false, "AMD Radeon RX 7600 XT (RADV NAVI33)", "radv", "AMD, discrete, of middle size"),
            (0x1002, true, "AMD Custom GPU 0405 (RADV VANGOGH)", "radv", "AMD, integrated, steam-deck"),
            (0x8086, false, "Intel(R) Arc(TM) A770 Graphics", "", "Intel Arc, arc-a770"),
            (0x8086, true, "Intel(R) UHD Graphics 770 (ADL-S GT1)", "Mesa", "Intel, integrated, uhd-770"),
            // Metal gives no vendor.
            (0, true, "Apple M1", "", "Apple, apple-m1"),
            (0, true, "Apple M1 Pro", "", "Apple, apple-m1-pro"),
            (0, true, "Intel(R) UHD Graphics 630", "", "Intel, integrated, uhd-630"),
            (0, false, "AMD Radeon Pro 555X", "", "AMD, discrete, of middle size"),
            (0x10005, true, "Apple M1 (G13G B1)", "Honeykrisp", "Apple, apple-m1"),
            (0x5143, true, "Turnip Adreno (TM) 740", "turnip", "Adreno, adreno-740"),
            (0x13b5, true, "Mali-G710", "", "Mali, mali-g710"),
            (0x13b5, true, "Mali-G720-Immortalis", "", "Mali, of middle size"),
            (
                NVIDIA,
                false,
                "Microsoft Direct3D12 (NVIDIA GeForce RTX 3070)",
                "Dozen",
                "unknown, discrete, of middle size",
            ),
            (0x14e4, true, "V3D 7.1.7", "v3dv", "unknown, integrated, of middle size"),
            (0, true, "", "", "unknown, integrated, of middle size"),
        ] {
            let gpu = Gpu::of(vendor, integrated, adapter, driver).to_string();
            assert!(gpu.starts_with(&format!("{expected}: ")), "{adapter}: {gpu}");
        }
    }

    #[test]
    fn browsers_words_are_understood() {
        for (vendor, architecture, description, expected) in [
            ("nvidia", "ampere", "", "NVIDIA, of middle size"),
            ("nvidia", "ampere", "NVIDIA GeForce RTX 3060", "NVIDIA, rtx-3060"),
            ("amd", "rdna-3", "", "AMD, integrated, of middle size"),
            ("amd", "rdna-3", "AMD Radeon RX 7900 XTX", "AMD, discrete, rx-7900-xtx"),
            ("intel", "gen-12lp", "", "Intel, integrated, of middle size"),
            ("intel", "gen-12hp", "", "Intel Arc, of middle size"),
            ("apple", "metal-3", "", "Apple, of middle size"),
            ("qualcomm", "adreno-7xx", "", "Adreno, of middle size"),
            ("arm", "valhall", "", "Mali, of middle size"),
            ("", "", "", "unknown, integrated, of middle size"),
        ] {
            let gpu = Gpu::of_browser(vendor, architecture, description).to_string();
            assert!(gpu.starts_with(&format!("{expected}: ")), "{vendor} {architecture}: {gpu}");
        }
    }

    #[test]
    fn every_known_gpu_is_found_by_its_own_name() {
        for known in KNOWN {
            let found = Gpu::of(0, !is_discrete(known.gpu.kind), &words(known), "");
            assert_eq!(found, known.gpu, "{}", known.name);
        }
    }

    fn is_discrete(kind: GpuKind) -> bool {
        matches!(kind, GpuKind::Nvidia | GpuKind::AmdDiscrete | GpuKind::IntelDiscrete)
    }

    /// As a driver that gives no vendor might call it.
    fn words(known: &KnownGpu) -> String {
        let maker = match known.gpu.kind {
            GpuKind::Nvidia => "NVIDIA",
            GpuKind::AmdDiscrete | GpuKind::AmdIntegrated => "AMD Radeon",
            GpuKind::IntelDiscrete | GpuKind::IntelIntegrated => "Intel(R)",
            _ => "",
        };
        // A name may begin with the maker's.
        format!("{maker} {}", known.adapter)
    }
}
