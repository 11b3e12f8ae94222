//! What the GEMM kernels share: sources of pixels, weights and outputs.

pub mod registers;
pub mod tiled;
pub mod window;

use minijinja::value::merge_maps;
use minijinja::{Value, context};

use super::{Params, Run, Unsupported};
use crate::kernels::pack::{self, Order, Packing, Section, sections};
use crate::kernels::shader::{self, Values};
use crate::model::conv::Conv2d;
use crate::model::dtype::DType;
use crate::model::shape::Layout;

/// Below this many output channels in a group, most of a tile would be idle.
const FEWEST_CHANNELS: u32 = 4;

/// Whether the groups of a link have enough output channels for tiles.
pub fn fills_tiles(link: &Conv2d) -> Result<(), Unsupported> {
    match link.group_out_channels() {
        FEWEST_CHANNELS.. => Ok(()),
        each => Err(Unsupported::OutChannels { each, groups: link.groups }),
    }
}

/// Where the product's pixels come from.
pub struct Source {
    /// The kernel's name.
    pub kernel: &'static str,
    /// The source's template, and what it asks for beside what all products do.
    pub template: (&'static str, Values),
    /// How its values come.
    pub fetch: Fetch,
    /// What `k` counts.
    pub order: Order,
    /// The convolution that the product is; its epilogue is the run's.
    pub conv: Conv2d,
    /// Which link of the run that is, the last.
    pub link: usize,
    /// Sections of the weight buffer before the product's, and the names of the constants that say where
    /// each starts, in quads.
    pub before: Vec<(Section, &'static str)>,
    /// Elements loaded for each value fetched.
    pub loads: f64,
    /// Multiply-adds for each value fetched.
    pub mult_adds: f64,
    /// Elements loaded from workgroup memory for each value fetched.
    pub shared: f64,
    /// Registers for the values that a fetch takes.
    pub registers: u32,
    /// Registers for where an invocation's pixels are, kept through the product.
    pub place: u32,
    /// Quads of workgroup memory that it needs for itself.
    pub kept: u32,
}

impl Source {
    /// A source whose values are loaded as they are, for a run's only link.
    pub fn loaded(
        kernel: &'static str,
        conv: &Conv2d,
        template: (&'static str, Values),
        fetch: Fetch,
        order: Order,
    ) -> Self {
        Self {
            kernel,
            template,
            fetch,
            order,
            conv: conv.clone(),
            link: 0,
            before: Vec::new(),
            loads: 1.0,
            mult_adds: 0.0,
            shared: 0.0,
            registers: 4,
            place: 0,
            kept: 0,
        }
    }
}

/// How a product reads its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// `fetch`: four pixels of one k (NCHW), or four k of one pixel (NHWC). One load, if the inputs are neighbours and
    /// aligned.
    Quads { aligned: bool },
    /// `fetch_row`: `values` neighbouring k of all pixels of an invocation, which are as many neighbours in each of
    /// `height` rows.
    Rows { values: u32, height: u32 },
    /// For products through workgroup memory: the source stages blocks of an image by itself. That takes `staged` quads
    /// of workgroup memory, including those of the weights. In NHWC it reads quads of channels.
    Blocks { height: u32, width: u32, staged: u32 },
}

/// The parts of a product that do not depend on its tile.
pub struct Product<'a> {
    link: &'a Conv2d,
    pub weights: Vec<Section>,
    pub params: Params,
    pub padded_depth: u64,
    /// Output channels of a panel.
    block: u32,
    /// Where the sections before the product's start, in quads, by the names of their constants.
    before: Vec<(&'static str, u64)>,
}

/// A product whose weights lie in panels of `block` channels, and whose k is padded to a multiple of `k_align`.
pub fn product<'a>(run: &Run<'_>, source: &'a Source, block: u32, k_align: u32) -> Product<'a> {
    let link = &source.conv;
    let own = |packing| run.section(source.link, link, packing);
    let before = source.before.iter().map(|(section, _)| *section);
    let panels = own(Packing::Panels { block, k_align, order: source.order });
    let bias = link.bias.then(|| own(Packing::Bias { block }));
    let (weights, offsets) = sections(before.chain([panels]).chain(bias));
    let panels_at = source.before.len();

    let padded_depth = pack::padded_k(link, source.order, k_align);
    let params = Params {
        padded_depth: padded_depth as u32,
        segment_depth: (padded_depth / pack::segments(link, source.order)) as u32,
        weights_at: offsets[panels_at] as u32,
        bias_at: offsets.get(panels_at + 1).copied().unwrap_or(0) as u32,
        ..Params::of(run).grouped(link, block)
    };
    let before = source.before.iter().zip(&offsets).map(|(&(_, name), &offset)| (name, offset / 4));
    let before = before.collect();
    Product { link, weights, params, padded_depth, block, before }
}

/// Whether outputs are stored in whole quads.
fn stores_quads(run: &Run<'_>, source: &Source) -> bool {
    let outputs = match (run.layout, source.fetch) {
        (Layout::Nhwc, _) => source.conv.group_out_channels().into(),
        (Layout::Nchw, Fetch::Quads { .. }) => run.output().pixels(),
        (Layout::Nchw, Fetch::Rows { .. } | Fetch::Blocks { .. }) => run.output().width.into(),
    };
    outputs.is_multiple_of(4)
}

/// Whether the outputs of blocks of two channels are stored in pairs: halves, or floats if the device has 64-bit
/// integers.
fn stores_pairs(run: &Run<'_>, source: &Source, longs: bool) -> bool {
    let is_there = longs || run.elements.output.dtype() != DType::F32;
    is_there && source.conv.group_out_channels().is_multiple_of(2) && !run.has_residual()
}

/// What sources ask of the groups: whether the last has fewer channels than the others. Then k goes on behind them.
pub fn group_values(run: &Run<'_>, conv: &Conv2d) -> impl Fn() -> Value + Send + Sync + use<> {
    let uneven = run.input().channels < conv.in_channels;
    move || {
        if uneven {
            context! { UNEVEN => true, DEPTH_IS_PADDED => true }
        } else {
            context! { UNEVEN => false }
        }
    }
}

/// Whether four neighbouring pixels of the output are of one image, and so have the same scales.
pub fn shares_scales(run: &Run<'_>) -> bool {
    run.output().batch == 1 || run.output().pixels().is_multiple_of(4)
}

/// Whether filling up an extent to whole lengths adds at most a quarter.
pub fn is_worth_filling(extent: u32, length: u32) -> bool {
    u64::from(extent).next_multiple_of(length.into()) * 4 <= u64::from(extent) * 5
}

/// What the scales of a run count for each input: a load, in NCHW of four pixels if these are of one image.
pub fn of_scales(run: &Run<'_>) -> f64 {
    match run.layout {
        _ if !run.is_scaled() => 0.0,
        Layout::Nchw if shares_scales(run) => 0.25,
        _ => 1.0,
    }
}

/// What a store counts for each output.
pub fn of_outputs(run: &Run<'_>, source: &Source) -> f64 {
    if stores_quads(run, source) { run.elements.output.of_wide_load() } else { 1.0 }
}

/// What a load counts for each input: those of whole quads by what they move.
pub fn of_inputs(run: &Run<'_>, source: &Source) -> f64 {
    match source.fetch {
        Fetch::Quads { aligned: true } => run.elements.input.of_wide_load(),
        Fetch::Blocks { .. } if run.layout == Layout::Nhwc => run.elements.input.of_wide_load(),
        _ => 1.0,
    }
}

/// The values for the templates of products and their includes, besides the source's own.
pub fn values(
    run: &Run<'_>,
    source: &Source,
    product: &Product<'_>,
    recipe: &str,
    pairs: bool,
) -> impl Fn() -> Value + Send + Sync + use<> {
    let (link, layout, elements) = (product.link.clone(), run.layout, run.elements);
    let links: Vec<_> = run.links.iter().filter_map(|link| link.conv().cloned()).collect();
    let (recipe, block, before) = (recipe.to_string(), product.block, product.before.clone());
    let depth_is_padded = product.padded_depth != pack::depth(&link, source.order);
    let input = match source.fetch {
        Fetch::Quads { aligned: true } if pairs => "pairs",
        Fetch::Quads { aligned: true } => "quads",
        Fetch::Blocks { .. } if run.layout == Layout::Nhwc => "quads",
        _ => "scalar",
    };
    let pixels = match source.fetch {
        Fetch::Quads { .. } => "batch",
        Fetch::Rows { height: 1, .. } => "rows",
        Fetch::Rows { .. } | Fetch::Blocks { .. } => "blocks",
    };
    let output = match (layout, block) {
        _ if stores_quads(run, source) => "quads",
        (Layout::Nhwc, 2) if stores_pairs(run, source, pairs) => "pair",
        _ => "scalar",
    };
    let scales = match (run.is_scaled(), layout, source.fetch) {
        (false, ..) => "none",
        (true, Layout::Nhwc, Fetch::Quads { aligned: true }) => "quads",
        _ => "scalar",
    };
    let scale_is_shared = shares_scales(run);
    move || {
        context! {
            recipe,
            scales,
            SCALE_IS_SHARED => scale_is_shared,
            problem => shader::problem_of_run(&links, layout),
            elements => elements.values(),
            layout => shader::layout_name(layout),
            input,
            weights => if pairs { "pairs" } else { "quads" },
            output,
            pixels,
            bias => link.bias,
            TILE_CHANNELS => block,
            DEPTH_IS_PADDED => depth_is_padded,
            ..merge_maps([before.iter().copied().collect(), shader::epilogue_values(&link)])
        }
    }
}
