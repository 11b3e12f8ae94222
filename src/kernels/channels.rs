//! `channels`: slices of channels and concatenations along them, value by value.
//!
//! A concatenation is a dispatch for each of its tensors, so that their number is not bounded by how many buffers a
//! device binds. A plan leaves out those whose tensors are made in place (`planner/workspace/in_place`).

use minijinja::context;

use super::{Kernel, Operand, Params, Pass, Recipe, Run, Unsupported, Wgsl, Work, fitting};
use crate::kernels::shader;
use crate::kernels::single::{self, WORKGROUP};
use crate::model::caps::Caps;
use crate::model::chain::Link;
use crate::model::shape::Shape;

pub const CHANNELS: Kernel = Kernel { name: "channels", links: 1, candidates };

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    match run.links {
        [Link::Slice { channels }] => {
            let [count, in_channels] = [channels.end.saturating_sub(channels.start), run.input().channels];
            let moved = Moved { operand: Operand::Input, in_channels, count, from: channels.start, to: 0 };
            fitting(run, caps, vec![recipe(run, &[moved])])
        }
        [Link::Concat(concat)] => {
            let (mut moved, mut to) = (Vec::new(), 0);
            for (place, &count) in concat.channels.iter().enumerate() {
                let operand = if place == 0 { Operand::Input } else { Operand::Part(place) };
                moved.push(Moved { operand, in_channels: count, count, from: 0, to });
                to += count;
            }
            fitting(run, caps, vec![recipe(run, &moved)])
        }
        [link] => Err(Unsupported::link(link)),
        links => Err(Unsupported::Links(links.len())),
    }
}

/// What a dispatch moves: `count` channels of a tensor that has `in_channels`, beginning with these of it and of the
/// output.
struct Moved {
    operand: Operand,
    in_channels: u32,
    count: u32,
    from: u32,
    to: u32,
}

fn recipe(run: &Run<'_>, moved: &[Moved]) -> Recipe {
    let name = format!("channels/{WORKGROUP}");
    let (recipe_name, layout, elements) = (name.clone(), run.layout, run.elements);
    let values = move || {
        context! {
            recipe => recipe_name,
            problem => format!("some channels, {}", shader::layout_name(layout)),
            geometry => (),
            ..single::values(layout, elements)
        }
    };
    let whole = single::pass(run, Wgsl::template("channels.wgsl", values));
    let pass = |&Moved { operand, in_channels, count, from, to }: &Moved| {
        let work = Shape { channels: count, ..run.output() }.len();
        let [groups, group_in, group_out] = [count, from, to];
        Pass {
            operands: vec![operand, Operand::Output],
            params: Params { in_channels, groups, group_in, group_out, work: work as u32, ..whole.params },
            workgroups: work.div_ceil(WORKGROUP.into()),
            ..whole.clone()
        }
    };
    let passes = moved.iter().map(pass).collect();
    let recipe = single::recipe(run, name, whole.clone(), 1.0);
    // What is read is what is written.
    let work = Work { bytes: 2.0 * run.output_bytes() as f64, ..recipe.work };
    Recipe { passes, work, ..recipe }
}
