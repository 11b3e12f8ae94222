//! `separable`: depthwise and pointwise in one dispatch. The depthwise results of a tile go straight into the
//! workgroup memory from which the product reads them.
//!
//! Each tile of output channels computes its depthwise results again, so wide tiles are better here than in a plain
//! product. The planner decides whether the fusion pays.

use std::sync::Arc;

use minijinja::{Value, context};

use super::gemm::tiled::{self, TILES_OF_GATHERED, Tile};
use super::gemm::window::{Lines, MOST_ROWS, MOST_TAPS};
use super::gemm::{self, Fetch, Source};
use super::{Kernel, Recipe, Run, Unsupported, fitting};
use crate::kernels::pack::{Order, Packing};
use crate::kernels::shader;
use crate::model::caps::Caps;
use crate::model::conv::Conv2d;
use crate::model::shape::Layout;

pub const SEPARABLE: Kernel = Kernel { name: "separable", links: 2, candidates };

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let [depthwise, pointwise] = run.convs()?;
    if !depthwise.is_depthwise() || depthwise.out_channels != depthwise.in_channels || !pointwise.is_pointwise() {
        return Err(Unsupported::NotSeparable);
    }
    if depthwise.residual.is_some() {
        return Err(Unsupported::InnerResidual);
    }
    if depthwise.fan_in() > MOST_TAPS {
        return Err(Unsupported::KernelSize(depthwise.kernel_size));
    }
    let links = [depthwise, pointwise];
    let outputs = outputs(run, depthwise)?;
    let recipe = |tile: Tile| {
        let of_length = |length: u32| tiled::recipe(run, &source(run, links, outputs, length, tile, caps), tile, caps);
        // The longest strips that there are registers for. A software device compiles short ones faster.
        let mut recipes = strips(run, outputs, tile, caps).map(of_length);
        let fits = |recipe: &Recipe| fitting(run, caps, vec![recipe.clone()]).is_ok();
        recipes.find(fits).unwrap_or_else(|| of_length(1))
    };
    // Mesa's compiler for Adreno 660 spills in the larger workgroups.
    let fits = |tile: &&Tile| !caps.loads_ahead() || tile.threads() <= SMALL_WORKGROUP;
    fitting(run, caps, TILES_OF_GATHERED.iter().filter(fits).map(|&tile| recipe(tile)).collect())
}

/// Which outputs an invocation makes at a time.
fn outputs(run: &Run<'_>, depthwise: &Conv2d) -> Result<Outputs, Unsupported> {
    match run.layout {
        Layout::Nhwc if !depthwise.in_channels.is_multiple_of(4) => Err(Unsupported::InChannels(depthwise.in_channels)),
        Layout::Nhwc => Ok(Outputs::Channels),
        Layout::Nchw if gemm::is_worth_filling(run.output().width, 4) => Ok(Outputs::Neighbours),
        Layout::Nchw => Ok(Outputs::Pixels),
    }
}

/// The lengths of strips to consider, the longest first: those that share the outputs of a tile out evenly, and that
/// rows (or columns) of the output can be filled up to.
fn strips(run: &Run<'_>, outputs: Outputs, tile: Tile, caps: &Caps) -> impl Iterator<Item = u32> {
    let extent = if outputs == Outputs::Channels { run.output().width } else { run.output().height };
    let is_short = caps.is_cpu || caps.loads_ahead() || outputs == Outputs::Pixels;
    let most = if is_short { 1 } else { MOST_IN_STRIP };
    let quads = tile.staged_quads();
    (1..=most)
        .rev()
        .filter(move |&length| length == 1 || quads.is_multiple_of(length) && gemm::is_worth_filling(extent, length))
}

fn source(
    run: &Run<'_>,
    [depthwise, pointwise]: [&Conv2d; 2],
    outputs: Outputs,
    length: u32,
    tile: Tile,
    caps: &Caps,
) -> Source {
    let taps = depthwise.fan_in();
    let window = Window::new(run, depthwise, outputs, length, caps);
    // Of each value.
    let (template, loads, registers) = match outputs {
        // A quad of inputs and its places.
        Outputs::Pixels => ("source_depthwise_gather.wgsl", taps as f64 * 1.25, 12),
        _ => ("source_depthwise.wgsl", window.loads(), window.registers()),
    };
    let (place, kept) = match outputs {
        Outputs::Pixels => (16, 0),
        _ => (window.place(), window.weight_quads(tile.depth)),
    };
    // A strip shares its weights.
    let shared = if kept > 0 { taps as f64 / f64::from(window.outputs_of_channel()) } else { 0.0 };
    let packing = match run.layout {
        Layout::Nhwc => Packing::Taps,
        Layout::Nchw => Packing::Panels { block: 1, k_align: 4, order: Order::ChannelFirst },
    };
    Source {
        kernel: SEPARABLE.name,
        template: (template, Arc::new(move || window.values())),
        fetch: match outputs {
            Outputs::Channels => Fetch::Blocks { height: 1, width: length, staged: 0 },
            Outputs::Neighbours => Fetch::Blocks { height: length, width: 4, staged: 0 },
            Outputs::Pixels => Fetch::Quads { aligned: false },
        },
        order: Order::ChannelFirst,
        conv: pointwise.clone(),
        link: 1,
        before: vec![
            (run.section(0, depthwise, packing), "DEPTHWISE_AT"),
            (run.section(0, depthwise, Packing::Bias { block: 1 }), "DEPTHWISE_BIAS_AT"),
        ],
        loads,
        mult_adds: taps as f64,
        shared,
        registers,
        place,
        kept,
    }
}

/// Invocations of the workgroups on GPUs whose compilers load ahead.
const SMALL_WORKGROUP: u32 = 64;
/// The most rows of a strip in NCHW, or columns in NHWC. With more, drivers keep too many values in registers.
const MOST_IN_STRIP: u32 = 4;

/// Which outputs of the depthwise convolution are made at a time.
#[derive(Clone, Copy, PartialEq)]
enum Outputs {
    /// Four channels of some neighbours in a row.
    Channels,
    /// Some rows of four neighbours.
    Neighbours,
    /// Any four pixels: for rows so short that filling them up would add more than a quarter.
    Pixels,
}

/// The inputs under the kernels of a strip of outputs.
struct Window {
    depthwise: Conv2d,
    outputs: Outputs,
    length: u32,
    rows: Lines,
    columns: Lines,
    /// Whether a NaN may move to another channel of its pixel.
    share_nans: bool,
}

impl Window {
    fn new(run: &Run<'_>, depthwise: &Conv2d, outputs: Outputs, length: u32, caps: &Caps) -> Self {
        let [height, width] = match outputs {
            Outputs::Channels => [1, length],
            Outputs::Neighbours => [length, 4],
            Outputs::Pixels => [1, 1],
        };
        let rows = Lines::rows(depthwise, run.input().height, height);
        let columns = Lines::columns(depthwise, run.input().width, width);
        // Of four channels: k is filled up with whole quads, so all four are channels of the input, and may share NaNs.
        let share_nans = outputs == Outputs::Channels && !caps.selects_as_it_compares();
        Self { depthwise: depthwise.clone(), outputs, length, rows, columns, share_nans }
    }

    /// What the source's template asks for.
    fn values(&self) -> Value {
        let activation = shader::inner_activation_values("depthwise", self.depthwise.activation, 1, self.share_nans);
        let geometry = shader::geometry_values(&self.depthwise);
        if self.outputs == Outputs::Pixels {
            return context! { geometry, inner_activations => [activation], STAGED_IN_LOOP => true };
        }
        context! {
            geometry,
            inner_activations => [activation],
            LENGTH => self.length,
            // Of many short strips written out, compilers would load all at a time.
            STAGED_IN_LOOP => self.length == 1,
            WINDOW_ROWS => self.rows.all,
            ZEROED_ROWS => self.rows.zeroed,
            WINDOW_COLUMNS => self.columns.all,
            PADDED_COLUMNS => self.columns.padded,
            ZEROED_COLUMNS => self.columns.zeroed,
            LOOP_ROWS => self.loops(),
        }
    }

    fn loops(&self) -> bool {
        self.depthwise.kernel_size[0] > MOST_ROWS
    }

    /// Loads of the input for each output. Where the rows of the kernel are a loop, each loads for all rows of a strip.
    fn loads(&self) -> f64 {
        let rows = match self.outputs {
            Outputs::Neighbours if self.loops() => self.depthwise.kernel_size[0] * self.length,
            _ => self.rows.all.len() as u32,
        };
        f64::from(rows) * self.columns.all.len() as f64 / f64::from(self.outputs_of_channel())
    }

    /// Outputs of a strip in each channel.
    fn outputs_of_channel(&self) -> u32 {
        self.length * if self.outputs == Outputs::Neighbours { 4 } else { 1 }
    }

    /// Quads of workgroup memory for the weights and biases of `depth` channels.
    fn weight_quads(&self, depth: u32) -> u32 {
        let taps = self.depthwise.fan_in() as u32;
        depth / 4 * if self.outputs == Outputs::Channels { taps } else { taps.next_multiple_of(4) } + depth / 4
    }

    /// For the inputs of a row, the weights, and a strip of sums.
    fn registers(&self) -> u32 {
        let [kernel_height, kernel_width] = self.depthwise.kernel_size;
        let weights = if self.loops() { kernel_width } else { kernel_height * kernel_width };
        match self.outputs {
            // A weight at a time, from workgroup memory.
            Outputs::Channels => (self.columns.all.len() as u32 + 1 + self.length) * 4,
            _ => self.columns.all.len() as u32 + weights.next_multiple_of(4) + self.length * 4,
        }
    }

    /// For where rows and columns are.
    fn place(&self) -> u32 {
        let rows = if self.loops() { 0 } else { self.rows.all.len() + self.rows.zeroed.len() };
        6 + (rows + self.columns.padded.len() + self.columns.zeroed.len()) as u32
    }
}
