//! A plan as text.

use comfy_table::CellAlignment;

use super::explain::{Bands, MAX_LISTED, Planned, Step};
use crate::table::{self, count, figure};

/// The steps, their memory traffic and workspace, and the candidates that were rejected.
pub fn text(planned: &Planned) -> String {
    let Planned { problem, adapter, schedule, why, workspace, traffic, .. } = planned;
    let mut text = format!("{problem}\non {adapter}: {schedule}\n{why}\n");
    if !planned.bands.is_empty() {
        text += "tensors or weights are too large for one binding; the plan is for the first band of\n";
        for bands in &planned.bands {
            let line =
                if bands.adds_sums { format!("link {}: the sums of these", bands.first) } else { self::bands(bands) };
            text += &format!("  {line}\n");
        }
    }
    if let Some(ms) = planned.whole_ms {
        text += &format!("all bands together take {} ms, without copies\n", figure(ms));
    }
    text += &format!("\n{}\n\n", steps(&planned.steps));
    text += &format!(
        "memory access: {} bytes as planned, {} if each link ran alone, {} if no tensor between links went to memory\n\
         workspace: {} bytes, {} without reuse\n",
        count(traffic.planned),
        count(traffic.unfused),
        count(traffic.fused),
        count(workspace.bytes),
        count(workspace.bytes_without_reuse),
    );
    // A network has hundreds of candidates; --json lists them.
    if planned.steps.len() <= MAX_LISTED {
        text += &format!("\n{}\n", rejected(planned));
    }
    text
}

/// What is computed together, in words.
fn bands(bands: &Bands) -> String {
    let Bands { images, channels, out_channels, rows, columns, .. } = *bands;
    let count =
        |count: u32, what: &str| format!("{} {what}{}", table::count(count.into()), if count == 1 { "" } else { "s" });
    let counts = [
        (images, "image"),
        (channels, "channel"),
        (out_channels, "output channel"),
        (rows, "row"),
        (columns, "column"),
    ];
    let counts: Vec<_> = counts.into_iter().filter_map(|(part, what)| Some(count(part?, what))).collect();
    let links = if bands.links == 1 { "link" } else { "links" };
    let links = format!("{links} {}", span(bands.first, bands.links));
    if counts.is_empty() {
        return format!("{links}: all at once");
    }
    let mut text = format!("{links}: {} of {}", count(bands.bands as u32, "band"), counts.join(", "));
    if bands.copied_in + bands.copied_out > 0 {
        let [into, out] = [bands.copied_in, bands.copied_out].map(table::count);
        text += &format!("; {into} bytes are copied into them, {out} out of them");
    }
    text
}

fn steps(steps: &[Step]) -> String {
    let header = [
        "links",
        "recipe",
        "workgroups",
        "MFLOP",
        "done",
        "bytes",
        "flop/byte",
        "model ms",
        "measured ms",
        "of roofline",
        "occupancy",
        "bound",
        "why",
    ];
    let mut table = table::new(header, 2);
    for step in steps {
        let workgroups: Vec<_> =
            step.passes.iter().map(|p| format!("{} of {}", count(p.workgroups), p.workgroup)).collect();
        // Without --measure, show the time that tuning measured.
        let measured = step.measured_ms.or((step.ms != step.model_ms).then_some(step.ms));
        table.add_row([
            span(step.first, step.links),
            step.recipe.clone(),
            workgroups.join("\n"),
            figure(step.flops as f64 / 1e6),
            figure(step.flops_done as f64 / 1e6),
            count(step.bytes),
            figure(step.intensity),
            figure(step.model_ms),
            measured.map_or("-".into(), figure),
            format!("{:.0} %", step.share_of_roofline * 100.0),
            format!("{:.0} %", step.occupancy * 100.0),
            step.bound.into(),
            step.why.clone(),
        ]);
    }
    for column in [11, 12] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Left);
        }
    }
    table.to_string()
}

fn rejected(planned: &Planned) -> String {
    let mut table = table::new(["links", "rejected", "model ms", "measured ms", "why"], 2);
    for candidate in planned.candidates.iter().filter(|candidate| !candidate.taken) {
        table.add_row([
            span(candidate.first, candidate.links),
            candidate.recipe.clone().unwrap_or_else(|| candidate.kernel.into()),
            candidate.ms.map_or("-".into(), figure),
            candidate.measured_ms.map_or("-".into(), figure),
            candidate.reason.clone().unwrap_or_default(),
        ]);
    }
    if let Some(why) = table.column_mut(4) {
        why.set_cell_alignment(CellAlignment::Left);
    }
    table.to_string()
}

/// The links of a run, counted from 0.
fn span(first: usize, links: usize) -> String {
    if links == 1 { first.to_string() } else { format!("{first} to {}", first + links - 1) }
}
