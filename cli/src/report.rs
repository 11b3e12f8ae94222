//! `report`: how fast convolutions are on this device, as a page with charts.

mod bars;
mod chart;
mod data;
mod measure;
mod page;
mod roofline;
mod timeline;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Case, Failure, Outcome, Target, files, near, print, print_json, table};
use data::Report as Data;

/// The default problems: that of `examples/separable.rs`, layers of MobileNetV1 (arXiv 1704.04861, table 1), a layer of
/// ResNet, and a whole network.
const CASES: [&str; 8] = [
    "separable 1x512x128x128 -> 1024 k3 s2 p1",
    "separable 1x64x112x112 -> 128 k3 s2 p1 relu6",
    "separable 1x128x56x56 -> 128 k3 p1 relu6",
    "separable 1x256x28x28 -> 512 k3 s2 p1 relu6",
    "separable 1x512x14x14 -> 512 k3 p1 relu6",
    "separable 1x1024x7x7 -> 1024 k3 p1 relu6",
    "conv 1x64x56x56 -> 64 k3 p1 relu",
    "mobilenet_v2 1",
];

#[derive(Args)]
pub struct Report {
    /// Write the numbers as an object; write the page only with --output
    #[arg(long)]
    json: bool,
    /// Report a network; a problem line such as "mobilenet_v2 8 w0.5 nhwc" has more options
    #[arg(long, value_name = "NAME", value_parser = near::networks())]
    network: Option<String>,
    /// Number of images for the --network
    #[arg(long, default_value_t = 1, requires = "network", allow_negative_numbers = true)]
    batch: u32,
    /// Write the page to this file [default: report.html]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also write the charts as SVG files into this folder
    #[arg(long, value_name = "FOLDER")]
    svg: Option<PathBuf>,
    /// Measure nothing; report the numbers in a file that --json wrote
    #[arg(long, value_name = "FILE", conflicts_with_all = ["problems", "network", "batch"])]
    from: Option<PathBuf>,
    /// The problems to report; by default, some layers and a network
    problems: Vec<String>,
}

impl Report {
    pub fn execute(&self, target: &Target) -> Outcome {
        let report = match &self.from {
            Some(path) => {
                target.check("report --from", false, false)?;
                load(path)?
            }
            None => {
                let cases = self.cases()?;
                measure::measure(&target.open()?, &cases, self.json)?
            }
        };
        let mut written = Vec::new();
        if let Some(folder) = &self.svg {
            written.push(write_charts(folder, &report)?);
        }
        if self.output.is_some() || !self.json {
            let path = self.output.clone().unwrap_or_else(|| "report.html".into());
            write(&path, &page::html(&report)?)?;
            written.push(path.display().to_string());
        }
        if self.json {
            return print_json(&report);
        }
        let (layers, ceilings) = (report.layers.len(), &report.ceilings);
        print(&format!(
            "{}: {} GFLOP/s, {} GB/s, {layers} layers, in {}\n",
            report.device.name,
            table::figure(ceilings.gflops),
            table::figure(ceilings.gbps),
            written.join(" and ")
        ))
    }

    fn cases(&self) -> Outcome<Vec<Case>> {
        let network = self.network.as_ref().map(|name| format!("{name} {}", self.batch));
        let given: Vec<_> = self.problems.iter().map(String::as_str).chain(network.as_deref()).collect();
        let cases = if given.is_empty() { CASES.to_vec() } else { given };
        cases.into_iter().map(Case::parse).collect()
    }
}

impl From<Box<dyn std::error::Error>> for Failure {
    fn from(error: Box<dyn std::error::Error>) -> Self {
        Self::Call(format!("cannot draw a chart: {error}"))
    }
}

fn load(path: &Path) -> Outcome<Data> {
    let wrong = |what: &str| Failure::Call(format!("cannot read {}: {what}", path.display()));
    let bytes = fs::read(path).map_err(|error| wrong(&error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| wrong(&error.to_string()))
}

fn write(path: &Path, text: &str) -> Outcome {
    files::write(path, text.as_bytes())
        .map_err(|error| Failure::Call(format!("cannot write {}: {error}", path.display())))
}

/// Writes each chart as a file of its own, and returns the folder's name.
fn write_charts(folder: &Path, report: &Data) -> Outcome<String> {
    const WIDTH: u32 = 960;
    let unwritable = |error| Failure::Call(format!("cannot write {}: {error}", folder.display()));
    fs::create_dir_all(folder).map_err(unwritable)?;
    let device = &report.device;
    let title = [
        "Layers of networks under this device's roofline".into(),
        format!(
            "{}, {}; gpuconv {}, {}",
            device.name,
            device.driver,
            report.version,
            &report.time[..10.min(report.time.len())]
        ),
    ];
    let mut charts = vec![("roofline".to_string(), roofline::draw(report.into(), WIDTH, Some(&title))?)];
    if !report.separable.is_empty() {
        charts.push(("separable".into(), bars::draw(report, WIDTH)?));
    }
    for network in &report.networks {
        let stem: String =
            network.problem.chars().map(|c| if c.is_alphanumeric() || c == '.' { c } else { '_' }).collect();
        charts.push((stem, timeline::draw(network, WIDTH)?));
    }
    for (stem, svg) in charts {
        write(&folder.join(format!("{stem}.svg")), &chart::file(&svg))?;
    }
    Ok(folder.display().to_string())
}
