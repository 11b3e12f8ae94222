//! The roofline chart: each layer's speed over its operations for each byte, under the peaks of the device.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::chart::{self, Area, Box4, Chart, Family, GRID, LINE, MUTED, Point, TEXT, place};
use super::data::{Ceilings, Report, Step};
use crate::figures::figure;

/// What the chart is of.
#[derive(Clone, Copy)]
pub struct Measured<'a> {
    pub device: &'a str,
    pub ceilings: &'a Ceilings,
    pub layers: &'a [Step],
}

impl<'a> From<&'a Report> for Measured<'a> {
    fn from(report: &'a Report) -> Self {
        Self { device: &report.device.name, ceilings: &report.ceilings, layers: &report.layers }
    }
}

/// The layers that can be drawn on logarithmic axes. A pool multiplies nothing, so it cannot.
fn points(measured: Measured<'_>) -> Vec<&Step> {
    measured.layers.iter().filter(|step| step.intensity > 0.0 && step.gflops > 0.0).collect()
}

/// The chart's message in words.
pub fn takeaway(measured: Measured<'_>) -> String {
    let points = points(measured);
    let Some(best) = points.iter().max_by(|a, b| a.share_of_roofline.total_cmp(&b.share_of_roofline)) else {
        return "Nothing was measured that multiplies.".into();
    };
    let ceilings = measured.ceilings;
    let below = points.iter().filter(|step| step.intensity < ceilings.ridge).count();
    let mut shares: Vec<_> = points.iter().map(|step| step.share_of_roofline).collect();
    shares.sort_by(f64::total_cmp);
    let above = shares.iter().filter(|share| **share > 1.0).count();
    let mut text = format!(
        "{below} of {} layers do fewer than {} operations for each byte they move, so that memory is their ceiling \
         and not arithmetic. Half of the layers reach {:.0} % of their ceiling or more; the nearest to it is {} by {} \
         with {:.0} %.",
        points.len(),
        figure(ceilings.ridge),
        100.0 * shares[shares.len() / 2],
        best.layer,
        best.recipe,
        100.0 * best.share_of_roofline,
    );
    if above > 0 {
        text += &format!(
            " ({above} lie above it: caches are faster than memory, and Winograd's method multiplies less often.)"
        );
    }
    text
}

/// The ticks in a range: powers of ten, and also 2 and 5 times these if there is room or if there are fewer than two.
fn ticks([low, high]: [f64; 2], pixels: u32) -> Vec<f64> {
    let decades = (high / low).log10();
    let all = |steps: &[f64]| {
        let powers = low.log10().floor() as i32..=high.log10().ceil() as i32;
        let ticks = powers.flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
        ticks.filter(|tick| (low * 0.999..=high * 1.001).contains(tick)).collect::<Vec<_>>()
    };
    let powers = all(&[1.0]);
    if f64::from(pixels) / decades >= 130.0 || powers.len() < 2 { all(&[1.0, 2.0, 5.0]) } else { powers }
}

/// Rounds to 1, 2 or 5 times a power of ten, up or down.
fn rounded(value: f64, up: bool) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    let found =
        if up { steps.into_iter().find(|step| *step >= value) } else { steps.into_iter().rfind(|step| *step <= value) };
    found.unwrap_or(value)
}

/// The ranges of both axes.
fn ranges(ceilings: &Ceilings, points: &[&Step]) -> [[f64; 2]; 2] {
    let span = |value: fn(&Step) -> f64, with: f64| {
        let values = || points.iter().map(|step| value(step)).chain([with]);
        [values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max)]
    };
    let [left, right] = span(|step| step.intensity, ceilings.ridge);
    let [bottom, top] = span(|step| step.gflops, ceilings.gflops);
    [[rounded(left * 0.9, false), rounded(right * 1.1, true)], [rounded(bottom * 0.9, false), rounded(top * 1.3, true)]]
}

/// Draws the chart `width` pixels wide, with a title if it is a file of its own.
pub fn draw(measured: Measured<'_>, width: u32, title: Option<&[String; 2]>) -> Chart {
    let head = if title.is_some() { 56 } else { 0 };
    let height = if width < 600 { 420 } else { 500 };
    let label = format!("Roofline of {}. {}", measured.device, takeaway(measured));
    chart::svg((width, height + head), &label, |area| {
        let (top, area) = area.split_vertically(head);
        if let Some([first, second]) = title {
            chart::text(&top, first, (12, 24), 16.0, TEXT, HPos::Left)?;
            chart::text(&top, second, (12, 45), 12.0, MUTED, HPos::Left)?;
        }
        plot(measured, &area, (width, height))
    })
}

fn plot(
    measured: Measured<'_>,
    area: &Area<'_>,
    (width, height): (u32, u32),
) -> Result<(), Box<dyn std::error::Error>> {
    let points = points(measured);
    let ceilings = measured.ceilings;
    let [x, y] = ranges(ceilings, &points);
    let (left, below) = (52, 46);
    let x_axis = (x[0]..x[1]).log_scale().with_key_points(ticks(x, width - left));
    let y_axis = (y[0]..y[1]).log_scale().with_key_points(ticks(y, height - below));
    let mut chart = ChartBuilder::on(area)
        .margin_top(28)
        .margin_right(20)
        .x_label_area_size(below)
        .y_label_area_size(left)
        .build_cartesian_2d(x_axis, y_axis)?;
    chart
        .configure_mesh()
        .axis_style(GRID.color())
        .bold_line_style(GRID.color())
        .light_line_style(TRANSPARENT)
        .label_style(chart::font(12.0, MUTED))
        .x_label_formatter(&|value| tick(*value))
        .y_label_formatter(&|value| tick(*value))
        .draw()?;
    let start = (y[0] / ceilings.gbps).max(x[0]);
    let roof = [(start, ceilings.gbps * start), (ceilings.ridge, ceilings.gflops), (x[1], ceilings.gflops)];
    chart.draw_series([PathElement::new(roof.to_vec(), LINE.color().stroke_width(2))])?;
    let pixel = |x: f64, y: f64| chart.backend_coord(&(x, y));
    // From here on, points are in pixels of the area.
    let (dx, dy) = area.get_base_pixel();
    let at = |(x, y): Point| (x - dx, y - dy);
    let spots: Vec<(Family, Point)> =
        points.iter().map(|step| (Family::of(&step.recipe), at(pixel(step.intensity, step.gflops)))).collect();
    let roof: Vec<Point> = roof.iter().map(|&(x, y)| at(pixel(x, y))).collect();
    let plot = {
        let ((l, b), (r, t)) = (at(pixel(x[0], y[0])), at(pixel(x[1], y[1])));
        Box4([l + 4, t + 2, r, b - 2])
    };
    chart::text(area, "GFLOP/s", (12, 12), 12.0, MUTED, HPos::Left)?;
    let below = (plot.0[2], height as i32 - 12);
    chart::text(area, "operations for each byte moved", below, 12.0, MUTED, HPos::Right)?;
    for (family, spot) in &spots {
        family.draw(area, *spot, 4)?;
    }
    labels(ceilings, area, plot, &roof, &spots)
}

/// Draws the names of the ceilings and the kernels, each near what it names.
fn labels(
    ceilings: &Ceilings,
    area: &Area<'_>,
    plot: Box4,
    roof: &[Point],
    spots: &[(Family, Point)],
) -> Result<(), Box<dyn std::error::Error>> {
    const SIZE: f64 = 13.0;
    let mut taken: Vec<Box4> = spots.iter().map(|(_, spot)| Box4::around(*spot, 7)).collect();
    taken.extend(along(roof).map(|point| Box4::around(point, 3)));
    let [slope, flat] = [0, 1].map(|part| along(&roof[part..part + 2]).collect::<Vec<_>>());
    // The name of the flat part goes at its end, that of the slope near its upper half.
    let ends = [flat[flat.len() - 1..].to_vec(), slope[slope.len() / 2..].to_vec()];
    // A phone has no room for the words. The units are enough.
    let words = if plot.0[2] - plot.0[0] < 450 { ["", ""] } else { ["arithmetic ", "memory "] };
    let names = [
        format!("{}{} GFLOP/s", words[0], figure(ceilings.gflops)),
        format!("{}{} GB/s", words[1], figure(ceilings.gbps)),
    ];
    for (name, points) in names.iter().zip(ends) {
        let under: Vec<Point> = points.iter().map(|(x, y)| (x + 40, y + 30)).collect();
        if let Some(found) = place((chart::width(name, SIZE), 18), plot, &points, &under, &taken) {
            let Box4([left, top, ..]) = found;
            chart::text(area, name, (left, top + 9), SIZE, LINE, HPos::Left)?;
            taken.push(found);
        }
    }
    let mut families: Vec<Family> = Vec::new();
    spots.iter().for_each(|(family, _)| {
        if !families.contains(family) {
            families.push(*family)
        }
    });
    for family in families {
        let of =
            |own: bool| spots.iter().filter(|spot| (spot.0 == family) == own).map(|spot| spot.1).collect::<Vec<_>>();
        let size = (chart::width(family.name, SIZE), 18);
        if let Some(found) = place(size, plot, &of(true), &of(false), &taken) {
            let Box4([left, top, ..]) = found;
            chart::text(area, family.name, (left, top + 9), SIZE, family.ink, HPos::Left)?;
            taken.push(found);
        }
    }
    Ok(())
}

/// Points along a line, every few pixels.
fn along(line: &[Point]) -> impl Iterator<Item = Point> {
    line.windows(2).flat_map(|ends| {
        let [(x0, y0), (x1, y1)] = [ends[0], ends[1]];
        let steps = ((x1 - x0).abs().max((y1 - y0).abs()) / 4).max(1);
        (0..=steps).map(move |step| (x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps))
    })
}

/// A tick's number, without zeros behind the point.
fn tick(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_worked_out_by_hand() {
        assert_eq!(ticks([0.5, 200.0], 200), [1.0, 10.0, 100.0]);
        assert_eq!(ticks([0.5, 20.0], 800), [0.5, 1.0, 2.0, 5.0, 10.0, 20.0]);
        // Fewer than two powers of ten.
        assert_eq!(ticks([2.0, 50.0], 10), [2.0, 5.0, 10.0, 20.0, 50.0]);
        assert_eq!([0.5, 100.0, 20000.0, 0.002].map(tick), ["0.5", "100", "20000", "0.002"]);
    }

    #[test]
    fn ends_of_axes_worked_out_by_hand() {
        assert_eq!([rounded(0.3, false), rounded(0.3, true), rounded(130.0, true)], [0.2, 0.5, 200.0]);
        assert_eq!([rounded(7.0, false), rounded(7.0, true)], [5.0, 10.0]);
    }
}
