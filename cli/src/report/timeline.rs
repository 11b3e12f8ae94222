//! A network's timeline: its steps one below the other, each a bar from its start to its end.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::chart::{self, Area, Chart, Family, GRID, LINE, MUTED, amount};
use super::data::{Network, Step};
use crate::figures::figure;

/// The share of the time for each family of kernels, largest first.
fn shares(network: &Network) -> Vec<(Family, f64)> {
    let mut shares: Vec<(Family, f64)> = Vec::new();
    for step in &network.steps {
        let (family, share) = (Family::of(&step.recipe), step.ms / network.ms);
        match shares.iter_mut().find(|known| known.0 == family) {
            Some(known) => known.1 += share,
            None => shares.push((family, share)),
        }
    }
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    shares
}

/// The chart's message in words.
pub fn takeaway(network: &Network) -> String {
    let shares = shares(network);
    let Some(longest) = network.steps.iter().max_by(|a, b| a.ms.total_cmp(&b.ms)) else {
        return "There is nothing to do.".into();
    };
    let shares: Vec<_> =
        shares.iter().take(2).map(|(family, share)| format!("{} {:.0} %", family.name, 100.0 * share)).collect();
    format!(
        "{} steps take {} ms, one after the other. The largest shares: {}. The longest step is {}, with {} ms.",
        network.steps.len(),
        figure(network.ms),
        shares.join(", "),
        longest.layer,
        figure(longest.ms),
    )
}

/// What a step computes, for a narrow column: the operation, its channels and the size of its input.
fn short(step: &Step) -> String {
    let short = |link: &str| {
        let words: Vec<_> = link.split(' ').collect();
        let sizes: Vec<_> = words.get(1).map_or("", |shape| shape).split('x').collect();
        let [_, channels, height, width] = sizes[..] else { return link.to_string() };
        match words.iter().position(|word| *word == "->").and_then(|arrow| words.get(arrow + 1)) {
            Some(out) => format!("{} {channels}→{out} {height}x{width}", words[0]),
            None => format!("{} {channels} {height}x{width}", words[0]),
        }
    };
    step.layer.split(" + ").map(short).collect::<Vec<_>>().join(" + ")
}

const FOOT: i32 = 42;

/// Draws the chart `width` pixels wide, with names to the left of the bars or above them.
pub fn draw(network: &Network, width: u32) -> Chart {
    let (row, left) = if width < 600 { (27, 8) } else { (17, 230) };
    let name = |(family, share): (Family, f64)| (format!("{} {:.0} %", family.name, 100.0 * share), family.ink);
    let names: Vec<_> = shares(network).into_iter().map(name).collect();
    let (places, legend) = chart::legend(&names, width as i32);
    let height = legend + 6 + FOOT + network.steps.len() as i32 * row;
    let label = format!("Timeline of {}. {}", network.problem, takeaway(network));
    chart::svg((width, height as u32), &label, |area| {
        chart::draw_legend(area, &names, &places)?;
        let (_, area) = area.split_vertically(legend);
        plot(network, &area, (width as i32, height - legend), row, left)
    })
}

fn plot(
    network: &Network,
    area: &Area<'_>,
    (width, height): (i32, i32),
    row: i32,
    left: i32,
) -> Result<(), Box<dyn std::error::Error>> {
    let (right, bottom) = (width - 12, height - FOOT);
    let x = |ms: f64| left + (ms / network.ms * f64::from(right - left)).round() as i32;
    let step = interval(network.ms, (right - left) / 70);
    for index in 0..=(network.ms / step) as i32 {
        let at = x(f64::from(index) * step);
        area.draw(&PathElement::new([(at, 0), (at, bottom)], GRID.color()))?;
        // There are about ten, so no number needs more than three digits.
        let number = (f64::from(index) * step * 1e3).round() / 1e3;
        chart::text(area, &number.to_string(), (at, bottom + 12), 11.0, MUTED, HPos::Center)?;
    }
    chart::text(area, "ms since the first step began", (right, bottom + 31), 12.0, MUTED, HPos::Right)?;
    let mut start = 0.0;
    for (index, step) in network.steps.iter().enumerate() {
        let top = 6 + index as i32 * row;
        let bar = top + row - 13;
        let (from, to) = (x(start), x(start + step.ms).max(x(start) + 1));
        start += step.ms;
        let ink = Family::of(&step.recipe).ink;
        area.draw(&Rectangle::new([(from, bar), (to, bar + 10)], ink.filled()))?;
        let (name, time) = (short(step), amount(step.ms));
        let middle = bar + 5;
        if left > 100 {
            chart::text(area, &chart::fitted(&name, 11.0, left - 10), (left - 8, middle), 11.0, LINE, HPos::Right)?;
            let room = chart::width(&time, 10.5) + 6;
            let (at, side) = if to + room < right { (to + 4, HPos::Left) } else { (from - 4, HPos::Right) };
            chart::text(area, &time, (at, middle), 10.5, MUTED, side)?;
        } else {
            let name = chart::fitted(&format!("{name}  {time} ms"), 11.0, right - left);
            chart::text(area, &name, (left, top + 6), 11.0, LINE, HPos::Left)?;
        }
    }
    Ok(())
}

/// The smallest interval of 1, 2 or 5 times a power of ten that divides a span into at most `count` parts.
fn interval(span: f64, count: i32) -> f64 {
    let least = span / f64::from(count.max(1));
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|step| *step >= least).unwrap_or(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_worked_out_by_hand() {
        assert_eq!([interval(15.8, 10), interval(100.0, 10), interval(0.3, 4)], [2.0, 10.0, 0.1]);
    }
}
