//! Strategies of the property tests: problems and chains from the whole space that the library takes. They are small
//! enough for the oracle, and shrink towards one channel, one pixel and PyTorch's defaults.

mod links;

use std::fmt;

use gpuconv::{
    Activation, Caps, Chain, Conv2d, DType, Layout, Link, Operation, PRelu, Problem, Residual, Separable, Shape,
};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use links::{resize, window_pool};
pub use links::{resizes, shuffles, transposed, window_pools};

/// Multiply-adds for the oracle, at most.
const MAX_WORK: u64 = 1 << 20;
/// Sizes of a case, at most.
const MAX_SIZES: usize = 8;

/// A chain with its input, and a name to repeat it.
#[derive(Clone)]
pub struct Subject {
    /// The problem line. If no line can express the chain, the code that makes it.
    pub name: String,
    pub chain: Chain,
    pub input: Shape,
    pub layout: Layout,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The device to plan for. All plans run on the existing device, because none needs more than it has.
#[derive(Clone, Copy, Debug)]
pub enum Device {
    AsItIs,
    Gpu,
    WithoutSubgroups,
    WithoutInt64,
    WithoutF16,
    /// A limit of workgroups per dimension so low that most grids are folded.
    NarrowGrid,
}

impl Device {
    pub fn caps(self, caps: Caps) -> Caps {
        match self {
            Self::AsItIs => caps,
            Self::Gpu => Caps { is_cpu: false, ..caps },
            Self::WithoutSubgroups => Caps { subgroup: None, ..caps },
            Self::WithoutInt64 => Caps { int64: false, ..caps },
            Self::WithoutF16 => Caps { f16: false, ..caps },
            Self::NarrowGrid => Caps { max_workgroups: 100, ..caps },
        }
    }
}

/// Subjects that differ only in their sizes, a device, and an index that picks one of the schedules. The subjects share
/// most compiled shaders, because compiling takes far longer than running.
#[derive(Clone, Debug)]
pub struct Case {
    pub subjects: Vec<Subject>,
    pub device: Device,
    pub which: Index,
}

/// A case, and values to put into its inputs at some places.
pub type Planted = (Case, Vec<(Index, f32)>);

/// Cases with special values: NaN, infinities, negative zero and denormals.
pub fn planted(subjects: impl Strategy<Value = Vec<Subject>>) -> impl Strategy<Value = Planted> {
    let value = select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-40]);
    (cases(subjects), prop::collection::vec((any::<Index>(), value), 1..=3))
}

/// Any kind of problem.
pub fn anything() -> impl Strategy<Value = Vec<Subject>> {
    // On the heap, since all of them together are large for a test's stack.
    let kinds = [
        convolutions().boxed(),
        depthwise().boxed(),
        pointwise().boxed(),
        separable().boxed(),
        chains().boxed(),
        pools().boxed(),
        window_pools().boxed(),
        resizes().boxed(),
        shuffles().boxed(),
        transposed().boxed(),
    ];
    proptest::strategy::Union::new(kinds)
}

pub fn cases(subjects: impl Strategy<Value = Vec<Subject>>) -> impl Strategy<Value = Case> {
    (subjects, devices(), any::<Index>()).prop_map(|(subjects, device, which)| Case { subjects, device, which })
}

fn devices() -> impl Strategy<Value = Device> {
    prop_oneof![
        5 => Just(Device::AsItIs),
        3 => Just(Device::Gpu),
        1 => Just(Device::WithoutSubgroups),
        1 => Just(Device::WithoutInt64),
        1 => Just(Device::WithoutF16),
        1 => Just(Device::NarrowGrid),
    ]
}

/// The parameters of a window, which are constants in shaders.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub kernel_size: [u32; 2],
    stride: [u32; 2],
    dilation: [u32; 2],
    padding: [u32; 4],
}

/// A pair for rows and columns, mostly of equal values.
fn pair(values: impl Strategy<Value = u32> + Clone + 'static) -> impl Strategy<Value = [u32; 2]> {
    prop_oneof![3 => values.clone().prop_map(|both| [both; 2]), 1 => [values.clone(), values]]
}

pub fn windows() -> impl Strategy<Value = Window> {
    let kernel_size = pair(prop_oneof![4 => Just(3u32), 3 => 1u32..=7]);
    let stride = pair(prop_oneof![4 => Just(1u32), 2 => Just(2u32), 1 => 1u32..=4]);
    let dilation = pair(prop_oneof![5 => Just(1u32), 1 => 1u32..=3]);
    let padding = prop_oneof![2 => (0u32..=3).prop_map(|all| [all; 4]), 1 => [0u32..=3, 0u32..=3, 0u32..=3, 0u32..=3]];
    (kernel_size, stride, dilation, padding).prop_map(|(kernel_size, stride, dilation, padding)| Window {
        kernel_size,
        stride,
        dilation,
        padding,
    })
}

impl Window {
    pub fn of(self, conv: Conv2d) -> Conv2d {
        let Self { stride, dilation, padding, .. } = self;
        conv.stride(stride).dilation(dilation).padding(padding)
    }
}

/// The epilogue of a link.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue {
    bias: bool,
    activation: Activation,
    residual: Option<Residual>,
}

fn activations() -> impl Strategy<Value = Activation> {
    let bound = || {
        prop_oneof![
            4 => (-8i32..=8).prop_map(|eighths| eighths as f32 / 8.0),
            1 => -4f32..4.0,
            1 => select(vec![f32::NEG_INFINITY, f32::INFINITY]),
        ]
    };
    // The library refuses a clamp to an empty range.
    let clamp = (bound(), bound()).prop_map(|(low, high)| match low == f32::INFINITY || high == f32::NEG_INFINITY {
        true => Activation::Clamp(high, low),
        false => Activation::Clamp(low, high),
    });
    let clamp = clamp.prop_filter("a clamp that is refused", |clamp| match clamp {
        Activation::Clamp(low, high) => *low < f32::INFINITY && *high > f32::NEG_INFINITY,
        _ => true,
    });
    prop_oneof![
        2 => Just(Activation::None),
        1 => Just(Activation::Relu),
        1 => Just(Activation::Relu6),
        1 => Just(Activation::Silu),
        1 => Just(Activation::HardSwish),
        1 => Just(Activation::Sigmoid),
        1 => Just(Activation::HardSigmoid),
        1 => Just(Activation::Tanh),
        1 => Just(Activation::Gelu),
        1 => prop_oneof![Just(-0.5f32), Just(0.1), Just(2.0)].prop_map(Activation::LeakyRelu),
        1 => clamp,
    ]
}

pub fn epilogues() -> impl Strategy<Value = Epilogue> {
    let residual = prop_oneof![
        3 => Just(None),
        1 => select(vec![Some(Residual::BeforeActivation), Some(Residual::AfterActivation)]),
    ];
    (prop_oneof![3 => Just(true), 1 => Just(false)], activations(), residual)
        .prop_map(|(bias, activation, residual)| Epilogue { bias, activation, residual })
}

impl Epilogue {
    pub fn of(self, conv: Conv2d) -> Conv2d {
        let Self { bias, activation, residual } = self;
        conv.bias(bias).activation(activation).residual(residual)
    }
}

/// Numbers of channels: small ones, and those near the sizes of tiles.
fn channels() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 1u32..=12,
        3 => 1u32..=40,
        1 => select(vec![15u32, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129]),
    ]
}

fn batches() -> impl Strategy<Value = u32> {
    prop_oneof![6 => Just(1u32), 3 => 1u32..=3, 1 => Just(0u32)]
}

/// Rows and columns: small images, and long ones.
fn extents() -> impl Strategy<Value = [u32; 2]> {
    prop_oneof![6 => [1u32..=20, 1u32..=20], 1 => [1u32..=3, 1u32..=140], 1 => [1u32..=140, 1u32..=3]]
}

/// The sizes of a problem, which are parameters of shaders.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    inputs: u32,
    outputs: u32,
    batch: u32,
    extents: [u32; 2],
}

pub fn sizes() -> impl Strategy<Value = Vec<Sizes>> {
    let sizes = (channels(), channels(), batches(), extents()).prop_map(|(inputs, outputs, batch, extents)| Sizes {
        inputs,
        outputs,
        batch,
        extents,
    });
    prop::collection::vec(sizes, 1..=MAX_SIZES)
}

/// How tensors are stored.
pub type Form = (Layout, DType);

pub fn forms() -> impl Strategy<Value = Form> {
    let layouts = prop_oneof![3 => Just(Layout::Nchw), 2 => Just(Layout::Nhwc)];
    (layouts, prop_oneof![2 => Just(DType::F32), 1 => Just(DType::F16)])
}

/// An input for a convolution. It is at least as large as the kernel needs, and small enough for the oracle.
fn input(conv: &Conv2d, sizes: &Sizes, work: impl Fn(Shape) -> u64) -> Shape {
    let sizes = Sizes { inputs: conv.in_channels, ..*sizes };
    input_of(conv.dilated_kernel(), conv.padding, &sizes, work)
}

/// The same for any windows.
fn input_of(
    kernel: [u64; 2],
    [top, left, bottom, right]: [u32; 4],
    sizes: &Sizes,
    work: impl Fn(Shape) -> u64,
) -> Shape {
    let Sizes { inputs: channels, batch, extents: [height, width], .. } = *sizes;
    let kernel = kernel.map(|extent| extent as u32);
    let least = [kernel[0].saturating_sub(top + bottom).max(1), kernel[1].saturating_sub(left + right).max(1)];
    let mut shape = Shape { batch, channels, height: height.max(least[0]), width: width.max(least[1]) };
    while work(shape) > MAX_WORK {
        let smaller = Shape {
            batch: shape.batch.min(1),
            height: (shape.height / 2).max(least[0]),
            width: (shape.width / 2).max(least[1]),
            ..shape
        };
        if smaller == shape {
            break;
        }
        shape = smaller;
    }
    shape
}

/// The multiply-adds of a convolution.
fn work(conv: &Conv2d, input: Shape) -> u64 {
    conv.output_shape(input).map_or(0, |output| output.len() * conv.fan_in())
}

/// A subject named by its problem line.
fn subject(operation: Operation, input: Shape, (layout, dtype): Form) -> Subject {
    let problem = Problem { input, layout, dtype, operation };
    Subject { name: problem.to_string(), chain: problem.chain(), input, layout }
}

pub fn convolutions() -> impl Strategy<Value = Vec<Subject>> {
    let groups = prop_oneof![4 => Just(1u32), 1 => 2u32..=4];
    (windows(), epilogues(), groups, sizes(), forms()).prop_map(|(window, epilogue, groups, sizes, form)| {
        let make = |sizes: &Sizes| {
            let [inputs, outputs] = [sizes.inputs, sizes.outputs].map(|count| count.next_multiple_of(groups));
            let conv = epilogue.of(window.of(Conv2d::new(inputs, outputs, window.kernel_size).groups(groups)));
            let input = input(&conv, sizes, |input| work(&conv, input));
            subject(Operation::Conv(conv), input, form)
        };
        sizes.iter().map(make).collect()
    })
}

pub fn depthwise() -> impl Strategy<Value = Vec<Subject>> {
    let multiplier = prop_oneof![4 => Just(1u32), 1 => 2u32..=3];
    (windows(), epilogues(), multiplier, sizes(), forms()).prop_map(|(window, epilogue, multiplier, sizes, form)| {
        let make = |sizes: &Sizes| {
            let channels = sizes.inputs;
            let conv = Conv2d::depthwise(channels, window.kernel_size).channel_multiplier(multiplier);
            let conv = epilogue.of(window.of(conv));
            let input = input(&conv, sizes, |input| work(&conv, input));
            subject(Operation::Depthwise(conv), input, form)
        };
        sizes.iter().map(make).collect()
    })
}

/// Pointwise convolutions, some of them with strides, paddings and groups.
pub fn pointwise() -> impl Strategy<Value = Vec<Subject>> {
    let window = prop_oneof![3 => Just(None), 1 => windows().prop_map(Some)];
    let groups = prop_oneof![4 => Just(1u32), 1 => 2u32..=4];
    (window, epilogues(), groups, sizes(), forms()).prop_map(|(window, epilogue, groups, sizes, form)| {
        let make = |sizes: &Sizes| {
            let [inputs, outputs] = [sizes.inputs, sizes.outputs].map(|count| count.next_multiple_of(groups));
            let conv = Conv2d::pointwise(inputs, outputs).groups(groups);
            let conv = window.map_or(conv.clone(), |window| window.of(conv));
            let conv = epilogue.of(conv);
            let input = input(&conv, sizes, |input| work(&conv, input));
            subject(Operation::Pointwise(conv), input, form)
        };
        sizes.iter().map(make).collect()
    })
}

pub fn separable() -> impl Strategy<Value = Vec<Subject>> {
    (windows(), epilogues(), sizes(), forms()).prop_map(|(window, epilogue, sizes, form)| {
        let make = |sizes: &Sizes| {
            let inner = Epilogue { residual: None, ..epilogue };
            let depthwise = window.of(inner.of(Conv2d::depthwise(sizes.inputs, window.kernel_size)));
            let pointwise = epilogue.of(Conv2d::pointwise(sizes.inputs, sizes.outputs));
            let both = |input| {
                let inner = depthwise.output_shape(input);
                work(&depthwise, input) + inner.map_or(0, |inner| work(&pointwise, inner))
            };
            let input = input(&depthwise, sizes, both);
            subject(Operation::Separable(Separable { depthwise, pointwise }), input, form)
        };
        sizes.iter().map(make).collect()
    })
}

pub fn pools() -> impl Strategy<Value = Vec<Subject>> {
    (sizes(), forms()).prop_map(|(sizes, form)| {
        let make = |&Sizes { inputs, batch, extents: [height, width], .. }: &Sizes| {
            subject(Operation::Pool, Shape { batch, channels: inputs, height, width }, form)
        };
        sizes.iter().map(make).collect()
    })
}

/// A link without its input channels, which follow from the link before it.
#[derive(Clone, Debug)]
enum Kind {
    Pointwise(u32),
    Depthwise(Window),
    Conv(u32, Window),
    Other(Link),
    PRelu,
    Pool,
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => (1u32..=24).prop_map(Kind::Pointwise),
        4 => windows().prop_map(Kind::Depthwise),
        1 => ((1u32..=12), windows()).prop_map(|(channels, window)| Kind::Conv(channels, window)),
        1 => window_pool().prop_map(|pool| Kind::Other(pool.into())),
        1 => resize().prop_map(|resize| Kind::Other(resize.into())),
        2 => Just(Kind::PRelu),
        1 => (1u32..=3).prop_map(|factor| Kind::Other(Link::PixelShuffle { factor })),
        1 => (1u32..=3).prop_map(|factor| Kind::Other(Link::PixelUnshuffle { factor })),
        1 => Just(Kind::Pool),
    ]
}

/// MobileNetV2's blocks, and chains of any links, with edges if the shapes allow.
pub fn chains() -> impl Strategy<Value = Vec<Subject>> {
    let links = prop::collection::vec((kinds(), epilogues(), any::<Index>()), 1..=4);
    let anything = (links, sizes(), forms()).prop_map(|(links, sizes, form)| {
        let make = |sizes: &Sizes| {
            let (input, (layout, dtype)) = (small_input(sizes), form);
            let chain = linked(input, &links).with_dtype(dtype);
            Subject { name: format!("{chain:?} on {input} {layout:?}"), chain, input, layout }
        };
        sizes.iter().map(make).collect()
    });
    let blocks = (1u32..=6, 1u32..=2, any::<bool>(), sizes(), forms());
    let blocks = blocks.prop_map(|(expansion, stride, same, sizes, form)| {
        let make = |sizes: &Sizes| {
            let input = small_input(sizes);
            let (inputs, outputs) = (input.channels, if same { input.channels } else { sizes.outputs.min(40) });
            let block = format!("Chain::inverted_residual({inputs}, {outputs}, {expansion}, {stride})");
            let (chain, (layout, dtype)) = (Chain::inverted_residual(inputs, outputs, expansion, stride), form);
            Subject {
                name: format!("{block} on {input} {layout:?} {dtype}"),
                chain: chain.with_dtype(dtype),
                input,
                layout,
            }
        };
        sizes.iter().map(make).collect()
    });
    prop_oneof![2 => anything, 1 => blocks]
}

/// A small input, because the links of a chain may have many channels.
pub fn small_input(&Sizes { inputs, batch, extents: [height, width], .. }: &Sizes) -> Shape {
    Shape { batch, channels: inputs.min(20), height: height.min(20), width: width.min(20) }
}

fn linked(input: Shape, drawn: &[(Kind, Epilogue, Index)]) -> Chain {
    let (mut links, mut shapes, mut edges, mut outside) = (Vec::new(), vec![input], Vec::new(), false);
    for (kind, epilogue, which) in drawn {
        let shape = shapes[shapes.len() - 1];
        let conv = match *kind {
            Kind::Pool => {
                links.push(Link::GlobalAveragePool);
                shapes.push(Shape { height: 1, width: 1, ..shape });
                continue;
            }
            Kind::PRelu => {
                // The activation of the convolution before it, if that has no other.
                if let Some(Link::Conv(conv)) = links.last_mut() {
                    conv.activation = Activation::None;
                }
                links.push(PRelu::new(shape.channels).into());
                shapes.push(shape);
                continue;
            }
            Kind::Other(ref link) => {
                // One that does not fit is left out, and one that would make images large.
                if let Some(output) = link.output_shape(shape).ok().filter(|output| output.pixels() <= 900) {
                    links.push(link.clone());
                    shapes.push(output);
                }
                continue;
            }
            Kind::Pointwise(outputs) => Conv2d::pointwise(shape.channels, outputs),
            Kind::Depthwise(window) => window.of(Conv2d::depthwise(shape.channels, window.kernel_size)),
            Kind::Conv(outputs, window) => window.of(Conv2d::new(shape.channels, outputs, window.kernel_size)),
        };
        let mut conv = epilogue.of(conv);
        // If the kernel does not fit, pad just enough. More padding would let images grow from link to link.
        let Ok(output) = conv.output_shape(shape).or_else(|_| {
            let [rows, columns] = conv.dilated_kernel().map(|extent| extent as u32 - 1);
            conv.padding = [rows, columns, 0, 0];
            conv.output_shape(shape)
        }) else {
            break;
        };
        let sources: Vec<_> = (0..shapes.len()).filter(|&tensor| shapes[tensor] == output).collect();
        if let Some(residual) = conv.residual {
            if !sources.is_empty() {
                edges.push((sources[which.index(sources.len())], links.len(), residual));
            } else if outside {
                conv.residual = None;
            }
            outside |= sources.is_empty();
        }
        links.push(Link::Conv(conv));
        shapes.push(output);
    }
    if links.is_empty() {
        // All were left out.
        links.push(Conv2d::pointwise(input.channels, 1).into());
    }
    edges.into_iter().fold(Chain::new(links), |chain, (source, link, residual)| {
        chain.edge(source, link, residual).expect("edges lead forward")
    })
}
