//! Runs the examples. Their results are checked against loops on the CPU that share no code with the kernels, except
//! those of published weights, whose networks have their own tests.
//!
//! These tests are a program of their own, because one of them checks the peak memory of the process.

// Each example is a program. Items that only its `main` uses are unused here, and shared modules occur twice.
#![allow(dead_code, clippy::duplicate_mod)]

#[path = "../examples/async_readback.rs"]
mod async_readback;
#[cfg(feature = "safetensors")]
#[path = "../examples/classify.rs"]
mod classify;
#[path = "../examples/common/mod.rs"]
mod common;
#[path = "../examples/filter.rs"]
mod filter;
#[cfg(feature = "safetensors")]
#[path = "../examples/find_text.rs"]
mod find_text;
#[path = "../examples/in_your_app/main.rs"]
mod in_your_app;
#[cfg(feature = "safetensors")]
#[path = "../examples/segment.rs"]
mod segment;
#[cfg(feature = "safetensors")]
#[path = "../examples/upscale.rs"]
mod upscale;

use std::path::{Path, PathBuf};

use gpuconv::{Caps, Error, GpuConv};
use image::{ImageEncoder, Rgb, RgbImage};

fn gpu() -> GpuConv {
    GpuConv::new().unwrap_or_else(|error| panic!("{error}"))
}

/// The result of a filter at a pixel, by its own formula. `near(dx, dy)` is the value of the pixel at this distance.
fn filtered(name: &str, near: &dyn Fn(i64, i64) -> f64) -> f64 {
    let bell = |radius: i64, deviation: f64| {
        let weight = |x: i64, y: i64| (-0.5 * (x * x + y * y) as f64 / (deviation * deviation)).exp();
        let offsets = || (-radius..=radius).flat_map(|y| (-radius..=radius).map(move |x| (x, y)));
        let sum: f64 = offsets().map(|(x, y)| weight(x, y)).sum();
        offsets().map(|(x, y)| weight(x, y) * near(x, y)).sum::<f64>() / sum
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
    // The picture takes 9324 bytes. Devices compute one that is larger than a binding in bands.
    let gpu = gpu();
    let narrow = gpu.with_caps(|caps| Caps { max_storage_binding: 4096, ..caps });
    for (filter, gpu) in filter::filters().iter().flat_map(|filter| [(filter, &gpu), (filter, &narrow)]) {
        let values = filter::apply(gpu, filter, &picture).unwrap();
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
fn a_program_with_its_own_device_gets_its_picture() {
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
            // Bytes are rounded, and a half may round up or down.
            assert!((byte * 25 - sum * 255).abs() <= 13, "{x},{y}: {byte} for {sum} of 25");
            grey += i64::from(sum % 25 != 0);
        }
        assert_eq!(pixel[3], 255);
    }
    assert!(grey > 10_000, "nothing is blurred");
}

#[test]
fn every_image_has_its_result_without_blocking() {
    let mut middles = async_readback::middles().unwrap();
    middles.sort_by_key(|(image, _)| *image);
    // The sum over 3x3 windows of 32 channels.
    let expected: Vec<_> = (0..async_readback::IMAGES).map(|image| (image, (image * 32 * 9) as f32)).collect();
    assert_eq!(middles, expected);
}

/// Classifies with a fixture's network, which is so narrow that its shaders compile fast.
#[cfg(feature = "safetensors")]
fn classify(batch: &str, picture: Option<&Path>) {
    use clap::Parser;
    let weights = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/mobilenet_v2.timm.safetensors");
    let arguments = ["classify", "--width=0.05", "--classes=20", "--runs=1", "--batch", batch, "--weights", weights];
    let arguments = arguments.map(PathBuf::from).into_iter().chain(picture.map(PathBuf::from));
    classify::classify(&classify::Options::parse_from(arguments)).unwrap();
}

#[cfg(feature = "safetensors")]
#[test]
fn a_picture_is_classified() {
    classify("2", None);
}

/// A picture that was enlarged, its options as words.
#[cfg(feature = "safetensors")]
fn upscaled(picture: &Path, options: &[&str]) -> RgbImage {
    use clap::Parser;
    let arguments = [&["upscale", picture.to_str().unwrap()], options].concat();
    upscale::upscale(&upscale::Options::parse_from(arguments)).unwrap()
}

/// Sharpened and interpolated as Lanczos does it, also where two pieces of the picture meet.
#[cfg(feature = "safetensors")]
#[test]
fn a_picture_is_enlarged_by_interpolation() {
    use std::f64::consts::PI;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("picture.png");
    let (width, height) = (165, 6);
    let picture =
        RgbImage::from_fn(width, height, |x, y| Rgb([(x * 9 % 200) as u8, (y * 40) as u8, (x * y % 256) as u8]));
    picture.save(&path).unwrap();
    let at = |channel: usize, x: i64, y: i64| {
        let inside = |at: i64, extent: u32| at.clamp(0, i64::from(extent) - 1) as u32;
        f64::from(picture.get_pixel(inside(x, width), inside(y, height)).0[channel])
    };
    let sharp = |channel: usize, x: i64, y: i64| {
        let bell = |distance: i64| [0.5, 0.25][distance.unsigned_abs() as usize];
        let near = (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dx, dy)));
        let blurred: f64 = near.map(|(dx, dy)| bell(dx) * bell(dy) * at(channel, x + dx, y + dy)).sum();
        1.5 * at(channel, x, y) - 0.5 * blurred
    };
    let lanczos = |t: f64| match t {
        _ if t == 0.0 => 1.0,
        _ if t.abs() < 2.0 => 2.0 * (PI * t).sin() * (PI * t / 2.0).sin() / (PI * t).powi(2),
        _ => 0.0,
    };
    for scale in [2, 3] {
        let large = upscaled(&path, &["--network", &format!("espcn_x{scale}")]);
        assert_eq!(large.dimensions(), (width * scale, height * scale));
        let taps = |at: u32| {
            let place = (f64::from(at) + 0.5) / f64::from(scale) - 0.5;
            let first = place.floor() as i64 - 2;
            let taps: Vec<_> = (first..first + 6).map(|tap| (tap, lanczos(tap as f64 - place))).collect();
            let sum: f64 = taps.iter().map(|(_, share)| share).sum();
            taps.into_iter().map(move |(tap, share)| (tap, share / sum)).collect::<Vec<_>>()
        };
        for (x, y, pixel) in large.enumerate_pixels() {
            let (columns, rows) = (taps(x), taps(y));
            for channel in 0..3 {
                let row = |y| columns.iter().map(|&(x, share)| share * sharp(channel, x, y)).sum::<f64>();
                let expected = rows.iter().map(|&(y, share)| share * row(y)).sum::<f64>().clamp(0.0, 255.0);
                let found = f64::from(pixel.0[channel]);
                assert!((found - expected).abs() < 0.6, "x{scale} {x},{y},{channel}: {found} is not {expected}");
            }
        }
    }
}

#[cfg(feature = "safetensors")]
#[test]
fn photographs_are_enlarged_upright_by_published_weights() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("photograph.jpg");
    photograph(&path, 6);
    let fixture = |name: &str| format!("{}/tests/fixtures/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    let weights = fixture("srvgg_x2.real-esrgan");
    let large = upscaled(&path, &["--network=srvgg_x2", "--width=0.1", "--weights", &weights]);
    assert_eq!(large.dimensions(), (96, 128));
    // Where all that a pixel depends on has one colour, all pixels of a place in their square are equal, up to the
    // edge.
    let at = |x, y| large.get_pixel(x, y);
    assert_eq!([at(0, 0), at(1, 1)], [at(8, 20), at(9, 21)]);
    assert!(large.pixels().any(|pixel| pixel != at(0, 0) && pixel != at(1, 1)));
}

/// The sky of the drawn picture is the background; the sun and the sea are classes.
#[cfg(feature = "safetensors")]
#[test]
fn a_picture_is_segmented() {
    use clap::Parser;
    let picture = common::picture(None).unwrap();
    let found = |options: &[&str]| {
        let arguments = [&["segment"], options].concat();
        segment::segment(&segment::Options::parse_from(arguments)).unwrap()
    };
    let (coloured, blurred) = (found(&[]), found(&["--blur"]));
    assert_eq!((coloured.dimensions(), blurred.dimensions()), (picture.dimensions(), picture.dimensions()));
    let [sky, sun, sea] = [(30, 60), (200, 140), (100, 260)];
    let halves = |(x, y), colour: [u8; 3]| {
        let pixel = picture.get_pixel(x, y).0;
        Rgb([0, 1, 2].map(|channel| pixel[channel] / 2 + colour[channel] / 2))
    };
    let at = |picture: &RgbImage, (x, y)| *picture.get_pixel(x, y);
    assert_eq!(at(&coloured, sky), at(&picture, sky));
    assert_eq!([at(&coloured, sun), at(&coloured, sea)], [halves(sun, [128, 0, 0]), halves(sea, [0, 128, 0])]);
    // Of each region all but its edge.
    let is_coloured = |(x, y)| at(&coloured, (x, y)) != at(&picture, (x, y));
    let wrong = |(x, y): &(u32, u32)| {
        let is_sky = *y < 180 && (f64::from(*x) - 200.0).hypot(f64::from(*y) - 150.0) >= 40.0;
        is_coloured((*x, *y)) == is_sky
    };
    let pixels = || (0..300).flat_map(|y| (0..400).map(move |x| (x, y)));
    assert!(pixels().filter(wrong).count() < 120_000 / 50, "{}", pixels().filter(wrong).count());
    assert_eq!([at(&blurred, sun), at(&blurred, sea)], [at(&picture, sun), at(&picture, sea)]);
    assert!(pixels().any(|pixel| at(&blurred, pixel) != at(&picture, pixel)));
}

/// The peak resident memory of this process in bytes, or 0 if the system does not report it.
fn peak_resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    line.map_or(0, |kib| kib.parse::<u64>().unwrap() * 1024)
}

/// Without cropping before resizing, a picture one pixel wide would take 8 GB and a minute.
#[test]
fn no_picture_takes_much_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("thin.png");
    RgbImage::new(1, 40_000).save(&path).unwrap();
    #[cfg(feature = "safetensors")]
    classify("1", Some(&path));
    filter::run(Some(path), folder.path()).unwrap();
    for filter in filter::filters() {
        let size = image::image_dimensions(folder.path().join(filter.name).with_extension("png")).unwrap();
        assert_eq!(size, (1, 40_000), "{}", filter.name);
    }
    // A picture that is too large for the device is refused before it is converted to floats, which take four times as
    // much memory.
    let gpu = gpu().with_caps(|caps| Caps { max_buffer: 256 << 20, ..caps });
    for filter in filter::filters() {
        let refused = filter::apply(&gpu, &filter, &RgbImage::new(12_000, 12_000));
        assert!(matches!(refused, Err(Error::TooLarge { .. })), "{:?}", refused.map(|values| values.len()));
    }
    let peak = peak_resident();
    assert!(peak < 2 << 30, "{peak} bytes");
}

#[test]
fn a_picture_is_cropped_to_its_middle() {
    // It has 256 rows, so that it is not resized.
    let wide = RgbImage::from_fn(301, 256, |x, y| Rgb([x as u8, (x >> 8) as u8, y as u8]));
    let middle = common::middle(&wide, 256, 224);
    assert_eq!(middle.dimensions(), (224, 224));
    assert!(middle.enumerate_pixels().all(|(x, y, pixel)| pixel == wide.get_pixel(x + 22 + 16, y + 16)));
    // For any size, only the square in the middle is used.
    for (width, height) in [(1, 40_000), (40_000, 1), (3, 64), (640, 480), (480, 640), (513, 512)] {
        let side = width.min(height);
        let picture = RgbImage::from_fn(width, height, |x, y| {
            let is_inside = |at: u32, extent: u32| ((extent - side) / 2..(extent - side) / 2 + side).contains(&at);
            Rgb([u8::from(is_inside(x, width) && is_inside(y, height)) * 255; 3])
        });
        let middle = common::middle(&picture, 256, 224);
        assert!(middle.pixels().all(|pixel| pixel.0 == [255; 3]), "{width}x{height}");
    }
}

/// Writes a JPEG file of a picture of 48 x 64 in four levels of grey, as a camera stores it in some orientation. The
/// Exif standard's table says which sides of the picture row 0 and column 0 of the file are.
fn photograph(path: &Path, orientation: u8) {
    let (width, height) = (48, 64);
    let upright = |x: u32, y: u32| Rgb([(x / 24 * 80 + y / 32 * 160) as u8; 3]);
    let seen = |column: u32, row: u32| match orientation {
        1 => (column, row),
        2 => (width - 1 - column, row),
        3 => (width - 1 - column, height - 1 - row),
        4 => (column, height - 1 - row),
        5 => (row, column),
        6 => (width - 1 - row, column),
        7 => (width - 1 - row, height - 1 - column),
        _ => (row, height - 1 - column),
    };
    let (columns, rows) = if orientation < 5 { (width, height) } else { (height, width) };
    let stored = RgbImage::from_fn(columns, rows, |column, row| {
        let (x, y) = seen(column, row);
        upright(x, y)
    });
    // A directory with one entry: tag 0x0112, with one 16-bit number.
    let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(std::fs::File::create(path).unwrap(), 100);
    encoder.set_exif_metadata(exif).unwrap();
    encoder.write_image(&stored, columns, rows, image::ExtendedColorType::Rgb8).unwrap();
}

#[test]
fn photographs_are_upright() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("photograph.jpg");
    for orientation in 1..=8 {
        photograph(&path, orientation);
        let picture = common::picture(Some(&path)).unwrap();
        assert_eq!(picture.dimensions(), (48, 64), "orientation {orientation}");
        let corners = [(0, 0), (47, 0), (0, 63), (47, 63)].map(|(x, y)| picture.get_pixel(x, y).0[0]);
        for (corner, expected) in corners.into_iter().zip([0, 80, 160, 240]) {
            assert!(corner.abs_diff(expected) < 3, "orientation {orientation}: {corners:?}");
        }
    }
    // An undefined orientation is ignored.
    photograph(&path, 9);
    assert_eq!(common::picture(Some(&path)).unwrap().dimensions(), (64, 48));
}

#[test]
fn a_picture_of_absurd_size_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.png");
    let refusal = |path: &Path| common::picture(Some(path)).err().map_or("taken".into(), |error| error.to_string());
    image::GrayImage::new(1, 70_000).save(&path).unwrap();
    let message = refusal(&path);
    assert!(message.starts_with(&format!("{}: ", path.display())) && message.contains("limit"), "{message}");
    // Only a header, which announces 60000 x 60000 pixels.
    let header = *b"\0\0\xEA\x60\0\0\xEA\x60\x08\x02\0\0\0";
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0DIHDR".to_vec();
    file.extend(header);
    file.extend(b"\x0F\xB0\xE2\x15");
    file.extend(b"\0\0\0\x0AIDAT");
    std::fs::write(&path, file).unwrap();
    assert!(refusal(&path).contains("imit"), "{}", refusal(&path));
}

/// A map with a slanted bar and an upright one, a dot, and a patch that is hardly text. The boxes must be where the
/// bars are, and larger by what the network shrinks lines by.
#[cfg(feature = "safetensors")]
#[test]
fn boxes_lie_around_lines_of_text() {
    let (width, height) = (200, 120);
    let (sin, cos) = (-0.5f32).sin_cos();
    let map: Vec<f32> = (0..width * height)
        .map(|at| {
            let (x, y) = ((at % width) as f32 + 0.5, (at / width) as f32 + 0.5);
            let (along, across) = ((x - 70.0) * cos + (y - 60.0) * sin, (y - 60.0) * cos - (x - 70.0) * sin);
            match (x, y) {
                _ if along.abs() < 40.0 && across.abs() < 4.0 => 0.9,
                (150.0..160.0, 20.0..100.0) => 0.8,
                (190.0..192.0, 10.0..12.0) => 1.0,
                (10.0..40.0, 100.0..110.0) => 0.5,
                _ => 0.1,
            }
        })
        .collect();
    let boxes = find_text::boxes(&map, width);
    assert_eq!(boxes.len(), 2, "{boxes:?}");
    // Grown by 1.5 x 80 x 8 / 176 and 1.5 x 80 x 10 / 180 on each side.
    let slanted = [[-45.5f32, -9.5f32], [45.5, -9.5], [45.5, 9.5], [-45.5, 9.5]];
    let slanted = slanted.map(|[x, y]| [70.0 + x * cos - y * sin, 60.0 + x * sin + y * cos]);
    let upright = [[143.3, 13.3], [166.7, 13.3], [166.7, 106.7], [143.3, 106.7]];
    for expected in [slanted, upright] {
        let is_near = |corner: &[f32; 2], other: &[f32; 2]| (corner[0] - other[0]).hypot(corner[1] - other[1]) < 1.5;
        let fits =
            |corners: &[[f32; 2]; 4]| expected.iter().all(|other| corners.iter().any(|corner| is_near(corner, other)));
        assert!(boxes.iter().any(fits), "{expected:?} in {boxes:?}");
    }
    assert!(find_text::boxes(&[0.0; 12], 4).is_empty() && find_text::boxes(&[], 4).is_empty());
}

#[cfg(feature = "safetensors")]
#[test]
fn text_is_not_sought_without_the_networks_weights() {
    use clap::Parser;
    let find = |arguments: &[&str]| {
        let arguments = ["find_text", "photograph.jpg"].iter().chain(arguments);
        find_text::find(&find_text::Options::parse_from(arguments)).unwrap_err().to_string()
    };
    assert!(find(&[]).contains("--weights") && find(&[]).contains("scripts/ppocr"), "{}", find(&[]));
    let other =
        find(&["--weights", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/mobilenet_v2.timm.safetensors")]);
    assert!(other.contains("backbone.conv1.conv.weight"), "{other}");
}
