//! `expand_depthwise_gate`: the first three links of an inverted residual with a gate. The dispatch that expands and
//! convolves also adds up what it stores, so that the gate need not read the tensor again.

use super::expand_depthwise::{self, tiles};
use super::gate;
use super::inverted_residual::Block;
use super::{Kernel, Operand, Recipe, Run, Unsupported, Work, compulsory_bytes, fitting};
use crate::kernels::pack::sections;
use crate::model::caps::Caps;
use crate::model::chain::Link;
use crate::model::conv::Conv2d;
use crate::model::dtype::DType;
use crate::model::gate::SqueezeExcite;
use crate::model::shape::Shape;

pub const EXPAND_DEPTHWISE_GATE: Kernel = Kernel { name: "expand_depthwise_gate", links: 3, candidates };

/// The link whose output is stored too: what the gate is for reads it.
const KEPT: usize = 1;

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let [.., Link::SqueezeExcite(gate)] = run.links else {
        return Err(run.links.last().map_or(Unsupported::Links(0), Unsupported::link));
    };
    let convolved = Run { links: &run.links[..=KEPT], shapes: &run.shapes[..=KEPT + 1], ..*run };
    let links = convolved.convs()?;
    if links[1].residual.is_some() {
        return Err(Unsupported::InnerResidual);
    }
    let blocks = expand_depthwise::blocks(&convolved, links, caps)?;
    fitting(run, caps, blocks.into_iter().map(|block| recipe(run, &convolved, links, gate, block)).collect())
}

fn recipe(run: &Run<'_>, convolved: &Run<'_>, links: [&Conv2d; 2], gate: &SqueezeExcite, block: Block) -> Recipe {
    let name = expand_depthwise::name(EXPAND_DEPTHWISE_GATE.name, block);
    let of_links = expand_depthwise::weights(convolved, links, block);
    let (weights, offsets) = sections(of_links.into_iter().chain(gate::weights(run, gate, links.len())));
    let (of_links, of_gate) = offsets.split_at(4);
    let mut first = expand_depthwise::pass(convolved, links, block, &name, of_links, true);
    first.operands = vec![Operand::Input, Operand::Weights, Operand::Kept(KEPT), Operand::WriteWorkspace(0)];
    let [width, height] = tiles(convolved.output(), block);
    let means = Shape { height, width, ..convolved.output() };
    let (second, of_gate) = gate::of_means(run, gate, means, &name, of_gate);
    let of_links = expand_depthwise::work(convolved, links, block);
    let scratch = means.bytes(DType::F32);
    let work = Work {
        mult_adds: of_links.mult_adds + of_gate.mult_adds,
        accesses: of_links.accesses + of_gate.accesses,
        shared: of_links.shared + of_gate.shared,
        bytes: compulsory_bytes(run) + (convolved.output_bytes() + 2 * scratch) as f64,
    };
    Recipe {
        name,
        passes: vec![first, second],
        weights,
        workspace: vec![scratch],
        work,
        tolerance: expand_depthwise::TOLERANCE + gate::TOLERANCE,
        // Means and activations are quotients.
        exact: false,
        spreads_errors: false,
    }
}
