//! What the examples that work on pictures share.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use image::{ImageReader, Rgb, RgbImage};

/// Says what went wrong in words, where `Result` as a program's answer would print the error's fields.
pub fn exit_code(result: Result<(), Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// A JPEG or PNG file; without one a sun above the sea.
pub fn picture(path: Option<&Path>) -> Result<RgbImage, Box<dyn Error>> {
    let Some(path) = path else { return Ok(sunset()) };
    let named = |error: &dyn Error| format!("{}: {error}", path.display());
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(|error| named(&error))?;
    Ok(reader.decode().map_err(|error| named(&error))?.into_rgb8())
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
