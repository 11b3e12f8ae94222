//! Finds lines of text in a photograph with PP-OCRv4's detector, and draws boxes around them:
//!
//! `scripts/ppocr fetch FOLDER`, then `cargo run --release --example find_text -- --weights
//! FOLDER/ppocr_v4_det.safetensors FOLDER/photograph.png boxes.png`. Without a GPU, put `scripts/headless` before it.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use gpuconv::{GpuConv, Layout, OwnedWeights, nets};
use image::{Rgb, RgbImage, imageops};
use indicatif::{ProgressBar, ProgressStyle};

mod common;

#[derive(Parser)]
pub struct Options {
    /// JPEG or PNG
    image: PathBuf,
    /// Where the picture with the boxes goes
    #[arg(default_value = "boxes.png")]
    output: PathBuf,
    /// A safetensors file that `scripts/ppocr` wrote
    #[arg(long)]
    weights: Option<PathBuf>,
}

const LONGEST_SIDE: u32 = 960; // of what the network sees
const IS_TEXT: f32 = 0.3; // pixels of a higher probability are text
const IS_BOX: f32 = 0.6; // boxes whose pixels have a lower mean are dropped
const GROWTH: f32 = 1.5; // the network shrinks lines; boxes grow by this times their area over their perimeter

/// The boxes around a map's connected pixels of text. (Differentiable binarization, arXiv 1911.08947.)
pub fn boxes(map: &[f32], width: usize) -> Vec<[[f32; 2]; 4]> {
    let mut is_open: Vec<_> = map.iter().map(|&probability| probability > IS_TEXT).collect();
    let mut boxes = Vec::new();
    for start in 0..map.len() {
        let (mut stack, mut points, mut sum) = (vec![start], Vec::new(), 0.0);
        while let Some(at) = stack.pop() {
            if std::mem::take(&mut is_open[at]) {
                let (column, row) = (at % width, at / width);
                points.push([column as f32, row as f32]);
                sum += map[at];
                let rows = row.saturating_sub(1)..=(row + 1).min(map.len() / width - 1);
                let columns = column.saturating_sub(1)..=(column + 1).min(width - 1);
                stack.extend(rows.flat_map(|row| columns.clone().map(move |column| row * width + column)));
            }
        }
        if sum > IS_BOX * points.len() as f32 {
            boxes.extend(around(&points));
        }
    }
    boxes
}

/// A box along the direction in which pixels spread most, and a little larger; none if they are too few.
fn around(points: &[[f32; 2]]) -> Option<[[f32; 2]; 4]> {
    let sum = |term: &dyn Fn(f32, f32) -> f32| points.iter().map(|&[x, y]| term(x, y)).sum::<f32>();
    let [x0, y0] = [sum(&|x, _| x), sum(&|_, y| y)].map(|sum| sum / points.len() as f32);
    let slant = 2.0 * sum(&|x, y| (x - x0) * (y - y0));
    let (sin, cos) = (slant.atan2(sum(&|x, y| (x - x0).powi(2) - (y - y0).powi(2))) / 2.0).sin_cos();
    let range = |along: &dyn Fn(f32, f32) -> f32| {
        let values = points.iter().map(|&[x, y]| along(x - x0, y - y0));
        values.fold([0f32; 2], |[low, high], at| [low.min(at - 0.5), high.max(at + 0.5)])
    };
    let [[left, right], [top, bottom]] = [range(&|x, y| x * cos + y * sin), range(&|x, y| y * cos - x * sin)];
    let (length, height) = (right - left, bottom - top);
    let more = GROWTH * length * height / (2.0 * (length + height));
    let [left, right, top, bottom] = [left - more, right + more, top - more, bottom + more];
    let corners = [[left, top], [right, top], [right, bottom], [left, bottom]];
    let turned = |[x, y]: [f32; 2]| [x0 + 0.5 + x * cos - y * sin, y0 + 0.5 + x * sin + y * cos];
    (length.min(height) >= 3.0).then(|| corners.map(turned))
}

/// Draws a line of three pixels' thickness.
fn draw(picture: &mut RgbImage, from: [f32; 2], to: [f32; 2]) {
    let steps = (to[0] - from[0]).abs().max((to[1] - from[1]).abs()).ceil().max(1.0);
    for (step, dot) in (0..=steps as u32).flat_map(|step| (0..9).map(move |dot| (step, dot))) {
        let [x, y] = [0, 1].map(|axis| (from[axis] + (to[axis] - from[axis]) * step as f32 / steps) as u32);
        if let Some(pixel) = picture.get_pixel_mut_checked(x + dot % 3, y + dot / 3) {
            *pixel = Rgb([40, 255, 90]);
        }
    }
}

pub fn find(options: &Options) -> Result<(), Box<dyn Error>> {
    let path = options.weights.as_ref().ok_or("give --weights: `scripts/ppocr fetch FOLDER` writes the file")?;
    let bar = ProgressBar::new(2).with_style(ProgressStyle::with_template("{bar:30} {elapsed}")?);
    let network = nets::ppocr_v4_det(1.0, 1)?;
    let weights = network.weights(&common::read(path)?)?;
    let mut picture = common::picture(Some(&options.image))?;
    // The network takes multiples of 32, and reads blue, green, red.
    let (longer, size) = (picture.width().max(picture.height()), [picture.width(), picture.height()]);
    let factor = (LONGEST_SIDE as f32 / longer as f32).min(1.0);
    let [width, height] = size.map(|extent| (extent as f32 * factor / 32.0).round().max(1.0) as u32 * 32);
    let mut seen = imageops::resize(&picture, width, height, imageops::FilterType::Triangle);
    seen.pixels_mut().for_each(|pixel| pixel.0.reverse());
    let (gpu, weights) = (GpuConv::new()?, weights.iter().map(OwnedWeights::borrow).collect::<Vec<_>>());
    let layer = gpu.chain(&network.chain, &weights)?;
    layer.warm_up([1, 3, height, width], Layout::Nchw)?;
    bar.inc(1);
    let pixels = network.normalize(&seen, (width * height) as usize);
    let map = gpu.download(&layer.forward(&gpu.upload(&pixels, [1, 3, height, width])?)?)?;
    bar.finish_and_clear();
    let boxes = boxes(&map, width as usize);
    for corners in &boxes {
        let [a, b, c, d] =
            corners.map(|[x, y]| [x * size[0] as f32 / width as f32, y * size[1] as f32 / height as f32]);
        [(a, b), (b, c), (c, d), (d, a)].into_iter().for_each(|(from, to)| draw(&mut picture, from, to));
    }
    picture.save(&options.output).map_err(|error| format!("{}: {error}", options.output.display()))?;
    println!("{} lines of text, drawn in {}", boxes.len(), options.output.display());
    Ok(())
}

fn main() -> ExitCode {
    common::exit_code(find(&Options::parse()))
}
