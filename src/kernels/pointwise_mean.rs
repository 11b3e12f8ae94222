//! `pointwise_mean`: a 1x1 convolution and the mean of each of its channels in one dispatch, as in the heads of
//! MobileNets. The convolution's output is never in memory.

use minijinja::context;

use super::gemm::tiled::{self, Tile};
use super::gemm::{self, Source, of_inputs};
use super::{
    Kernel, Params, Pass, Recipe, Run, Unsupported, Wgsl, Work, compulsory_bytes, fitting, pointwise, pool,
    single_pass_operands,
};
use crate::model::caps::Caps;
use crate::model::chain::Link;

pub const POINTWISE_MEAN: Kernel = Kernel { name: "pointwise_mean", links: 2, candidates };

/// Tiles of a workgroup, which has all pixels of an image. Those of few channels fill a device at batch 1, those of
/// many read an image less often.
const TILES: &[Tile] = &[
    Tile::new([64, 64, 16], [8, 4]),
    Tile::new([32, 64, 16], [8, 4]),
    Tile::new([16, 64, 32], [8, 4]).sliced(4),
    Tile::new([8, 64, 32], [8, 4]).sliced(4),
    // Also for GPUs with few registers.
    Tile::new([16, 64, 16], [4, 4]),
];
/// Pixels of an image beyond which its workgroups would take long.
const MOST_PIXELS: u64 = 1 << 10;

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let conv = match run.links {
        [Link::Conv(conv), Link::GlobalAveragePool] => conv,
        [.., last] => return Err(Unsupported::link(last)),
        [] => return Err(Unsupported::Links(0)),
    };
    if caps.is_cpu {
        return Err(Unsupported::SoftwareDevice);
    }
    if conv.residual.is_some() {
        return Err(Unsupported::InnerResidual);
    }
    let convolved = Run { links: &run.links[..1], shapes: &run.shapes[..2], ..*run };
    let source = pointwise::source(&convolved, POINTWISE_MEAN.name)?;
    if conv.groups > 1 {
        return Err(Unsupported::Groups(conv.groups));
    }
    let pixels = convolved.output().pixels();
    if pixels > MOST_PIXELS {
        return Err(Unsupported::Pixels { count: pixels, most: MOST_PIXELS });
    }
    fitting(run, caps, TILES.iter().map(|&tile| recipe(run, &convolved, &source, tile, caps)).collect())
}

fn recipe(run: &Run<'_>, convolved: &Run<'_>, source: &Source, tile: Tile, caps: &Caps) -> Recipe {
    let name = format!("{}/{}", POINTWISE_MEAN.name, tile.name());
    let product = gemm::product(convolved, source, tile.channels, tile.depth);
    let of_product = tiled::shader_values(convolved, source, &product, tile, caps, &name);
    let values = move || context! { MEANS => true, output => "scalar", ..of_product() };
    let gemm::Product { weights, params, padded_depth, .. } = product;
    let workgroups = u64::from(params.panels) * u64::from(params.batch);
    let pass = Pass {
        wgsl: Wgsl::template("gemm_tile.wgsl", values),
        operands: single_pass_operands(run),
        params: Params { segment_depth: params.padded_depth, work: workgroups as u32, ..params },
        workgroup: tile.threads(),
        workgroups,
        workgroup_memory: tile.workgroup_memory(0),
        sums: tile.micro_channels * tile.micro_pixels,
        registers: tile.registers(source, run.layout) + tile.micro_channels,
    };
    let tiles = workgroups as f64 * convolved.output().pixels().div_ceil(tile.pixels.into()) as f64;
    let (channels, pixels) = (f64::from(tile.channels), f64::from(tile.pixels));
    let mult_adds = tiles * channels * pixels * padded_depth as f64;
    let [exchange, exchanged] = tile.exchange();
    let of_each = pixels * of_inputs(run, source) + channels * run.elements.weights.of_wide_load();
    Recipe {
        name,
        weights,
        workspace: Vec::new(),
        work: Work {
            mult_adds: mult_adds + tiles * exchange,
            accesses: tiles * padded_depth as f64 * of_each + run.output().len() as f64,
            shared: mult_adds * tile.loads() + tiles * exchanged,
            bytes: compulsory_bytes(run),
        },
        passes: vec![pass],
        // One sum in order of k, and that of a pool.
        tolerance: 4.0 + pool::TOLERANCE,
        // As in a pool.
        exact: convolved.output().pixels().is_power_of_two(),
        spreads_errors: false,
    }
}
