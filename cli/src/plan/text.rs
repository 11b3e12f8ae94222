//! A plan for people.

use comfy_table::CellAlignment;

use super::explain::{MOST_LISTED, Planned, Step};
use crate::table::{self, count, figure};

/// The steps, what they move and need, and what was turned down.
pub fn text(planned: &Planned) -> String {
    let Planned { problem, adapter, schedule, why, workspace, traffic, .. } = planned;
    let mut text = format!("{problem}\non {adapter}: {schedule}\n{why}\n");
    if let Some(images) = planned.images_at_once {
        text += &format!("a binding does not hold the whole batch: this is for {images} of its images at a time\n");
    }
    text += &format!("\n{}\n\n", steps(&planned.steps));
    text += &format!(
        "memory access: {} bytes as planned, {} with each link alone, {} if nothing between links went to memory\n\
         workspace: {} bytes, {} without reuse\n",
        count(traffic.planned),
        count(traffic.unfused),
        count(traffic.fused),
        count(workspace.bytes),
        count(workspace.bytes_without_reuse),
    );
    // Of a network there are hundreds; --json has them.
    if planned.steps.len() <= MOST_LISTED {
        text += &format!("\n{}\n", turned_down(planned));
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
        // What tuning measured, if nothing was measured now.
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

fn turned_down(planned: &Planned) -> String {
    let mut table = table::new(["links", "turned down", "model ms", "measured ms", "why"], 2);
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

/// The links of a run, from 0.
fn span(first: usize, links: usize) -> String {
    if links == 1 { first.to_string() } else { format!("{first} to {}", first + links - 1) }
}
