//! Errors that callers get after a fault: a lost device, no memory, destroyed buffers, buffers of another device, and
//! shaders that the driver refuses.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gpuconv::internals::random;
use gpuconv::planner::Unsupported;
use gpuconv::{
    Caps, Chain, Choice, Conv2d, Error, GpuConv, Layer, Layout, Readback, Residual, Tensor, Weights, oracle,
};

use crate::common::gpu;

const CHANNELS: u32 = 16;
const SHAPE: [u32; 4] = [1, CHANNELS, 12, 12];

/// A device of the caller's own. It has no error handlers, so that an error that no scope catches panics.
fn on_a_callers_device() -> GpuConv {
    let adapter = pollster::block_on(GpuConv::adapter(None)).unwrap();
    let descriptor = wgpu::DeviceDescriptor { required_limits: adapter.limits(), ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
    GpuConv::with_device(device, queue)
}

fn new_encoder(gpu: &GpuConv) -> wgpu::CommandEncoder {
    gpu.device().create_command_encoder(&Default::default())
}

fn conv() -> Conv2d {
    Conv2d::pointwise(CHANNELS, CHANNELS).bias(false)
}

fn weight() -> Vec<f32> {
    random::integers("weight", u64::from(CHANNELS * CHANNELS), 2)
}

fn input() -> Vec<f32> {
    random::integers("input", SHAPE.iter().map(|&extent| u64::from(extent)).product(), 2)
}

fn layer(gpu: &GpuConv) -> Layer {
    gpu.conv2d(&conv(), Weights { weight: &weight(), bias: None }).unwrap()
}

/// The layer's output for the input.
fn expected() -> Vec<f32> {
    let weight = weight();
    let weights = [Weights { weight: &weight, bias: None }];
    let answer = oracle::run(&(&conv()).into(), &input(), SHAPE, &weights, None).unwrap();
    answer.values.iter().map(|&value| value as f32).collect()
}

/// Asserts that a device computes correctly from host to host.
fn assert_works(gpu: &GpuConv) {
    let y = layer(gpu).forward(&gpu.upload(&input(), SHAPE).unwrap()).unwrap();
    assert_eq!(gpu.download(&y).unwrap(), expected());
}

fn is_lost<T>(outcome: Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::DeviceLost(_)))
}

/// Asserts that every call returns `DeviceLost`.
fn assert_lost(gpu: &GpuConv, layer: &Layer, x: &Tensor, y: &Tensor) {
    assert!(is_lost(gpu.upload(&input(), SHAPE)));
    assert!(is_lost(gpu.empty(SHAPE, Layout::Nchw)));
    assert!(is_lost(gpu.write(x, &input())));
    assert!(is_lost(gpu.download(x)));
    assert!(is_lost(pollster::block_on(gpu.download_async(x))));
    assert!(is_lost(gpu.wait()));
    assert!(is_lost(gpu.conv2d(&conv(), Weights { weight: &weight(), bias: None })));
    assert!(is_lost(gpu.warm_up(&[((&conv()).into(), SHAPE, Layout::Nchw)])));
    assert!(is_lost(layer.forward(x)));
    assert!(is_lost(layer.bind(x, y)));
    let mut encoder = new_encoder(gpu);
    assert!(is_lost(layer.encode(&mut encoder, x, y)));
    assert!(is_lost(gpu.encode_download(&mut encoder, x)));
}

/// After the loss of a device, every call returns `DeviceLost`, also on a device of the caller's. No call panics, and a
/// new device works.
#[test]
fn a_lost_device_is_reported_and_a_new_one_works() {
    for callers in [false, true] {
        let mut gpu = gpu();
        if callers {
            gpu = GpuConv::with_device(gpu.device().clone(), gpu.queue().clone());
        }
        let (layer, x) = (layer(&gpu), gpu.upload(&input(), SHAPE).unwrap());
        let y = layer.forward(&x).unwrap();
        let mut encoder = new_encoder(&gpu);
        layer.encode(&mut encoder, &x, &y).unwrap();
        let late = gpu.encode_download(&mut encoder, &y).unwrap();
        let bound = layer.bind(&x, &y).unwrap();
        gpu.queue().submit([encoder.finish()]);

        let mut dropped = new_encoder(&gpu);
        let never = gpu.encode_download(&mut dropped, &y).unwrap().read_async();

        gpu.device().destroy();
        // The very next call reports the loss, although nothing has polled the device.
        assert!(is_lost(layer.encode(&mut new_encoder(&gpu), &x, &y)));
        drop(dropped);
        assert!(is_lost(pollster::block_on(never)));
        // What was recorded and bound before can still be used. The result is the values or the loss.
        let mut encoder = new_encoder(&gpu);
        bound.encode(&mut encoder);
        gpu.queue().submit([encoder.finish()]);
        match late.read() {
            Ok(values) => assert_eq!(values, expected()),
            Err(error) => assert!(matches!(error, Error::DeviceLost(_)), "{error}"),
        }
        assert_lost(&gpu, &layer, &x, &y);
        assert_lost(&GpuConv::with_device(gpu.device().clone(), gpu.queue().clone()), &layer, &x, &y);
        assert_works(&crate::common::gpu());
    }
}

/// If the device is lost while threads compute, all of them end. Their results up to the loss are right.
#[test]
fn a_device_that_is_lost_during_work_stops_every_thread() {
    let gpu = gpu();
    let layer = layer(&gpu);
    let (done, right) = (AtomicUsize::new(0), expected());
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let round = || {
                    let y = layer.forward(&gpu.upload(&input(), SHAPE)?)?;
                    gpu.download(&y)
                };
                loop {
                    match round() {
                        Ok(values) => assert_eq!(values, right),
                        Err(Error::DeviceLost(_)) => break,
                        Err(error) => panic!("{error}"),
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    assert!(start.elapsed() < Duration::from_secs(60), "the thread does not notice the loss");
                }
            });
        }
        while done.load(Ordering::Relaxed) < 8 && start.elapsed() < Duration::from_secs(30) {
            std::thread::yield_now();
        }
        gpu.device().destroy();
    });
    assert!(done.load(Ordering::Relaxed) >= 8);
    assert!(is_lost(gpu.wait()));
    assert_works(&crate::common::gpu());
}

/// A device that fails to allocate once this percentage of all memory is in use, by any program.
fn gpu_within(percent: u8) -> Result<GpuConv, Error> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    descriptor.memory_budget_thresholds.for_resource_creation = Some(percent);
    let backends = descriptor.backends;
    let adapters = pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(backends));
    pollster::block_on(GpuConv::from_adapter(&adapters[0]))
}

/// An allocation that exceeds the memory is refused, and the device works afterwards. The test uses wgpu's memory
/// budget, because software devices allocate any amount and fail only when it is used.
#[test]
fn too_large_allocations_are_refused() {
    let gpu = gpu_with_room();
    let limit = gpu.caps().max_buffer;
    let largest = [1, 1, 1 << 14, (limit >> 16) as u32];
    // They are never used, so they take no physical memory.
    let outcome = (0..64).map(|_| gpu.empty(largest, Layout::Nchw)).collect::<Result<Vec<_>, _>>();
    let Err(Error::OutOfMemory(reason)) = &outcome else { panic!("{outcome:?}") };
    let bytes = largest.iter().fold(4, |bytes, &extent| bytes * u64::from(extent));
    assert!(reason.starts_with(&format!("the tensor buffer of {bytes} bytes: ")), "{reason}");
    assert_works(&gpu);

    let outcome = gpu.empty([1, 1, 1 << 16, 1 << 16], Layout::Nchw);
    let too_large = Error::TooLarge { what: "the tensor buffer".into(), needed: 1 << 34, limit };
    assert_eq!(outcome, Err(too_large));
}

/// The shape of a tensor with this size.
fn mebibytes(count: u32) -> [u32; 4] {
    [1, 1, count * 256, 1024]
}

/// A device that may take little more memory than is taken, but enough for what other tests take in between.
fn gpu_with_room() -> GpuConv {
    let has_room = |gpu: &GpuConv| gpu.empty(mebibytes(600), Layout::Nchw).is_ok();
    // wgpu 30 panics if the memory ends while it makes a device.
    let within = |percent| std::panic::catch_unwind(|| gpu_within(percent).ok()).ok().flatten();
    (1..=100).find_map(|percent| within(percent).filter(has_room)).expect("600 MiB to spare")
}

/// If there is no memory for a new buffer, caches are emptied to make room. So a layer can run on many sizes, although
/// the device has no memory for all of them together.
#[test]
fn caches_are_emptied_if_there_is_no_memory() {
    // Other programs may take memory in between, so try three times.
    let outcomes: Vec<_> = (0..3).map_while(|_| try_to_fill_memory().err()).collect();
    assert!(outcomes.len() < 3, "{outcomes:?}");
}

fn try_to_fill_memory() -> Result<(), Error> {
    let gpu = gpu_with_room();
    let allocated = || {
        gpu.wait().unwrap();
        gpu.device().generate_allocator_report().expect("a device with an allocator report").total_allocated_bytes >> 20
    };

    // The tensor between the links is as large as a binding, 128 MiB on a software device. Input and output are a
    // sixteenth of that.
    let chain = Chain::new([Conv2d::pointwise(1, 16), Conv2d::pointwise(16, 1)]);
    let weights = [Weights::new(&[1.0; 16], &[1.0; 16]), Weights::new(&[0.5; 16], &[1.0])];
    let layer = gpu.chain_with(&chain, &weights, Choice::Named("direct".into()))?;
    let compute = |change: u32| {
        let y = layer.forward(&gpu.empty([1, 1, 1440 - change, 1440 + change], Layout::Nchw)?)?;
        gpu.download(&y).map(|values| assert!(values.iter().all(|&value| value == 9.0)))
    };
    (0..8).try_for_each(|size| compute(8 * size))?;

    // Only the layer's cached bind groups keep these tensors alive.
    let copy = gpu.conv2d(&Conv2d::pointwise(1, 1), Weights::new(&[1.0], &[0.0]))?;
    let (x, y) = (gpu.empty(mebibytes(100), Layout::Nchw)?, gpu.empty(mebibytes(100), Layout::Nchw)?);
    copy.encode(&mut gpu.device().create_command_encoder(&Default::default()), &x, &y)?;
    drop((x, y));
    let cached = allocated();
    assert!(cached > 300, "only {cached} MiB are cached");
    // This may fail, because a driver need not return all memory to the system.
    let large = gpu.empty(mebibytes(1900), Layout::Nchw);
    assert!(matches!(large, Ok(_) | Err(Error::OutOfMemory(_))), "{large:?}");
    drop(large);
    let cached = allocated();
    assert!(cached < 10, "{cached} MiB are still cached");
    // The layer recreates what it needs.
    compute(0)
}

#[test]
fn destroyed_and_foreign_buffers_are_refused() {
    let (gpu, other) = (gpu(), gpu());
    let layer = layer(&gpu);
    let bytes = 4 * input().len() as u64;
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let tensor = |gpu: &GpuConv, usage| {
        let descriptor = wgpu::BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation: false };
        Tensor::from_buffer(gpu.device().create_buffer(&descriptor), 0, SHAPE, Layout::Nchw)
    };
    let [own, output] = [tensor(&gpu, usage).unwrap(), tensor(&gpu, usage).unwrap()];
    let calls = |bad: &Tensor, name: &'static str| {
        [
            ("input", layer.bind(bad, &output).err()),
            ("output", layer.bind(&own, bad).err()),
            ("tensor", gpu.write(bad, &input()).err()),
            ("tensor", gpu.download(bad).err()),
        ]
        .map(|(role, error)| (if name.is_empty() { role } else { name }, error))
    };

    let foreign = tensor(&other, usage).unwrap();
    for (role, error) in calls(&foreign, "") {
        assert_eq!(error, Some(Error::ForeignTensor { shape: SHAPE.into() }), "{role}");
    }
    // The library knows the device of its own tensors.
    for (role, error) in calls(&other.upload(&input(), SHAPE).unwrap(), "") {
        assert_eq!(error, Some(Error::ForeignTensor { shape: SHAPE.into() }), "{role}");
    }
    let gone = tensor(&gpu, usage).unwrap();
    gone.buffer().destroy();
    for (tensor, error) in calls(&gone, "") {
        assert_eq!(error, Some(Error::Destroyed { tensor }));
    }
    let missing = tensor(&gpu, wgpu::BufferUsages::COPY_DST).err();
    assert_eq!(missing, Some(Error::Usage { tensor: "tensor", missing: "STORAGE" }));
    let bare = tensor(&gpu, wgpu::BufferUsages::STORAGE).unwrap();
    assert_eq!(gpu.write(&bare, &input()), Err(Error::Usage { tensor: "tensor", missing: "COPY_DST" }));
    assert_eq!(gpu.download(&bare), Err(Error::Usage { tensor: "tensor", missing: "COPY_SRC" }));
    assert_eq!(layer.bind(&own, &own).err(), Some(Error::Aliasing { tensor: "input" }));
    // Both devices still work.
    assert_works(&gpu);
    assert_works(&other);
}

/// The library is told that the device has subgroups, but it has none. So the driver refuses shaders that use them, and
/// the next best recipe must give the same results.
#[test]
fn a_refused_shader_is_replaced_by_the_next_best() {
    let adapter = pollster::block_on(GpuConv::adapter(None)).unwrap();
    let features = GpuConv::wanted_features() & adapter.features();
    let without = features - wgpu::Features::SUBGROUP;
    let plain = pollster::block_on(GpuConv::from_adapter_with(&adapter, without, adapter.limits())).unwrap();
    let gpu = plain.with_caps(|caps| Caps { subgroup: Some([8, 8]), is_cpu: true, ..caps });

    let named = Choice::Named("pointwise_subgroup".into());
    let chain = (&conv()).into();
    assert!(gpu.schedule(&chain, SHAPE, Layout::Nchw, &named).is_ok());
    assert_works(&gpu);
    // From then on it is refused by name, with the reason, and warm-up leaves it out.
    let refused = gpu.schedule(&chain, SHAPE, Layout::Nchw, &named);
    match refused {
        Err(Error::NoKernel { rejected, .. }) => {
            let why =
                rejected.iter().find(|(kernel, _)| kernel == "pointwise_subgroup").map(|(_, why)| why.to_string());
            assert_eq!(why.as_deref(), Some("the driver refused its shader"));
        }
        other => panic!("{other:?}"),
    }
    // The name of one of its recipes is still known, and no alternative schedule contains it.
    let recipe = Choice::Named("pointwise_subgroup/32x4".into());
    match gpu.schedule(&chain, SHAPE, Layout::Nchw, &recipe) {
        Err(Error::NoKernel { rejected, .. }) => assert_eq!(rejected[0].1, Unsupported::Refused),
        other => panic!("{other:?}"),
    }
    let alternatives = gpu.alternatives(&chain, SHAPE, Layout::Nchw).unwrap();
    assert!(alternatives.iter().all(|schedule| !schedule.name().contains("subgroup")));
    let fresh = plain.with_caps(|caps| Caps { subgroup: Some([8, 8]), is_cpu: true, ..caps });
    fresh.warm_up(&[(chain, SHAPE, Layout::Nchw)]).unwrap();
    assert_works(&fresh);
}

/// A copy that never ran gives an error, and never the earlier contents of its buffer. This holds if its encoder is not
/// submitted yet, if it or its commands were dropped, and if the device refused them.
#[test]
fn a_read_back_that_did_not_run_has_no_values() {
    for gpu in [gpu(), on_a_callers_device()] {
        let [earlier, x] = [7.0, 1.0].map(|value| gpu.upload(&[value; 4], [1, 1, 2, 2]).unwrap());
        let download = || assert_eq!(gpu.download(&earlier).unwrap(), [7.0; 4]);
        let begin = || {
            let mut encoder = new_encoder(&gpu);
            let readback = gpu.encode_download(&mut encoder, &x).unwrap();
            (encoder, readback)
        };
        let not_submitted = |readback: Readback| assert_eq!(readback.read(), Err(Error::NotSubmitted));
        download();

        // Submitting late does not disturb another read-back.
        let ((late, readback), (other, in_time)) = (begin(), begin());
        not_submitted(readback);
        gpu.queue().submit([late.finish()]);
        download();
        gpu.queue().submit([other.finish()]);
        assert_eq!(in_time.read().unwrap(), [1.0; 4]);

        for drop_it in [drop, |encoder: wgpu::CommandEncoder| drop(encoder.finish())] {
            let (encoder, readback) = begin();
            drop_it(encoder);
            not_submitted(readback);
            let (encoder, readback) = begin();
            let values = readback.read_async();
            drop_it(encoder);
            assert_eq!(pollster::block_on(values), Err(Error::NotSubmitted));
            download();
        }

        let usage = wgpu::BufferUsages::STORAGE;
        let descriptor = wgpu::BufferDescriptor { label: None, size: 4, usage, mapped_at_creation: false };
        let no_destination = gpu.device().create_buffer(&descriptor);
        // Repeat, because the next read-back may reuse the buffer.
        for _ in 0..3 {
            let (mut encoder, readback) = begin();
            encoder.clear_buffer(&no_destination, 0, None);
            let scope = gpu.device().push_error_scope(wgpu::ErrorFilter::Validation);
            gpu.queue().submit([encoder.finish()]);
            assert!(pollster::block_on(scope.pop()).is_some());
            not_submitted(readback);
            download();
        }
    }
}

/// `encode` notices a destroyed buffer even if its bind group is cached. A `BoundLayer` does not check, but does not
/// panic either: the device refuses its commands.
#[test]
fn cached_bind_groups_of_a_destroyed_buffer_are_refused() {
    let gpu = on_a_callers_device();
    let weight = weight();
    let conv = conv().residual(Residual::BeforeActivation);
    let layer = gpu.conv2d(&conv, Weights { weight: &weight, bias: None }).unwrap();
    for (destroyed, name) in ["input", "residual", "output"].into_iter().enumerate() {
        let tensors = [(); 3].map(|()| gpu.upload(&input(), SHAPE).unwrap());
        let [x, residual, y] = &tensors;
        let bound = layer.bind((x, residual), y).unwrap();
        let mut encoder = new_encoder(&gpu);
        layer.encode(&mut encoder, (x, residual), y).unwrap();
        gpu.queue().submit([encoder.finish()]);

        tensors[destroyed].buffer().destroy();
        let mut encoder = new_encoder(&gpu);
        let outcome = layer.encode(&mut encoder, (x, residual), y);
        assert_eq!(outcome, Err(Error::Destroyed { tensor: name }));
        // The encoder is still valid.
        gpu.queue().submit([encoder.finish()]);
        let mut encoder = new_encoder(&gpu);
        bound.encode(&mut encoder);
        let scope = gpu.device().push_error_scope(wgpu::ErrorFilter::Validation);
        gpu.queue().submit([encoder.finish()]);
        assert!(pollster::block_on(scope.pop()).is_some());
    }
    assert_works(&gpu);
}

/// A tensor that cannot be read back is refused before anything is recorded.
#[test]
fn a_refused_read_back_leaves_the_encoder_valid() {
    let (gpu, other) = (on_a_callers_device(), gpu());
    let [x, gone] = [(); 2].map(|()| gpu.upload(&input(), SHAPE).unwrap());
    gone.buffer().destroy();
    let foreign = other.upload(&input(), SHAPE).unwrap();
    let foreign_buffer = Tensor::from_buffer(foreign.buffer().clone(), 0, SHAPE, Layout::Nchw).unwrap();
    let mut encoder = new_encoder(&gpu);
    let destroyed = Error::Destroyed { tensor: "tensor" };
    assert_eq!(gpu.encode_download(&mut encoder, &gone).err(), Some(destroyed));
    for foreign in [&foreign, &foreign_buffer] {
        let error = gpu.encode_download(&mut encoder, foreign).err();
        assert_eq!(error, Some(Error::ForeignTensor { shape: SHAPE.into() }));
    }
    let values = gpu.encode_download(&mut encoder, &x).unwrap();
    gpu.queue().submit([encoder.finish()]);
    assert_eq!(values.read().unwrap(), input());
}

/// Each instance of wgpu numbers its devices and buffers from the start. So the first devices of two instances compare
/// equal, and their first buffers too. The library must tell them apart.
#[test]
fn a_tensor_of_another_instance_is_refused() {
    let [gpu, other] = [(); 2].map(|()| {
        let descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
        let backends = descriptor.backends;
        let adapters = pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(backends));
        pollster::block_on(GpuConv::from_adapter(&adapters[0])).unwrap()
    });
    assert_eq!(gpu.device(), other.device());
    let layer = layer(&gpu);
    let [x, y, foreign] = [&gpu, &gpu, &other].map(|gpu| gpu.upload(&input(), SHAPE).unwrap());
    let mut encoder = new_encoder(&gpu);
    // This caches bind groups.
    layer.encode(&mut encoder, &x, &y).unwrap();
    let outcomes = [
        layer.forward(&foreign).err(),
        layer.bind(&foreign, &y).err(),
        layer.bind(&x, &foreign).err(),
        layer.encode(&mut encoder, &foreign, &y).err(),
        layer.encode(&mut encoder, &x, &foreign).err(),
        gpu.write(&foreign, &input()).err(),
        gpu.download(&foreign).err(),
        pollster::block_on(gpu.download_async(&foreign)).err(),
        gpu.encode_download(&mut encoder, &foreign).err(),
    ];
    for outcome in outcomes {
        assert_eq!(outcome, Some(Error::ForeignTensor { shape: SHAPE.into() }));
    }
    gpu.queue().submit([encoder.finish()]);
    assert_eq!(gpu.download(&y).unwrap(), expected());
}
