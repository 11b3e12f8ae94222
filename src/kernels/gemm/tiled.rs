//! The matrix product through workgroup memory, over any source of pixels.

use std::fmt::Write as _;

use minijinja::context;
use minijinja::value::merge_maps;

use super::{Fetch, Product, Source, access, product, values};
use crate::kernels::pack::Order;
use crate::kernels::shader::{self, COMPONENTS, Shader};
use crate::kernels::{
    Params, Pass, REGISTERS_FOR_ADDRESSES, Recipe, Run, Wgsl, Work, compulsory_bytes, single_pass_operands,
};
use crate::model::caps::Caps;
use crate::model::shape::Layout;

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
    pub fn threads(self) -> u32 {
        (self.channels / self.micro_channels) * (self.pixels / self.micro_pixels)
    }

    /// Quads of workgroup memory for the weights, of which a source may need more while it stages.
    fn channel_tile(self, staged: u32) -> u32 {
        (self.channels / 4 * self.depth).max(staged)
    }

    /// Bytes, for a source that needs so many quads while it stages.
    pub fn workgroup_memory(self, staged: u32) -> u32 {
        (self.pixels / 4 * self.depth).saturating_add(self.channel_tile(staged)).saturating_mul(16)
    }

    /// Of an invocation: its sums, and either their operands of one k or what a fetch takes.
    fn registers(self, fetch: u32) -> u32 {
        let operands = self.micro_channels + self.micro_pixels;
        self.micro_channels * self.micro_pixels + operands.max(fetch) + REGISTERS_FOR_ADDRESSES
    }
}

/// Tiles of products through workgroup memory. Large ones do more for each value staged, small ones fill a
/// device on small layers.
pub const TILES: &[Tile] = &[
    Tile { channels: 64, pixels: 64, depth: 16, micro_channels: 8, micro_pixels: 4 },
    Tile { channels: 128, pixels: 64, depth: 16, micro_channels: 8, micro_pixels: 4 },
    Tile { channels: 128, pixels: 128, depth: 8, micro_channels: 8, micro_pixels: 8 },
    Tile { channels: 64, pixels: 32, depth: 16, micro_channels: 8, micro_pixels: 4 },
    Tile { channels: 32, pixels: 64, depth: 16, micro_channels: 8, micro_pixels: 4 },
];

/// Tiles for sources that gather or compute their values, which takes longer than to load them: for each they multiply
/// more, and wide ones have it once for more output channels.
pub const TILES_OF_GATHERED: &[Tile] = &[
    Tile { channels: 128, pixels: 32, depth: 16, micro_channels: 8, micro_pixels: 8 },
    Tile { channels: 64, pixels: 64, depth: 16, micro_channels: 8, micro_pixels: 8 },
    Tile { channels: 128, pixels: 64, depth: 16, micro_channels: 8, micro_pixels: 8 },
    Tile { channels: 128, pixels: 128, depth: 16, micro_channels: 8, micro_pixels: 8 },
    Tile { channels: 32, pixels: 64, depth: 32, micro_channels: 8, micro_pixels: 4 },
];

/// What a source with a single segment of k leaves out.
const ONE_SEGMENT: &str = "alias Located = Place;\n\
    fn locate(place: Place, segment: u32) -> Located { return place; }\n\
    fn segments() -> u32 { return 1u; }\n";

/// The product through workgroup memory.
pub fn recipe(run: &Run<'_>, source: &Source, tile: Tile, caps: &Caps) -> Recipe {
    let product = product(run, source, tile.channels, tile.depth);
    let output = run.output();
    let staging = match run.layout {
        Layout::Nchw => include_str!("../../../shaders/tile_nchw.wgsl"),
        Layout::Nhwc => include_str!("../../../shaders/tile_nhwc.wgsl"),
    };
    let rows = u64::from(output.batch) * u64::from(output.height);
    // Tiles, how many of them an image has (or quads a row), staging, and quads of workgroup memory for it.
    let (tiles, [tiles_y, tiles_x], staging, staged) = match source.fetch {
        Fetch::Blocks { height, width, staged } => {
            let blocks = [output.height.div_ceil(height), output.width.div_ceil(width)];
            (u64::from(output.batch) * u64::from(blocks[0]) * u64::from(blocks[1]), blocks, "", staged)
        }
        Fetch::Lines => {
            let quads = output.width.div_ceil(4);
            ((rows * u64::from(quads) * 4).div_ceil(tile.pixels.into()), [0, quads], staging, 0)
        }
        Fetch::Quads { .. } | Fetch::Rows { .. } => {
            ((rows * u64::from(output.width)).div_ceil(tile.pixels.into()), [0; 2], staging, 0)
        }
    };
    let name = format!("{}/{}x{}x{}", source.kernel, tile.channels, tile.pixels, tile.depth);
    let workgroups = tiles * u64::from(product.params.panels) * u64::from(product.link.groups);
    let access = access(run, source);
    // A software device takes long to compile each load that is written out.
    let step_depth = if caps.is_cpu { 4 } else { tile.depth };
    let (source_wgsl, product_wgsl, order, last, layout) =
        (source.wgsl.clone(), product.wgsl.clone(), source.order, source.conv.clone(), run.layout);
    let made = move || {
        let steps = match tile.depth / step_depth {
            1 => "1u".into(),
            steps => format!("opaque({steps}u)"),
        };
        Shader::new(include_str!("../../../shaders/gemm_tile_parts.wgsl"))
            .add(shader::WEIGHTS_VEC4)
            .add(&source_wgsl.part())
            .add(staging)
            .add_all(&access)
            .add(&micro_tile(tile, step_depth, layout))
            .add(&format!("fn tile_steps() -> u32 {{ return {steps}; }}\n"))
            .add(match order {
                Order::ByTap => "fn segments() -> u32 { return params.padded_depth / params.segment_depth; }\n",
                Order::ChannelFirst | Order::ChannelLast => ONE_SEGMENT,
            })
            .add(&product_wgsl.part())
            .constants(&[
                ("TILE_PIXELS", tile.pixels.into()),
                ("TILE_DEPTH", tile.depth.into()),
                ("STEP_DEPTH", step_depth.into()),
                ("CHANNEL_TILE", tile.channel_tile(staged).into()),
                ("THREADS", tile.threads().into()),
            ])
            .finish(&last)
    };

    let wgsl = match &source.template {
        None => Wgsl::new(made),
        Some((file, of_source)) => {
            let (file, of_source, of_product) = (*file, of_source.clone(), values(run, source, &product, &name, false));
            let segmented = source.order == Order::ByTap;
            // Of values with the same name the source's count.
            let values = move || {
                context! {
                    source => file,
                    TILE_PIXELS => tile.pixels,
                    TILE_DEPTH => tile.depth,
                    MICRO_CHANNELS => tile.micro_channels,
                    MICRO_PIXELS => tile.micro_pixels,
                    STEP_DEPTH => step_depth,
                    SEGMENTED => segmented,
                    ..merge_maps([of_product(), of_source()])
                }
            };
            Wgsl::template("gemm_tile.wgsl", values)
        }
    };
    let Product { weights, params, padded_depth, .. } = product;

    let tiles = workgroups as f64;
    let values = tiles * f64::from(tile.pixels) * padded_depth as f64;
    let outputs = tiles * f64::from(tile.channels * tile.pixels);
    let mult_adds = outputs * padded_depth as f64;
    let pass = Pass {
        wgsl,
        operands: single_pass_operands(run),
        params: Params { tiles_y, tiles_x, work: workgroups as u32, ..params },
        workgroup: tile.threads(),
        workgroups,
        workgroup_memory: tile.workgroup_memory(staged),
        sums: tile.micro_channels * tile.micro_pixels,
        registers: tile.registers(source.registers),
    };
    Recipe {
        name,
        weights,
        workspace: Vec::new(),
        work: Work {
            mult_adds: mult_adds + values * source.mult_adds,
            accesses: values * source.loads + tiles * f64::from(tile.channels) * padded_depth as f64 + outputs,
            shared: mult_adds * (1.0 / f64::from(tile.micro_channels) + 1.0 / f64::from(tile.micro_pixels))
                + values * source.shared,
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

/// `MicroTile`, `accumulate` and `finish` with every accumulator named, for an array indexed at run time would
/// not stay in registers.
///
/// The side of the output whose neighbours are neighbours in memory is the columns (quads), the other one the
/// rows: channels x pixels for NCHW, pixels x channels for NHWC.
fn micro_tile(tile: Tile, step_depth: u32, layout: Layout) -> String {
    let (rows, column_quads, columns) = match layout {
        Layout::Nchw => (tile.micro_channels, tile.micro_pixels / 4, tile.pixels / tile.micro_pixels),
        Layout::Nhwc => (tile.micro_pixels, tile.micro_channels / 4, tile.channels / tile.micro_channels),
    };
    let mut text = format!("const MICRO_COLUMNS: u32 = {columns}u;\nstruct MicroTile {{\n");
    for row in 0..rows {
        for quad in 0..column_quads {
            let _ = writeln!(text, "    s{row}_{quad}: vec4<f32>,");
        }
    }
    text.push_str("}\nfn accumulate(sums: ptr<function, MicroTile>, k: u32, row: u32, column: u32) {\n");
    match layout {
        Layout::Nchw => {
            let _ = writeln!(text, "    let row_at = k * CHANNEL_QUADS + row * {}u;", rows / 4);
            text.push_str("    let column_at = k * PIXEL_QUADS + column;\n");
        }
        Layout::Nhwc => text.push_str(
            "    let row_at = k / 4u * TILE_PIXELS + row;\n    let column_at = k * CHANNEL_QUADS + column;\n",
        ),
    }
    for k in 0..step_depth {
        match layout {
            Layout::Nchw => {
                for quad in 0..rows / 4 {
                    let _ =
                        writeln!(text, "    let a{k}_{quad} = channel_tile[row_at + {k}u * CHANNEL_QUADS + {quad}u];");
                }
            }
            // Four k of each pixel.
            Layout::Nhwc if k % 4 == 0 => {
                for row in 0..rows {
                    let at = format!("row_at + {}u * TILE_PIXELS + {}u", k / 4, row * tile.pixels / rows);
                    let _ = writeln!(text, "    let a{k}_{row} = pixel_tile[{at}];");
                }
            }
            Layout::Nhwc => {}
        }
        let [column_tile, quads] = match layout {
            Layout::Nchw => ["pixel_tile", "PIXEL_QUADS"],
            Layout::Nhwc => ["channel_tile", "CHANNEL_QUADS"],
        };
        for quad in 0..column_quads {
            let at = format!("column_at + {k}u * {quads} + {}u", quad * columns);
            let _ = writeln!(text, "    let b{k}_{quad} = {column_tile}[{at}];");
            for row in 0..rows {
                let a = match layout {
                    Layout::Nchw => format!("a{k}_{}.{}", row / 4, COMPONENTS[row as usize % 4]),
                    Layout::Nhwc => format!("a{}_{row}.{}", k / 4 * 4, COMPONENTS[k as usize % 4]),
                };
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
            let _ = match layout {
                Layout::Nchw => {
                    let channel = format!("first_channel + row * {rows}u + {row}u");
                    writeln!(text, "    store_row(quad{quad}, group, {channel}, {sum});")
                }
                Layout::Nhwc => {
                    let pixel = format!("first_pixel + row + {}u", row * tile.pixels / rows);
                    writeln!(text, "    store_pixel({pixel}, group, first_channel + {column}, {sum});")
                }
            };
        }
    }
    text.push_str("}\n");
    text
}
