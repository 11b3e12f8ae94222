//! `shuffle`: pixel shuffle, and what undoes it, value by value.

use minijinja::context;

use super::{Kernel, Recipe, Run, Unsupported, Wgsl, fitting};
use crate::kernels::shader;
use crate::kernels::single::{self, WORKGROUP};
use crate::model::caps::Caps;
use crate::model::chain::Link;

pub const SHUFFLE: Kernel = Kernel { name: "shuffle", links: 1, candidates };

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    match run.links {
        [Link::PixelShuffle { factor }] => fitting(run, caps, vec![recipe(run, *factor, true)]),
        [Link::PixelUnshuffle { factor }] => fitting(run, caps, vec![recipe(run, *factor, false)]),
        [link] => Err(Unsupported::link(link)),
        links => Err(Unsupported::Links(links.len())),
    }
}

fn recipe(run: &Run<'_>, factor: u32, shuffles: bool) -> Recipe {
    let name = format!("shuffle/{WORKGROUP}");
    let (recipe_name, layout, elements) = (name.clone(), run.layout, run.elements);
    let values = move || {
        let what = if shuffles { "pixel shuffle" } else { "pixel unshuffle" };
        context! {
            recipe => recipe_name,
            problem => format!("{what} by {factor}, {}", shader::layout_name(layout)),
            FACTOR => factor,
            SHUFFLES => shuffles,
            geometry => (),
            ..single::values(layout, elements)
        }
    };
    let pass = single::pass(run, Wgsl::template("shuffle.wgsl", values));
    Recipe { tolerance: 0.0, ..single::recipe(run, name, pass, 1.0) }
}
