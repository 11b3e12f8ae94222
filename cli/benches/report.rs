//! The page of charts with which `cargo bench` ends: `gpuconv report`, which measures by itself.

use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    // `cargo bench` passes `--bench` to all benchmarks. What else is passed is for criterion's, to measure a part of them
    // or to try them; then there is no page.
    if !std::env::args().skip(1).eq(["--bench"]) {
        return ExitCode::SUCCESS;
    }
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let page = tmp.parent().unwrap_or(tmp).join("report.html");
    println!("\nA report with charts, of the layers of its own:");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpuconv"));
    // Planned as the benchmarks are: without tuned times.
    match command.args(["report", "--tuning", "none", "--output"]).arg(page).status() {
        // What is wrong it says itself.
        Ok(status) if status.success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
