//! Tests that the checks find faults. Each fault is planted in the shader of one step, and is so small or so deep in a
//! chain that the output hardly shows it.

use std::sync::Arc;

use gpuconv::planner::{self, Schedule};
use gpuconv::verify::{Oracle, Report};
use gpuconv::{
    Activation, Caps, Chain, Choice, Concat, Conv2d, Fusion, GpuConv, Layout, Link, Residual, Resize, Shape,
};

use crate::common::gpu;

/// Two blocks of MobileNetV2 with a residual each, a pool and a classifier: seven convolutions.
fn network() -> (Chain, Shape) {
    let head = Chain::new([Link::GlobalAveragePool, Conv2d::pointwise(8, 9).into()]);
    let blocks = Chain::inverted_residual(8, 8, 2, 1).then(Chain::inverted_residual(8, 8, 3, 1));
    (blocks.then(head), [1, 8, 9, 8].into())
}

/// A chain, and the schedule that faults are planted in.
struct Subject {
    gpu: GpuConv,
    oracle: Oracle,
    schedule: Schedule,
}

impl Subject {
    fn new(chain: &Chain, input: Shape, is_cpu: bool, choice: &Choice) -> Self {
        Self::in_layout(Layout::Nchw, chain, input, is_cpu, choice)
    }

    fn in_layout(layout: Layout, chain: &Chain, input: Shape, is_cpu: bool, choice: &Choice) -> Self {
        let gpu = gpu().with_caps(|caps| Caps { is_cpu, ..caps });
        let schedule = planner::schedule(chain, input, layout, gpu.caps(), choice).unwrap();
        let oracle = Oracle::of_chain("planted", chain.clone(), input, layout, u64::MAX).unwrap();
        Self { gpu, oracle, schedule }
    }

    /// Checks the schedule after a change of the last shader of a step.
    fn check(&self, step: usize, change: impl Fn(&str) -> String) -> Report {
        self.check_pass(step, self.schedule.steps[step].recipe.passes.len() - 1, change)
    }

    /// The same after a change of another.
    fn check_pass(&self, step: usize, pass: usize, change: impl Fn(&str) -> String) -> Report {
        let mut schedule = self.schedule.clone();
        let pass = &mut schedule.steps[step].recipe.passes[pass];
        let right = pass.wgsl.text().unwrap();
        let wrong = change(&right);
        assert_ne!(wrong, *right, "the fault is not planted");
        pass.wgsl = Arc::<str>::from(wrong).into();
        // SAFETY: the planner made it, and with the fault its indices stay inside its bindings.
        unsafe { self.oracle.check_as_it_is(&self.gpu, &schedule) }.unwrap()
    }

    fn check_as_planned(&self) -> Report {
        // SAFETY: the planner made it.
        unsafe { self.oracle.check_as_it_is(&self.gpu, &self.schedule) }.unwrap()
    }
}

/// Replaces the results of the functions `name` and `name4`: `wrong` makes an expression from a call of the right
/// function.
fn with_results(wgsl: &str, name: &str, parameter: [&str; 2], wrong: impl Fn(&str) -> String) -> String {
    let mut text = wgsl.to_string();
    for (name, parameter, value) in
        [(name.to_string(), parameter[0], "f32"), (format!("{name}4"), parameter[1], "vec4<f32>")]
    {
        let head = format!("fn {name}(");
        if text.contains(&head) {
            text = text.replace(&head, &format!("fn {name}_right("));
            let argument = parameter.split(':').next().unwrap();
            let wrong = wrong(&format!("{name}_right({argument})"));
            text += &format!("\nfn {name}({parameter}) -> {value} {{ return {wrong}; }}\n");
        }
    }
    text
}

const VALUES: [&str; 2] = ["x: f32", "x: vec4<f32>"];

/// Makes a function's results larger by one part in ten thousand.
fn scaled(wgsl: &str, name: &str) -> String {
    with_results(wgsl, name, VALUES, |right| format!("1.0001 * {right}"))
}

#[test]
fn one_part_in_ten_thousand_is_found_in_every_link() {
    let (chain, input) = network();
    let subject = Subject::new(&chain, input, true, &Choice::Named("direct".into()));
    let right = subject.check_as_planned();
    assert!(right.passes() && right.share_of_bound > 1e-4, "{right:?}");
    let steps = &subject.schedule.steps;
    assert_eq!(steps.len(), chain.links().len());
    for (index, link) in chain.links().iter().enumerate() {
        let report = subject.check(index, |wgsl| match link {
            Link::GlobalAveragePool => wgsl.replace("store_plain(plane, ", "store_plain(plane, 1.0001 * "),
            _ => scaled(wgsl, "activate"),
        });
        assert!(!report.passes(), "link {index}, {}: {report:?}", steps[index].recipe.name);
    }
}

/// The tensors between fused links are never in memory, so the faults are in functions of the shader.
#[test]
#[ignore = "takes minutes"]
fn one_part_in_ten_thousand_is_found_inside_fused_links_in_full() {
    let block = Chain::inverted_residual(8, 8, 3, 1);
    let subject = Subject::new(&block, [1, 8, 9, 8].into(), false, &Choice::Fusion(Fusion::Always));
    assert_eq!(subject.schedule.steps.len(), 1);
    let right = subject.check_as_planned();
    assert!(right.passes(), "{right:?}");
    for name in ["activate_expanded", "activate_depthwise"] {
        let report = subject.check(0, |wgsl| {
            // The function takes quads of a pixel by reference.
            let head = format!("fn {name}_pixel(");
            let (_, rest) = wgsl.split_once(&head).unwrap();
            let (parameters, _) = rest.split_once(')').unwrap();
            let quads: Vec<_> = parameters.split_whitespace().filter_map(|word| word.strip_suffix(':')).collect();
            let scale: String = quads.iter().map(|quad| format!(" *{quad} = 1.0001 * *{quad};")).collect();
            let call = format!("{name}_pixel_right({});{scale}", quads.join(", "));
            wgsl.replace(&head, &format!("fn {name}_pixel_right("))
                + &format!("\nfn {name}_pixel({parameters}) {{ {call} }}\n")
        });
        assert!(!report.passes(), "{name}: {report:?}");
    }
}

#[test]
fn a_dropped_residual_and_a_wrong_activation_are_found() {
    let (chain, input) = network();
    let subject = Subject::new(&chain, input, true, &Choice::Named("direct".into()));
    // The last link of the second block. The link before it has an activation.
    let added = (0..chain.links().len()).rfind(|&link| chain.source(link).is_some()).unwrap();
    let dropped = |wgsl: &str| {
        with_results(wgsl, "load_residual", ["at: u32", "at: vec4<u32>"], |right| format!("0.0 * {right}"))
    };
    let report = subject.check(added, dropped);
    assert!(!report.passes() && report.relative_error > 0.01, "{report:?}");
    let linear = |wgsl: &str| with_results(wgsl, "activate", VALUES, |_| "x".into());
    let report = subject.check(added - 1, linear);
    assert!(!report.passes() && report.relative_error > 0.001, "{report:?}");
}

/// A single wrong output hardly changes the norm of the whole tensor.
#[test]
fn one_wrong_output_among_many_is_found() {
    let chain = Chain::from(Conv2d::pointwise(8, 8));
    let subject = Subject::new(&chain, [1, 8, 64, 64].into(), true, &Choice::Named("direct/4x1".into()));
    let report = subject.check(0, |wgsl| {
        wgsl.replace("return activate(sum);", "return activate(sum) * select(1.0, 1.0005, at == 4711u);")
    });
    assert!(report.share_of_bound > 1.0 && report.relative_error < Report::MOST_RELATIVE_ERROR, "{report:?}");
}

/// Mistakes in a kernel that goes through an image tile by tile, adds the sums of slices, and takes the means of its
/// outputs.
#[test]
#[ignore = "takes minutes"]
fn mistakes_in_means_are_found_in_full() {
    let chain = Chain::from(Conv2d::pointwise(20, 9).activation(Activation::Relu)).then(Link::GlobalAveragePool);
    let choice = Choice::Named("pointwise_mean/16x64x32x4".into());
    let subject = Subject::new(&chain, [2, 20, 9, 9].into(), false, &choice);
    let right = subject.check_as_planned();
    assert!(right.passes() && right.share_of_bound > 1e-4, "{right:?}");
    for (from, to) in [
        // A pixel behind the image counts.
        ("< vec4<u32>(out_pixels())", "<= vec4<u32>(out_pixels())"),
        // The second tile of pixels does not, or starts too late.
        ("pixel < out_pixels()", "pixel < min(out_pixels(), TILE_PIXELS)"),
        ("image * out_pixels() + pixel,", "image * out_pixels() + pixel + pixel / TILE_PIXELS,"),
        // One quad of another slice's sums comes from its neighbour.
        ("+= pixel_tile[place + SLICE_THREADS]", "+= pixel_tile[(place ^ 1u) + SLICE_THREADS]"),
        // A slice multiplies the other's k.
        ("local / SLICE_THREADS * SLICE_DEPTH", "0u * SLICE_DEPTH"),
        // The last pixels of a channel are left out.
        ("place < PLACES;", "place < PLACES - 1u;"),
        ("/ f32(out_pixels())", "/ (1.0001 * f32(out_pixels()))"),
    ] {
        let report = subject.check(0, |wgsl| wgsl.replace(from, to));
        assert!(!report.passes(), "{from}: {report:?}");
    }
    let report = subject.check(0, |wgsl| scaled(wgsl, "activate"));
    assert!(!report.passes(), "{report:?}");
}

/// Which scale is loaded, and what it multiplies.
fn finds_mistakes_in_scales(layout: Layout, is_cpu: bool, channels: u32, size: [u32; 2], recipe: &str) {
    let chain = Chain::from(Conv2d::new(channels, 5, 3).padding(1).scaled(true));
    let input = Shape::from([2, channels, size[0], size[1]]);
    let subject = Subject::in_layout(layout, &chain, input, is_cpu, &Choice::Named(recipe.into()));
    let right = subject.check_as_planned();
    assert!(right.passes() && right.share_of_bound > 1e-4, "{recipe} {layout}: {right:?}");
    // One of a channel, or of four.
    let [one, four] = ["scales[at]", "scales[at.x / 4u]"];
    let quads = format!("scales[at.x / 4u % {}u]", channels.div_ceil(4));
    for (what, of_one, of_four) in [
        ("the scale of the channel beside it", "scales[at ^ 1u]", "scales[(at.x / 4u) ^ 1u]"),
        ("that of the first image", &*format!("scales[at % {channels}u]"), &*quads),
        ("one part in ten thousand more", "1.0001 * scales[at]", "1.0001 * scales[at.x / 4u]"),
    ] {
        let report = subject.check_pass(0, 0, |wgsl| wgsl.replace(one, of_one).replace(four, of_four));
        assert!(!report.passes(), "{what}: {recipe} {layout}: {report:?}");
    }
}

#[test]
fn mistakes_in_the_scales_of_rows_are_found() {
    finds_mistakes_in_scales(Layout::Nchw, true, 6, [5, 6], "implicit_gemm_subgroup/2x8");
    finds_mistakes_in_scales(Layout::Nhwc, true, 6, [5, 6], "implicit_gemm_subgroup/2x8");
}

/// In tiles: tap by tap, gathered, and by pixels; and where Winograd's first pass loads.
#[test]
#[ignore = "takes minutes"]
fn mistakes_in_scales_are_found_in_full() {
    finds_mistakes_in_scales(Layout::Nchw, false, 16, [5, 3], "implicit_gemm/32x32x16");
    finds_mistakes_in_scales(Layout::Nchw, false, 16, [5, 8], "implicit_gemm/32x32x16");
    finds_mistakes_in_scales(Layout::Nhwc, false, 16, [5, 3], "implicit_gemm/32x32x16");
    finds_mistakes_in_scales(Layout::Nchw, true, 6, [5, 5], "implicit_gemm/32x64x32");
    finds_mistakes_in_scales(Layout::Nhwc, false, 12, [5, 5], "implicit_gemm/32x64x32");
    finds_mistakes_in_scales(Layout::Nhwc, false, 4, [5, 5], "implicit_gemm/32x64x12");
    finds_mistakes_in_scales(Layout::Nchw, false, 6, [5, 8], "implicit_gemm/32x64x27");
    finds_mistakes_in_scales(Layout::Nchw, false, 6, [5, 6], "implicit_gemm_uniform/8x4");
    for layout in [Layout::Nchw, Layout::Nhwc] {
        finds_mistakes_in_scales(layout, true, 6, [5, 6], "winograd/2x2-8x4");
    }
}

/// Typical mistakes in kernels: at the last column of the input or the output, and two weights in the wrong order.
#[test]
fn typical_mistakes_in_a_kernel_are_found() {
    let chain = Chain::from(Conv2d::new(3, 5, 3).padding(1));
    let subject = Subject::new(&chain, [1, 3, 6, 7].into(), true, &Choice::Named("direct/4x1".into()));
    let replaced = |from: &'static str, to: &'static str| subject.check(0, move |wgsl| wgsl.replace(from, to));

    let report = replaced("inside(x, params.in_width)", "inside(x + 1, params.in_width)");
    assert!(report.inexact > 0 && !report.passes(), "the last column is taken for padding: {report:?}");
    let report = replaced("if x + 2u < params.out_width {", "if x + 3u < params.out_width {");
    assert!(report.unwritten > 0 && !report.passes(), "the tail is not written: {report:?}");
    let report = replaced("load_weight(weight_row + kx)", "load_weight(weight_row + (kx ^ 1u) % KERNEL_WIDTH)");
    assert!(report.inexact > 0 && !report.passes(), "two weights are in the wrong order: {report:?}");
    let report = replaced("if x + 3u < params.out_width {", "if x + 3u <= params.out_width {");
    assert!(!report.passes(), "one element too many is written: {report:?}");
}

/// Where a tensor lies in another is in no step that is checked alone: the whole must show it.
#[test]
fn a_tensor_that_lies_in_the_wrong_place_is_found() {
    let links = [Conv2d::pointwise(3, 4).into(), Conv2d::pointwise(3, 4).into(), Link::from(Concat::new([4, 4]))];
    let chain = Chain::new(links).reads(0, 1).unwrap().concatenates([1, 2], 2).unwrap();
    let chain = chain.then(Conv2d::pointwise(8, 8));
    let choice = Choice::Named("direct".into());
    let subject = Subject::new(&chain, [2, 3, 5, 7].into(), true, &choice);
    assert!(subject.schedule.steps[2].recipe.passes.is_empty() && subject.check_as_planned().passes());
    let found = |what: &str, report: Report| {
        assert!(report.inexact > 0 && report.unstable > 0 && !report.passes(), "{what}: {report:?}");
    };
    let right = "(image * 4u + 4u)";
    found("a channel before", subject.check(1, |wgsl| wgsl.replace(right, "(image * 4u + 3u)")));
    found("the second image", subject.check(1, |wgsl| wgsl.replace(right, "(image * 3u + 4u)")));
    let shuffled = Chain::from(Conv2d::pointwise(3, 4)).then(Link::PixelShuffle { factor: 2 });
    let subject = Subject::new(&shuffled.then(Conv2d::pointwise(1, 8)), [2, 3, 5, 7].into(), true, &choice);
    let right = "+ part / 2u;";
    found("rows for columns", subject.check(0, |wgsl| wgsl.replace(right, "+ 1u - part / 2u;")));
    let links = [Conv2d::new(3, 4, 2).stride(2).into(), Link::from(Resize::by(2.0)), Conv2d::pointwise(3, 4).into()];
    let adds = Chain::new(links).reads(0, 2).unwrap().edge(2, 2, Residual::AfterActivation).unwrap();
    let subject = Subject::new(&adds, [2, 3, 4, 6].into(), true, &choice);
    found("the pixel before", subject.check(2, |wgsl| wgsl.replace("+ x / 2u;", "+ (x + 1u) / 2u % 3u;")));
}
