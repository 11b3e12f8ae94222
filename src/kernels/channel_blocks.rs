//! What kernels share whose invocations compute a block of output channels at a few pixels of a row, by the definition.

use minijinja::{Value, context};

use super::{Params, Pass, REGISTERS_FOR_ADDRESSES, Recipe, Run, Wgsl, Work, compulsory_bytes, single_pass_operands};
use crate::kernels::pack::{Packing, sections};
use crate::kernels::shader;
use crate::model::caps::Caps;
use crate::model::conv::Conv2d;

/// Pixels of an invocation.
pub const PIXELS: u32 = 4;
const WORKGROUP: u32 = 64;

/// A kernel that computes a convolution so.
pub struct Definition {
    pub kernel: &'static str,
    /// Its template.
    pub file: &'static str,
    pub packing: fn(u32) -> Packing,
    /// Invocations for a row of the output.
    pub tiles_x: u32,
    /// Terms of an output, in the mean.
    pub depth: f64,
}

/// The recipes, for blocks of four channels and of one. Four share a pixel's load where a group has them. `own` has
/// what the template asks for beside what all do.
pub fn recipes(
    run: &Run<'_>,
    conv: &Conv2d,
    caps: &Caps,
    definition: &Definition,
    own: impl Fn(&Conv2d) -> Value + Copy + Send + Sync + 'static,
) -> Vec<Recipe> {
    let blocks: &[u32] = if conv.group_out_channels() == 1 { &[1] } else { &[4, 1] };
    blocks.iter().map(|&block| recipe(run, conv, caps, definition, block, own)).collect()
}

fn recipe(
    run: &Run<'_>,
    conv: &Conv2d,
    caps: &Caps,
    definition: &Definition,
    block: u32,
    own: impl Fn(&Conv2d) -> Value + Send + Sync + 'static,
) -> Recipe {
    let &Definition { kernel, file, packing, tiles_x, depth } = definition;
    let panels = u64::from(conv.group_out_channels().div_ceil(block));
    let packings = [packing(block), Packing::Bias { block }];
    let (weights, offsets) = sections(packings.map(|packing| run.section(0, conv, packing)));

    let output = run.output();
    let channel_blocks = u64::from(conv.groups) * panels;
    let items = u64::from(tiles_x) * u64::from(output.height) * channel_blocks * u64::from(output.batch);

    let name = format!("{kernel}/{PIXELS}x{block}");
    let (recipe_name, only, layout, elements) = (name.clone(), conv.clone(), run.layout, run.elements);
    let values = move || {
        context! {
            recipe => recipe_name,
            problem => shader::problem(&only, layout),
            BLOCK => block,
            PIXELS,
            WORKGROUP,
            geometry => shader::geometry_values(&only),
            elements => elements.values(),
            layout => shader::layout_name(layout),
            input => "scalar",
            weights => if block == 1 { "scalar" } else { "quads" },
            output => "scalar",
            ..minijinja::value::merge_maps([own(&only), shader::epilogue_values(&only)])
        }
    };

    let (items_f, block_f) = (items as f64, f64::from(block));
    // A software device loads a block's weights as fast as one.
    let weight_loads = if caps.is_cpu { 1.0 } else { block_f };
    // A scale is loaded for each input channel, and multiplies all that is loaded.
    let scales = if conv.scaled { f64::from(conv.group_in_channels()) } else { 0.0 };
    let scaled = if conv.scaled { depth * f64::from(PIXELS) } else { 0.0 };
    let pass = Pass {
        wgsl: Wgsl::template(file, values),
        operands: single_pass_operands(run),
        params: Params {
            tiles_x,
            tiles_y: output.height,
            work: items as u32,
            bias_at: (offsets[1] / u64::from(block)) as u32,
            ..Params::of(run).grouped(conv, block)
        },
        workgroup: WORKGROUP,
        workgroups: items.div_ceil(WORKGROUP.into()),
        workgroup_memory: 0,
        sums: PIXELS * block,
        registers: PIXELS * block + PIXELS + block + REGISTERS_FOR_ADDRESSES,
    };
    Recipe {
        name,
        weights,
        workspace: Vec::new(),
        work: Work {
            mult_adds: items_f * (depth * block_f * f64::from(PIXELS) + scaled),
            accesses: items_f * (depth * (f64::from(PIXELS) + weight_loads) + f64::from(PIXELS) * block_f + scales),
            shared: 0.0,
            bytes: compulsory_bytes(run),
        },
        passes: vec![pass],
        // One sum in order: an epsilon for each term at the worst, far fewer for terms of either sign.
        tolerance: 4.0,
        exact: true,
        spreads_errors: false,
    }
}
