//! The page in Chromium: on a screen and on a phone, in the light and the dark scheme.

use std::path::Path;
use std::process::Command;

use image::{Rgb, RgbImage};
use serde_json::Value;

use super::{Written, named, parse};

/// Its names in Debian, in Fedora, and by Google.
const PROGRAMS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// Runs the first Chromium that is installed on a page, and returns its stdout.
fn chromium(page: &Path, dark: bool, [width, height]: [u32; 2], what: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    for program in PROGRAMS {
        let mut command = Command::new(program);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", what]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        // 0 is dark, 1 is light.
        command.arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)));
        command.arg(format!("--window-size={width},{height}"));
        command.arg(format!("file://{}", page.display()));
        match command.output() {
            Ok(output) => {
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                return String::from_utf8(output.stdout).unwrap();
            }
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{program}: {error}"),
        }
    }
    panic!("there is no Chromium here; on Debian and Ubuntu: apt-get install chromium");
}

/// The findings of `browser.js` about the page.
fn inspect(written: &Written, dark: bool, size: [u32; 2]) -> Value {
    let html = written.read("report.html");
    let script = format!("<script>{}</script></body>", include_str!("browser.js"));
    let page = written.path("probed.html");
    std::fs::write(&page, html.replace("</body>", &script)).unwrap();
    let dom = chromium(&page, dark, size, "--dump-dom");
    let start = dom.find("data-found=\"").expect("the script did not run") + "data-found=\"".len();
    let found = dom[start..].split('"').next().unwrap().replace("&quot;", "\"").replace("&gt;", ">");
    serde_json::from_str(&found.replace("&lt;", "<").replace("&amp;", "&")).unwrap()
}

fn screenshot(written: &Written, dark: bool, size: [u32; 2]) -> RgbImage {
    let name = format!("{}-{}.png", if dark { "dark" } else { "light" }, size[0]);
    let file = written.path(&name);
    chromium(&written.path("report.html"), dark, size, &format!("--screenshot={}", file.display()));
    // To look at them: GPUCONV_SCREENSHOTS names a folder.
    if let Ok(folder) = std::env::var("GPUCONV_SCREENSHOTS") {
        std::fs::copy(&file, Path::new(&folder).join(&name)).unwrap();
    }
    image::open(&file).unwrap().into_rgb8()
}

fn css(Rgb([red, green, blue]): Rgb<u8>) -> String {
    format!("rgb({red}, {green}, {blue})")
}

#[test]
#[ignore = "needs Chromium; run with --ignored"]
fn text_and_charts_are_in_place_on_screens_and_phones_in_light_and_dark() {
    let written = Written::new();
    let surfaces = [Rgb([0xFF, 0xFF, 0xFF]), Rgb([0x14, 0x18, 0x1D])];
    for size in [[1100, 3600], [390, 5600]] {
        for (dark, surface) in [false, true].into_iter().zip(surfaces) {
            let found = inspect(&written, dark, size);
            let place = format!("{size:?}, dark {dark}");
            assert!(found["scrolls"].as_i64().unwrap() <= 0, "{place}: the page scrolls sideways");
            assert_eq!(found["background"], css(surface), "{place}");
            let charts = found["charts"].as_array().unwrap();
            assert_eq!(charts.len(), 3, "{place}");
            for chart in charts {
                let none = Value::Array(Vec::new());
                assert!(chart["texts"].as_u64().unwrap() > 20, "{place}");
                assert_eq!([&chart["overlaps"], &chart["cut"]], [&none, &none], "{place}");
                assert!(chart["least"].as_f64().unwrap() > 9.9, "{place}: {} is too small to read", chart["least"]);
                for color in chart["colors"].as_array().unwrap() {
                    assert!(contrast(color.as_str().unwrap(), &css(surface)) >= 4.5, "{place}: {color}");
                }
            }

            let shot = screenshot(&written, dark, size);
            assert_eq!(shot.dimensions(), (size[0], size[1]));
            let count = |wanted: Rgb<u8>| shot.pixels().filter(|pixel| **pixel == wanted).count();
            let all = shot.pixels().count();
            assert_eq!(*shot.get_pixel(2, 2), surface, "{place}");
            assert!((all / 2..all * 99 / 100).contains(&count(surface)), "{place}: {} of {all}", count(surface));
            // The bars of depthwise and pointwise steps, in the scheme's own colours.
            for color in if dark { [0x6CB2F5, 0xF2A04E] } else { [0x1666B0, 0xB35300] } {
                let [_, red, green, blue] = u32::to_be_bytes(color);
                assert!(count(Rgb([red, green, blue])) > 1000, "{place}: {color:06X}");
            }
        }
    }
}

#[test]
#[ignore = "needs Chromium; run with --ignored"]
fn the_readmes_picture_has_a_light_and_a_dark_scheme() {
    let written = Written::new();
    let svg = written.read("charts/roofline.svg");
    let root = parse(&svg);
    let size = ["width", "height"].map(|side| root.root_element().attribute(side).unwrap().parse().unwrap());
    assert!(named(root.root_element(), "text").count() > 20);
    // Show it as an image in a page, so that the page's styles do not apply to it.
    let page = written.path("picture.html");
    std::fs::write(&page, "<body style='margin:0'><img src='charts/roofline.svg'></body>").unwrap();
    let [light, dark] = [false, true].map(|dark| {
        let file = written.path("picture.png");
        chromium(&page, dark, size, &format!("--screenshot={}", file.display()));
        image::open(&file).unwrap().into_rgb8()
    });
    // Not in the corner, which is round.
    let at = [size[0] / 2, 4];
    assert_eq!(light.get_pixel(at[0], at[1]), &Rgb([0xFF, 0xFF, 0xFF]));
    assert_eq!(dark.get_pixel(at[0], at[1]), &Rgb([0x14, 0x18, 0x1D]));
    let inked = |shot: &RgbImage| shot.pixels().filter(|pixel| *pixel != shot.get_pixel(at[0], at[1])).count();
    assert!(inked(&light) > 5000 && inked(&dark) > 5000, "{} {}", inked(&light), inked(&dark));
}

/// WCAG's contrast of two colours as CSS writes them.
fn contrast(one: &str, other: &str) -> f64 {
    let luminance = |color: &str| {
        let numbers = color.trim_start_matches("rgb(").trim_end_matches(')').split(", ");
        let linear = numbers.map(|number| match number.parse::<f64>().unwrap() / 255.0 {
            low if low <= 0.04045 => low / 12.92,
            high => ((high + 0.055) / 1.055).powf(2.4),
        });
        linear.zip([0.2126, 0.7152, 0.0722]).map(|(value, weight)| value * weight).sum::<f64>()
    };
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}
