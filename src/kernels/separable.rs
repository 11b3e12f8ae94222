//! `separable`: depthwise and pointwise in one dispatch. The depthwise results of a tile go straight into the
//! workgroup memory from which the product reads them.
//!
//! Each tile of output channels computes its depthwise results again, so wide tiles are better here than in a plain
//! product. The planner decides whether the fusion pays.

use std::sync::Arc;

use minijinja::{Value, context};

use super::gemm::tiled::{self, TILES_OF_GATHERED};
use super::gemm::window::{Lines, MOST_ROWS, MOST_TAPS};
use super::gemm::{Fetch, Source};
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
    let source = source(run, [depthwise, pointwise])?;
    let recipes = TILES_OF_GATHERED.iter().map(|&tile| tiled::recipe(run, &source, tile, caps)).collect();
    fitting(run, caps, recipes)
}

fn source(run: &Run<'_>, [depthwise, pointwise]: [&Conv2d; 2]) -> Result<Source, Unsupported> {
    let taps = depthwise.fan_in();
    let outputs = match run.layout {
        Layout::Nhwc if !depthwise.in_channels.is_multiple_of(4) => {
            return Err(Unsupported::InChannels(depthwise.in_channels));
        }
        Layout::Nhwc => Outputs::Channels,
        Layout::Nchw if u64::from(padded_width(run)) * 4 <= u64::from(run.output().width) * 5 => Outputs::Neighbours,
        Layout::Nchw => Outputs::Pixels,
    };
    // A tap's weight is shared by four outputs, unless these are channels.
    let weights = taps as f64 / if outputs == Outputs::Channels { 1.0 } else { 4.0 };
    let window = Window::new(depthwise, outputs, padded_width(run) - run.output().width);
    let (template, loads, registers) = match outputs {
        // A quad of inputs and its places.
        Outputs::Pixels => ("source_depthwise_gather.wgsl", taps as f64, 12),
        _ => ("source_depthwise.wgsl", window.loads(), window.registers()),
    };
    let packing = match run.layout {
        Layout::Nhwc => Packing::Taps,
        Layout::Nchw => Packing::Panels { block: 1, k_align: 4, order: Order::ChannelFirst },
    };
    Ok(Source {
        kernel: SEPARABLE.name,
        template: (template, Arc::new(move || window.values())),
        fetch: match outputs {
            Outputs::Neighbours => Fetch::Lines,
            _ => Fetch::Quads { aligned: outputs == Outputs::Channels },
        },
        order: Order::ChannelFirst,
        conv: pointwise.clone(),
        link: 1,
        before: vec![
            (run.section(0, depthwise, packing), "DEPTHWISE_AT"),
            (run.section(0, depthwise, Packing::Bias { block: 1 }), "DEPTHWISE_BIAS_AT"),
        ],
        loads: loads + weights,
        mult_adds: taps as f64,
        shared: 0.0,
        registers,
        place: 16,
    })
}

/// The output's width, filled up to whole quads.
fn padded_width(run: &Run<'_>) -> u32 {
    run.output().width.next_multiple_of(4)
}

/// Which four outputs of the depthwise convolution are made at a time.
#[derive(Clone, Copy, PartialEq)]
enum Outputs {
    /// Four channels of a pixel.
    Channels,
    /// Four neighbours in a row; behind the end of a row there may be up to three that are not stored.
    Neighbours,
    /// Any four pixels: for rows so short that filling them up would add more than a quarter.
    Pixels,
}

/// The inputs under the kernel for four outputs.
struct Window {
    depthwise: Conv2d,
    outputs: Outputs,
    rows: Lines,
    columns: Lines,
}

impl Window {
    /// `filled`: outputs behind the last of a row.
    fn new(depthwise: &Conv2d, outputs: Outputs, filled: u32) -> Self {
        let columns = match outputs {
            Outputs::Neighbours => Lines::columns(depthwise, 4, filled),
            Outputs::Channels | Outputs::Pixels => Lines::columns(depthwise, 1, 0),
        };
        Self { depthwise: depthwise.clone(), outputs, rows: Lines::rows(depthwise), columns }
    }

    /// What the source's template asks for.
    fn values(&self) -> Value {
        // Of four channels: k is filled up with whole quads, so all four are channels of the input, and may share NaNs.
        let channels = self.outputs == Outputs::Channels;
        let activation = shader::inner_activation_values("depthwise", self.depthwise.activation, 1, channels);
        let geometry = shader::geometry_values(&self.depthwise);
        if self.outputs == Outputs::Pixels {
            return context! { geometry, inner_activations => [activation] };
        }
        context! {
            geometry,
            inner_activations => [activation],
            WINDOW_ROWS => self.rows.all,
            PADDED_ROWS => self.rows.padded,
            WINDOW_COLUMNS => self.columns.all,
            PADDED_COLUMNS => self.columns.padded,
            LOOP_ROWS => self.depthwise.kernel_size[0] > MOST_ROWS,
        }
    }

    /// Loads of the input for each output.
    fn loads(&self) -> f64 {
        let loads = (self.rows.all.len() * self.columns.all.len()) as f64;
        if self.outputs == Outputs::Neighbours { loads / 4.0 } else { loads }
    }

    /// For the inputs and the weights of a row, and four sums.
    fn registers(&self) -> u32 {
        let lanes = if self.outputs == Outputs::Channels { 4 } else { 1 };
        (self.columns.all.len() as u32 + self.depthwise.kernel_size[1]) * lanes + 4
    }
}
