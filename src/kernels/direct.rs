//! `direct`: any link there is, by the definition of convolution.

use minijinja::context;

use super::{
    Kernel, Params, Pass, REGISTERS_FOR_ADDRESSES, Recipe, Run, Unsupported, Wgsl, Work, compulsory_bytes, fitting,
    single_pass_operands,
};
use crate::kernels::pack::{Order, Packing, sections};
use crate::kernels::shader;
use crate::model::caps::Caps;
use crate::model::conv::Conv2d;

pub const DIRECT: Kernel = Kernel { name: "direct", links: 1, candidates };

const PIXELS: u32 = 4;
const WORKGROUP: u32 = 64;

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let link = run.only_conv_or_scaled()?;
    // Four channels share a pixel's load where a group has them.
    let blocks: &[u32] = if link.group_out_channels() == 1 { &[1] } else { &[4, 1] };
    let recipes = blocks.iter().map(|&block| recipe(run, link, caps, block)).collect();
    fitting(run, caps, recipes)
}

fn recipe(run: &Run<'_>, link: &Conv2d, caps: &Caps, block: u32) -> Recipe {
    let panels = u64::from(link.group_out_channels().div_ceil(block));
    let order = Order::ChannelFirst;
    let packings = [Packing::Panels { block, k_align: 1, order }, Packing::Bias { block }];
    let (weights, offsets) = sections(packings.map(|packing| run.section(0, link, packing)));

    let output = run.output();
    let tiles_x = output.width.div_ceil(PIXELS);
    let channel_blocks = u64::from(link.groups) * panels;
    let items = u64::from(tiles_x) * u64::from(output.height) * channel_blocks * u64::from(output.batch);
    let depth = link.fan_in();

    let name = format!("direct/{PIXELS}x{block}");
    let (recipe_name, only, layout) = (name.clone(), link.clone(), run.layout);
    let elements = run.elements;
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
            scales => if only.scaled { "scalar" } else { "none" },
            weights => if block == 1 { "scalar" } else { "quads" },
            output => "scalar",
            ..shader::epilogue_values(&only)
        }
    };

    let (items_f, depth_f, block_f) = (items as f64, depth as f64, f64::from(block));
    // A software device loads a block's weights as fast as one.
    let weight_loads = if caps.is_cpu { 1.0 } else { block_f };
    let pass = Pass {
        wgsl: Wgsl::template("direct.wgsl", values),
        operands: single_pass_operands(run),
        params: Params {
            tiles_x,
            tiles_y: output.height,
            work: items as u32,
            bias_at: (offsets[1] / u64::from(block)) as u32,
            ..Params::of(run).grouped(link, block)
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
            mult_adds: items_f * depth_f * block_f * f64::from(PIXELS),
            accesses: items_f * (depth_f * (f64::from(PIXELS) + weight_loads) + f64::from(PIXELS) * block_f),
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
