//! The parser of problem lines.

mod links;

use std::ops::Range;

use super::{Operation, Problem};
use crate::model::conv::{Activation, Conv2d, Residual};
use crate::model::dtype::DType;
use crate::model::error::{Error, ParseError};
use crate::model::gate::SqueezeExcite;
use crate::model::pool::Pool2d;
use crate::model::prelu::PRelu;
use crate::model::separable::Separable;
use crate::model::shape::{Layout, Shape};
use crate::nets;

const OPERATIONS: &str = "conv, depthwise, pointwise, separable, transposed, prelu, maxpool, avgpool, pool, gate, resize, pixelshuffle, pixelunshuffle, slice, concat";

const ACTIVATIONS: &str = "relu, relu6, silu, hardswish, sigmoid, hardsigmoid, tanh, gelu, leakyrelu:S, clamp:A,B";

/// Reads a line word by word and remembers where each option stood, so that an error can point at it.
pub struct Parser<'a> {
    line: &'a str,
    words: Vec<(Range<usize>, &'a str)>,
    next: usize,
    seen: Vec<(&'static str, Range<usize>)>,
    layout: Layout,
    dtype: DType,
}

pub type Parsed<T> = std::result::Result<T, ParseError>;

impl<'a> Parser<'a> {
    pub fn new(line: &'a str) -> Self {
        let offset = |word: &str| word.as_ptr() as usize - line.as_ptr() as usize;
        let words = line.split_ascii_whitespace().map(|word| (offset(word)..offset(word) + word.len(), word)).collect();
        Self { line, words, next: 0, seen: Vec::new(), layout: Layout::default(), dtype: DType::default() }
    }

    fn error<T>(&self, span: Range<usize>, message: impl Into<String>) -> Parsed<T> {
        Err(ParseError { message: message.into(), line: self.line.into(), start: span.start, end: span.end })
    }

    fn unknown_operation<T>(&self, span: Range<usize>, word: &str) -> Parsed<T> {
        self.error(span, format!("`{word}` is no operation; there are {}", operations()))
    }

    fn word(&mut self, what: &str) -> Parsed<(Range<usize>, &'a str)> {
        match self.words.get(self.next) {
            Some((span, word)) => {
                self.next += 1;
                Ok((span.clone(), word))
            }
            None => self.error(self.line.len()..self.line.len(), format!("{what} is missing")),
        }
    }

    fn number(&self, span: &Range<usize>, text: &str, name: &str, range: Range<u64>) -> Parsed<u32> {
        let number = text.parse::<u64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        match number.filter(|number| range.contains(number)) {
            Some(number) => Ok(number as u32),
            None => self.error(
                span.clone(),
                format!("{name} must be a whole number from {} to {}, not `{text}`", range.start, range.end - 1),
            ),
        }
    }

    /// `K` or `HxW`.
    fn pair(&self, span: &Range<usize>, text: &str, name: &str) -> Parsed<[u32; 2]> {
        let (rows, columns) = text.split_once('x').unwrap_or((text, text));
        let number = |text| self.number(span, text, name, 1..(1 << 16) + 1);
        Ok([number(rows)?, number(columns)?])
    }

    /// `P` or `T,L,B,R`.
    fn padding(&self, span: &Range<usize>, text: &str) -> Parsed<[u32; 4]> {
        let sides: Vec<_> = text.split(',').collect();
        let number = |text: &str| self.number(span, text, "the padding", 0..(1 << 16) + 1);
        match sides[..] {
            [all] => Ok([number(all)?; 4]),
            [top, left, bottom, right] => Ok([number(top)?, number(left)?, number(bottom)?, number(right)?]),
            _ => self.error(span.clone(), "the padding is pP or pTOP,LEFT,BOTTOM,RIGHT"),
        }
    }

    fn clamp(&self, span: &Range<usize>, text: &str) -> Parsed<Activation> {
        let bounds = text.split_once(',').and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?)));
        match bounds {
            Some((low, high)) if !f32::is_nan(low) && !f32::is_nan(high) => Ok(Activation::Clamp(low, high)),
            _ => self.error(span.clone(), "a clamp is clamp:LOW,HIGH with two numbers"),
        }
    }

    fn leaky_relu(&self, span: &Range<usize>, text: &str) -> Parsed<Activation> {
        match text.parse() {
            Ok(slope) if f32::is_finite(slope) => Ok(Activation::LeakyRelu(slope)),
            _ => self.error(span.clone(), "a leaky ReLU is leakyrelu:SLOPE with a finite number"),
        }
    }

    /// Notes that an option was given; an error if it was before.
    fn once(&mut self, span: &Range<usize>, option: &'static str) -> Parsed<()> {
        if self.saw(option) {
            return self.error(span.clone(), format!("{option} is given twice"));
        }
        self.seen.push((option, span.clone()));
        Ok(())
    }

    fn saw(&self, option: &str) -> bool {
        self.seen.iter().any(|(seen, _)| *seen == option)
    }

    fn span_of(&self, option: &str) -> Range<usize> {
        let seen = self.seen.iter().find(|(seen, _)| *seen == option);
        seen.map_or(0..self.line.len(), |(_, span)| span.clone())
    }

    pub fn problem(mut self) -> Parsed<Problem> {
        let (span, word) = self.word(&format!("the operation ({})", operations()))?;
        let (input, operation) = match word {
            "conv" | "depthwise" | "pointwise" | "separable" => self.convolution(word)?,
            "transposed" => self.transposed()?,
            "prelu" => self.plain(word, |input| Operation::PRelu(PRelu::new(input.channels)))?,
            "maxpool" => self.pool_of_windows(word, Pool2d::max(1))?,
            "avgpool" => self.pool_of_windows(word, Pool2d::average(1))?,
            "pool" => self.plain(word, |_| Operation::Pool)?,
            "resize" => self.resize()?,
            "pixelshuffle" => self.shuffle(word, Operation::PixelShuffle)?,
            "pixelunshuffle" => self.shuffle(word, Operation::PixelUnshuffle)?,
            "slice" => self.slice()?,
            "concat" => self.concat()?,
            "gate" => self.gate()?,
            _ => match nets::NETWORKS.iter().find(|(name, ..)| *name == word) {
                Some((_, task, make)) => self.network(*task, *make)?,
                None => return self.unknown_operation(span, word),
            },
        };
        let operation = match self.saw("prelu") {
            true if self.saw("residual:after") => {
                let message = "a PReLU is a link behind the convolution, whose residual is added before it: `residual`";
                return self.error(self.span_of("residual:after"), message);
            }
            true if self.saw("mean") => {
                return self.error(self.span_of("mean"), "`mean` is of the convolution, and takes no `prelu`");
            }
            true => Operation::ThenPRelu(Box::new(operation)),
            false => operation,
        };
        let problem = Problem { input, layout: self.layout, dtype: self.dtype, operation };
        match problem.output() {
            Ok(_) => Ok(problem),
            Err(error) => {
                let span = match error {
                    Error::Groups { .. } => self.span_of("the groups"),
                    Error::KernelTooLarge { .. } => self.span_of("the kernel"),
                    Error::PoolPadding { .. } | Error::EmptyOutput { .. } => self.span_of("the padding"),
                    Error::OutputPadding { .. } => self.span_of("the output padding"),
                    Error::PixelShuffle { .. } | Error::PixelUnshuffle { .. } => self.span_of("the factor"),
                    Error::Slice { .. } => self.span_of("the channels"),
                    // What is resized in a network fits only some images.
                    Error::ShapeMismatch { .. } => self.span_of("the shape"),
                    Error::Resize { .. } => self.span_of("the new size"),
                    Error::TooLarge { .. } if self.saw("the new size") && input.check_indexable("input").is_ok() => {
                        self.span_of("the new size")
                    }
                    Error::TooLarge { .. } => self.span_of("the shape"),
                    _ => 0..self.line.len(),
                };
                self.error(span, error.to_string())
            }
        }
    }

    fn convolution(&mut self, operation: &str) -> Parsed<(Shape, Operation)> {
        let input = self.shape()?;
        let out_channels = self.out_channels(operation, input)?;
        let conv = self.options(operation, Conv2d::pointwise(input.channels, out_channels))?;
        let operation = match operation {
            "conv" => Operation::Conv(conv),
            "pointwise" if self.saw("mean") => Operation::PointwiseMean(conv),
            "pointwise" => Operation::Pointwise(conv),
            "depthwise" => Operation::Depthwise(conv.groups(input.channels)),
            "separable" => Operation::Separable(Separable {
                pointwise: Conv2d {
                    kernel_size: [1; 2],
                    stride: [1; 2],
                    padding: [0; 4],
                    dilation: [1; 2],
                    scaled: false,
                    ..conv.clone()
                },
                depthwise: Conv2d { out_channels: input.channels, groups: input.channels, residual: None, ..conv },
            }),
            other => return self.unknown_operation(0..self.line.len(), other),
        };
        Ok((input, operation))
    }

    /// Refuses a line without a kernel size.
    fn needs_kernel(&self) -> Parsed<()> {
        match self.saw("the kernel") {
            true => Ok(()),
            false => self.error(self.line.len()..self.line.len(), "the kernel size, kK or kHxW, is missing"),
        }
    }

    fn gate(&mut self) -> Parsed<(Shape, Operation)> {
        let input = self.shape()?;
        let squeezed = self.out_channels("gate", input)?;
        let mut gate = SqueezeExcite::new(input.channels, squeezed);
        let mut activations = Vec::new();
        while self.next < self.words.len() {
            let (span, word) = self.word("an option")?;
            if word == "nobias" {
                gate = gate.bias(false);
                self.once(&span, "nobias")?;
            } else if let Some(activation) = self.activation(&span, word)?.filter(|_| activations.len() < 2) {
                activations.push((span, activation));
            } else if !self.common_option(&span, word)? {
                let options = format!("two of {ACTIVATIONS}, nobias, f32, f16, nhwc");
                return self.error(span, format!("`{word}` is no option of this gate; there are {options}"));
            }
        }
        match &activations[..] {
            [] => {}
            [(_, squeeze), (_, excite)] => gate = gate.activations(*squeeze, *excite),
            [(span, _), ..] => {
                let message = "a gate has two activations, that of the squeeze and its own; the second is missing";
                return self.error(span.clone(), message);
            }
        }
        Ok((input, Operation::Gate(gate)))
    }

    /// The activation that a word is, if it is one.
    fn activation(&self, span: &Range<usize>, word: &str) -> Parsed<Option<Activation>> {
        Ok(match word {
            "none" => Some(Activation::None),
            "relu" => Some(Activation::Relu),
            "relu6" => Some(Activation::Relu6),
            "silu" => Some(Activation::Silu),
            "hardswish" => Some(Activation::HardSwish),
            "sigmoid" => Some(Activation::Sigmoid),
            "hardsigmoid" => Some(Activation::HardSigmoid),
            "tanh" => Some(Activation::Tanh),
            "gelu" => Some(Activation::Gelu),
            _ => match (word.strip_prefix("clamp:"), word.strip_prefix("leakyrelu:")) {
                (Some(bounds), _) => Some(self.clamp(span, bounds)?),
                (_, Some(slope)) => Some(self.leaky_relu(span, slope)?),
                _ => None,
            },
        })
    }

    /// Takes an option that all operations have. Whether the word is one.
    fn common_option(&mut self, span: &Range<usize>, word: &str) -> Parsed<bool> {
        if word == "nhwc" {
            self.layout = Layout::Nhwc;
            self.once(span, "nhwc")?;
        } else if let Ok(dtype) = word.parse() {
            self.dtype = dtype;
            self.once(span, "the element type")?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn network(&mut self, task: nets::Task, network: nets::Make) -> Parsed<(Shape, Operation)> {
        let input = self.images(task)?;
        // Where images come out, they have the channels of those that come in.
        let (mut classes, mut width) = (task.classes().unwrap_or(input.channels), 1.0);
        if task.classes().is_some() && self.words.get(self.next).is_some_and(|(_, word)| *word == "->") {
            self.next += 1;
            let (span, word) = self.word("the number of classes")?;
            classes = self.number(&span, word, "the number of classes", 1..1 << 32)?;
        }
        while self.next < self.words.len() {
            let (span, word) = self.word("an option")?;
            if self.common_option(&span, word)? {
                continue;
            }
            if let Some(Ok(multiplier)) = word.strip_prefix('w').map(str::parse::<f64>) {
                self.once(&span, "the width")?;
                width = multiplier;
            } else {
                return self
                    .error(span, format!("`{word}` is no option of a network; there are wWIDTH, f32, f16, nhwc"));
            }
        }
        match network(width, classes).map(|network| network.sized(input)) {
            Ok(Ok(network)) => Ok((input, Operation::Network(network))),
            Ok(Err(error)) => self.error(self.span_of("the shape"), error.to_string()),
            Err(error) => self.error(self.span_of("the width"), error.to_string()),
        }
    }

    /// `N` or `Nx3xHxW`; any number of channels if images come out.
    fn images(&mut self, task: nets::Task) -> Parsed<Shape> {
        if let Some((span, word)) = self.words.get(self.next).cloned()
            && !word.contains('x')
        {
            self.next += 1;
            self.once(&span, "the shape")?;
            return Ok(super::image(self.number(&span, word, "the number of images", 0..1 << 32)?));
        }
        let shape = self.shape()?;
        match shape.channels {
            _ if task.classes().is_none() => Ok(shape),
            3 => Ok(shape),
            other => self.error(self.span_of("the shape"), format!("an image has 3 channels, not {other}")),
        }
    }

    fn shape(&mut self) -> Parsed<Shape> {
        let (span, word) = self.word("the input's shape NxCxHxW")?;
        self.once(&span, "the shape")?;
        let extents: Vec<_> = word.split('x').collect();
        let &[batch, channels, height, width] = &extents[..] else {
            return self.error(span, format!("the input's shape is NxCxHxW, not `{word}`"));
        };
        let number = |text, name, least| self.number(&span, text, name, least..1 << 32);
        Ok(Shape {
            batch: number(batch, "the batch", 0)?,
            channels: number(channels, "the channels", 1)?,
            height: number(height, "the height", 1)?,
            width: number(width, "the width", 1)?,
        })
    }

    fn out_channels(&mut self, operation: &str, input: Shape) -> Parsed<u32> {
        let arrow = self.words.get(self.next).is_some_and(|(_, word)| *word == "->");
        if !arrow && operation == "depthwise" {
            return Ok(input.channels);
        }
        let (span, word) = self.word("`-> OC`, the output channels,")?;
        if word != "->" {
            return self.error(span, format!("`-> OC`, the output channels, must come here, not `{word}`"));
        }
        let (span, word) = self.word("the number of output channels")?;
        let channels = self.number(&span, word, "the number of output channels", 1..1 << 32)?;
        if operation == "depthwise" && channels % input.channels != 0 {
            let message = format!("{channels} output channels are not a multiple of {} channels", input.channels);
            return self.error(span, message);
        }
        Ok(channels)
    }

    /// What the options say; what they leave out is PyTorch's default.
    fn options(&mut self, operation: &str, mut conv: Conv2d) -> Parsed<Conv2d> {
        while self.next < self.words.len() {
            let (span, word) = self.word("an option")?;
            self.option(operation, &mut conv, &span, word)?;
        }
        if operation != "pointwise" {
            self.needs_kernel()?;
        }
        Ok(conv)
    }

    fn option(&mut self, operation: &str, conv: &mut Conv2d, span: &Range<usize>, word: &str) -> Parsed<()> {
        if self.common_option(span, word)? {
            return Ok(());
        }
        let activation = self.activation(span, word)?.filter(|_| word != "none");
        if let Some(activation) = activation {
            conv.activation = activation;
            return self.once(span, "the activation");
        }
        match word {
            "residual" | "residual:after" => {
                let after = word.ends_with("after");
                conv.residual = Some(if after { Residual::AfterActivation } else { Residual::BeforeActivation });
                self.once(span, "the residual")?;
                return if after { self.once(span, "residual:after") } else { Ok(()) };
            }
            "prelu" => {
                self.once(span, "the activation")?;
                return self.once(span, "prelu");
            }
            "nobias" => {
                conv.bias = false;
                return self.once(span, "nobias");
            }
            "scaled" => {
                conv.scaled = true;
                return self.once(span, "scaled");
            }
            "mean" if operation == "pointwise" => return self.once(span, "mean"),
            _ => {}
        }
        let mut characters = word.chars();
        let (letter, value) = (characters.next(), characters.as_str());
        match letter {
            Some('k') if operation != "pointwise" && starts_with_digit(value) => {
                conv.kernel_size = self.pair(span, value, "the kernel size")?;
                self.once(span, "the kernel")
            }
            Some('s') if starts_with_digit(value) => {
                conv.stride = self.pair(span, value, "the stride")?;
                self.once(span, "the stride")
            }
            Some('p') if starts_with_digit(value) => {
                conv.padding = self.padding(span, value)?;
                self.once(span, "the padding")
            }
            Some('d') if starts_with_digit(value) => {
                conv.dilation = self.pair(span, value, "the dilation")?;
                self.once(span, "the dilation")
            }
            Some('g') if matches!(operation, "conv" | "pointwise" | "transposed") && starts_with_digit(value) => {
                conv.groups = self.number(span, value, "the number of groups", 1..1 << 32)?;
                self.once(span, "the groups")
            }
            _ => self.error(
                span.clone(),
                format!("`{word}` is no option of {operation}; there are {}", known_options(operation)),
            ),
        }
    }
}

/// The operations, and the networks.
fn operations() -> String {
    let names = nets::NETWORKS.iter().map(|(name, ..)| *name);
    [OPERATIONS].into_iter().chain(names).collect::<Vec<_>>().join(", ")
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|character: char| character.is_ascii_digit())
}

/// The options of an operation, for messages.
fn known_options(operation: &str) -> String {
    let own = match operation {
        "conv" => "kK, sS, pP, dD, gG",
        "pointwise" => "sS, pP, dD, gG, mean",
        "transposed" => "kK, sS, pP, oO, dD, gG",
        _ => "kK, sS, pP, dD",
    };
    let joins = if operation == "transposed" { "" } else { "scaled, residual[:after], " };
    format!("{own}, {ACTIVATIONS}, prelu, {joins}nobias, f32, f16, nhwc")
}
