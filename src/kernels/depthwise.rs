//! `depthwise`: a strip of outputs an invocation, each input under it loaded once.

mod columns;
mod row;

use std::collections::BTreeSet;

use minijinja::value::merge_maps;
use minijinja::{Value, context};

use self::columns::{Columns, Oriented, Outputs};
use super::{
    Kernel, Params, Pass, REGISTERS_FOR_ADDRESSES, Recipe, Run, Unsupported, Wgsl, Work, compulsory_bytes, fitting,
    single_pass_operands,
};
use crate::kernels::pack::{Order, Packing, sections};
use crate::kernels::shader;
use crate::model::caps::Caps;
use crate::model::conv::Conv2d;
use crate::model::shape::Layout;

pub const DEPTHWISE: Kernel = Kernel { name: "depthwise", links: 1, candidates };

/// Rows and columns of a strip. Short strips fill a GPU, long ones load less.
const STRIPS: &[[u32; 2]] = &[[8, 4], [4, 4], [16, 4], [64, 8], [64, 7], [64, 4], [8, 2]];
/// More of them for GPUs in NCHW, narrow ones: neighbouring invocations store neighbours.
const NARROW_STRIPS: &[[u32; 2]] = &[[8, 1], [4, 1], [16, 1], [4, 2]];
/// What a store in NCHW costs on a GPU, in loads: fitted on an H200.
const STORE: f64 = 6.0;
/// From this distance on, in bytes, between the stores of two neighbouring invocations a store costs more: it touches
/// more of the cache. Fitted on an H200.
const NEAR: f64 = 8.0;
/// Rows and columns of strips of neighbours for dilated links on software devices. With an odd dilation outputs as far
/// apart as the taps were not aligned in pairs, and with a large one an image has few that are. Neighbours share few
/// inputs unless there are many of them: all of a row at best.
const WIDE_STRIP: [u32; 2] = [64, 28];
const WIDEST_ROW: u32 = 64;
/// The same where wide strips share next to nothing: wider rows take three seconds to compile, and may run no faster.
const WIDEST_SPREAD_ROW: u32 = 80;
/// Invocations of a workgroup; fewer on a CPU, whose cores share the workgroups.
const WORKGROUP: u32 = 64;
const WORKGROUP_CPU: u32 = 16;
/// Beyond this many values at once no GPU keeps a strip's state in registers. A software device has it in memory
/// anyway.
const MOST_REGISTERS: u64 = 128;
const MOST_REGISTERS_CPU: u64 = 512;
/// Beyond this many multiply-adds, or loads and stores, a written-out row takes drivers too long to compile.
const MOST_TERMS: u64 = 1024;
const MOST_ACCESSES: u64 = 256;
/// The same for all of a row, pairs of channels of 80 columns included: it takes three seconds to compile.
const MOST_REGISTERS_OF_ROW: u64 = 768;
const MOST_ACCESSES_OF_ROW: u64 = 320;
/// Rows of a kernel that is seen with rows for columns if it has few columns: the outputs of a strip that goes along
/// them share most of their inputs.
const TALL: u32 = 8;

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let link = run.only_conv()?;
    if !link.is_depthwise() {
        return Err(Unsupported::Groups(link.groups));
    }
    let lanes = lanes(run, link, caps);
    let [kernel_rows, kernel_columns] = link.kernel_size;
    let is_tall = kernel_rows >= TALL && kernel_rows / 4 >= kernel_columns;
    let oriented = Oriented::new(run, link, is_tall);
    let mut recipes = Vec::new();
    let mut known = BTreeSet::new();
    for (strip, outputs) in strips(&oriented, run.layout, caps) {
        for lanes in lanes {
            let Some(written) = Strip::new(run, &oriented, caps, strip, outputs) else { continue };
            let [most_registers, most_accesses] = match outputs {
                Outputs::Row => [MOST_REGISTERS_OF_ROW, MOST_ACCESSES_OF_ROW],
                _ if caps.is_cpu => [MOST_REGISTERS_CPU, MOST_ACCESSES],
                _ => [MOST_REGISTERS, MOST_ACCESSES],
            };
            let registers = written.registers() * u64::from(*lanes);
            let accesses = written.accesses() * u64::from(*lanes);
            let fits = registers <= most_registers && accesses <= most_accesses && written.terms() <= MOST_TERMS;
            // Strips that are higher than the image are the same.
            if fits && known.insert((oriented.used_rows(strip[0]), strip[1], *lanes)) {
                recipes.push(recipe(run, link, caps, written, *lanes));
            }
        }
    }
    for [rows, width] in row::shapes(&oriented, caps) {
        for lanes in lanes {
            if let Some(columns) = Columns::new(run, &oriented, caps, width, Outputs::Apart) {
                recipes.push(row::recipe(run, link, caps, &oriented, rows, columns, *lanes));
            }
        }
    }
    if recipes.is_empty() {
        return Err(Unsupported::Dilation(link.dilation));
    }
    fitting(run, caps, recipes)
}

/// The strips to consider, and which outputs of a row they are.
fn strips(oriented: &Oriented, layout: Layout, caps: &Caps) -> Vec<([u32; 2], Outputs)> {
    // All of a row, where it is as wide as another strip, is the better one.
    let (row, [rows, wide]) = (oriented.output[1], WIDE_STRIP);
    let widest = if 2 * oriented.step(1) >= wide { WIDEST_SPREAD_ROW } else { WIDEST_ROW };
    let is_whole = caps.is_cpu && oriented.step(1) > 1 && row <= widest;
    let mut strips: Vec<_> = is_whole.then_some(([rows, row], Outputs::Row)).into_iter().collect();
    strips.extend(STRIPS.iter().map(|&strip| (strip, Outputs::Apart)));
    if !caps.is_cpu && layout == Layout::Nchw && !oriented.transposed {
        strips.extend(NARROW_STRIPS.iter().map(|&strip| (strip, Outputs::Apart)));
    }
    if caps.is_cpu && oriented.step(1) > 1 {
        strips.push((WIDE_STRIP, Outputs::Neighbours));
    }
    strips
}

/// How many neighbouring channels an invocation may compute. In NHWC they are one load: on GPUs four floats, and on
/// software devices, which pay for each component, a pair as one integer.
fn lanes(run: &Run<'_>, link: &Conv2d, caps: &Caps) -> &'static [u32] {
    let takes_pairs = caps.is_cpu && caps.int64;
    match link.in_channels {
        _ if run.layout == Layout::Nchw || link.out_channels != link.in_channels => &[1],
        channels if takes_pairs && channels.is_multiple_of(2) => &[2],
        channels if !takes_pairs && channels.is_multiple_of(4) => &[4, 1],
        _ => &[1],
    }
}

/// Accesses that a load or a store of as many channels costs: two count as one, and four by what they move.
fn accesses_of(lanes: u32, run: &Run<'_>) -> f64 {
    match lanes {
        4 => 4.0 * run.elements.input.of_wide_load(),
        _ => 1.0,
    }
}

/// Loads that a store costs, by the outputs from an invocation's to those of the next.
fn loads_of_store(run: &Run<'_>, caps: &Caps, apart: u32) -> f64 {
    match run.layout {
        Layout::Nchw if !caps.is_cpu => {
            let bytes = f64::from(apart) * run.elements.output.dtype().bytes() as f64;
            STORE * (bytes / NEAR).max(1.0)
        }
        _ => 1.0,
    }
}

/// The outputs of an invocation, and the input under them.
struct Strip {
    oriented: Oriented,
    rows: u32,
    outputs: Outputs,
    columns: Columns,
    /// The input columns under a row of the strip, counted from its first.
    inputs: BTreeSet<u32>,
    /// Whether the weights are loaded into an array by a loop, for software devices: they compile loads slowly, and
    /// keep values in memory in any case.
    weights_in_array: bool,
}

impl Strip {
    fn new(run: &Run<'_>, oriented: &Oriented, caps: &Caps, [rows, width]: [u32; 2], outputs: Outputs) -> Option<Self> {
        let columns = Columns::new(run, oriented, caps, width, outputs)?;
        let inputs = columns.inputs(0..oriented.link.kernel_size[1]);
        Some(Self { oriented: oriented.clone(), rows, outputs, columns, inputs, weights_in_array: caps.is_cpu })
    }

    /// The columns at which the loads of a row start.
    fn loads(&self) -> BTreeSet<u32> {
        self.columns.loads(&self.inputs)
    }

    /// Input rows under the kernel.
    fn window(&self) -> u32 {
        self.oriented.link.kernel_size[0]
    }

    /// Output rows by which the walk starts early, to fill the window.
    fn lead(&self) -> u32 {
        self.window().saturating_sub(self.oriented.shift()).div_ceil(self.oriented.shift())
    }

    /// The places of the window that are loaded for each output row.
    fn loaded(&self) -> std::ops::Range<u32> {
        self.window().saturating_sub(self.oriented.shift())..self.window()
    }

    /// Multiply-adds of a row of the strip.
    fn terms(&self) -> u64 {
        u64::from(self.window()) * self.columns.taps(self.oriented.link.kernel_size[1])
    }

    /// Values held at once.
    fn registers(&self) -> u64 {
        let state = u64::from(self.window()) * self.inputs.len() as u64 + self.oriented.link.fan_in();
        state + u64::from(self.columns.width)
    }

    /// Loads and stores written out.
    fn accesses(&self) -> u64 {
        let weights = if self.weights_in_array { 0 } else { self.oriented.link.fan_in() };
        (self.loaded().len() * self.loads().len()) as u64 + weights + u64::from(self.columns.width)
    }

    /// A recipe's name, for strips of these rows.
    fn name(&self, rows: &str, lanes: u32) -> String {
        self.oriented.name(rows, self.columns.width, lanes)
    }

    /// What the shader asks for: `workgroup` invocations in a workgroup, `lanes` channels each.
    fn values(&self, link: &Conv2d, layout: Layout, workgroup: u32, lanes: u32) -> Value {
        let own = context! {
            // Strips share a shader: their height is a parameter.
            recipe => self.name("*", lanes),
            problem => shader::problem(link, layout),
            WORKGROUP => workgroup,
            LEAD => self.lead(),
            SHIFT => self.oriented.shift(),
            ROW_STEP => self.oriented.step(0),
            WEIGHTS_IN_ARRAY => self.weights_in_array,
            SKIPS_ROWS => self.outputs == Outputs::Row,
            WINDOW_ROWS => self.window(),
            loaded_rows => self.loaded().collect::<Vec<_>>(),
            columns => self.inputs,
            load_columns => self.loads(),
            transposed => self.oriented.transposed,
            geometry => shader::geometry_values(&self.oriented.link),
            layout => shader::layout_name(layout),
        };
        let columns = [self.columns.values(lanes), self.columns.accesses(link, lanes)];
        merge_maps([[own, shader::epilogue_values(link)], columns].concat())
    }
}

fn recipe(run: &Run<'_>, link: &Conv2d, caps: &Caps, strip: Strip, lanes: u32) -> Recipe {
    let workgroup = if caps.is_cpu { WORKGROUP_CPU } else { WORKGROUP };
    let taps = match run.layout {
        Layout::Nchw => Packing::Panels { block: 1, k_align: 1, order: Order::ChannelFirst },
        Layout::Nhwc => Packing::Taps,
    };
    let (weights, offsets) = sections([taps, Packing::Bias { block: 1 }].map(|packing| run.section(0, link, packing)));

    let [_, out_width] = strip.oriented.output;
    let tiles = [strip.oriented.strips_y(strip.rows), strip.columns.strips(out_width)];
    let channels = link.out_channels / lanes;
    let items = u64::from(tiles[0]) * u64::from(tiles[1]) * u64::from(channels) * u64::from(run.output().batch);

    let values = items as f64 * f64::from(lanes);
    let counted = items as f64 * accesses_of(lanes, run);
    let (rows, width) = (strip.rows, strip.columns.width);
    let rows_each = f64::from(strip.oriented.used_rows(strip.rows));
    let mut steps = rows_each + f64::from(strip.lead());
    if strip.outputs == Outputs::Row {
        // Those that load nothing but padding are left out.
        let step = f64::from(strip.oriented.step(0)) * f64::from(strip.oriented.link.stride[0]);
        steps = steps.min((f64::from(strip.oriented.input[0]) / step).ceil());
    }
    let loads = steps * (strip.loaded().len() * strip.loads().len()) as f64;
    let mult_adds = values * rows_each * strip.terms() as f64;
    let stores = rows_each * f64::from(strip.columns.stores());
    let apart = strip.columns.apart(&strip.oriented, rows);
    let stores = stores * loads_of_store(run, caps, apart);
    // Compilers keep the place of each load in a row, and whether it is in the image.
    let places = REGISTERS_FOR_ADDRESSES.max(2 * strip.loads().len() as u32);
    let registers = strip.registers() as u32 * lanes + places;
    let name = strip.name(&rows.to_string(), lanes);
    let params = Params {
        tiles_x: tiles[1],
        tiles_y: tiles[0],
        strip_rows: rows,
        work: items as u32,
        // Strides and offsets count `Value`s.
        in_channels: link.in_channels / lanes,
        out_channels: channels,
        bias_at: (offsets[1] / u64::from(lanes)) as u32,
        ..strip.oriented.params(run)
    };
    let (seen, layout, elements) = (link.clone(), run.layout, run.elements);
    let values_of = move || context! { elements => elements.values(), ..strip.values(&seen, layout, workgroup, lanes) };
    let pass = Pass {
        wgsl: Wgsl::template("depthwise.wgsl", values_of),
        operands: single_pass_operands(run),
        params,
        workgroup,
        workgroups: items.div_ceil(workgroup.into()),
        workgroup_memory: 0,
        sums: width * lanes,
        registers,
    };
    Recipe {
        name,
        weights,
        workspace: Vec::new(),
        work: Work {
            mult_adds,
            accesses: counted * (loads + stores + link.fan_in() as f64 + 1.0),
            shared: 0.0,
            bytes: compulsory_bytes(run),
        },
        passes: vec![pass],
        // A few dozen terms in order.
        tolerance: 4.0,
        exact: true,
        spreads_errors: false,
    }
}
