//! Memory on the host and on the device: schedules hold no text of shaders, layers share one workspace, and caches keep
//! within their bounds.

use std::alloc::{GlobalAlloc, Layout as Allocation, System};
use std::cell::Cell;

use gpuconv::internals::random;
use gpuconv::{
    Caps, Chain, Choice, Conv2d, DType, GpuConv, Layer, Layout, OwnedWeights, Shape, Tensor, Weights, nets, oracle,
    planner,
};

/// Counts allocations per thread, because all tests of a program share its heap.
struct Counting;

thread_local! {
    /// Bytes allocated and not freed.
    static LIVE: Cell<i64> = const { Cell::new(0) };
    /// Bytes allocated in all.
    static ALLOCATED: Cell<i64> = const { Cell::new(0) };
}

fn count(live: i64, allocated: i64) {
    // A thread that is ending has no counters.
    let _ = LIVE.try_with(|cell| cell.set(cell.get() + live));
    let _ = ALLOCATED.try_with(|cell| cell.set(cell.get() + allocated));
}

// SAFETY: the system's allocator does all the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Allocation) -> *mut u8 {
        count(layout.size() as i64, layout.size() as i64);
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Allocation) {
        count(-(layout.size() as i64), 0);
        // SAFETY: as the caller says.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The result of some work, the bytes that the work allocates, and the bytes that the result holds.
fn host_bytes<T>(work: impl FnOnce() -> T) -> (T, i64, i64) {
    let before = (LIVE.get(), ALLOCATED.get());
    let result = work();
    (result, ALLOCATED.get() - before.1, LIVE.get() - before.0)
}

/// A network's schedule has a few dozen steps out of 900 candidates. The text of all their shaders would be 18 MB.
#[test]
fn planning_renders_no_shaders() {
    let network = nets::mobilenet_v2(1.0, 1000).unwrap();
    let gpu = Caps { max_invocations: 1024, max_workgroup_memory: 32768, subgroup: Some([32, 64]), ..Caps::webgpu() };
    for caps in [Caps::webgpu(), gpu] {
        let plan = || planner::schedule(&network.chain, [1, 3, 224, 224], Layout::Nchw, &caps, &Choice::Auto).unwrap();
        let (schedule, allocated, held) = host_bytes(plan);
        let candidates = schedule.considered.iter().flat_map(|considered| considered.answer.iter().flatten()).count();
        println!("{candidates} candidates: {held} bytes held, {allocated} allocated");
        assert!(candidates > 500, "only {candidates} candidates");
        assert!(held < 1_600 * candidates as i64, "{held} bytes are held");
        assert!(allocated < 6_000_000, "{allocated} bytes were allocated");
    }
}

fn gpu() -> GpuConv {
    GpuConv::new().unwrap_or_else(|error| panic!("{error}"))
}

/// The bytes of all buffers of the device, after all work is done.
fn device_bytes(gpu: &GpuConv) -> u64 {
    gpu.wait().unwrap();
    gpu.device().generate_allocator_report().expect("a device with an allocator report").total_allocated_bytes
}

/// A chain with weights. By default the tensors between its links are many times as large as its input and output.
struct Subject {
    chain: Chain,
    weights: Vec<OwnedWeights>,
}

impl Subject {
    fn new(channels: u32) -> Self {
        Self::of(Chain::new([
            Conv2d::pointwise(1, channels),
            Conv2d::pointwise(channels, channels),
            Conv2d::pointwise(channels, 1),
        ]))
    }

    fn of(chain: Chain) -> Self {
        let draw = |(index, conv): (usize, &Conv2d)| OwnedWeights {
            weight: random::integers(&format!("w{index}"), conv.weight_shape().len(), 2),
            bias: Some(random::integers(&format!("b{index}"), conv.out_channels.into(), 2)),
        };
        let weights = chain.convolutions().map(draw).collect();
        Self { chain, weights }
    }

    fn weights(&self) -> Vec<Weights<'_>> {
        self.weights.iter().map(OwnedWeights::borrow).collect()
    }

    /// A layer of few shaders, because software devices compile slowly.
    fn layer(&self, gpu: &GpuConv) -> Layer {
        gpu.chain_with(&self.chain, &self.weights(), Choice::Named("direct/4x4+direct/4x4+direct/4x1".into())).unwrap()
    }

    fn answer(&self, input: &[f32], shape: Shape) -> Vec<f32> {
        let answer = oracle::run(&self.chain, input, shape, &self.weights(), None).unwrap();
        answer.values.iter().map(|&value| value as f32).collect()
    }
}

fn image(width: u32) -> Shape {
    [1, 1, 64, width].into()
}

/// Input and output tensors for an image of this width.
fn tensors(gpu: &GpuConv, width: u32) -> [Tensor; 2] {
    [(); 2].map(|()| gpu.empty(image(width), Layout::Nchw).unwrap())
}

fn encode(gpu: &GpuConv, layer: &Layer, [x, y]: &[Tensor; 2]) {
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    layer.encode(&mut encoder, x, y).unwrap();
    gpu.queue().submit([encoder.finish()]);
}

/// A layer that runs on many sizes takes little more memory than for the largest alone, in ascending or descending
/// order.
#[test]
#[cfg_attr(target_vendor = "apple", ignore = "Metal does not say what is allocated")]
fn the_sizes_of_a_layer_share_a_workspace() {
    let subject = Subject::new(64);
    let widths: Vec<u32> = (64..=416).step_by(32).collect();
    let bytes_after = |order: &[u32]| {
        let gpu = gpu();
        // Always create the tensors of all sizes, so that they do not affect the difference.
        let all: Vec<_> = widths.iter().map(|&width| tensors(&gpu, width)).collect();
        let (layer, before) = (subject.layer(&gpu), device_bytes(&gpu));
        for width in order {
            let tensors = &all[widths.iter().position(|known| known == width).unwrap()];
            layer.forward(&tensors[0]).unwrap();
            encode(&gpu, &layer, tensors);
        }
        device_bytes(&gpu) - before
    };
    let largest = bytes_after(&[416]);
    assert!(largest > 2 * 64 * image(416).bytes(DType::F32), "{largest} bytes for the largest image");
    let (down, up): (Vec<_>, Vec<_>) = (widths.iter().rev().copied().collect(), widths.clone());
    for order in [up, down] {
        let bytes = bytes_after(&order);
        let share = bytes as f64 / largest as f64;
        println!("{bytes} bytes after twelve sizes, {share:.2} times those of the largest");
        assert!(share < 1.3, "{bytes} bytes after {order:?}, {largest} for the largest alone");
    }
}

/// The layers of a device share one workspace, which is only as large as the existing layers need.
#[test]
#[cfg_attr(target_vendor = "apple", ignore = "Metal does not say what is allocated")]
fn layers_share_a_workspace_and_release_it() {
    let (gpu, small, large) = (gpu(), Subject::new(8), Subject::new(64));
    let pairs = [128, 256].map(|width| tensors(&gpu, width));
    let before = device_bytes(&gpu);
    let first = small.layer(&gpu);
    encode(&gpu, &first, &pairs[0]);
    let alone = device_bytes(&gpu) - before;
    let second = large.layer(&gpu);
    encode(&gpu, &second, &pairs[1]);
    // The first layer's bind groups do not keep the old, smaller workspace alive.
    let both = device_bytes(&gpu) - before;
    assert!(
        both < 2 * 64 * image(256).bytes(DType::F32) + alone / 2,
        "{both} bytes for two layers, {alone} for the first"
    );
    drop(second);
    encode(&gpu, &first, &pairs[0]);
    let after = device_bytes(&gpu) - before;
    assert!(after < alone + alone / 4, "{after} bytes without the second layer, {alone} before it was made");
    // The cache drops the plan for a large image when it becomes the oldest of too many.
    first.forward(&pairs[1][0]).unwrap();
    let large = device_bytes(&gpu) - before;
    for width in 1..=65 {
        first.forward(&tensors(&gpu, width)[0]).unwrap();
    }
    let after = device_bytes(&gpu) - before;
    assert!(after < large / 2, "{after} bytes after the plan for the large image was dropped, {large} before");
    drop(first);
    let after = device_bytes(&gpu).saturating_sub(before);
    assert!(after < alone / 4, "{after} bytes are still allocated");
}

/// A layer's cached bind groups keep dropped tensors alive, but only up to a bound in bytes.
#[test]
#[cfg_attr(target_vendor = "apple", ignore = "Metal does not say what is allocated")]
fn tensors_that_bind_groups_keep_alive_are_bounded_in_bytes() {
    let gpu = gpu();
    let conv = Conv2d::pointwise(1, 1);
    let layer = gpu.conv2d(&conv, Weights::new(&[1.0], &[0.0])).unwrap();
    let pair = || [(); 2].map(|()| gpu.empty([1, 1, 4096, 4096], Layout::Nchw).unwrap());
    let bytes = 2 * pair()[0].shape().bytes(DType::F32);
    let before = device_bytes(&gpu);
    // Nothing is submitted, so the tensors take no physical memory.
    for _ in 0..6 {
        let [x, y] = pair();
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        layer.encode(&mut encoder, &x, &y).unwrap();
    }
    let cached = device_bytes(&gpu) - before;
    assert!(cached <= (256 << 20) + bytes + (1 << 20), "{cached} bytes are cached");
    // The last pair is always cached, even if it is large.
    assert!(cached >= bytes, "only {cached} bytes are cached");
}

/// Layers that share a workspace do not disturb each other, in any order of recording and submitting.
#[test]
fn layers_that_share_a_workspace_are_right_in_any_order() {
    let (gpu, subjects) = (gpu(), [Subject::new(8), Subject::new(12)]);
    let layers = subjects.each_ref().map(|subject| subject.layer(&gpu));
    // The first was bound before the workspace grew; the others share the larger one.
    let cases = [(0, 64), (1, 96), (1, 40), (0, 80)];
    let bind = |(which, width): (usize, u32)| {
        let (shape, [_, y]) = (image(width), tensors(&gpu, width));
        let input = random::integers(&format!("x{which} {width}"), shape.len(), 2);
        let x = gpu.upload(&input, shape).unwrap();
        let bound = layers[which].bind(&x, &y).unwrap();
        (bound, y, subjects[which].answer(&input, shape))
    };
    let bound: Vec<_> = cases.into_iter().map(bind).collect();
    let check = |label: &str| {
        for ((which, width), (_, y, right)) in cases.iter().zip(&bound) {
            assert_eq!(&gpu.download(y).unwrap(), right, "{label}: layer {which}, {width} columns");
            gpu.write(y, &vec![f32::NAN; right.len()]).unwrap();
        }
    };
    let encoder = || gpu.device().create_command_encoder(&Default::default());
    for order in [[0, 1, 2, 3], [3, 1, 0, 2]] {
        let mut one = encoder();
        order.iter().for_each(|&case| bound[case].0.encode(&mut one));
        gpu.queue().submit([one.finish()]);
        check("one encoder");

        let mut one = encoder();
        let mut pass = one.begin_compute_pass(&Default::default());
        order.iter().for_each(|&case| bound[case].0.dispatch(&mut pass));
        drop(pass);
        gpu.queue().submit([one.finish()]);
        check("one pass");

        // Record into two encoders in turn, and submit them in reverse order, together or one after the other.
        for at_once in [true, false] {
            let mut two = [encoder(), encoder()];
            order.iter().enumerate().for_each(|(turn, &case)| bound[case].0.encode(&mut two[turn % 2]));
            let commands = two.map(wgpu::CommandEncoder::finish).into_iter().rev();
            if at_once {
                gpu.queue().submit(commands);
            } else {
                for commands in commands {
                    gpu.queue().submit([commands]);
                }
            }
            check("two encoders");
        }
    }

    // Drop the layers, and use two threads, each with its own encoder.
    drop(layers);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (gpu, bound, encoder) = (&gpu, &bound, &encoder);
            scope.spawn(move || {
                for _ in 0..8 {
                    let mut own = encoder();
                    [thread, thread + 2].iter().for_each(|&case| bound[case].0.encode(&mut own));
                    gpu.queue().submit([own.finish()]);
                }
            });
        }
    });
    check("two threads");
}

/// The earlier contents of the workspace do not matter, even to a kernel that reads more of it than it writes.
#[test]
fn earlier_contents_of_the_workspace_do_not_matter() {
    // Plan for a GPU, because more of its kernels use a workspace.
    let gpu = gpu().with_caps(|caps| Caps { is_cpu: false, ..caps });
    let poison = Subject::new(8).layer(&gpu);
    let nans = gpu.upload(&vec![f32::NAN; image(64).len() as usize], image(64)).unwrap();
    let winograd = Conv2d::new(4, 4, 3).padding(1);
    let cases =
        [("winograd/2x2-32x32x16", winograd, [1, 4, 5, 5]), ("split", Conv2d::pointwise(128, 8), [1, 128, 3, 3])];
    for (kernel, conv, shape) in cases {
        let (subject, shape) = (Subject::of(conv.into()), Shape::from(shape));
        let layer = gpu.chain_with(&subject.chain, &subject.weights(), Choice::Named(kernel.into())).unwrap();
        let input = random::integers(kernel, shape.len(), 2);
        let x = gpu.upload(&input, shape).unwrap();
        poison.forward(&nans).unwrap();
        let y = layer.forward(&x).unwrap();
        assert_eq!(gpu.download(&y).unwrap(), subject.answer(&input, shape), "{kernel}");
        let workspace = layer.schedule(shape, Layout::Nchw).unwrap().workspace.bytes();
        assert!(0 < workspace && workspace < image(64).bytes(DType::F32), "{workspace} bytes of {kernel}");
    }
}
