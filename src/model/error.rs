//! What can go wrong, each case with the numbers that were wrong and what would be right.

use std::fmt;
use std::sync::Arc;

use crate::model::dtype::DType;
use crate::model::shape::{Layout, Shape};
use crate::model::unsupported::Unsupported;

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every way in which a call can fail.
///
/// What another library said of it is not in the message: it is the [`source`](std::error::Error::source).
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the variants say what their fields are")]
pub enum Error {
    /// A number of a convolution is out of its range.
    #[error("{name} is {value}, but must be {expected}")]
    Parameter { name: &'static str, value: u64, expected: String },

    /// A clamp that leaves no finite number.
    #[error("clamp:{low},{high} leaves no number; its bounds are a low and a high one, not NaN")]
    Clamp { low: f32, high: f32 },

    /// A slope of a leaky ReLU that is no finite number.
    #[error("leakyrelu:{slope} has no finite slope")]
    Slope { slope: f32 },

    /// The groups do not divide the channels.
    #[error("{groups} groups do not divide {in_channels} input and {out_channels} output channels")]
    Groups { groups: u32, in_channels: u32, out_channels: u32 },

    /// The kernel, spread out by its dilation, does not fit into the padded image.
    #[error("a kernel of {}x{} (dilated) is larger than the padded image of {}x{}",
        kernel[0], kernel[1], image[0], image[1])]
    KernelTooLarge { kernel: [u64; 2], image: [u64; 2] },

    /// A pool's padding is more than half of its window, so that a window could lie in the padding alone.
    #[error("a padding of {},{},{},{} is more than half of a window of {}x{}",
        padding[0], padding[1], padding[2], padding[3], kernel[0], kernel[1])]
    PoolPadding { padding: [u32; 4], kernel: [u32; 2] },

    /// A pixel shuffle's channels are no multiple of its factor's square.
    #[error("a pixel shuffle by {factor} takes channels in multiples of {}, not {channels}", u64::from(*factor).pow(2))]
    PixelShuffle { factor: u32, channels: u32 },

    /// What undoes a pixel shuffle has rows or columns that are no multiple of its factor.
    #[error("a pixel unshuffle by {factor} takes rows and columns in multiples of it, not {}x{}", image[0], image[1])]
    PixelUnshuffle { factor: u32, image: [u32; 2] },

    /// A slice of channels that is empty, or ends beyond the input's.
    #[error("the slice {first}..{end} of the channels of {shape} is empty or ends beyond them")]
    Slice { first: u32, end: u32, shape: Shape },

    /// A resize that leaves no row or no column, or whose factor is no positive number.
    #[error("a resize of {}x{} to {to} leaves nothing", image[0], image[1])]
    Resize { image: [u32; 2], to: String },

    /// The output padding of a transposed convolution is below neither its stride nor its dilation.
    #[error("an output padding of {}x{} is below neither the stride {}x{} nor the dilation {}x{}",
        output_padding[0], output_padding[1], stride[0], stride[1], dilation[0], dilation[1])]
    OutputPadding { output_padding: [u32; 2], stride: [u32; 2], dilation: [u32; 2] },

    /// The padding of a transposed convolution cuts off all of its output.
    #[error("of {}x{} the output is {}x{}: the padding cuts off all of it", image[0], image[1], size[0], size[1])]
    EmptyOutput { image: [u32; 2], size: [i64; 2] },

    /// Channels, height or width of the input are zero. (A batch of zero is fine.)
    #[error("an input of {shape} has no pixels; only its batch may be zero")]
    EmptyInput { shape: Shape },

    /// A tensor's channels are not the convolution's.
    #[error("link {link} takes {expected} channels, but is given {actual}")]
    Channels { link: usize, expected: u32, actual: u32 },

    /// A tensor has another shape than it must have.
    #[error("the {tensor} must be {expected}, but is {actual}")]
    ShapeMismatch { tensor: &'static str, expected: Shape, actual: Shape },

    /// A tensor has another layout than the input.
    #[error("the {tensor} must be {expected}, as the input is, but is {actual}")]
    LayoutMismatch { tensor: &'static str, expected: Layout, actual: Layout },

    /// A tensor's elements are of another type than the layer's, or than the slice's.
    #[error("the {tensor} must be of {expected}, but is of {actual}")]
    DTypeMismatch { tensor: &'static str, expected: DType, actual: DType },

    /// A word that is no element type.
    #[error("an element type is {}, not `{word}`", dtypes())]
    DType { word: String },

    /// A slice has another length than its shape says.
    #[error("the {what} must have {expected} values, but has {actual}")]
    Length { what: String, expected: u64, actual: u64 },

    /// A width multiplier that leaves no network, or too large a one.
    #[error("a width multiplier must be above 0 and at most {limit}, but is {width}")]
    Width { width: f64, limit: f64 },

    /// A batch norm whose variance has no inverse root.
    #[error("channel {channel} of a batch norm has the variance {variance} with eps {eps}; their sum must be above 0")]
    Variance { channel: usize, variance: f32, eps: f64 },

    /// Bytes that are not what safetensors writes.
    #[error("not a safetensors file")]
    NotSafetensors(#[source] Cause),

    /// A file lacks a tensor, by the names of the publisher whose names it has most of, one of
    /// [`Network::publishers`](crate::nets::Network::publishers).
    #[error("the file has no tensor `{name}` ({publisher}'s name), which must be {expected:?}")]
    MissingTensor { name: String, publisher: &'static str, expected: Vec<usize> },

    /// A tensor of a file has another shape than it must have.
    #[error("the tensor `{name}` must be {expected:?}, but is {actual:?}")]
    TensorShape { name: String, expected: Vec<usize>, actual: Vec<usize> },

    /// A tensor of a file has an element type that f32 is not made of.
    #[error("the tensor `{name}` must be F32, F16, BF16 or F64, but is {actual}")]
    TensorType { name: String, actual: String },

    /// A file has a tensor that the network does not.
    #[error("the file has a tensor `{name}` of {actual:?}, and the network none of that name")]
    SurplusTensor { name: String, actual: Vec<usize> },

    /// A chain that cannot be: no links, or an edge that leads nowhere.
    #[error("not a chain: {0}")]
    Chain(String),

    /// The layer adds a residual and was given none, or was given one and adds none.
    #[error("the layer {}", if *.expected { "adds a residual, but was given none" } else { "adds no residual, but was given one" })]
    Residual { expected: bool },

    /// The layer takes a scale and was given none, or was given one and takes none.
    #[error("the layer {}", if *.expected { "takes a scale, but was given none" } else { "takes no scale, but was given one" })]
    Scale { expected: bool },

    /// Something is larger than the device or the index arithmetic allows.
    #[error("{what} takes {needed}, but the limit is {limit}")]
    TooLarge { what: String, needed: u64, limit: u64 },

    /// No kernel computes this on this device, or none of those that were named.
    #[error("no kernel{} computes {problem}: {}", if *.named { " of those asked for" } else { "" }, reasons(.rejected))]
    NoKernel { problem: String, named: bool, rejected: Vec<(String, Unsupported)> },

    /// A kernel was asked for by a name that nothing has.
    #[error("no kernel is called `{name}`; there are {}", .known.join(", "))]
    UnknownKernel { name: String, known: Vec<String> },

    /// A word that says nothing about fusion.
    #[error("fusion is auto, never or always, not `{0}`")]
    Fusion(String),

    /// A buffer lacks a usage.
    #[error("the {tensor}'s buffer lacks the usage {missing}")]
    Usage { tensor: &'static str, missing: &'static str },

    /// A tensor starts where the device cannot bind a buffer.
    #[error("a tensor's offset of {offset} bytes is not a multiple of {alignment}")]
    Misaligned { offset: u64, alignment: u64 },

    /// A tensor's buffer was destroyed.
    #[error("the {tensor}'s buffer was destroyed")]
    Destroyed { tensor: &'static str },

    /// A tensor, or its buffer, was made by another device.
    #[error("a tensor of {shape} belongs to another device")]
    ForeignTensor { shape: Shape },

    /// The output shares its buffer with the input, the residual or the scale.
    #[error("the output's buffer is also the {tensor}'s; they must be two")]
    Aliasing { tensor: &'static str },

    /// A read-back's copy was never made: its encoder was not submitted when the values were asked for, or was dropped,
    /// or the device refused what was submitted.
    #[error("the values were not copied: the encoder of the read-back was not submitted, was dropped, or was refused")]
    NotSubmitted,

    /// There is no adapter, or none whose name was asked for.
    #[error("no usable GPU adapter{}; {}", called(.wanted), installed(.found))]
    NoAdapter { wanted: Option<String>, found: Vec<String> },

    /// The adapter gives no device.
    #[error("the adapter gives no device")]
    RequestDevice(#[source] Cause),

    /// The device refused a call as wrong: a bug of this library, or a buffer that could not be made.
    #[error("the device refused a call: {0}")]
    Validation(String),

    /// The device has not enough memory.
    #[error("out of device memory: {0}")]
    OutOfMemory(String),

    /// The driver failed.
    #[error("the driver failed: {0}")]
    Driver(String),

    /// The library contradicts itself: a bug in it, which it noticed before it could give a wrong number.
    #[error("a bug in gpuconv: {0}")]
    Internal(String),

    /// The device is gone; nothing of it works from now on.
    #[error("the device is lost: {0}")]
    DeviceLost(String),

    /// A tuning that is no JSON, or not of the form that it says.
    #[error("the tuning file is damaged")]
    DamagedTuning(#[source] Cause),

    /// A problem's text is wrong.
    #[error(transparent)]
    Parse(#[from] ParseError),
}

/// Why something failed, as another library or a check of a file's numbers says it.
#[derive(Clone)]
pub struct Cause(Arc<dyn std::error::Error + Send + Sync>);

impl Cause {
    pub(crate) fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(cause.into().into())
    }

    /// The other library's own error, to be downcast.
    pub fn get(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.0
    }
}

impl PartialEq for Cause {
    /// Whether both say the same.
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// A problem line that could not be read, and the word at which it went wrong.
///
/// It displays as the message, the line, and a caret under the word.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}\n  {line}\n  {}{}", " ".repeat(line[..*start].chars().count()), "^".repeat((line[*start..*end].chars().count()).max(1)))]
pub struct ParseError {
    /// What is wrong.
    pub message: String,
    /// The whole line.
    pub line: String,
    /// Where the word starts, in bytes.
    pub start: usize,
    /// Where the word ends, in bytes.
    pub end: usize,
}

fn dtypes() -> String {
    DType::ALL.iter().map(|dtype| dtype.name()).collect::<Vec<_>>().join(", ")
}

fn reasons(rejected: &[(String, Unsupported)]) -> String {
    let reasons: Vec<_> = rejected.iter().map(|(kernel, why)| format!("{kernel} ({why})")).collect();
    reasons.join(", ")
}

fn called(name: &Option<String>) -> String {
    name.as_ref().map(|name| format!(" called `{name}`")).unwrap_or_default()
}

fn installed(names: &[String]) -> String {
    if names.is_empty() && cfg!(target_arch = "wasm32") {
        "this browser has no WebGPU, or none for this GPU, or none for this page, which must come by https or from this \
         machine"
            .into()
    } else if names.is_empty() {
        "install a Vulkan driver (Mesa's lavapipe is one that needs no GPU), or check WGPU_BACKEND".into()
    } else {
        format!("there are {}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn what_another_library_said_is_the_source_and_not_in_the_message() {
        let number = "x".parse::<u32>().unwrap_err();
        let error = Error::DamagedTuning(Cause::new(number.clone()));
        assert_eq!(error.to_string(), "the tuning file is damaged");
        assert_eq!(error.source().unwrap().to_string(), number.to_string());
        let Error::DamagedTuning(cause) = &error else { panic!("{error}") };
        assert_eq!(cause.get().downcast_ref(), Some(&number));
        assert_eq!(error, error.clone());
        assert_ne!(error, Error::DamagedTuning(Cause::new("no numbers")));
    }

    #[test]
    fn an_error_names_no_script_of_this_repository() {
        let message = Error::NoAdapter { wanted: None, found: Vec::new() }.to_string();
        assert!(message.contains("install a Vulkan driver") && !message.contains("scripts"), "{message}");
    }
}
