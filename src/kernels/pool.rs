//! `pool`: the mean of each plane, or a part of it, summed by invocations in common or by one alone.

use minijinja::{Value, context};

use super::{Kernel, Operand, Params, Pass, REGISTERS_FOR_ADDRESSES, Recipe, Run, Unsupported, Wgsl, Work, fitting};
use crate::kernels::elements::{Element, Elements};
use crate::kernels::shader;
use crate::model::caps::Caps;
use crate::model::chain::Link;
use crate::model::dtype::DType;
use crate::model::pool::{Pool2d, PoolMode};
use crate::model::shape::{Layout, Shape};

pub const POOL: Kernel = Kernel { name: "pool", links: 1, candidates };

/// Planes of a workgroup, and invocations that sum one of them. Neighbours in NHWC are planes, so there are more.
const TILES_NCHW: [[u32; 2]; 2] = [[4, 16], [1, 64]];
const TILES_NHWC: [[u32; 2]; 2] = [[16, 4], [16, 16]];
/// Planes of a workgroup whose invocations do not cooperate; few, since a CPU's cores share the workgroups.
const SERIAL: u32 = 16;
/// Pixels of a plane from which on it is cut into shares, and the sums of the shares are added by a second pass; and
/// the number of shares, as the rows and columns of an image that the second pass takes for its input.
const LARGE: u64 = 1 << 14;
const SHARES: [u32; 2] = [32, 32];
const SHARE_WORKGROUP: u32 = 64;

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    match run.links {
        [Link::GlobalAveragePool | Link::PlaneSum { .. }] => {}
        [Link::Pool(pool)] if is_whole_mean(pool, run.input()) => {}
        [link] => return Err(Unsupported::link(link)),
        links => return Err(Unsupported::Links(links.len())),
    }
    let tiles = match run.layout {
        // On a software device a barrier costs more than the loads.
        _ if caps.is_cpu => &[][..],
        Layout::Nchw => &TILES_NCHW,
        Layout::Nhwc => &TILES_NHWC,
    };
    let mut recipes: Vec<_> = tiles.iter().map(|&tile| by_tree(run, tile)).chain([serial(run)]).collect();
    if run.input().pixels() >= LARGE {
        recipes.push(in_shares(run, caps));
    }
    fitting(run, caps, recipes)
}

/// Whether a window is the whole image, so that its mean is that of the plane.
fn is_whole_mean(pool: &Pool2d, image: Shape) -> bool {
    let is_mean = matches!(pool.mode, PoolMode::Average { .. });
    is_mean && pool.kernel_size == [image.height, image.width] && pool.padding == [0; 4]
}

fn by_tree(run: &Run<'_>, [planes, lanes]: [u32; 2]) -> Recipe {
    let name = format!("pool/{planes}x{lanes}");
    let pass = tree_pass(run, [planes, lanes], &name);
    let invocations = pass.invocations();
    let work = Work { shared: invocations * f64::from(lanes.ilog2()), ..work(run) };
    recipe(name, run, vec![pass], Vec::new(), work)
}

/// The pass that gives the means on a GPU, for kernels that go on with them.
pub fn means(run: &Run<'_>, name: &str) -> Pass {
    tree_pass(run, if run.layout == Layout::Nchw { TILES_NCHW[1] } else { TILES_NHWC[1] }, name)
}

fn tree_pass(run: &Run<'_>, [planes, lanes]: [u32; 2], name: &str) -> Pass {
    let workgroup = planes * lanes;
    let (layout, elements, name) = (run.layout, run.elements, name.to_string());
    let count = count(run);
    let values =
        move || context! { PLANES => planes, LANES => lanes, COUNT => count, ..values(layout, elements, &name) };
    let wgsl = Wgsl::template("pool.wgsl", values);
    let workgroups = run.output().len().div_ceil(planes.into());
    Pass { workgroups, workgroup, workgroup_memory: workgroup * 4, ..pass(run, wgsl) }
}

fn serial(run: &Run<'_>) -> Recipe {
    let name = "pool/serial";
    let (layout, elements, count) = (run.layout, run.elements, count(run));
    let values = move || context! { WORKGROUP => SERIAL, COUNT => count, ..values(layout, elements, name) };
    let wgsl = Wgsl::template("pool_serial.wgsl", values);
    let workgroups = run.output().len().div_ceil(SERIAL.into());
    let pass = Pass { workgroups, workgroup: SERIAL, ..pass(run, wgsl) };
    // Idle invocations included.
    let values = workgroups as f64 * f64::from(SERIAL) * run.input().pixels() as f64;
    let work = Work { mult_adds: values, accesses: values, ..work(run) };
    recipe(name.into(), run, vec![pass], Vec::new(), work)
}

/// Two passes: many invocations a plane, then their sums.
fn in_shares(run: &Run<'_>, caps: &Caps) -> Recipe {
    let [rows, columns] = SHARES;
    let shares = rows * columns;
    let name = format!("pool/{shares}-shares");
    let planes = run.output().len();
    // The shares' sums are not rounded before they are added.
    let first = Elements { output: Element::F32, ..run.elements };
    let (layout, recipe_name) = (run.layout, name.clone());
    let of_shares =
        move || context! { WORKGROUP => SHARE_WORKGROUP, SHARES => shares, ..values(layout, first, &recipe_name) };
    let items = planes * u64::from(shares);
    let first = Pass {
        operands: vec![Operand::Input, Operand::WriteWorkspace(0)],
        params: Params { work: items as u32, ..Params::of(run) },
        workgroup: SHARE_WORKGROUP,
        workgroups: items.div_ceil(SHARE_WORKGROUP.into()),
        ..pass(run, Wgsl::template("pool_strided.wgsl", of_shares))
    };
    let (recipe_name, count) = (name.clone(), count(run).unwrap_or(run.input().pixels()));
    let [workgroup, planes_each] = if caps.is_cpu { [SERIAL; 2] } else { [64, 1] };
    let second = Elements { input: Element::F32, ..run.elements };
    let of_sums = move || {
        let own = context! { WORKGROUP => workgroup, PLANES => planes_each, LANES => workgroup, COUNT => count };
        context! { ..own, ..values(Layout::Nchw, second, &recipe_name) }
    };
    let template = if caps.is_cpu { "pool_serial.wgsl" } else { "pool.wgsl" };
    let params = Params { in_height: rows, in_width: columns, ..Params::of(run) };
    let second = Pass {
        operands: vec![Operand::ReadWorkspace(0), Operand::Output],
        params: Params { work: planes as u32, ..params },
        workgroup,
        workgroups: planes.div_ceil(planes_each.into()),
        workgroup_memory: if caps.is_cpu { 0 } else { workgroup * 4 },
        ..pass(run, Wgsl::template(template, of_sums))
    };
    let work = work(run);
    let sums = items as f64;
    let work = Work {
        accesses: work.accesses + 2.0 * sums,
        bytes: work.bytes + 2.0 * (items * DType::F32.bytes()) as f64,
        ..work
    };
    let workspace = vec![items * DType::F32.bytes()];
    recipe(name, run, vec![first, second], workspace, work)
}

/// What sums are divided by, if not by the number of their pixels.
fn count(run: &Run<'_>) -> Option<u64> {
    match run.links {
        [Link::PlaneSum { divisor, .. }] => Some(u64::from(*divisor)),
        _ => None,
    }
}

/// What all its shaders ask for.
fn values(layout: Layout, elements: Elements, recipe: &str) -> Value {
    context! {
        recipe,
        geometry => (),
        elements => elements.values(),
        layout => shader::layout_name(layout),
        input => "scalar",
        weights => "none",
        output => "scalar",
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
    let bytes = (run.input_bytes() + run.output_bytes()) as f64;
    Work { mult_adds: values, accesses: values + planes, bytes, ..Work::default() }
}

/// Sums of a few dozen terms in order, and WGSL lets a division be off by two and a half units.
pub const TOLERANCE: f64 = 8.0;

fn recipe(name: String, run: &Run<'_>, passes: Vec<Pass>, workspace: Vec<u64>, work: Work) -> Recipe {
    Recipe {
        name,
        passes,
        weights: Vec::new(),
        workspace,
        work,
        tolerance: TOLERANCE,
        // A mean of whole numbers is exact if it is a sum of them over a power of two.
        exact: count(run).unwrap_or(run.input().pixels()).is_power_of_two(),
        spreads_errors: false,
    }
}
