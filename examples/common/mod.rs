//! Shared by the examples that work on pictures.

// Each example uses only a part of this.
#![allow(dead_code)]

pub mod untrained;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use gpuconv::nets::{Make, NETWORKS, Task};
use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageDecoder, ImageReader, ImageResult, Limits, Rgb, RgbImage};

/// Prints an error's message. A `Result` returned from `main` would print its fields instead.
pub fn exit_code(result: Result<(), Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Reads a file. An error says which.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// What makes the network of this name, of those for a task.
pub fn network(name: &str, task: Task) -> Result<Make, String> {
    let networks = || NETWORKS.iter().filter(|(_, own, _)| *own == task);
    let names = || networks().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ");
    let known = networks().find(|(known, ..)| *known == name).map(|&(.., make)| make);
    known.ok_or_else(|| format!("no network for this is called {name}; there are {}", names()))
}

/// A part of a picture, from a column and a row on, as three planes of numbers from 0 to 1. What lies beyond the
/// picture is like the nearest of its pixels.
pub fn part(picture: &RgbImage, [left, top]: [i64; 2], [columns, rows]: [u32; 2]) -> Vec<f32> {
    let inside = |at: i64, extent: u32| at.clamp(0, i64::from(extent) - 1) as u32;
    let pixel = |x: i64, y: i64| picture.get_pixel(inside(x, picture.width()), inside(y, picture.height()));
    let pixels = || (top..top + i64::from(rows)).flat_map(|y| (left..left + i64::from(columns)).map(move |x| (x, y)));
    let plane = |channel: usize| pixels().map(move |(x, y)| f32::from(pixel(x, y).0[channel]) / 255.0);
    (0..3).flat_map(plane).collect()
}

/// Reads a JPEG or PNG file and turns it upright. Without a file it draws a sun above the sea.
pub fn picture(path: Option<&Path>) -> Result<RgbImage, Box<dyn Error>> {
    let Some(path) = path else { return Ok(sunset()) };
    Ok(decode(path).map_err(|error| format!("{}: {error}", path.display()))?)
}

fn decode(path: &Path) -> ImageResult<RgbImage> {
    // A file of a few bytes can claim to have any number of pixels.
    let mut limits = Limits::default(); // 512 MiB
    (limits.max_image_width, limits.max_image_height) = (Some(1 << 16), Some(1 << 16));
    let mut reader = ImageReader::open(path)?.with_guessed_format()?;
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    limits.reserve(decoder.total_bytes())?;
    decoder.set_limits(limits)?;
    // Cameras store the picture as the sensor saw it, and its orientation separately.
    let orientation = decoder.orientation()?;
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    Ok(picture.into_rgb8())
}

/// The middle `size` x `size` pixels of a picture, after resizing its shorter side to `side` pixels.
pub fn middle(picture: &RgbImage, side: u32, size: u32) -> RgbImage {
    // Crop before resizing: a picture one pixel wide would otherwise grow to thousands of times its size.
    let (width, height) = picture.dimensions();
    let shorter = width.min(height);
    let square = imageops::crop_imm(picture, (width - shorter) / 2, (height - shorter) / 2, shorter, shorter);
    let square = imageops::resize(&*square, side, side, FilterType::CatmullRom);
    let edge = (side - size) / 2;
    imageops::crop_imm(&square, edge, edge, size, size).to_image()
}

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
