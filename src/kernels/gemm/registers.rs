//! The matrix product in registers alone, without workgroup memory, over any source of pixels.

use std::fmt::Write as _;

use super::{Fetch, Product, Source, access, product};
use crate::kernels::shader::{self, COMPONENTS, Shader};
use crate::kernels::{
    Params, Pass, REGISTERS_FOR_ADDRESSES, Recipe, Run, Unsupported, Wgsl, Work, compulsory_bytes, single_pass_operands,
};
use crate::model::caps::Caps;
use crate::model::shape::Layout;

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

/// Invocations of a workgroup on a GPU: a subgroup, or several.
const THREADS: u32 = 64;

/// Blocks of so many channels and pixels for GPUs.
pub fn uniform_blocks(caps: &Caps, blocks: &[[u32; 2]]) -> Result<Vec<Block>, Unsupported> {
    if caps.is_cpu {
        return Err(Unsupported::SoftwareDevice);
    }
    let block = |&[channels, pixels]: &[u32; 2]| Block {
        channels,
        pixels,
        threads: THREADS,
        steps: 4,
        weights: WeightLoads::Uniform,
        sums_in_array: false,
    };
    Ok(blocks.iter().map(block).collect())
}

/// Blocks of so many channels and pixels for software devices with subgroups.
pub fn subgroup_blocks(caps: &Caps, blocks: &[[u32; 2]]) -> Result<Vec<Block>, Unsupported> {
    if !caps.is_cpu {
        return Err(Unsupported::NeedsSoftwareDevice);
    }
    let powers_of_two = |sizes: &[u32; 2]| sizes.iter().all(|size| size.is_power_of_two());
    let [lanes, threads] = caps.subgroup.filter(powers_of_two).ok_or(Unsupported::NeedsSubgroups)?;
    let block = |&[channels, pixels]: &[u32; 2]| Block {
        channels,
        pixels,
        // The largest subgroup, so whole subgroups only, whichever size the driver picks.
        threads,
        // Four take longer to compile, and run no faster.
        steps: 2,
        weights: WeightLoads::Broadcast { lanes, pairs: caps.int64 },
        sums_in_array: true,
    };
    Ok(blocks.iter().map(block).collect())
}

/// The product in registers, without workgroup memory.
pub fn recipe(run: &Run<'_>, source: &Source, block: Block) -> Recipe {
    let [_, steps] = steps(block, run.layout, source.fetch);
    let Product { link, weights, params, wgsl: product_wgsl, padded_depth, .. } =
        product(run, source, block.channels, steps);
    let output = run.output();
    let tiles_x = output.width.div_ceil(block.pixels);
    let pixels = match source.fetch {
        Fetch::Quads { .. } | Fetch::Blocks { .. } | Fetch::Lines => u64::from(output.batch) * output.pixels(),
        Fetch::Rows { .. } => u64::from(output.batch) * u64::from(output.height) * u64::from(tiles_x * block.pixels),
    };
    let tile_pixels = block.threads * block.pixels;
    let workgroups = pixels.div_ceil(tile_pixels.into()) * u64::from(params.panels) * u64::from(link.groups);
    let access = access(run, source, block.weights.pairs());
    let (core, weights_file) = match block.weights {
        WeightLoads::Uniform => (include_str!("../../../shaders/gemm_uniform.wgsl"), shader::WEIGHTS_VEC4),
        WeightLoads::Broadcast { pairs: false, .. } => {
            (include_str!("../../../shaders/gemm_subgroup.wgsl"), shader::WEIGHTS_SCALAR)
        }
        WeightLoads::Broadcast { pairs: true, .. } => {
            (include_str!("../../../shaders/gemm_subgroup.wgsl"), shader::WEIGHTS_PAIRS)
        }
    };
    let (source_wgsl, fetch, last, layout) = (source.wgsl.clone(), source.fetch, source.conv.clone(), run.layout);
    let wgsl = Wgsl::new(move || {
        Shader::new(core)
            .add(weights_file)
            .add(if block.weights.pairs() { shader::PAIRS } else { "" })
            .add(&source_wgsl.part())
            .add_all(&access)
            .add(&compute(block, layout, fetch))
            .add(&product_wgsl.part())
            .constants(&[("PIXELS", block.pixels.into()), ("THREADS", block.threads.into())])
            .finish(&last)
    });

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
    let sums = block.channels * block.pixels;
    let pass = Pass {
        wgsl,
        operands: single_pass_operands(run),
        params: Params { work: workgroups as u32, tiles_x, ..params },
        workgroup: block.threads,
        workgroups,
        workgroup_memory: 0,
        sums,
        // The weights are the same for all lanes, so that they take none, or few.
        registers: sums + block.pixels * steps + REGISTERS_FOR_ADDRESSES,
    };
    Recipe {
        name: format!("{}/{}x{}", source.kernel, block.channels, block.pixels),
        weights,
        workspace: Vec::new(),
        work: Work {
            mult_adds: outputs * padded_depth as f64 + fetched * source.mult_adds,
            accesses: fetched * loads + invocations * weights_per_k * padded_depth as f64 + outputs,
            shared: 0.0,
            bytes: compulsory_bytes(run),
            invocations: pass.invocations(),
        },
        passes: vec![pass],
        // One sum in order of k.
        tolerance: 4.0,
        exact: true,
        mixes: false,
    }
}

/// How many rows of a source, or quads of k, a step of the loop takes, and how many k they are.
fn steps(block: Block, layout: Layout, fetch: Fetch) -> [u32; 2] {
    match (fetch, layout) {
        (Fetch::Rows { columns }, _) => {
            let rows = (block.steps / columns).max(1);
            [rows, rows * columns]
        }
        (_, Layout::Nchw) => [1, block.steps],
        (_, Layout::Nhwc) => [1, 4],
    }
}

/// `compute`, with every accumulator and every weight named.
fn compute(block: Block, layout: Layout, fetch: Fetch) -> String {
    let Block { channels, pixels, weights, .. } = block;
    let (quads, per_load, spread) = (pixels / 4, weights.width(), weights.spread(channels));
    let [fetches, steps] = steps(block, layout, fetch);
    let (lane, of_lane) = match weights {
        WeightLoads::Uniform => ("", String::new()),
        WeightLoads::Broadcast { .. } => (", lane: u32", format!(" + lane % {spread}u")),
    };
    let mut text = format!("fn compute(first_pixel: u32, group: u32, panel: u32{lane}) {{\n");
    let panel_at = format!("(params.weights_at + panel * params.padded_depth * TILE_CHANNELS) / {per_load}u");
    let _ = writeln!(text, "    let panel_at = {panel_at}{of_lane};");
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
        for (channel, quad) in (0..channels).flat_map(|channel| (0..quads).map(move |quad| (channel, quad))) {
            let _ = writeln!(text, "    var s{channel}_{quad} = vec4<f32>(0.0);");
        }
    }
    let _ = writeln!(text, "    for (var k = 0u; k < params.padded_depth; k += {steps}u) {{");
    match (layout, fetch) {
        (_, Fetch::Rows { columns }) => fetch_rows(&mut text, fetches, columns, quads),
        (Layout::Nchw, _) => fetch_pixels(&mut text, steps, quads),
        (Layout::Nhwc, _) => fetch_channels(&mut text, quads),
    }
    let _ = writeln!(text, "        let weights_at = panel_at + k * {}u;", channels / per_load);
    for (step, part) in (0..steps).flat_map(|step| (0..channels / per_load / spread).map(move |part| (step, part))) {
        let offset = step * channels / per_load + part * spread;
        let _ = writeln!(text, "        let w{step}_{part} = load_weight(weights_at + {offset}u);");
    }
    for channel in 0..channels {
        multiply(&mut text, block, steps, channel);
    }
    let _ = writeln!(text, "    }}\n    let first_channel = panel % params.panels * TILE_CHANNELS;");
    text.push_str(&match (block.sums_in_array, layout) {
        (true, Layout::Nchw) => store_rows_looped(quads),
        (true, Layout::Nhwc) => store_pixels_looped(quads),
        (false, Layout::Nchw) => store_rows(channels, quads),
        (false, Layout::Nhwc) => store_pixels(channels, quads),
    });
    text.push_str("}\n");
    text
}

/// `v{step}_{quad}`, four pixels of a k, from rows that hold several k.
fn fetch_rows(text: &mut String, rows: u32, columns: u32, quads: u32) {
    for row in 0..rows {
        let _ = writeln!(text, "        let r{row} = fetch_row(k / {columns}u + {row}u, place0);");
        for (column, quad) in (0..columns).flat_map(|column| (0..quads).map(move |quad| (column, quad))) {
            let step = row * columns + column;
            let _ = writeln!(text, "        let v{step}_{quad} = r{row}.v{column}_{quad};");
        }
    }
}

/// The same from a source of four pixels of one k.
fn fetch_pixels(text: &mut String, steps: u32, quads: u32) {
    for (quad, step) in (0..quads).flat_map(|quad| (0..steps).map(move |step| (quad, step))) {
        let _ = writeln!(text, "        let v{step}_{quad} = fetch(k + {step}u, place{quad});");
    }
}

/// The same from a source of four k of one pixel, turned over.
fn fetch_channels(text: &mut String, quads: u32) {
    for pixel in 0..quads * 4 {
        let _ = writeln!(text, "        let x{pixel} = fetch(k, place{pixel});");
    }
    for (step, component) in COMPONENTS.into_iter().enumerate() {
        for quad in 0..quads {
            let values: Vec<_> = (0..4).map(|pixel| format!("x{}.{component}", quad * 4 + pixel)).collect();
            let _ = writeln!(text, "        let v{step}_{quad} = vec4<f32>({});", values.join(", "));
        }
    }
}

/// Adds all steps' products to the sums of a channel.
fn multiply(text: &mut String, block: Block, steps: u32, channel: u32) {
    let (per_load, spread) = (block.weights.width(), block.weights.spread(block.channels));
    let (load, component) = (channel / per_load, channel % per_load);
    let (part, source) = (load / spread, load % spread);
    let component = if per_load == 1 { "" } else { [".x", ".y", ".z", ".w"][component as usize] };
    for step in 0..steps {
        let weight = format!("w{step}_{part}{component}");
        let weight = match block.weights {
            WeightLoads::Uniform => weight,
            WeightLoads::Broadcast { .. } => format!("subgroupBroadcast({weight}, {source}u)"),
        };
        let _ = writeln!(text, "        let b{step}_{channel} = vec4<f32>({weight});");
    }
    for quad in 0..block.pixels / 4 {
        let sum = block.sum(channel, quad);
        let terms = (0..steps).fold(sum.clone(), |sum, step| format!("fma(b{step}_{channel}, v{step}_{quad}, {sum})"));
        let _ = writeln!(text, "        {sum} = {terms};");
    }
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
        let component = COMPONENTS[pixel as usize % 4];
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
const STORED: &str = "    let channels = opaque(min(TILE_CHANNELS, params.group_out - first_channel));\n\
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
