//! The bar chart: standard against separable convolution, in two steps and fused.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::chart::{self, Area, Chart, FORMS, GRID, LINE, MUTED, TEXT};
use super::data::{Comparison, Form, Report};

/// A quantity to compare: its name, its unit, and its value for a form.
type Measure = (&'static str, &'static str, fn(&Form) -> f64);

const MEASURES: [Measure; 3] = [
    ("time", "ms", |form| form.ms),
    ("multiply-adds", "M", |form| form.mult_adds as f64 / 1e6),
    ("memory access", "MB", |form| form.bytes as f64 / 1e6),
];

impl Comparison {
    pub fn forms(&self) -> [Option<&Form>; 3] {
        [self.standard.as_ref(), self.unfused.as_ref(), self.fused.as_ref()]
    }
}

/// The ratios of two forms in a quantity, for all problems that have both.
fn ratios(report: &Report, [one, other]: [usize; 2], of: fn(&Form) -> f64) -> Vec<f64> {
    let ratio = |comparison: &Comparison| {
        let forms = comparison.forms();
        Some(of(forms[one]?) / of(forms[other]?))
    };
    report.separable.iter().filter_map(ratio).collect()
}

fn span(ratios: &[f64]) -> String {
    let (least, most) = ratios.iter().fold((f64::MAX, f64::MIN), |(l, m), r| (l.min(*r), m.max(*r)));
    let [least, most] =
        [least, most].map(|ratio| if ratio < 3.0 { format!("{ratio:.2}") } else { format!("{ratio:.1}") });
    if least == most { least } else { format!("{least} to {most}") }
}

/// The chart's message in words.
pub fn takeaway(report: &Report) -> String {
    let [time, work, bytes] = MEASURES.map(|(_, _, of)| move |forms| ratios(report, forms, of));
    let mut text = String::new();
    let standard = work([1, 0]);
    if !standard.is_empty() {
        text += &format!(
            "In two steps, separable convolutions take {} of the standard ones' time and {} of their multiply-adds. ",
            span(&time([1, 0])),
            span(&standard)
        );
    }
    let fused = time([2, 1]);
    if !fused.is_empty() {
        let faster = fused.iter().filter(|ratio| **ratio < 1.0).count();
        text += &format!(
            "Fused in one, they move {} of the bytes and take {} times as long: fusing pays here for {}.",
            span(&bytes([2, 1])),
            span(&fused),
            chart::of(faster, fused.len())
        );
    }
    text.trim_end().into()
}

const BAR: i32 = 13;
const NAME: i32 = 20;
const GROUP: i32 = NAME + 3 * (BAR + 2) + 14;
const HEAD: i32 = 34;
const FOOT: i32 = 24;
/// Space to the right of the longest bar, for its number.
const ROOM: i32 = 74;

/// Draws the chart `width` pixels wide: a panel for each quantity, side by side or one below the other.
pub fn draw(report: &Report, width: u32) -> Chart {
    let abreast = width >= 600;
    let panel = HEAD + FOOT + report.separable.len() as i32 * GROUP;
    let names = FORMS.map(|(name, ink)| (name.to_string(), ink));
    let (places, legend) = chart::legend(&names, width as i32);
    let height = legend + if abreast { panel } else { 3 * panel };
    let label = format!("Standard against separable convolutions. {}", takeaway(report));
    chart::svg((width, height as u32), &label, |area| {
        chart::draw_legend(area, &names, &places)?;
        let (_, rest) = area.split_vertically(legend);
        let panels = rest.split_evenly(if abreast { (1, 3) } else { (3, 1) });
        for (index, (area, measure)) in panels.iter().zip(&MEASURES).enumerate() {
            plot(report, area, measure, !abreast || index == 0)?;
        }
        Ok(())
    })
}

/// Draws a panel. A bar's length is relative to the standard convolution's; its number is the amount itself.
fn plot(
    report: &Report,
    area: &Area<'_>,
    (name, unit, of): &Measure,
    named: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let (width, height) = area.dim_in_pixel();
    let (right, bottom) = (width as i32 - ROOM, height as i32 - FOOT);
    let base = |comparison: &Comparison| comparison.forms().into_iter().flatten().next().map_or(1.0, of);
    let share = |comparison: &Comparison, form: &Form| of(form) / base(comparison);
    let shares = report.separable.iter().flat_map(|c| c.forms().into_iter().flatten().map(move |form| share(c, form)));
    let most = shares.fold(1.0, f64::max);
    let x = |share: f64| 4 + (share / most * f64::from(right - 4)).round() as i32;
    chart::text(area, &format!("{name}, {unit}"), (4, 12), 13.0, TEXT, HPos::Left)?;
    // Grid lines at each half of the standard convolution's amount, further apart if there would be many.
    let step = if most > 3.0 { most.floor() / 2.0 } else { 0.5 };
    for index in 0..=(most / step) as i32 {
        let (share, at) = (f64::from(index) * step, x(f64::from(index) * step));
        area.draw(&PathElement::new([(at, HEAD - 8), (at, bottom)], GRID.color()))?;
        let side = if index == 0 { HPos::Left } else { HPos::Center };
        chart::text(area, &format!("{share}×"), (at, bottom + 12), 11.0, MUTED, side)?;
    }
    for (index, comparison) in report.separable.iter().enumerate() {
        let top = HEAD + index as i32 * GROUP;
        if named {
            let name = comparison.problem.strip_prefix("separable ").unwrap_or(&comparison.problem);
            // Some names are wider than their panel, but the next panel has nothing at that height.
            let room = width as i32 - 8;
            chart::text(area, &chart::fitted(name, 11.5, room), (4, top + 8), 11.5, TEXT, HPos::Left)?;
        }
        for (place, (form, (_, ink))) in comparison.forms().into_iter().zip(FORMS).enumerate() {
            let top = top + NAME + place as i32 * (BAR + 2);
            let Some(form) = form else {
                chart::text(area, "not here", (8, top + BAR / 2), 11.0, MUTED, HPos::Left)?;
                continue;
            };
            let end = x(share(comparison, form)).max(6);
            area.draw(&Rectangle::new([(4, top), (end, top + BAR)], ink.filled()))?;
            chart::text(area, &chart::amount(of(form)), (end + 5, top + BAR / 2), 11.0, LINE, HPos::Left)?;
        }
    }
    Ok(())
}
