//! The matrix product through workgroup memory, over any source of pixels.

use minijinja::value::merge_maps;
use minijinja::{Value, context};

use super::{Fetch, Product, Source, of_inputs, of_outputs, product, shares_scales, values};
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
    /// Parts of a workgroup that have the same outputs, each for a share of the depth.
    pub slices: u32,
}

impl Tile {
    /// A tile without slices.
    pub const fn new([channels, pixels, depth]: [u32; 3], [micro_channels, micro_pixels]: [u32; 2]) -> Self {
        Self { channels, pixels, depth, micro_channels, micro_pixels, slices: 1 }
    }

    /// The same with slices.
    pub const fn sliced(self, slices: u32) -> Self {
        Self { slices, ..self }
    }

    pub fn threads(self) -> u32 {
        self.slice_threads() * self.slices
    }

    /// Invocations of a slice.
    fn slice_threads(self) -> u32 {
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
        // Where slices add up their sums.
        let exchanged = if self.slices > 1 { self.slices * self.threads() } else { 0 };
        (self.pixels / 4 * self.depth).max(exchanged).saturating_add(self.channel_tile(staged)).saturating_mul(16)
    }

    /// Multiply-adds that take as long as it takes the slices to add up their sums, and elements that they write to
    /// workgroup memory or read from there.
    pub fn exchange(self) -> [f64; 2] {
        let sums = if self.slices > 1 { f64::from(self.slices * self.channels * self.pixels) } else { 0.0 };
        [EXCHANGE * sums, 2.0 * sums]
    }

    /// What tells it from others, for the names of recipes.
    pub fn name(self) -> String {
        let slices = if self.slices > 1 { format!("x{}", self.slices) } else { String::new() };
        format!("{}x{}x{}{slices}", self.channels, self.pixels, self.depth)
    }

    /// Elements that a multiply-add loads from workgroup memory.
    pub fn loads(self) -> f64 {
        1.0 / f64::from(self.micro_channels) + 1.0 / f64::from(self.micro_pixels)
    }

    /// Whether the compiler has registers for the scales of the pixels that an invocation stages.
    pub fn suits_scales(self, run: &Run<'_>, caps: &Caps) -> bool {
        let apart = run.is_scaled() && run.layout == Layout::Nchw && !shares_scales(run);
        let staged = self.pixels * self.depth / self.threads() / 4;
        !caps.loads_ahead() || !apart || staged <= QUADS_BESIDE_SCALES && self.threads() <= THREADS_BESIDE_SCALES
    }

    /// Registers of an invocation: its sums, where its pixels are, and either their operands of one k or the values of
    /// a fetch. Channels last, each pixel has an address of its own.
    pub fn registers(self, source: &Source, layout: Layout) -> u32 {
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

/// Where four pixels may be of two images, each has a scale of its own. Beside these, compilers that load ahead have
/// registers for two quads of an invocation, in small workgroups. Otherwise Mesa's for Adreno 630 and 660 spill 1 to 45
/// values.
const QUADS_BESIDE_SCALES: u32 = 2;
const THREADS_BESIDE_SCALES: u32 = 64;

/// What compilers make of the exchange: 200 to 260 instructions for the 64 sums of each of four slices.
const EXCHANGE: f64 = 3.0;

/// Tiles of products through workgroup memory. Large ones do more for each value staged, small ones fill a
/// device on small layers.
pub const TILES: &[Tile] = &[
    Tile::new([64, 64, 16], [8, 4]),
    Tile::new([128, 64, 16], [8, 4]),
    Tile::new([128, 128, 8], [8, 8]),
    Tile::new([64, 32, 16], [8, 4]),
    Tile::new([32, 64, 16], [8, 4]),
    Tile::new([32, 32, 16], [4, 4]),
];

/// The smallest of these in slices, for GPUs. A multiply-add loads half as much from workgroup memory, but the slices
/// take time to add up their sums, so it pays where k is long.
pub const SLICED: Tile = Tile::new([32, 32, 16], [8, 8]).sliced(4);

/// Tiles for sources that gather or compute their values, which takes longer than to load them: for each they multiply
/// more, and wide ones have it once for more output channels.
pub const TILES_OF_GATHERED: &[Tile] = &[
    Tile::new([128, 32, 16], [8, 8]),
    Tile::new([64, 64, 16], [8, 8]),
    Tile::new([128, 64, 16], [8, 8]),
    Tile::new([128, 128, 16], [8, 8]),
    Tile::new([32, 64, 32], [8, 4]),
    // Also for GPUs with few registers.
    Tile::new([64, 64, 32], [8, 4]),
];

/// Tiles for sources that load whole rows of the kernel. Each has as many of these as `row_tile` says.
pub const TILES_OF_ROWS: &[Tile] =
    &[Tile::new([32, 64, 32], [8, 4]), Tile::new([64, 64, 28], [8, 8]), Tile::new([64, 32, 28], [8, 4])];

impl Tile {
    /// The tile with as many whole rows, of `values` of k each, as its depth has room for. Of a few more or less those
    /// that fill up all of k, `rows` rows, with the fewest.
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
            ((rows * u64::from(quads * ROW_PIXELS)).div_ceil(tile.pixels.into()), [output.height, quads], 0)
        }
        Fetch::Quads { .. } => ((rows * u64::from(output.width)).div_ceil(tile.pixels.into()), [0; 2], 0),
    };
    let name = format!("{}/{}", source.kernel, tile.name());
    let workgroups = tiles * u64::from(product.params.panels) * u64::from(product.link.groups);
    let shader_values = shader_values(run, source, &product, tile, caps, &name);
    let segmented = is_segmented(source);
    let Product { weights, params, padded_depth, .. } = product;
    let segment_depth = if segmented { params.segment_depth } else { params.padded_depth };

    let tiles = workgroups as f64;
    let values = tiles * f64::from(tile.pixels) * padded_depth as f64;
    let outputs = tiles * f64::from(tile.channels * tile.pixels);
    let mult_adds = outputs * padded_depth as f64;
    let [exchange, exchanged] = tile.exchange();
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
            mult_adds: mult_adds + values * source.mult_adds + tiles * exchange,
            accesses: values * source.loads * of_inputs(run, source)
                + tiles * f64::from(tile.channels) * padded_depth as f64 * of_weights
                + outputs * of_outputs(run, source),
            shared: mult_adds * tile.loads() + values * source.shared + tiles * exchanged,
            bytes: compulsory_bytes(run),
        },
        passes: vec![pass],
        // One sum in order of k.
        tolerance: 4.0,
        exact: true,
        spreads_errors: false,
    }
}

/// Whether k is gone through in segments. A source that stages goes through it by itself.
fn is_segmented(source: &Source) -> bool {
    !matches!(source.fetch, Fetch::Blocks { .. }) && source.order == Order::ByTaps { together: 1 }
}

/// What `gemm_tile.wgsl` asks for, without means.
pub fn shader_values(
    run: &Run<'_>,
    source: &Source,
    product: &Product<'_>,
    tile: Tile,
    caps: &Caps,
    recipe: &str,
) -> impl Fn() -> Value + Send + Sync + use<> {
    let row_depth = match source.fetch {
        Fetch::Rows { values, .. } => Some(values),
        _ => None,
    };
    // A software device takes long to compile each load that is written out.
    let step_depth = if caps.is_cpu { 4 } else { tile.depth / tile.slices };
    let ((file, of_source), of_product) = (source.template.clone(), values(run, source, product, recipe, false));
    let source_stages = matches!(source.fetch, Fetch::Blocks { .. });
    let (segmented, source_prepares, loads_ahead) = (is_segmented(source), source.kept > 0, caps.loads_ahead());
    // Of values with the same name the source's count.
    move || {
        context! {
            source => file,
            TILE_PIXELS => tile.pixels,
            TILE_DEPTH => tile.depth,
            MICRO_CHANNELS => tile.micro_channels,
            MICRO_PIXELS => tile.micro_pixels,
            SLICES => tile.slices,
            STEP_DEPTH => step_depth,
            MEANS => false,
            SEGMENTED => segmented,
            SOURCE_STAGES => source_stages,
            SOURCE_PREPARES => source_prepares,
            ROW_DEPTH => row_depth,
            PIXELS => ROW_PIXELS,
            LOADS_AHEAD => loads_ahead,
            ..merge_maps([context! { inner_activations => (), STAGED_IN_LOOP => false }, of_product(), of_source()])
        }
    }
}
