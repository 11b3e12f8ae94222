//! `prelu`: PReLU, output by output; and PReLU in the epilogue of the convolution before it, which any kernel may
//! compute.

use minijinja::context;

use super::{Kernel, Operand, Params, Pass, Recipe, Run, Unsupported, Wgsl, Work, compulsory_bytes, fitting};
use crate::kernels::pack::{Packing, Section};
use crate::kernels::shader;
use crate::kernels::single::{self, WORKGROUP};
use crate::model::caps::Caps;
use crate::model::chain::Link;
use crate::model::conv::{Activation, Conv2d};
use crate::model::prelu::PRelu;

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

/// A run without the PReLU at its end, and that, if it can be the activation of the convolution before it: kernels
/// compute what remains, and [`with_slopes`] adds the PReLU to it.
pub fn apart<'a>(run: &Run<'a>) -> (Run<'a>, Option<&'a PRelu>) {
    let (conv, prelu) = match run.links {
        [.., Link::Conv(conv), Link::PRelu(prelu)] => (conv, prelu),
        [.., Link::ConvTranspose(transposed), Link::PRelu(prelu)] => (&transposed.conv, prelu),
        _ => return (*run, None),
    };
    match conv.activation {
        Activation::None => {
            let last = run.links.len() - 1;
            (Run { links: &run.links[..last], shapes: &run.shapes[..=last], ..*run }, Some(prelu))
        }
        _ => (*run, None),
    }
}

/// Recipes for a run with a PReLU behind its last convolution: what is stored goes through its slopes, which lie behind
/// the weights.
pub fn with_slopes(
    recipes: Vec<Recipe>,
    run: &Run<'_>,
    prelu: &PRelu,
    caps: &Caps,
) -> Result<Vec<Recipe>, Unsupported> {
    fitting(run, caps, recipes.into_iter().map(|recipe| sloped(recipe, run, prelu)).collect())
}

fn sloped(mut recipe: Recipe, run: &Run<'_>, prelu: &PRelu) -> Recipe {
    // Of the type that the kernel has its weights in.
    let dtype = recipe.weights.first().map_or(run.elements.weights.dtype(), |section| section.dtype);
    let slopes_at: u64 = recipe.weights.iter().map(|section| section.len).sum();
    let convs = run.links.iter().flat_map(Link::convolutions).count();
    let slopes = Section::new(convs, &prelu.conv, Packing::Taps, dtype);
    let outputs = run.output().len() as f64;
    recipe.work.mult_adds += outputs;
    recipe.work.accesses += outputs;
    recipe.work.bytes += slopes.bytes() as f64;
    // A product rounds.
    recipe.tolerance += 1.0;
    recipe.weights.push(slopes);
    for pass in recipe.passes.iter_mut().filter(|pass| pass.operands.contains(&Operand::Output)) {
        pass.wgsl = pass.wgsl.clone().with_slopes();
        pass.params = Params { slopes_at: slopes_at as u32, slopes: prelu.channels(), ..pass.params };
    }
    recipe
}
