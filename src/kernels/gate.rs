//! `gate`: the gates of squeeze-and-excite blocks, a workgroup for each image. Where it has not the memory for all of an
//! image's channels, a pass for the means and one for each product.

use minijinja::{Value, context};

use super::{
    Kernel, Operand, Params, Pass, REGISTERS_FOR_ADDRESSES, Recipe, Run, Unsupported, Wgsl, Work, compulsory_bytes,
    fitting,
};
use crate::kernels::elements::{Element, Elements};
use crate::kernels::matvec::MATVEC;
use crate::kernels::pack::{Order, Packing, Section, sections};
use crate::kernels::{pool, shader};
use crate::model::caps::Caps;
use crate::model::chain::Link;
use crate::model::conv::Conv2d;
use crate::model::dtype::DType;
use crate::model::gate::SqueezeExcite;
use crate::model::shape::{Layout, Shape};

pub const GATE: Kernel = Kernel { name: "gate", links: 1, candidates };

/// Invocations of a workgroup, and those that share a plane. A plane of few pixels keeps few busy.
const TILES: &[[u32; 2]] = &[[256, 16], [256, 4], [256, 1], [64, 4]];
/// On a software device a barrier costs more than the loads.
const SERIAL: &[[u32; 2]] = &[[32, 1]];
/// The tile of the second of two passes, which reads the means.
const POOLED: [u32; 2] = [256, 1];
/// Numbers of a plane from which on invocations share them.
const MANY_MEANS: u64 = 16;
/// Values of an image from which on they are summed by many workgroups.
const LARGE: u64 = 1 << 14;

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let gate = match run.links {
        [Link::SqueezeExcite(gate)] => gate,
        [link] => return Err(Unsupported::link(link)),
        links => return Err(Unsupported::Links(links.len())),
    };
    let tiles = if caps.is_cpu { SERIAL } else { TILES };
    let mut recipes: Vec<_> = tiles.iter().map(|&tile| at_once(run, gate, tile)).collect();
    if !caps.is_cpu && !gate.of_sums && run.input().pixels() * u64::from(run.input().channels) >= LARGE {
        recipes.push(pooled(run, gate));
    }
    match fitting(run, caps, recipes) {
        Err(Unsupported::WorkgroupMemory { .. }) => fitting(run, caps, vec![apart(run, gate, caps)?]),
        answer => answer,
    }
}

/// One of the two products.
struct Product {
    name: &'static str,
    reads: &'static str,
    depth: u32,
    /// Quads of outputs.
    quads: u32,
    /// Invocations that take turns at k for the same outputs.
    slices: u32,
}

impl Product {
    fn new(name: &'static str, reads: &'static str, conv: &Conv2d, workgroup: u32) -> Self {
        let quads = conv.out_channels.div_ceil(4);
        // A power of two, as the workgroup is.
        let slices = (workgroup / quads.min(workgroup).next_power_of_two()).max(1);
        Self { name, reads, depth: conv.in_channels, quads, slices }
    }

    fn values(&self, [at, bias_at]: [u64; 2]) -> Value {
        let Self { name, reads, depth, quads, slices } = *self;
        context! { name, reads, depth, quads, slices, at, bias_at }
    }
}

/// Everything in one dispatch.
fn at_once(run: &Run<'_>, gate: &SqueezeExcite, tile: [u32; 2]) -> Recipe {
    let name = format!("{}/{}x{}", GATE.name, tile[0], tile[1]);
    let (weights, offsets) = sections(weights(run, gate, 0));
    let pass = pass(run, gate, &name, tile, &offsets);
    let work = Work { bytes: compulsory_bytes(run), ..work(run, gate, tile[0]) };
    recipe(name, vec![pass], weights, Vec::new(), work)
}

/// The means by one dispatch of many workgroups, for planes so large that one workgroup would take long; then a gate of
/// these.
fn pooled(run: &Run<'_>, gate: &SqueezeExcite) -> Recipe {
    let name = format!("{}/pooled-{}", GATE.name, POOLED[0]);
    // The means are not rounded between the passes.
    let pools = [Link::GlobalAveragePool];
    let first = Run { links: &pools, elements: Elements { output: Element::F32, ..run.elements }, ..*run };
    let mut means = pool::means(&first, &name);
    means.operands = vec![Operand::Input, Operand::WriteWorkspace(0)];
    let (weights, offsets) = sections(weights(run, gate, 0));
    let (pass, products) = of_means(run, gate, run.output(), &name, &offsets);
    let bytes = run.output().bytes(DType::F32);
    let pixels = run.input().len() as f64;
    let work = Work {
        mult_adds: products.mult_adds + pixels,
        accesses: products.accesses + pixels,
        bytes: compulsory_bytes(run) + 2.0 * bytes as f64,
        ..products
    };
    recipe(name, vec![means, pass], weights, vec![bytes], work)
}

/// The means, and each product by `matvec`: none of these keeps all channels in workgroup memory.
fn apart(run: &Run<'_>, gate: &SqueezeExcite, caps: &Caps) -> Result<Recipe, Unsupported> {
    let name = format!("{}/apart", GATE.name);
    let pools = [if gate.of_sums { Link::PlaneSum { divisor: 1, of_sums: true } } else { Link::GlobalAveragePool }];
    let first = Run { links: &pools, elements: Elements { output: Element::F32, ..run.elements }, ..*run };
    let mut means = pool::means(&first, &name);
    means.operands = vec![Operand::Input, Operand::WriteWorkspace(0)];
    let squeezed = Shape { channels: gate.squeeze.out_channels, ..run.output() };
    let products = [
        (&gate.squeeze, [run.output(), squeezed], Element::F32, [0, 1].map(Some)),
        (&gate.excite, [squeezed, run.output()], run.elements.output, [Some(1), None]),
    ];
    let workspace = vec![run.output().bytes(DType::F32), squeezed.bytes(DType::F32)];
    let values = run.input().len() as f64;
    let bytes = compulsory_bytes(run) + 2.0 * workspace.iter().sum::<u64>() as f64;
    let mut work = Work { mult_adds: values, accesses: values, bytes, ..Work::default() };
    let (mut passes, mut weights) = (vec![means], Vec::<Section>::new());
    for (link, (conv, shapes, output, [from, to])) in products.into_iter().enumerate() {
        let links = [conv.clone().into()];
        let elements = Elements { input: Element::F32, output, ..run.elements };
        let vectors = Run { links: &links, shapes: &shapes, layout: Layout::Nhwc, elements };
        let product = (MATVEC.candidates)(&vectors, caps)?.into_iter().next();
        let Recipe { passes: own, weights: sections, work: of_product, .. } =
            product.ok_or(Unsupported::link(&run.links[0]))?;
        let start: u64 = weights.iter().map(|section| section.len).sum();
        weights.extend(sections.into_iter().map(|section| Section { link, ..section }));
        passes.extend(own.into_iter().map(|pass| {
            let recipe = name.clone();
            Pass {
                wgsl: pass.wgsl.with_values(move |_| context! { recipe }),
                operands: vec![
                    from.map_or(Operand::Input, Operand::ReadWorkspace),
                    Operand::Weights,
                    to.map_or(Operand::Output, Operand::WriteWorkspace),
                ],
                // Weights that no u32 counts fit into no binding.
                params: Params {
                    weights_at: pass.params.weights_at.wrapping_add(start as u32),
                    bias_at: pass.params.bias_at.wrapping_add(start as u32),
                    ..pass.params
                },
                ..pass
            }
        }));
        work.mult_adds += of_product.mult_adds;
        work.accesses += of_product.accesses;
        work.shared += of_product.shared;
    }
    Ok(recipe(name, passes, weights, workspace, work))
}

/// The gate by numbers of f32 whose means are those of the planes, the first scratch buffer: their shape, channels
/// last. And what it takes, but for bytes.
pub fn of_means(run: &Run<'_>, gate: &SqueezeExcite, means: Shape, name: &str, offsets: &[u64]) -> (Pass, Work) {
    let elements = Elements { input: Element::F32, ..run.elements };
    let second = Run { shapes: &[means, run.output()], layout: Layout::Nhwc, elements, ..*run };
    let tile = if means.pixels() < MANY_MEANS { POOLED } else { TILES[0] };
    let mut pass = pass(&second, gate, name, tile, offsets);
    pass.operands = vec![Operand::ReadWorkspace(0), Operand::Weights, Operand::Output];
    (pass, work(&second, gate, tile[0]))
}

/// The sections of the weights of both products, of convolutions `first` and `first + 1` of the run.
pub fn weights(run: &Run<'_>, gate: &SqueezeExcite, first: usize) -> Vec<Section> {
    let of_conv = |(index, conv): (usize, &Conv2d)| {
        let block = conv.out_channels.next_multiple_of(4);
        let panels = Packing::Panels { block, k_align: 1, order: Order::ChannelFirst };
        [panels, Packing::Bias { block }].map(|packing| run.section(first + index, conv, packing))
    };
    [&gate.squeeze, &gate.excite].into_iter().enumerate().flat_map(of_conv).collect()
}

fn pass(run: &Run<'_>, gate: &SqueezeExcite, name: &str, [workgroup, lanes]: [u32; 2], offsets: &[u64]) -> Pass {
    let at: Vec<_> = offsets.iter().map(|offset| offset / 4).collect();
    let products = [
        Product::new("squeeze", "means", &gate.squeeze, workgroup),
        Product::new("excite", "squeezed", &gate.excite, workgroup),
    ];
    let Shape { channels, batch, .. } = run.input();
    let quads = products[0].quads;
    let has_slices = products.iter().any(|product| product.slices > 1);
    let lane_sums = if lanes > 1 { workgroup } else { 0 };
    let slice_sums = if has_slices { workgroup } else { 0 };
    let floats = channels.saturating_add(quads * 4).saturating_add(lane_sums + slice_sums * 4);
    let (gate, layout, elements, recipe) = (gate.clone(), run.layout, run.elements, name.to_string());
    let values = move || {
        context! {
            recipe,
            CHANNELS => channels,
            COUNT => gate.of_sums.then_some(1),
            SQUEEZED => gate.squeeze.out_channels,
            WORKGROUP => workgroup,
            LANES => lanes,
            products => [products[0].values([at[0], at[1]]), products[1].values([at[2], at[3]])],
            inner_activations => [shader::inner_activation_values("squeeze", gate.squeeze.activation, 1, false)],
            geometry => (),
            elements => elements.values(),
            layout => shader::layout_name(layout),
            input => "scalar",
            weights => "quads",
            output => "scalar",
            ..shader::epilogue_values(&gate.excite)
        }
    };
    Pass {
        wgsl: Wgsl::template("gate.wgsl", values),
        operands: vec![Operand::Input, Operand::Weights, Operand::Output],
        params: Params { work: batch, ..Params::of(run) },
        workgroup,
        workgroups: batch.into(),
        workgroup_memory: floats.saturating_mul(4),
        sums: 4,
        registers: 16 + REGISTERS_FOR_ADDRESSES,
    }
}

/// What it takes, but for bytes.
fn work(run: &Run<'_>, gate: &SqueezeExcite, workgroup: u32) -> Work {
    let images = f64::from(run.input().batch);
    let weights = (gate.squeeze.weight_shape().len() + gate.excite.weight_shape().len()) as f64;
    let values = run.input().len() as f64;
    Work {
        mult_adds: values + images * weights,
        accesses: values + images * (weights * run.elements.weights.of_wide_load() + f64::from(workgroup)),
        shared: images * weights / 4.0,
        bytes: 0.0,
    }
}

/// That of a pool, of two sums in order, and of the activation between them.
pub const TOLERANCE: f64 = 24.0;

fn recipe(name: String, passes: Vec<Pass>, weights: Vec<Section>, workspace: Vec<u64>, work: Work) -> Recipe {
    Recipe {
        name,
        passes,
        weights,
        workspace,
        work,
        tolerance: TOLERANCE,
        // Means and activations are quotients.
        exact: false,
        spreads_errors: false,
    }
}
