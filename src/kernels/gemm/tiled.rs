//! The matrix product through workgroup memory, over any source of pixels.

use minijinja::context;
use minijinja::value::merge_maps;

use super::{Fetch, Product, Source, of_inputs, of_outputs, product, values};
use crate::kernels::pack::Order;
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

    /// Quads of values that an invocation stages.
    pub fn staged_quads(self) -> u32 {
        self.depth * self.pixels / 4 / self.threads()
    }

    /// Quads of workgroup memory for the weights, or for what a source stages there, if that is more.
    fn channel_tile(self, staged: u32) -> u32 {
        (self.channels / 4 * self.depth).max(staged)
    }

    /// Workgroup memory, bytes, for a source that needs `staged` quads while it stages.
    pub fn workgroup_memory(self, staged: u32) -> u32 {
        (self.pixels / 4 * self.depth).saturating_add(self.channel_tile(staged)).saturating_mul(16)
    }

    /// Registers of an invocation: its sums, where its pixels are, and either their operands of one k or the values of a
    /// fetch. Channels last, each pixel has an address of its own.
    fn registers(self, source: &Source, layout: Layout) -> u32 {
        let operands = self.micro_channels + self.micro_pixels;
        let places = match (layout, source.fetch) {
            (Layout::Nhwc, _) => source.place + 2 * self.micro_pixels,
            // Four pixels that are no quad have four places. Beside few sums there is room for them.
            (Layout::Nchw, Fetch::Quads { aligned: false }) if self.micro_channels > 4 => source.place + 12,
            (Layout::Nchw, _) => source.place,
        };
        self.micro_channels * self.micro_pixels + operands.max(source.registers) + places + REGISTERS_FOR_ADDRESSES
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
    Tile { channels: 32, pixels: 32, depth: 16, micro_channels: 4, micro_pixels: 4 },
];

/// Tiles for sources that gather or compute their values, which takes longer than to load them: for each they multiply
/// more, and wide ones have it once for more output channels.
pub const TILES_OF_GATHERED: &[Tile] = &[
    Tile { channels: 128, pixels: 32, depth: 16, micro_channels: 8, micro_pixels: 8 },
    Tile { channels: 64, pixels: 64, depth: 16, micro_channels: 8, micro_pixels: 8 },
    Tile { channels: 128, pixels: 64, depth: 16, micro_channels: 8, micro_pixels: 8 },
    Tile { channels: 128, pixels: 128, depth: 16, micro_channels: 8, micro_pixels: 8 },
    Tile { channels: 32, pixels: 64, depth: 32, micro_channels: 8, micro_pixels: 4 },
    // Also for GPUs with few registers.
    Tile { channels: 64, pixels: 64, depth: 32, micro_channels: 8, micro_pixels: 4 },
];

/// Tiles for sources that load whole rows of the kernel. Each has as many of these as `row_tile` says.
pub const TILES_OF_ROWS: &[Tile] = &[
    Tile { channels: 32, pixels: 64, depth: 32, micro_channels: 8, micro_pixels: 4 },
    Tile { channels: 64, pixels: 64, depth: 28, micro_channels: 8, micro_pixels: 8 },
    Tile { channels: 64, pixels: 32, depth: 28, micro_channels: 8, micro_pixels: 4 },
];

impl Tile {
    /// The tile with as many whole rows, of `values` of k each, as its depth has room for. Of a few more or less those that
    /// fill up all of k, `rows` rows, with the fewest.
    pub fn of_rows(self, values: u32, rows: u64) -> Self {
        let most = u64::from((self.depth / values).max(1));
        let filled = |each: &u64| (rows.next_multiple_of(*each), most - each);
        let each = (most.div_ceil(2)..=most).min_by_key(filled).unwrap_or(1);
        Self { depth: each as u32 * values, ..self }
    }
}

/// Pixels that a source of rows is asked for at a time.
pub const ROW_PIXELS: u32 = 4;

/// The product through workgroup memory.
pub fn recipe(run: &Run<'_>, source: &Source, tile: Tile, caps: &Caps) -> Recipe {
    let product = product(run, source, tile.channels, tile.depth);
    let output = run.output();
    let rows = u64::from(output.batch) * u64::from(output.height);
    // Tiles; how many blocks (or quads a row) an image has; quads of workgroup memory that the source stages in.
    let (tiles, [tiles_y, tiles_x], staged) = match source.fetch {
        Fetch::Blocks { height, width, staged } => {
            let blocks = [output.height.div_ceil(height), output.width.div_ceil(width)];
            let pixels = u64::from(output.batch) * u64::from(blocks[0] * height) * u64::from(blocks[1] * width);
            (pixels.div_ceil(tile.pixels.into()), blocks, staged)
        }
        Fetch::Rows { .. } => {
            let quads = output.width.div_ceil(ROW_PIXELS);
            ((rows * u64::from(quads * ROW_PIXELS)).div_ceil(tile.pixels.into()), [0, quads], 0)
        }
        Fetch::Quads { .. } => ((rows * u64::from(output.width)).div_ceil(tile.pixels.into()), [0; 2], 0),
    };
    let row_depth = match source.fetch {
        Fetch::Rows { values } => Some(values),
        _ => None,
    };
    let name = format!("{}/{}x{}x{}", source.kernel, tile.channels, tile.pixels, tile.depth);
    let workgroups = tiles * u64::from(product.params.panels) * u64::from(product.link.groups);
    // A software device takes long to compile each load that is written out.
    let step_depth = if caps.is_cpu { 4 } else { tile.depth };
    let ((file, of_source), of_product) = (source.template.clone(), values(run, source, &product, &name, false));
    let source_stages = matches!(source.fetch, Fetch::Blocks { .. });
    // A source that stages goes through k by itself.
    let segmented = !source_stages && source.order == Order::ByTaps { together: 1 };
    let source_prepares = source.kept > 0;
    // Of values with the same name the source's count.
    let shader_values = move || {
        context! {
            source => file,
            TILE_PIXELS => tile.pixels,
            TILE_DEPTH => tile.depth,
            MICRO_CHANNELS => tile.micro_channels,
            MICRO_PIXELS => tile.micro_pixels,
            STEP_DEPTH => step_depth,
            SEGMENTED => segmented,
            SOURCE_STAGES => source_stages,
            SOURCE_PREPARES => source_prepares,
            ROW_DEPTH => row_depth,
            PIXELS => ROW_PIXELS,
            ..merge_maps([context! { inner_activations => (), STAGED_IN_LOOP => false }, of_product(), of_source()])
        }
    };
    let Product { weights, params, padded_depth, .. } = product;
    let segment_depth = if segmented { params.segment_depth } else { params.padded_depth };

    let tiles = workgroups as f64;
    let values = tiles * f64::from(tile.pixels) * padded_depth as f64;
    let outputs = tiles * f64::from(tile.channels * tile.pixels);
    let mult_adds = outputs * padded_depth as f64;
    let of_weights = run.elements.weights.of_wide_load();
    let pass = Pass {
        wgsl: Wgsl::template("gemm_tile.wgsl", shader_values),
        operands: single_pass_operands(run),
        params: Params { tiles_y, tiles_x, segment_depth, work: workgroups as u32, ..params },
        workgroup: tile.threads(),
        workgroups,
        workgroup_memory: tile.workgroup_memory(staged).saturating_add(source.kept.saturating_mul(16)),
        sums: tile.micro_channels * tile.micro_pixels,
        registers: tile.registers(source, run.layout),
    };
    Recipe {
        name,
        weights,
        workspace: Vec::new(),
        work: Work {
            mult_adds: mult_adds + values * source.mult_adds,
            accesses: values * source.loads * of_inputs(run, source)
                + tiles * f64::from(tile.channels) * padded_depth as f64 * of_weights
                + outputs * of_outputs(run, source),
            shared: mult_adds * (1.0 / f64::from(tile.micro_channels) + 1.0 / f64::from(tile.micro_pixels))
                + values * source.shared,
            bytes: compulsory_bytes(run),
        },
        passes: vec![pass],
        // One sum in order of k.
        tolerance: 4.0,
        exact: true,
        spreads_errors: false,
    }
}
