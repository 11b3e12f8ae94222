//! `matvec`: layers whose window is the whole image, so that an output is a single pixel: classifiers, and the fully
//! connected layers that end older networks. Each image is a vector, and the weights are a matrix that is read once.

use std::sync::Arc;

use minijinja::context;
use minijinja::value::merge_maps;

use super::gemm::{self, Fetch, Source};
use super::{
    Kernel, Params, Pass, REGISTERS_FOR_ADDRESSES, Recipe, Run, Unsupported, Wgsl, Work, compulsory_bytes, fitting,
    single_pass_operands,
};
use crate::kernels::pack::Order;
use crate::kernels::shader::Values;
use crate::model::caps::Caps;
use crate::model::conv::Conv2d;
use crate::model::shape::{Layout, Shape};

pub const MATVEC: Kernel = Kernel { name: "matvec", links: 1, candidates };

/// How a workgroup shares its work.
#[derive(Clone, Copy)]
struct Tile {
    /// Output channels.
    channels: u32,
    /// Invocations side by side, with as many channels each.
    lanes: u32,
    /// Invocations behind each other that take turns at k; a single one has all.
    slices: u32,
    /// Whether 64-bit integers are loaded.
    pairs: bool,
}

const SLICED: &[Tile] = &[
    Tile { channels: 32, lanes: 8, slices: 32, pairs: false },
    Tile { channels: 16, lanes: 4, slices: 64, pairs: false },
];
/// Four rows take four times the workgroup memory.
const SLICED_ROWS: &[Tile] = &[Tile { channels: 32, lanes: 8, slices: 16, pairs: false }];
/// Of software devices, which gain nothing by slices. Their cores take a workgroup at a time, so it is a small one.
const SERIAL: Tile = Tile { channels: 64, lanes: 8, slices: 1, pairs: false };
/// Bytes of weights up to which they are offered in pairs. These halve the instructions of a load, but what comes from
/// memory and not from a cache is read at half the rate (lavapipe on an AMD EPYC, 38 MB, for no reason that was found).
const MOST_IN_PAIRS: u64 = 8 << 20;

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let (link, image) = (run.only_conv_or_scaled()?, run.input());
    match () {
        () if link.groups != 1 => return Err(Unsupported::Groups(link.groups)),
        () if link.padding != [0; 4] => return Err(Unsupported::Padding(link.padding)),
        () if link.kernel_size != [image.height, image.width] => {
            return Err(Unsupported::Window { kernel: link.kernel_size, image: [image.height, image.width] });
        }
        // The source has a scale for each k.
        () if link.scaled && image.pixels() > 1 => return Err(Unsupported::Scaled),
        () => {}
    }
    let rows = if image.batch > 1 { 4 } else { 1 };
    let in_pairs = caps.int64 && link.weight_shape().bytes(run.elements.weights.dtype()) <= MOST_IN_PAIRS;
    let tiles = match rows {
        _ if caps.is_cpu && in_pairs => &[Tile { pairs: true, ..SERIAL }, SERIAL],
        _ if caps.is_cpu => &[SERIAL][..],
        1 => SLICED,
        _ => SLICED_ROWS,
    };
    let vectors = Vectors::new(run, link);
    fitting(run, caps, tiles.iter().map(|&tile| vectors.recipe(run, tile, rows)).collect())
}

/// The run as a pointwise convolution of as many channels as the window has values.
struct Vectors {
    link: Conv2d,
    shapes: [Shape; 2],
    /// Of k, as the image lies in memory.
    order: Order,
}

impl Vectors {
    fn new(run: &Run<'_>, link: &Conv2d) -> Self {
        let depth = link.fan_in() as u32;
        Self {
            link: Conv2d { in_channels: depth, kernel_size: [1; 2], stride: [1; 2], ..link.clone() },
            shapes: [Shape { channels: depth, height: 1, width: 1, ..run.input() }, run.output()],
            order: match run.layout {
                Layout::Nchw => Order::ChannelFirst,
                Layout::Nhwc => Order::ChannelLast,
            },
        }
    }

    fn recipe(&self, run: &Run<'_>, tile: Tile, rows: u32) -> Recipe {
        // Channels of a single pixel lie side by side in both layouts.
        let link = [self.link.clone().into()];
        let vectors = Run { links: &link, shapes: &self.shapes, layout: Layout::Nhwc, ..*run };
        let source = self.source();
        let product = gemm::product(&vectors, &source, tile.channels, 4);
        let workgroup = tile.lanes * tile.slices;
        let workgroups = u64::from(product.params.panels) * u64::from(run.input().batch.div_ceil(rows));
        let slices = if tile.slices > 1 { format!("x{}", tile.slices) } else { String::new() };
        let pairs = if tile.pairs { "-pairs" } else { "" };
        let name = format!("{}/{}x{rows}{slices}{pairs}", MATVEC.name, tile.channels);
        let of_product = gemm::values(&vectors, &source, &product, &name, tile.pairs);
        let (file, of_source) = source.template.clone();
        let values = move || {
            context! {
                source => file,
                LANES => tile.lanes,
                SLICES => tile.slices,
                ROWS => rows,
                ..merge_maps([of_product(), of_source()])
            }
        };
        let pass = Pass {
            wgsl: Wgsl::template("matvec.wgsl", values),
            operands: single_pass_operands(run),
            params: Params { work: workgroups as u32, ..product.params },
            workgroup,
            workgroups,
            workgroup_memory: if tile.slices > 1 { workgroup * rows * 16 } else { 0 },
            sums: 4 * rows,
            // A sum's operand beside each.
            registers: 8 * rows + REGISTERS_FOR_ADDRESSES,
        };
        Recipe {
            name,
            weights: product.weights,
            workspace: Vec::new(),
            work: Work { bytes: compulsory_bytes(run), ..tile.work(run, rows, workgroups, product.padded_depth) },
            passes: vec![pass],
            // Sums of four terms; these in order, or by a tree.
            tolerance: 4.0,
            exact: true,
            spreads_errors: false,
        }
    }

    fn source(&self) -> Source {
        let aligned = self.link.in_channels.is_multiple_of(4);
        let template = ("source_pointwise.wgsl", Arc::new(|| context! { geometry => (), UNEVEN => false }) as Values);
        Source::loaded(MATVEC.name, &self.link, template, Fetch::Quads { aligned }, self.order)
    }
}

impl Tile {
    fn work(self, run: &Run<'_>, rows: u32, workgroups: u64, depth: u64) -> Work {
        let [channels, lanes, slices, rows] = [self.channels, self.lanes, self.slices, rows].map(f64::from);
        let (groups, depth) = (workgroups as f64, depth as f64);
        let outputs = groups * channels * rows;
        let of_each = run.elements.weights.of_wide_load() / if self.pairs { 2.0 } else { 1.0 };
        let inputs = groups * depth * lanes * rows;
        // Each input is multiplied by a scale of its own.
        let scales = if run.is_scaled() { inputs } else { 0.0 };
        Work {
            mult_adds: outputs * depth + scales,
            accesses: (groups * depth * channels + inputs + scales) * of_each + outputs,
            // Each slice writes its sums, and is read once.
            shared: if slices > 1.0 { 2.0 * outputs * slices } else { 0.0 },
            ..Work::default()
        }
    }
}
