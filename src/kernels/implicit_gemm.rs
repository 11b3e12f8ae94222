//! `implicit_gemm`, `implicit_gemm_uniform` and `implicit_gemm_subgroup`: any dense or grouped convolution as a
//! matrix product whose pixels are gathered as they are needed.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use minijinja::{Value, context};

use super::gemm::registers::{self, Block};
use super::gemm::tiled::{self, TILES, TILES_OF_GATHERED, TILES_OF_ROWS, Tile};
use super::gemm::window::{Lines, columns_seen};
use super::gemm::{self, Fetch, Source};
use super::{Kernel, Recipe, Run, Unsupported, fitting, unfit};
use crate::kernels::pack::Order;
use crate::kernels::shader::{self, Values};
use crate::model::caps::Caps;
use crate::model::conv::Conv2d;
use crate::model::dtype::DType;
use crate::model::shape::Layout;

pub const IMPLICIT_GEMM: Kernel = Kernel { name: "implicit_gemm", links: 1, candidates: by_tiles };
pub const IMPLICIT_GEMM_UNIFORM: Kernel =
    Kernel { name: "implicit_gemm_uniform", links: 1, candidates: by_uniform_loads };
pub const IMPLICIT_GEMM_SUBGROUP: Kernel =
    Kernel { name: "implicit_gemm_subgroup", links: 1, candidates: by_broadcasts };

/// Channels and pixels of blocks in registers, on GPUs and on software devices. A row of eight pixels loads less for
/// each than one of four.
const UNIFORM_BLOCKS: &[[u32; 2]] = &[[4, 8], [4, 4], [8, 4], [16, 8], [16, 4]];
const SUBGROUP_BLOCKS: &[[u32; 2]] = &[[32, 8], [32, 4], [8, 8], [4, 8], [2, 8]];
/// The same for strides at which neighbours share few inputs, so that four pixels load no more for each than eight, and
/// compile in half the time.
const STRIDED_SUBGROUP_BLOCKS: &[[u32; 2]] = &[[32, 4], [8, 8], [4, 8], [2, 8]];
/// Bytes of weights beyond which they come from memory, not from a core's cache: eight pixels read them half as often.
const MOST_CACHED: u64 = 4 << 20;
/// Beyond this many multiply-adds, a row of the kernel written out takes drivers too long to compile.
const MOST_TERMS: u64 = 7 * 32 * 8;
/// With the weights of five columns, 16 channels each, AMD's compiler spills on GCN; with those of three it does not.
const MOST_UNIFORM_WEIGHTS: u32 = 48;
/// The most values of a block: its weights, the columns that it loads (each has a condition), and those of the kernel.
/// From 73 on AMD's compiler spills on GCN. With more it spills on RDNA too, as does Mesa's for Adreno 630.
const MOST_UNIFORM_VALUES: u32 = 72;
/// The most values of a block, its sums included, where a load is two channels, which have weights each. From 126 on
/// Mesa's compiler for the M1 spills.
const MOST_VALUES_OF_PAIRS: u32 = 120;
/// The most columns that it loads. From 32 on AMD's compiler spills on GCN.
const MOST_UNIFORM_COLUMNS: u32 = 30;
/// Columns that may lie in the padding, of all rows that an invocation stages: each has a condition. Beside 24 of them
/// and 8x4 sums Mesa's compiler for Adreno spills. So it does beside twelve of a dilated kernel that shares no column.
const MOST_COLUMNS_AHEAD: u32 = 16;
/// The same of all columns where they are halves, which are taken out of words. Beside 20 of them it spills.
const MOST_HALVES_AHEAD: u32 = 18;
/// Columns of a piece, where a row of the kernel comes in pieces. Longer ones share little more.
const COLUMNS_OF_PIECE: RangeInclusive<u32> = 2..=8;
/// Channels of small blocks. GPUs are offered only these in NHWC, and only where two are enough or larger ones have
/// channels without work: where each value is gathered by itself, gathering through workgroup memory does it once for
/// more channels.
const FEW_CHANNELS: u32 = 4;
/// The same for software devices. With blocks of 16 channels there the model would be wrong by a factor of four.
const FEW_CHANNELS_CPU: u32 = 8;
/// Channels of the blocks that software devices may have with several rows of pixels, and how many. A row of inputs
/// then serves several rows of the kernel.
const FEWEST_CHANNELS: u32 = 2;
const BLOCK_ROWS: u32 = 2;

fn by_tiles(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    gemm::fills_tiles(conv(run)?)?;
    tiles(run, caps)
}

/// The product through workgroup memory, with any number of output channels in a group.
pub fn tiles(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let (link, name) = (conv(run)?, IMPLICIT_GEMM.name);
    let suited: Vec<_> = TILES.iter().copied().filter(|tile| tile.suits_scales(run, caps)).collect();
    let by_taps = suited.iter().filter_map(|&tile| Some(tiled::recipe(run, &taps(run, link, name, tile)?, tile, caps)));
    let by_taps: Vec<_> = by_taps.collect();
    let tile = |source: &Source, tile: Tile| tiled::recipe(run, source, tile, caps);
    let gathered = || -> Vec<_> {
        let source = windows(run, link, name);
        let fits = |size: &&Tile| !caps.loads_ahead() || size.threads() <= MOST_GATHERING;
        TILES_OF_GATHERED.iter().filter(fits).map(|&size| tile(&source, size)).collect()
    };
    // Only taps know of groups with fewer channels than others.
    if by_taps.len() == suited.len() || run.input().channels < link.in_channels {
        return fitting(run, caps, by_taps);
    }
    // Where some tile cannot go tap by tap, whole rows of the kernel are the better guess, or else single values.
    let most_staged = if caps.loads_ahead() { MOST_STAGED_AHEAD } else { MOST_STAGED };
    let others: Vec<_> = match pixels(run, link, name, most_staged) {
        _ if caps.is_cpu => gathered(),
        _ if link.kernel_size[1] <= MOST_STAGED_COLUMNS && fills_quads(run) => {
            let width = link.kernel_size[1];
            let source = rows(run, link, name, [tiled::ROW_PIXELS, TILES_OF_ROWS[0].channels], [1, width], false);
            let sizes = TILES_OF_ROWS.iter().map(|size| size.of_rows(width, link.fan_in() / u64::from(width)));
            let fits = |size: &Tile| !caps.loads_ahead() || has_columns(run, link, *size);
            sizes.filter(fits).map(|size| tile(&source, size)).collect()
        }
        Some((source, depth)) => {
            let whole = TILES_OF_ROWS.iter().filter(|size| size.threads() == size.pixels);
            whole.map(|&size| tile(&source, Tile { depth, ..size })).collect()
        }
        None => gathered(),
    };
    // A GPU may have too few registers for rows, above all of dilated kernels.
    let (others, reason) = match fitting(run, caps, others) {
        Ok(fit) if !fit.is_empty() => (fit, None),
        none => (gathered(), none.err()),
    };
    let recipes: Vec<_> = others.into_iter().chain(by_taps).collect();
    if recipes.is_empty() {
        return Err(reason.unwrap_or(Unsupported::KernelSize(link.kernel_size)));
    }
    fitting(run, caps, recipes).map_err(|last| reason.unwrap_or(last))
}

/// Whether a compiler that loads ahead has registers for the columns that an invocation stages of rows.
fn has_columns(run: &Run<'_>, link: &Conv2d, tile: Tile) -> bool {
    let ([_, width], columns) = (link.kernel_size, Lines::columns(link, run.input().width, tiled::ROW_PIXELS));
    let rows = (tile.depth / width).div_ceil(tile.threads() / (tile.pixels / tiled::ROW_PIXELS));
    let are_shared = (columns.all.len() as u32) < width * tiled::ROW_PIXELS;
    let [all, padded] = [&columns.all, &columns.padded].map(|columns| columns.len() as u32 * rows);
    let are_halves = run.elements.input.dtype() != DType::F32;
    (are_shared || link.dilation[1] == 1) && padded <= MOST_COLUMNS_AHEAD && (!are_halves || all <= MOST_HALVES_AHEAD)
}

/// Whether rows of four neighbours can be the source of tiles: in NCHW, where filling up the rows of the output adds at
/// most a quarter.
fn fills_quads(run: &Run<'_>) -> bool {
    let output = run.output();
    let filled = u64::from(output.width).next_multiple_of(tiled::ROW_PIXELS.into());
    // The shader counts the pixels in 32 bits.
    let is_counted = u64::from(output.batch) * u64::from(output.height) * filled < 1 << 32;
    run.layout == Layout::Nchw && gemm::is_worth_filling(output.width, tiled::ROW_PIXELS) && is_counted
}

fn by_uniform_loads(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let link = conv(run)?;
    let mut blocks = registers::uniform_blocks(run, caps, UNIFORM_BLOCKS)?;
    let most = if caps.is_cpu { FEW_CHANNELS_CPU } else { FEW_CHANNELS };
    let all = || UNIFORM_BLOCKS.iter().map(|[channels, _]| *channels);
    let are_few = caps.is_cpu || link.group_out_channels() <= 2 * most || registers::is_worthwhile(link, most, all());
    blocks.retain(|block| run.layout == Layout::Nchw || block.channels <= most && are_few);
    if blocks.is_empty() {
        return Err(Unsupported::Layout(run.layout));
    }
    let width = link.kernel_size[1];
    let fits = |block: &Block, columns: u32| fits_block(run, caps, link, block, columns);
    let recipe = |block| registers::recipe(run, &rows_of(run, link, IMPLICIT_GEMM_UNIFORM.name, &block), block);
    let (whole, others): (Vec<_>, Vec<_>) = blocks.iter().copied().partition(|block| fits(block, width));
    let (mut recipes, others, reason) = match registers::recipes(run, caps, link, &whole, recipe) {
        Ok(recipes) => (recipes, others, Unsupported::KernelSize(link.kernel_size)),
        Err(reason) => (Vec::new(), blocks, reason),
    };
    // Where a block has no registers for a whole row of the kernel, rows come in pieces, as long as it has them for.
    if recipes.is_empty() || width > *COLUMNS_OF_PIECE.end() {
        let in_pieces = |block: Block| {
            let columns = COLUMNS_OF_PIECE.rev().filter(|&columns| columns < width && fits(&block, columns));
            let pieces = columns.map(|longest| recipe(block.with_piece(even_piece(run, link, &block, longest))));
            pieces.into_iter().find(|recipe| unfit(run, caps, recipe).is_none())
        };
        recipes.extend(others.into_iter().filter_map(in_pieces));
    }
    if recipes.is_empty() { Err(reason) } else { Ok(recipes) }
}

/// Whether a block can have these columns of the kernel at a time. It needs registers for them, and they are written
/// out, which takes compilers time.
fn fits_block(run: &Run<'_>, caps: &Caps, link: &Conv2d, block: &Block, columns: u32) -> bool {
    if columns > MOST_UNIFORM_WEIGHTS / block.channels || !has_rows(run, link, block, columns) {
        return false;
    }
    let (weights, loads) =
        (columns * block.channels, columns_seen(&piece_of(link, columns), block.pixels).len() as u32);
    let are_pairs = run.layout == Layout::Nhwc && block.pairs && link.group_in_channels().is_multiple_of(2);
    let of_pairs = 2 * (weights + loads) + block.channels * block.pixels;
    match () {
        () if caps.is_cpu => true,
        () if are_pairs && caps.has_few_registers() && of_pairs > MOST_VALUES_OF_PAIRS => false,
        () => {
            caps.keeps_conditions() || loads <= MOST_UNIFORM_COLUMNS && weights + loads + columns <= MOST_UNIFORM_VALUES
        }
    }
}

/// Columns of each piece, if none may be longer: about as many each, and an even number where a load is two columns.
fn even_piece(run: &Run<'_>, link: &Conv2d, block: &Block, longest: u32) -> u32 {
    let width = link.kernel_size[1];
    let each = width.div_ceil(width.div_ceil(longest));
    let in_pairs = block.pairs && run.layout == Layout::Nchw && link.dilation[1] % 2 == 1;
    if in_pairs && each < longest { each.next_multiple_of(2) } else { each }
}

fn by_broadcasts(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let (link, name) = (conv(run)?, IMPLICIT_GEMM_SUBGROUP.name);
    let has_whole_rows = |block: &Block| has_rows(run, link, block, link.kernel_size[1]);
    let recipe = |block: Block| {
        let source = match has_whole_rows(&block) {
            true => rows_of(run, link, name, &block),
            false => windows(run, link, name),
        };
        registers::recipe(run, &source, block)
    };
    let is_strided = link.stride[1] > 1 && link.weight_shape().bytes(run.elements.weights.dtype()) <= MOST_CACHED;
    let blocks = if is_strided { STRIDED_SUBGROUP_BLOCKS } else { SUBGROUP_BLOCKS };
    let blocks = registers::subgroup_blocks(run, caps, link, blocks)?;
    let few = blocks.iter().filter(|block| block.channels <= FEWEST_CHANNELS);
    let in_rows = few.map(|block| block.with_rows(BLOCK_ROWS));
    let in_rows: Vec<_> = in_rows.filter(|block| has_whole_rows(block) && shares_rows(run, link)).collect();
    fitting(run, caps, blocks.into_iter().chain(in_rows).map(recipe).collect())
}

/// The run's convolution, if it is one of those that these kernels take.
fn conv<'a>(run: &Run<'a>) -> Result<&'a Conv2d, Unsupported> {
    let link = run.only_conv_or_scaled()?;
    match () {
        () if link.is_pointwise() => Err(Unsupported::Pointwise),
        () if link.is_depthwise() => gemm::fills_tiles(link).map(|()| link),
        () => Ok(link),
    }
}

/// The convolution with some columns of its kernel.
fn piece_of(link: &Conv2d, columns: u32) -> Conv2d {
    Conv2d { kernel_size: [link.kernel_size[0], columns], ..link.clone() }
}

/// Whether rows of the kernel, of these columns, can be the source of a block. (Rows of the output are filled up to
/// whole blocks, and the shader counts their pixels in 32 bits.)
fn has_rows(run: &Run<'_>, link: &Conv2d, block: &Block, columns: u32) -> bool {
    let output = run.output();
    let most_pixels =
        u64::from(output.batch) * (u64::from(output.height) + u64::from(block.rows)) * (u64::from(output.width) + 8);
    let of_rows = if block.rows > 1 { 2 * link.kernel_size[0] * block.rows } else { 1 };
    let terms = u64::from(columns) * u64::from(of_rows) * u64::from(block.channels * block.pixels);
    terms <= MOST_TERMS && most_pixels < 1 << 32
}

/// Whether the rows of a block see the same rows of the input, and the output has as many.
fn shares_rows(run: &Run<'_>, link: &Conv2d) -> bool {
    let rows = Lines::rows(link, run.input().height, BLOCK_ROWS).all.len() as u32;
    run.output().height >= BLOCK_ROWS && rows < link.kernel_size[0] * BLOCK_ROWS
}

/// The source that goes through the kernel tap by tap, where padding the channels of each to whole tiles adds little.
fn taps(run: &Run<'_>, link: &Conv2d, kernel: &'static str, tile: Tile) -> Option<Source> {
    let channels = link.group_in_channels();
    if !gemm::is_worth_filling(channels, tile.depth) {
        return None;
    }
    let aligned =
        run.layout == Layout::Nhwc && [channels, run.input().channels].iter().all(|all| all.is_multiple_of(4));
    let (conv, group) = (link.clone(), gemm::group_values(run, link));
    let values = move || context! { geometry => shader::geometry_values(&conv), ..group() };
    let source = Source::loaded(kernel, link, window(values), Fetch::Quads { aligned }, Order::ByTaps { together: 1 });
    Some(windowed(run, source))
}

/// The template of windows.
fn window(values: impl Fn() -> Value + Send + Sync + 'static) -> (&'static str, Values) {
    ("source_window.wgsl", Arc::new(values))
}

/// The source that gathers each value by itself, for any four pixels.
fn windows(run: &Run<'_>, link: &Conv2d, kernel: &'static str) -> Source {
    let (aligned, order) = match run.layout {
        Layout::Nchw => (false, Order::ChannelFirst),
        Layout::Nhwc => (link.group_in_channels().is_multiple_of(4), Order::ChannelLast),
    };
    let conv = link.clone();
    let values = move || {
        context! {
            geometry => shader::geometry_values(&conv),
            SEGMENTED => false,
            UNEVEN => false,
            STAGED_IN_LOOP => true,
            // Constants, for each k is divided by them.
            GROUP_IN => conv.group_in_channels(),
            DEPTH => conv.fan_in(),
        }
    };
    windowed(run, Source::loaded(kernel, link, window(values), Fetch::Quads { aligned }, order))
}

/// A source of windows with what its places take, and its scales.
fn windowed(run: &Run<'_>, source: Source) -> Source {
    let place = window_place(run.layout);
    if !run.is_scaled() {
        return Source { place, ..source };
    }
    let each = gemm::of_scales(run);
    let scales = (4.0 * each) as u32;
    Source { place: place + scales, registers: source.registers + scales, loads: 1.0 + each, mult_adds: 1.0, ..source }
}

/// The source of whole pixels for few channels in NHWC, and the k that it stages at a time: as many rows of the kernel
/// as share it out evenly and fit.
fn pixels(run: &Run<'_>, link: &Conv2d, kernel: &'static str, most: u32) -> Option<(Source, u32)> {
    let ([height, width], channels) = (link.kernel_size, link.group_in_channels());
    let of_row = u64::from(width) * u64::from(channels);
    let fits = |rows: &u32| height.is_multiple_of(*rows) && u64::from(*rows) * of_row <= u64::from(most);
    let rows = (1..=height.min(most)).rev().find(fits).filter(|_| run.layout == Layout::Nhwc)?;
    let conv = link.clone();
    let values = move || {
        let geometry = shader::geometry_values(&conv);
        context! { geometry, input => "scalar", KERNEL_ROWS => rows, GROUP_IN => conv.group_in_channels() }
    };
    let template = ("source_taps.wgsl", Arc::new(values) as Values);
    let fetch = Fetch::Blocks { height: 1, width: 1, staged: 0 };
    let source = Source::loaded(kernel, link, template, fetch, Order::ByTaps { together: rows * width });
    let depth = (rows * width * channels).next_multiple_of(4);
    let source = Source { registers: 16, place: 2 + 2 * width, ..source };
    if !run.is_scaled() {
        return Some((source, depth));
    }
    // The scales are loaded once for all of a pixel's taps.
    let (loads, registers) = (1.0 + 1.0 / f64::from(rows * width), source.registers + channels);
    Some((Source { loads, mult_adds: 1.0, registers, place: source.place + 1, ..source }, depth))
}

/// The most columns of a kernel that tiles stage by whole rows.
const MOST_STAGED_COLUMNS: u32 = 7;
/// The most k that an invocation stages of a pixel. Beside 32 of them Mesa's compiler for Adreno 630 spills.
const MOST_STAGED: u32 = 32;
const MOST_STAGED_AHEAD: u32 = 28;

/// Invocations of a workgroup that gathers, on GPUs whose compilers load ahead: of larger ones Mesa's for Adreno 660
/// spills 44 to 74 values.
const MOST_GATHERING: u32 = 64;

/// Registers for where windows are: in NCHW of four pixels at a time.
fn window_place(layout: Layout) -> u32 {
    match layout {
        Layout::Nchw => 24,
        Layout::Nhwc => 8,
    }
}

/// The source of rows for a block.
fn rows_of(run: &Run<'_>, link: &Conv2d, kernel: &'static str, block: &Block) -> Source {
    let columns = block.piece.unwrap_or(link.kernel_size[1]);
    rows(run, link, kernel, [block.pixels, block.channels], [block.rows, columns], block.pairs)
}

/// The source that loads a row of inputs once for all columns of the kernel and some neighbouring pixels, in pairs if
/// it can. Rows of more than `piece` columns come in pieces, each of which finds its columns by itself. For `height`
/// rows of pixels it loads all rows under the kernel, each once.
fn rows(
    run: &Run<'_>,
    link: &Conv2d,
    kernel: &'static str,
    [pixels, channels]: [u32; 2],
    [height, piece]: [u32; 2],
    in_pairs: bool,
) -> Source {
    // What of two neighbours in memory must be even for them to be a load: of two columns, the first of which is as
    // even as the padding, for the first output of a block is; or of two channels.
    let neighbours = match run.layout {
        Layout::Nchw => run.input().width,
        Layout::Nhwc => link.group_in_channels(),
    };
    let width = link.kernel_size[1];
    let starts_even = run.layout == Layout::Nhwc || piece == width || (piece * link.dilation[1]).is_multiple_of(2);
    let pairs = in_pairs && neighbours.is_multiple_of(2) && starts_even;
    let columns = match piece {
        _ if piece == width => Lines::columns(link, run.input().width, pixels),
        // Where they are differs from piece to piece.
        _ => Lines::unknown(columns_seen(&piece_of(link, piece), pixels)),
    };
    let rows = Lines::rows(link, run.input().height, height);
    let lines = if height > 1 { rows.all.len() } else { 1 };
    let row = Row { link: link.clone(), layout: run.layout, pixels, height, piece, pairs, rows, columns };
    let (loads, values) = (row.loads().len() * lines, row.values_of_fetch());
    // A channel's scale serves all columns of a row.
    let [scales, scaled] = if run.is_scaled() { [row.channels(), row.width() * row.channels()] } else { [0; 2] };
    // Of each value its place, and whether it is in the image. Beside few sums compilers keep only those that are not
    // known.
    let unknown = row.loads().values().filter(|is_padded| **is_padded).count();
    let place = if channels <= FEW_CHANNELS { 2 * unknown + 4 } else { 2 * loads } as u32;
    let order = match run.layout {
        Layout::Nchw if piece == width => Order::ChannelFirst,
        Layout::Nchw => Order::InPieces { columns: width, piece },
        Layout::Nhwc if height > 1 => Order::ByChannels { together: row.channels() },
        Layout::Nhwc => Order::ByRow { columns: width, piece, channels: row.channels() },
    };
    let template = ("source_rows.wgsl", Arc::new(move || row.values()) as Values);
    let source = Source::loaded(kernel, link, template, Fetch::Rows { values, height }, order);
    let (loads, fetched) = (loads as u32, f64::from(height * pixels * values));
    Source {
        loads: f64::from(loads + scales) / fetched,
        mult_adds: f64::from(loads * scaled) / fetched,
        // Where the scales are takes none: compilers have as many beside each block as without (or fewer, Apple's).
        registers: loads + scales,
        place,
        ..source
    }
}

/// What some neighbouring outputs see of a row of the input.
struct Row {
    link: Conv2d,
    layout: Layout,
    /// The neighbours.
    pixels: u32,
    /// How many rows of them there are.
    height: u32,
    /// Columns of the kernel that come at a time.
    piece: u32,
    /// Whether two neighbouring columns, or in NHWC channels, are one load.
    pairs: bool,
    rows: Lines,
    columns: Lines,
}

impl Row {
    /// Columns of a load.
    fn width(&self) -> u32 {
        if self.pairs && self.layout == Layout::Nchw { 2 } else { 1 }
    }

    /// Channels of a load.
    fn channels(&self) -> u32 {
        if self.pairs && self.layout == Layout::Nhwc { 2 } else { 1 }
    }

    /// Values of k that come at a time: a row of the kernel or a piece of it, and beside several rows of pixels all of
    /// its rows.
    fn values_of_fetch(&self) -> u32 {
        self.channels() * self.piece * if self.height > 1 { self.link.kernel_size[0] } else { 1 }
    }

    /// How many columns before the first the loads start: pairs start at even ones.
    fn early(&self) -> u32 {
        self.link.padding[1] % self.width()
    }

    /// The load of a column, both counted from where the loads start.
    fn load_of(&self, column: u32) -> u32 {
        column / self.width() * self.width()
    }

    /// The loads, and whether they can lie in the padding.
    fn loads(&self) -> BTreeMap<u32, bool> {
        let mut loads = BTreeMap::new();
        for column in &self.columns.all {
            *loads.entry(self.load_of(column + self.early())).or_default() |= self.columns.padded.contains(column);
        }
        loads
    }

    /// What `source_rows.wgsl` asks for.
    fn values(&self) -> Value {
        let ([_, width], [_, stride], [_, dilation]) = (self.link.kernel_size, self.link.stride, self.link.dilation);
        let pieces = width.div_ceil(self.piece);
        let seen = |kx: u32| (0..self.pixels).map(move |output| output * stride + kx * dilation + self.early());
        let loads = self.loads();
        let padded = loads.iter().filter(|(_, is_padded)| **is_padded).map(|(load, _)| load);
        context! {
            geometry => shader::geometry_values(&self.link),
            input => if self.pairs { "pair" } else { "scalar" },
            CHANNELS => self.channels(),
            EARLY => self.early(),
            HEIGHT => self.height,
            WIDTH => self.pixels,
            PIECES => pieces,
            PIECE => self.piece,
            LAST => width - (pieces - 1) * self.piece,
            WINDOW_ROWS => self.rows.all,
            ZEROED_ROWS => self.rows.zeroed,
            load_columns => loads.keys().collect::<Vec<_>>(),
            padded_columns => padded.collect::<Vec<_>>(),
            columns_seen => (0..self.piece).map(|kx| seen(kx).collect()).collect::<Vec<Vec<_>>>(),
        }
    }
}
