//! Tensors that lie in others, and kernels that load and store them there.

use gpuconv::internals::kernel_of;
use gpuconv::planner::{self, Schedule};
use gpuconv::verify::Oracle;
use gpuconv::{Activation, Caps, Chain, Concat, Conv2d, DType, GpuConv, Layout, Link, Residual, Resize};

use crate::common::gpu;

/// A device, and how numbers are stored there.
fn forms() -> Vec<(GpuConv, DType)> {
    let halves = |f16: bool| gpu().with_caps(|caps| Caps { f16: f16 && caps.f16, ..caps });
    vec![(gpu(), DType::F32), (halves(true), DType::F16), (halves(false), DType::F16)]
}

/// The convolutions whose recipes are checked, of eight channels.
fn convs() -> [Conv2d; 3] {
    let convs = [Conv2d::new(8, 8, 3).padding(1), Conv2d::pointwise(8, 8), Conv2d::depthwise(8, 3).padding(1)];
    convs.map(|conv| conv.activation(Activation::Relu))
}

/// Link 2 is a convolution that reads eight channels of the first link's output, adds the same, and writes eight of
/// what the last link reads. `others` channels are before these.
fn among_others(conv: Conv2d, others: u32) -> Chain {
    let links = [
        Conv2d::pointwise(3, others + 8).into(),
        Link::Slice { channels: others..others + 8 },
        conv.into(),
        Conv2d::pointwise(8, others).into(),
        Concat::new([others, 8]).into(),
        Conv2d::pointwise(others + 8, 2).into(),
    ];
    let chain = Chain::new(links).edge(2, 2, Residual::BeforeActivation).unwrap();
    chain.reads(2, 3).unwrap().concatenates([4, 3], 4).unwrap()
}

/// What is checked of a chain: each recipe of this link, or one of each kernel. The steps of link `gone` copy nothing.
struct Subject {
    chain: Chain,
    link: usize,
    gone: usize,
    is_full: bool,
}

impl Subject {
    /// Checks the recipes, and gives how many there are.
    fn check(&self, gpu: &GpuConv, input: [u32; 4], layout: Layout) -> usize {
        let Self { ref chain, link, gone, is_full } = *self;
        let oracle = Oracle::of_chain("views", chain.clone(), input, layout, u64::MAX).unwrap();
        let mut names = Vec::new();
        for schedule in planner::alternatives(chain, input, layout, gpu.caps()).unwrap() {
            let Some(step) = schedule.steps.iter().find(|step| (step.first, step.links) == (link, 1)) else { continue };
            let name = if is_full { &step.recipe.name } else { kernel_of(&step.recipe.name) };
            if names.iter().any(|known| known == name) {
                continue;
            }
            names.push(name.to_string());
            let what = format!("{} on {input:?} {layout} {}", schedule.name(), chain.dtype());
            let copies = schedule.steps.iter().find(|step| step.first == gone).map(|step| step.recipe.passes.len());
            assert_eq!(copies, Some(0), "{what}");
            let report = oracle.check(gpu, &schedule).unwrap();
            assert!(report.passes(), "{what}: {report:?}");
        }
        names.len()
    }
}

const LAYOUTS: [Layout; 2] = [Layout::Nchw, Layout::Nhwc];

#[test]
fn every_kernel_stores_channels_among_others() {
    for (((gpu, dtype), conv), others) in forms().into_iter().zip(convs()).zip([4, 1, 2]) {
        for (layout, batch) in [(Layout::Nchw, 3), (Layout::Nhwc, 1)] {
            let chain = among_others(conv.clone(), others).with_dtype(dtype);
            // 15 pixels: in NCHW no multiple of two.
            let subject = Subject { chain, link: 2, gone: 4, is_full: false };
            assert!(subject.check(&gpu, [batch, 3, 5, 3], layout) > 1);
        }
    }
}

#[test]
#[ignore = "takes minutes"]
fn recipes_store_channels_among_others_in_full() {
    for (gpu, dtype) in forms() {
        for conv in convs() {
            for others in [1, 2, 4] {
                for (layout, batch) in LAYOUTS.into_iter().flat_map(|layout| [(layout, 1), (layout, 3)]) {
                    let chain = among_others(conv.clone(), others).with_dtype(dtype);
                    let subject = Subject { chain, link: 2, gone: 4, is_full: true };
                    for size in [[5, 3], [9, 8], [1, 1], [17, 20]] {
                        assert!(subject.check(&gpu, [batch, 3, size[0], size[1]], layout) > 0);
                    }
                }
            }
        }
    }
}

/// Slices of the input are read there, by a convolution and by a copy.
#[test]
fn slices_of_batches_are_read_where_they_are() {
    for (gpu, dtype) in forms() {
        for (layout, batch) in LAYOUTS.into_iter().flat_map(|layout| [(layout, 1), (layout, 3)]) {
            let links = [
                Link::Slice { channels: 4..8 },
                Conv2d::pointwise(4, 4).residual(Residual::AfterActivation).into(),
                Link::Slice { channels: 1..2 },
                Concat::new([4, 1, 4]).into(),
            ];
            let chain = Chain::new(links).edge(1, 1, Residual::AfterActivation).unwrap().reads(0, 2).unwrap();
            let chain = chain.concatenates([2, 3, 1], 3).unwrap().with_dtype(dtype);
            let schedule = planned(&gpu, &chain, [batch, 12, 7, 5], layout);
            let left: Vec<_> = schedule.steps.iter().map(|step| step.recipe.passes.len()).collect();
            // A GPU's recipe may load a value of several images so often that a copy is quicker.
            let copies = usize::from(batch > 1 && !gpu.caps().is_cpu && left[0] > 0);
            assert_eq!(left, [copies, 1, 0, 2], "{layout} {batch}");
            let oracle = Oracle::of_chain("slices", chain, [batch, 12, 7, 5], layout, u64::MAX).unwrap();
            let report = oracle.check(&gpu, &schedule).unwrap();
            assert!(report.passes(), "{layout} {batch} {dtype}: {report:?}");
        }
    }
}

fn planned(gpu: &GpuConv, chain: &Chain, input: [u32; 4], layout: Layout) -> Schedule {
    let choice = gpuconv::Choice::Fusion(gpuconv::Fusion::Never);
    planner::schedule(chain, input, layout, gpu.caps(), &choice).unwrap()
}

/// Pixel shuffles of what each kernel stores, in the output and in a tensor inside.
#[test]
fn every_kernel_stores_a_shuffle() {
    for ((gpu, dtype), (conv, factor)) in forms().into_iter().zip(shuffled()) {
        for (layout, batch) in [(Layout::Nchw, 1), (Layout::Nhwc, 3)] {
            for subject in shuffles(dtype, &conv, factor, false) {
                assert!(subject.check(&gpu, [batch, conv.in_channels, 5, 3], layout) > 0);
            }
        }
    }
}

#[test]
#[ignore = "takes minutes"]
fn recipes_store_a_shuffle_in_full() {
    for (gpu, dtype) in forms() {
        for (conv, factor) in shuffled() {
            for (layout, batch) in LAYOUTS.into_iter().flat_map(|layout| [(layout, 1), (layout, 3)]) {
                for size in [[9, 8], [1, 1], [17, 20], [40, 1]] {
                    for subject in shuffles(dtype, &conv, factor, true) {
                        assert!(subject.check(&gpu, [batch, conv.in_channels, size[0], size[1]], layout) > 0);
                    }
                }
            }
        }
    }
}

/// The last takes narrow images for single rows.
fn shuffled() -> [(Conv2d, u32); 3] {
    let column = Conv2d::depthwise(8, [3, 1]).padding([1, 0, 1, 0]);
    [(Conv2d::new(3, 12, 3).padding(1), 2), (Conv2d::pointwise(4, 18), 3), (column, 2)]
}

fn shuffles(dtype: DType, conv: &Conv2d, factor: u32, is_full: bool) -> [Subject; 2] {
    let last = Chain::from(conv.clone()).then(Link::PixelShuffle { factor }).with_dtype(dtype);
    let inner = last.clone().then(Conv2d::pointwise(conv.out_channels / factor / factor, 2));
    [last, inner].map(|chain| Subject { chain, link: 0, gone: 1, is_full })
}

/// Pixel unshuffles of what each kernel stores.
#[test]
fn every_kernel_stores_an_unshuffle() {
    let convs = [Conv2d::new(3, 5, 3).padding(1), Conv2d::pointwise(3, 4), Conv2d::depthwise(4, 3).padding(1)];
    for (((gpu, dtype), conv), factor) in forms().into_iter().zip(convs).zip([2, 3, 3]) {
        for (layout, batch) in [(Layout::Nchw, 3), (Layout::Nhwc, 2)] {
            let after = Conv2d::pointwise(conv.out_channels * factor * factor, 2);
            let links = [conv.clone().into(), Link::PixelUnshuffle { factor }, after.into()];
            let chain = Chain::new(links).with_dtype(dtype);
            let subject = Subject { chain, link: 0, gone: 1, is_full: false };
            assert!(subject.check(&gpu, [batch, conv.in_channels, 6, 12], layout) > 0);
        }
    }
}

/// Link 3 adds what is twice as high and three times as wide as the output of link 1, and reads the output of link 0.
fn adds_enlarged(conv: Conv2d) -> Chain {
    let links = [
        Conv2d::pointwise(3, 8).into(),
        Conv2d::new(8, 8, [2, 3]).stride([2, 3]).into(),
        Link::from(Resize::by_factors([2.0, 3.0])),
        conv.into(),
    ];
    Chain::new(links).reads(1, 3).unwrap().edge(3, 3, Residual::BeforeActivation).unwrap()
}

#[test]
fn every_kernel_adds_an_enlarged_image() {
    for ((gpu, dtype), conv) in forms().into_iter().zip(convs()) {
        for (layout, batch) in [(Layout::Nchw, 3), (Layout::Nhwc, 1)] {
            let chain = adds_enlarged(conv.clone()).with_dtype(dtype);
            let subject = Subject { chain, link: 3, gone: 2, is_full: false };
            assert!(subject.check(&gpu, [batch, 3, 6, 9], layout) > 1);
        }
    }
}

#[test]
#[ignore = "takes minutes"]
fn recipes_add_an_enlarged_image_in_full() {
    for (gpu, dtype) in forms() {
        for conv in convs() {
            for (layout, batch) in LAYOUTS.into_iter().flat_map(|layout| [(layout, 1), (layout, 3)]) {
                for size in [[2, 3], [18, 6], [10, 24]] {
                    let chain = adds_enlarged(conv.clone()).with_dtype(dtype);
                    let subject = Subject { chain, link: 3, gone: 2, is_full: true };
                    assert!(subject.check(&gpu, [batch, 3, size[0], size[1]], layout) > 0);
                }
            }
        }
    }
}
