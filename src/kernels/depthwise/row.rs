//! Strips of one row, or of a few, for kernels whose window does not stay in registers: the rows of the input are a
//! loop, and so are the columns of the kernel if there are many.

use minijinja::value::merge_maps;
use minijinja::{Value, context};

use super::columns::{Columns, Oriented};
use crate::kernels::elements::Element;
use crate::kernels::pack::{Order, Packing, sections};
use crate::kernels::shader;
use crate::kernels::{
    Params, Pass, REGISTERS_FOR_ADDRESSES, Recipe, Run, Wgsl, Work, compulsory_bytes, single_pass_operands,
};
use crate::model::caps::Caps;
use crate::model::conv::Conv2d;
use crate::model::shape::Layout;

/// Rows and columns of a strip. An input serves all rows of the strip that it is under, so more rows load less, but
/// there are fewer strips to fill a GPU with.
const SHAPES: &[[u32; 2]] = &[[1, 8], [1, 4], [1, 1], [2, 4], [2, 8], [4, 8]];
/// The same for software devices, which have their registers in memory. Rows of many networks' images are multiples of
/// 14.
const SHAPES_CPU: &[[u32; 2]] = &[[2, 14], [1, 14], [1, 8], [1, 4], [1, 1]];

/// Undilated kernels of as many taps have strips that keep their input rows, which are better where there are rows
/// enough.
const FEW_TAPS: u64 = 25;

/// The shapes of strips of an image on a device. Those of several rows are for large or dilated kernels, whose rows
/// share inputs, and for images that have as many.
pub fn shapes(oriented: &Oriented, caps: &Caps) -> impl Iterator<Item = [u32; 2]> {
    let shapes = if caps.is_cpu { SHAPES_CPU } else { SHAPES };
    let is_large = oriented.link.fan_in() > FEW_TAPS || oriented.step(0) > 1;
    let shares = is_large && oriented.shift() < oriented.link.kernel_size[0];
    shapes.iter().copied().filter(move |&[rows, _]| rows == 1 || (shares && oriented.used_rows(rows) == rows))
}

/// Columns of the kernel whose multiply-adds are written out, of which a compiler may load the input all at once. A
/// software device has its registers in memory, and a loop costs it more. All are even, or pairs of the second block
/// were not aligned.
const BLOCK: u32 = 16;
const BLOCK_OF_QUADS: u32 = 8;
/// The same if there are several, for compilers that load the next block beside this one.
const BLOCK_LOADED_AHEAD: u32 = 4;
/// The smallest for GPUs with few registers, and for compilers that load ahead what has to be taken out of words.
const SMALLEST_BLOCK: u32 = 8;
const BLOCK_CPU: u32 = 32;
/// Beyond this many values at once, a block of quads has fewer columns.
const MOST_REGISTERS: u32 = 112;
/// The same for compilers that load the next block beside this one: Mesa's for Adreno 630 spills beside twice 84.
const MOST_REGISTERS_AHEAD: u32 = 72;
/// Invocations of a workgroup.
const WORKGROUP: u32 = 64;
const WORKGROUP_CPU: u32 = 16;
/// Of a workgroup's invocations, the share that has strips if it has one channel, at least.
const FULL: f64 = 0.6;

/// How weights come to the invocations.
#[derive(Clone, Copy, PartialEq)]
enum Weights {
    /// Each loads its own.
    Own,
    /// A workgroup has one channel, and loads the same weights. A GPU loads some at a time, and once for all lanes.
    Shared { at_a_time: u32 },
    /// A workgroup has one channel. This many lanes each load another weight, and broadcasts hand them round.
    Broadcast(u32),
}

/// A strip and the kernel's part under it.
struct Row {
    oriented: Oriented,
    rows: u32,
    columns: Columns,
    lanes: u32,
    weights: Weights,
    workgroup: u32,
    block: u32,
}

/// Some columns of the kernel: `count` blocks of `taps`.
struct Part {
    first: u32,
    count: u32,
    taps: u32,
}

impl Row {
    fn parts(&self) -> Vec<Part> {
        let kernel = self.oriented.link.kernel_size[1];
        let count = kernel / self.block;
        let whole = Part { first: 0, count, taps: self.block };
        let rest = Part { first: count * self.block, count: 1, taps: kernel % self.block };
        [whole, rest].into_iter().filter(|part| part.count > 0 && part.taps > 0).collect()
    }

    fn strips(&self) -> u64 {
        u64::from(self.columns.strips(self.oriented.output[1])) * u64::from(self.oriented.strips_y(self.rows))
    }

    /// Loads of the input and of the weights.
    fn loads(&self) -> f64 {
        let [kernel_rows, _] = self.oriented.link.kernel_size.map(f64::from);
        let input_rows = kernel_rows + f64::from(self.rows - 1) * f64::from(self.oriented.shift());
        let of_part = |part: &Part| {
            let inputs = self.columns.loads(&self.columns.inputs(0..part.taps)).len() as f64;
            let weights = match self.weights {
                Weights::Broadcast(lanes) => part.taps.div_ceil(lanes),
                Weights::Shared { at_a_time } => part.taps.div_ceil(at_a_time),
                Weights::Own => part.taps,
            };
            f64::from(part.count) * (input_rows * inputs + f64::from(self.rows) * kernel_rows * f64::from(weights))
        };
        self.parts().iter().map(of_part).sum()
    }

    /// Values held at once, of 32 bits.
    fn registers(&self) -> u32 {
        let inputs = self.parts().iter().map(|part| self.columns.inputs(0..part.taps).len()).max().unwrap_or(0) as u32;
        (inputs + self.rows * self.columns.width + 1) * self.lanes
    }

    fn name(&self) -> String {
        self.oriented.name(&self.rows.to_string(), self.columns.width, self.lanes)
    }

    fn values(&self, link: &Conv2d, layout: Layout) -> Value {
        let part = |part: &Part| {
            let inputs = self.columns.inputs(0..part.taps);
            let loads = self.columns.loads(&inputs);
            let Part { first, count, taps } = part;
            context! { first, count, taps, columns => inputs, load_columns => loads }
        };
        let lanes_of_weights = if let Weights::Broadcast(lanes) = self.weights { lanes } else { 1 };
        let own = context! {
            recipe => self.name(),
            problem => shader::problem(link, layout),
            WORKGROUP => self.workgroup,
            ROWS => self.rows,
            ROW_STEP => if self.rows > 1 { self.oriented.step(0) } else { 1 },
            SHIFT => if self.rows > 1 { self.oriented.shift() } else { 1 },
            BROADCAST => lanes_of_weights > 1,
            SHARES_WEIGHTS => self.weights != Weights::Own,
            WEIGHTS_BY_CHANNEL => layout == Layout::Nchw || self.weights != Weights::Own,
            LANES_OF_WEIGHTS => lanes_of_weights,
            parts => self.parts().iter().map(part).collect::<Vec<_>>(),
            transposed => self.oriented.transposed,
            geometry => shader::geometry_values(&self.oriented.link),
            layout => shader::layout_name(layout),
        };
        let columns = [self.columns.values(self.lanes), self.columns.accesses(link, self.lanes)];
        merge_maps([[own, shader::epilogue_values(link)], columns].concat())
    }
}

pub fn recipe(
    run: &Run<'_>,
    link: &Conv2d,
    caps: &Caps,
    oriented: &Oriented,
    rows: u32,
    columns: Columns,
    lanes: u32,
) -> Recipe {
    let oriented = oriented.clone();
    let broadcasting = caps.subgroup.filter(|sizes| caps.is_cpu && sizes.iter().all(|size| size.is_power_of_two()));
    let mut row = Row { oriented, rows, columns, lanes, weights: Weights::Own, workgroup: WORKGROUP, block: BLOCK };
    if lanes == 4 {
        let is_long = row.oriented.link.kernel_size[1] > BLOCK_OF_QUADS;
        row.block = if is_long && caps.loads_ahead() { BLOCK_LOADED_AHEAD } else { BLOCK_OF_QUADS };
        let most = if is_long && caps.loads_ahead() { MOST_REGISTERS_AHEAD } else { MOST_REGISTERS };
        while row.registers() > most && row.block > 2 {
            row.block /= 2;
        }
    }
    let spills = |row: &Row| {
        let registers = u64::from(row.registers() + REGISTERS_FOR_ADDRESSES);
        caps.invocation_registers().is_some_and(|limit| registers * 8 > limit * 7)
    };
    let unpacks_ahead = caps.loads_ahead() && run.elements.input == Element::Words;
    while lanes == 1 && row.block > SMALLEST_BLOCK && (unpacks_ahead || spills(&row)) {
        row.block /= 2;
    }
    if caps.is_cpu {
        (row.workgroup, row.block) = (WORKGROUP_CPU, BLOCK_CPU);
    }
    let filled = |workgroup: u32| {
        let strips = row.strips();
        strips as f64 / (strips.next_multiple_of(workgroup.into()).max(1)) as f64
    };
    match broadcasting {
        // A workgroup is the largest subgroup, so whole subgroups only, whichever size the driver picks.
        Some([least, most]) if least > 1 && filled(most) >= FULL => {
            (row.weights, row.workgroup) = (Weights::Broadcast(least), most);
        }
        _ if run.layout == Layout::Nchw && filled(row.workgroup) >= FULL => {
            row.weights = Weights::Shared { at_a_time: if caps.is_cpu { 1 } else { 4 } };
        }
        _ => {}
    }

    let taps = match (row.weights, lanes, run.layout) {
        (Weights::Own, _, Layout::Nhwc) => Packing::Taps,
        (_, 2.., _) => Packing::BlockTaps { block: lanes },
        _ => Packing::Panels { block: 1, k_align: 1, order: Order::ChannelFirst },
    };
    let (weights, offsets) = sections([taps, Packing::Bias { block: 1 }].map(|packing| run.section(0, link, packing)));
    let [_, out_width] = row.oriented.output;
    let channels = link.out_channels / lanes;
    let planes = u64::from(channels) * u64::from(run.output().batch);
    let (workgroups, work) = match row.weights {
        Weights::Own => {
            let items = row.strips() * planes;
            (items.div_ceil(row.workgroup.into()), items)
        }
        Weights::Shared { .. } | Weights::Broadcast(_) => {
            let workgroups = row.strips().div_ceil(row.workgroup.into()) * planes;
            (workgroups, workgroups)
        }
    };
    // Values and accesses of all invocations, idle ones included.
    let invocations = workgroups as f64 * f64::from(row.workgroup);
    let values = invocations * f64::from(lanes);
    let counted = invocations * super::accesses_of(lanes, run);
    let loads = row.loads();
    let params = Params {
        tiles_x: row.columns.strips(out_width),
        tiles_y: row.oriented.strips_y(rows),
        work: work as u32,
        // Strides and offsets count `Value`s.
        in_channels: link.in_channels / lanes,
        out_channels: channels,
        bias_at: (offsets[1] / u64::from(lanes)) as u32,
        ..row.oriented.params(run)
    };
    let (name, sums) = (row.name(), rows * row.columns.width);
    let apart = row.columns.apart(&row.oriented, rows);
    let stores = f64::from(rows * row.columns.stores()) * super::loads_of_store(run, caps, apart);
    let (registers, workgroup) = (row.registers() + REGISTERS_FOR_ADDRESSES, row.workgroup);
    let (seen, layout, elements) = (link.clone(), run.layout, run.elements);
    let values_of = move || context! { elements => elements.values(), ..row.values(&seen, layout) };
    let pass = Pass {
        wgsl: Wgsl::template("depthwise_row.wgsl", values_of),
        operands: single_pass_operands(run),
        params,
        workgroup,
        workgroups,
        workgroup_memory: 0,
        sums: sums * lanes,
        registers,
    };
    Recipe {
        name,
        weights,
        workspace: Vec::new(),
        work: Work {
            mult_adds: values * f64::from(sums) * link.fan_in() as f64,
            accesses: counted * (loads + stores + 1.0),
            shared: 0.0,
            bytes: compulsory_bytes(run),
        },
        passes: vec![pass],
        // A sum in order, as `direct` makes it.
        tolerance: 4.0,
        exact: true,
        spreads_errors: false,
    }
}
