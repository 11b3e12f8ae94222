//! The command line `gpuconv`: one module per command; this one has what they share.

mod bench;
mod cost;
mod devices;
mod figures;
mod files;
mod help;
mod limits;
mod near;
mod npy;
mod pipelines;
mod plan;
mod report;
mod run;
mod shell;
mod spread;
mod table;
mod tune;
mod tuning_file;
mod verify;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};
use gpuconv::planner::Schedule;
use gpuconv::{Choice, Error, Fusion, GpuConv, Problem};
use serde::Serialize;

/// 2-D convolution on any GPU.
#[derive(Parser)]
#[command(name = "gpuconv", version, arg_required_else_help = true)]
#[command(after_help = help::short(help::GPUCONV), after_long_help = help::long(help::GPUCONV))]
struct Cli {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

/// The device that the commands run on.
#[derive(clap::Args)]
struct Target {
    /// Use the best adapter whose name or driver contains NAME, as WGPU_ADAPTER_NAME does
    #[arg(long, global = true, value_name = "NAME", help_heading = help::DEVICE)]
    adapter: Option<String>,
    #[command(flatten)]
    limits: limits::DeviceLimits,
    /// Use the times in this file instead of those that `tune` wrote to the user's file; `none` for no times
    #[arg(long, global = true, value_name = "FILE", help_heading = help::DEVICE)]
    tuning: Option<PathBuf>,
}

impl Target {
    /// Refuses options that a call would ignore. `device` is whether it uses a device, `times` whether it uses tuned
    /// times. clap's own conflicts do not see options that come before the command.
    fn check(&self, call: &str, device: bool, times: bool) -> Outcome {
        let [limits, without] = self.limits.given();
        let of_device = [("--adapter", self.adapter.is_some()), limits, without].map(|option| (option, device));
        let of_times = (("--tuning", self.tuning.is_some()), times);
        match of_device.into_iter().chain([of_times]).find(|((_, is_given), is_used)| *is_given && !is_used) {
            Some(((option, _), _)) => Err(Failure::Call(format!("`{call}` does not use {option}"))),
            None => Ok(()),
        }
    }

    /// The device.
    fn device(&self) -> Outcome<GpuConv> {
        let adapter = pollster::block_on(GpuConv::adapter(self.adapter.as_deref()))?;
        self.limits.device(&adapter)
    }

    /// The device, with its tuned times and compiled pipelines.
    fn open(&self) -> Outcome<GpuConv> {
        let gpu = self.device()?;
        let file = match &self.tuning {
            Some(none) if none.as_os_str() == "none" => None,
            Some(file) => Some(file.clone()),
            None => tuning_file::of_user().filter(|file| file.exists()),
        };
        if let Some(file) = file {
            gpu.use_tuning(&tuning_file::load(&file)?);
            pipelines::load(&gpu, &file)?;
        }
        Ok(gpu)
    }
}

#[derive(Subcommand)]
enum Command {
    /// List the adapters, and mark the one that the commands use
    #[command(after_help = help::short(help::DEVICES), after_long_help = help::long(help::DEVICES))]
    Devices(devices::Devices),
    /// Count parameters, multiply-adds and bytes; needs no device
    #[command(after_help = help::short(help::COST), after_long_help = help::with_problems(help::COST))]
    Cost(cost::Cost),
    /// Show which recipes would run, and why no others
    #[command(after_help = help::short(help::PLAN), after_long_help = help::with_problems(help::PLAN))]
    Plan(plan::Plan),
    /// Run a convolution or a network on npy files
    #[command(after_help = help::short(help::RUN), after_long_help = help::with_problems(help::RUN))]
    Run(run::Run),
    /// Measure how long problems take
    #[command(after_help = help::short(help::BENCH), after_long_help = help::with_problems(help::BENCH))]
    Bench(bench::Bench),
    /// Measure, and write a page with charts: the roofline, separable against standard, a network step by step
    #[command(after_help = help::short(help::REPORT), after_long_help = help::with_problems(help::REPORT))]
    Report(report::Report),
    /// Measure the kernels on this device, and keep the times for later plans
    #[command(after_help = help::short(help::TUNE), after_long_help = help::with_problems(help::TUNE))]
    Tune(tune::Tune),
    /// Check every kernel on this device against the CPU
    #[command(after_help = help::short(help::VERIFY), after_long_help = help::with_problems(help::VERIFY))]
    Verify(verify::Verify),
    /// Write a script that completes commands and options in a shell
    #[command(after_help = help::short(help::COMPLETIONS))]
    Completions(shell::Completions),
    /// Write a page for `man`
    #[command(after_help = help::short(help::MAN))]
    Man(shell::Manual),
}

/// Whether a command uses a device, and whether it uses tuned times.
fn uses(command: &str) -> (bool, bool) {
    match command {
        "cost" | "completions" | "man" => (false, false),
        "devices" | "tune" | "verify" => (true, false),
        _ => (true, true),
    }
}

/// The command line as clap has it. No command's help shows options that the command would refuse.
fn command() -> clap::Command {
    let mut cli = Cli::command();
    // Building passes the global options on to the commands.
    cli.build();
    cli.mut_subcommands(|command| {
        let (device, times) = uses(command.get_name());
        command.mut_args(|arg| {
            let is_unused = match arg.get_id().as_str() {
                "adapter" | "limits" | "without" => !device,
                "tuning" => !times,
                _ => false,
            };
            if is_unused { arg.hide(true) } else { arg }
        })
    })
}

/// Why a command failed.
#[derive(Debug)]
enum Failure {
    /// A check failed.
    Check(String),
    /// The call or its files are wrong.
    Call(String),
    /// There is no usable device, or it failed.
    Device(String),
    /// The reader closed the output. This is no error.
    Closed,
}

type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// The same, with the place of what is wrong in a call before it.
    fn at(self, place: impl std::fmt::Display) -> Self {
        match self {
            Self::Call(message) => Self::Call(format!("{place}: {message}")),
            other => other,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        // A driver's message may have several lines. Only the caret under a problem needs a line of its own.
        let mut message = match &error {
            Error::Parse(error) => error.to_string(),
            _ => one_line(&with_cause(&error)),
        };
        // The suggestion goes before the list of known words.
        if let Some(near) = near::suggestion(&error) {
            let list = [": ", "; ", "\n"].iter().filter_map(|mark| message.find(mark)).min().unwrap_or(message.len());
            message.insert_str(list, &format!(" (did you mean `{near}`?)"));
        }
        if matches!(error, Error::Parse(_)) && forgot_quotes() {
            message += "\na problem is one argument: quote it";
        }
        match error {
            Error::NoAdapter { .. }
            | Error::RequestDevice(_)
            | Error::DeviceLost(_)
            | Error::OutOfMemory(_)
            | Error::Driver(_)
            | Error::Internal(_)
            | Error::Validation(_) => Self::Device(message),
            _ => Self::Call(message),
        }
    }
}

/// An error's message, and that of its cause.
fn with_cause(error: &Error) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    error.to_string() + &cause.unwrap_or_default()
}

/// Reads the arguments, runs the command and turns its outcome into an exit code.
fn main() -> ExitCode {
    // A user gets one line that says where, and no backtrace, even if the panic is a driver binding's.
    std::panic::set_hook(Box::new(|panic| complain(&format!("internal error: {}", one_line(&panic.to_string())))));
    let filter = env_logger::Env::default().default_filter_or("gpuconv=warn");
    env_logger::Builder::from_env(filter).init();
    let parsed = command().try_get_matches().and_then(|matches| {
        let name = matches.subcommand_name().unwrap_or_default().to_string();
        Ok((name, Cli::from_arg_matches(&matches)?))
    });
    let (name, cli) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return usage(&error),
    };
    let outcome = std::panic::catch_unwind(|| execute(&name, &cli));
    exit_code(outcome.unwrap_or_else(|_| Err(Failure::Device(String::new()))))
}

/// Says what failed, if anything did, and turns it into an exit code.
fn exit_code(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) | Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(Failure::Check(message)) => fail(1, &message),
        Err(Failure::Call(message)) => fail(2, &message),
        Err(Failure::Device(message)) => fail(3, &message),
    }
}

fn execute(name: &str, cli: &Cli) -> Outcome {
    let (device, times) = uses(name);
    cli.target.check(name, device, times)?;
    match &cli.command {
        Command::Devices(devices) => devices.execute(&cli.target),
        Command::Cost(cost) => cost.execute(),
        Command::Plan(plan) => plan.execute(&cli.target),
        Command::Run(run) => run.execute(&cli.target),
        Command::Bench(bench) => bench.execute(&cli.target),
        Command::Report(report) => report.execute(&cli.target),
        Command::Tune(tune) => tune.execute(&cli.target),
        Command::Verify(verify) => verify.execute(&cli.target),
        Command::Completions(completions) => completions.execute(),
        Command::Man(manual) => manual.execute(),
    }
}

/// Prints help and version to stdout as clap formats them, and a wrong call as one line, like every other error.
fn usage(error: &clap::Error) -> ExitCode {
    let asks_for_help =
        [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion, ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand];
    if asks_for_help.contains(&error.kind()) {
        return match error.print().and_then(|()| io::stdout().flush()) {
            Ok(()) => ExitCode::from(error.exit_code() as u8),
            Err(error) => exit_code(Err(unprintable(&error))),
        };
    }
    let text = error.to_string();
    let message = text.split("\nUsage:").next().unwrap_or(&text);
    let mut message = one_line(message.strip_prefix("error: ").unwrap_or(message)).replace(" tip: ", "; ");
    if forgot_quotes() {
        message += "; a problem is one argument: quote it";
    }
    fail(2, &message)
}

/// Whether the arguments look like a problem without quotes.
fn forgot_quotes() -> bool {
    // Words that are not UTF-8 are no part of a problem, but they may be there.
    let arguments: Vec<_> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let is_bare = |words: &[String]| {
        let is_operation = near::operations().any(|name| name == words[1]);
        is_operation && [&words[0], &words[2]].iter().all(|word| !word.starts_with("--"))
    };
    arguments.windows(3).any(is_bare)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn fail(code: u8, message: &str) -> ExitCode {
    if !message.is_empty() {
        complain(message);
    }
    ExitCode::from(code)
}

/// A line on stderr. `eprintln!` would panic where stderr is closed.
fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "gpuconv: {message}");
}

/// Writes to stdout, and flushes.
fn print(text: &str) -> Outcome {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| unprintable(&error))
}

fn unprintable(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::Call(format!("cannot write the output: {error}")),
    }
}

/// Writes a value as JSON, indented.
fn print_json(value: &impl Serialize) -> Outcome {
    let json = serde_json::to_string_pretty(value).map_err(|error| Failure::Call(error.to_string()))?;
    print(&(json + "\n"))
}

/// The adapter's name, for the output.
fn adapter_name(gpu: &GpuConv) -> String {
    gpu.device().adapter_info().name
}

/// The adapter's name, and what is unusual about the device, for a line of text.
fn device_name(gpu: &GpuConv) -> String {
    let name = adapter_name(gpu);
    if gpu.is_robust() { name } else { name + ", without robustness" }
}

/// The names of a schedule's recipes. For a network each recipe is named once, with the number of its steps.
fn kernels(schedule: &Schedule) -> String {
    if schedule.steps.len() <= 3 {
        return schedule.name();
    }
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for step in &schedule.steps {
        match counts.iter_mut().find(|(name, _)| *name == step.recipe.name) {
            Some((_, count)) => *count += 1,
            None => counts.push((&step.recipe.name, 1)),
        }
    }
    let counted = counts.into_iter().map(|(name, count)| match count {
        1 => name.into(),
        _ => format!("{count} {name}"),
    });
    counted.collect::<Vec<_>>().join(" + ")
}

/// Options that restrict the planner.
#[derive(clap::Args)]
struct KernelOptions {
    /// Fuse links: if that is cheaper (auto), never, or whenever a kernel can (always)
    #[arg(long, value_name = "WHEN", conflicts_with = "kernel")]
    fusion: Option<FusionOption>,
    /// Use only recipes that need at most this much scratch memory
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    max_workspace: Option<u64>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum FusionOption {
    Auto,
    Never,
    Always,
}

impl KernelOptions {
    /// What these options and `--kernel` let the planner choose from.
    fn choice(&self, kernel: Option<&str>) -> Choice {
        let choice = match (kernel, self.fusion) {
            (Some(name), _) => Choice::Named(name.into()),
            (None, None) => Choice::Auto,
            (None, Some(FusionOption::Auto)) => Choice::Fusion(Fusion::Auto),
            (None, Some(FusionOption::Never)) => Choice::Fusion(Fusion::Never),
            (None, Some(FusionOption::Always)) => Choice::Fusion(Fusion::Always),
        };
        match self.max_workspace {
            Some(bytes) => choice.within(bytes),
            None => choice,
        }
    }
}

/// A problem, and its text.
struct Case {
    /// The text as it was typed, with single spaces.
    text: String,
    problem: Problem,
}

impl Case {
    fn parse(words: &str) -> Outcome<Self> {
        let text = one_line(words);
        let problem = text.parse()?;
        Ok(Self { text, problem })
    }
}
