//! The matrix product in registers alone, without workgroup memory, over any source of pixels.

use minijinja::context;
use minijinja::value::merge_maps;

use super::{Fetch, Source, of_outputs, product, values};
use crate::kernels::{
    Params, Pass, REGISTERS_FOR_ADDRESSES, Recipe, Run, Unsupported, Wgsl, Work, compulsory_bytes, fitting,
    single_pass_operands,
};
use crate::model::caps::Caps;
use crate::model::conv::Conv2d;
use crate::model::shape::Layout;

/// The sizes of a product in registers.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// Output channels of an invocation.
    pub channels: u32,
    /// Pixels of an invocation, neighbours in a row.
    pub pixels: u32,
    /// Rows of as many pixels.
    pub rows: u32,
    /// Columns of the kernel that come at a time, where its rows come in pieces.
    pub piece: Option<u32>,
    /// Invocations of a workgroup.
    pub threads: u32,
    /// Values of k in a step of the loop, where the source does not ask for more. A step has a cost of its own: on
    /// software devices a masked write of every sum.
    pub steps: u32,
    /// How weights are loaded.
    pub weights: WeightLoads,
    /// Whether two elements of the source that are neighbours are one load.
    pub pairs: bool,
    /// Whether four are loaded as 64-bit integers, for software devices.
    pub longs: bool,
    /// Whether sums are an array, stored by a loop. A GPU would move an array that is indexed at run time out of
    /// its registers. A software device has its registers in memory anyway, and compiles the loop many times faster
    /// than the stores written out.
    pub sums_in_array: bool,
}

/// How the lanes of a product in registers come to their weights, which are the same for all of them.
#[derive(Clone, Copy, Debug)]
pub enum WeightLoads {
    /// All load the same, which costs a GPU one load: many of them have scalar loads for that.
    Uniform,
    /// Each loads others, and `subgroupBroadcast` hands them round, from one of the first `lanes`: the device's
    /// smallest subgroup has as many. For software devices, which load for each lane by itself. With `pairs` two
    /// neighbours are one load, since a load of any width costs the same.
    Broadcast { lanes: u32, pairs: bool },
}

impl WeightLoads {
    /// Weights of a load.
    fn width(self) -> u32 {
        match self {
            Self::Uniform => 4,
            Self::Broadcast { pairs: true, .. } => 2,
            Self::Broadcast { pairs: false, .. } => 1,
        }
    }

    /// What `tensors.wgsl` calls them.
    fn name(self) -> &'static str {
        match self {
            Self::Uniform => "quads",
            Self::Broadcast { pairs: true, .. } => "pair",
            Self::Broadcast { pairs: false, .. } => "scalar",
        }
    }

    /// Lanes that load different weights, if a step takes as many.
    fn spread(self, weights: u32) -> u32 {
        match self {
            Self::Uniform => 1,
            Self::Broadcast { lanes, .. } => lanes.min(weights / self.width()),
        }
    }
}

/// Invocations of a workgroup on a GPU: a subgroup, or several. A software device's cores share the workgroups.
const THREADS: u32 = 64;
const THREADS_CPU: u32 = 16;
/// Sums of an invocation whose stores a software device compiles in good time where they are written out.
const MOST_WRITTEN_OUT: u32 = 32;

/// Sums of an invocation beside which compilers that load ahead keep what they load in registers. Mesa's for Adreno 630
/// spills beside 64.
const MOST_LOADED_AHEAD: u32 = 32;

/// Whether a block is worth a try for a link, beside blocks of these channels. Those of few load more for each, so they
/// pay only where larger ones have more channels without work.
pub fn is_worthwhile(link: &Conv2d, channels: u32, all: impl Iterator<Item = u32>) -> bool {
    let each = link.group_out_channels();
    let larger = all.filter(|larger| *larger > channels).min();
    channels > 4 || larger.is_none_or(|larger| each.next_multiple_of(channels) < each.next_multiple_of(larger))
}

/// The recipes of the blocks that the device can run, and of these what is worth a try.
///
/// # Errors
/// The reason against the first of them, if the device can run none.
pub fn recipes(
    run: &Run<'_>,
    caps: &Caps,
    link: &Conv2d,
    blocks: &[Block],
    recipe: impl Fn(Block) -> Recipe,
) -> Result<Vec<Recipe>, Unsupported> {
    let (mut fit, mut reason) = (Vec::new(), None);
    for &block in blocks {
        match fitting(run, caps, vec![recipe(block)]) {
            Ok(own) => fit.extend(own.into_iter().map(|recipe| (block.channels, recipe))),
            Err(why) => reason = reason.or(Some(why)),
        }
    }
    let all: Vec<u32> = fit.iter().map(|(channels, _)| *channels).collect();
    fit.retain(|(channels, _)| is_worthwhile(link, *channels, all.iter().copied()));
    let recipes: Vec<_> = fit.into_iter().map(|(_, recipe)| recipe).collect();
    reason.filter(|_| recipes.is_empty()).map_or(Ok(recipes), Err)
}

/// Blocks for GPUs, and for software devices without subgroups, of these channels and pixels.
pub fn uniform_blocks(run: &Run<'_>, caps: &Caps, blocks: &[[u32; 2]]) -> Result<Vec<Block>, Unsupported> {
    if caps.is_cpu && caps.subgroup.is_some() {
        return Err(Unsupported::SoftwareDevice);
    }
    let fits = |[channels, pixels]: &&[u32; 2]| !caps.loads_ahead() || channels * pixels <= MOST_LOADED_AHEAD;
    let block = |&[channels, pixels]: &[u32; 2]| Block {
        channels,
        pixels,
        rows: 1,
        piece: None,
        threads: if caps.is_cpu { THREADS_CPU } else { THREADS },
        steps: 4,
        weights: WeightLoads::Uniform,
        pairs: run.elements.input.prefers_pairs(caps),
        longs: false,
        sums_in_array: caps.is_cpu && channels * pixels > MOST_WRITTEN_OUT,
    };
    Ok(blocks.iter().filter(fits).map(block).collect())
}

/// Blocks for software devices with subgroups, of these channels and pixels.
pub fn subgroup_blocks(
    run: &Run<'_>,
    caps: &Caps,
    link: &Conv2d,
    blocks: &[[u32; 2]],
) -> Result<Vec<Block>, Unsupported> {
    if !caps.is_cpu {
        return Err(Unsupported::NeedsSoftwareDevice);
    }
    let powers_of_two = |sizes: &[u32; 2]| sizes.iter().all(|size| size.is_power_of_two());
    let [lanes, threads] = caps.subgroup.filter(powers_of_two).ok_or(Unsupported::NeedsSubgroups)?;
    let block = |&[channels, pixels]: &[u32; 2]| Block {
        channels,
        pixels,
        rows: 1,
        piece: None,
        // The largest subgroup, so whole subgroups only, whichever size the driver picks.
        threads,
        // Four take longer to compile, and run no faster.
        steps: 2,
        weights: WeightLoads::Broadcast { lanes, pairs: run.elements.weights.has_pairs(caps) },
        pairs: run.elements.input.prefers_pairs(caps),
        longs: caps.int64,
        sums_in_array: channels * pixels > MOST_WRITTEN_OUT,
    };
    let all = || blocks.iter().map(|[channels, _]| *channels);
    Ok(blocks.iter().filter(|[channels, _]| is_worthwhile(link, *channels, all())).map(block).collect())
}

impl Block {
    /// The same with several rows of pixels.
    pub fn with_rows(self, rows: u32) -> Self {
        let sums_in_array = self.sums_in_array || self.channels * self.pixels * rows > MOST_WRITTEN_OUT;
        Self { rows, sums_in_array, ..self }
    }

    /// The same with rows of the kernel in pieces of some columns.
    pub fn with_piece(self, columns: u32) -> Self {
        Self { piece: Some(columns), ..self }
    }

    /// What tells it from others, for the names of recipes.
    fn name(self) -> String {
        let rows = if self.rows > 1 { format!("x{}", self.rows) } else { String::new() };
        let pieces = if self.piece.is_some() { "-pieces" } else { "" };
        format!("{}x{}{rows}{pieces}", self.channels, self.pixels)
    }
}

/// The product in registers, without workgroup memory.
pub fn recipe(run: &Run<'_>, source: &Source, block: Block) -> Recipe {
    let step_depth = step_depth(block, run.layout, source.fetch);
    let product = product(run, source, block.channels, step_depth);
    let output = run.output();
    let [tiles_y, tiles_x] = [output.height.div_ceil(block.rows), output.width.div_ceil(block.pixels)];
    let block_pixels = block.pixels * block.rows;
    let pixels = match source.fetch {
        Fetch::Quads { .. } | Fetch::Blocks { .. } => u64::from(output.batch) * output.pixels(),
        Fetch::Rows { .. } => {
            u64::from(output.batch) * u64::from(tiles_y * block.rows) * u64::from(tiles_x * block.pixels)
        }
    };
    let tile_pixels = block.threads * block_pixels;
    let workgroups =
        pixels.div_ceil(tile_pixels.into()) * u64::from(product.params.panels) * u64::from(product.link.groups);
    let name = format!("{}/{}", source.kernel, block.name());
    let of_product = values(run, source, &product, &name, block.longs);
    let (file, of_source) = source.template.clone();
    let row_depth = match source.fetch {
        Fetch::Rows { values, .. } => Some(values),
        _ => None,
    };
    let step_weights = block.channels * step_depth;
    let lanes = block.weights.spread(step_weights);
    let has_bias = product.link.bias;
    let shader = move || {
        context! {
            source => file,
            ROW_DEPTH => row_depth,
            PIXELS => block_pixels,
            THREADS => block.threads,
            STEP_DEPTH => step_depth,
            WEIGHTS_PER_LOAD => block.weights.width(),
            BROADCAST => matches!(block.weights, WeightLoads::Broadcast { .. }),
            LANES => lanes,
            BIAS => has_bias,
            bias => false,
            SUMS_IN_ARRAY => block.sums_in_array,
            weights => block.weights.name(),
            ..merge_maps([of_product(), of_source()])
        }
    };

    let invocations = workgroups as f64 * f64::from(block.threads);
    let outputs = invocations * f64::from(block.channels * block_pixels);
    let weights_per_k = f64::from(step_weights.div_ceil(block.weights.width() * lanes)) / f64::from(step_depth);
    let of_quads = run.elements.input.of_wide_load() / if block.longs { 2.0 } else { 1.0 };
    let loads = match source.fetch {
        Fetch::Quads { aligned: true } => source.loads * of_quads,
        _ => source.loads,
    };
    let of_weights = match block.weights {
        WeightLoads::Uniform => run.elements.weights.of_wide_load(),
        WeightLoads::Broadcast { .. } => 1.0,
    };
    let fetched = invocations * f64::from(block_pixels) * product.padded_depth as f64;
    let sums = block.channels * block_pixels;
    // Large blocks copy a value that several columns see. Beside few sums compilers do not.
    let values = match source.fetch {
        Fetch::Rows { .. } if block.channels <= 4 => source.registers,
        _ => block_pixels * step_depth,
    };
    // In NHWC each pixel's four values have four scales of their own.
    let scales = if run.is_scaled() && run.layout == Layout::Nhwc { block_pixels * 4 } else { 0 };
    let pass = Pass {
        wgsl: Wgsl::template("gemm_registers.wgsl", shader),
        operands: single_pass_operands(run),
        params: Params { work: workgroups as u32, tiles_y, tiles_x, ..product.params },
        workgroup: block.threads,
        workgroups,
        workgroup_memory: 0,
        sums,
        // The weights are the same for all lanes, so that they take none, or few.
        registers: sums + values + source.place + scales + REGISTERS_FOR_ADDRESSES,
    };
    Recipe {
        name,
        weights: product.weights,
        workspace: Vec::new(),
        work: Work {
            mult_adds: outputs * product.padded_depth as f64 + fetched * source.mult_adds,
            accesses: fetched * loads
                + invocations * weights_per_k * product.padded_depth as f64 * of_weights
                + outputs * of_outputs(run, source),
            shared: 0.0,
            bytes: compulsory_bytes(run),
        },
        passes: vec![pass],
        // One sum in order of k.
        tolerance: 4.0,
        exact: true,
        spreads_errors: false,
    }
}

/// How many k a step of the loop takes: whole rows of the kernel where the source gives these.
fn step_depth(block: Block, layout: Layout, fetch: Fetch) -> u32 {
    match (fetch, layout) {
        (Fetch::Rows { values, .. }, _) => (block.steps / values).max(1) * values,
        (_, Layout::Nchw) => block.steps,
        (_, Layout::Nhwc) => 4,
    }
}
