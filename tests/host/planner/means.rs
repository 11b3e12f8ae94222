//! Products and the means of what they give in one dispatch.

use gpuconv::planner::{Schedule, Unsupported};
use gpuconv::{Choice, Error, Fusion};

use super::{cpu, devices, gpu, kernels, makes, named, plan};

#[test]
fn every_refusal_has_its_reason() {
    for (line, caps, expected) in [
        ("pointwise 1x8x8x8 -> 8 mean", cpu(), Unsupported::SoftwareDevice),
        ("pointwise 1x8x8x8 -> 8 g2 mean", gpu(), Unsupported::Groups(2)),
        ("pointwise 1x8x8x8 -> 8 residual mean", gpu(), Unsupported::InnerResidual),
        ("pointwise 1x8x8x8 -> 8 s2 mean", gpu(), Unsupported::Stride([2, 2])),
        ("pointwise 1x8x33x32 -> 8 mean", gpu(), Unsupported::Pixels { count: 1056, most: 1024 }),
    ] {
        let Err(Error::NoKernel { rejected, .. }) = plan(line, &caps, named("pointwise_mean")) else {
            panic!("{line} was taken");
        };
        assert!(rejected.contains(&("pointwise_mean".into(), expected)), "{line}: {rejected:?}");
    }
    assert!(plan("pointwise 1x8x32x32 -> 8 mean", &gpu(), named("pointwise_mean")).is_ok());
}

/// With as much fusion as possible. The head of MobileNetV2 is one dispatch, its classifier another. Not on Mali, which
/// has too few registers to fuse the blocks: some of their links are cut into slices, whose sums are in f32.
#[test]
fn mobilenet_v2_moves_half_the_bytes_in_f16() {
    let bytes = |schedule: &Schedule| schedule.steps.iter().map(|step| step.recipe.work.bytes).sum::<f64>();
    for (device, caps) in
        devices().into_iter().chain(makes()).filter(|(device, caps)| !caps.is_cpu && *device != "mali-g710")
    {
        let fused = |line: &str| plan(line, &caps, Choice::Fusion(Fusion::Always)).unwrap();
        for layout in ["", " nhwc"] {
            let [single, half] = ["", " f16"].map(|dtype| fused(&format!("mobilenet_v2 1{dtype}{layout}")));
            assert!(kernels(&half).ends_with(&["pointwise_mean", "matvec"]), "{device}{layout}: {}", half.name());
            let share = bytes(&half) / bytes(&single);
            assert!(share <= 0.5, "{device}{layout}: {share}");
        }
    }
}
