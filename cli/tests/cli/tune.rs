//! `tune` and its files.

use std::fs;

use serde_json::Value;

use super::{failure, json, one_line, run, stderr, stdout};

/// The candidates of a plan that have a measured time, with these times.
fn measured(plan: &Value) -> Vec<(String, f64)> {
    let candidates = plan["candidates"].as_array().unwrap().iter();
    let time =
        |candidate: &Value| Some((candidate["recipe"].as_str()?.to_string(), candidate["measured_ms"].as_f64()?));
    candidates.filter_map(time).collect()
}

#[test]
fn a_second_process_chooses_by_the_tuning_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tuning.json");
    let file = path.to_str().unwrap();
    let problem = "pointwise 1x16x12x12 -> 24 relu";
    // A file of somebody else's, which has nothing to do with this one's lock.
    let other = path.with_extension("lock");
    fs::write(&other, "precious").unwrap();
    let table = stdout(&["tune", "--time", "5", "--output", file, problem]);
    assert!(table.contains("measured ms") && table.contains("1 runs") && table.contains(file), "{table}");
    assert_eq!(fs::read_to_string(other).unwrap(), "precious");

    let plan = json(&["plan", "--json", "--tuning", file, problem]);
    let times = measured(&plan);
    let best = times.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert_eq!(plan["schedule"].as_str(), Some(best.0.as_str()), "{times:?}");
    assert!(measured(&json(&["plan", "--json", "--tuning", "none", problem])).is_empty());

    // The driver's compiled pipelines are in a file beside it, if the device supports that. A damaged one is ignored.
    let pipelines = folder.path().join("tuning.json.pipelines");
    if let Ok(bytes) = fs::read(&pipelines) {
        assert!(run(&["plan", "--json", "--tuning", file, problem]).stderr.is_empty());
        fs::write(&pipelines, &bytes[..bytes.len() - 1]).unwrap();
        let output = run(&["plan", "--json", "--tuning", file, problem]);
        assert!(output.status.success() && stderr(&output).contains("pipeline cache"), "{}", stderr(&output));
    }

    // The file can be edited: now the slowest recipe is the fastest.
    let mut tuning: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let slowest = &times.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0;
    assert_ne!(*slowest, best.0);
    tuning["devices"][0]["runs"][problem][slowest] = 1e-9.into();
    fs::write(&path, tuning.to_string()).unwrap();
    let plan = json(&["plan", "--json", "--tuning", file, problem]);
    assert_eq!(plan["schedule"].as_str(), Some(slowest.as_str()), "{plan}");

    // For another device it is ignored with a warning.
    tuning["devices"][0]["device"] = "another".into();
    fs::write(&path, tuning.to_string()).unwrap();
    let output = run(&["plan", "--json", "--tuning", file, problem]);
    assert!(output.status.success() && stderr(&output).contains("tuning is ignored"), "{}", stderr(&output));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(measured(&plan).is_empty());
}

#[test]
fn tuning_files_are_joined_and_damaged_ones_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let file = |name: &str, device: &str, seconds: f64| {
        let entry = serde_json::json!({
            "device": device, "driver": "a", "backend": "vulkan", "version": "0.1.0", "rates": null,
            "runs": {"pointwise 1x8x4x4 -> 8": {"direct/4x1": seconds}},
        });
        let tuning = serde_json::json!({"format": 1, "devices": [entry]});
        fs::write(path(name), tuning.to_string()).unwrap();
    };
    file("a.json", "first", 0.5);
    file("b.json", "second", 0.25);
    file("c.json", "first", 0.125);
    let [a, b, c, all] = ["a.json", "b.json", "c.json", "all.json"].map(path);
    let text = stdout(&["tune", "--output", &all, "--merge", &a, &b, &c]);
    assert!(text.contains("2 runs on 2 devices"), "{text}");
    let tuning: Value = serde_json::from_str(&fs::read_to_string(&all).unwrap()).unwrap();
    assert_eq!(tuning["devices"][0]["runs"]["pointwise 1x8x4x4 -> 8"]["direct/4x1"], 0.125);

    let whole = fs::read(&a).unwrap();
    fs::write(&a, &whole[..whole.len() / 2]).unwrap();
    for args in [
        &["plan", "--tuning", &a, "pointwise 1x8x4x4 -> 8"][..],
        &["tune", "--output", &all, "--merge", &b, &a],
        &["tune", "--time", "0", "--output", &a, "pointwise 1x8x4x4 -> 8"],
    ] {
        let message = one_line(args, 2);
        assert!(message.contains("damaged"), "{message}");
    }
    assert_eq!(fs::read(&a).unwrap().len(), whole.len() / 2);
    assert!(one_line(&["plan", "--tuning", &path("none.json"), "pointwise 1x8x4x4 -> 8"], 2).contains("none.json"));
    // A missing folder is an error before anything is measured. It is not made.
    let nowhere = path("no/t.json");
    let message = one_line(&["tune", "--output", &nowhere, "pointwise 1x8x4x4 -> 8"], 2);
    assert!(message.contains(&nowhere) && !fs::exists(path("no")).unwrap(), "{message}");
    assert!(one_line(&["tune"], 2).contains("nothing to tune for"));
    assert!(one_line(&["tune", "--output", &all, "--network", "mobilenet_v3"], 2).contains("mobilenet_v2"));
    let cases = path("cases.txt");
    fs::write(&cases, "# two\npointwise 1x8x4x4 -> 8\n\nconf 1x8x4x4 -> 8 k3\n").unwrap();
    let message = failure(&["tune", "--output", &all, "--cases", &cases], 2);
    assert!(message.starts_with(&format!("{cases}:4: `conf` is no operation (did you mean `conv`?)")), "{message}");
}
