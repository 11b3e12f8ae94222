//! The examples, run; the numbers of all but `classify`, whose networks have tests of their own, checked against loops
//! on the CPU that share nothing with the kernels.

// Each example is a program: what its own `main` uses is not used here, and what two share is here twice.
#![allow(dead_code, clippy::duplicate_mod)]

#[path = "../../examples/async_readback.rs"]
mod async_readback;
#[cfg(feature = "safetensors")]
#[path = "../../examples/classify.rs"]
mod classify;
#[path = "../../examples/filter.rs"]
mod filter;
#[path = "../../examples/in_your_app/main.rs"]
mod in_your_app;

use image::{Rgb, RgbImage};

use super::common::gpu;

/// What a filter makes of a value, by its own formula: `near(dx, dy)` is the value so far away.
fn filtered(name: &str, near: &dyn Fn(i64, i64) -> f64) -> f64 {
    let bell = |radius: i64, deviation: f64| {
        let weight = |x: i64, y: i64| (-0.5 * (x * x + y * y) as f64 / (deviation * deviation)).exp();
        let around = || (-radius..=radius).flat_map(|y| (-radius..=radius).map(move |x| (x, y)));
        let sum: f64 = around().map(|(x, y)| weight(x, y)).sum();
        around().map(|(x, y)| weight(x, y) * near(x, y)).sum::<f64>() / sum
    };
    match name {
        "blur" => bell(6, 2.5),
        "sharpen" => (2.0 * near(0, 0) - bell(2, 1.0)).clamp(0.0, 1.0),
        _ => {
            let step = |x: [i64; 2], y: [i64; 2]| near(x[1], y[1]) - near(x[0], y[0]);
            let right: f64 = [-1, 0, 0, 1].map(|y| step([-1, 1], [y, y])).iter().sum();
            let down: f64 = [-1, 0, 0, 1].map(|x| step([x, x], [-1, 1])).iter().sum();
            right.abs() + down.abs()
        }
    }
}

#[test]
fn filters_do_what_their_names_say() {
    let (width, height) = (37, 21);
    let picture = RgbImage::from_fn(width, height, |x, y| {
        Rgb([(x * 7 + y * y) as u8, (x * y) as u8, if x > y { 220 } else { 31 }])
    });
    let value = |channel: usize, x: i64, y: i64| {
        let inside = |at: i64, extent: u32| at.clamp(0, i64::from(extent) - 1) as u32;
        f64::from(picture.get_pixel(inside(x, width), inside(y, height)).0[channel]) / 255.0
    };
    let gpu = gpu();
    for filter in filter::filters() {
        let values = filter::apply(&gpu, &filter, &picture).unwrap();
        let mut expected = Vec::new();
        for channel in 0..3 {
            for (y, x) in (0..i64::from(height)).flat_map(|y| (0..i64::from(width)).map(move |x| (y, x))) {
                expected.push(filtered(filter.name, &|dx, dy| value(channel, x + dx, y + dy)));
            }
        }
        if filter.name == "edges" {
            let pixels = expected.len() / 3;
            let grey = |pixel| [0.2126, 0.7152, 0.0722].iter().zip(expected.iter().skip(pixel).step_by(pixels));
            let grey = |pixel| grey(pixel).map(|(share, value)| share * value).sum::<f64>().clamp(0.0, 1.0);
            expected = (0..pixels).map(grey).collect();
        }
        assert_eq!(values.len(), expected.len(), "{}", filter.name);
        for (at, (value, expected)) in values.iter().zip(expected).enumerate() {
            assert!((f64::from(*value) - expected).abs() < 2e-6, "{} {at}: {value} is not {expected}", filter.name);
        }
    }
}

#[test]
fn a_program_of_its_own_device_gets_its_picture() {
    let bytes = in_your_app::picture().unwrap();
    let size = in_your_app::SIZE as i64;
    let drawn = |channel: i64, x: i64, y: i64| match (0..size).contains(&x) && (0..size).contains(&y) {
        true => (channel + 1) * x * y / 4096 % 2,
        false => 0,
    };
    assert_eq!(bytes.len() as i64, size * size * 4);
    let mut grey = 0;
    for (at, pixel) in (0..).zip(bytes.chunks_exact(4)) {
        let (x, y) = (at % size, at / size);
        for channel in 0..3 {
            let near = (-2..=2).flat_map(|dy| (-2..=2).map(move |dx| (x + dx, y + dy)));
            let sum: i64 = near.map(|(x, y)| drawn(channel, x, y)).sum();
            let byte = i64::from(pixel[channel as usize]);
            // Bytes are rounded, and a half may go either way.
            assert!((byte * 25 - sum * 255).abs() <= 13, "{x},{y}: {byte} for {sum} of 25");
            grey += i64::from(sum % 25 != 0);
        }
        assert_eq!(pixel[3], 255);
    }
    assert!(grey > 10_000, "nothing is blurred");
}

#[test]
fn every_image_is_answered_without_waiting() {
    let mut middles = async_readback::middles().unwrap();
    middles.sort_by_key(|(image, _)| *image);
    // Sums of 32 channels' 3x3 windows.
    let expected: Vec<_> = (0..async_readback::IMAGES).map(|image| (image, (image * 32 * 9) as f32)).collect();
    assert_eq!(middles, expected);
}

/// A network so narrow that its shaders are compiled in a moment, whose weights are a fixture's.
#[cfg(feature = "safetensors")]
#[test]
fn a_picture_is_classified() {
    use clap::Parser;
    let weights = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/mobilenet_v2.timm.safetensors");
    let arguments = ["classify", "--width=0.05", "--classes=20", "--runs=1", "--batch=2", "--weights", weights];
    classify::classify(&classify::Options::parse_from(arguments)).unwrap();
}
