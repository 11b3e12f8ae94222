//! Says what a photograph shows, with a network and published weights:
//!
//! `cargo run --release --example classify -- --weights mobilenetv2_100.safetensors photograph.jpg`. Without a GPU, put
//! `scripts/headless` before it.
//!
//! Without a photograph it draws a picture. Without weights it takes random ones, and then only the times mean
//! anything.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use gpuconv::nets::{self, Task};
use gpuconv::verify::Data;
use gpuconv::{Choice, Fusion, GpuConv, Layout, OwnedWeights};
use indicatif::{ProgressBar, ProgressStyle};

mod common;

#[derive(Parser)]
pub struct Options {
    /// JPEG or PNG
    image: Option<PathBuf>,
    /// A safetensors file with timm's or torchvision's names
    #[arg(long)]
    weights: Option<PathBuf>,
    /// MobileNets, EfficientNets, ResNets and others
    #[arg(long, default_value = "mobilenet_v2")]
    network: String,
    /// Multiplier of the channels
    #[arg(long, default_value_t = 1.0)]
    width: f64,
    #[arg(long, default_value_t = 1000)]
    classes: u32,
    /// A text file with one line for each class
    #[arg(long)]
    labels: Option<PathBuf>,
    /// How many copies of the image to put into a batch
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    batch: u32,
    /// Whether to fuse layers: auto, never or always
    #[arg(long, default_value = "auto")]
    fusion: Fusion,
    /// How many batches to time after the first
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
}

const SIZE: u32 = 224;

pub fn classify(options: &Options) -> Result<(), Box<dyn Error>> {
    let (start, classes) = (Instant::now(), options.classes);
    let bar = ProgressBar::new(3).with_style(ProgressStyle::with_template("{bar:30} {elapsed}")?);
    let network = common::network(&options.network, Task::Classification)?(options.width, classes)?;
    let random = |(weight, bias)| OwnedWeights { weight, bias };
    let weights: Vec<_> = match &options.weights {
        Some(path) => network.weights(&common::read(path)?)?,
        None => Data::random("", &network.chain, [0, 3, SIZE, SIZE])?.weights.into_iter().map(random).collect(),
    };
    bar.inc(1);
    let picture = common::middle(&common::picture(options.image.as_deref())?, 256, SIZE);
    let pixels = network.normalize(&picture, (SIZE * SIZE) as usize).repeat(options.batch as usize);
    bar.inc(1);
    let gpu = GpuConv::new()?;
    let weights: Vec<_> = weights.iter().map(OwnedWeights::borrow).collect();
    let layer = gpu.chain_with(&network.chain, &weights, Choice::Fusion(options.fusion))?;
    layer.warm_up([options.batch, 3, SIZE, SIZE], Layout::Nchw)?;
    let x = gpu.empty([options.batch, 3, SIZE, SIZE], Layout::Nchw)?;
    let y = gpu.empty([options.batch, classes, 1, 1], Layout::Nchw)?;
    let infer = || {
        gpu.write(&x, &pixels)?;
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        layer.encode(&mut encoder, &x, &y)?;
        let logits = gpu.encode_download(&mut encoder, &y)?;
        gpu.queue().submit([encoder.finish()]);
        logits.read()
    };
    let logits = infer()?;
    bar.finish_and_clear();
    println!("{} on {}: first answer after {:.2?}", network.name, gpu.device().adapter_info().name, start.elapsed());
    let labels = String::from_utf8(options.labels.as_deref().map(common::read).transpose()?.unwrap_or_default())?;
    for (class, share) in nets::top(&nets::softmax(&logits[..classes as usize]), 5) {
        println!("{:6.2} %  {class:4}  {}", share * 100.0, labels.lines().nth(class).unwrap_or_default());
    }
    let start = Instant::now();
    (0..options.runs).try_for_each(|_| infer().map(drop))?;
    let (each, batch) = (start.elapsed() / options.runs, options.batch);
    println!("{each:.2?} per batch of {batch}, {:.1} images per second", f64::from(batch) / each.as_secs_f64());
    Ok(())
}

fn main() -> ExitCode {
    common::exit_code(classify(&Options::parse()))
}
