//! Colours what a photograph shows, by class, or blurs its background, with LR-ASPP on MobileNetV3:
//!
//! `cargo run --release --example segment -- --weights lraspp_mobilenet_v3_large.safetensors photograph.jpg
//! classes.png`, with torchvision's weights as safetensors. Without a GPU, put `scripts/headless` before it.
//!
//! Without weights it has some that were not trained, but worked out: they tell three colours apart, those of the sky,
//! the sun and the sea in the picture that it draws without a photograph.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use gpuconv::{GpuConv, Layout, OwnedWeights, nets};
use image::imageops::{self, FilterType};
use image::{GrayImage, Rgb, RgbImage};
use indicatif::{ProgressBar, ProgressStyle};

mod common;

#[derive(Parser)]
pub struct Options {
    /// JPEG or PNG
    image: Option<PathBuf>,
    /// Where the new picture goes
    #[arg(default_value = "segmented.png")]
    output: PathBuf,
    /// A safetensors file with torchvision's names
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Multiplier of the channels
    #[arg(long, default_value_t = 1.0)]
    width: f64,
    /// Classes that the weights are for; class 0 is the background
    #[arg(long, default_value_t = 21)]
    classes: u32,
    /// Blur the background, and leave the rest as it is
    #[arg(long)]
    blur: bool,
}

/// Rows or columns of the picture as the network sees it, whichever are more.
const LONGER: f64 = 512.0;

pub fn segment(options: &Options) -> Result<RgbImage, Box<dyn Error>> {
    let bar = ProgressBar::new(3).with_style(ProgressStyle::with_template("{bar:30} {elapsed}")?);
    let make = nets::lraspp_mobilenet_v3_large;
    let [published, own] = [make(options.width, options.classes)?, make(0.25, 3)?];
    let (network, weights) = match &options.weights {
        Some(path) => (&published, published.weights(&common::read(path)?)?),
        None => (&own, common::untrained::by_colour(&own)),
    };
    let picture = common::picture(options.image.as_deref())?;
    let (width, height) = picture.dimensions();
    let near = |extent: u32| ((f64::from(extent) * LONGER / f64::from(width.max(height))).round() as u32).max(1);
    let [columns, rows] = [width, height].map(near);
    let small = imageops::resize(&picture, columns, rows, FilterType::Triangle);
    bar.inc(1);
    let weights: Vec<_> = weights.iter().map(OwnedWeights::borrow).collect();
    let (gpu, shape, pixels) = (GpuConv::new()?, [1, 3, rows, columns], (rows * columns) as usize);
    let network = network.clone().sized(shape)?;
    let layer = gpu.chain(&network.chain, &weights)?;
    layer.warm_up(shape, Layout::Nchw)?;
    bar.inc(1);
    let y = layer.forward(&gpu.upload(&network.normalize(small.as_raw(), pixels), shape)?)?;
    let logits = gpu.download(&y)?;
    let class = |pixel: usize| {
        let of_pixel: Vec<_> = logits.iter().skip(pixel).step_by(pixels).copied().collect();
        nets::top(&of_pixel, 1).first().map_or(0, |(class, _)| *class as u8)
    };
    let classes: Vec<_> = (0..pixels).map(class).collect();
    bar.finish_and_clear();
    for class in 0..network.classes.min(256) {
        let count = classes.iter().filter(|&&own| u32::from(own) == class).count();
        if count > 0 {
            println!("class {class:2}: {:5.1} % of the picture", count as f64 / pixels as f64 * 100.0);
        }
    }
    let classes = GrayImage::from_raw(columns, rows, classes).ok_or("the network gave too few classes")?;
    let classes = imageops::resize(&classes, width, height, FilterType::Nearest);
    let blurred = if options.blur { imageops::blur(&picture, 6.0) } else { RgbImage::new(0, 0) };
    // Pascal VOC's colours: bits of the class's number.
    let colour =
        |class: u8| [0, 1, 2].map(|channel| (0..2).map(|i| (class >> (3 * i + channel) & 1) * (128 >> i)).sum::<u8>());
    Ok(RgbImage::from_fn(width, height, |x, y| match (classes.get_pixel(x, y).0[0], picture.get_pixel(x, y)) {
        (0, _) if options.blur => *blurred.get_pixel(x, y),
        (class, pixel) if class == 0 || options.blur => *pixel,
        (class, pixel) => {
            let colour = colour(class);
            Rgb([0, 1, 2].map(|channel| pixel.0[channel] / 2 + colour[channel] / 2))
        }
    }))
}

fn main() -> ExitCode {
    let options = Options::parse();
    common::exit_code(segment(&options).and_then(|picture| Ok(picture.save(&options.output)?)))
}
