//! `phases`: transposed convolutions as plain ones. Outputs that are a stride apart are a phase, and see the same taps.
//! So each phase is a convolution of stride 1 with these, whose outputs are stored a stride apart.

use std::cmp::Reverse;

use minijinja::{Value, context};

use super::implicit_gemm::{IMPLICIT_GEMM, IMPLICIT_GEMM_SUBGROUP, IMPLICIT_GEMM_UNIFORM};
use super::pointwise::{POINTWISE, POINTWISE_SUBGROUP, POINTWISE_UNIFORM};
use super::split::SPLIT;
use super::winograd::WINOGRAD;
use super::{Kernel, Operand, Params, Pass, Recipe, Run, Unsupported, Work, fitting, kernel_of};
use crate::kernels::pack::phases::{Join, Taps, Window, product};
use crate::kernels::pack::{Order, Packing, PhasePanels, Section};
use crate::model::caps::Caps;
use crate::model::chain::Link;
use crate::model::conv::Conv2d;
use crate::model::shape::{Layout, Shape};

pub const PHASES: Kernel = Kernel { name: "phases", links: 1, candidates };

/// The products that compute phases. Those of a single tap are matrix products of the input itself. The last says why
/// none takes a part.
const PRODUCTS: &[Kernel] = &[
    POINTWISE_SUBGROUP,
    IMPLICIT_GEMM_SUBGROUP,
    POINTWISE_UNIFORM,
    IMPLICIT_GEMM_UNIFORM,
    SPLIT,
    POINTWISE,
    IMPLICIT_GEMM,
];
/// Parts of a recipe. With more, each would have next to no work.
const MOST_PARTS: usize = 16;
/// Above this stride there are thousands of phases to look at.
const MOST_STRIDE: u32 = 64;

/// Behind the names of recipes that take phases together that see different values, with zeros for weights.
const JOINED: &str = "-joined";

/// The name of the recipe for the largest part, of one for phases: `implicit_gemm/64x64x16` of
/// `phases/implicit_gemm-64x64x16`.
pub fn product_of(recipe: &str) -> Option<String> {
    let name = recipe.strip_prefix(PHASES.name)?.strip_prefix('/')?;
    Some(name.strip_suffix(JOINED).unwrap_or(name).replacen('-', "/", 1))
}

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let conv = match run.links {
        [Link::ConvTranspose(transposed)] => &transposed.conv,
        [link] => return Err(Unsupported::link(link)),
        links => return Err(Unsupported::Links(links.len())),
    };
    let conv = &spread(conv, run.input(), run.output());
    let (mut recipes, mut reason) = (Vec::new(), None);
    let apart = parts(run, conv, Join::Same);
    // One product may be faster than several small ones, though it multiplies by zeros.
    let joined = Some(parts(run, conv, Join::All)).filter(|joined| *joined != apart);
    for (parts, suffix) in [Some(apart), joined].into_iter().zip(["", JOINED]) {
        let Some(parts) = parts else { continue };
        match parts.and_then(|parts| of_parts(run, conv, caps, &parts, suffix)) {
            Ok(more) => recipes.extend(more),
            Err(why) => reason = reason.or(Some(why)),
        }
    }
    match reason {
        Some(reason) if recipes.is_empty() => Err(reason),
        _ => fitting(run, caps, recipes),
    }
}

/// The convolution with another stride along an axis with a single value, where no place depends on the stride. With one
/// as large as the kernel and the output each output is a phase of its own: all see the one value, and none sees padding.
pub fn spread(conv: &Conv2d, input: Shape, output: Shape) -> Conv2d {
    let extents = [[input.height, output.height], [input.width, output.width]];
    let mut conv = conv.clone();
    for (axis, [of_input, of_output]) in extents.into_iter().enumerate() {
        let stride = conv.dilated_kernel()[axis].max(u64::from(of_output) + u64::from(conv.padding[axis]));
        // The channels of groups would be passes of their own.
        match u32::try_from(stride) {
            Ok(stride) if of_input == 1 && conv.groups == 1 && stride <= MOST_STRIDE => conv.stride[axis] = stride,
            _ => {}
        }
    }
    conv
}

/// Phases that one product computes.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    windows: [Window; 2],
    /// Their convolution, and its output.
    link: [Link; 1],
    output: Shape,
}

impl Part {
    fn taps(&self) -> [Taps; 2] {
        self.windows.map(|window| window.taps)
    }

    fn phases(&self) -> u32 {
        self.taps().iter().map(|taps| u32::from(taps.phases)).product()
    }

    fn mult_adds(&self) -> u64 {
        let values: u64 = self.taps().iter().map(|taps| u64::from(taps.values)).product();
        self.output.len().saturating_mul(values)
    }
}

/// The parts that a transposed convolution is cut into, unless there are too many, or its padding cuts off so much that
/// some phases see little of the image.
fn parts(run: &Run<'_>, conv: &Conv2d, join: Join) -> Result<Vec<Part>, Unsupported> {
    if conv.stride.iter().any(|stride| *stride > MOST_STRIDE) {
        return Err(Unsupported::Stride(conv.stride));
    }
    // The channels of a group are neighbours.
    let join = if conv.groups > 1 { Join::None } else { join };
    let (input, output) = (run.input(), run.output());
    let rows = Window::all(conv, 0, [input.height, output.height], join);
    let columns = Window::all(conv, 1, [input.width, output.width], join);
    let (Some(rows), Some(columns)) = (rows, columns) else { return Err(Unsupported::Padding(conv.padding)) };
    if rows.len().saturating_mul(columns.len()) > MOST_PARTS {
        return Err(Unsupported::Stride(conv.stride));
    }
    let windows = rows.iter().flat_map(|rows| columns.iter().map(move |columns| [*rows, *columns]));
    let part = |windows: [Window; 2]| {
        let plain = product(conv, windows);
        let [height, width] = windows.map(|window| window.outputs);
        let output = Shape { channels: plain.out_channels, height, width, ..output };
        Part { windows, link: [plain.into()], output }
    };
    Ok(windows.map(part).collect())
}

/// A recipe for each that there is for the largest part; the others have those that are most alike.
fn of_parts(
    run: &Run<'_>,
    conv: &Conv2d,
    caps: &Caps,
    parts: &[Part],
    suffix: &str,
) -> Result<Vec<Recipe>, Unsupported> {
    let products = parts.iter().map(|part| products(run, part, caps)).collect::<Result<Vec<_>, _>>()?;
    let largest = (0..parts.len()).min_by_key(|&part| Reverse(parts[part].mult_adds())).unwrap_or(0);
    let of_largest = products.get(largest).map_or(&[][..], Vec::as_slice);
    let beside = |first: &Recipe| {
        let alike = products.iter().map(|recipes| recipes.iter().min_by_key(|recipe| Reverse(likeness(recipe, first))));
        let passes: Vec<_> = parts.iter().zip(alike).filter_map(|(part, product)| Some((part, product?))).collect();
        // Places in the weights are counted in elements. Winograd's transforms have some of their own in half precision.
        let mut types = passes.iter().flat_map(|(_, product)| &product.weights).map(|section| section.dtype);
        let own = types.next();
        let name = format!("{}/{}{suffix}", PHASES.name, first.name.replace('/', "-"));
        types.all(|dtype| Some(dtype) == own).then(|| recipe(run, conv, &passes, name))
    };
    Ok(of_largest.iter().filter_map(beside).collect())
}

/// The recipes for a part, of the ways that suit the device; the last reason if there are none.
fn products(run: &Run<'_>, part: &Part, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let shapes = [run.input(), part.output];
    let plain = Run { links: &part.link, shapes: &shapes, ..*run };
    let (mut recipes, mut reason) = (Vec::new(), None);
    for kernel in PRODUCTS {
        // A software device with subgroups has nothing from workgroup memory, and compiles each part anew.
        if caps.is_cpu && !recipes.is_empty() {
            break;
        }
        match (kernel.candidates)(&plain, caps) {
            Ok(more) => recipes.extend(more),
            Err(why) => reason = Some(why),
        }
    }
    // On software devices too many small passes.
    if !caps.is_cpu {
        recipes.extend((WINOGRAD.candidates)(&plain, caps).unwrap_or_default());
    }
    match reason {
        Some(reason) if recipes.is_empty() => Err(reason),
        _ => Ok(recipes),
    }
}

/// How much of two recipes is the same: whether both are cut along their channels, the way of their product, into how
/// many slices, then the beginning of their sizes.
fn likeness(recipe: &Recipe, other: &Recipe) -> (bool, bool, bool, usize) {
    let of = |recipe: &Recipe| {
        let kernel = kernel_of(&recipe.name);
        let way = kernel.trim_start_matches(POINTWISE.name).trim_start_matches(IMPLICIT_GEMM.name).to_string();
        let sizes = &recipe.name[kernel.len()..];
        let (slices, sizes) = if kernel == SPLIT.name { sizes.rsplit_once('-') } else { None }.unwrap_or(("", sizes));
        (kernel == SPLIT.name, way, slices.to_string(), sizes.trim_start_matches('/').to_string())
    };
    let (own, others) = (of(recipe), of(other));
    let same = own.3.bytes().zip(others.3.bytes()).take_while(|(a, b)| a == b).count();
    (own.0 == others.0, own.1 == others.1, own.2 == others.2, same)
}

fn recipe(run: &Run<'_>, conv: &Conv2d, products: &[(&Part, &Recipe)], name: String) -> Recipe {
    let mut recipe = Recipe {
        name,
        passes: Vec::new(),
        weights: Vec::new(),
        workspace: Vec::new(),
        work: Work::default(),
        tolerance: 0.0,
        exact: true,
        spreads_errors: false,
    };
    for (part, product) in products {
        let start: u64 = recipe.weights.iter().map(|section| section.len).sum();
        let sections: Vec<_> = product.weights.iter().map(|section| packed(section, part)).collect();
        let of_weights: u64 = sections.iter().map(Section::bytes).sum();
        recipe.weights.extend(sections);
        // Each part is done with its scratch memory before the next begins.
        recipe.workspace.resize(recipe.workspace.len().max(product.workspace.len()), 0);
        for (bytes, needed) in recipe.workspace.iter_mut().zip(&product.workspace) {
            *bytes = (*bytes).max(*needed);
        }
        recipe.passes.extend(product.passes.iter().map(|pass| placed(pass, run, conv, part, start, &recipe.name)));
        recipe.work.mult_adds += product.work.mult_adds;
        recipe.work.accesses += product.work.accesses;
        recipe.work.shared += product.work.shared;
        // Scratch memory is written and read.
        let of_workspace = 2 * product.workspace.iter().sum::<u64>();
        recipe.work.bytes +=
            (run.input_bytes() + of_weights + of_workspace) as f64 + stored_bytes(run, conv, part, product);
        recipe.tolerance = f64::max(recipe.tolerance, product.tolerance);
        recipe.exact &= product.exact;
        // An infinity that a phase does not see is a NaN for it, times zero.
        recipe.spreads_errors |= product.spreads_errors || (0..2).any(|axis| !part.taps()[axis].is_full(conv, axis));
    }
    recipe
}

/// Bytes that move for the outputs of a part. In NCHW its rows have gaps, which memory moves too. What comes after a
/// product stores phase by phase, also those that are joined.
fn stored_bytes(run: &Run<'_>, conv: &Conv2d, part: &Part, product: &Recipe) -> f64 {
    let together = if product.passes.len() > 1 { 1 } else { part.taps()[1].phases };
    let gaps = match run.layout {
        Layout::Nchw => f64::from(conv.stride[1]) / f64::from(together),
        Layout::Nhwc => 1.0,
    };
    part.output.bytes(run.elements.output.dtype()) as f64 * gaps.clamp(1.0, MOST_GAPS)
}

/// Elements of f32 in a block that memory moves as a whole, 32 bytes of most GPUs.
const MOST_GAPS: f64 = 8.0;

/// A section of a product's weights, made of those of the transposed convolution.
fn packed(section: &Section, part: &Part) -> Section {
    let packing = match section.packing {
        Packing::Panels { block, k_align, order } => of_phases(part, PhasePanels::Panels, block, k_align, order),
        Packing::Slices { slices, block, k_align, order } => {
            of_phases(part, PhasePanels::Slices(slices as u16), block, k_align, order)
        }
        Packing::Winograd { outputs, block, k_align } => {
            of_phases(part, PhasePanels::Winograd { outputs: outputs as u16 }, block, k_align, Order::ChannelFirst)
        }
        Packing::Bias { block } => Packing::PhaseBiases { phases: part.phases(), block },
        other => other,
    };
    Section { packing, ..*section }
}

/// No panel has thousands of channels, and there are few slices.
fn of_phases(part: &Part, product: PhasePanels, block: u32, k_align: u32, order: Order) -> Packing {
    let [block, k_align] = [block, k_align].map(|count| count as u16);
    Packing::Phases { taps: part.taps(), product, block, k_align, order }
}

/// A pass of a product whose weights start somewhere, and whose outputs are phases of the run's, if it stores these.
fn placed(pass: &Pass, run: &Run<'_>, conv: &Conv2d, part: &Part, start: u64, recipe: &str) -> Pass {
    let [rows, columns] = part.windows;
    let (stride, channels, layout, recipe) = (conv.stride, conv.out_channels, run.layout, recipe.to_string());
    let is_joined = part.phases() > 1;
    let stores_outputs = pass.operands.contains(&Operand::Output);
    let reads_sums = pass.operands.iter().any(|operand| matches!(operand, Operand::ReadWorkspace(_)));
    let values = move |own: &Value| {
        // All tiles share what comes after their product, so it keeps its name.
        let recipe = own.get_attr("recipe").ok().filter(|_| reads_sums).unwrap_or(Value::from(recipe.as_str()));
        let output = own.get_attr("output").ok();
        let together = match output.as_ref().and_then(Value::as_str) {
            Some("quads") => 4,
            Some("pair") => 2,
            _ => 1,
        };
        // Whether what is stored together is so in the whole.
        let is_together = layout == Layout::Nhwc && (!is_joined || channels.is_multiple_of(together));
        context! {
            recipe,
            output => if is_together { output } else { Some(Value::from("scalar")) },
            phases => context! {
                stride,
                first => [rows.first, columns.first],
                count => [rows.taps.phases, columns.taps.phases],
                channels,
            },
        }
    };
    // Weights that no u32 counts fit into no binding.
    let params = Params {
        weights_at: pass.params.weights_at.wrapping_add(start as u32),
        bias_at: pass.params.bias_at.wrapping_add(start as u32),
        whole_pixels: run.output().pixels() as u32,
        whole_width: run.output().width,
        ..pass.params
    };
    // What stores no outputs is that of plain convolutions.
    let wgsl = if stores_outputs { pass.wgsl.clone().with_values(values) } else { pass.wgsl.clone() };
    Pass { wgsl, params, ..pass.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::elements::Elements;
    use crate::model::dtype::DType;
    use crate::model::gpu::GpuKind;
    use crate::model::transposed::ConvTranspose2d;

    fn recipes(conv: ConvTranspose2d, input: [u32; 4]) -> Vec<Recipe> {
        recipes_in(Layout::Nchw, conv, input)
    }

    fn recipes_in(layout: Layout, conv: ConvTranspose2d, input: [u32; 4]) -> Vec<Recipe> {
        recipes_of(layout, conv, input, Elements::F32)
    }

    fn recipes_of(layout: Layout, conv: ConvTranspose2d, input: [u32; 4], elements: Elements) -> Vec<Recipe> {
        let shapes = [input.into(), conv.output_shape(input).unwrap()];
        let links = [conv.into()];
        let run = Run { links: &links, shapes: &shapes, layout, elements };
        candidates(&run, &GpuKind::Nvidia.caps()).unwrap()
    }

    /// Winograd's weights are f32 in half precision too, so it takes all parts there or none. Its errors spread, also where
    /// phases are not joined.
    #[test]
    fn weights_of_a_recipe_have_one_type() {
        let mut winograd = Vec::new();
        for (kernel, padding) in [(5, 2), (5, 1), (6, 2)] {
            for dtype in [DType::F32, DType::F16] {
                let elements = Elements::new(dtype, &GpuKind::Nvidia.caps());
                let conv = ConvTranspose2d::new(16, 32, kernel).stride(2).padding(padding);
                let recipes = recipes_of(Layout::Nchw, conv, [1, 16, 12, 12], elements);
                for recipe in &recipes {
                    let own = recipe.weights[0].dtype;
                    assert!(recipe.weights.iter().all(|section| section.dtype == own), "{}", recipe.name);
                    assert!(recipe.spreads_errors || !recipe.name.contains("winograd"), "{}", recipe.name);
                }
                let is_winograd = |recipe: &Recipe| recipe.name.contains("winograd") && !recipe.name.contains(JOINED);
                winograd.push(recipes.iter().any(is_winograd));
            }
        }
        assert_eq!(winograd, [true, false, true, false, true, true]);
    }

    #[test]
    fn names_have_those_of_the_products() {
        assert_eq!(product_of("phases/implicit_gemm-64x64x16").as_deref(), Some("implicit_gemm/64x64x16"));
        assert_eq!(product_of("phases/pointwise_uniform-8x4-joined").as_deref(), Some("pointwise_uniform/8x4"));
        assert_eq!(product_of("transposed/4x4"), None);
    }

    #[test]
    fn a_stride_of_the_kernel_size_is_one_product() {
        for recipe in recipes(ConvTranspose2d::new(16, 6, 2).stride(2), [2, 16, 5, 7]) {
            assert!(recipe.name.starts_with("phases/pointwise"), "{}", recipe.name);
            assert!(recipe.passes.len() == 1 && !recipe.spreads_errors, "{}", recipe.name);
            assert_eq!(recipe.passes[0].params.out_channels, 24);
        }
    }

    /// All outputs of an image of one value see that one, and nothing of the padding.
    #[test]
    fn an_image_of_one_value_is_one_product() {
        let by_column = ConvTranspose2d::new(16, 6, [3, 4]).stride([1, 4]);
        let cropped = ConvTranspose2d::new(16, 6, 4).stride(2).padding(1);
        for (conv, input, channels) in [
            (ConvTranspose2d::new(16, 6, 4), [2, 16, 1, 1], 16 * 6),
            (cropped, [2, 16, 1, 1], 4 * 6),
            (by_column.clone(), [2, 16, 1, 5], 12 * 6),
        ] {
            for recipe in recipes(conv, input) {
                assert!(recipe.name.starts_with("phases/pointwise"), "{}", recipe.name);
                assert!(recipe.passes.len() == 1 && !recipe.spreads_errors, "{}", recipe.name);
                assert_eq!(recipe.passes[0].params.out_channels, channels);
            }
        }
        // Two rows are two values.
        assert!(recipes(by_column, [2, 16, 2, 5]).iter().all(|recipe| recipe.name.starts_with("phases/implicit_gemm")));
    }

    /// Each pass has its weights, then its biases, behind those of the pass before, and does as much as there is to do.
    #[test]
    fn passes_have_sections_of_their_own() {
        let all = recipes(ConvTranspose2d::new(16, 32, 3).stride(2).padding(1).output_padding(1), [1, 16, 12, 12]);
        let (joined, apart): (Vec<_>, Vec<_>) = all.into_iter().partition(|recipe| recipe.name.ends_with(JOINED));
        assert!(!joined.is_empty() && joined.iter().all(|recipe| recipe.passes.len() == 1 && recipe.spreads_errors));
        assert!(!apart.is_empty());
        for recipe in apart {
            assert_eq!((recipe.passes.len(), recipe.spreads_errors), (4, false), "{}", recipe.name);
            let mut end = 0;
            for (pass, sections) in recipe.passes.iter().zip(recipe.weights.chunks(2)) {
                assert_eq!(u64::from(pass.params.weights_at), end, "{}", recipe.name);
                assert_eq!(u64::from(pass.params.bias_at), end + sections[0].len, "{}", recipe.name);
                end += sections.iter().map(|section| section.len).sum::<u64>();
            }
            // Of one, two, two and four taps.
            let needed = f64::from(12 * 12 * 16 * 32 * 9);
            assert!(recipe.work.mult_adds >= needed, "{}: {}", recipe.name, recipe.work.mult_adds);
        }
    }

    /// Each part has two passes then, and all have the scratch memory of the largest.
    #[test]
    fn parts_may_be_cut_along_their_channels() {
        let all = recipes(ConvTranspose2d::new(256, 32, 3).stride(2).padding(1).output_padding(1), [1, 256, 4, 4]);
        let mut cut = 0;
        for recipe in all.iter().filter(|recipe| recipe.name.starts_with("phases/split-4-")) {
            let parts = if recipe.name.ends_with(JOINED) { 1 } else { 4 };
            assert_eq!(recipe.passes.len(), 2 * parts, "{}", recipe.name);
            for (number, pass) in recipe.passes.iter().enumerate() {
                let stores = pass.operands.contains(&Operand::Output);
                assert_eq!(stores, number % 2 == 1, "{}", recipe.name);
            }
            // Four slices of f32, of one phase or of four.
            let channels = if parts == 1 { 4 * 32 } else { 32 };
            assert_eq!(recipe.workspace, [4 * 4 * 4 * 4 * channels], "{}", recipe.name);
            cut += parts;
        }
        assert!(cut > 5, "{cut}");
    }

    /// Of the parts of a recipe, those without a recipe of the same name have one of the same way.
    #[test]
    fn parts_are_computed_alike() {
        for recipe in recipes(ConvTranspose2d::new(16, 32, 3).stride(2).padding(1).output_padding(1), [1, 16, 12, 12]) {
            let files: Vec<_> = recipe.passes.iter().map(|pass| (pass.workgroup_memory > 0, pass.workgroup)).collect();
            assert!(files.iter().all(|file| file.0 == files[0].0), "{}: {files:?}", recipe.name);
        }
    }

    /// Also where some have no recipe of the way of the largest: blocks of eight channels waste none of its, but of those of
    /// the others.
    #[test]
    fn all_parts_are_cut_along_their_channels_or_none() {
        let mut cut = [0, 0];
        for layout in [Layout::Nchw, Layout::Nhwc] {
            for conv in [ConvTranspose2d::new(128, 8, 4).stride(3), ConvTranspose2d::new(600, 32, 3).stride(2)] {
                let input = [1, conv.conv.in_channels, 8, 8];
                for recipe in recipes_in(layout, conv, input) {
                    let of_split = recipe.name.contains("split");
                    let adding = recipe.passes.iter().filter(|pass| pass.operands.contains(&Operand::ReadWorkspace(0)));
                    let parts = if of_split { recipe.passes.len() / 2 } else { 0 };
                    assert_eq!(adding.count(), parts, "{}", recipe.name);
                    assert_eq!(recipe.workspace.len(), usize::from(of_split), "{}", recipe.name);
                    // Into as many slices as the name says.
                    let slices = recipe.weights.iter().filter_map(|section| match section.packing {
                        Packing::Phases { product: PhasePanels::Slices(slices), .. } => Some(slices),
                        Packing::Phases { product: PhasePanels::Panels, .. } => Some(1),
                        _ => None,
                    });
                    let named = recipe.name.split('-').nth(1).filter(|_| of_split).map_or("1", |slices| slices);
                    assert!(slices.into_iter().all(|slices| slices.to_string() == named), "{}", recipe.name);
                    cut[usize::from(of_split)] += 1;
                }
            }
        }
        assert!(cut.iter().all(|count| *count > 20), "{cut:?}");
    }
}
