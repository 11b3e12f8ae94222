//! `report`: its page and its charts as files. `browser.rs` checks them in a browser.

mod browser;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use roxmltree::{Document, Node, ParsingOptions};
use serde_json::Value;

/// The measurements for the README's picture.
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/report.json");

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpuconv"));
    // Tests must not use this user's tuning file.
    command.arg("report").args(args).env("XDG_CACHE_HOME", "/none").env("HOME", "/none").env("LOCALAPPDATA", "/none");
    command.output().unwrap()
}

fn stdout(args: &[&str]) -> String {
    let output = run(args);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A folder with the page of [`DATA`] and its charts.
struct Written {
    folder: tempfile::TempDir,
    data: Value,
}

impl Written {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
        let text = stdout(&["--from", DATA, "--output", &path("report.html"), "--svg", &path("charts")]);
        assert!(text.contains(&path("report.html")) && text.contains(&path("charts")), "{text}");
        Self { data: serde_json::from_slice(&std::fs::read(DATA).unwrap()).unwrap(), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn layers(&self) -> &[Value] {
        self.data["layers"].as_array().unwrap()
    }
}

fn parse(text: &str) -> Document<'_> {
    Document::parse_with_options(text, ParsingOptions { allow_dtd: true, ..Default::default() }).unwrap()
}

fn named<'a>(node: Node<'a, 'a>, name: &'static str) -> impl Iterator<Item = Node<'a, 'a>> {
    node.descendants().filter(move |node| node.tag_name().name() == name)
}

fn text_of(node: Node<'_, '_>) -> String {
    node.descendants().filter_map(|node| node.text().filter(|_| node.is_text())).collect()
}

fn number(node: Node<'_, '_>, attribute: &str) -> f64 {
    node.attribute(attribute).unwrap().parse().unwrap()
}

/// Left, top, right and bottom of a text, for glyphs as wide as those of the widest common font.
fn bounds(text: Node<'_, '_>) -> [f64; 4] {
    let (x, y, size) = (number(text, "x"), number(text, "y"), number(text, "font-size"));
    let width = 0.6 * size * text_of(text).trim().chars().count() as f64;
    let left = match text.attribute("text-anchor").unwrap() {
        "start" => x,
        "middle" => x - width / 2.0,
        _ => x - width,
    };
    // The text's point is at its top, its middle or its bottom.
    let top = match text.attribute("dy").unwrap() {
        "0.76em" => y,
        "0.5ex" => y - size / 2.0,
        _ => y - size,
    };
    [left, top, left + width, top + size]
}

fn assert_texts_do_not_overlap(svg: Node<'_, '_>, name: &str) {
    let texts: Vec<_> = named(svg, "text").map(|text| (text_of(text), bounds(text))).collect();
    assert!(texts.len() > 20, "{name}: {} texts", texts.len());
    let (width, height) = (number(svg, "width"), number(svg, "height"));
    for (index, (one, [left, top, right, bottom])) in texts.iter().enumerate() {
        assert!(*left >= 0.0 && *top >= 0.0 && *right <= width && *bottom <= height, "{name}: {one} is cut");
        for (other, [l, t, r, b]) in &texts[..index] {
            assert!(left >= r || l >= right || top >= b || t >= bottom, "{name}: {one} and {other} overlap");
        }
    }
}

#[test]
fn the_page_is_self_contained_and_has_every_number() {
    let written = Written::new();
    let html = written.read("report.html");
    // The page fetches nothing and has no scripts.
    assert!(!html.replace("http://www.w3.org/2000/svg", "").contains("://"));
    assert!(!html.contains("<script") && !html.contains("<link"));
    let page = parse(&html);
    let cells: Vec<String> = named(page.root_element(), "td").map(text_of).collect();
    for layer in written.layers() {
        for key in ["layer", "recipe"] {
            assert!(cells.iter().any(|cell| cell == layer[key].as_str().unwrap()), "{layer}");
        }
    }
    for comparison in written.data["separable"].as_array().unwrap() {
        for form in ["standard", "unfused", "fused"] {
            let count = grouped(comparison[form]["mult_adds"].as_u64().unwrap());
            assert!(cells.contains(&count), "{comparison}: {count}");
        }
    }
    for memory in written.data["memory"].as_array().unwrap() {
        for key in ["between", "unfused", "fused", "planned"] {
            assert!(cells.contains(&grouped(memory[key].as_u64().unwrap())), "{memory}");
        }
    }
    // There is a row for each layer, each step and each form, and there are the rows of the memory table.
    let rows = named(page.root_element(), "tbody").flat_map(|body| named(body, "tr")).count();
    let steps = written.data["networks"][0]["steps"].as_array().unwrap().len();
    assert_eq!(rows, written.layers().len() + steps + 3 * 6 + 7);
}

#[test]
fn the_link_has_the_numbers() {
    let written = Written::new();
    let html = written.read("report.html");
    let page = parse(&html);
    let link = named(page.root_element(), "a").find(|link| link.has_attribute("download")).unwrap();
    let encoded = link.attribute("href").unwrap().strip_prefix("data:application/json,").unwrap();
    let mut bytes = Vec::new();
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte.unwrap()).to_digit(16).unwrap() as u8;
                let high = digit(rest.next());
                high * 16 + digit(rest.next())
            }
            // A browser would end the link at the first of these.
            byte => {
                assert!(!b"#\"<> ".contains(&byte), "{}", char::from(byte));
                byte
            }
        });
    }
    assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), written.data);
}

#[test]
fn the_charts_show_every_layer_and_their_texts_do_not_overlap() {
    let written = Written::new();
    let html = written.read("report.html");
    let page = parse(&html);
    let charts: Vec<_> = named(page.root_element(), "svg").collect();
    // Roofline, bars and timeline, each for a page and for a phone.
    assert_eq!(charts.len(), 6);
    let count = |svg, name| named(svg, name).count();
    let multiplying = written.layers().iter().filter(|layer| layer["flops"].as_u64() != Some(0)).count();
    let steps = written.data["networks"][0]["steps"].as_array().unwrap().len();
    for pair in charts.chunks(2) {
        for svg in pair {
            let label = svg.attribute("aria-label").unwrap();
            assert_texts_do_not_overlap(*svg, label.split('.').next().unwrap());
        }
    }
    for svg in &charts[..2] {
        assert_eq!(count(*svg, "circle") + count(*svg, "polygon"), multiplying);
        let texts: Vec<_> = named(*svg, "text").map(text_of).collect();
        for name in ["depthwise", "pointwise", "implicit_gemm", "winograd", "separable"] {
            assert!(texts.iter().any(|text| text.trim() == name), "{name}: {texts:?}");
        }
    }
    for svg in &charts[2..4] {
        // Three in the legend, and three for each of three quantities.
        assert_eq!(count(*svg, "rect"), 3 + 3 * 3 * written.data["separable"].as_array().unwrap().len());
    }
    for svg in &charts[4..] {
        let legend = named(*svg, "text").filter(|text| text_of(*text).ends_with('%')).count();
        assert_eq!(count(*svg, "rect"), steps + legend);
    }
}

#[test]
fn takeaways_are_true() {
    let written = Written::new();
    let html = written.read("report.html");
    let page = parse(&html);
    let is_takeaway = |node: &Node<'_, '_>| node.attribute("class") == Some("takeaway");
    let said: Vec<_> = named(page.root_element(), "p").filter(is_takeaway).map(text_of).collect();
    let said: Vec<&str> = said.iter().map(String::as_str).collect();
    let [roofline, bars, timeline, memory] = said[..] else { panic!("{said:?}") };

    let ridge = written.data["ceilings"]["ridge"].as_f64().unwrap();
    let intensities = written.layers().iter().map(|layer| layer["intensity"].as_f64().unwrap());
    let intensities: Vec<_> = intensities.filter(|intensity| *intensity > 0.0).collect();
    let below = intensities.iter().filter(|intensity| **intensity < ridge).count();
    assert!(roofline.starts_with(&format!("{below} of {} layers do fewer than {ridge:.2} ", intensities.len())));
    let best = written.layers().iter().max_by(|a, b| {
        let share = |layer: &Value| layer["share_of_roofline"].as_f64().unwrap();
        share(a).total_cmp(&share(b))
    });
    assert!(roofline.contains(best.unwrap()["layer"].as_str().unwrap()), "{roofline}");

    let forms = written.data["separable"].as_array().unwrap().iter();
    let ms = |row: &Value, form: &str| row[form]["ms"].as_f64().unwrap();
    let ratios = forms.clone().map(|row| ms(row, "unfused") / ms(row, "standard"));
    let least = ratios.fold(f64::MAX, f64::min);
    assert!(bars.contains(&format!("take {least:.2} to ")), "{bars}");
    let paying = forms.clone().filter(|row| ms(row, "fused") < ms(row, "unfused")).count();
    let of = match paying {
        0 => "none of 6".to_string(),
        6 => "all 6".to_string(),
        some => format!("{some} of 6"),
    };
    assert!(bars.ends_with(&format!("fusing pays here for {of}.")), "{bars}");

    let steps = written.data["networks"][0]["steps"].as_array().unwrap();
    let time = |step: &Value| step["ms"].as_f64().unwrap();
    let total: f64 = steps.iter().map(time).sum();
    let longest = steps.iter().max_by(|a, b| time(a).total_cmp(&time(b))).unwrap();
    assert!(timeline.starts_with(&format!("{} steps take {total:.1} ms", steps.len())), "{timeline}");
    assert!(timeline.contains(longest["layer"].as_str().unwrap()), "{timeline}");

    let rows = written.data["memory"].as_array().unwrap().iter();
    let bytes = |row: &Value, key: &str| row[key].as_f64().unwrap();
    let most = rows.map(|row| 1.0 - bytes(row, "fused") / bytes(row, "unfused")).fold(0.0, f64::max);
    assert!(memory.contains(&format!("to {:.0} % of what is moved", 100.0 * most)), "{memory}");
}

#[test]
fn the_readmes_picture_matches_its_numbers() {
    let written = Written::new();
    let svg = written.read("charts/roofline.svg");
    let expected = std::fs::read_to_string(Path::new(DATA).with_file_name("roofline.svg")).unwrap();
    assert!(svg == expected, "draw it again: cargo run -- report --from docs/report.json --svg FOLDER");
    assert!(svg.len() < 60_000, "{}", svg.len());
    for name in ["roofline", "separable", "mobilenet_v2_1"] {
        let svg = written.read(&format!("charts/{name}.svg"));
        let chart = parse(&svg);
        assert_texts_do_not_overlap(chart.root_element(), name);
        assert!(svg.contains("prefers-color-scheme:dark"), "{name}");
    }
}

#[test]
fn measured_numbers_add_up() {
    let problems = ["separable 1x16x14x14 -> 24 k3 p1 relu6", "mobilenet_v1 1x3x32x32 -> 10 w0.25", "pool 1x8x7x7"];
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    let text = stdout(&[&["--json", "--output", page.to_str().unwrap()][..], &problems].concat());
    let data: Value = serde_json::from_str(&text).unwrap();
    let ceilings = &data["ceilings"];
    let value = |value: &Value, key: &str| value[key].as_f64().unwrap();
    let (gflops, gbps) = (value(ceilings, "gflops"), value(ceilings, "gbps"));
    for layer in data["layers"].as_array().unwrap() {
        let [ms, flops, bytes] = ["ms", "flops", "bytes"].map(|key| value(layer, key));
        assert!(ms > 0.0, "{layer}");
        let roof = gflops.min(gbps * flops / bytes);
        let share = if flops > 0.0 { flops / ms / 1e6 / roof } else { bytes / ms / 1e6 / gbps };
        assert!((value(layer, "share_of_roofline") / share - 1.0).abs() < 1e-6, "{layer}");
    }
    let separable = &data["separable"][0];
    // 14 * 14 pixels: 24 channels of 16 * 9 + 1, against 16 of 9 + 1 and 24 of 16 + 1.
    assert_eq!(separable["standard"]["mult_adds"], 196 * 24 * 145);
    assert_eq!(separable["unfused"]["mult_adds"], 196 * (160 + 24 * 17));
    assert_eq!(separable["fused"]["mult_adds"], separable["unfused"]["mult_adds"]);
    // The tensor between the halves, written and read.
    let between = 196 * 16 * 4;
    let bytes = |form: &str| separable[form]["bytes"].as_u64().unwrap();
    assert_eq!(bytes("unfused") - bytes("fused"), 2 * between);
    assert_eq!(data["memory"][0]["between"], between);
    let network = &data["networks"][0];
    let steps = network["steps"].as_array().unwrap();
    assert!((steps.iter().map(|step| value(step, "ms")).sum::<f64>() / value(network, "ms") - 1.0).abs() < 1e-9);
    assert_eq!(steps.iter().map(|step| step["links"].as_u64().unwrap()).sum::<u64>(), 29);
    // The page is complete, although there are only a few layers.
    let html = std::fs::read_to_string(&page).unwrap();
    let page = parse(&html);
    assert_eq!(named(page.root_element(), "svg").count(), 6);
    assert!(named(page.root_element(), "td").any(|cell| text_of(cell) == "pool 1x8x7x7"));
}

#[test]
fn wrong_calls_say_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    std::fs::write(path("none.json"), "{\"version\": 1}").unwrap();
    let unwritable = path("no/such/report.html");
    for (args, part) in [
        (&["--from", &path("missing.json")][..], "missing.json"),
        (&["--from", &path("none.json")], "none.json"),
        (&["--from", DATA, "--output", &unwritable], &unwritable),
        (&["--from", DATA, "pool 1x8x7x7"], "--from"),
        (&["--network", "resnet"], "resnet"),
        (&["conv 1x3x8x8 -> 4"], "conv"),
    ] {
        let output = run(args);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
        assert!(message.starts_with("gpuconv: ") && message.contains(part), "{args:?}: {message}");
    }
}

/// A whole number in groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap());
    groups.collect::<Vec<_>>().join(",")
}
