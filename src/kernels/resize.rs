//! `resize`: images of another size, output by output.

use minijinja::context;

use super::{Kernel, Params, Pass, Recipe, Run, Unsupported, Wgsl, fitting};
use crate::kernels::shader;
use crate::kernels::single::{self, WORKGROUP};
use crate::model::caps::Caps;
use crate::model::chain::Link;
use crate::model::resize::{Resize, ResizeMode};

pub const RESIZE: Kernel = Kernel { name: "resize", links: 1, candidates };

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    match run.links {
        [Link::Resize(resize)] => fitting(run, caps, vec![recipe(run, resize)]),
        [link] => Err(Unsupported::link(link)),
        links => Err(Unsupported::Links(links.len())),
    }
}

fn recipe(run: &Run<'_>, resize: &Resize) -> Recipe {
    let name = format!("resize/{WORKGROUP}");
    let (recipe_name, mode, layout, elements) = (name.clone(), resize.mode, run.layout, run.elements);
    let values = move || {
        let (mode, what) = match mode {
            ResizeMode::Nearest => ("nearest", "the nearest of the pixels"),
            ResizeMode::Bilinear { align_corners: false } => ("bilinear", "means of four pixels"),
            ResizeMode::Bilinear { align_corners: true } => ("aligned", "means of four pixels, corners aligned"),
        };
        context! {
            recipe => recipe_name,
            problem => format!("{what}, {}", shader::layout_name(layout)),
            MODE => mode,
            geometry => (),
            ..single::values(layout, elements)
        }
    };
    let distances = resize.distances(run.input(), run.output());
    let pass = single::pass(run, Wgsl::template("resize.wgsl", values));
    let [low_bits, high_bits] = distances.map(f32::to_bits);
    let part = resize.part.map_or([[0; 2]; 2], |part| [part.first_input, part.first_output]);
    let [[first_in_y, first_in_x], [first_out_y, first_out_x]] = part;
    let first = Params { first_in_y, first_in_x, first_out_y, first_out_x, ..pass.params };
    let pass = Pass { params: Params { low_bits, high_bits, ..first }, ..pass };
    // Places that are multiples of a 64th are exact, and so are sums of small whole numbers times these.
    let is_exact = |distance: f32| (distance * 32.0).fract() == 0.0;
    let is_nearest = resize.mode == ResizeMode::Nearest;
    Recipe {
        // A few roundings of a value, and of its place: the oracle counts both in its magnitudes.
        tolerance: if is_nearest { 0.0 } else { 4.0 },
        exact: is_nearest || distances.into_iter().all(is_exact),
        ..single::recipe(run, name, pass, if is_nearest { 1.0 } else { 4.0 })
    }
}
