//! Filters a picture of any size: Gaussian blur, sharpening, and Sobel's edges.
//!
//! `cargo run --release --example filter -- photograph.jpg FOLDER` writes blur.png, sharpen.png and edges.png into the
//! folder. Without a GPU, put `scripts/headless` before it. Without a photograph it draws a picture.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use gpuconv::{Activation, Chain, Conv2d, GpuConv, Layout, Weights};
use image::{ExtendedColorType, RgbImage};

mod common;

pub struct Filter {
    pub name: &'static str,
    radius: u32, // pixels that an output depends on, on each side
    chain: Chain,
    weights: Vec<Vec<f32>>,
}

pub fn filters() -> [Filter; 3] {
    let each = |size: [u32; 2]| Conv2d::depthwise(3, size).bias(false);
    // Along rows, then along columns: 26 multiply-adds for each value instead of 169.
    let wide = gaussian(6, 2.5).repeat(3);
    let blur = Chain::new([each([1, 13]), each([13, 1])]);
    // Sharpening adds what a blur would remove: 2 x the picture - its blur.
    let bell = gaussian(2, 1.0);
    let mut mask: Vec<_> = bell.iter().flat_map(|y| bell.iter().map(move |x| -x * y)).collect();
    mask[12] += 2.0;
    let sharpen = each([5, 5]).activation(Activation::Clamp(0.0, 1.0));
    // A separable convolution. Depthwise are Sobel's two filters and their negatives; ReLU turns these into |x| and
    // |y|. Pointwise is their sum, with each colour weighted by its share of the brightness.
    let sobel = [[-1., 0., 1., -2., 0., 2., -1., 0., 1.], [-1., -2., -1., 0., 0., 0., 1., 2., 1.]];
    let both = sobel.map(|filter| [filter, filter.map(|weight| -weight)].concat()).concat();
    let shares = [0.2126, 0.7152, 0.0722].map(|share| [share; 4]).concat();
    let mix = Conv2d::pointwise(12, 1).bias(false).activation(Activation::Clamp(0.0, 1.0));
    let edges = Chain::new([each([3, 3]).channel_multiplier(4).activation(Activation::Relu), mix]);
    [
        Filter { name: "blur", radius: 6, chain: blur, weights: vec![wide.clone(), wide] },
        Filter { name: "sharpen", radius: 2, chain: sharpen.into(), weights: vec![mask.repeat(3)] },
        Filter { name: "edges", radius: 1, chain: edges, weights: vec![both.repeat(3), shares] },
    ]
}

/// A Gaussian at whole numbers, with a sum of 1.
fn gaussian(radius: i32, deviation: f32) -> Vec<f32> {
    let values: Vec<_> = (-radius..=radius).map(|x| (-0.5 * (x as f32 / deviation).powi(2)).exp()).collect();
    values.iter().map(|value| value / values.iter().sum::<f32>()).collect()
}

/// Filters a picture, prints the time, and returns the result plane by plane.
pub fn apply(gpu: &GpuConv, filter: &Filter, picture: &RgbImage) -> gpuconv::Result<Vec<f32>> {
    let weights: Vec<_> = filter.weights.iter().map(|weight| Weights::without_bias(weight)).collect();
    let layer = gpu.chain(&filter.chain, &weights)?;
    let [columns, rows] = [picture.width(), picture.height()].map(|extent| extent + 2 * filter.radius);
    // This compiles. It also refuses a picture that is too large for the device before allocating memory for it.
    layer.warm_up([1, 3, rows, columns], Layout::Nchw)?;
    let x =
        gpu.upload(&common::part(picture, [-i64::from(filter.radius); 2], [columns, rows]), [1, 3, rows, columns])?;
    let y = layer.forward(&x)?;
    gpu.wait()?;
    let (start, kernels) = (Instant::now(), layer.schedule(x.shape(), x.layout())?.name());
    layer.forward(&x)?;
    gpu.wait()?;
    println!("{:7}  {:.2?} by {kernels}", filter.name, start.elapsed());
    gpu.download(&y)
}

pub fn run(picture: Option<PathBuf>, folder: &Path) -> Result<(), Box<dyn Error>> {
    let (gpu, picture) = (GpuConv::new()?, common::picture(picture.as_deref())?);
    for filter in filters() {
        let path = folder.join(filter.name).with_extension("png");
        save(&path, &apply(&gpu, &filter, &picture)?, picture.dimensions())?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    common::exit_code(run(arguments.next(), &arguments.next().unwrap_or_default()))
}

/// Writes one plane as a grey picture, or three planes as a colour picture.
fn save(path: &Path, planes: &[f32], (width, height): (u32, u32)) -> image::ImageResult<()> {
    let pixels = (width * height) as usize;
    let values = (0..pixels).flat_map(|pixel| planes.iter().skip(pixel).step_by(pixels));
    let bytes: Vec<_> = values.map(|value| (value * 255.0).round() as u8).collect();
    let colour = if planes.len() == pixels { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    image::save_buffer(path, &bytes, width, height, colour)
}
