//! `pool`: the mean of each plane, summed by invocations in common or by one alone.

use minijinja::{Value, context};

use super::{Kernel, Operand, Params, Pass, REGISTERS_FOR_ADDRESSES, Recipe, Run, Unsupported, Wgsl, Work, fitting};
use crate::kernels::shader;
use crate::model::caps::Caps;
use crate::model::chain::Link;
use crate::model::dtype::DType;
use crate::model::shape::Layout;

pub const POOL: Kernel = Kernel { name: "pool", links: 1, candidates };

/// Planes of a workgroup, and invocations that sum one of them. Neighbours in NHWC are planes, so there are more.
const TILES_NCHW: &[[u32; 2]] = &[[4, 16], [1, 64]];
const TILES_NHWC: &[[u32; 2]] = &[[16, 4], [16, 16]];
/// Planes of a workgroup whose invocations do not cooperate; few, since a CPU's cores share the workgroups.
const SERIAL: u32 = 16;

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    match run.links {
        [Link::GlobalAveragePool] => {}
        [link] => return Err(Unsupported::link(link)),
        links => return Err(Unsupported::Links(links.len())),
    }
    let tiles = match run.layout {
        // On a software device a barrier costs more than the loads.
        _ if caps.is_cpu => &[],
        Layout::Nchw => TILES_NCHW,
        Layout::Nhwc => TILES_NHWC,
    };
    let recipes = tiles.iter().map(|&tile| by_tree(run, tile)).chain([serial(run)]);
    fitting(run, caps, recipes.collect())
}

fn by_tree(run: &Run<'_>, [planes, lanes]: [u32; 2]) -> Recipe {
    let workgroup = planes * lanes;
    let name = format!("pool/{planes}x{lanes}");
    let (layout, dtype, recipe_name) = (run.layout, run.dtype, name.clone());
    let values = move || context! { PLANES => planes, LANES => lanes, ..values(layout, dtype, &recipe_name) };
    let wgsl = Wgsl::template("pool.wgsl", values);
    let workgroups = run.output().len().div_ceil(planes.into());
    let pass = Pass { workgroups, workgroup, workgroup_memory: workgroup * 4, ..pass(run, wgsl) };
    let invocations = pass.invocations();
    let work = Work { shared: invocations * f64::from(lanes.ilog2()), invocations, ..work(run) };
    recipe(name, run, pass, work)
}

fn serial(run: &Run<'_>) -> Recipe {
    let name = "pool/serial";
    let (layout, dtype) = (run.layout, run.dtype);
    let values = move || context! { WORKGROUP => SERIAL, ..values(layout, dtype, name) };
    let wgsl = Wgsl::template("pool_serial.wgsl", values);
    let workgroups = run.output().len().div_ceil(SERIAL.into());
    let pass = Pass { workgroups, workgroup: SERIAL, ..pass(run, wgsl) };
    let work = Work { invocations: pass.invocations(), ..work(run) };
    recipe(name.into(), run, pass, work)
}

/// What both shaders ask for.
fn values(layout: Layout, dtype: DType, recipe: &str) -> Value {
    let elements = "scalar";
    context! {
        recipe,
        geometry => (),
        element => dtype.name(),
        layout => shader::layout_name(layout),
        input => elements,
        weights => "none",
        output => elements,
        residual => "none",
    }
}

fn pass(run: &Run<'_>, wgsl: Wgsl) -> Pass {
    Pass {
        wgsl,
        operands: vec![Operand::Input, Operand::Output],
        params: Params { work: run.output().len() as u32, ..Params::of(run) },
        workgroup: 0,
        workgroups: 0,
        workgroup_memory: 0,
        sums: 1,
        registers: REGISTERS_FOR_ADDRESSES,
    }
}

fn work(run: &Run<'_>) -> Work {
    let (values, planes) = (run.input().len() as f64, run.output().len() as f64);
    let bytes = (run.input().bytes(run.dtype) + run.output().bytes(run.dtype)) as f64;
    Work { mult_adds: values, accesses: values + planes, bytes, ..Work::default() }
}

fn recipe(name: String, run: &Run<'_>, pass: Pass, work: Work) -> Recipe {
    Recipe {
        name,
        passes: vec![pass],
        weights: Vec::new(),
        workspace: Vec::new(),
        work,
        // Sums of a few dozen terms in order, and WGSL lets a division be off by two and a half units.
        tolerance: 8.0,
        // A mean of whole numbers is exact if it is a sum of them over a power of two.
        exact: run.input().pixels().is_power_of_two(),
        spreads_errors: false,
    }
}
