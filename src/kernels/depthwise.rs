//! `depthwise`: a strip of outputs an invocation, each input under it loaded once.

use std::collections::BTreeSet;

use minijinja::{Value, context};

use super::{
    Kernel, Params, Pass, REGISTERS_FOR_ADDRESSES, Recipe, Run, Unsupported, Wgsl, Work, compulsory_bytes, fitting,
    single_pass_operands,
};
use crate::kernels::pack::{Order, Packing, sections};
use crate::kernels::shader;
use crate::model::caps::Caps;
use crate::model::conv::Conv2d;
use crate::model::dtype::DType;
use crate::model::shape::Layout;

pub const DEPTHWISE: Kernel = Kernel { name: "depthwise", links: 1, candidates };

/// Rows and columns of a strip. Short strips fill a GPU, long ones load less. A strip of one row keeps no rows
/// for the next one, which suits large and dilated kernels.
const STRIPS: &[[u32; 2]] = &[[8, 4], [4, 4], [16, 4], [64, 8], [64, 7], [64, 4], [8, 2], [1, 4], [1, 1]];
/// Invocations of a workgroup; fewer on a CPU, whose cores share the workgroups.
const WORKGROUP: u32 = 64;
const WORKGROUP_CPU: u32 = 16;
/// Beyond this many values at once no GPU keeps a strip's state in registers.
const MOST_REGISTERS: u64 = 128;
/// Beyond this many multiply-adds, or loads and stores, a written-out row takes drivers too long to compile.
const MOST_TERMS: u64 = 1024;
const MOST_ACCESSES: u64 = 256;

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let link = run.only_conv()?;
    if !link.is_depthwise() {
        return Err(Unsupported::Groups(link.groups));
    }
    let quads = run.layout == Layout::Nhwc && link.in_channels % 4 == 0 && link.out_channels == link.in_channels;
    let mut recipes = Vec::new();
    let mut fewest = u64::MAX;
    for &strip in STRIPS {
        for lanes in if quads { &[4, 1][..] } else { &[1] } {
            let written = Strip::new(run, link, caps, strip);
            let registers = written.registers() * u64::from(*lanes);
            fewest = fewest.min(registers);
            let accesses = written.accesses() * u64::from(*lanes);
            let terms = u64::from(strip[1]) * link.fan_in();
            if registers <= MOST_REGISTERS && accesses <= MOST_ACCESSES && terms <= MOST_TERMS {
                recipes.push(recipe(run, link, caps, strip, *lanes));
            }
        }
    }
    match () {
        () if !recipes.is_empty() => {}
        () if fewest > MOST_REGISTERS => return Err(Unsupported::Registers(fewest)),
        () => return Err(Unsupported::KernelSize(link.kernel_size)),
    }
    fitting(run, caps, recipes)
}

/// The outputs of an invocation, and the input under them.
struct Strip {
    link: Conv2d,
    layout: Layout,
    dtype: DType,
    rows: u32,
    width: u32,
    /// The input columns under a row of the strip, counted from its first.
    columns: BTreeSet<u32>,
    /// Input rows under the kernel, those between the taps of a dilated one included.
    window: u32,
    /// Columns by which the strip starts before its first output's first tap, so that pairs are aligned.
    early: u32,
    /// Whether two neighbouring columns are one load, for software devices: they pay by the load.
    pairs: bool,
    /// Whether two neighbouring outputs are one store.
    output_pairs: bool,
    /// Whether the weights are loaded into an array by a loop, for software devices: they compile loads slowly, and
    /// keep values in memory in any case.
    weights_in_array: bool,
}

impl Strip {
    fn new(run: &Run<'_>, link: &Conv2d, caps: &Caps, [rows, width]: [u32; 2]) -> Self {
        // The first output's column is even, and so is the first input's if the padding is; otherwise the strip starts
        // one column earlier.
        let even = |length: u32| width.is_multiple_of(2) && length.is_multiple_of(2);
        let takes_pairs = caps.is_cpu && caps.int64 && run.layout == Layout::Nchw;
        let pairs = takes_pairs && even(run.input().width);
        let output_pairs = takes_pairs && even(run.output().width) && !run.has_residual();
        let early = if pairs { link.padding[1] % 2 } else { 0 };
        let column = |output, tap| output * link.stride[1] + tap * link.dilation[1] + early;
        let columns = (0..width).flat_map(|output| (0..link.kernel_size[1]).map(move |tap| column(output, tap)));
        let window = (link.kernel_size[0] - 1) * link.dilation[0] + 1;
        Self {
            link: link.clone(),
            layout: run.layout,
            dtype: run.dtype,
            rows,
            width,
            columns: columns.collect(),
            window,
            early,
            pairs,
            output_pairs,
            weights_in_array: caps.is_cpu,
        }
    }

    /// The columns at which the loads of a row start.
    fn loads(&self) -> BTreeSet<u32> {
        self.columns.iter().map(|column| if self.pairs { column / 2 * 2 } else { *column }).collect()
    }

    /// Whether input rows stay in registers for the next output row.
    fn keeps_rows(&self) -> bool {
        self.rows > 1
    }

    /// Output rows by which the walk starts early, to fill the window.
    fn lead(&self) -> u32 {
        let [stride, _] = self.link.stride;
        if self.keeps_rows() { self.window.saturating_sub(stride).div_ceil(stride) } else { 0 }
    }

    /// Whether the row at a place of the window meets a tap there, or at a later place nearer the top.
    fn is_needed(&self, mut place: u32) -> bool {
        let ([stride, _], [dilation, _]) = (self.link.stride, self.link.dilation);
        loop {
            if place.is_multiple_of(dilation) {
                return true;
            }
            if !self.keeps_rows() || place < stride {
                return false;
            }
            place -= stride;
        }
    }

    /// The places of the window that are loaded for each output row.
    fn loaded(&self) -> impl Iterator<Item = u32> + '_ {
        let first = if self.keeps_rows() { self.window.saturating_sub(self.link.stride[0]) } else { 0 };
        (first..self.window).filter(|&place| self.is_needed(place))
    }

    /// Values held at once.
    fn registers(&self) -> u64 {
        let columns = self.columns.len() as u64;
        let state = if self.keeps_rows() { u64::from(self.window) * columns + self.link.fan_in() } else { columns };
        state + u64::from(self.width)
    }

    /// Loads and stores written out.
    fn accesses(&self) -> u64 {
        (self.loaded().count() * self.loads().len()) as u64 + self.link.fan_in() + u64::from(self.width)
    }

    /// A recipe's name.
    fn name(&self, rows: &str, lanes: u32) -> String {
        format!("{}/{rows}x{}{}", DEPTHWISE.name, self.width, if lanes == 4 { "x4" } else { "" })
    }

    /// What the shader asks for: `workgroup` invocations in a workgroup, `lanes` channels each.
    fn values(&self, workgroup: u32, lanes: u32) -> Value {
        let quads_or_scalar = if lanes == 4 { "quads" } else { "scalar" };
        let pair_or = |pairs| if pairs { "pair" } else { quads_or_scalar };
        context! {
            // Strips that keep rows share a shader: their height is a parameter.
            recipe => self.name(if self.keeps_rows() { "*" } else { "1" }, lanes),
            problem => shader::problem(&self.link, self.layout),
            WORKGROUP => workgroup,
            LANES => lanes,
            STRIP_WIDTH => self.width,
            KEEPS_ROWS => self.keeps_rows(),
            LEAD => self.lead(),
            EARLY => self.early,
            WEIGHTS_IN_ARRAY => self.weights_in_array,
            WINDOW_ROWS => self.window,
            loaded_rows => self.loaded().collect::<Vec<_>>(),
            columns => self.columns,
            load_columns => self.loads(),
            geometry => shader::geometry_values(&self.link),
            element => self.dtype.name(),
            layout => shader::layout_name(self.layout),
            input => pair_or(self.pairs),
            weights => quads_or_scalar,
            output => pair_or(self.output_pairs),
            ..shader::epilogue_values(&self.link)
        }
    }
}

fn recipe(run: &Run<'_>, link: &Conv2d, caps: &Caps, [rows, width]: [u32; 2], lanes: u32) -> Recipe {
    let strip = Strip::new(run, link, caps, [rows, width]);
    let workgroup = if caps.is_cpu { WORKGROUP_CPU } else { WORKGROUP };
    let taps = match run.layout {
        Layout::Nchw => Packing::Panels { block: 1, k_align: 1, order: Order::ChannelFirst },
        Layout::Nhwc => Packing::Taps,
    };
    let (weights, offsets) = sections([taps, Packing::Bias { block: 1 }].map(|packing| run.section(0, link, packing)));

    let output = run.output();
    let tiles = [output.height.div_ceil(rows), output.width.div_ceil(width)];
    let channels = link.out_channels / lanes;
    let items = u64::from(tiles[0]) * u64::from(tiles[1]) * u64::from(channels) * u64::from(output.batch);

    let values = items as f64 * f64::from(lanes);
    let rows_each = f64::from(rows.min(output.height));
    let steps = rows_each + f64::from(strip.lead());
    let loads = steps * (strip.loaded().count() * strip.loads().len()) as f64;
    let taps_loaded = link.fan_in() as f64 * if strip.keeps_rows() { 1.0 } else { rows_each };
    let outputs = rows_each * f64::from(width);
    let stores = outputs / if strip.output_pairs { 2.0 } else { 1.0 };
    let registers = strip.registers() as u32;
    let name = strip.name(&rows.to_string(), lanes);
    let pass = Pass {
        wgsl: Wgsl::template("depthwise.wgsl", move || strip.values(workgroup, lanes)),
        operands: single_pass_operands(run),
        params: Params {
            tiles_x: tiles[1],
            tiles_y: tiles[0],
            strip_rows: rows,
            work: items as u32,
            // Strides and offsets count `Value`s.
            in_channels: link.in_channels / lanes,
            out_channels: channels,
            bias_at: (offsets[1] / u64::from(lanes)) as u32,
            ..Params::of(run)
        },
        workgroup,
        workgroups: items.div_ceil(workgroup.into()),
        workgroup_memory: 0,
        sums: width * lanes,
        registers: registers * lanes + REGISTERS_FOR_ADDRESSES,
    };
    Recipe {
        name,
        weights,
        workspace: Vec::new(),
        work: Work {
            mult_adds: values * outputs * link.fan_in() as f64,
            accesses: values * (loads + stores + taps_loaded + 1.0),
            shared: 0.0,
            bytes: compulsory_bytes(run),
            invocations: pass.invocations(),
        },
        passes: vec![pass],
        // A few dozen terms in order.
        tolerance: 4.0,
        exact: true,
        spreads_errors: false,
    }
}
