//! Shaders as recipes have them, and the values that their templates ask for.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use minijinja::{Value, context};

use crate::kernels::template;
use crate::kernels::view::Views;
use crate::model::conv::{Activation, Conv2d, Residual};
use crate::model::error::Result;
use crate::model::pool::{Pool2d, PoolMode};
use crate::model::shape::Layout;

/// Gives the values that a template asks for, which take several times the memory of what they are made of.
pub type Values = Arc<dyn Fn() -> Value + Send + Sync>;

/// WGSL that is made when it is asked for: a planner looks at hundreds of shaders, of which a few run. Clones are
/// cheap.
#[derive(Clone, Debug)]
pub struct Wgsl(Source);

#[derive(Clone)]
enum Source {
    /// A file of `shaders/`, and what gives the values that it asks for.
    Template {
        file: &'static str,
        values: Values,
        /// Of the tensors that lie in others, if any do.
        views: Option<Arc<Views>>,
    },
    Text(Arc<str>),
}

impl Wgsl {
    /// What a template of `shaders/` gives with some values.
    pub(crate) fn template(file: &'static str, values: impl Fn() -> Value + Send + Sync + 'static) -> Self {
        Self(Source::Template { file, values: Arc::new(values), views: None })
    }

    /// The same for tensors that lie in others. A text stays as it is.
    pub(crate) fn with_views(&self, views: Views) -> Self {
        match &self.0 {
            Source::Template { file, values, .. } => {
                let views = (!views.is_empty()).then(|| Arc::new(views));
                Self(Source::Template { file, values: values.clone(), views })
            }
            Source::Text(_) => self.clone(),
        }
    }

    /// How many neighbours of the input it loads together: 1, 2 or 4.
    pub(crate) fn input_neighbours(&self) -> u32 {
        let Source::Template { values, .. } = &self.0 else { return 4 };
        match values().get_attr("input").ok().as_ref().and_then(Value::as_str) {
            Some("scalar") => 1,
            Some("pair") => 2,
            _ => 4,
        }
    }

    /// The same with the slopes of a PReLU for its activation, of which it has none. So a residual is added before it.
    pub(crate) fn with_slopes(self) -> Self {
        let Source::Template { file, values, .. } = self.0 else { return self };
        Self::template(file, move || {
            let values = values();
            let adds = values.get_attr("residual").is_ok_and(|residual| residual.as_str() != Some("none"));
            context! { activation => "prelu", residual => if adds { "before" } else { "none" }, ..values }
        })
    }

    /// The same of a product, with other values for some that its template asks for.
    pub(crate) fn with_values(self, others: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        let Source::Template { file, values, .. } = self.0 else { return self };
        Self::template(file, move || {
            let values = values();
            context! { ..others(&values), ..values }
        })
    }

    /// The text, made anew at each call. Compiled pipelines are cached by it.
    ///
    /// # Errors
    /// [`Error::Internal`](crate::Error::Internal) if a template is wrong.
    pub fn text(&self) -> Result<Arc<str>> {
        match &self.0 {
            Source::Template { file, values, views: None } => template::render(file, &values()).map(Arc::from),
            Source::Template { file, values, views: Some(views) } => {
                let values = minijinja::value::merge_maps([views.values(), values()]);
                template::render(file, &values).map(Arc::from)
            }
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
            Self::Template { file, values, views } => f.debug_tuple(file).field(&values()).field(views).finish(),
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

/// One of the `inner_activations` that `inner_activation.wgsl` asks for: the activation of a link inside a run, for
/// pixels of some quads of channels. With `share_nans` all channels of a pixel are added up in the end, and a NaN may
/// move from one to another.
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
    geometry(conv.kernel_size, conv.stride, conv.dilation, conv.padding)
}

/// The same of any windows.
pub fn geometry(kernel_size: [u32; 2], stride: [u32; 2], dilation: [u32; 2], padding: [u32; 4]) -> Value {
    let [[kernel_height, kernel_width], [stride_y, stride_x]] = [kernel_size, stride];
    let ([dilation_y, dilation_x], [pad_top, pad_left, ..]) = (dilation, padding);
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

/// The same of a pool over windows.
pub fn problem_of_pool(pool: &Pool2d, layout: Layout) -> String {
    let what = match pool.mode {
        PoolMode::Max => "the largest of",
        PoolMode::Average { count_include_pad: true } => "the mean of",
        PoolMode::Average { count_include_pad: false } => "the mean without padding of",
    };
    let windows = windows(pool.kernel_size, pool.stride, pool.dilation);
    format!("{what} {windows}, {}", layout_name(layout))
}

fn windows(kernel_size: [u32; 2], stride: [u32; 2], dilation: [u32; 2]) -> String {
    let mut text = format!("{}x{}", kernel_size[0], kernel_size[1]);
    if stride != [1; 2] {
        let _ = write!(text, ", stride {}x{}", stride[0], stride[1]);
    }
    if dilation != [1; 2] {
        let _ = write!(text, ", dilation {}x{}", dilation[0], dilation[1]);
    }
    text
}

/// What of a link is constant.
fn constants(conv: &Conv2d) -> String {
    let mut text = windows(conv.kernel_size, conv.stride, conv.dilation);
    match conv.residual {
        None => {}
        Some(Residual::BeforeActivation) => text.push_str(", residual before activation"),
        Some(Residual::AfterActivation) => text.push_str(", residual after activation"),
    }
    text
}
