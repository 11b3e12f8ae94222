//! Tensors and weights larger than a binding, computed in bands of images, channels, rows or columns. Bindings are made
//! small, so that small tensors do not fit.

use gpuconv::internals::random;
use gpuconv::planner::{Division, Stretch};
use gpuconv::{
    Activation, Caps, Chain, Choice, Conv2d, ConvTranspose2d, DType, Error, GpuConv, Inputs, Layout, Link, Pool2d,
    Residual, Resize, Separable, Shape, SqueezeExcite, Tensor, f16, oracle, shape,
};

use crate::common::{borrow, draw, gpu};

const LAYOUTS: [Layout; 2] = [Layout::Nchw, Layout::Nhwc];
/// Elements before and behind a tensor, which nothing may write.
const GUARD: usize = 128;

/// The device with bindings of this many bytes, at multiples of this many, or of what the device itself needs.
fn narrow(gpu: &GpuConv, max_storage_binding: u64, alignment: u32) -> GpuConv {
    gpu.with_caps(|caps| {
        let storage_offset_alignment = alignment.max(caps.storage_offset_alignment);
        Caps { max_storage_binding, storage_offset_alignment, ..caps }
    })
}

/// With the kernel that compiles fastest.
fn direct() -> Choice {
    Choice::Named("direct".into())
}

/// A tensor of NCHW values between guards of NaNs.
fn guarded(gpu: &GpuConv, values: &[f32], shape: Shape, layout: Layout, dtype: DType) -> Tensor {
    let values = shape::from_nchw(values, shape, layout);
    let guard = [f32::NAN; GUARD];
    let all = [&guard[..], &values, &guard].concat();
    let whole = gpu.upload_of(&all, [1, 1, 1, all.len() as u32], Layout::Nchw, dtype).unwrap();
    Tensor::from_buffer_of(whole.buffer().clone(), dtype.bytes() * GUARD as u64, shape, layout, dtype).unwrap()
}

/// Computes a chain on small whole numbers, compares with the oracle bit for bit, and returns how it was computed.
fn check(gpu: &GpuConv, chain: &Chain, input: [u32; 4], layout: Layout, choice: Choice) -> Result<Division, Error> {
    check_up_to(2, gpu, chain, input, layout, choice)
}

/// The same with inputs up to a number and down to its negative.
fn check_up_to(
    most: u32,
    gpu: &GpuConv,
    chain: &Chain,
    input: [u32; 4],
    layout: Layout,
    choice: Choice,
) -> Result<Division, Error> {
    let (input, what) = (Shape::from(input), format!("{chain:?} on {input:?} in {layout}"));
    let shapes = chain.shapes(input)?;
    let (output, weights) = (shapes[shapes.len() - 1], draw(chain));
    let weights = borrow(&weights);
    let values = random::integers("input", input.len(), most);
    let outside = chain.outside_residual().map(|link| shapes[link + 1]);
    let residual = outside.map(|shape| random::integers("residual", shape.len(), 2));
    let answer = oracle::run(chain, &values, input, &weights, residual.as_deref())?;
    let dtype = chain.dtype();
    let stored = |value: f64| if dtype == DType::F16 { f16::from_f64(value).to_f32() } else { value as f32 };
    let right: Vec<_> = answer.values.iter().map(|&value| stored(value)).collect();

    let layer = gpu.chain_with(chain, &weights, choice.clone())?;
    let division = gpu.divide(chain, input, layout, &choice)?;
    layer.warm_up(input, layout)?;
    let nans = |shape: Shape| vec![f32::NAN; shape.len() as usize];
    let y = guarded(gpu, &nans(output), output, layout, dtype);
    // The first time all inputs are NaNs, so that the workspace is full of them the second time.
    for values in [(nans(input), outside.map(nans)), (values, residual)] {
        let x = guarded(gpu, &values.0, input, layout, dtype);
        let residual = outside.zip(values.1).map(|(shape, values)| guarded(gpu, &values, shape, layout, dtype));
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        layer.encode(&mut encoder, Inputs { input: &x, residual: residual.as_ref(), scale: None }, &y)?;
        gpu.queue().submit([encoder.finish()]);
    }
    let all = (output.len() as usize + 2 * GUARD) as u32;
    let all = Tensor::from_buffer_of(y.buffer().clone(), 0, [1, 1, 1, all], Layout::Nchw, dtype)?;
    let all = gpu.download(&all)?;
    let (before, rest) = all.split_at(GUARD);
    let (values, behind) = rest.split_at(output.len() as usize);
    assert!(before.iter().chain(behind).all(|value| value.is_nan()), "{what}: it wrote outside of its output");
    let values = shape::to_nchw(values, output, layout);
    let wrong = values.iter().zip(&right).position(|(value, right)| value != right);
    assert_eq!(wrong.map(|at| (at, values[at], right[at])), None, "{what}");
    Ok(division)
}

fn only(division: &Division) -> &Stretch {
    assert_eq!(division.stretches.len(), 1);
    &division.stretches[0]
}

#[test]
#[ignore = "takes twenty seconds where shaders are new"]
fn rows_of_any_window_are_computed_in_bands() {
    let gpu = gpu();
    let conv = |kernel: u32| Conv2d::new(3, 4, kernel);
    let residuals = [None, Some(Residual::BeforeActivation), Some(Residual::AfterActivation)];
    for (index, conv) in [
        Conv2d::pointwise(5, 2),
        Conv2d::pointwise(2, 6).stride(2).padding(2),
        conv(3).padding(1),
        conv(3).stride(2).padding([0, 1, 2, 3]),
        Conv2d::new(2, 3, 5).padding(2).stride([3, 1]),
        conv(3).dilation([3, 2]).padding([3, 2]),
        // Rows that lie in the padding alone.
        conv(2).padding(4),
        Conv2d::new(4, 6, 3).groups(2).padding(1).activation(Activation::Relu),
        Conv2d::depthwise(4, 3).padding(1),
        Conv2d::depthwise(3, 5).padding(2).stride(2).channel_multiplier(2),
    ]
    .into_iter()
    .enumerate()
    {
        for (index, layout) in (index..).zip(LAYOUTS) {
            let conv = conv.clone().residual(residuals[index % 3]);
            let input = [2, conv.in_channels, 17, 12];
            let division = check(&narrow(&gpu, 1024, 32), &conv.into(), input, layout, direct()).unwrap();
            assert!(only(&division).bands > 2);
        }
    }
}

/// Their padding is no zero, or counts in another way, and the last window may reach beyond it.
#[test]
fn pools_over_windows_are_computed_in_bands() {
    let gpu = gpu();
    for (index, pool) in [
        Pool2d::max(3).stride(2).padding(1),
        Pool2d::max(3).stride(1).padding([1, 0, 0, 1]).dilation([2, 1]),
        Pool2d::max([2, 3]).stride([3, 2]).padding(1).ceil_mode(true),
        Pool2d::average(2).padding(1).ceil_mode(true),
        // Its last window has two rows: an average of a power of two is exact.
        Pool2d::average([4, 2]).stride([3, 1]).padding([1, 1, 1, 0]).ceil_mode(true),
    ]
    .into_iter()
    .enumerate()
    {
        let chain = Chain::from(pool.clone());
        for (index, layout) in (index..).zip(LAYOUTS) {
            let input = [1 + index as u32 % 2, 4, 18, 13];
            let division = check(&narrow(&gpu, 1024, 32), &chain, input, layout, Choice::Auto).unwrap();
            assert!(only(&division).bands > 2, "{division:?}");
        }
        // Rows, of a plane that does not fit by itself; and columns.
        for input in [[1, 1, 39, 13], [1, 1, 5, 300]] {
            let division = check(&narrow(&gpu, 1024, 32), &chain, input, Layout::Nchw, Choice::Auto).unwrap();
            assert!(only(&division).bands > 1, "{division:?}");
        }
        // Both, of a window that fits for one channel alone.
        let one = 4 * pool.dilated_kernel().iter().product::<u64>();
        let division = check(&narrow(&gpu, one, 4), &chain, [1, 3, 5, 6], Layout::Nhwc, Choice::Auto).unwrap();
        assert_eq!(only(&division).extents.channels, 1);
        // Between others.
        let chain = Chain::from(Conv2d::depthwise(2, 3).padding(1)).then(chain).then(Conv2d::pointwise(2, 3));
        let division = check(&narrow(&gpu, 2048, 32), &chain, [1, 2, 30, 22], Layout::Nchw, direct()).unwrap();
        assert!(division.is_divided());
    }
}

#[test]
fn a_row_that_is_larger_than_a_binding_is_computed_in_columns() {
    check_columns(&[(Conv2d::new(2, 2, 3).padding(1).stride([1, 2]), [1, 2, 5, 150])]);
}

#[test]
#[ignore = "takes ten seconds where shaders are new"]
fn more_rows_that_are_larger_than_a_binding_are_computed_in_bands() {
    check_columns(&[
        (Conv2d::pointwise(4, 3), [1, 4, 1, 200]),
        (Conv2d::pointwise(3, 8), [2, 3, 3, 100]),
        (Conv2d::new(2, 3, [1, 5]).padding([0, 6]).dilation([1, 2]), [1, 2, 2, 150]),
    ]);
}

fn check_columns(cases: &[(Conv2d, [u32; 4])]) {
    let gpu = gpu();
    for (conv, input) in cases {
        for layout in LAYOUTS {
            let conv = conv.clone().residual(Residual::BeforeActivation);
            let division = check(&narrow(&gpu, 1024, 32), &conv.into(), *input, layout, direct()).unwrap();
            let stretch = only(&division);
            assert!(stretch.extents.rows == 1 && stretch.extents.columns < stretch.whole.columns, "{stretch:?}");
        }
    }
}

#[test]
fn bands_that_lie_side_by_side_are_bound_as_they_are() {
    let gpu = gpu();
    // Planes of 256 bytes: channels are cut in NCHW, and nothing is copied.
    let conv = Chain::from(Conv2d::depthwise(10, 3).padding(1));
    let division = check(&narrow(&gpu, 1024, 256), &conv, [2, 10, 8, 8], Layout::Nchw, direct()).unwrap();
    let stretch = only(&division);
    assert_eq!((stretch.extents.channels, stretch.bands, stretch.copied), (4, 6, [0, 0]));
    assert!(division.workspace().is_empty());
    // Rows of 256 bytes in NHWC: only the first and the last band have padding.
    let conv = Chain::from(Conv2d::new(4, 4, 3).padding(1));
    let division = check(&narrow(&gpu, 2048, 256), &conv, [1, 4, 30, 16], Layout::Nhwc, direct()).unwrap();
    let stretch = only(&division);
    assert_eq!((stretch.bands, stretch.copied), (5, [2 * 2048, 0]));
    // Images of 100 bytes: the first band starts at the first byte, the second does not start at a multiple of 256.
    let conv = Chain::from(Conv2d::pointwise(1, 1));
    let division = check(&narrow(&gpu, 1100, 256), &conv, [12, 1, 5, 5], Layout::Nchw, direct()).unwrap();
    let stretch = only(&division);
    assert_eq!((stretch.extents.images, stretch.bands, stretch.copied), (11, 2, [100, 100]));
}

#[test]
fn the_planes_of_a_pool_are_summed_in_parts() {
    let gpu = gpu();
    let without_f16 = gpu.with_caps(|caps| Caps { f16: false, ..caps });
    // Planes of two to the power of ten and eleven pixels, so that means are exact. Parts of them that fill a binding,
    // that leave a rest, and of single rows. As halves the sums of parts would be rounded.
    for (gpu, dtype) in [(&gpu, DType::F32), (&gpu, DType::F16), (&without_f16, DType::F16)] {
        for (input, limits) in
            [([2, 3, 32, 32], [512, 1024]), ([1, 2, 32, 32], [450, 900]), ([1, 5, 4, 512], [1024; 2])]
        {
            for layout in LAYOUTS {
                let pool = Chain::from(Link::GlobalAveragePool).with_dtype(dtype);
                let narrow = narrow(gpu, limits[usize::from(dtype == DType::F32)], 32);
                let division = check_up_to(2048, &narrow, &pool, input, layout, Choice::Auto).unwrap();
                let [parts, sums] = &division.stretches[..] else { panic!("{division:?}") };
                assert!(parts.bands > 3 && sums.bands == 1, "{division:?}");
            }
        }
    }
}

/// In some, no input reaches the last rows and columns.
#[test]
#[ignore = "takes ten seconds where shaders are new"]
fn transposed_convolutions_are_computed_in_bands() {
    let gpu = gpu();
    let conv = |kernel: u32| ConvTranspose2d::new(3, 4, kernel);
    for (index, conv) in [
        conv(2).stride(2),
        conv(4).stride(2).padding(1),
        conv(3).stride(2).padding(1).output_padding(1),
        conv(1).stride(3).output_padding(2),
        conv(3).padding([0, 1, 2, 0]).dilation([2, 1]),
        conv(3).stride([3, 1]).dilation([1, 2]).padding([4, 1]).activation(Activation::Relu),
        ConvTranspose2d::new(4, 6, 3).groups(2).stride(2),
    ]
    .into_iter()
    .enumerate()
    {
        for (index, layout) in (index..).zip(LAYOUTS) {
            let input = [1 + index as u32 % 2, conv.conv.in_channels, 13, 9];
            let chain = Chain::from(conv.clone());
            let division = check(&narrow(&gpu, 1024, 32), &chain, input, layout, Choice::Auto).unwrap();
            assert!(only(&division).bands > 2, "{division:?}");
            // Rows that are larger than a binding.
            let wide = [1, conv.conv.in_channels, 4, 150];
            let division = check(&narrow(&gpu, 2048, 32), &chain, wide, layout, Choice::Auto).unwrap();
            assert!(only(&division).extents.columns < only(&division).whole.columns, "{division:?}");
        }
        // Between others.
        let (inputs, outputs) = (conv.conv.in_channels, conv.conv.out_channels);
        let chain = Chain::from(Conv2d::depthwise(inputs, 3).padding(1)).then(conv);
        let chain = chain.then(Conv2d::new(outputs, 2, 3).padding(1));
        let choice = Choice::Named("direct+transposed+direct".into());
        let division = check(&narrow(&gpu, 4096, 32), &chain, [1, inputs, 20, 14], Layout::Nchw, choice).unwrap();
        assert!(only(&division).bands > 1);
    }
}

/// Their bands have other padding, so that phases of another see other taps.
#[test]
fn phases_in_bands_have_their_own_weights() {
    let gpu = gpu();
    for (up, rows) in [
        (ConvTranspose2d::new(16, 16, 2).stride(2), 19),
        (ConvTranspose2d::new(16, 16, 4).stride(4), 11),
        (ConvTranspose2d::new(16, 16, 4).stride(2).padding(1), 19),
        (ConvTranspose2d::new(16, 16, 3).stride(2).padding(1).output_padding(1), 23),
    ] {
        let chain = Chain::from(up).then(Conv2d::new(16, 2, 3).padding(1));
        for layout in LAYOUTS {
            let choice = Choice::Named("phases+direct".into());
            let division = check(&narrow(&gpu, 49152, 32), &chain, [1, 16, rows, 32], layout, choice).unwrap();
            assert!(only(&division).bands > 2, "{}", only(&division).bands);
        }
    }
}

/// An output has 288 bytes of weights and a bias. Six fit with a sixteenth of the binding to spare; four fill a tile.
#[test]
fn weights_larger_than_a_binding_are_cut_along_their_outputs() {
    let gpu = narrow(&gpu(), 2048, 32);
    let conv = |inputs: u32, outputs: u32| Conv2d::new(inputs, outputs, 3).padding(1).activation(Activation::Relu);
    let add = Residual::BeforeActivation;
    let between = Chain::new([conv(3, 8), conv(8, 21), conv(21, 2)]);
    let halves = Chain::from(conv(16, 21)).with_dtype(DType::F16);
    // The second adds the tensor that it reads.
    let own = Chain::new([Conv2d::pointwise(3, 8).into(), Link::from(conv(8, 8))]);
    for (chain, input) in [
        (conv(8, 21).into(), [1, 8, 4, 6]),
        (conv(8, 21).residual(add).into(), [2, 8, 3, 5]),
        (halves, [2, 16, 3, 5]),
        (between, [2, 3, 4, 3]),
        (own.edge(1, 1, add).unwrap(), [1, 3, 5, 3]),
        // Neither the weights nor the images fit.
        (conv(8, 21).residual(add).into(), [2, 8, 13, 9]),
    ] {
        for layout in LAYOUTS {
            let division = check(&gpu, &chain, input, layout, direct()).unwrap();
            let heavy = |stretch: &&Stretch| stretch.extents.out_channels < stretch.whole.out_channels;
            let cut = division.stretches.iter().find(heavy).unwrap();
            assert_eq!((cut.links, cut.extents.out_channels), (1, 4), "{chain:?} {layout}");
        }
    }
    // Of groups and of transposed convolutions they are not cut; nor is a single output's.
    let up = ConvTranspose2d::new(8, 16, 3);
    let refused: [(Chain, [u32; 4]); 4] = [
        (Conv2d::new(32, 32, 3).groups(2).into(), [1, 32, 4, 4]),
        (up.into(), [1, 8, 2, 2]),
        (Link::from(SqueezeExcite::new(32, 32)).into(), [1, 32, 2, 2]),
        (Conv2d::new(8, 4, 9).padding(1).into(), [1, 8, 7, 7]),
    ];
    for (chain, input) in refused {
        let answer = gpu.divide(&chain, input, Layout::Nchw, &Choice::Auto);
        assert!(matches!(answer, Err(Error::TooLarge { .. })), "{chain:?}: {:?}", answer.err());
    }
}

#[test]
fn shuffles_are_computed_in_bands() {
    let gpu = gpu();
    let shuffle = |factor: u32| Link::PixelShuffle { factor };
    let unshuffle = |factor: u32| Link::PixelUnshuffle { factor };
    for (chain, input) in [
        (Chain::from(shuffle(2)), [1, 8, 15, 11]),
        (Chain::from(shuffle(3)), [2, 9, 11, 7]),
        // A row is larger than a binding.
        (Chain::from(shuffle(2)), [1, 8, 2, 400]),
        (Chain::from(unshuffle(2)), [1, 3, 26, 18]),
        (Chain::from(unshuffle(3)), [1, 1, 3, 900]),
        (Chain::from(Conv2d::new(3, 8, 3).padding(1)).then(shuffle(2)), [1, 3, 17, 12]),
        (Chain::from(unshuffle(2)).then(Conv2d::new(12, 4, 3).padding(1)).then(shuffle(2)), [1, 3, 30, 20]),
        // What follows begins where no band of a shuffle does.
        (Chain::from(shuffle(2)).then(Conv2d::new(2, 2, 3).padding(1)), [1, 8, 17, 12]),
    ] {
        for layout in LAYOUTS {
            let division = check(&narrow(&gpu, 2048, 32), &chain, input, layout, Choice::Auto).unwrap();
            assert!(division.is_divided(), "{chain:?}");
        }
    }
}

#[test]
fn resizes_are_computed_in_bands() {
    let gpu = gpu();
    for resize in [
        Resize::by(2.0),
        Resize::by_factors([1.5, 3.0]),
        Resize::to([50, 7]),
        Resize::by(2.0).bilinear(false),
        Resize::by_factors([4.0, 0.5]).bilinear(false),
        Resize::to([45, 21]).bilinear(true),
    ] {
        for (input, layout) in [([1, 1, 23, 11], Layout::Nchw), ([2, 3, 23, 11], Layout::Nhwc)] {
            let chain = Chain::from(Link::Resize(resize));
            let division = check(&narrow(&gpu, 512, 32), &chain, input, layout, Choice::Auto).unwrap();
            assert!(only(&division).extents.rows < only(&division).whole.rows, "{division:?}");
            let chain = Chain::from(Conv2d::depthwise(input[1], 3).padding(1)).then(chain);
            let chain = chain.then(Conv2d::depthwise(input[1], 3).padding(1));
            let division = check(&narrow(&gpu, 1024, 32), &chain, input, layout, direct()).unwrap();
            assert!(division.is_divided(), "{division:?}");
        }
    }
    // A row that is larger than a binding.
    let wide = Chain::from(Link::Resize(Resize::by_factors([1.0, 2.0]).bilinear(false)));
    let division = check(&narrow(&gpu, 512, 32), &wide, [1, 1, 2, 300], Layout::Nchw, Choice::Auto).unwrap();
    assert!(only(&division).extents.columns < 600);
}

/// The means of parts of planes, and of whole planes of some channels.
#[test]
fn gates_of_large_images_are_computed_in_parts() {
    let gpu = gpu();
    let without_f16 = gpu.with_caps(|caps| Caps { f16: false, ..caps });
    // Without activations, and with means of two to the power of eight to eleven pixels, all is exact. Means of halves
    // would be rounded.
    for (gpu, dtype) in [(&gpu, DType::F32), (&gpu, DType::F16), (&without_f16, DType::F16)] {
        for (input, limit) in [([2, 3, 32, 32], 1024), ([1, 6, 16, 16], 2048), ([1, 5, 4, 512], 2048)] {
            for layout in LAYOUTS {
                let gate = SqueezeExcite::new(input[1], 2).activations(Activation::None, Activation::None);
                let chain = Chain::from(Link::from(gate)).with_dtype(dtype);
                let narrow = narrow(gpu, limit * dtype.bytes() / 4, 32);
                let division = check_up_to(256, &narrow, &chain, input, layout, Choice::Auto).unwrap();
                let [parts, gate] = &division.stretches[..] else { panic!("{division:?}") };
                assert!(parts.bands > 2 && gate.bands == 1, "{division:?}");
            }
        }
    }
    // By the name of a recipe; one that there is not is an error.
    let chain = Chain::from(Link::from(SqueezeExcite::new(4, 2)));
    let named = |recipe: &str| {
        let caps = |caps| Caps { is_cpu: false, max_storage_binding: 2048, ..caps };
        gpu.with_caps(caps).divide(&chain, [1, 4, 32, 32], Layout::Nchw, &Choice::Named(recipe.into()))
    };
    assert_eq!(named("gate/256x16").unwrap().stretches[1].schedule.name(), "gate/256x16");
    assert!(matches!(named("gate/3x3"), Err(Error::UnknownKernel { .. })), "{:?}", named("gate/3x3").err());
    // With more channels than a workgroup has memory for.
    let small = narrow(&gpu, 1 << 20, 32).with_caps(|caps| Caps { max_workgroup_memory: 8192, ..caps });
    for layout in LAYOUTS {
        let gate = SqueezeExcite::new(2100, 28).activations(Activation::None, Activation::None);
        let division = check(&small, &Link::from(gate).into(), [1, 2100, 16, 16], layout, Choice::Auto).unwrap();
        assert_eq!(division.stretches[1].schedule.name(), "gate/apart", "{division:?}");
    }
    // In a block, whose scale is the gate's.
    let gate = SqueezeExcite::new(4, 2).activations(Activation::None, Activation::None);
    let block = [Conv2d::depthwise(4, 3).padding(1).into(), gate.into(), Link::from(Conv2d::pointwise(4, 3))];
    let block = Chain::new(block).reads(1, 2).unwrap().scales(2, 2).unwrap();
    for layout in LAYOUTS {
        let division = check(&narrow(&gpu, 2048, 32), &block, [1, 4, 16, 16], layout, Choice::Auto).unwrap();
        assert!(division.is_divided());
    }
}

#[test]
#[ignore = "takes ten seconds where shaders are new"]
fn chains_are_computed_in_bands_of_several_links() {
    let gpu = gpu();
    let each = |kernel: [u32; 2]| Conv2d::depthwise(3, kernel).padding([kernel[0] / 2, kernel[1] / 2]);
    let relu = Activation::Relu;
    let add = Residual::BeforeActivation;
    for (chain, input) in [
        (Chain::new([each([1, 5]), each([5, 1])]), [1, 3, 20, 20]),
        (Separable::new(3, 5, 3).padding(1).stride(2).activation(relu).into(), [2, 3, 21, 20]),
        (Separable::new(3, 3, 3).padding(1).residual(add).into(), [1, 3, 21, 20]),
        (Chain::inverted_residual(3, 3, 4, 1), [1, 3, 16, 16]),
        (Chain::inverted_residual(3, 5, 2, 2), [1, 3, 17, 16]),
        // Blocks whose input is another's output, and an edge over two of them.
        (
            Chain::inverted_residual(3, 3, 2, 1)
                .then(Chain::inverted_residual(3, 3, 2, 1))
                .then(Conv2d::pointwise(3, 3))
                .edge(3, 6, add)
                .unwrap(),
            [1, 3, 16, 16],
        ),
        // What follows the first links fits.
        (
            Chain::new([
                Conv2d::new(3, 4, 3).padding(1).stride(2).activation(relu).into(),
                Conv2d::depthwise(4, 3).padding(1).stride(2).into(),
                Conv2d::pointwise(4, 6).into(),
                Link::GlobalAveragePool,
                Conv2d::pointwise(6, 4).into(),
            ]),
            [1, 3, 32, 32],
        ),
        // Pools of what does not fit: of many planes, and of a plane.
        (
            Chain::new([Conv2d::pointwise(2, 5).into(), Link::GlobalAveragePool, Conv2d::pointwise(5, 2).into()]),
            [2, 2, 16, 16],
        ),
        (
            Chain::new([Conv2d::pointwise(2, 5).into(), Link::GlobalAveragePool, Conv2d::pointwise(5, 2).into()]),
            [2, 2, 32, 32],
        ),
    ] {
        for layout in LAYOUTS {
            let division = check(&narrow(&gpu, 2048, 32), &chain, input, layout, direct()).unwrap();
            assert!(division.is_divided());
        }
    }
}
