//! `window_pool`: any pool over windows, by its definition.

use minijinja::context;

use super::{Kernel, Recipe, Run, Unsupported, Wgsl, fitting};
use crate::kernels::shader;
use crate::kernels::single::{self, WORKGROUP};
use crate::model::caps::Caps;
use crate::model::chain::Link;
use crate::model::pool::{Pool2d, PoolMode};

pub const WINDOW_POOL: Kernel = Kernel { name: "window_pool", links: 1, candidates };

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    match run.links {
        [Link::Pool(pool)] => fitting(run, caps, vec![recipe(run, pool)]),
        [link] => Err(Unsupported::link(link)),
        links => Err(Unsupported::Links(links.len())),
    }
}

fn recipe(run: &Run<'_>, pool: &Pool2d) -> Recipe {
    let name = format!("window_pool/{WORKGROUP}");
    let (recipe_name, own, layout, elements) = (name.clone(), pool.clone(), run.layout, run.elements);
    let values = move || {
        let mode = match own.mode {
            PoolMode::Max => "max",
            PoolMode::Average { count_include_pad: true } => "average",
            PoolMode::Average { count_include_pad: false } => "average_inside",
        };
        context! {
            recipe => recipe_name,
            problem => shader::problem_of_pool(&own, layout),
            MODE => mode,
            PAD_BOTTOM => own.padding[2],
            PAD_RIGHT => own.padding[3],
            geometry => shader::geometry(own.kernel_size, own.stride, own.dilation, own.padding),
            ..single::values(layout, elements)
        }
    };
    let values_of_window = u64::from(pool.kernel_size[0]) * u64::from(pool.kernel_size[1]);
    // By how many a sum is divided, if by the same number everywhere.
    let divisor = match pool.mode {
        PoolMode::Max => Some(1),
        PoolMode::Average { count_include_pad } => {
            let all_count = !pool.ceil_mode && (count_include_pad || pool.padding == [0; 4]);
            all_count.then_some(values_of_window)
        }
    };
    let pass = single::pass(run, Wgsl::template("window_pool.wgsl", values));
    Recipe {
        // Sums of rows in order, and WGSL lets a division be off by two and a half units. The largest value is one of
        // the inputs.
        tolerance: if pool.mode == PoolMode::Max { 0.0 } else { 8.0 },
        // A mean of whole numbers is exact if it is a sum of them over a power of two.
        exact: divisor.is_some_and(u64::is_power_of_two),
        ..single::recipe(run, name, pass, values_of_window as f64)
    }
}
