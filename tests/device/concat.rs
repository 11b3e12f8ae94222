//! Chains whose tensors are put together along their channels, and cut apart.

use gpuconv::internals::{is_called, random};
use gpuconv::verify::Oracle;
use gpuconv::{
    Activation, Caps, Chain, Choice, Concat, Conv2d, DType, GpuConv, Layout, Link, Residual, Resize, Shape, planner,
    shape,
};

use crate::common::{as_gpu, borrow, draw, expected, gpu};

const LAYOUTS: [Layout; 2] = [Layout::Nchw, Layout::Nhwc];

/// The kernel that a software device compiles fastest.
fn direct() -> Choice {
    Choice::Named("direct".into())
}

/// Half of the channels go through a convolution, and all through another and a resize and back: put together with the
/// input, in another order, a convolution reads them.
fn branches(dtype: DType) -> Chain {
    let relu = |conv: Conv2d| Link::from(conv.activation(Activation::Relu));
    let links = [
        Link::Slice { channels: 1..3 },
        relu(Conv2d::new(2, 3, 3).padding(1)),
        Resize::by(2.0).into(),
        Resize::by(0.5).bilinear(false).into(),
        relu(Conv2d::pointwise(4, 5)),
        Concat::new([5, 4, 3]).into(),
        Conv2d::pointwise(12, 4).into(),
    ];
    let chain = Chain::new(links).reads(0, 2).unwrap().concatenates([5, 0, 2], 5).unwrap();
    chain.edge(0, 6, Residual::AfterActivation).unwrap().with_dtype(dtype)
}

fn agrees(gpu: &GpuConv, name: &str, chain: &Chain, input: [u32; 4], layout: Layout) {
    let schedule = planner::schedule(chain, input, layout, gpu.caps(), &direct()).unwrap();
    assert!(schedule.steps.iter().any(|step| is_called(&step.recipe.name, "channels")), "{}", schedule.name());
    let oracle = Oracle::of_chain(name, chain.clone(), input, layout, u64::MAX).unwrap();
    let report = oracle.check(gpu, &schedule).unwrap();
    assert!(report.passes(), "{name} {layout}: {report:?}");
}

#[test]
fn branches_are_put_together_as_the_oracle_has_it() {
    for layout in LAYOUTS {
        agrees(&gpu(), "branches", &branches(DType::F32), [2, 4, 7, 5], layout);
    }
    agrees(&as_gpu(), "branches", &branches(DType::F16), [2, 4, 7, 5], Layout::Nchw);
}

/// Odd numbers of halves, so that words have halves of two tensors.
#[test]
fn halves_of_words_belong_to_neighbouring_channels() {
    let words = gpu().with_caps(|caps| Caps { f16: false, ..caps });
    let chain = Chain::new([Conv2d::pointwise(3, 3).into(), Link::from(Concat::new([3, 3, 3]))]);
    let chain = chain.concatenates([1, 0, 1], 1).unwrap().with_dtype(DType::F16);
    for layout in LAYOUTS {
        agrees(&words, "words", &chain, [3, 3, 1, 3], layout);
    }
}

/// A layer as callers use it, on whole numbers. The output is a concatenation, and the input a part of it.
#[test]
fn a_layer_gives_each_tensor_its_channels() {
    let chain = Chain::new([Conv2d::pointwise(2, 3).into(), Link::from(Concat::new([2, 3, 2]))]);
    let chain = chain.concatenates([0, 1, 0], 1).unwrap();
    let (gpu, weights, input) = (gpu(), draw(&chain), Shape::from([2, 2, 3, 2]));
    let values: Vec<f32> = (0..input.len()).map(|value| value as f32 - 11.0).collect();
    let layer = gpu.chain(&chain, &borrow(&weights)).unwrap();
    for layout in LAYOUTS {
        let x = gpu.upload_as(&shape::from_nchw(&values, input, layout), input, layout).unwrap();
        let y = layer.forward(&x).unwrap();
        let found = shape::to_nchw(&gpu.download(&y).unwrap(), y.shape(), layout);
        assert_eq!(found, expected(&chain, &values, input, &borrow(&weights), None), "{layout}");
        assert_eq!((&found[..12], &found[30..42]), (&values[..12], &values[..12]));
    }
}

/// A hundred tensors, far more than a device binds at a time.
#[test]
fn as_many_tensors_as_wanted_are_put_together() {
    let slices = (0..100).map(|first| Link::Slice { channels: first..first + 2 });
    let chain = Chain::new(slices.chain([Concat::new([2; 100]).into()]));
    let chain = (1..100).fold(chain, |chain, link| chain.reads(0, link).unwrap());
    let chain = chain.concatenates((1..101).rev(), 100).unwrap();
    let (gpu, input) = (gpu(), Shape::from([1, 101, 2, 3]));
    let values = random::integers("tensors", input.len(), 100);
    let y = gpu.chain(&chain, &[]).unwrap().forward(&gpu.upload(&values, input).unwrap()).unwrap();
    assert_eq!(gpu.download(&y).unwrap(), expected(&chain, &values, input, &[], None));
}

/// In one image in NCHW tensors are made where they are put together, also in a concatenation that is part of another,
/// and where one of them is read to make the next.
#[test]
fn tensors_that_are_made_in_place_are_as_the_oracle_has_them() {
    let pointwise = |inputs: u32, outputs: u32| Link::from(Conv2d::pointwise(inputs, outputs));
    let links = [
        pointwise(3, 4),
        pointwise(4, 4),
        Concat::new([4, 4]).into(),
        pointwise(8, 2),
        Concat::new([8, 2, 4]).into(),
        pointwise(14, 3),
    ];
    let chain = Chain::new(links).concatenates([1, 2], 2).unwrap().concatenates([3, 4, 1], 4).unwrap();
    for (dtype, layout) in [(DType::F32, Layout::Nchw), (DType::F16, Layout::Nchw), (DType::F32, Layout::Nhwc)] {
        agrees(&gpu(), "in place", &chain.clone().with_dtype(dtype), [1, 3, 16, 8], layout);
    }
    agrees(&gpu(), "not in place", &chain, [2, 3, 16, 8], Layout::Nchw);
    agrees(&gpu(), "not aligned", &chain, [1, 3, 5, 3], Layout::Nchw);
}

/// In one image in NCHW slices are read where they are: the halves of a tensor, one of which is put together with what
/// is made of the other, and with the tensor itself.
#[test]
fn slices_that_are_read_in_place_are_as_the_oracle_has_them() {
    let links = [
        Conv2d::pointwise(3, 4).into(),
        Link::Slice { channels: 2..4 },
        Conv2d::new(2, 2, 3).padding(1).into(),
        Link::Slice { channels: 0..2 },
        Concat::new([2, 2, 4]).into(),
        Conv2d::pointwise(8, 3).into(),
    ];
    let chain = Chain::new(links).reads(1, 3).unwrap().concatenates([3, 4, 1], 4).unwrap();
    for (dtype, layout) in [(DType::F32, Layout::Nchw), (DType::F16, Layout::Nchw), (DType::F32, Layout::Nhwc)] {
        agrees(&gpu(), "slices in place", &chain.clone().with_dtype(dtype), [1, 3, 16, 8], layout);
    }
    agrees(&gpu(), "slices not in place", &chain, [2, 3, 16, 8], Layout::Nchw);
    agrees(&gpu(), "slices not aligned", &chain, [1, 3, 5, 3], Layout::Nchw);
}

/// Images, rows and columns that do not fit into a binding.
#[test]
fn what_is_larger_than_a_binding_is_put_together_in_bands() {
    let divided = |chain: &Chain, input: [u32; 4], layout: Layout, limit: u64| {
        let gpu = gpu().with_caps(|caps| Caps { max_storage_binding: limit, ..caps });
        let division = gpu.divide(chain, input, layout, &direct()).unwrap();
        assert!(division.is_divided(), "{input:?}");
        let oracle = Oracle::of_chain("bands", chain.clone(), input, layout, u64::MAX).unwrap();
        let report = oracle.check_layer(&gpu, &direct()).unwrap();
        assert!(report.passes(), "{input:?} {layout}: {report:?}");
        division.stretches.len()
    };
    let links = [Conv2d::new(3, 4, 3).padding(1).into(), Link::from(Concat::new([3, 4]))];
    let chain = Chain::new(links).concatenates([0, 1], 1).unwrap();
    for layout in LAYOUTS {
        // Two of four images of 7 KB, each with all links.
        assert_eq!(divided(&chain, [4, 3, 16, 16], layout, 16 << 10), 1);
        // Rows of an image; the convolution, and two tensors that are put together.
        assert_eq!(divided(&chain, [2, 3, 40, 30], layout, 8 << 10), 3);
        // Columns.
        assert_eq!(divided(&chain, [1, 3, 2, 400], layout, 4 << 10), 3);
    }
    let slice = Chain::from(Link::Slice { channels: 1..3 }).then(Conv2d::new(2, 3, 3).padding(1));
    divided(&slice, [1, 4, 40, 30], Layout::Nhwc, 8 << 10);
    divided(&branches(DType::F16), [1, 4, 40, 30], Layout::Nchw, 20 << 10);
}
