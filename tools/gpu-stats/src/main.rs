//! Compiles WGSL compute shaders with Mesa's drivers for GPUs that are not here, and prints what their compilers
//! report.

mod compile;
mod driver;
mod hot_loop;
mod recipes;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use compile::{Compiled, Options};
use driver::{GPUS, Gpu};
use recipes::Wanted;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What the shader compilers of AMD's, NVIDIA's, Qualcomm's and Apple's GPUs make of compute shaders. Nothing runs, and
/// no GPU is needed: the drivers work on top of kernel drivers that do nothing. `scripts/gpu-compilers` gets them.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compile files, and print a line for each
    Files {
        /// The GPUs: names, or `all`
        #[arg(long, value_delimiter = ',', default_value = "navi31,ampere,adreno740,apple-m1")]
        gpu: Vec<String>,
        /// Print the machine code
        #[arg(long)]
        asm: bool,
        /// As on a device without robust buffer access
        #[arg(long)]
        no_robustness: bool,
        /// WGSL
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Compile every recipe that the planner can give each GPU, and print what spills and what the loops consist of
    Recipes {
        /// The GPUs: names, or `all`
        #[arg(long, value_delimiter = ',', default_value = "all")]
        gpu: Vec<String>,
        /// Compile every shader, also those that differ from another only in numbers of channels or sizes
        #[arg(long)]
        every: bool,
        /// Write the instructions of each recipe's loop into this file, as the planner keeps them. With problems, add
        /// what the planner's table lacks to it
        #[arg(long, value_name = "FILE")]
        write: Option<PathBuf>,
        /// Compile only the shaders that are picked, and print a line for each with the instructions of its loop
        #[arg(long, conflicts_with_all = ["every", "write"])]
        picks: bool,
        /// What to plan: problems, or by default the layers of MobileNetV1, V2 and ResNet-18 and others of all kinds
        problems: Vec<String>,
    },
    /// Compile the files whose paths are read from standard input, on the GPU whose driver this process finds
    #[command(hide = true)]
    Child {
        #[arg(long)]
        gpu: String,
        #[arg(long)]
        asm: bool,
        #[arg(long)]
        no_robustness: bool,
    },
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Files { gpu, asm, no_robustness, files } => {
            println!("{}", Compiled::HEADER);
            for gpu in gpus(&gpu)? {
                for compiled in compile::on(gpu, &files, Options { asm, robust: !no_robustness })? {
                    println!("{:<10} {}", gpu.name, compiled.line());
                }
            }
            Ok(())
        }
        Command::Recipes { gpu, every, write, picks, problems } => {
            recipes::report(&gpus(&gpu)?, &problems, &Wanted { every, picks, write })
        }
        Command::Child { gpu, asm, no_robustness } => {
            let gpu = gpus(&[gpu])?[0];
            compile::here(gpu, Options { asm, robust: !no_robustness })
        }
    }
}

/// The GPUs with these names.
fn gpus(names: &[String]) -> Result<Vec<&'static Gpu>> {
    if names.iter().any(|name| name == "all") {
        return Ok(GPUS.iter().collect());
    }
    let known = || GPUS.iter().map(|gpu| gpu.name).collect::<Vec<_>>().join(", ");
    let find = |name: &String| {
        GPUS.iter().find(|gpu| gpu.name == *name).ok_or_else(|| format!("no GPU is called {name}: {}", known()).into())
    };
    names.iter().map(find).collect()
}
