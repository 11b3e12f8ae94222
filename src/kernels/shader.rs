//! The one place where WGSL text is put together: files and generated declarations, one after the other.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use minijinja::{Value, context};

use crate::kernels::template;
use crate::model::conv::{Activation, Conv2d, Residual};
use crate::model::error::Result;
use crate::model::shape::Layout;

/// The components of a `vec4`.
pub const COMPONENTS: [&str; 4] = ["x", "y", "z", "w"];

/// What all kernels share; [`Shader::finish`] appends it.
pub const CONV: &str = include_str!("../../shaders/conv.wgsl");
const EPILOGUE: &str = include_str!("../../shaders/epilogue.wgsl");
/// Input read one element at a time.
pub const INPUT_SCALAR: &str = include_str!("../../shaders/input_scalar.wgsl");
/// Input read as aligned quads.
pub const INPUT_VEC4: &str = include_str!("../../shaders/input_vec4.wgsl");
/// Weights of a product, read four at a time.
pub const WEIGHTS_VEC4: &str = include_str!("../../shaders/weights_vec4.wgsl");
/// Output written one element at a time.
pub const OUTPUT_SCALAR: &str = include_str!("../../shaders/output_scalar.wgsl");
/// Output written as aligned quads.
pub const OUTPUT_VEC4: &str = include_str!("../../shaders/output_vec4.wgsl");
/// What activations of whole pixels need.
pub const CLAMP_BITS: &str = include_str!("../../shaders/clamp_bits.wgsl");

/// Gives the values that a template asks for, which take several times the memory of what they are made of.
pub type Values = Arc<dyn Fn() -> Value + Send + Sync>;

/// WGSL that is made when it is asked for: a planner looks at hundreds of shaders, of which a few run. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Wgsl(Source);

#[derive(Clone)]
enum Source {
    /// A file of `shaders/`, and what gives the values that it asks for.
    Template {
        file: &'static str,
        values: Values,
    },
    Text(Arc<str>),
    Made(Arc<dyn Fn() -> Arc<str> + Send + Sync>),
}

impl Wgsl {
    /// What a template of `shaders/` gives with some values.
    pub(crate) fn template(file: &'static str, values: impl Fn() -> Value + Send + Sync + 'static) -> Self {
        Self(Source::Template { file, values: Arc::new(values) })
    }

    /// What a function makes, the same at every call.
    pub(crate) fn new(make: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Source::Made(Arc::new(move || make().into())))
    }

    /// The text, made anew at each call. Compiled pipelines are cached by it.
    ///
    /// # Errors
    /// [`Error::Internal`](crate::Error::Internal) if a template is wrong.
    pub fn text(&self) -> Result<Arc<str>> {
        match &self.0 {
            Source::Template { file, values } => template::render(file, &values()).map(Arc::from),
            Source::Text(text) => Ok(text.clone()),
            Source::Made(make) => Ok(make()),
        }
    }

    /// The text of a part that is not a template.
    pub(crate) fn part(&self) -> Arc<str> {
        self.text().unwrap_or_default()
    }
}

impl From<Arc<str>> for Wgsl {
    fn from(text: Arc<str>) -> Self {
        Self(Source::Text(text))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Template { file, values } => f.debug_tuple(file).field(&values()).finish(),
            Self::Text(text) => f.debug_tuple("Text").field(text).finish(),
            Self::Made(_) => f.debug_tuple("Made").finish_non_exhaustive(),
        }
    }
}

/// What `tensors.wgsl` and `output.wgsl` ask for of a layout.
pub fn layout_name(layout: Layout) -> &'static str {
    match layout {
        Layout::Nchw => "nchw",
        Layout::Nhwc => "nhwc",
    }
}

/// What `output.wgsl` asks for: the epilogue of a run's last link.
pub fn epilogue_values(last: &Conv2d) -> Value {
    context! { activation => activation_name(last.activation), residual => residual_name(last), pixels => "none" }
}

/// One of the `inner_activations` that `inner_activation.wgsl` asks for: the activation of a link inside a run, for pixels
/// of some quads of channels. With `share_nans` all channels of a pixel are added up in the end, and a NaN may move from
/// one to another.
pub fn inner_activation_values(name: &str, activation: Activation, quads: u32, share_nans: bool) -> Value {
    // An infinite bound bounds nothing, and has no literal in WGSL.
    let literal = |bound: f32| bound.is_finite().then(|| format!("{bound:?}f"));
    let bounds = activation.bounds();
    let [low, high] = bounds.unwrap_or([f32::NEG_INFINITY, f32::INFINITY]).map(literal);
    // Not up to a zero below zero, whose bits are a negative number's.
    let high_bits = match bounds {
        Some([0.0, high]) if share_nans && high > 0.0 => Some(high.to_bits()),
        _ => None,
    };
    context! { name, activation => activation_name(activation), low, high, quads, high_bits }
}

fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::None | Activation::Relu | Activation::Relu6 | Activation::Clamp(..) => "clamp",
        Activation::HardSwish => "hard_swish",
        Activation::Silu => "silu",
    }
}

fn residual_name(last: &Conv2d) -> &'static str {
    match last.residual {
        None => "none",
        Some(Residual::BeforeActivation) => "before",
        Some(Residual::AfterActivation) => "after",
    }
}

/// What `tensors.wgsl` asks for of a link's geometry.
pub fn geometry_values(conv: &Conv2d) -> Value {
    let [[kernel_height, kernel_width], [stride_y, stride_x]] = [conv.kernel_size, conv.stride];
    let ([dilation_y, dilation_x], [pad_top, pad_left, ..]) = (conv.dilation, conv.padding);
    context! { kernel_height, kernel_width, stride_y, stride_x, dilation_y, dilation_x, pad_top, pad_left }
}

/// What a shader is made for, for its first line: what of a link is constant in it.
pub fn problem(conv: &Conv2d, layout: Layout) -> String {
    problem_of_run(std::slice::from_ref(conv), layout)
}

/// The same of a run.
pub fn problem_of_run(links: &[Conv2d], layout: Layout) -> String {
    let links: Vec<_> = links.iter().map(constants_of).collect();
    format!("{} {}", layout_name(layout), links.join("; "))
}

fn constants_of(conv: &Conv2d) -> String {
    let [[kernel_height, kernel_width], [stride_y, stride_x]] = [conv.kernel_size, conv.stride];
    let mut text = format!("{kernel_height}x{kernel_width}");
    if conv.stride != [1; 2] {
        let _ = write!(text, ", stride {stride_y}x{stride_x}");
    }
    if conv.dilation != [1; 2] {
        let _ = write!(text, ", dilation {}x{}", conv.dilation[0], conv.dilation[1]);
    }
    match conv.residual {
        None => {}
        Some(Residual::BeforeActivation) => text.push_str(", residual before activation"),
        Some(Residual::AfterActivation) => text.push_str(", residual after activation"),
    }
    text
}

/// A shader in the making: WGSL files, the kernel's first so that naga's line numbers are its own.
pub struct Shader {
    text: String,
}

impl Shader {
    /// Starts with the kernel's file.
    pub fn new(kernel: &str) -> Self {
        Self { text: kernel.into() }
    }

    /// Appends a file or generated declarations.
    pub fn add(mut self, wgsl: &str) -> Self {
        self.text.push('\n');
        self.text.push_str(wgsl);
        self
    }

    /// Appends some.
    pub fn add_all(self, files: &[&str]) -> Self {
        files.iter().fold(self, |shader, file| shader.add(file))
    }

    /// Appends `const NAME: u32 = VALUE;` for each.
    pub fn constants(mut self, constants: &[(&str, u64)]) -> Self {
        for (name, value) in constants {
            // A u32 by the checks on shapes; a larger one would not compile, which beats a wrong number.
            let _ = writeln!(self.text, "const {name}: u32 = {value}u;");
        }
        self
    }

    /// What was put together so far.
    pub fn text(self) -> String {
        self.text
    }

    /// Appends what all kernels share, and the epilogue of a run's last link.
    pub fn finish(self, last: &Conv2d) -> String {
        self.add(EPILOGUE).add(&epilogue(last)).finish_without_epilogue()
    }

    /// Appends what all kernels share.
    pub fn finish_without_epilogue(self) -> String {
        self.add(CONV).text()
    }
}

/// The geometry of a link, as the constants that the shaders use.
pub fn geometry(conv: &Conv2d) -> Vec<(&'static str, u64)> {
    let pair = |[rows, columns]: [u32; 2]| [u64::from(rows), u64::from(columns)];
    let [kernel_height, kernel_width] = pair(conv.kernel_size);
    let [stride_y, stride_x] = pair(conv.stride);
    let [dilation_y, dilation_x] = pair(conv.dilation);
    vec![
        ("KERNEL_HEIGHT", kernel_height),
        ("KERNEL_WIDTH", kernel_width),
        ("STRIDE_Y", stride_y),
        ("STRIDE_X", stride_x),
        ("DILATION_Y", dilation_y),
        ("DILATION_X", dilation_x),
        ("PAD_TOP", conv.padding[0].into()),
        ("PAD_LEFT", conv.padding[1].into()),
    ]
}

/// Whether a link has a bias, as the shaders ask.
pub fn has_bias(conv: &Conv2d) -> &'static str {
    if conv.bias { "const HAS_BIAS: bool = true;\n" } else { "const HAS_BIAS: bool = false;\n" }
}

/// What of the epilogue depends on the link: the activation and the residual. A clamp's bounds are parameters, so that
/// linear links, ReLU and ReLU6 share shaders.
fn epilogue(conv: &Conv2d) -> String {
    let before = conv.residual == Some(Residual::BeforeActivation);
    let after = conv.residual == Some(Residual::AfterActivation);
    let mut text = format!("const RESIDUAL_BEFORE: bool = {before};\nconst RESIDUAL_AFTER: bool = {after};\n");
    let bounds = ["bitcast<f32>(params.low_bits)", "bitcast<f32>(params.high_bits)"];
    text.push_str(&activate("activate", conv.activation, bounds));
    if before || after {
        text.push_str(
            "fn residual_at(at: u32) -> f32 { return load_residual(at); }\n\
             fn residual4_at(at: vec4<u32>) -> vec4<f32> { return load_residual4(at); }\n",
        );
    } else {
        text.push_str(
            "fn residual_at(at: u32) -> f32 { return 0.0; }\n\
             fn residual4_at(at: vec4<u32>) -> vec4<f32> { return vec4<f32>(0.0); }\n",
        );
    }
    text
}

/// An activation between two links of a run, its bounds constants.
pub fn inner_activation(name: &str, activation: Activation) -> String {
    // An infinite bound bounds nothing, and has no literal in WGSL.
    let literal = |bound: f32| if bound.is_finite() { format!("{bound:e}f") } else { String::new() };
    let [low, high] = activation.bounds().unwrap_or([f32::NEG_INFINITY, f32::INFINITY]).map(literal);
    activate(name, activation, [&low, &high])
}

/// [`inner_activation`], and `name_pixel`: the same for so many quads of channels of one pixel, in place, where all of them
/// are added up in the end and so may `share_nans`. It needs [`CLAMP_BITS`].
///
/// Between zero and something a clamp compares bits as integers, which takes one or two instructions where comparing with
/// each bound and selecting takes four, and always makes a number of a NaN. So if any of the channels is NaN, the first
/// becomes it again. That is as good as each, for all that is made of one of them is made of all.
pub fn pixel_activation(name: &str, activation: Activation, quads: u32, share_nans: bool) -> String {
    let mut text = inner_activation(name, activation);
    let parameters: Vec<_> = (0..quads).map(|quad| format!("x{quad}: ptr<function, vec4<f32>>")).collect();
    let _ = writeln!(text, "fn {name}_pixel({}) {{", parameters.join(", "));
    // Not up to a zero below zero, whose bits are a negative number's.
    if let Some([0.0, high]) = activation.bounds().filter(|[_, high]| share_nans && *high > 0.0) {
        let largest = |bits: &str| {
            let quads = (0..quads).map(|quad| format!("bitcast<{bits}>(*x{quad})"));
            quads.reduce(|largest, quad| format!("max({largest}, {quad})")).unwrap_or_default()
        };
        let _ = writeln!(text, "    let nan = nan_bits({}, {});", largest("vec4<i32>"), largest("vec4<u32>"));
        for quad in 0..quads {
            let _ = writeln!(text, "    *x{quad} = clamp_bits(*x{quad}, {}i);", high.to_bits());
        }
        text.push_str("    (*x0).x = bitcast<f32>(bitcast<u32>((*x0).x) | nan);\n");
    } else {
        for quad in 0..quads {
            let _ = writeln!(text, "    *x{quad} = {name}4(*x{quad});");
        }
    }
    text.push_str("}\n");
    text
}

/// An activation for one value and for four, called `name` and `name4`. Clamps have bounds, which are WGSL's, or empty
/// where there is none; other activations do not look at them.
///
/// Comparisons and `select` in place of `min` and `max`, whose answer to a NaN WGSL leaves open.
fn activate(name: &str, activation: Activation, [low, high]: [&str; 2]) -> String {
    let mut text = String::new();
    for (name, value) in [(name.to_string(), "f32"), (format!("{name}4"), "vec4<f32>")] {
        let bounded = |x: &str, sign: &str, bound: &str| match bound {
            "" => x.to_string(),
            _ => format!("select({x}, {value}({bound}), {x} {sign} {value}({bound}))"),
        };
        let body = match activation {
            Activation::None | Activation::Relu | Activation::Relu6 | Activation::Clamp(..) => {
                format!("let raised = {}; return {};", bounded("x", "<", low), bounded("raised", ">", high))
            }
            Activation::HardSwish => format!(
                "let raised = max(x + {value}(3.0), {value}(0.0)); \
                 return x * (min(raised, {value}(6.0)) / {value}(6.0));"
            ),
            Activation::Silu => format!("return x / ({value}(1.0) + exp(-x));"),
        };
        let _ = writeln!(text, "fn {name}(x: {value}) -> {value} {{ {body} }}");
    }
    text
}
