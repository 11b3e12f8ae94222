//! The command line, run as a process: its output, its files and its failures.

mod limits;
mod manners;
mod report;
mod run;
mod tune;

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output};

use gpuconv::wgpu::naga;
use serde_json::Value;

use run::{Folder, PROBLEM};

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpuconv"));
    // Tests must not use this user's tuning file.
    command.args(args).env("XDG_CACHE_HOME", "/none").env("HOME", "/none").env("LOCALAPPDATA", "/none");
    command
}

fn run(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The stdout of a call that must succeed.
fn stdout(args: &[&str]) -> String {
    let output = run(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&stdout(args)).unwrap()
}

/// The message of a call that must fail, without the program's name. (A panic would not have that name.)
fn failure(args: &[&str], code: i32) -> String {
    message(&run(args), code)
}

fn message(output: &Output, code: i32) -> String {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    let message = text.strip_prefix("gpuconv: ").unwrap_or_else(|| panic!("no message: {text}"));
    message.trim_end_matches('\n').into()
}

fn one_line(args: &[&str], code: i32) -> String {
    let message = failure(args, code);
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

/// Asserts that an object has exactly these keys, given in alphabetical order.
fn assert_keys(value: &Value, keys: &str) {
    let found: BTreeSet<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(found.into_iter().collect::<Vec<_>>().join(" "), keys);
}

#[test]
fn cost_counts_as_torchinfo_does() {
    let text = stdout(&["cost", "--json", "separable 1x512x128x128 -> 1024 k3 s2 p1"]);
    // Compare text: parsing may change the last digit.
    for ratio in ["params_ratio", "mult_adds_ratio"] {
        assert!(text.contains(&format!("\"{ratio}\": 0.11238880451290953")), "{text}");
    }
    let separable: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&separable["params"], &separable["mult_adds"]), (&530_432.into(), &2_172_649_472_u64.into()));
    let standard = &separable["standard"];
    assert_eq!((&standard["params"], &standard["mult_adds"]), (&4_719_616.into(), &19_331_547_136_u64.into()));
    assert_keys(standard, "mult_adds mult_adds_ratio params params_ratio");
    assert_keys(&separable, "bytes_fused bytes_unfused links mult_adds params problem standard");
    let link = &separable["links"][1];
    assert_keys(link, "bytes mult_adds op output params");
    assert_eq!((&link["op"], &separable["links"][0]["op"]), (&"pointwise".into(), &"depthwise".into()));
    assert_eq!(link["output"], serde_json::json!([1, 1024, 64, 64]));
    // Half precision halves the bytes and nothing else.
    let half = json(&["cost", "--json", "separable 1x512x128x128 -> 1024 k3 s2 p1 f16"]);
    for key in ["bytes_fused", "bytes_unfused"] {
        assert_eq!(2 * half[key].as_u64().unwrap(), separable[key].as_u64().unwrap(), "{key}");
    }
    assert_eq!(half["mult_adds"], separable["mult_adds"]);

    let conv = json(&["cost", "--json", "conv  1x512x128x128 ->  1024 k3 s2 p1 "]);
    assert_eq!(conv["problem"], "conv 1x512x128x128 -> 1024 k3 s2 p1");
    assert_eq!((&conv["params"], &conv["mult_adds"]), (&4_719_616.into(), &19_331_547_136_u64.into()));
    assert_eq!((&conv["links"][0]["op"], conv.get("standard")), (&"conv".into(), None));
}

#[test]
fn cost_of_a_depthwise_convolution_worked_out_by_hand() {
    // 2 filters of 9 weights, 9 outputs each, no bias; 2x3x3 floats in and out.
    let cost = json(&["cost", "--json", "depthwise 1x2x3x3 k3 p1 nobias"]);
    let bytes = (18 + 18 + 18) * 4;
    let link =
        serde_json::json!({"op": "depthwise", "output": [1, 2, 3, 3], "params": 18, "mult_adds": 162, "bytes": bytes});
    assert_eq!(cost["links"], serde_json::json!([link]));
    assert_eq!((&cost["bytes_unfused"], &cost["bytes_fused"]), (&bytes.into(), &bytes.into()));
}

#[test]
fn cost_as_text() {
    let text = stdout(&["cost", "separable 1x512x128x128 -> 1024 k3 s2 p1"]);
    for part in ["depthwise", "1x1024x64x64", "2,172,649,472", "flop/byte", "0.1124 of the parameters"] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn an_error_in_a_problem_has_a_caret_under_the_word() {
    for command in ["cost", "plan", "bench", "verify"] {
        let message = failure(&[command, "conv 1x3x8x8 -> 4 k3  fast"], 2);
        let lines: Vec<_> = message.lines().collect();
        assert!(lines[0].starts_with("`fast` is no option of conv"), "{message}");
        assert_eq!(lines[1..], ["  conv 1x3x8x8 -> 4 k3 fast", "                       ^^^^"]);
    }
}

#[test]
fn a_wrong_call_is_one_line() {
    for (args, part) in [
        (&["cost"][..], "<PROBLEM>"),
        (&["cost", "--jsn", "pointwise 1x1x1x1 -> 1"], "--jsn"),
        (&["cost", "conv", "1x3x8x8"], "1x3x8x8"),
        (&["convolve"], "convolve"),
        (&["bench", "--time", "long", "pointwise 1x1x1x1 -> 1"], "not a number"),
        (&["bench", "--time", "-1", "pointwise 1x1x1x1 -> 1"], "must be from 0 to 3600"),
        (&["plan", "--max-workspace", "-1", "pointwise 1x1x1x1 -> 1"], "invalid digit"),
        (&["report", "--network", "mobilenet_v1", "--batch", "-1"], "-1 is not in 0.."),
        (&["run", "pointwise 1x1x1x1 -> 1"], "--input"),
    ] {
        let message = one_line(args, 2);
        assert!(message.contains(part), "{message}");
    }
    assert!(stdout(&["cost", "--help"]).contains("NxCxHxW"));
    assert!(stdout(&["--version"]).starts_with("gpuconv "));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command(&["cost", "pointwise 1x1x1x1 -> 1"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn without_a_device_the_exit_code_is_3() {
    let problem = "pointwise 1x1x1x1 -> 1";
    for args in [&["devices"][..], &["plan", problem], &["bench", problem], &["verify", problem]] {
        let message = one_line(&[&["--adapter", "no such adapter"], args].concat(), 3);
        assert!(message.contains("called `no such adapter`"), "{message}");
        let elsewhere = if cfg!(windows) { "metal" } else { "dx12" };
        let output = command(args).env("WGPU_BACKEND", elsewhere).output().unwrap();
        assert!(message_has(&output, "install"), "{}", stderr(&output));
        let output = command(args).env("WGPU_ADAPTER_NAME", "none such").output().unwrap();
        assert!(message_has(&output, "none such"), "{}", stderr(&output));
    }
    let folder = Folder::new();
    let output = folder.run(PROBLEM, "--adapter none --input x.npy --weight w.npy --bias b.npy --output y.npy");
    assert!(message_has(&output, "called `none`"));
    // `cost` needs no device.
    assert!(command(&["cost", problem]).env("WGPU_BACKEND", "dx12").output().unwrap().status.success());
}

fn message_has(output: &Output, part: &str) -> bool {
    let message = message(output, 3);
    message.lines().count() == 1 && message.contains(part)
}

#[test]
fn devices_mark_the_one_that_is_used() {
    let devices = json(&["devices", "--json"]);
    let devices = devices.as_array().unwrap();
    let taken: Vec<_> = devices.iter().filter(|device| device["taken"] == true).collect();
    assert_eq!(taken.len(), 1);
    assert_keys(taken[0], "backend driver driver_info features limits name planned_as taken type");
    assert!(taken[0]["limits"]["max_storage_binding"].as_u64().unwrap() > 0);
    assert_keys(&taken[0]["features"], "f16 int64 robustness subgroup timestamps");

    let name = devices.last().unwrap()["name"].as_str().unwrap();
    let by_name = json(&["devices", "--json", "--adapter", &name.to_uppercase()]);
    let taken: Vec<_> = by_name.as_array().unwrap().iter().filter(|device| device["taken"] == true).collect();
    assert_eq!((taken.len(), taken[0]["name"].as_str()), (1, Some(name)));
    assert!(stdout(&["devices"]).contains(name));
}

#[test]
fn plan_gives_a_reason_for_every_candidate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/shaders");
    let plan = json(&["plan", "--json", "--wgsl", path.to_str().unwrap(), "separable 1x4x6x6 -> 8 k3 p1 relu nhwc"]);
    let candidates = plan["candidates"].as_array().unwrap();
    let taken = |candidate: &&Value| candidate["taken"] == true;
    let steps: Vec<_> = plan["steps"].as_array().unwrap().iter().map(|step| step["recipe"].as_str().unwrap()).collect();
    assert_eq!(steps.join("+"), plan["schedule"].as_str().unwrap());
    assert_eq!(candidates.iter().filter(taken).count(), steps.len());
    for candidate in candidates {
        assert_ne!(candidate["taken"].as_bool(), Some(candidate["reason"].is_string()), "{candidate}");
    }
    // A kernel without a recipe, and a fused run besides the single links.
    assert!(candidates.iter().any(|candidate| candidate["recipe"].is_null()));
    assert!(candidates.iter().any(|candidate| candidate["links"] == 2 && candidate["recipe"].is_string()));

    let files: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
    let recipes = candidates.iter().filter(|candidate| candidate["recipe"].is_string()).count();
    assert!(files.len() >= recipes, "{} files of {recipes} recipes", files.len());
    for file in &files {
        let wgsl = fs::read_to_string(file).unwrap();
        let module = naga::front::wgsl::parse_str(&wgsl).unwrap_or_else(|error| panic!("{file:?}: {error}"));
        assert!(module.entry_points.iter().any(|entry| entry.name == "main"), "{file:?}");
    }
    // `direct` takes both links, with different constants.
    let names: BTreeSet<_> = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    for part in [".link0.", ".link1."] {
        assert!(names.iter().any(|name| name.starts_with("direct") && name.contains(part)), "{names:?}");
    }
}

#[test]
fn plan_as_text_and_by_name() {
    let text = stdout(&["plan", "separable 1x4x6x6 -> 8 k3 p1"]);
    assert!(text.contains("by the model") && text.contains("rejected"), "{text}");
    let plan = json(&["plan", "--json", "--kernel", "direct", "pointwise 1x4x6x6 -> 8"]);
    assert!(plan["schedule"].as_str().unwrap().starts_with("direct"), "{plan}");
    let plan = json(&["plan", "--json", "--kernel", "direct", "separable 1x4x6x6 -> 8 k3 p1"]);
    let between = 4 * 6 * 6 * 4;
    let workspace = serde_json::json!({"bytes": between, "bytes_without_reuse": between, "buffers": [between]});
    assert_eq!(plan["workspace"], workspace);
    for command in ["plan", "bench"] {
        let message = one_line(&[command, "--kernel", "fastest", "pointwise 1x4x6x6 -> 8"], 2);
        assert!(message.contains("`fastest`") && message.contains("direct"), "{message}");
    }
    // A known kernel that does not take this problem.
    assert!(one_line(&["plan", "--kernel", "depthwise", "pointwise 1x4x6x6 -> 8"], 2).contains("depthwise"));
}

#[test]
fn plan_with_options_and_measured() {
    let problem = "separable 1x64x28x28 -> 64 k3 p1 relu6";
    let plan = |options: &[&str]| json(&[&["plan", "--json", problem], options].concat());
    let reasons = |plan: &Value| -> Vec<String> {
        let candidates = plan["candidates"].as_array().unwrap().iter();
        candidates.filter_map(|candidate| Some(candidate["reason"].as_str()?.to_string())).collect()
    };
    let links = 4 * 64 * 28 * 28;
    let weights = 4 * (64 * 9 + 64 + 64 * 64 + 64);
    for (fusion, steps, bytes) in [("never", 2, 4 * links + weights), ("always", 1, 2 * links + weights)] {
        let plan = plan(&["--device", "gpu", "--fusion", fusion]);
        assert_eq!(plan["steps"].as_array().unwrap().len(), steps, "{plan}");
        assert_eq!(plan["traffic"]["planned"], bytes, "{plan}");
        assert_eq!(plan["traffic"]["unfused"], 4 * links + weights);
        assert_eq!(plan["traffic"]["fused"], 2 * links + weights);
        assert_eq!(plan["workspace"]["bytes"], if steps == 2 { links } else { 0 });
        assert_eq!(reasons(&plan).contains(&"fusion is forbidden".into()), fusion == "never");
        let flops: Vec<_> =
            plan["steps"].as_array().unwrap().iter().map(|step| step["flops"].as_u64().unwrap()).collect();
        assert_eq!(flops.iter().sum::<u64>(), 2 * 64 * 28 * 28 * (9 + 64));
        assert!(plan["steps"][0]["measured_ms"].is_null());
    }
    for step in plan(&["--max-workspace", "0"])["steps"].as_array().unwrap() {
        assert_eq!(step["workspace"], 0);
    }
    let measured = plan(&["--measure", "--kernel", "direct"]);
    for step in measured["steps"].as_array().unwrap() {
        assert!(step["measured_ms"].as_f64().unwrap() > 0.0 && step["share_of_roofline"].as_f64().unwrap() > 0.0);
    }
    assert!(stdout(&["plan", "--device", "gpu", problem]).contains("memory access:"));
    failure(&["plan", "--fusion", "never", "--kernel", "direct", problem], 2);
    failure(&["plan", "--measure", "--device", "gpu", problem], 2);
}

#[test]
fn plan_counts_the_bytes_of_half_precision() {
    // A step's scratch memory has f32 sums in both. It is written and read.
    let moved = |problem: &str| {
        let plan = json(&["plan", "--json", "--device", "gpu", "--fusion", "always", problem]);
        let steps = plan["steps"].as_array().unwrap().iter();
        let tensors = |step: &Value| step["bytes"].as_u64().unwrap() - 2 * step["workspace"].as_u64().unwrap();
        (steps.map(tensors).sum::<u64>(), plan["traffic"]["fused"].as_u64().unwrap())
    };
    let [single, half] = ["mobilenet_v2 1", "mobilenet_v2 1 f16"].map(moved);
    assert!(2 * half.0 <= single.0 && 3 * half.0 > single.0, "{half:?} and {single:?} bytes");
    assert_eq!(2 * half.1, single.1);
}

#[test]
fn plan_for_a_device_that_is_not_here() {
    for device in ["gpu", "webgpu"] {
        let plan = json(&["plan", "--json", "--device", device, "conv 1x64x56x56 -> 64 k3 p1"]);
        assert!(plan["adapter"].as_str().unwrap().to_lowercase().contains(device), "{plan}");
        let candidates = plan["candidates"].as_array().unwrap();
        let rejected = candidates.iter().find(|candidate| candidate["kernel"] == "implicit_gemm_subgroup").unwrap();
        assert!(rejected["reason"].as_str().unwrap().contains("software devices"), "{plan}");
    }
    // A name's case does not matter, and a kind goes for those without a name that is known.
    for (device, name, kernel) in [
        ("RTX-4090", "rtx-4090", "winograd"),
        ("mali", "mali", "winograd"),
        ("software", "software", "winograd/4x4-32x4"),
    ] {
        let plan = json(&["plan", "--json", "--device", device, "conv 1x64x56x56 -> 64 k3 p1"]);
        assert_eq!(plan["adapter"], name);
        assert!(plan["steps"][0]["recipe"].as_str().unwrap().starts_with(kernel), "{plan}");
    }
    let unknown = failure(&["plan", "--device", "abacus", "pointwise 1x1x1x1 -> 1"], 2);
    for name in ["abacus", "rtx-4090", "amd-integrated", "software"] {
        assert!(unknown.contains(name), "{unknown}");
    }
    // 256 MiB of input: twice the binding that WebGPU promises, and little for a desktop GPU.
    let large = "conv 1x256x512x512 -> 256 k3 p1";
    assert_eq!(json(&["plan", "--json", "--device", "gpu", large])["bands"], Value::Array(Vec::new()));
    assert_ne!(json(&["plan", "--json", "--device", "webgpu", large])["bands"], Value::Array(Vec::new()));
    // A larger batch that fits into a binding is computed at once; one that does not is computed in several parts.
    let line = |images: u32| format!("conv {images}x64x128x128 -> 8 k3 p1");
    let batch = |images: u32| json(&["plan", "--json", "--device", "webgpu", &line(images)]);
    assert_eq!([32, 40].map(|images| batch(images)["images_at_once"].as_u64()), [None, Some(32)]);
    // And no buffer of 256 MiB holds one of 65 such images.
    let refused = failure(&["plan", "--device", "webgpu", &line(65)], 2);
    assert!(refused.contains("takes 272629760, but the limit is 268435456"), "{refused}");
    failure(&["plan", "--device", "gpu", "--adapter", "any", "pointwise 1x1x1x1 -> 1"], 2);
}

#[test]
fn bench_writes_one_object_per_line() {
    let problems = ["pointwise  1x4x4x4 ->  4", "depthwise 1x4x5x5 k3 residual nhwc"];
    let text = stdout(&["bench", "--json", "--time=0.01", "--kernel=direct", problems[0], problems[1]]);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["problem"], &lines[1]["problem"]), (&"pointwise 1x4x4x4 -> 4".into(), &problems[1].into()));
    for line in &lines {
        assert_keys(line, "adapter e2e_ms gbps gflops gpu_ms kernel problem rel_err robust wall_ms");
        assert!(line["kernel"].as_str().unwrap().starts_with("direct"));
        for spread in [&line["e2e_ms"], &line["wall_ms"], &line["gpu_ms"]] {
            let times = ["min", "median", "max"].map(|key| spread[key].as_f64());
            assert!(spread.is_null() || times[0] >= Some(0.0) && times.is_sorted(), "{spread}");
        }
        assert!(line["gflops"].as_f64().unwrap() > 0.0 && line["gbps"].as_f64().unwrap() > 0.0);
        assert!(line["rel_err"].as_f64().unwrap() < 1e-6, "{line}");
    }
    // The reference is that of the data in f32. In f16 the input, the weights and the output are rounded.
    let half = json(&["bench", "--json", "--time=0", "--kernel=direct", "pointwise 1x16x8x8 -> 16 f16"]);
    let error = half["rel_err"].as_f64().unwrap();
    assert!((1e-4..5e-4).contains(&error), "{half}");
    let table = stdout(&["bench", "--time=0", "--kernel=direct", problems[0]]);
    assert!(table.contains("GFLOP/s") && table.contains("direct"), "{table}");
}

#[test]
fn bench_measures_the_problems_that_a_kernel_takes() {
    let [other, own] = ["pointwise 1x4x4x4 -> 4", "depthwise 1x4x5x5 k3"];
    let bench = |problems: &[&str]| run(&[&["bench", "--json", "--time=0", "--kernel=depthwise"], problems].concat());
    let output = bench(&[other, own, other]);
    let refused = message(&output, 2);
    assert_eq!(refused.lines().count(), 2, "{refused}");
    assert!(refused.lines().all(|line| line.contains(&format!("{other}: no kernel"))), "{refused}");
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["problem"], own);
    let output = bench(&[other]);
    assert!(message(&output, 2).starts_with("no kernel") && output.stdout.is_empty());
    assert!(one_line(&["bench", "--kernel=all", "--max-workspace=0", own], 2).contains("--max-workspace"));
}

#[test]
fn verify_checks_a_problem() {
    let text = stdout(&["verify", "depthwise 1x4x3x3 k3 p1 relu"]);
    assert!(text.contains("passed") && text.contains("worst share of bound"), "{text}");
    assert!(text.lines().any(|line| line.trim_start().starts_with("direct")), "{text}");
}

#[test]
fn networks_are_problems() {
    let cost = json(&["cost", "--json", "mobilenet_v2 8"]);
    // torchvision's 3,504,872, after folding batch norms: these have two parameters for each channel, and one remains.
    assert_eq!((&cost["params"], cost["links"].as_array().unwrap().len()), (&3_487_816.into(), 54));
    let link = |index: usize| (cost["links"][index]["op"].as_str().unwrap(), cost["links"][index]["output"].clone());
    assert_eq!(link(0), ("conv", serde_json::json!([8, 32, 112, 112])));
    assert_eq!(link(4), ("depthwise", serde_json::json!([8, 96, 56, 56])));
    assert_eq!(link(52), ("pool", serde_json::json!([8, 1280, 1, 1])));
    assert_eq!(link(53), ("pointwise", serde_json::json!([8, 1000, 1, 1])));

    // In a fixture's size, so that the driver's cache may have the shaders from other tests.
    let small = "mobilenet_v2 1x3x64x64 -> 20 w0.05";
    let plan = json(&["plan", "--json", small]);
    let links = plan["steps"].as_array().unwrap().iter().map(|step| step["links"].as_u64().unwrap());
    assert_eq!((links.sum::<u64>(), plan["runners_up"].as_array().unwrap().is_empty()), (54, false));
    let bench = json(&["bench", "--json", "--time=0", small]);
    assert!(bench["kernel"].as_str().unwrap().contains(" + pool/"), "{bench}");
    assert!(bench["rel_err"].as_f64().unwrap() < 1e-5, "{bench}");
    one_line(&["bench", "--kernel=all", small], 2);
    one_line(&["run", small, "--input=x.npy", "--weight=w.npy", "--output=y.npy"], 2);
}
