//! What is kept, on the host and on the device: little text, one workspace, and no more tensors than is promised.

use std::alloc::{GlobalAlloc, Layout as Allocation, System};
use std::cell::Cell;

use gpuconv::{
    Caps, Chain, Choice, Conv2d, GpuConv, Layer, Layout, OwnedWeights, Shape, Tensor, Weights, nets, oracle, planner,
    random,
};

/// Counts what each thread allocates, for the tests of a program share its heap.
struct Counting;

thread_local! {
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static MADE: Cell<i64> = const { Cell::new(0) };
}

/// A thread that ends has no counters any more.
fn count(live: i64, made: i64) {
    let _ = LIVE.try_with(|cell| cell.set(cell.get() + live));
    let _ = MADE.try_with(|cell| cell.set(cell.get() + made));
}

// SAFETY: the system's allocator does it all.
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

/// What some work allocates, and what of it its result keeps, bytes.
fn host_bytes<T>(work: impl FnOnce() -> T) -> (T, i64, i64) {
    let before = (LIVE.get(), MADE.get());
    let result = work();
    (result, MADE.get() - before.1, LIVE.get() - before.0)
}

/// A network's plan has a few dozen steps of 900 candidates; the text of their shaders is 18 MB.
#[test]
fn a_schedule_has_no_text_of_shaders_and_is_made_without() {
    let network = nets::mobilenet_v2(1.0, 1000).unwrap();
    let gpu = Caps { max_invocations: 1024, max_workgroup_memory: 32768, subgroup: Some([32, 64]), ..Caps::webgpu() };
    for caps in [Caps::webgpu(), gpu] {
        let plan = || planner::schedule(&network.chain, [1, 3, 224, 224], Layout::Nchw, &caps, &Choice::Auto).unwrap();
        let (schedule, made, kept) = host_bytes(plan);
        let candidates = schedule.considered.iter().flat_map(|considered| considered.answer.iter().flatten()).count();
        println!("{candidates} candidates: {kept} bytes, for which {made} were allocated");
        assert!(candidates > 500, "only {candidates} candidates");
        assert!(kept < 1_000_000, "{kept} bytes are kept");
        assert!(made < 6_000_000, "{made} bytes were allocated");
    }
}

fn gpu() -> GpuConv {
    GpuConv::new().unwrap_or_else(|error| panic!("{error}"))
}

/// What the device's buffers take once all work is done, bytes.
fn device_bytes(gpu: &GpuConv) -> u64 {
    gpu.wait().unwrap();
    gpu.device().generate_allocator_report().expect("a device that says what it has allocated").total_allocated_bytes
}

/// A chain with weights; by default one whose tensors inside are many times as large as its input and its output.
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

    /// Of few shaders, since software devices take long to compile each.
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

/// Input and output of an image.
fn tensors(gpu: &GpuConv, width: u32) -> [Tensor; 2] {
    [(); 2].map(|()| gpu.empty(image(width), Layout::Nchw).unwrap())
}

fn encode(gpu: &GpuConv, layer: &Layer, [x, y]: &[Tensor; 2]) {
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    layer.encode(&mut encoder, x, y).unwrap();
    gpu.queue().submit([encoder.finish()]);
}

/// A layer that meets ever larger images, and smaller ones, takes little more memory than for the largest alone.
#[test]
#[cfg_attr(target_vendor = "apple", ignore = "Metal does not say what is allocated")]
fn the_sizes_of_a_layer_share_a_workspace() {
    let subject = Subject::new(64);
    let widths: Vec<u32> = (64..=416).step_by(32).collect();
    let bytes_after = |order: &[u32]| {
        let gpu = gpu();
        // Tensors of all sizes in any case: they are the caller's.
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
    assert!(largest > 2 * 64 * image(416).bytes(), "{largest} bytes for the largest image");
    let (down, up): (Vec<_>, Vec<_>) = (widths.iter().rev().copied().collect(), widths.clone());
    for order in [up, down] {
        let bytes = bytes_after(&order);
        let share = bytes as f64 / largest as f64;
        println!("{bytes} bytes after twelve sizes, {share:.2} times those of the largest");
        assert!(share < 1.3, "{bytes} bytes after {order:?}, {largest} for the largest alone");
    }
}

/// Layers of a device share theirs, and it is as large as those that are there need.
#[test]
#[cfg_attr(target_vendor = "apple", ignore = "Metal does not say what is allocated")]
fn layers_share_a_workspace_and_let_go_of_it() {
    let (gpu, small, large) = (gpu(), Subject::new(8), Subject::new(64));
    let pairs = [128, 256].map(|width| tensors(&gpu, width));
    let before = device_bytes(&gpu);
    let first = small.layer(&gpu);
    encode(&gpu, &first, &pairs[0]);
    let alone = device_bytes(&gpu) - before;
    let second = large.layer(&gpu);
    encode(&gpu, &second, &pairs[1]);
    // The first layer's bindings do not hold on to the smaller workspace that there was.
    let both = device_bytes(&gpu) - before;
    assert!(both < 2 * 64 * image(256).bytes() + alone / 2, "{both} bytes for two layers, {alone} for the first");
    drop(second);
    encode(&gpu, &first, &pairs[0]);
    let after = device_bytes(&gpu) - before;
    assert!(after < alone + alone / 4, "{after} bytes without the second, {alone} before it was");
    // The plan of a large image is dropped when it is the oldest of many.
    first.forward(&pairs[1][0]).unwrap();
    let large = device_bytes(&gpu) - before;
    for width in 1..=65 {
        first.forward(&tensors(&gpu, width)[0]).unwrap();
    }
    let after = device_bytes(&gpu) - before;
    assert!(after < large / 2, "{after} bytes when the large image is forgotten, {large} before");
    drop(first);
    let after = device_bytes(&gpu).saturating_sub(before);
    assert!(after < alone / 4, "{after} bytes are still there");
}

/// What a layer keeps for tensors that were dropped meanwhile is bounded in bytes.
#[test]
#[cfg_attr(target_vendor = "apple", ignore = "Metal does not say what is allocated")]
fn tensors_that_bindings_keep_are_bounded_in_bytes() {
    let gpu = gpu();
    let conv = Conv2d::pointwise(1, 1);
    let layer = gpu.conv2d(&conv, Weights::new(&[1.0], &[0.0])).unwrap();
    let pair = || [(); 2].map(|()| gpu.empty([1, 1, 4096, 4096], Layout::Nchw).unwrap());
    let bytes = 2 * pair()[0].shape().bytes();
    let before = device_bytes(&gpu);
    // Nothing is submitted, so none of it is touched.
    for _ in 0..6 {
        let [x, y] = pair();
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        layer.encode(&mut encoder, &x, &y).unwrap();
    }
    let kept = device_bytes(&gpu) - before;
    assert!(kept <= (256 << 20) + bytes + (1 << 20), "{kept} bytes are kept");
    // Those of the last pair are kept, large as they are.
    assert!(kept >= bytes, "{kept} bytes are kept");
}

/// What runs in between in the same workspace leaves no trace, in any order of recording and submitting.
#[test]
fn what_shares_a_workspace_computes_the_same_in_any_order() {
    let (gpu, subjects) = (gpu(), [Subject::new(8), Subject::new(12)]);
    let layers = subjects.each_ref().map(|subject| subject.layer(&gpu));
    // The first has a workspace that has grown since, the others share one.
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

        // Recorded in turns, submitted the other way round, at once and one after the other.
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

    // From two threads when the layers are gone, each into an encoder of its own.
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

/// Nor does what was in the workspace before, where a kernel writes less of it than it reads.
#[test]
fn what_was_in_a_workspace_does_not_show() {
    // As a GPU, for which there are more kernels with a workspace.
    let gpu = gpu().with_caps(|caps| Caps { is_cpu: false, ..caps });
    let poison = Subject::new(8).layer(&gpu);
    let nans = gpu.upload(&vec![f32::NAN; image(64).len() as usize], image(64)).unwrap();
    let winograd = Conv2d::new(4, 4, 3).padding(1);
    let cases =
        [("winograd/2x2-64x64x16", winograd, [1, 4, 5, 5]), ("split", Conv2d::pointwise(128, 8), [1, 128, 3, 3])];
    for (kernel, conv, shape) in cases {
        let (subject, shape) = (Subject::of(conv.into()), Shape::from(shape));
        let layer = gpu.chain_with(&subject.chain, &subject.weights(), Choice::Named(kernel.into())).unwrap();
        let input = random::integers(kernel, shape.len(), 2);
        let x = gpu.upload(&input, shape).unwrap();
        poison.forward(&nans).unwrap();
        let y = layer.forward(&x).unwrap();
        assert_eq!(gpu.download(&y).unwrap(), subject.answer(&input, shape), "{kernel}");
        let workspace = layer.schedule(shape, Layout::Nchw).unwrap().workspace.bytes();
        assert!(0 < workspace && workspace < image(64).bytes(), "{workspace} bytes of {kernel}");
    }
}
