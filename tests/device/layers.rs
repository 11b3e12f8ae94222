//! Layers as callers use them: sizes, layouts, encoders, and errors for arguments that do not fit.

use std::cell::RefCell;
use std::rc::Rc;

use gpuconv::internals::random;
use gpuconv::{
    Activation, Chain, Choice, Conv2d, Error, Fusion, GpuConv, Layer, Layout, Residual, Separable, Shape, Tensor,
    Weights, oracle, shape,
};

use crate::common::{borrow, draw, expected, gpu, listen};

#[test]
fn a_layer_takes_any_size_in_either_layout() {
    let gpu = gpu();
    let separable = Separable::new(5, 9, 3).padding(1).activation(Activation::Relu6);
    let chain = Chain::from(&separable);
    let weights = draw(&chain);
    let weights = borrow(&weights);
    let layer = gpu.separable(&separable, &[weights[0], weights[1]]).unwrap();
    for extents in [[1, 5, 8, 8], [2, 5, 7, 3], [1, 5, 1, 1], [1, 5, 8, 8], [0, 5, 4, 4]] {
        let input_shape = Shape::from(extents);
        let input = random::integers("input", input_shape.len(), 2);
        let answer = expected(&chain, &input, input_shape, &weights, None);
        for layout in [Layout::Nchw, Layout::Nhwc] {
            let x = gpu.upload_as(&shape::from_nchw(&input, input_shape, layout), extents, layout).unwrap();
            let y = layer.forward(&x).unwrap();
            assert_eq!((y.shape(), y.layout()), (layer.output_shape(extents).unwrap(), layout));
            assert_eq!(shape::to_nchw(&gpu.download(&y).unwrap(), y.shape(), layout), answer, "{input_shape} {layout}");
        }
    }
}

#[test]
fn a_layer_is_recorded_into_the_callers_encoder_on_the_callers_device() {
    let own = gpu();
    let gpu = GpuConv::with_device(own.device().clone(), own.queue().clone());
    let conv = Conv2d::new(3, 4, 3);
    let weights = draw(&Chain::from(&conv));
    let weights = borrow(&weights);
    let layer = gpu.conv2d(&conv, weights[0]).unwrap();
    let (first, second) = (random::integers("first", 48, 2), random::integers("second", 48, 2));
    let x = gpu.upload(&first, [1, 3, 4, 4]).unwrap();
    let y = gpu.empty([1, 4, 2, 2], Layout::Nchw).unwrap();
    for input in [&first, &second] {
        gpu.write(&x, input).unwrap();
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        layer.encode(&mut encoder, &x, &y).unwrap();
        gpu.queue().submit([encoder.finish()]);
        let answer = expected(layer.chain(), input, x.shape(), &weights, None);
        assert_eq!(gpu.download(&y).unwrap(), answer);
    }
}

#[test]
fn an_inverted_residual_adds_its_input() {
    let gpu = gpu();
    let chain = Chain::inverted_residual(4, 4, 3, 1);
    let weights = draw(&chain);
    let weights = borrow(&weights);
    let layer = gpu.chain(&chain, &weights).unwrap();
    let input = random::integers("input", 4 * 30, 2);
    let x = gpu.upload(&input, [1, 4, 5, 6]).unwrap();
    let y = gpu.download(&layer.forward(&x).unwrap()).unwrap();
    assert_eq!(y, expected(&chain, &input, x.shape(), &weights, None));
    let bare = Chain::new(chain.convolutions().map(|(_, conv)| conv.clone().residual(None)));
    assert_ne!(y, expected(&bare, &input, x.shape(), &weights, None));
}

#[test]
fn tensors_that_share_memory_do_not_overlap_in_time() {
    let gpu = gpu();
    // Two inverted residuals: the first one's output is needed until the last link.
    let blocks = [Chain::inverted_residual(4, 4, 3, 1), Chain::inverted_residual(4, 4, 2, 1)];
    let mut chain = Chain::new(blocks.iter().flat_map(|block| block.links().to_vec()));
    for (source, link) in [(0, 2), (3, 5)] {
        chain = chain.edge(source, link, Residual::AfterActivation).unwrap();
    }
    let weights = draw(&chain);
    let weights = borrow(&weights);
    let input = random::integers("input", 4 * 30, 2);
    let x = gpu.upload(&input, [1, 4, 5, 6]).unwrap();
    let answer = expected(&chain, &input, x.shape(), &weights, None);
    for choice in [Choice::Fusion(Fusion::Never), Choice::Named("direct".into())] {
        let layer = gpu.chain_with(&chain, &weights, choice).unwrap();
        let workspace = layer.schedule(x.shape(), x.layout()).unwrap().workspace;
        assert!(workspace.bytes() < workspace.bytes_without_reuse(), "{workspace:?}");
        // Run it twice, because the second time the workspace is not zero.
        for _ in 0..2 {
            assert_eq!(gpu.download(&layer.forward(&x).unwrap()).unwrap(), answer);
        }
    }
}

#[test]
fn a_missing_residual_is_an_error() {
    let gpu = gpu();
    let conv = Conv2d::pointwise(2, 2).bias(false).residual(Residual::BeforeActivation);
    let layer = gpu.pointwise(&conv, Weights::without_bias(&[1.0, 0.0, 0.0, 2.0])).unwrap();
    let x = gpu.upload(&[1.0, 2.0], [1, 2, 1, 1]).unwrap();
    let r = gpu.upload(&[10.0, 20.0], [1, 2, 1, 1]).unwrap();
    assert_eq!(layer.forward(&x), Err(Error::Residual { expected: true }));
    assert_eq!(gpu.download(&layer.forward((&x, &r)).unwrap()).unwrap(), [11.0, 24.0]);
}

/// The residual has the shape of the tensor that it is added to, which need not be the chain's output.
#[test]
fn a_residual_is_added_inside_a_chain() {
    let gpu = gpu();
    let first = Conv2d::pointwise(2, 3).residual(Residual::BeforeActivation);
    let chain = Chain::new([first, Conv2d::pointwise(3, 2).stride(2)]);
    let (weights, input_shape) = (draw(&chain), Shape::from([1, 2, 4, 4]));
    let input = random::integers("input", input_shape.len(), 2);
    let residual = random::integers("residual", 3 * 16, 2);
    let layer = gpu.chain(&chain, &borrow(&weights)).unwrap();
    let x = gpu.upload(&input, input_shape).unwrap();
    let y = layer.forward((&x, &gpu.upload(&residual, [1, 3, 4, 4]).unwrap())).unwrap();
    let expected = expected(&chain, &input, input_shape, &borrow(&weights), Some(&residual));
    assert_eq!(gpu.download(&y).unwrap(), expected);

    let like_the_output = layer.forward((&x, &gpu.empty([1, 2, 2, 2], Layout::Nchw).unwrap()));
    let [expected, actual] = [[1, 3, 4, 4], [1, 2, 2, 2]].map(Shape::from);
    assert_eq!(like_the_output, Err(Error::ShapeMismatch { tensor: "residual", expected, actual }));
}

#[test]
fn arguments_that_do_not_fit_are_refused_with_the_numbers() {
    let gpu = gpu();
    let conv = Conv2d::new(2, 3, 3);
    let too_short = gpu.conv2d(&conv, Weights::new(&[0.0; 53], &[0.0; 3])).err().unwrap();
    assert_eq!(too_short, Error::Length { what: "weight of link 0".into(), expected: 54, actual: 53 });
    let no_bias = gpu.conv2d(&conv, Weights::without_bias(&[0.0; 54])).err().unwrap();
    assert_eq!(no_bias, Error::Length { what: "bias of link 0".into(), expected: 3, actual: 0 });
    assert!(matches!(gpu.depthwise(&conv, Weights::without_bias(&[])), Err(Error::Groups { .. })));
    assert!(matches!(gpu.pointwise(&conv, Weights::without_bias(&[])), Err(Error::Parameter { .. })));

    let layer = gpu.conv2d(&conv, Weights::new(&[0.0; 54], &[0.0; 3])).unwrap();
    let x = gpu.empty([1, 2, 4, 4], Layout::Nchw).unwrap();
    let encode = |x: &Tensor, y: &Tensor| {
        layer.encode(&mut gpu.device().create_command_encoder(&Default::default()), x, y).err().unwrap()
    };
    let channels = gpu.empty([1, 3, 4, 4], Layout::Nchw).unwrap();
    assert_eq!(encode(&channels, &x), Error::Channels { link: 0, expected: 2, actual: 3 });
    let small = gpu.empty([1, 2, 2, 4], Layout::Nchw).unwrap();
    assert_eq!(encode(&small, &x), Error::KernelTooLarge { kernel: [3, 3], image: [2, 4] });
    let wrong = Error::ShapeMismatch { tensor: "output", expected: [1, 3, 2, 2].into(), actual: x.shape() };
    assert_eq!(encode(&x, &x), wrong);
    let nhwc = gpu.empty([1, 3, 2, 2], Layout::Nhwc).unwrap();
    assert!(matches!(encode(&x, &nhwc), Error::LayoutMismatch { .. }));
    let aliased = Tensor::from_buffer(x.buffer().clone(), 0, [1, 3, 2, 2], Layout::Nchw).unwrap();
    assert_eq!(encode(&x, &aliased), Error::Aliasing { tensor: "input" });
    let past = Tensor::from_buffer(x.buffer().clone(), 4, [1, 2, 4, 4], Layout::Nchw).err().unwrap();
    assert!(matches!(past, Error::Length { expected: 32, actual: 31, .. }), "{past}");
    assert!(matches!(gpu.upload(&[0.0; 3], [1, 2, 2, 1]), Err(Error::Length { expected: 4, actual: 3, .. })));
    // The layer still works.
    assert_eq!(gpu.download(&layer.forward(&x).unwrap()).unwrap(), [0.0; 12]);
}

#[test]
fn a_layer_and_its_read_back_are_one_submission() {
    let gpu = gpu();
    let layer = gpu.pointwise(&Conv2d::pointwise(1, 2), Weights::new(&[2.0, 3.0], &[0.0, 1.0])).unwrap();
    let (x, y) = (gpu.upload(&[1.0, -1.0], [1, 1, 1, 2]).unwrap(), gpu.empty([1, 2, 1, 2], Layout::Nchw).unwrap());
    let nothing = gpu.empty([0, 2, 1, 2], Layout::Nchw).unwrap();
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    // One copy has the values before the layer, the other those after it.
    let before = gpu.encode_download(&mut encoder, &y).unwrap();
    layer.encode(&mut encoder, &x, &y).unwrap();
    let after = gpu.encode_download(&mut encoder, &y).unwrap();
    let empty = gpu.encode_download(&mut encoder, &nothing).unwrap();
    gpu.queue().submit([encoder.finish()]);
    let after = after.read_async();
    assert_eq!(before.read().unwrap(), [0.0; 4]);
    assert_eq!(pollster::block_on(after).unwrap(), [2.0, -2.0, 4.0, -2.0]);
    assert!(empty.read().unwrap().is_empty());
}

/// A future of values can be created and polled before its encoder is submitted. This is so on the library's device,
/// and on a device of the caller's, which panics on errors that no scope catches.
#[test]
fn a_read_back_can_be_awaited_before_it_is_submitted() {
    let adapter = pollster::block_on(GpuConv::adapter(None)).unwrap();
    let (device, queue) = pollster::block_on(adapter.request_device(&Default::default())).unwrap();
    for gpu in [gpu(), GpuConv::with_device(device, queue)] {
        let (x, y) = (gpu.upload(&[1.0, 2.0], [1, 1, 1, 2]).unwrap(), gpu.upload(&[3.0], [1, 1, 1, 1]).unwrap());
        // Run it twice, because the second time it reuses the buffers.
        for _ in 0..2 {
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            let mut of_x = Box::pin(gpu.encode_download(&mut encoder, &x).unwrap().read_async());
            let of_y = gpu.encode_download(&mut encoder, &y).unwrap().read_async();
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(of_x.as_mut().poll(&mut context).is_pending());
            gpu.queue().submit([encoder.finish()]);
            gpu.wait().unwrap();
            assert_eq!(pollster::block_on(of_y).unwrap(), [3.0]);
            assert_eq!(pollster::block_on(of_x).unwrap(), [1.0, 2.0]);
        }
    }
}

/// All `GpuConv` of a device share its tensors, also those of a `GpuConv` that was dropped.
#[test]
fn a_tensor_belongs_to_its_device() {
    let first = gpu();
    let others = [
        GpuConv::with_device(first.device().clone(), first.queue().clone()),
        first.with_caps(|caps| caps),
        GpuConv::with_device(first.device().clone(), first.queue().clone()),
    ];
    let x = first.upload(&[1.0, 2.0], [1, 1, 1, 2]).unwrap();
    drop(first);
    for (index, gpu) in others.iter().enumerate() {
        let layer = gpu.pointwise(&Conv2d::pointwise(1, 1), Weights::new(&[2.0], &[0.0])).unwrap();
        let y = others[(index + 1) % 3].empty([1, 1, 1, 2], Layout::Nchw).unwrap();
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        layer.encode(&mut encoder, &x, &y).unwrap();
        gpu.queue().submit([encoder.finish()]);
        assert_eq!(others[(index + 2) % 3].download(&y).unwrap(), [2.0, 4.0]);
        gpu.write(&x, &[1.0, 2.0]).unwrap();
    }
    let (device, queue) = (others[0].device().clone(), others[0].queue().clone());
    drop(others);
    assert_eq!(GpuConv::with_device(device, queue).download(&x).unwrap(), [1.0, 2.0]);
}

/// The calls of wgpu that create or drop something.
fn wgpu_calls(call: impl FnOnce()) -> Vec<String> {
    let calls = Rc::new(RefCell::new(Vec::new()));
    let logged = calls.clone();
    // wgpu logs the calls of its API.
    let log = move |target: &str, call: &str| {
        if target.starts_with("wgpu_core") && (call.contains("create_") || call.contains("::drop")) {
            logged.borrow_mut().push(call.to_string());
        }
    };
    listen(log, call);
    calls.take()
}

#[test]
fn encode_creates_nothing_after_the_first_time() {
    let own = gpu();
    for gpu in [GpuConv::with_device(own.device().clone(), own.queue().clone()), own] {
        let chain = Chain::inverted_residual(4, 4, 3, 1);
        let weights = draw(&chain);
        let layer = gpu.chain_with(&chain, &borrow(&weights), Choice::Named("direct".into())).unwrap();
        let [x, y] = [(); 2].map(|()| gpu.empty([1, 4, 5, 6], Layout::Nchw).unwrap());
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let first = wgpu_calls(|| layer.encode(&mut encoder, &x, &y).unwrap());
        assert!(first.iter().any(|call| call.contains("create_bind_group")), "{first:?}");
        for _ in 0..2 {
            let again = wgpu_calls(|| layer.encode(&mut encoder, &x, &y).unwrap());
            assert!(again.is_empty(), "{again:?}");
        }
        gpu.queue().submit([encoder.finish()]);
    }
}

#[test]
fn a_tensor_of_another_device_is_refused() {
    let (gpu, other) = (gpu(), gpu());
    let layer = gpu.pointwise(&Conv2d::pointwise(1, 1), Weights::new(&[1.0], &[0.0])).unwrap();
    let foreign = other.upload(&[1.0], [1, 1, 1, 1]).unwrap();
    assert_eq!(layer.forward(&foreign), Err(Error::ForeignTensor { shape: foreign.shape() }));
    assert!(matches!(gpu.download(&foreign), Err(Error::ForeignTensor { .. })));
}

#[test]
fn a_kernel_can_be_chosen_by_name() {
    let gpu = gpu();
    let chain = Chain::from(Conv2d::pointwise(4, 4));
    let weights = draw(&chain);
    let named = |name: &str| gpu.chain_with(&chain, &borrow(&weights), Choice::Named(name.into())).unwrap();
    let kernel = |layer: Layer| layer.schedule([1, 4, 2, 2], Layout::Nchw).map(|schedule| schedule.name());
    assert_eq!(kernel(named("direct/4x4")).unwrap(), "direct/4x4");
    assert!(kernel(named("pointwise")).unwrap().starts_with("pointwise/"));
    assert!(matches!(kernel(named("fastest")), Err(Error::UnknownKernel { .. })));
    assert!(matches!(kernel(named("depthwise")), Err(Error::NoKernel { .. })));
}

#[test]
fn infinities_and_nans_pass_through_the_activations() {
    let gpu = gpu();
    let values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0, 7.0];
    let run = |activation| {
        let conv = Conv2d::pointwise(1, 1).activation(activation);
        let layer = gpu.pointwise(&conv, Weights::new(&[1.0], &[0.0])).unwrap();
        let y = layer.forward(&gpu.upload(&values, [1, 1, 1, 5]).unwrap()).unwrap();
        gpu.download(&y).unwrap()
    };
    for activation in [
        Activation::None,
        Activation::Relu,
        Activation::Relu6,
        Activation::Clamp(f32::NEG_INFINITY, 2.0),
        Activation::LeakyRelu(0.25),
        Activation::HardSwish,
        Activation::Silu,
        Activation::HardSigmoid,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Gelu,
    ] {
        for (found, value) in run(activation).into_iter().zip(values) {
            let expected = oracle::activate(activation, value.into()) as f32;
            let is_right =
                found == expected || (found - expected).abs() < 1e-6 || (found.is_nan() && expected.is_nan());
            assert!(is_right, "{activation} of {value}: {found}, not {expected}");
        }
    }
}

#[test]
fn layers_are_shared_between_threads() {
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<GpuConv>();
    is_send_and_sync::<Layer>();
    let gpu = gpu();
    let conv = Conv2d::depthwise(3, 3).padding(1);
    let weights = draw(&Chain::from(&conv));
    let layer = gpu.depthwise(&conv, borrow(&weights)[0]).unwrap();
    let input = random::integers("input", 3 * 25, 2);
    let answer = expected(layer.chain(), &input, [1, 3, 5, 5].into(), &borrow(&weights), None);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let y = layer.forward(&gpu.upload(&input, [1, 3, 5, 5]).unwrap()).unwrap();
                    assert_eq!(gpu.download(&y).unwrap(), answer);
                }
            });
        }
    });
}

#[test]
fn caps_are_the_devices() {
    let gpu = gpu();
    let (caps, features) = (gpu.caps(), gpu.device().features());
    assert_eq!(caps.timestamps, features.contains(wgpu::Features::TIMESTAMP_QUERY));
    assert_eq!(caps.int64, features.contains(wgpu::Features::SHADER_INT64));
    assert_eq!(caps.subgroup.is_some(), features.contains(wgpu::Features::SUBGROUP));
    assert_eq!(caps.max_storage_binding, gpu.device().limits().max_storage_buffer_binding_size);
}

#[test]
fn pipelines_are_compiled_ahead_and_cached() {
    let first = gpu();
    let chain = Chain::inverted_residual(4, 4, 3, 1);
    let (input, layout) = (Shape::from([1, 4, 5, 6]), Layout::Nchw);
    let chains = [(chain.clone(), input, layout), (Conv2d::pointwise(4, 8).into(), input, layout)];
    pollster::block_on(first.warm_up_async(chains.to_vec())).unwrap();
    first.warm_up(&chains).unwrap();
    let wrong = [(chain.clone(), Shape::from([1, 5, 5, 6]), layout)];
    assert!(matches!(first.warm_up(&wrong), Err(Error::Channels { link: 0, expected: 4, actual: 5 })));

    let Some(data) = first.pipeline_cache_data() else {
        assert!(!first.device().features().contains(wgpu::Features::PIPELINE_CACHE));
        return;
    };
    let second = gpu();
    let mut damaged = data.clone();
    damaged[40] ^= 1;
    // SAFETY: the data is from this process, and the library must notice the damage.
    assert_eq!(unsafe { second.load_pipeline_cache(&damaged) }, Ok(false));
    // SAFETY: the data is from this process.
    assert_eq!(unsafe { second.load_pipeline_cache(&data) }, Ok(true));
    let weights = draw(&chain);
    let weights = borrow(&weights);
    let values = random::integers("input", input.len(), 2);
    let x = second.upload(&values, input).unwrap();
    let layer = second.chain(&chain, &weights).unwrap();
    layer.warm_up(input, layout).unwrap();
    let wrong = layer.warm_up([1, 5, 5, 6], layout);
    assert!(matches!(wrong, Err(Error::Channels { link: 0, expected: 4, actual: 5 })));
    let y = layer.forward(&x).unwrap();
    assert_eq!(second.download(&y).unwrap(), expected(&chain, &values, input, &weights, None));
}
