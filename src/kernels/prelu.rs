//! `prelu`: PReLU, output by output.

use minijinja::context;

use super::{Kernel, Operand, Pass, Recipe, Run, Unsupported, Wgsl, Work, compulsory_bytes, fitting};
use crate::kernels::pack::Packing;
use crate::kernels::shader;
use crate::kernels::single::{self, WORKGROUP};
use crate::model::caps::Caps;
use crate::model::chain::Link;
use crate::model::conv::Conv2d;

pub const PRELU: Kernel = Kernel { name: "prelu", links: 1, candidates };

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    match run.links {
        [Link::PRelu(prelu)] => fitting(run, caps, vec![recipe(run, &prelu.conv)]),
        [link] => Err(Unsupported::link(link)),
        links => Err(Unsupported::Links(links.len())),
    }
}

fn recipe(run: &Run<'_>, slopes: &Conv2d) -> Recipe {
    let name = format!("prelu/{WORKGROUP}");
    let (recipe_name, layout, elements) = (name.clone(), run.layout, run.elements);
    let values = move || {
        context! {
            recipe => recipe_name,
            problem => format!("PReLU, {}", shader::layout_name(layout)),
            geometry => (),
            weights => "scalar",
            ..single::values(layout, elements)
        }
    };
    let pass = single::pass(run, Wgsl::template("prelu.wgsl", values));
    let operands = vec![Operand::Input, Operand::Weights, Operand::Output];
    let recipe = single::recipe(run, name, Pass { operands, ..pass }, 2.0);
    let work = Work { bytes: compulsory_bytes(run), ..recipe.work };
    // A product rounds.
    Recipe { weights: vec![run.section(0, slopes, Packing::Taps)], work, tolerance: 1.0, ..recipe }
}
