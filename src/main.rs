//! The command line `gpuconv`; see [`cli`].

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
