//! What a photograph shows, by a MobileNet with published weights:
//!
//! `cargo run --release --example classify -- --weights mobilenetv2_100.safetensors photograph.jpg`, with
//! `scripts/headless` before it where there is no GPU. Without a photograph it draws one; without weights they are
//! random, and only the times mean anything.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use gpuconv::nets::{self, Network};
use gpuconv::verify::Data;
use gpuconv::{Choice, Fusion, GpuConv, Layout, OwnedWeights, Weights};
use image::imageops::{self, FilterType};
use image::{ImageReader, Rgb, RgbImage};
use indicatif::{ProgressBar, ProgressStyle};

#[derive(Parser)]
struct Options {
    /// JPEG or PNG
    image: Option<PathBuf>,
    /// Safetensors with the names that timm or torchvision gives
    #[arg(long)]
    weights: Option<PathBuf>,
    #[arg(long, default_value = "mobilenet_v2", value_parser = ["mobilenet_v1", "mobilenet_v2"])]
    network: String,
    /// Multiplier of the channels
    #[arg(long, default_value_t = 1.0)]
    width: f64,
    #[arg(long, default_value_t = 1000)]
    classes: u32,
    /// A text file with a line for each class
    #[arg(long)]
    labels: Option<PathBuf>,
    /// How many copies of the image are one batch
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    batch: u32,
    /// Whether layers are fused: auto, never or always
    #[arg(long, default_value = "auto", value_parser = fusion)]
    fusion: Fusion,
    /// How many batches are timed after the first
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
}

fn fusion(text: &str) -> Result<Fusion, String> {
    match text {
        "auto" => Ok(Fusion::Auto),
        "never" => Ok(Fusion::Never),
        "always" => Ok(Fusion::Always),
        _ => Err("it is auto, never or always".into()),
    }
}

fn main() -> ExitCode {
    match classify(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("classify: {error}");
            ExitCode::FAILURE
        }
    }
}

fn classify(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let bar = ProgressBar::new(4).with_style(ProgressStyle::with_template("{bar:30} {msg}")?);
    let step = |message: &'static str| {
        bar.set_message(message);
        bar.inc(1);
    };

    step("weights");
    let network = match options.network.as_str() {
        "mobilenet_v1" => nets::mobilenet_v1(options.width, options.classes)?,
        _ => nets::mobilenet_v2(options.width, options.classes)?,
    };
    let weights = match &options.weights {
        Some(path) => network.weights(&std::fs::read(path)?)?,
        None => random_weights(&network)?,
    };
    step("image");
    let picture = match &options.image {
        Some(path) => ImageReader::open(path)?.with_guessed_format()?.decode()?.into_rgb8(),
        None => sunset(),
    };
    let pixels = normalized(&picture, &network).repeat(options.batch as usize);
    step("device");
    let gpu = GpuConv::new()?;
    let borrowed: Vec<Weights<'_>> = weights.iter().map(OwnedWeights::borrow).collect();
    let layer = gpu.chain_with(&network.chain, &borrowed, Choice::Fusion(options.fusion))?;
    step("shaders");
    let x = gpu.empty([options.batch, 3, SIZE, SIZE], Layout::Nchw)?;
    let y = gpu.empty([options.batch, options.classes, 1, 1], Layout::Nchw)?;
    let bound = layer.bind(&x, None, &y)?;
    let infer = || {
        gpu.write(&x, &pixels)?;
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        bound.encode(&mut encoder);
        let logits = gpu.encode_download(&mut encoder, &y)?;
        gpu.queue().submit([encoder.finish()]);
        logits.read()
    };
    let logits = infer()?;
    let first = start.elapsed();
    bar.finish_and_clear();

    let labels = options.labels.as_ref().map(std::fs::read_to_string).transpose()?.unwrap_or_default();
    let labels: Vec<_> = labels.lines().collect();
    for (class, share) in nets::top(&nets::softmax(&logits[..options.classes as usize]), 5) {
        println!("{:6.2} %  {class:4}  {}", share * 100.0, labels.get(class).unwrap_or(&""));
    }
    let start = Instant::now();
    for run in 0..options.runs {
        if infer()?.iter().zip(&logits).any(|(now, before)| now.to_bits() != before.to_bits()) {
            return Err(format!("run {run} gives other logits than the first").into());
        }
    }
    let each = start.elapsed() / options.runs;
    println!(
        "{} on {}: first answer after {first:.2?}, then {each:.2?} a batch of {}, {:.1} images a second",
        network.name,
        gpu.device().adapter_info().name,
        options.batch,
        f64::from(options.batch) / each.as_secs_f64()
    );
    Ok(())
}

/// Rows and columns of the images that the networks were trained on.
const SIZE: u32 = 224;

/// The middle of the picture, its shorter side at 256, as the planes that the network was trained on.
fn normalized(picture: &RgbImage, network: &Network) -> Vec<f32> {
    // timm's MobileNetV1 was trained with Inception's, all others with ImageNet's.
    let (mean, deviation) = match network.name {
        "mobilenet_v1" => ([0.5; 3], [0.5; 3]),
        _ => ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    };
    let (width, height) = picture.dimensions();
    let scale = 256.0 / f64::from(width.min(height));
    let [width, height] = [width, height].map(|side| ((f64::from(side) * scale).round() as u32).max(SIZE));
    let resized = imageops::resize(picture, width, height, FilterType::CatmullRom);
    let middle = imageops::crop_imm(&resized, (width - SIZE) / 2, (height - SIZE) / 2, SIZE, SIZE).to_image();
    let plane = |channel: usize| middle.pixels().map(move |pixel| f32::from(pixel.0[channel]) / 255.0);
    (0..3).flat_map(|channel| plane(channel).map(move |value| (value - mean[channel]) / deviation[channel])).collect()
}

fn random_weights(network: &Network) -> gpuconv::Result<Vec<OwnedWeights>> {
    let data = Data::random("classify", &network.chain, [0, 3, SIZE, SIZE].into())?;
    Ok(data.weights.into_iter().map(|(weight, bias)| OwnedWeights { weight, bias }).collect())
}

/// A sun above the sea.
fn sunset() -> RgbImage {
    RgbImage::from_fn(400, 300, |x, y| {
        let from_sun = (f64::from(x) - 200.0).hypot(f64::from(y) - 150.0);
        match y {
            _ if from_sun < 40.0 && y < 180 => Rgb([255, 230, 120]),
            0..180 => Rgb([200 + (y / 4) as u8, 90 + (y / 3) as u8, 80]),
            _ => Rgb([60, 50 + (x / 8 + y * y / 40) as u8 % 24, 110]),
        }
    })
}
