//! Runs `gpuconv report` at the end of `cargo bench`, for its page of charts. It makes its own measurements.

use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    // `cargo bench` passes `--bench` to all benchmarks. Other arguments are for criterion, to measure or test a part of
    // them. Then there is no page.
    if !std::env::args().skip(1).eq(["--bench"]) {
        return ExitCode::SUCCESS;
    }
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let page = tmp.parent().unwrap_or(tmp).join("report.html");
    println!("\nA report with charts, for a fixed set of layers:");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpuconv"));
    // Without tuned times, as in the benchmarks.
    match command.args(["report", "--tuning", "none", "--output"]).arg(page).status() {
        // On failure it prints why.
        Ok(status) if status.success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
