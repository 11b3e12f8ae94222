//! Sizes at the limits of a device or of an index, and one beyond: they are computed, or refused with the numbers.

use std::sync::Mutex;

use gpuconv::internals::random;
use gpuconv::planner::images_at_once;
use gpuconv::verify::Oracle;
use gpuconv::{
    Caps, Chain, Choice, Conv2d, Error, GpuConv, Layout, Problem, Residual, Separable, Shape, Weights, oracle, planner,
    shape, verify,
};

use crate::common::{as_gpu, borrow, draw, gpu};

/// Lets tests that take hundreds of megabytes run one at a time.
static LARGE: Mutex<()> = Mutex::new(());

/// A device with the lowest limits that wgpu defines for compute.
fn downlevel() -> GpuConv {
    let adapter = pollster::block_on(GpuConv::adapter(None)).unwrap_or_else(|error| panic!("{error}"));
    let features = adapter.features() & GpuConv::wanted_features();
    pollster::block_on(GpuConv::from_adapter_with(&adapter, features, wgpu::Limits::downlevel_defaults())).unwrap()
}

/// Weights, input and residual of a chain. They are whole numbers, so that results are exact.
struct Case {
    chain: Chain,
    input: Shape,
    weights: Vec<(Vec<f32>, Vec<f32>)>,
    values: Vec<f32>,
    residual: Option<Vec<f32>>,
}

impl Case {
    fn new(chain: impl Into<Chain>, input: [u32; 4]) -> Self {
        let (chain, input) = (chain.into(), Shape::from(input));
        let residual = residual_shape(&chain, input).map(|shape| random::integers("residual", shape.len(), 2));
        let weights = draw(&chain);
        Self { weights, input, values: random::integers("input", input.len(), 2), residual, chain }
    }

    fn weights(&self) -> Vec<Weights<'_>> {
        borrow(&self.weights)
    }

    /// Computes the case on a device, and compares with the oracle. Returns how many images are computed at a time.
    fn check(&self, gpu: &GpuConv, layout: Layout, choice: Choice) -> Result<u32, Error> {
        let answer = oracle::run(&self.chain, &self.values, self.input, &self.weights(), self.residual.as_deref())?;
        let right: Vec<_> = answer.values.iter().map(|&value| value as f32).collect();
        let layer = gpu.chain_with(&self.chain, &self.weights(), choice)?;
        let output = layer.output_shape(self.input)?;
        let upload = |values: &[f32], shape| gpu.upload_as(&shape::from_nchw(values, shape, layout), shape, layout);
        let x = upload(&self.values, self.input)?;
        let y = match self.residual.as_ref().zip(residual_shape(&self.chain, self.input)) {
            Some((residual, shape)) => layer.forward((&x, &upload(residual, shape)?))?,
            None => layer.forward(&x)?,
        };
        assert_eq!(shape::to_nchw(&gpu.download(&y)?, output, layout), right, "{} {layout}", self.input);
        Ok(layer.schedule(self.input, layout)?.steps[0].recipe.passes[0].params.batch)
    }
}

/// The shape of the residual that the caller passes to a chain.
fn residual_shape(chain: &Chain, input: Shape) -> Option<Shape> {
    Some(chain.shapes(input).unwrap()[chain.outside_residual()? + 1])
}

/// Computes link by link, with the kernel that compiles fastest.
fn direct() -> Choice {
    Choice::Named("direct".into())
}

/// A device with this limit of bytes for a binding.
fn narrow(gpu: &GpuConv, max_storage_binding: u64) -> GpuConv {
    gpu.with_caps(|caps| Caps { max_storage_binding, ..caps })
}

#[test]
fn a_batch_larger_than_a_binding_is_computed_in_bands() {
    let gpu = downlevel();
    // 4096 bytes for each image of the input, and of the output.
    let separable = || Separable::new(16, 16, 3).padding(1).residual(Residual::BeforeActivation);
    for layout in [Layout::Nchw, Layout::Nhwc] {
        for (batch, limit, expected) in
            [(5, 5 * 4096, 5), (5, 5 * 4096 - 1, 4), (6, 5 * 4096, 5), (7, 3 * 4096, 3), (3, 4096, 1)]
        {
            let case = Case::new(Chain::from(separable()), [batch, 16, 8, 8]);
            assert_eq!(case.check(&narrow(&gpu, limit), layout, direct()), Ok(expected), "{batch} in {limit}");
        }
    }
    // An edge from the input. The expanded tensors, of 6144 bytes, are the first that do not fit.
    let chain = || Chain::inverted_residual(4, 4, 6, 1);
    let case = Case::new(chain(), [9, 4, 8, 8]);
    assert_eq!(case.check(&narrow(&gpu, 6144 * 4), Layout::Nchw, direct()), Ok(4));
    // Images of 240 bytes: only every 16th starts at an offset where a binding can start.
    let case = Case::new(Conv2d::depthwise(4, 3).padding(1), [50, 4, 5, 3]);
    assert_eq!(case.check(&narrow(&gpu, 240 * 47), Layout::Nchw, Choice::Auto), Ok(32));
    // A chain in which a single image of the second link's input is too large; images of 240 bytes, too few of which
    // fit for bands to start where a binding can; and images that are too large.
    let wide = Chain::from(Conv2d::pointwise(1, 64)).then(Conv2d::pointwise(64, 1));
    assert_eq!(Case::new(wide, [2, 1, 8, 8]).check(&narrow(&gpu, 16383), Layout::Nchw, direct()), Ok(1));
    let images = case.check(&narrow(&gpu, 240 * 16 - 1), Layout::Nchw, Choice::Auto).unwrap();
    assert!((1..16).contains(&images), "{images} images");
    assert_eq!(Case::new(chain(), [1, 4, 8, 8]).check(&narrow(&gpu, 1023), Layout::Nchw, Choice::Auto), Ok(1));
    // An output depends on 64 bytes.
    let case = || Case::new(Conv2d::pointwise(16, 1), [1, 16, 8, 8]);
    assert_eq!(case().check(&narrow(&gpu, 80), Layout::Nchw, direct()), Ok(1));
    let refused = case().check(&narrow(&gpu, 63), Layout::Nchw, direct());
    assert!(matches!(refused, Err(Error::TooLarge { needed: 64, limit: 63, .. })), "{refused:?}");
}

#[test]
fn bands_of_a_residual_start_at_aligned_offsets() {
    let gpu = downlevel();
    // Images of 48 bytes: every 16th can start a band.
    let inner = Conv2d::pointwise(64, 3).residual(Residual::BeforeActivation);
    let case = |batch| Case::new(Chain::from(inner.clone()).then(Conv2d::pointwise(3, 64)), [batch, 64, 2, 2]);
    assert_eq!(case(18).check(&narrow(&gpu, 17 * 1024), Layout::Nchw, direct()), Ok(16));
    // Too few images fit.
    let images = case(6).check(&narrow(&gpu, 5 * 1024), Layout::Nchw, direct()).unwrap();
    assert!((1..=5).contains(&images), "{images} images");
}

/// A recipe for several images is chosen by name, and the last band has a single image.
#[test]
fn the_last_band_uses_the_named_kernel_too() {
    let gpu = downlevel().with_caps(|caps| Caps { max_storage_binding: 65 * 256, is_cpu: false, ..caps });
    let case = Case::new(Conv2d::pointwise(64, 64), [66, 64, 1, 1]);
    assert_eq!(case.check(&gpu, Layout::Nchw, Choice::Named("matvec/32x4x16".into())), Ok(65));
    assert!(case.check(&gpu, Layout::Nchw, Choice::Named("matvec/32x1x32".into())).is_err());
}

/// Tests the limit that the device itself enforces: two images of 64 MiB fit into a binding.
#[test]
fn the_largest_binding_of_the_device_can_be_used() {
    let (gpu, _alone) = (downlevel(), LARGE.lock());
    assert_eq!(gpu.caps().max_storage_binding, 128 << 20);
    let conv = Conv2d::depthwise(1, 1).stride(2).bias(false);
    let layer = gpu.conv2d(&conv, Weights { weight: &[3.0], bias: None }).unwrap();
    let (batch, side) = (3, 4096);
    let values: Vec<f32> = (0..batch * side * side).map(|at| (at % 8191) as f32).collect();
    let x = gpu.upload(&values, [batch, 1, side, side]).unwrap();
    let y = gpu.download(&layer.forward(&x).unwrap()).unwrap();
    let planned = layer.schedule(x.shape(), Layout::Nchw).unwrap();
    assert_eq!(planned.steps[0].recipe.passes[0].params.batch, 2);
    let [half, side] = [side / 2, side].map(|side| side as usize);
    let right =
        |at: usize| values[at / half * 2 % side * side + at / (half * half) * side * side + at % half * 2] * 3.0;
    assert_eq!(y.len(), batch as usize * half * half);
    assert_eq!(y.iter().enumerate().find(|&(at, &value)| value != right(at)), None);
    // A single image that does not fit.
    let (height, width) = (4096, 8193);
    let values: Vec<f32> = (0..height * width).map(|at| (at % 8191) as f32).collect();
    let y = layer.forward(&gpu.upload(&values, [1, 1, height, width]).unwrap()).unwrap();
    let half = width.div_ceil(2) as usize;
    let right = |at: usize| values[at / half * 2 * width as usize + at % half * 2] * 3.0;
    let y = gpu.download(&y).unwrap();
    assert_eq!((y.len(), y.iter().enumerate().find(|&(at, &value)| value != right(at))), (2048 * half, None));
    // This tensor would be larger than a buffer can be.
    let refused = gpu.empty([1, 1, 8192, 8193], Layout::Nchw).err();
    let too_large = Error::TooLarge { what: "the tensor buffer".into(), needed: 8192 * 8193 * 4, limit: 256 << 20 };
    assert_eq!(refused, Some(too_large));
}

#[test]
fn a_grid_is_folded_or_refused() {
    let gpu = downlevel();
    // A workgroup computes 64 quads of pixels, which is one row.
    let workgroups = |rows: u32, most: u32| {
        let case = Case::new(Conv2d::pointwise(1, 1), [1, 1, rows, 256]);
        let gpu = gpu.with_caps(|caps| Caps { max_workgroups: most, ..caps });
        case.check(&gpu, Layout::Nchw, direct())
    };
    for rows in [1, 2, 3, 4, 7, 9] {
        assert_eq!(workgroups(rows, 3), Ok(1), "{rows} workgroups");
    }
    match workgroups(10, 3) {
        Err(Error::NoKernel { rejected, .. }) => {
            let refused = planner::Unsupported::Grid { needed: 10, limit: 9 };
            assert!(rejected.contains(&("direct".into(), refused)), "{rejected:?}");
        }
        other => panic!("{other:?}"),
    }
    // One more than the device's own limit.
    assert_eq!(gpu.caps().max_workgroups, 65535);
    let _alone = LARGE.lock();
    let shape = Shape::from([1, 1, 65536, 256]);
    let values: Vec<f32> = (0..shape.len()).map(|at| (at % 8191) as f32).collect();
    let layer = gpu.chain_with(&Conv2d::pointwise(1, 1).bias(false).into(), &[Weights::without_bias(&[3.0])], direct());
    let y = gpu.download(&layer.unwrap().forward(&gpu.upload(&values, shape).unwrap()).unwrap()).unwrap();
    assert_eq!(y.len(), values.len());
    assert_eq!(y.iter().zip(&values).position(|(y, x)| *y != 3.0 * x), None);
}

#[test]
fn gates_of_many_channels_take_a_pass_for_each_product() {
    for line in [
        "gate 1x2100x3x5 -> 300",
        "gate 3x2101x3x5 -> 301 silu sigmoid nhwc",
        "gate 2x2102x2x2 -> 30 relu hardsigmoid nobias f16",
        "gate 1x2100x1x3 -> 45 nhwc f16",
    ] {
        let problem: Problem = line.parse().unwrap();
        for gpu in [gpu(), as_gpu()] {
            let gpu = gpu.with_caps(|caps| Caps { max_workgroup_memory: 8192, ..caps });
            let schedule =
                planner::schedule(&problem.chain(), problem.input, problem.layout, gpu.caps(), &Choice::Auto).unwrap();
            assert_eq!(schedule.name(), "gate/apart", "{line}");
            let report = Oracle::new(&problem).unwrap().check(&gpu, &schedule).unwrap();
            assert!(report.passes(), "{line}: {report:?}");
        }
    }
}

/// A device whose only limit is that shaders count in 32 bits.
fn boundless() -> Caps {
    Caps { max_storage_binding: 1 << 44, max_buffer: 1 << 44, max_workgroups: 1 << 20, ..Caps::webgpu() }
}

/// Asserts that for every candidate all numbers that shaders count fit into 32 bits.
fn assert_countable(chain: &Chain, input: Shape, layout: Layout, caps: &Caps) {
    let schedule = planner::schedule(chain, input, layout, caps, &Choice::Auto).unwrap();
    for candidate in schedule.considered.iter().flat_map(|run| run.answer.iter().flatten()) {
        let recipe = &candidate.recipe;
        let what = format!("{} on {input} {layout}", recipe.name);
        let weights: u64 = recipe.weights.iter().map(|section| section.bytes()).sum();
        for bytes in recipe.workspace.iter().copied().chain([weights]) {
            assert!(bytes <= 4 << 31, "{what}: {bytes} bytes");
        }
        for pass in &recipe.passes {
            let invocations = pass.workgroups * u64::from(pass.workgroup);
            assert!(invocations <= 1 << 32, "{what}: {invocations} invocations");
            // Work is counted in workgroups or in invocations (by pools, in planes), and must not be truncated.
            let work = u64::from(pass.params.work);
            let counts = [work, work.div_ceil(pass.workgroup.into())];
            assert!(recipe.name.starts_with("pool") || counts.contains(&pass.workgroups), "{what}: {counts:?}");
            // Pixels are padded to whole blocks (in a name AxBxC, B is their size) or to whole rows of blocks (AxB).
            let sizes = recipe.name.split_once('/').map_or("", |(_, sizes)| sizes);
            let pixels: u64 = sizes.split('x').nth(1).and_then(|size| size.parse().ok()).unwrap_or(1);
            let [blocks, rows] =
                [[pass.params.tiles_y, pass.params.tiles_x], [pass.params.out_height, pass.params.tiles_x]]
                    .map(|[down, right]| u64::from(input.batch) * u64::from(down) * u64::from(right) * pixels);
            let filled = if recipe.name.starts_with("inverted_residual") { blocks } else { rows };
            let by_blocks = ["inverted_residual", "implicit_gemm_"].iter().any(|name| recipe.name.starts_with(name));
            assert!(!by_blocks || filled <= 1 << 32, "{what}: {filled} pixels");
            assert!(u64::from(pass.params.bias_at) * 4 <= weights, "{what}: biases at {}", pass.params.bias_at);
        }
    }
}

#[test]
fn indices_are_counted_up_to_their_limit() {
    let most = 1u32 << 31;
    let gpus = [false, true].map(|is_cpu| Caps { is_cpu, subgroup: Some([8, 8]), int64: true, ..boundless() });
    for layout in [Layout::Nchw, Layout::Nhwc] {
        for (chain, input) in [
            (Chain::from(Conv2d::depthwise(1, 1)), [1, 1, 1, most]),
            (Chain::from(Conv2d::depthwise(1, 3).padding(1)), [1 << 15, 1, 1 << 8, 1 << 8]),
            (Chain::from(Conv2d::depthwise(4, 3).padding(1)), [most / 4, 4, 1, 1]),
            (Chain::from(Conv2d::pointwise(8, 8)), [1, 8, 1 << 14, 1 << 14]),
            (Chain::from(Conv2d::new(8, 8, 3).padding(1)), [most / 8, 8, 1, 1]),
            (Chain::from(Conv2d::new(16, 16, 3).groups(4).padding(1)), [1 << 7, 16, 1 << 10, 1 << 10]),
            (Chain::from(Separable::new(8, 8, 3).padding(1)), [most / 8, 8, 1, 1]),
            (Chain::from(Separable::new(1, 1, 3).padding(1)), [1, 1, 1, most]),
            (Chain::inverted_residual(2, 2, 1, 1), [most / 2, 2, 1, 1]),
            (Chain::inverted_residual(1, 1, 2, 1), [most / 2, 1, 1, 1]),
            (Chain::inverted_residual(4, 4, 1, 1), [most / 4, 4, 1, 1]),
            (Chain::from(gpuconv::Link::GlobalAveragePool), [most / 16, 16, 1, 1]),
            (Chain::from(gpuconv::Link::GlobalAveragePool), [1, 1, 1 << 15, 1 << 16]),
        ] {
            for caps in &gpus {
                assert_countable(&chain, input.into(), layout, caps);
            }
            // One more column, or one more image, is too many.
            let mut more = input;
            more[if input[0] == 1 { 3 } else { 0 }] += 1;
            let needed = Shape::from(more).len();
            let refused = planner::schedule(&chain, more, layout, &gpus[0], &Choice::Auto).err();
            let limit = u64::from(most);
            assert!(
                matches!(&refused, Some(Error::TooLarge { needed: n, limit: l, .. }) if *l == limit && *n >= needed.min(limit + 1)),
                "{refused:?}"
            );
        }
    }
    // Weights count as well.
    let refused = Conv2d::pointwise(1 << 16, 1 << 15).groups(1).validate();
    assert_eq!(refused, Ok(()));
    let refused = Conv2d::pointwise(1 << 16, (1 << 15) + 1).validate();
    assert!(matches!(refused, Err(Error::TooLarge { limit: 0x8000_0000, .. })), "{refused:?}");
}

#[test]
fn plans_keep_to_a_devices_bindings_and_workgroup_memory() {
    let [promised, small] = [wgpu::Limits::defaults(), wgpu::Limits::downlevel_defaults()]
        .map(|limits| Caps::from_parts(&limits, wgpu::Features::empty(), None));
    let chain = Chain::from(Conv2d::new(64, 64, 3).padding(1).residual(Residual::BeforeActivation));
    let (input, layout) = (Shape::from([1, 64, 16, 16]), Layout::Nchw);
    let most = |caps: &Caps| {
        let schedule = planner::schedule(&chain, input, layout, caps, &Choice::Auto).unwrap();
        let passes = schedule.considered.iter().flat_map(|run| run.answer.iter().flatten());
        let passes: Vec<_> = passes.flat_map(|candidate| candidate.recipe.passes.clone()).collect();
        let memory = passes.iter().map(|pass| pass.workgroup_memory).max();
        (memory.unwrap(), passes.iter().map(|pass| pass.operands.len()).max().unwrap())
    };
    for caps in [&promised, &small] {
        let (memory, buffers) = most(caps);
        assert!(memory <= caps.max_workgroup_memory && buffers <= caps.max_storage_buffers as usize);
    }
    // The residual is the fourth buffer.
    assert_eq!(most(&small).1, 4);
    let refused = planner::schedule(&chain, input, layout, &Caps { max_storage_buffers: 3, ..small }, &Choice::Auto);
    match refused {
        Err(Error::NoKernel { rejected, .. }) => {
            let too_few = planner::Unsupported::StorageBuffers { needed: 4, limit: 3 };
            assert!(rejected.contains(&("direct".into(), too_few)), "{rejected:?}");
        }
        other => panic!("{:?}", other.map(|schedule| schedule.name())),
    }
    assert_eq!(images_at_once(&chain, input, &promised), Ok(1));
}

/// A scale and a residual make five buffers.
#[test]
fn devices_that_bind_four_buffers_compute_what_has_five() {
    let gpu = downlevel();
    let cases = [
        "pointwise 2x9x5x6 -> 7 relu scaled residual",
        "conv 1x6x7x8 -> 5 k3 s2 p1 hardswish scaled residual:after nobias nhwc",
        "depthwise 2x5x6x7 k3 p1 scaled residual f16",
    ];
    for (turn, case) in cases.into_iter().enumerate() {
        let problem: Problem = case.parse().unwrap();
        let oracle = Oracle::new(&problem).unwrap();
        for schedule in verify::schedules(&problem, gpu.caps(), turn).unwrap() {
            let report = oracle.check(&gpu, &schedule).unwrap();
            assert!(report.passes() && schedule.name().ends_with("-apart"), "{case}: {}: {report:?}", schedule.name());
        }
    }
}
