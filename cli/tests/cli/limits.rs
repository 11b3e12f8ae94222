//! Devices with fewer features or lower limits, and problems that are too large for a device.

use serde_json::Value;

use super::{command, failure, json, one_line, run, stderr, stdout};

#[test]
fn devices_can_be_limited() {
    const NONE: &str = "subgroups,timestamps,int64,f16,pipeline-cache";
    let taken = |args: &[&str]| {
        let devices = json(&[&["devices", "--json"], args].concat());
        let taken = devices.as_array().unwrap().iter().find(|device| device["taken"] == true);
        taken.unwrap().clone()
    };
    let less = taken(&["--limits", "downlevel", "--without", NONE]);
    let (limits, features) = (&less["limits"], &less["features"]);
    assert_eq!((&limits["storage_buffers_per_stage"], &limits["workgroup_memory"]), (&4.into(), &16352.into()));
    assert_eq!((&features["subgroup"], &features["timestamps"]), (&Value::Null, &false.into()));
    assert_eq!((&features["int64"], &features["f16"]), (&false.into(), &false.into()));
    assert_eq!(taken(&["--limits", "default"])["limits"]["storage_buffers_per_stage"], 8);

    // The same limits apply to the device that the commands run on.
    let plan = |args: &[&str]| json(&[&["plan", "--json", "pointwise 1x64x16x16 -> 64"], args].concat()).to_string();
    let refusal = "the device has no subgroup operations";
    assert!(plan(&["--without", "subgroups"]).contains(refusal));
    assert!(
        stdout(&["verify", "--limits", "downlevel", "--without", NONE, "pointwise 1x64x4x5 -> 64"]).contains("passed")
    );
    assert!(stdout(&["verify", "--without", "f16", "pointwise 1x5x3x3 -> 3 f16"]).contains("passed"));
    failure(&["plan", "--device", "gpu", "--limits", "default", "pointwise 1x1x1x1 -> 1"], 2);
    failure(&["devices", "--without", "warts"], 2);
}

/// What measures, checks and lists says whether its device is robust. Times and compiled pipelines of the two kinds are kept apart.
#[test]
fn a_device_can_be_made_without_robustness() {
    const OFF: [&str; 2] = ["--without", "robustness"];
    let problem = "pointwise 1x8x4x4 -> 8";
    let bench = ["bench", "--time", "0", "--tuning", "none", problem];
    let name = |text: &str| text.lines().next().unwrap().to_string();
    let (ordinary, other) = (name(&stdout(&bench)), name(&stdout(&[&bench[..], &OFF].concat())));
    assert_eq!(other, ordinary + ", without robustness");

    let calls = [&bench[..], &["verify", problem], &["devices"]];
    for (options, is_checked, is_robust) in [(&[][..], "", true), (&OFF, "", false), (&OFF, "1", true)] {
        for call in calls {
            let output = command(&[call, &["--json"], options].concat()).env("GPUCONV_CHECKED", is_checked).output();
            let value: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
            let found = if call[0] == "devices" { &value[0]["features"]["robustness"] } else { &value["robust"] };
            assert_eq!(*found, is_robust, "{call:?} {options:?} {is_checked}");
        }
    }

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tuning.json");
    let tuned = ["--tuning", path.to_str().unwrap()];
    stdout(&[&["tune", "--time", "1", "--output", tuned[1], problem], &OFF[..]].concat());
    let plan = |options: &[&str]| stderr(&run(&[&["plan", problem], &tuned[..], options].concat()));
    assert_eq!(plan(&OFF), "");
    let refused = plan(&[]);
    assert!(refused.contains("tuning is ignored") && !refused.contains("pipeline cache"), "{refused}");
}

#[test]
fn plan_of_what_is_too_large_for_a_binding() {
    let plan = |problem: &str| json(&["plan", "--json", "--device", "webgpu", problem]);
    let images = |problem: &str| plan(problem)["images_at_once"].clone();
    // 64 MiB for each image.
    assert_eq!(images("depthwise 2x1x4096x4096 k1"), Value::Null);
    assert_eq!(images("depthwise 3x1x4096x4096 k1"), 2);
    let text = stdout(&["plan", "--device", "webgpu", "depthwise 3x1x4096x4096 k1"]);
    assert!(text.contains("link 0: 2 bands of 2 images\n"), "{text}");
    // Rows through copies; channels that are bound as they lie; what follows fits.
    let rows = plan("pointwise 1x40x1024x1024 -> 8");
    let bands = &rows["bands"][0];
    assert_eq!((&bands["channels"], &bands["images"]), (&Value::Null, &Value::Null));
    assert_eq!(bands["copied_in"], 40 << 22);
    assert!(bands["rows"].as_u64().unwrap() * bands["bands"].as_u64().unwrap() >= 1024, "{rows}");
    assert!((1 << 20..256 << 20).contains(&rows["workspace"]["bytes"].as_u64().unwrap()), "{rows}");
    let channels = plan("depthwise 1x40x1000x1000 k3 p1");
    assert_eq!((&channels["bands"][0]["channels"], &channels["bands"][0]["copied_in"]), (&20.into(), &0.into()));
    assert_eq!(channels["workspace"]["bytes"], 0);
    // Two bands of 20 channels take twice as long as one.
    let ratio = channels["whole_ms"].as_f64().unwrap() / channels["ms"].as_f64().unwrap();
    assert!((ratio - 2.0).abs() < 1e-9, "{channels}");
    // Channels of the output, which lie side by side.
    let outputs = plan("pointwise 1x8x1024x1024 -> 40");
    assert_eq!((&outputs["bands"][0]["out_channels"], &outputs["bands"][0]["copied_out"]), (&20.into(), &0.into()));
    // The weights of VGG's first fully connected layer, which no buffer holds there.
    let heavy = plan("conv 1x512x7x7 -> 4096 k7");
    let slabs = &heavy["bands"][0];
    assert_eq!((&slabs["out_channels"], &slabs["channels"], &slabs["bands"]), (&1024.into(), &Value::Null, &4.into()));
    let text = stdout(&["plan", "--device", "webgpu", "conv 1x512x7x7 -> 4096 k7"]);
    assert!(text.contains("link 0: 4 bands of 1,024 output channels\n"), "{text}");
    // Sums of parts of a plane, then the sums of these.
    let pool = plan("pool 1x1x8192x8192");
    let parts = |index: usize, key: &str| pool["bands"][index][key].as_u64();
    assert!(parts(0, "bands") > Some(1) && parts(0, "rows") > Some(0) && parts(1, "bands") == Some(1), "{pool}");
    let text = stdout(&["plan", "--device", "webgpu", "pool 1x1x8192x8192"]);
    assert!(text.contains("link 0: the sums of these\n"), "{text}");
    let network = plan("mobilenet_v1 1x3x2560x2560");
    let bands = network["bands"].as_array().unwrap();
    let links = bands.iter().map(|bands| bands["links"].as_u64().unwrap()).sum::<u64>();
    assert_eq!((bands[0]["first"].as_u64(), links, &bands[bands.len() - 1]["bands"]), (Some(0), 29, &1.into()));
    let text = stdout(&["plan", "--device", "webgpu", "mobilenet_v1 1x3x2560x2560"]);
    assert!(text.contains("rows; ") && text.contains("all at once"), "{text}");
    // A tensor that is larger than a buffer, and one that shaders cannot count.
    let refused = one_line(&["plan", "--device", "webgpu", "depthwise 1x1x8192x8193 k1"], 2);
    assert!(refused.contains("takes 268468224, but the limit is 268435456"), "{refused}");
    let refused = failure(&["plan", "--device", "webgpu", "depthwise 1x1x65536x65536 k1"], 2);
    assert!(refused.contains("takes 4294967296, but the limit is 2147483648"), "{refused}");
}
