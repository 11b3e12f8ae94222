//! Convolutions that multiply what they read by a scale.

use std::collections::{BTreeMap, BTreeSet};

use gpuconv::Choice;
use gpuconv::internals::kernel_of;
use gpuconv::planner::{self, Unsupported};

use super::{cpu_without_subgroups, devices, gpu, kernels, makes, named, parse, plan};

/// A scale is a load and a multiplication for some inputs, which no GPU is so slow at that another kernel pays.
#[test]
fn a_scaled_convolution_takes_hardly_longer_than_one_that_is_not() {
    let plain = ("cpu plain", cpu_without_subgroups());
    for (device, caps) in devices().into_iter().chain([plain]).chain(makes()) {
        for line in ["conv 1x64x56x56 -> 64 k3 p1", "conv 1x96x80x80 -> 24 k3 p1", "conv 1x64x56x56 -> 128 k3 s2 p1"] {
            for form in ["", " f16", " nhwc", " f16 nhwc"] {
                let seconds = |words: &str| {
                    let schedule = plan(&format!("{line}{words}{form}"), &caps, Choice::Auto).unwrap();
                    (kernels(&schedule)[0].to_string(), schedule.seconds())
                };
                let [(kernel, unscaled), (scaled_kernel, scaled)] = [seconds(""), seconds(" scaled")];
                let what = format!("{line}{form} on {device}: {kernel}, scaled {scaled_kernel}");
                assert!(scaled <= 1.3 * unscaled, "{what} takes {} times as long", scaled / unscaled);
                // Where the registers of an invocation are few, `direct` may be all there is for a stride of two.
                assert!(scaled_kernel != "direct" || kernel == "direct", "{what}");
            }
        }
    }
}

/// Every recipe reads a residual once, and loads scales beside what it multiplies by them.
#[test]
fn every_recipe_counts_its_residual_and_its_scales() {
    let mut kinds = BTreeSet::new();
    for (device, caps) in [("gpu", gpu()), ("cpu", cpu_without_subgroups())] {
        for line in ["conv 1x64x56x56 -> 64 k3 p1", "pointwise 1x512x14x14 -> 512", "pointwise 8x512x1x1 -> 100"] {
            for form in ["", " nhwc", " f16"] {
                let works = |words: &str| {
                    let problem = parse(&format!("{line}{words}{form}"));
                    let all = planner::alternatives(&problem.chain(), problem.input, problem.layout, &caps).unwrap();
                    all.into_iter().map(|schedule| (schedule.name(), schedule.steps[0].recipe.work)).collect()
                };
                let [plain, residual, scaled]: [BTreeMap<_, _>; 3] = ["", " residual", " scaled"].map(works);
                let shapes = parse(line).chain().shapes(parse(line).input).unwrap();
                let bytes = shapes[1].bytes(parse(&format!("{line}{form}")).dtype) as f64;
                for (name, plain) in &plain {
                    let what = format!("{name} for {line}{form} on {device}");
                    if let Some(residual) = residual.get(name) {
                        assert_eq!(residual.bytes - plain.bytes, bytes, "{what}");
                    }
                    if let Some(scaled) = scaled.get(name) {
                        assert!(scaled.accesses > plain.accesses, "{what}");
                        kinds.insert(kernel_of(name).to_string());
                    }
                }
            }
        }
    }
    let expected = ["direct", "implicit_gemm", "implicit_gemm_uniform", "matvec", "pointwise", "pointwise_uniform"];
    assert!(expected.iter().all(|kernel| kinds.contains(*kernel)), "{kinds:?}");
}

/// An input, weights, an output, a residual and a scale, of which a device must bind all; but Winograd's passes each
/// have fewer.
#[test]
fn a_scale_beside_a_residual_needs_five_buffers() {
    let four = gpuconv::Caps { max_storage_buffers: 4, ..super::gpu() };
    for (line, kernel, expected) in [
        ("conv 1x64x56x56 -> 64 k3 p1 scaled residual", "implicit_gemm", Some(5)),
        ("conv 1x64x56x56 -> 64 k3 p1 scaled residual", "winograd", None),
        ("conv 1x64x56x56 -> 64 k3 p1 scaled", "implicit_gemm", None),
    ] {
        let refused = match plan(line, &four, named(kernel)) {
            Err(gpuconv::Error::NoKernel { rejected, .. }) => rejected.into_iter().find(|(name, _)| name == kernel),
            other => other.map(|_| None).unwrap(),
        };
        let expected = expected.map(|needed| Unsupported::StorageBuffers { needed, limit: 4 });
        assert_eq!(refused.map(|(_, reason)| reason), expected, "{line} by {kernel}");
    }
}
