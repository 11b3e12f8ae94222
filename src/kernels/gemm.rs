//! The two matrix products that kernels are made of, through workgroup memory and in registers alone, over any
//! source of pixels.

use std::fmt::Write as _;

use super::{Params, Pass, Recipe, Run, Work, compulsory_bytes, single_pass_operands};
use crate::caps::Caps;
use crate::conv::Conv2d;
use crate::pack::{Order, Packing, padded_k, sections};
use crate::shader::{self, Shader};
use crate::shape::Layout;

/// Where the product's pixels come from.
pub struct Source {
    /// The kernel's name.
    pub kernel: &'static str,
    /// The source's file with `place` and `fetch`, and whatever else it needs.
    pub wgsl: String,
    /// How its values come.
    pub fetch: Fetch,
    /// What `k` counts.
    pub order: Order,
    /// Which link of the run the product is.
    pub link: usize,
    /// Sections of the weight buffer before the product's, and the names of the constants that say where
    /// each starts, in quads.
    pub before: Vec<(usize, Packing, &'static str)>,
    /// Elements loaded for each value fetched.
    pub loads: f64,
    /// Multiply-adds for each value fetched.
    pub mult_adds: f64,
}

/// How a source's values come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// `fetch`: four pixels of one k (NCHW), or four k of one pixel (NHWC). Of inputs that are neighbours and
    /// aligned they are one load.
    Quads { aligned: bool },
    /// `fetch_row`, NCHW: so many neighbouring k of all pixels of an invocation, which are neighbours in a row.
    /// The source has the loads in its text.
    Rows { columns: u32 },
}

/// The sizes of a product through workgroup memory.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    /// Output channels of a workgroup.
    pub channels: u32,
    /// Pixels of a workgroup.
    pub pixels: u32,
    /// Values of k staged at a time.
    pub depth: u32,
    /// Output channels of an invocation.
    pub micro_channels: u32,
    /// Pixels of an invocation.
    pub micro_pixels: u32,
}

impl Tile {
    fn threads(self) -> u32 {
        (self.channels / self.micro_channels) * (self.pixels / self.micro_pixels)
    }

    fn workgroup_memory(self) -> u32 {
        (self.channels + self.pixels) * self.depth * 4
    }
}

/// The sizes of a product in registers.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// Output channels of an invocation.
    pub channels: u32,
    /// Pixels of an invocation.
    pub pixels: u32,
    /// Invocations of a workgroup.
    pub threads: u32,
    /// Values of k in a step of the loop, where the source does not ask for more: what a loop costs (on software
    /// devices a masked write of every sum) is paid once for all of them.
    pub steps: u32,
    /// How weights are loaded.
    pub weights: WeightLoads,
    /// Whether sums are an array, stored by a loop. A GPU would move an array that is indexed at run time out of
    /// its registers. A software device, whose registers are memory, compiles the loop many times faster than
    /// the stores written out.
    pub sums_in_array: bool,
}

/// How the lanes of a product in registers come to their weights, which are the same for all of them.
#[derive(Clone, Copy, Debug)]
pub enum WeightLoads {
    /// All load the same, which costs a GPU one load: many of them have scalar loads for that.
    Uniform,
    /// Each loads others, and `subgroupBroadcast` from one of so many lanes, the device's smallest subgroup, hands
    /// them round: for software devices, which load for each lane by itself. `pairs`: two neighbouring floats are
    /// loaded as one 64-bit integer, for a load costs the same whatever its width.
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

    /// Lanes that load different weights, for a block of so many channels.
    fn spread(self, channels: u32) -> u32 {
        match self {
            Self::Uniform => 1,
            Self::Broadcast { lanes, .. } => lanes.min(channels / self.width()),
        }
    }

    /// Whether values are loaded in pairs.
    pub fn pairs(self) -> bool {
        matches!(self, Self::Broadcast { pairs: true, .. })
    }
}

impl Block {
    /// The name of a sum.
    fn sum(&self, channel: u32, quad: u32) -> String {
        if self.sums_in_array {
            format!("sums[{}]", channel * self.pixels / 4 + quad)
        } else {
            format!("s{channel}_{quad}")
        }
    }
}

/// What both products share.
struct Product<'a> {
    link: &'a Conv2d,
    weights: Vec<crate::pack::Section>,
    /// All constants but those of the tile.
    constants: Vec<(&'static str, u64)>,
    panels: u64,
    padded_depth: u64,
}

fn product<'a>(run: &Run<'a>, source: &Source, block: u32, k_align: u32) -> Product<'a> {
    let link = &run.links[source.link];
    let mut packings: Vec<_> = source.before.iter().map(|&(link, packing, _)| (link, packing)).collect();
    packings.push((source.link, Packing::Panels { block, k_align, order: source.order }));
    packings.push((source.link, Packing::Bias { block }));
    let (weights, offsets) = sections(run.links, &packings);

    let panels = u64::from(link.group_out_channels().div_ceil(block));
    let padded_depth = padded_k(link, k_align);
    let mut constants = shader::channels(link);
    constants.extend(source.before.iter().zip(&offsets).map(|(&(_, _, name), &offset)| (name, offset / 4)));
    constants.extend([
        ("GROUPS", u64::from(link.groups)),
        ("PANELS", panels),
        ("DEPTH", link.fan_in()),
        ("PADDED_DEPTH", padded_depth),
        ("TILE_CHANNELS", block.into()),
        ("WEIGHTS_AT", offsets[offsets.len() - 2]),
        ("BIAS_AT", offsets[offsets.len() - 1]),
    ]);
    Product { link, weights, constants, panels, padded_depth }
}

/// The files that read the input and write the output, as their alignment allows.
fn access(run: &Run<'_>, source: &Source, pairs: bool) -> [&'static str; 3] {
    let output = run.output();
    let (aligned_output, product) = match (run.layout, source.fetch) {
        (Layout::Nchw, Fetch::Quads { .. }) => {
            (output.pixels().is_multiple_of(4), include_str!("../../shaders/product_nchw.wgsl"))
        }
        (Layout::Nchw, Fetch::Rows { .. }) => {
            (output.width.is_multiple_of(4), include_str!("../../shaders/product_rows_nchw.wgsl"))
        }
        (Layout::Nhwc, _) => {
            (run.last().group_out_channels().is_multiple_of(4), include_str!("../../shaders/product_nhwc.wgsl"))
        }
    };
    let input = match source.fetch {
        Fetch::Quads { aligned: true } if pairs => shader::INPUT_PAIRS,
        Fetch::Quads { aligned: true } => shader::INPUT_VEC4,
        Fetch::Quads { aligned: false } => shader::INPUT_SCALAR,
        Fetch::Rows { .. } => "",
    };
    [input, if aligned_output { shader::OUTPUT_VEC4 } else { shader::OUTPUT_SCALAR }, product]
}

/// The product through workgroup memory.
pub fn tiled(run: &Run<'_>, source: &Source, tile: Tile, caps: &Caps) -> Recipe {
    let Product { link, weights, constants, panels, padded_depth } = product(run, source, tile.channels, tile.depth);
    let output = run.output();
    let pixels = u64::from(output.batch) * output.pixels();
    let workgroups = pixels.div_ceil(tile.pixels.into()) * panels * u64::from(link.groups);
    let staging = match run.layout {
        Layout::Nchw => include_str!("../../shaders/tile_nchw.wgsl"),
        Layout::Nhwc => include_str!("../../shaders/tile_nhwc.wgsl"),
    };
    let [input_file, output_file, product_file] = access(run, source, false);
    // A software device takes long to compile each load that is written out.
    let step_depth = if caps.is_cpu { 4 } else { tile.depth };
    let wgsl = Shader::new(include_str!("../../shaders/gemm_tile.wgsl"))
        .add(shader::WEIGHTS_VEC4)
        .add(&source.wgsl)
        .add(staging)
        .add(product_file)
        .add(input_file)
        .add(output_file)
        .add(&micro_tile(tile, step_depth, run.layout))
        .constants(&constants)
        .constants(&[
            ("TILE_PIXELS", tile.pixels.into()),
            ("TILE_DEPTH", tile.depth.into()),
            ("STEP_DEPTH", step_depth.into()),
            ("THREADS", tile.threads().into()),
        ])
        .finish(run);

    let tiles = workgroups as f64;
    let staged = tiles * f64::from(tile.pixels) * padded_depth as f64;
    let outputs = tiles * f64::from(tile.channels * tile.pixels);
    let mult_adds = outputs * padded_depth as f64;
    Recipe {
        name: format!("{}/{}x{}x{}", source.kernel, tile.channels, tile.pixels, tile.depth),
        passes: vec![Pass {
            wgsl,
            operands: single_pass_operands(run),
            params: Params { work: workgroups as u32, ..Params::of(run) },
            workgroup: tile.threads(),
            workgroups,
            workgroup_memory: tile.workgroup_memory(),
        }],
        weights,
        workspace: Vec::new(),
        work: Work {
            mult_adds: mult_adds + staged * source.mult_adds,
            accesses: staged * source.loads + tiles * f64::from(tile.channels) * padded_depth as f64 + outputs,
            shared: mult_adds * (1.0 / f64::from(tile.micro_channels) + 1.0 / f64::from(tile.micro_pixels)),
            bytes: compulsory_bytes(run),
            invocations: tiles * f64::from(tile.threads()),
        },
        // One sum in order of k.
        tolerance: 4.0,
        exact: true,
    }
}

/// `MicroTile`, `accumulate` and `finish` with every accumulator named, for an array indexed at run time would
/// not stay in registers.
///
/// The side of the output whose neighbours are neighbours in memory is the columns (quads), the other one the
/// rows: channels x pixels for NCHW, pixels x channels for NHWC.
fn micro_tile(tile: Tile, step_depth: u32, layout: Layout) -> String {
    let (rows, column_quads, columns, [row_tile, row_quads], [column_tile, column_tile_quads]) = match layout {
        Layout::Nchw => (
            tile.micro_channels,
            tile.micro_pixels / 4,
            tile.pixels / tile.micro_pixels,
            ["channel_tile", "CHANNEL_QUADS"],
            ["pixel_tile", "PIXEL_QUADS"],
        ),
        Layout::Nhwc => (
            tile.micro_pixels,
            tile.micro_channels / 4,
            tile.channels / tile.micro_channels,
            ["pixel_tile", "PIXEL_QUADS"],
            ["channel_tile", "CHANNEL_QUADS"],
        ),
    };
    let mut text = format!("const MICRO_COLUMNS: u32 = {columns}u;\nstruct MicroTile {{\n");
    for row in 0..rows {
        for quad in 0..column_quads {
            let _ = writeln!(text, "    s{row}_{quad}: vec4<f32>,");
        }
    }
    text.push_str("}\nfn accumulate(sums: ptr<function, MicroTile>, k: u32, row: u32, column: u32) {\n");
    let strides = [rows / 4 * rows_of(tile, layout), column_quads * columns];
    let _ = writeln!(text, "    let row_at = k * {row_quads} + row * {}u;", rows / 4);
    let _ = writeln!(text, "    let column_at = k * {column_tile_quads} + column;");
    for k in 0..step_depth {
        for quad in 0..rows / 4 {
            let _ = writeln!(text, "    let a{k}_{quad} = {row_tile}[row_at + {}u];", k * strides[0] + quad);
        }
        for quad in 0..column_quads {
            let offset = k * strides[1] + quad * columns;
            let _ = writeln!(text, "    let b{k}_{quad} = {column_tile}[column_at + {offset}u];");
        }
        for row in 0..rows {
            let a = format!("a{k}_{}.{}", row / 4, ["x", "y", "z", "w"][row as usize % 4]);
            for quad in 0..column_quads {
                let sum = format!("(*sums).s{row}_{quad}");
                let _ = writeln!(text, "    {sum} = fma(vec4<f32>({a}), b{k}_{quad}, {sum});");
            }
        }
    }
    text.push_str(
        "}\nfn finish(sums: ptr<function, MicroTile>, first_pixel: u32, group: u32, first_channel: u32, row: u32, column: u32) {\n",
    );
    for quad in 0..column_quads {
        let column = format!("(column + {}u) * 4u", quad * columns);
        if layout == Layout::Nchw {
            let _ = writeln!(text, "    let quad{quad} = output_quad(first_pixel + {column}, group);");
        }
        for row in 0..rows {
            let sum = format!("(*sums).s{row}_{quad}");
            let row = format!("row * {rows}u + {row}u");
            let _ = match layout {
                Layout::Nchw => writeln!(text, "    store_row(quad{quad}, group, first_channel + {row}, {sum});"),
                Layout::Nhwc => {
                    writeln!(text, "    store_pixel(first_pixel + {row}, group, first_channel + {column}, {sum});")
                }
            };
        }
    }
    text.push_str("}\n");
    text
}

/// Micro-tiles of a workgroup from its first row to its last.
fn rows_of(tile: Tile, layout: Layout) -> u32 {
    match layout {
        Layout::Nchw => tile.channels / tile.micro_channels,
        Layout::Nhwc => tile.pixels / tile.micro_pixels,
    }
}

/// The product in registers, without workgroup memory.
pub fn registers(run: &Run<'_>, source: &Source, block: Block) -> Recipe {
    let [_, steps] = steps(block, run.layout, source.fetch);
    let Product { link, weights, constants, panels, padded_depth } = product(run, source, block.channels, steps);
    let output = run.output();
    let tiles_x = output.width.div_ceil(block.pixels);
    let pixels = match source.fetch {
        Fetch::Quads { .. } => u64::from(output.batch) * output.pixels(),
        Fetch::Rows { .. } => u64::from(output.batch) * u64::from(output.height) * u64::from(tiles_x * block.pixels),
    };
    let tile_pixels = block.threads * block.pixels;
    let workgroups = pixels.div_ceil(tile_pixels.into()) * panels * u64::from(link.groups);
    let [input_file, output_file, product_file] = access(run, source, block.weights.pairs());
    let (core, weights_file) = match block.weights {
        WeightLoads::Uniform => (include_str!("../../shaders/gemm_uniform.wgsl"), shader::WEIGHTS_VEC4),
        WeightLoads::Broadcast { pairs: false, .. } => {
            (include_str!("../../shaders/gemm_subgroup.wgsl"), shader::WEIGHTS_SCALAR)
        }
        WeightLoads::Broadcast { pairs: true, .. } => {
            (include_str!("../../shaders/gemm_subgroup.wgsl"), shader::WEIGHTS_PAIRS)
        }
    };
    let wgsl = Shader::new(core)
        .add(weights_file)
        .add(if block.weights.pairs() { shader::PAIRS } else { "" })
        .add(&source.wgsl)
        .add(product_file)
        .add(input_file)
        .add(output_file)
        .add(&compute(block, run.layout, source.fetch))
        .constants(&constants)
        .constants(&[("PIXELS", block.pixels.into()), ("THREADS", block.threads.into())])
        .finish(run);

    let invocations = workgroups as f64 * f64::from(block.threads);
    let outputs = invocations * f64::from(block.channels * block.pixels);
    let per_load = f64::from(block.weights.width());
    let weights_per_k =
        f64::from(block.channels.div_ceil(block.weights.width() * block.weights.spread(block.channels)));
    let loads = match source.fetch {
        Fetch::Quads { aligned: true } if block.weights.pairs() => source.loads / per_load,
        _ => source.loads,
    };
    let fetched = invocations * f64::from(block.pixels) * padded_depth as f64;
    Recipe {
        name: format!("{}/{}x{}", source.kernel, block.channels, block.pixels),
        passes: vec![Pass {
            wgsl,
            operands: single_pass_operands(run),
            params: Params { work: workgroups as u32, tiles_x, ..Params::of(run) },
            workgroup: block.threads,
            workgroups,
            workgroup_memory: 0,
        }],
        weights,
        workspace: Vec::new(),
        work: Work {
            mult_adds: outputs * padded_depth as f64 + fetched * source.mult_adds,
            accesses: fetched * loads + invocations * weights_per_k * padded_depth as f64 + outputs,
            shared: 0.0,
            bytes: compulsory_bytes(run),
            invocations,
        },
        // One sum in order of k.
        tolerance: 4.0,
        exact: true,
    }
}

/// How many rows of a source, or quads of k, a step of the loop takes, and how many k they are.
fn steps(block: Block, layout: Layout, fetch: Fetch) -> [u32; 2] {
    match (fetch, layout) {
        (Fetch::Quads { .. }, Layout::Nchw) => [1, block.steps],
        (Fetch::Quads { .. }, Layout::Nhwc) => [1, 4],
        (Fetch::Rows { columns }, _) => {
            let rows = (block.steps / columns).max(1);
            [rows, rows * columns]
        }
    }
}

/// `compute` of the product in registers, with every accumulator and every broadcast named.
fn compute(block: Block, layout: Layout, fetch: Fetch) -> String {
    let Block { channels, pixels, weights, .. } = block;
    let (quads, per_load, spread) = (pixels / 4, weights.width(), weights.spread(channels));
    let mut text = String::from("fn compute(first_pixel: u32, group: u32, panel: u32, lane: u32) {\n");
    let _ = writeln!(
        text,
        "    let panel_at = (WEIGHTS_AT + panel * PADDED_DEPTH * TILE_CHANNELS) / {per_load}u + lane % {spread}u;"
    );
    let places = match (layout, fetch) {
        (_, Fetch::Rows { .. }) => 1,
        (Layout::Nchw, _) => quads,
        (Layout::Nhwc, _) => pixels,
    };
    for place in 0..places {
        let offset = place * pixels / places;
        let _ = writeln!(text, "    let place{place} = place(first_pixel + {offset}u, group);");
    }
    if block.sums_in_array {
        // Mesa unrolls a loop over an array of up to 32.
        let len = (channels * quads).max(33);
        let _ = writeln!(text, "    var sums: array<vec4<f32>, {len}>;");
    } else {
        for channel in 0..channels {
            for quad in 0..quads {
                let _ = writeln!(text, "    var s{channel}_{quad} = vec4<f32>(0.0);");
            }
        }
    }
    let [fetches, steps] = steps(block, layout, fetch);
    let _ = writeln!(text, "    for (var k = 0u; k < opaque(PADDED_DEPTH); k += {steps}u) {{");
    match (layout, fetch) {
        (_, Fetch::Rows { columns }) => {
            for row in 0..fetches {
                let _ = writeln!(text, "        let r{row} = fetch_row(k / {columns}u + {row}u, place0);");
                for column in 0..columns {
                    for quad in 0..quads {
                        let step = row * columns + column;
                        let _ = writeln!(text, "        let v{step}_{quad} = r{row}.v{column}_{quad};");
                    }
                }
            }
        }
        (Layout::Nchw, _) => {
            for quad in 0..quads {
                for step in 0..steps {
                    let _ = writeln!(text, "        let v{step}_{quad} = fetch(k + {step}u, place{quad});");
                }
            }
        }
        // Four k of each pixel, turned over.
        (Layout::Nhwc, _) => {
            for pixel in 0..pixels {
                let _ = writeln!(text, "        let x{pixel} = fetch(k, place{pixel});");
            }
            for (step, component) in ["x", "y", "z", "w"].into_iter().enumerate() {
                for quad in 0..quads {
                    let values: Vec<_> = (0..4).map(|pixel| format!("x{}.{component}", quad * 4 + pixel)).collect();
                    let _ = writeln!(text, "        let v{step}_{quad} = vec4<f32>({});", values.join(", "));
                }
            }
        }
    }
    for step in 0..steps {
        let _ = writeln!(text, "        let at{step} = panel_at + (k + {step}u) * TILE_CHANNELS / {per_load}u;");
        for part in 0..channels / per_load / spread {
            let _ = writeln!(text, "        let w{step}_{part} = load_weight(at{step} + {}u);", part * spread);
        }
    }
    for channel in 0..channels {
        let (load, component) = (channel / per_load, channel % per_load);
        let (part, source) = (load / spread, load % spread);
        let component = if per_load == 1 { "" } else { [".x", ".y", ".z", ".w"][component as usize] };
        for step in 0..steps {
            let weight = format!("w{step}_{part}{component}");
            let weight = match weights {
                WeightLoads::Uniform => weight,
                WeightLoads::Broadcast { .. } => format!("subgroupBroadcast({weight}, {source}u)"),
            };
            let _ = writeln!(text, "        let b{step}_{channel} = vec4<f32>({weight});");
        }
        for quad in 0..quads {
            let sum = block.sum(channel, quad);
            let terms =
                (0..steps).fold(sum.clone(), |sum, step| format!("fma(b{step}_{channel}, v{step}_{quad}, {sum})"));
            let _ = writeln!(text, "        {sum} = {terms};");
        }
    }
    let _ = writeln!(text, "    }}\n    let first_channel = panel % PANELS * TILE_CHANNELS;");
    text.push_str(&match (block.sums_in_array, layout) {
        (true, Layout::Nchw) => store_rows_looped(quads),
        (true, Layout::Nhwc) => store_pixels_looped(quads),
        (false, Layout::Nchw) => store_rows(channels, quads),
        (false, Layout::Nhwc) => store_pixels(channels, quads),
    });
    text.push_str("}\n");
    text
}

fn store_rows(channels: u32, quads: u32) -> String {
    let mut text = String::new();
    for quad in 0..quads {
        let _ = writeln!(text, "    let quad{quad} = output_quad(first_pixel + {}u, group);", quad * 4);
        for channel in 0..channels {
            let sum = format!("s{channel}_{quad}");
            let _ = writeln!(text, "    store_row(quad{quad}, group, first_channel + {channel}u, {sum});");
        }
    }
    text
}

fn store_pixels(channels: u32, quads: u32) -> String {
    let mut text = String::new();
    for pixel in 0..quads * 4 {
        let component = ["x", "y", "z", "w"][pixel as usize % 4];
        for channel in (0..channels).step_by(4) {
            let sums: Vec<_> =
                (channel..channel + 4).map(|channel| format!("s{channel}_{}.{component}", pixel / 4)).collect();
            let sums = sums.join(", ");
            let at = format!("first_pixel + {pixel}u, group, first_channel + {channel}u");
            let _ = writeln!(text, "    store_pixel({at}, vec4<f32>({sums}));");
        }
    }
    text
}

/// How many channels and pixels an invocation stores.
const STORED: &str = "    let channels = opaque(min(TILE_CHANNELS, GROUP_OUT - first_channel));\n\
    \x20   let pixels = opaque(min(PIXELS, max(pixel_count(), first_pixel) - first_pixel));\n";

fn store_rows_looped(quads: u32) -> String {
    format!(
        "{STORED}\
         \x20   for (var quad = 0u; quad * 4u < pixels; quad++) {{\n\
         \x20       let place = output_quad(first_pixel + quad * 4u, group);\n\
         \x20       for (var channel = 0u; channel < channels; channel++) {{\n\
         \x20           store_row(place, group, first_channel + channel, sums[channel * {quads}u + quad]);\n\
         \x20       }}\n\
         \x20   }}\n"
    )
}

fn store_pixels_looped(quads: u32) -> String {
    let component = |channel: u32| format!("sums[(channel + {channel}u) * {quads}u + pixel / 4u][pixel % 4u]");
    let sums: Vec<_> = (0..4).map(component).collect();
    format!(
        "{STORED}\
         \x20   for (var channel = 0u; channel < channels; channel += 4u) {{\n\
         \x20       for (var pixel = 0u; pixel < pixels; pixel++) {{\n\
         \x20           let values = vec4<f32>({});\n\
         \x20           store_pixel(first_pixel + pixel, group, first_channel + channel, values);\n\
         \x20       }}\n\
         \x20   }}\n",
        sums.join(", ")
    )
}
