//! Conveniences: examples in help, suggestions for misspelt words, scripts for shells, colours and pipes.

use gpuconv::Problem;
use serde_json::Value;

use super::run::{Folder, PROBLEM};
use super::{command, failure, json, message, one_line, run, stderr, stdout};

const COMMANDS: [&str; 10] =
    ["devices", "cost", "plan", "run", "bench", "report", "tune", "verify", "completions", "man"];

#[test]
fn help_has_examples_whose_problems_are_right() {
    let mut problems = 0;
    for name in COMMANDS {
        for help in ["-h", "--help"] {
            let text = stdout(&[name, help]);
            let examples: Vec<_> = text.lines().filter(|line| line.starts_with(&format!("  gpuconv {name}"))).collect();
            assert!(!examples.is_empty(), "{text}");
            // Problems are in quotes.
            for problem in examples.iter().flat_map(|example| example.split('"').skip(1).step_by(2)) {
                let parsed: Result<Problem, _> = problem.parse();
                parsed.unwrap_or_else(|error| panic!("{error}"));
                problems += 1;
            }
        }
    }
    assert!(problems > 20, "only {problems} problems");
    assert!(stdout(&["--help"]).contains("Exit codes: 0") && stdout(&["plan", "--help"]).contains("NxCxHxW"));
}

#[test]
fn a_similar_word_is_suggested() {
    for (problem, near) in [
        ("seperable 1x3x8x8 -> 4 k3", "`seperable` is no operation (did you mean `separable`?); there are conv, "),
        ("conv 1x3x8x8 -> 4 k3 reul", "`reul` is no option of conv (did you mean `relu`?); there are kK, "),
        ("conv 1x3x8x8 -> 4 k3 residual:aftr", "`residual:aftr` is no option of conv (did you mean `residual:after`?)"),
        ("mobilenet_v2 1 NHCW", "`NHCW` is no option of a network (did you mean `nhwc`?)"),
    ] {
        let message = failure(&["cost", problem], 2);
        assert!(message.starts_with(near), "{message}");
    }
    // A known word in the wrong place, and a word that resembles none.
    for problem in ["conv 1x3x8x8 -> 4 k3 nhwc nhwc", "conv 1x3x8x8 -> 4 k3 fast"] {
        assert!(!failure(&["cost", problem], 2).contains("did you mean"));
    }
    for args in [
        &["plan", "--device=gpu", "--kernel", "winogrd", "conv 1x8x8x8 -> 8 k3 p1"][..],
        &["verify", "--kernel", "winogrd"],
    ] {
        let message = one_line(args, 2);
        assert!(
            message.starts_with("no kernel is called `winogrd` (did you mean `winograd`?); there are "),
            "{message}"
        );
    }
}

#[test]
fn messages_refer_to_what_was_asked_for() {
    // Checking nothing is no success.
    let wide = "conv 1x8x8x8 -> 8 k5 p1";
    assert!(
        one_line(&["verify", "--kernel=winograd", wide], 2)
            .starts_with("nothing was checked: winograd does not take any")
    );
    assert!(one_line(&["verify", "--kernel", "winograd/2x2-32x4", wide], 2).contains("`winograd` with --all-variants"));
    let message = one_line(&["plan", "--device=gpu", "--kernel=winograd", wide], 2);
    assert!(message.ends_with(": winograd (not for a 5x5 kernel)"), "{message}");
    // Problems without quotes.
    for args in [&["cost", "conv", "1x3x8x8", "-", "k3"][..], &["bench", "conv", "1x3x8x8"]] {
        assert!(failure(args, 2).ends_with("a problem is one argument: quote it"));
    }
    assert!(!one_line(&["tune", "--network", "mobilenet_v2", "--paint"], 2).contains("quote"));
}

/// Before and behind the command. What a command refuses is not in its help.
#[test]
fn no_option_is_ignored() {
    let problem = "pointwise 1x4x4x4 -> 4";
    const DEVICE: [&str; 3] = ["--adapter=any", "--limits=default", "--without=f16"];
    let refused = |call: &str, args: &[&str], option: &str| {
        let name = option.split('=').next().unwrap();
        for call_args in [[args, &[option]].concat(), [&[option], args].concat()] {
            assert_eq!(one_line(&call_args, 2), format!("`{call}` does not use {name}"));
        }
    };
    for (call, args) in [
        ("cost", &["cost", problem][..]),
        ("man", &["man"]),
        ("completions", &["completions", "bash"]),
        ("plan --device", &["plan", "--device=gpu", problem]),
        ("report --from", &["report", "--from=none.json"]),
        ("tune --merge", &["tune", "--output=none.json", "--merge", "a.json", "b.json"]),
    ] {
        for option in DEVICE {
            refused(call, args, option);
        }
        // `tune --merge` uses no times, as `tune` does not.
        refused(call.strip_suffix(" --merge").unwrap_or(call), args, "--tuning=none.json");
    }
    for name in ["devices", "verify", "tune"] {
        refused(name, &[name], "--tuning=none.json");
        let help = stdout(&[name, "--help"]);
        assert!(help.contains("--adapter") && !help.contains("--tuning"), "{help}");
    }
    assert!(!stdout(&["cost", "--help"]).contains("--adapter") && stdout(&["plan", "-h"]).contains("--tuning"));
    for (args, option) in [
        (&["report", "--from", "none.json", "--batch", "4"][..], "--batch"),
        (&["tune", "--merge", "a.json", "b.json", "--batch", "3"], "--batch"),
        (&["tune", "--merge", "a.json", "b.json", "--time", "3"], "--time"),
        (&["tune", "--report", "--time", "3", problem], "--time"),
    ] {
        assert!(one_line(args, 2).contains(option));
    }
}

#[test]
#[cfg(unix)]
fn arguments_need_not_be_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let word = |bytes: &'static [u8]| std::ffi::OsStr::from_bytes(bytes);
    let output = command(&["cost"]).arg(word(b"conv \xff")).output().unwrap();
    assert!(message(&output, 2).contains("UTF-8"));
    let output = command(&["run", "foo 1", "--output", "y.npy", "--input"]).arg(word(b"a\xffb")).output().unwrap();
    assert!(message(&output, 2).starts_with("`foo` is no operation"));
}

#[test]
#[cfg(target_os = "linux")]
fn what_cannot_be_printed_is_an_error() {
    for args in [&["--help"][..], &["plan", "-h"], &["--version"], &["man"], &["cost", "pointwise 1x1x1x1 -> 1"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = command(args).stdout(full).output().unwrap();
        assert!(message(&output, 2).starts_with("cannot write the output: "), "{args:?}");
    }
}

#[test]
fn completions_and_man_pages_have_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = stdout(&["completions", shell]);
        assert!(COMMANDS.iter().all(|name| script.contains(name)) && script.contains("max-workspace"), "{script}");
    }
    assert!(one_line(&["completions", "abacus"], 2).contains("abacus"));
    let page = stdout(&["man"]);
    assert!(page.contains(".TH gpuconv 1") && COMMANDS.iter().all(|name| page.contains(name)), "{page}");
    let page = stdout(&["man", "plan"]);
    let version = format!(".TH gpuconv-plan 1  \"{}\"", stdout(&["--version"]).trim());
    assert!(page.contains("max\\-workspace") && page.contains(&version), "{page}");
    assert!(one_line(&["man", "paint"], 2).contains("`paint`"));
}

#[test]
fn json_is_for_scripts() {
    let folder = Folder::new();
    let output = folder.run(PROBLEM, "--json --input x.npy --weight w.npy --bias b.npy --output y.npy --kernel direct");
    let done: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    assert_eq!((&done["shape"], &done["problem"]), (&serde_json::json!([1, 1, 3, 2]), &PROBLEM.into()));
    assert!(done["schedule"].as_str().unwrap().starts_with("direct/") && done["adapter"].is_string());
    assert!(done["first_ms"].as_f64().unwrap() > 0.0);
    assert!(std::fs::exists(done["output"].as_str().unwrap()).unwrap());

    let verified = json(&["verify", "--json", "--kernel=direct", "depthwise 1x4x3x3 k3 p1 relu"]);
    assert_eq!((&verified["cases"], &verified["failures"]), (&1.into(), &0.into()));
    assert_eq!(verified["failed"], serde_json::json!([]));
    let rows = verified["kernels"].as_array().unwrap();
    let direct = rows.iter().find(|row| row["kernel"] == "direct").unwrap();
    assert!(direct["checks"].as_u64() >= Some(1) && direct["worst_share_of_bound"].as_f64() <= Some(1.0), "{direct}");
    assert_eq!(rows.iter().find(|row| row["kernel"] == "winograd").unwrap()["checks"], 0);
}

#[test]
fn without_a_terminal_there_are_no_bars_and_no_colours() {
    for args in [&["verify", "depthwise 1x4x3x3 k3"][..], &["bench", "--time=0", "depthwise 1x4x3x3 k3"]] {
        let output = run(args);
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
        assert!(!output.stdout.contains(&0x1b), "{args:?}");
    }
    let help = |variables: &[(&str, &str)]| {
        command(&["--help"]).env_remove("NO_COLOR").envs(variables.iter().copied()).output().unwrap().stdout
    };
    assert!(help(&[("CLICOLOR_FORCE", "1")]).contains(&0x1b));
    assert!(!help(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]).contains(&0x1b));
    assert!(!help(&[]).contains(&0x1b));
}

#[test]
fn the_reader_may_close_the_pipe_early() {
    for args in
        [&["--help"][..], &["plan", "--json", "--device=gpu", "mobilenet_v2 1"], &["completions", "zsh"], &["man"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(args).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{args:?}");
    }
}
