//! A problem as one line of text, the same in the README, the tests, the benches and on the command line.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::chain::{Chain, Separable};
use crate::conv::{Activation, Conv2d, Residual};
use crate::error::{Error, ParseError, Result};
use crate::shape::{Layout, Shape};

/// A chain of one or two links with the shape and layout of its input.
///
/// ```text
/// conv       NxCxHxW -> OC kK|kHxW [sS|sHxW] [pP|pT,L,B,R] [dD|dHxW] [gG] [ACTIVATION] [RESIDUAL] [nobias] [nhwc]
/// depthwise  NxCxHxW [-> OC] kK ...
/// pointwise  NxCxHxW -> OC ...
/// separable  NxCxHxW -> OC kK ...        the activation follows both halves
/// ```
///
/// `ACTIVATION` is `relu`, `relu6`, `silu`, `hardswish` or `clamp:LOW,HIGH`; `RESIDUAL` is `residual`
/// (added before the activation) or `residual:after`. What is left out is stride 1, padding 0,
/// dilation 1, one group, a bias, no activation, NCHW.
///
/// ```
/// let problem: gpuconv::Problem = "separable 1x512x128x128 -> 1024 k3 s2 p1".parse()?;
/// assert_eq!(problem.chain().links().len(), 2);
/// assert_eq!(problem.to_string(), "separable 1x512x128x128 -> 1024 k3 s2 p1");
/// # Ok::<(), gpuconv::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// The input's shape.
    pub input: Shape,
    /// The layout of input and output on the device.
    pub layout: Layout,
    /// What is computed.
    pub operation: Operation,
}

/// The four kinds of problem.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Any convolution.
    Conv(Conv2d),
    /// One filter a channel, or several.
    Depthwise(Conv2d),
    /// A 1x1 convolution.
    Pointwise(Conv2d),
    /// A depthwise and a pointwise convolution.
    Separable(Separable),
}

impl Problem {
    /// What is computed, as a chain.
    pub fn chain(&self) -> Chain {
        match &self.operation {
            Operation::Conv(conv) | Operation::Depthwise(conv) | Operation::Pointwise(conv) => conv.into(),
            Operation::Separable(separable) => separable.into(),
        }
    }

    /// The output's shape.
    ///
    /// # Errors
    /// What [`Chain::shapes`] says.
    pub fn output(&self) -> Result<Shape> {
        Ok(self.chain().shapes(self.input)?.last().copied().unwrap_or(self.input))
    }

    /// The same problem with a residual added to its last link.
    pub fn with_residual(mut self, residual: Residual) -> Self {
        match &mut self.operation {
            Operation::Conv(conv) | Operation::Depthwise(conv) | Operation::Pointwise(conv) => {
                conv.residual = Some(residual);
            }
            Operation::Separable(separable) => separable.pointwise.residual = Some(residual),
        }
        self
    }

    /// The word that names the operation.
    fn word(&self) -> &'static str {
        match self.operation {
            Operation::Conv(_) => "conv",
            Operation::Depthwise(_) => "depthwise",
            Operation::Pointwise(_) => "pointwise",
            Operation::Separable(_) => "separable",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (spatial, last) = match &self.operation {
            Operation::Conv(conv) | Operation::Depthwise(conv) | Operation::Pointwise(conv) => (conv, conv),
            Operation::Separable(separable) => (&separable.depthwise, &separable.pointwise),
        };
        write!(f, "{} {}", self.word(), self.input)?;
        let is_depthwise = matches!(self.operation, Operation::Depthwise(_));
        if !is_depthwise || last.out_channels != last.in_channels {
            write!(f, " -> {}", last.out_channels)?;
        }
        let pair = |[rows, columns]: [u32; 2]| {
            if rows == columns { rows.to_string() } else { format!("{rows}x{columns}") }
        };
        if !matches!(self.operation, Operation::Pointwise(_)) {
            write!(f, " k{}", pair(spatial.kernel_size))?;
        }
        if spatial.stride != [1; 2] {
            write!(f, " s{}", pair(spatial.stride))?;
        }
        match spatial.padding {
            [0, 0, 0, 0] => {}
            [top, left, bottom, right] if [left, bottom, right] == [top; 3] => write!(f, " p{top}")?,
            [top, left, bottom, right] => write!(f, " p{top},{left},{bottom},{right}")?,
        }
        if spatial.dilation != [1; 2] {
            write!(f, " d{}", pair(spatial.dilation))?;
        }
        if matches!(self.operation, Operation::Conv(_) | Operation::Pointwise(_)) && last.groups != 1 {
            write!(f, " g{}", last.groups)?;
        }
        if last.activation != Activation::None {
            write!(f, " {}", last.activation)?;
        }
        match last.residual {
            None => {}
            Some(Residual::BeforeActivation) => f.write_str(" residual")?,
            Some(Residual::AfterActivation) => f.write_str(" residual:after")?,
        }
        if !last.bias {
            f.write_str(" nobias")?;
        }
        if self.layout == Layout::Nhwc {
            f.write_str(" nhwc")?;
        }
        Ok(())
    }
}

impl FromStr for Problem {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        Ok(Parser::new(line).problem()?)
    }
}

/// Reads a line word by word and remembers where each option stood, so that an error can point at it.
struct Parser<'a> {
    line: &'a str,
    words: Vec<(Range<usize>, &'a str)>,
    next: usize,
    seen: Vec<(&'static str, Range<usize>)>,
}

type Parsed<T> = std::result::Result<T, ParseError>;

/// What the options say; what they leave out is PyTorch's default.
struct Options {
    conv: Conv2d,
    layout: Layout,
}

impl<'a> Parser<'a> {
    fn new(line: &'a str) -> Self {
        let offset = |word: &str| word.as_ptr() as usize - line.as_ptr() as usize;
        let words = line.split_ascii_whitespace().map(|word| (offset(word)..offset(word) + word.len(), word)).collect();
        Self { line, words, next: 0, seen: Vec::new() }
    }

    fn error<T>(&self, span: Range<usize>, message: impl Into<String>) -> Parsed<T> {
        Err(ParseError { message: message.into(), line: self.line.into(), start: span.start, end: span.end })
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

    /// Notes that an option was given; an error if it was before.
    fn once(&mut self, span: &Range<usize>, option: &'static str) -> Parsed<()> {
        if self.seen.iter().any(|(seen, _)| *seen == option) {
            return self.error(span.clone(), format!("{option} is given twice"));
        }
        self.seen.push((option, span.clone()));
        Ok(())
    }

    fn span_of(&self, option: &str) -> Range<usize> {
        let seen = self.seen.iter().find(|(seen, _)| *seen == option);
        seen.map_or(0..self.line.len(), |(_, span)| span.clone())
    }

    fn problem(mut self) -> Parsed<Problem> {
        let (operation_span, operation) = self.word("the operation (conv, depthwise, pointwise or separable)")?;
        if !["conv", "depthwise", "pointwise", "separable"].contains(&operation) {
            let message = format!("`{operation}` is no operation: conv, depthwise, pointwise or separable is");
            return self.error(operation_span, message);
        }
        let input = self.shape()?;
        let out_channels = self.out_channels(operation, input)?;
        let Options { conv, layout } = self.options(operation, Conv2d::new(input.channels, out_channels))?;
        let operation = match operation {
            "conv" => Operation::Conv(conv),
            "pointwise" => Operation::Pointwise(conv),
            "depthwise" => Operation::Depthwise(conv.groups(input.channels)),
            _ => Operation::Separable(Separable {
                pointwise: Conv2d {
                    kernel_size: [1; 2],
                    stride: [1; 2],
                    padding: [0; 4],
                    dilation: [1; 2],
                    ..conv.clone()
                },
                depthwise: Conv2d { out_channels: input.channels, groups: input.channels, residual: None, ..conv },
            }),
        };
        let problem = Problem { input, layout, operation };
        match problem.output() {
            Ok(_) => Ok(problem),
            Err(error) => {
                let span = match error {
                    Error::Groups { .. } => self.span_of("the groups"),
                    Error::KernelTooLarge { .. } => self.span_of("the kernel"),
                    Error::TooLarge { .. } => self.span_of("the shape"),
                    _ => 0..self.line.len(),
                };
                self.error(span, error.to_string())
            }
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

    fn options(&mut self, operation: &str, conv: Conv2d) -> Parsed<Options> {
        let mut options = Options { conv, layout: Layout::Nchw };
        while self.next < self.words.len() {
            let (span, word) = self.word("an option")?;
            self.option(operation, &mut options, &span, word)?;
        }
        if operation != "pointwise" && !self.seen.iter().any(|(seen, _)| *seen == "the kernel") {
            return self.error(self.line.len()..self.line.len(), "the kernel size, kK or kHxW, is missing");
        }
        Ok(options)
    }

    fn option(&mut self, operation: &str, options: &mut Options, span: &Range<usize>, word: &str) -> Parsed<()> {
        let conv = &mut options.conv;
        let activation = match word {
            "relu" => Some(Activation::Relu),
            "relu6" => Some(Activation::Relu6),
            "silu" => Some(Activation::Silu),
            "hardswish" => Some(Activation::HardSwish),
            _ => word.strip_prefix("clamp:").map(|bounds| self.clamp(span, bounds)).transpose()?,
        };
        if let Some(activation) = activation {
            conv.activation = activation;
            return self.once(span, "the activation");
        }
        match word {
            "residual" | "residual:after" => {
                let after = word.ends_with("after");
                conv.residual = Some(if after { Residual::AfterActivation } else { Residual::BeforeActivation });
                return self.once(span, "the residual");
            }
            "nobias" => {
                conv.bias = false;
                return self.once(span, "nobias");
            }
            "nhwc" => {
                options.layout = Layout::Nhwc;
                return self.once(span, "nhwc");
            }
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
            Some('g') if matches!(operation, "conv" | "pointwise") && starts_with_digit(value) => {
                conv.groups = self.number(span, value, "the number of groups", 1..1 << 32)?;
                self.once(span, "the groups")
            }
            _ => self
                .error(span.clone(), format!("`{word}` is no option of {operation}: {} are", known_options(operation))),
        }
    }
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|character: char| character.is_ascii_digit())
}

fn known_options(operation: &str) -> &'static str {
    match operation {
        "conv" => "kK, sS, pP, dD, gG, relu, relu6, silu, hardswish, clamp:A,B, residual, nobias, nhwc",
        "pointwise" => "sS, pP, dD, gG, relu, relu6, silu, hardswish, clamp:A,B, residual, nobias, nhwc",
        _ => "kK, sS, pP, dD, relu, relu6, silu, hardswish, clamp:A,B, residual, nobias, nhwc",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_displayed_reads_back() {
        for line in [
            "conv 1x3x224x224 -> 32 k3 s2 p1 relu6",
            "conv 2x6x9x8 -> 4 k3x2 s2x1 p0,1,2,3 d2x3 g2 clamp:-0.5,1.25 residual:after nobias nhwc",
            "depthwise 1x32x5x5 k3",
            "depthwise 1x32x5x5 -> 64 k3x1 silu",
            "pointwise 0x8x1x1 -> 8 g4 hardswish",
            "separable 1x8x9x9 -> 16 k5 s2 p2 d1x2 relu residual nhwc",
        ] {
            let problem: Problem = line.parse().unwrap();
            assert_eq!(problem.to_string().parse::<Problem>().unwrap(), problem);
        }
        let spelled_out: Problem = "conv 1x3x8x8 -> 4 k3x3 s1 p1,1,1,1 d1 g1".parse().unwrap();
        assert_eq!(spelled_out.to_string(), "conv 1x3x8x8 -> 4 k3 p1");
    }

    #[test]
    fn an_error_points_at_the_word() {
        for (line, word) in [
            ("", ""),
            ("convolve 1x3x8x8 -> 4 k3", "convolve"),
            ("conv", ""),
            ("conv 1x3x8 -> 4 k3", "1x3x8"),
            ("conv 1x0x8x8 -> 4 k3", "1x0x8x8"),
            ("conv 1x3x8x4294967296 -> 4 k3", "1x3x8x4294967296"),
            ("conv 1x3x8x8 k3", "k3"),
            ("conv 1x3x8x8 -> none k3", "none"),
            ("conv 1x3x8x8 -> 4", ""),
            ("conv 1x3x8x8 -> 4 k0", "k0"),
            ("conv 1x3x8x8 -> 4 k3 s0", "s0"),
            ("conv 1x3x8x8 -> 4 k3 s1 s2", "s2"),
            ("conv 1x3x8x8 -> 4 k3 p1,2", "p1,2"),
            ("conv 1x3x8x8 -> 4 k3 p-1", "p-1"),
            ("conv 1x3x8x8 -> 4 k3 g2", "g2"),
            ("conv 1x3x8x8 -> 4 k3 relu silu", "silu"),
            ("conv 1x3x8x8 -> 4 k3 clamp:1", "clamp:1"),
            ("conv 1x3x8x8 -> 4 k3 fast", "fast"),
            ("conv 1x3x8x8 -> 4 k3 k9x9", "k9x9"),
            ("conv 1x3x2x2 -> 4 k3", "k3"),
            ("conv 60000x60000x9x9 -> 4 k3", "60000x60000x9x9"),
            ("depthwise 1x3x8x8 -> 4 k3", "4"),
            ("depthwise 1x3x8x8 k3 g3", "g3"),
            ("pointwise 1x3x8x8 -> 4 k3", "k3"),
        ] {
            let Err(Error::Parse(error)) = line.parse::<Problem>() else { panic!("`{line}` was taken") };
            assert_eq!(&line[error.start..error.end], word, "{line}: {error}");
        }
    }
}
