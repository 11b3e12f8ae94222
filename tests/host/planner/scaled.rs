//! Convolutions that multiply what they read by a scale.

use gpuconv::Choice;
use gpuconv::planner::Unsupported;

use super::{cpu_without_subgroups, devices, kernels, makes, named, plan};

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
