//! Shaders as recipes have them, and the values that their templates ask for.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use minijinja::{Value, context};

use crate::kernels::template;
use crate::model::conv::{Activation, Conv2d, Residual};
use crate::model::error::Result;
use crate::model::shape::Layout;

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
}

impl Wgsl {
    /// What a template of `shaders/` gives with some values.
    pub(crate) fn template(file: &'static str, values: impl Fn() -> Value + Send + Sync + 'static) -> Self {
        Self(Source::Template { file, values: Arc::new(values) })
    }

    /// The text, made anew at each call. Compiled pipelines are cached by it.
    ///
    /// # Errors
    /// [`Error::Internal`](crate::Error::Internal) if a template is wrong.
    pub fn text(&self) -> Result<Arc<str>> {
        match &self.0 {
            Source::Template { file, values } => template::render(file, &values()).map(Arc::from),
            Source::Text(text) => Ok(text.clone()),
        }
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
    let slope = match activation {
        Activation::LeakyRelu(slope) => Some(format!("{slope:?}f")),
        _ => None,
    };
    context! { name, activation => activation_name(activation), low, high, slope, quads, high_bits }
}

fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::None | Activation::Relu | Activation::Relu6 | Activation::Clamp(..) => "clamp",
        Activation::HardSwish => "hard_swish",
        Activation::Silu => "silu",
        Activation::LeakyRelu(_) => "leaky_relu",
        Activation::Sigmoid => "sigmoid",
        Activation::HardSigmoid => "hard_sigmoid",
        Activation::Tanh => "hyperbolic_tangent",
        Activation::Gelu => "gelu",
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
    let links: Vec<_> = links.iter().map(constants).collect();
    format!("{} {}", layout_name(layout), links.join("; "))
}

/// What of a link is constant.
fn constants(conv: &Conv2d) -> String {
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
