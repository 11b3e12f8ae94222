//! The report as one HTML file.

use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};
use serde::Serialize;

use super::data::{Network, Report};
use super::{bars, chart, roofline, timeline};
use crate::{Failure, Outcome, table};

/// Widths of a chart in pixels: for a screen, and for a phone.
const WIDTHS: [u32; 2] = [960, 360];

/// A chart in both widths, and its message in words.
#[derive(Serialize)]
struct Figure {
    takeaway: String,
    wide: String,
    narrow: String,
}

impl Figure {
    fn new(takeaway: String, draw: impl Fn(u32) -> chart::Chart) -> Outcome<Self> {
        let [wide, narrow] = WIDTHS.map(draw);
        Ok(Self { takeaway, wide: wide?, narrow: narrow? })
    }
}

/// The message of the table of bytes.
fn memory_takeaway(report: &Report) -> String {
    let saved = report.memory.iter().map(|memory| 1.0 - memory.fused as f64 / memory.unfused as f64);
    let (least, most) = saved.fold((f64::MAX, f64::MIN), |(least, most), saved| (least.min(saved), most.max(saved)));
    let share = |share: f64| format!("{:.0} %", 100.0 * share);
    let range = if share(least) == share(most) { share(least) } else { format!("{} to {}", share(least), share(most)) };
    let planned = report.memory.iter().filter(|memory| memory.planned < memory.unfused).count();
    format!(
        "The tensors between links are {range} of what is moved if each link runs alone. The planner saves some of \
         this traffic for {}.",
        chart::of(planned, report.memory.len())
    )
}

/// The report's page.
pub fn html(report: &Report) -> Outcome<String> {
    let roofline = Figure::new(roofline::takeaway(report.into()), |width| roofline::draw(report.into(), width, None))?;
    let bars = match report.separable.is_empty() {
        true => None,
        false => Some(Figure::new(bars::takeaway(report), |width| bars::draw(report, width))?),
    };
    let timeline = |network: &Network| Figure::new(timeline::takeaway(network), |width| timeline::draw(network, width));
    let timelines = report.networks.iter().map(timeline).collect::<Outcome<Vec<_>>>()?;
    let memory = (!report.memory.is_empty()).then(|| memory_takeaway(report));
    let json = serde_json::to_string(report).map_err(|error| Failure::Call(error.to_string()))?;
    let ink = |ink: chart::Ink| [ink.light, ink.dark].map(|color| format!("#{color:06X}"));
    let page = context! {
        report, roofline, bars, timelines, memory, json,
        style => chart::style(),
        surface => ink(chart::SURFACE),
        text => ink(chart::TEXT),
        muted => ink(chart::MUTED),
        rule => ink(chart::GRID),
    };
    let failed = |error: minijinja::Error| Failure::Call(format!("cannot write the report: {error:#}"));
    environment().and_then(|environment| environment.get_template(NAME)?.render(page)).map_err(failed)
}

const NAME: &str = "page.html";

fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.add_filter("figure", table::figure);
    environment.add_filter("count", table::count);
    environment.add_template(NAME, include_str!("page.html"))?;
    Ok(environment)
}
