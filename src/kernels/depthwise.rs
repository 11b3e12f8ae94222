//! `depthwise`: a strip of outputs an invocation, each input under it loaded once.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Range;

use super::{
    Kernel, Params, Pass, REGISTERS_FOR_ADDRESSES, Recipe, Run, Unsupported, Wgsl, Work, compulsory_bytes, fitting,
    single_pass_operands,
};
use crate::kernels::pack::{Order, Packing, Section, sections};
use crate::kernels::shader::{self, Shader};
use crate::model::caps::Caps;
use crate::model::conv::Conv2d;
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

/// How a strip of a link goes down its rows.
struct Strip {
    link: Conv2d,
    layout: Layout,
    rows: u32,
    width: u32,
    /// The input columns under a strip, from its first.
    columns: BTreeSet<u32>,
    /// Input rows under the kernel, those between the taps of a dilated one included.
    window: u32,
    /// How many columns before the first output's first tap the columns start.
    shift: u32,
    /// Whether two neighbouring columns are one load, for software devices: they pay by the load.
    pairs: bool,
    /// Whether two neighbouring outputs are one store.
    output_pairs: bool,
    /// Whether the weights are an array, for software devices: their registers are memory, and what they compile
    /// slowly are loads.
    weights_in_array: bool,
}

impl Strip {
    fn new(run: &Run<'_>, link: &Conv2d, caps: &Caps, [rows, width]: [u32; 2]) -> Self {
        // A strip starts at an even output, so its first input is as even as the padding; it then starts one
        // column earlier.
        let even = |length: u32| width.is_multiple_of(2) && length.is_multiple_of(2);
        let takes_pairs = caps.is_cpu && caps.int64 && run.layout == Layout::Nchw;
        let pairs = takes_pairs && even(run.input().width);
        let output_pairs = takes_pairs && even(run.output().width) && !run.has_residual();
        let shift = if pairs { link.padding[1] % 2 } else { 0 };
        let column = |output, tap| output * link.stride[1] + tap * link.dilation[1] + shift;
        let columns = (0..width).flat_map(|output| (0..link.kernel_size[1]).map(move |tap| column(output, tap)));
        let window = (link.kernel_size[0] - 1) * link.dilation[0] + 1;
        Self {
            link: link.clone(),
            layout: run.layout,
            rows,
            width,
            columns: columns.collect(),
            window,
            shift,
            pairs,
            output_pairs,
            weights_in_array: caps.is_cpu,
        }
    }

    /// The columns at which the loads of a row start.
    fn loads(&self) -> BTreeSet<u32> {
        self.columns.iter().map(|column| if self.pairs { column / 2 * 2 } else { *column }).collect()
    }

    /// Whether rows stay for the next output row.
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

    /// The whole shader: `workgroup` invocations in a workgroup, `lanes` channels each.
    fn wgsl(&self, workgroup: u32, lanes: u32) -> String {
        let (value, output_file, store_value) = match lanes {
            1 if self.output_pairs => ("f32", shader::OUTPUT_PAIRS, ""),
            1 => ("f32", shader::OUTPUT_SCALAR, "fn store_value(at: u32, sum: Value) { store(at, sum); }\n"),
            _ => (
                "vec4<f32>",
                shader::OUTPUT_VEC4,
                "fn store_value(at: u32, sum: Value) { store4(vec4<u32>(at * 4u), vec4<bool>(true), sum); }\n",
            ),
        };
        let input = if self.pairs { "u64" } else { "Value" };
        let input = format!("@group(0) @binding(1) var<storage, read> input: array<{input}>;\n");
        Shader::new(include_str!("../../shaders/depthwise.wgsl"))
            .add(shader::strides(self.layout))
            .add(output_file)
            .add(if self.pairs || self.output_pairs { shader::PAIRS } else { "" })
            .add(&format!("alias Value = {value};\n{input}"))
            .add(store_value)
            .add(&self.compute())
            .constants(&shader::geometry(&self.link))
            .constants(&[("TILE_WIDTH", self.width.into()), ("WORKGROUP", workgroup.into())])
            .finish(&self.link)
    }

    /// `compute_strip`, written out.
    fn compute(&self) -> String {
        let layout = self.layout;
        let mut text = String::from("fn compute_strip(strip: Strip) {\n");
        let _ = writeln!(text, "    let last_row = i32(params.in_height) - 1;");
        let _ = writeln!(text, "    let last_column = i32(params.in_width) - 1;");
        for column in self.loads() {
            let _ = writeln!(text, "    let x{column} = strip.left + {column} - {};", self.shift);
            let _ = writeln!(text, "    let at{column} = u32(clamp(x{column}, 0, last_column)) * in_pixel_stride();");
            let _ = writeln!(text, "    let in{column} = inside(x{column}, params.in_width);");
        }
        let _ = writeln!(text, "    let bias = weights[params.bias_at + strip.channel];");
        if self.weights_in_array {
            // Mesa unrolls a loop over an array of up to 32.
            let taps = self.link.fan_in();
            let _ = writeln!(text, "    var w: array<Value, {}>;", taps.max(33));
            let _ = writeln!(text, "    for (var tap = 0u; tap < opaque({taps}u); tap++) {{");
            let _ = writeln!(text, "        w[tap] = {};\n    }}", self.load_weight("tap", layout));
        }
        if self.keeps_rows() {
            self.name_weights(&mut text, 0..self.link.fan_in(), layout);
            for place in 0..self.window {
                for column in &self.columns {
                    let _ = writeln!(text, "    var v{place}_{column} = Value(0.0);");
                }
            }
        }
        let _ = writeln!(text, "    for (var step = 0u; step < strip.rows + {}u; step++) {{", self.lead());
        let _ =
            writeln!(text, "        let top = strip.top + (i32(step) - {}) * {};", self.lead(), self.link.stride[0]);
        self.shift_and_load(&mut text);
        if self.lead() > 0 {
            let _ = writeln!(text, "        if step < {}u {{ continue; }}", self.lead());
        }
        self.sum_and_store(&mut text, layout);
        text.push_str("    }\n}\n");
        text
    }

    /// `w{tap}` for some taps.
    fn name_weights(&self, text: &mut String, taps: Range<u64>, layout: Layout) {
        for tap in taps {
            let weight =
                if self.weights_in_array { format!("w[{tap}]") } else { self.load_weight(&format!("{tap}u"), layout) };
            let _ = writeln!(text, "    let w{tap} = {weight};");
        }
    }

    /// The weight of a tap, where the packing has it.
    fn load_weight(&self, tap: &str, layout: Layout) -> String {
        match layout {
            Layout::Nchw => format!("weights[strip.channel * {}u + {tap}]", self.link.fan_in()),
            Layout::Nhwc => format!("weights[{tap} * params.out_channels + strip.channel]"),
        }
    }

    /// Moves the window down by the stride and loads the rows that come in.
    fn shift_and_load(&self, text: &mut String) {
        let stride = self.link.stride[0];
        if self.keeps_rows() {
            for place in 0..self.window.saturating_sub(stride) {
                for column in &self.columns {
                    let _ = writeln!(text, "        v{place}_{column} = v{}_{column};", place + stride);
                }
            }
        }
        let declare = if self.keeps_rows() { "" } else { "let " };
        for place in self.loaded() {
            let _ = writeln!(text, "        let y{place} = top + {place};");
            let _ = writeln!(
                text,
                "        let row{place} = strip.input + u32(clamp(y{place}, 0, last_row)) * in_row_stride();"
            );
            let _ = writeln!(text, "        let inside{place} = inside(y{place}, params.in_height);");
            for load in self.loads() {
                let (at, inside) = (format!("row{place} + at{load}"), format!("inside{place} & in{load}"));
                if !self.pairs {
                    let value = format!("select(Value(0.0), input[{at}], {inside})");
                    let _ = writeln!(text, "        {declare}v{place}_{load} = {value};");
                    continue;
                }
                let pair = format!("unpack_pair(select(0lu, input[({at}) / 2u], {inside}))");
                let _ = writeln!(text, "        let p{place}_{load} = {pair};");
                for column in self.columns.range(load..load + 2) {
                    let value = format!("p{place}_{load}{}", [".x", ".y"][(column - load) as usize]);
                    let _ = writeln!(text, "        {declare}v{place}_{column} = {value};");
                }
            }
        }
    }

    fn sum_and_store(&self, text: &mut String, layout: Layout) {
        let ([kernel_rows, kernel_columns], [dilation_y, dilation_x]) = (self.link.kernel_size, self.link.dilation);
        for x in 0..self.width {
            let _ = writeln!(text, "        var s{x} = bias;");
        }
        for row in 0..kernel_rows {
            for column in 0..kernel_columns {
                let tap = u64::from(row * kernel_columns + column);
                if !self.keeps_rows() {
                    self.name_weights(text, tap..tap + 1, layout);
                }
                for x in 0..self.width {
                    let from = x * self.link.stride[1] + column * dilation_x + self.shift;
                    let _ = writeln!(text, "        s{x} = fma(v{}_{from}, w{tap}, s{x});", row * dilation_y);
                }
            }
        }
        let _ = writeln!(text, "        let out = strip.output + (step - {}u) * out_row_stride();", self.lead());
        for x in (0..self.width).step_by(if self.output_pairs { 2 } else { 1 }) {
            let store = match self.output_pairs {
                true => format!("store_pair(out + {x}u, s{x}, s{});", x + 1),
                false => format!("store_value(out + {x}u * out_pixel_stride(), s{x});"),
            };
            let _ = match x {
                0 => writeln!(text, "        {store}"),
                _ => writeln!(text, "        if {x}u < strip.columns {{ {store} }}"),
            };
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
    let (weights, offsets) = sections([taps, Packing::Bias { block: 1 }].map(|packing| Section::new(0, link, packing)));

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
    let pass = Pass {
        wgsl: Wgsl::new(move || strip.wgsl(workgroup, lanes)),
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
        name: format!("depthwise/{rows}x{width}{}", if lanes == 4 { "x4" } else { "" }),
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
        mixes: false,
    }
}
