//! Common GPUs by name. `docs/devices.md` says where the numbers come from.

use crate::model::gpu::GpuKind::{
    Adreno, AmdDiscrete, AmdIntegrated, Apple, IntelDiscrete, IntelIntegrated, Mali, Nvidia,
};
use crate::model::gpu::{Gpu, GpuKind, KnownGpu};

const fn gpu(name: &'static str, adapter: &'static str, kind: GpuKind, size: [f64; 4]) -> KnownGpu {
    KnownGpu { name, adapter, gpu: Gpu::new(kind, size) }
}

/// Common GPUs: as `plan --device` calls them, what their adapters' names have in them in lower case, their kind, and
/// their cores, lanes of a core, clock in gigahertz, and gigabytes a second. Of AMD's, lanes that issue two operations
/// count once.
#[rustfmt::skip]
pub const KNOWN: &[KnownGpu] = &[
    gpu("h100", "h100", Nvidia, [132.0, 128.0, 1.98, 3352.0]),
    gpu("h200", "h200", Nvidia, [132.0, 128.0, 1.98, 4800.0]),
    gpu("a100", "a100", Nvidia, [108.0, 64.0, 1.41, 1555.0]),
    gpu("l4", "nvidia l4", Nvidia, [58.0, 128.0, 2.04, 300.0]),
    gpu("t4", "tesla t4", Nvidia, [40.0, 64.0, 1.59, 320.0]),
    gpu("rtx-5090", "rtx 5090", Nvidia, [170.0, 128.0, 2.407, 1792.0]),
    gpu("rtx-5080", "rtx 5080", Nvidia, [84.0, 128.0, 2.617, 960.0]),
    gpu("rtx-5070", "rtx 5070", Nvidia, [48.0, 128.0, 2.512, 672.0]),
    gpu("rtx-4090", "rtx 4090", Nvidia, [128.0, 128.0, 2.52, 1008.0]),
    gpu("rtx-4080", "rtx 4080", Nvidia, [76.0, 128.0, 2.505, 717.0]),
    gpu("rtx-4070", "rtx 4070", Nvidia, [46.0, 128.0, 2.475, 504.0]),
    gpu("rtx-4060", "rtx 4060", Nvidia, [24.0, 128.0, 2.46, 272.0]),
    gpu("rtx-3090", "rtx 3090", Nvidia, [82.0, 128.0, 1.695, 936.0]),
    gpu("rtx-3080", "rtx 3080", Nvidia, [68.0, 128.0, 1.71, 760.0]),
    gpu("rtx-3070", "rtx 3070", Nvidia, [46.0, 128.0, 1.725, 448.0]),
    gpu("rtx-3060-ti", "rtx 3060 ti", Nvidia, [38.0, 128.0, 1.665, 448.0]),
    gpu("rtx-3060", "rtx 3060", Nvidia, [28.0, 128.0, 1.777, 360.0]),
    gpu("rtx-2080-ti", "rtx 2080 ti", Nvidia, [68.0, 64.0, 1.545, 616.0]),
    gpu("rtx-2060", "rtx 2060", Nvidia, [30.0, 64.0, 1.68, 336.0]),
    gpu("gtx-1660", "gtx 1660", Nvidia, [22.0, 64.0, 1.785, 192.0]),
    gpu("gtx-1080", "gtx 1080", Nvidia, [20.0, 128.0, 1.733, 320.0]),
    gpu("rx-9070-xt", "rx 9070 xt", AmdDiscrete, [64.0, 64.0, 2.97, 640.0]),
    gpu("rx-7900-xtx", "rx 7900 xtx", AmdDiscrete, [96.0, 64.0, 2.5, 960.0]),
    gpu("rx-7800-xt", "rx 7800 xt", AmdDiscrete, [60.0, 64.0, 2.43, 624.0]),
    gpu("rx-7600", "rx 7600", AmdDiscrete, [32.0, 64.0, 2.655, 288.0]),
    gpu("rx-6900-xt", "rx 6900 xt", AmdDiscrete, [80.0, 64.0, 2.25, 512.0]),
    gpu("rx-6800", "rx 6800", AmdDiscrete, [60.0, 64.0, 2.105, 512.0]),
    gpu("rx-6700-xt", "rx 6700 xt", AmdDiscrete, [40.0, 64.0, 2.581, 384.0]),
    gpu("rx-6600", "rx 6600", AmdDiscrete, [28.0, 64.0, 2.491, 224.0]),
    gpu("radeon-780m", "780m", AmdIntegrated, [12.0, 64.0, 2.7, 90.0]),
    gpu("radeon-890m", "890m", AmdIntegrated, [16.0, 64.0, 2.9, 120.0]),
    gpu("radeon-680m", "680m", AmdIntegrated, [12.0, 64.0, 2.4, 102.0]),
    gpu("vega-8", "vega 8", AmdIntegrated, [8.0, 64.0, 1.9, 51.0]),
    gpu("steam-deck", "radv vangogh", AmdIntegrated, [8.0, 64.0, 1.6, 88.0]),
    gpu("arc-a770", "a770", IntelDiscrete, [32.0, 128.0, 2.4, 560.0]),
    gpu("arc-a750", "a750", IntelDiscrete, [28.0, 128.0, 2.4, 512.0]),
    gpu("arc-a380", "a380", IntelDiscrete, [8.0, 128.0, 2.45, 186.0]),
    gpu("arc-b580", "b580", IntelDiscrete, [20.0, 128.0, 2.85, 456.0]),
    gpu("iris-xe", "iris(r) xe", IntelIntegrated, [6.0, 128.0, 1.35, 68.0]),
    gpu("uhd-770", "uhd graphics 770", IntelIntegrated, [2.0, 128.0, 1.55, 77.0]),
    gpu("uhd-630", "uhd graphics 630", IntelIntegrated, [3.0, 64.0, 1.15, 42.0]),
    gpu("apple-m1", "apple m1", Apple, [8.0, 128.0, 1.278, 68.0]),
    gpu("apple-m1-pro", "apple m1 pro", Apple, [16.0, 128.0, 1.296, 205.0]),
    gpu("apple-m1-max", "apple m1 max", Apple, [32.0, 128.0, 1.296, 410.0]),
    gpu("apple-m2", "apple m2", Apple, [10.0, 128.0, 1.398, 102.0]),
    gpu("apple-m3", "apple m3", Apple, [10.0, 128.0, 1.38, 102.0]),
    gpu("apple-m3-pro", "apple m3 pro", Apple, [18.0, 128.0, 1.38, 154.0]),
    gpu("apple-m3-max", "apple m3 max", Apple, [40.0, 128.0, 1.38, 410.0]),
    gpu("apple-m4", "apple m4", Apple, [10.0, 128.0, 1.47, 120.0]),
    gpu("apple-a15", "apple a15", Apple, [5.0, 128.0, 1.338, 34.0]),
    gpu("apple-a17-pro", "apple a17 pro", Apple, [6.0, 128.0, 1.38, 51.0]),
    gpu("adreno-630", "adreno (tm) 630", Adreno, [2.0, 256.0, 0.71, 30.0]),
    gpu("adreno-640", "adreno (tm) 640", Adreno, [2.0, 384.0, 0.585, 34.0]),
    gpu("adreno-660", "adreno (tm) 660", Adreno, [3.0, 256.0, 0.84, 51.0]),
    gpu("adreno-730", "adreno (tm) 730", Adreno, [4.0, 256.0, 0.818, 51.0]),
    gpu("adreno-740", "adreno (tm) 740", Adreno, [6.0, 256.0, 0.68, 67.0]),
    gpu("adreno-750", "adreno (tm) 750", Adreno, [6.0, 256.0, 0.903, 77.0]),
    gpu("mali-g57", "mali-g57", Mali, [2.0, 32.0, 1.07, 17.0]),
    gpu("mali-g76", "mali-g76", Mali, [10.0, 24.0, 0.72, 34.0]),
    gpu("mali-g78", "mali-g78", Mali, [20.0, 32.0, 0.848, 51.0]),
    gpu("mali-g710", "mali-g710", Mali, [10.0, 64.0, 0.85, 60.0]),
    gpu("mali-g610", "mali-g610", Mali, [4.0, 64.0, 1.0, 34.0]),
    gpu("mali-g715", "mali-g715", Mali, [7.0, 128.0, 0.89, 51.0]),
];
