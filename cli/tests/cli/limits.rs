//! Devices with fewer features or lower limits, and problems that are too large for a device.

use serde_json::Value;

use super::{failure, json, one_line, stdout};

#[test]
fn devices_can_be_limited() {
    const NONE: &str = "subgroups,timestamps,int64,pipeline-cache";
    let taken = |args: &[&str]| {
        let devices = json(&[&["devices", "--json"], args].concat());
        let taken = devices.as_array().unwrap().iter().find(|device| device["taken"] == true);
        taken.unwrap().clone()
    };
    let less = taken(&["--limits", "downlevel", "--without", NONE]);
    let (limits, features) = (&less["limits"], &less["features"]);
    assert_eq!((&limits["storage_buffers_per_stage"], &limits["workgroup_memory"]), (&4.into(), &16352.into()));
    assert_eq!((&features["subgroup"], &features["timestamps"]), (&Value::Null, &false.into()));
    assert_eq!(features["int64"], false);
    assert_eq!(taken(&["--limits", "default"])["limits"]["storage_buffers_per_stage"], 8);

    // The same limits apply to the device that the commands run on.
    let plan = |args: &[&str]| json(&[&["plan", "--json", "pointwise 1x64x16x16 -> 64"], args].concat()).to_string();
    let refusal = "the device has no subgroup operations";
    assert!(plan(&["--without", "subgroups"]).contains(refusal));
    assert!(
        stdout(&["verify", "--limits", "downlevel", "--without", NONE, "pointwise 1x64x4x5 -> 64"]).contains("passed")
    );
    failure(&["plan", "--device", "gpu", "--limits", "default", "pointwise 1x1x1x1 -> 1"], 2);
    failure(&["devices", "--without", "warts"], 2);
}

#[test]
fn plan_of_a_batch_that_is_too_large_for_a_binding() {
    let plan = |problem: &str| json(&["plan", "--json", "--device", "webgpu", problem])["images_at_once"].clone();
    // 64 MiB for each image.
    assert_eq!(plan("depthwise 2x1x4096x4096 k1"), Value::Null);
    assert_eq!(plan("depthwise 3x1x4096x4096 k1"), 2);
    let text = stdout(&["plan", "--device", "webgpu", "depthwise 3x1x4096x4096 k1"]);
    assert!(text.contains("2 of its images at a time"), "{text}");
    let refused = one_line(&["plan", "--device", "webgpu", "depthwise 1x1x4096x8193 k1"], 2);
    assert!(refused.contains("takes 134234112, but the limit is 134217728"), "{refused}");
    let refused = failure(&["plan", "--device", "webgpu", "depthwise 1x1x65536x65536 k1"], 2);
    assert!(refused.contains("takes 4294967296, but the limit is 2147483648"), "{refused}");
}
