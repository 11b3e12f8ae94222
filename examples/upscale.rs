//! Enlarges a picture two, three or four times, with ESPCN or Real-ESRGAN's compact SRVGG:
//!
//! `cargo run --release --example upscale -- --network srvgg_x4 --weights srvgg_x4.safetensors photograph.jpg
//! large.png`. Without a GPU, put `scripts/headless` before it. `scripts/animevideov3 srvgg_x4.safetensors` fetches
//! published weights.
//!
//! Without weights, ESPCN has some that were not trained, but worked out: they sharpen a little and interpolate as
//! Lanczos does. Without a photograph it draws a picture.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use gpuconv::nets::Task;
use gpuconv::{GpuConv, Layout, OwnedWeights};
use image::{Rgb, RgbImage};
use indicatif::{ProgressBar, ProgressStyle};

mod common;

#[derive(Parser)]
pub struct Options {
    /// JPEG or PNG
    image: Option<PathBuf>,
    /// Where the large picture goes
    #[arg(default_value = "upscaled.png")]
    output: PathBuf,
    /// espcn_x2, _x3, _x4, srvgg_x2, _x3, _x4 or realesr_general_x4v3
    #[arg(long, default_value = "espcn_x2")]
    network: String,
    /// A safetensors file with the authors' names
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Multiplier of the features
    #[arg(long, default_value_t = 1.0)]
    width: f64,
    /// Channels that the weights are for: 3, or 1, and then each colour is a picture of its own
    #[arg(long, default_value_t = 3)]
    channels: u32,
}

/// Rows and columns that are enlarged at a time.
const TILE: u32 = 160;
/// What they overlap on each side: an output of the deepest network depends on pixels up to 34 away.
const MARGIN: u32 = 34;

pub fn upscale(options: &Options) -> Result<RgbImage, Box<dyn Error>> {
    let make = common::network(&options.network, Task::SuperResolution)?;
    let [published, own] = [make(options.width, options.channels)?, make(1.0, 1)?];
    let (network, weights) = match &options.weights {
        Some(path) => (&published, published.weights(&common::read(path)?)?),
        None if options.network.starts_with("espcn") => (&own, common::untrained::interpolation(&own)),
        None => return Err(format!("{} needs weights: give --weights", options.network).into()),
    };
    let weights: Vec<_> = weights.iter().map(OwnedWeights::borrow).collect();
    let (gpu, picture) = (GpuConv::new()?, common::picture(options.image.as_deref())?);
    let (width, height) = picture.dimensions();
    let layer = gpu.chain(&network.chain, &weights)?;
    let side = TILE.min(width.max(height)) + 2 * MARGIN;
    let shape = [3 / network.classes, network.classes, side, side];
    let scale = layer.output_shape(shape)?.width / side;
    layer.warm_up(shape, Layout::Nchw)?;
    let mut large = RgbImage::new(width * scale, height * scale);
    let (across, down) = (width.div_ceil(TILE), height.div_ceil(TILE));
    let bar = ProgressBar::new((across * down).into()).with_style(ProgressStyle::with_template("{bar:30} {elapsed}")?);
    for tile in bar.wrap_iter(0..across * down) {
        let [left, top] = [tile % across, tile / across].map(|index| index * TILE);
        let corner = [left, top].map(|start| i64::from(start) - i64::from(MARGIN));
        let x = gpu.upload(&common::part(&picture, corner, [side; 2]), shape)?;
        let values = gpu.download(&layer.forward(&x)?)?;
        let [columns, rows] = [TILE.min(width - left), TILE.min(height - top)].map(|extent| extent * scale);
        for (x, y) in (0..rows).flat_map(|y| (0..columns).map(move |x| (x, y))) {
            let at = |plane: u32| (((plane * side + MARGIN) * scale + y) * side * scale + MARGIN * scale + x) as usize;
            let colour = [0, 1, 2].map(|plane| (values[at(plane)] * 255.0).round() as u8);
            large.put_pixel(left * scale + x, top * scale + y, Rgb(colour));
        }
    }
    Ok(large)
}

fn main() -> ExitCode {
    let options = Options::parse();
    common::exit_code(upscale(&options).and_then(|large| Ok(large.save(&options.output)?)))
}
