//! Lines of links other than convolutions and gates.

use super::{Operation, Parsed, Parser, starts_with_digit};
use crate::model::concat::Concat;
use crate::model::conv::Conv2d;
use crate::model::pool::Pool2d;
use crate::model::resize::{Resize, ResizeMode};
use crate::model::shape::Shape;
use crate::model::transposed::ConvTranspose2d;

impl Parser<'_> {
    pub(super) fn transposed(&mut self) -> Parsed<(Shape, Operation)> {
        let input = self.shape()?;
        let out_channels = self.out_channels("transposed", input)?;
        let (mut conv, mut output_padding) = (Conv2d::pointwise(input.channels, out_channels), [0; 2]);
        while self.next < self.words.len() {
            let (span, word) = self.word("an option")?;
            match word.strip_prefix('o') {
                Some(value) if starts_with_digit(value) => {
                    self.once(&span, "the output padding")?;
                    let (rows, columns) = value.split_once('x').unwrap_or((value, value));
                    let number = |text| self.number(&span, text, "the output padding", 0..(1 << 16) + 1);
                    output_padding = [number(rows)?, number(columns)?];
                }
                _ if word == "scaled" || word.starts_with("residual") => {
                    return self.error(span, format!("`{word}` is no option of transposed, which reads one tensor"));
                }
                _ => self.option("transposed", &mut conv, &span, word)?,
            }
        }
        self.needs_kernel()?;
        Ok((input, Operation::ConvTranspose(ConvTranspose2d { conv, output_padding })))
    }

    pub(super) fn pool_of_windows(&mut self, operation: &str, mut pool: Pool2d) -> Parsed<(Shape, Operation)> {
        let (input, mut stride) = (self.shape()?, None);
        while self.next < self.words.len() {
            let (span, word) = self.word("an option")?;
            let mut characters = word.chars();
            match (characters.next(), characters.as_str()) {
                _ if self.common_option(&span, word)? => {}
                _ if word == "ceil" => {
                    self.once(&span, "ceil")?;
                    pool = pool.ceil_mode(true);
                }
                _ if word == "excludepad" && operation == "avgpool" => {
                    self.once(&span, "excludepad")?;
                    pool = pool.count_include_pad(false);
                }
                (Some('k'), value) if starts_with_digit(value) => {
                    self.once(&span, "the kernel")?;
                    pool.kernel_size = self.pair(&span, value, "the kernel size")?;
                }
                (Some('s'), value) if starts_with_digit(value) => {
                    self.once(&span, "the stride")?;
                    stride = Some(self.pair(&span, value, "the stride")?);
                }
                (Some('p'), value) if starts_with_digit(value) => {
                    self.once(&span, "the padding")?;
                    pool.padding = self.padding(&span, value)?;
                }
                (Some('d'), value) if operation == "maxpool" && starts_with_digit(value) => {
                    self.once(&span, "the dilation")?;
                    pool.dilation = self.pair(&span, value, "the dilation")?;
                }
                _ => {
                    let own = if operation == "maxpool" { "dD, ceil" } else { "ceil, excludepad" };
                    let options = format!("kK, sS, pP, {own}, f32, f16, nhwc");
                    return self.error(span, format!("`{word}` is no option of {operation}; there are {options}"));
                }
            }
        }
        self.needs_kernel()?;
        Ok((input, Operation::Pool2d(Pool2d { stride: stride.unwrap_or(pool.kernel_size), ..pool })))
    }

    /// A link of which the input says all.
    pub(super) fn plain(&mut self, operation: &str, of: fn(Shape) -> Operation) -> Parsed<(Shape, Operation)> {
        let input = self.shape()?;
        self.common_options(operation)?;
        Ok((input, of(input)))
    }

    /// The options that all operations have, to the end of the line.
    fn common_options(&mut self, operation: &str) -> Parsed<()> {
        while self.next < self.words.len() {
            let (span, word) = self.word("an option")?;
            if !self.common_option(&span, word)? {
                return self.error(span, format!("`{word}` is no option of {operation}; there are f32, f16, nhwc"));
            }
        }
        Ok(())
    }

    pub(super) fn slice(&mut self) -> Parsed<(Shape, Operation)> {
        let input = self.shape()?;
        let (span, word) = self.word("the channels FIRST..END")?;
        self.once(&span, "the channels")?;
        let Some((first, end)) = word.split_once("..") else {
            return self.error(span, format!("the channels are FIRST..END, not `{word}`"));
        };
        let number = |text| self.number(&span, text, "a channel", 0..1 << 32);
        let channels = number(first)?..number(end)?;
        self.common_options("slice")?;
        Ok((input, Operation::Slice(channels)))
    }

    pub(super) fn concat(&mut self) -> Parsed<(Shape, Operation)> {
        let input = self.shape()?;
        let (span, word) = self.word("the channels of each tensor, C,C,...,")?;
        let number = |text| self.number(&span, text, "the channels of a tensor", 1..1 << 32);
        let channels = word.split(',').map(number).collect::<Parsed<Vec<_>>>()?;
        let sum: u64 = channels.iter().copied().map(u64::from).sum();
        if sum != u64::from(input.channels) {
            return self.error(span, format!("{word} are {sum} channels, and the input has {}", input.channels));
        }
        self.common_options("concat")?;
        Ok((input, Operation::Concat(Concat::new(channels))))
    }

    pub(super) fn resize(&mut self) -> Parsed<(Shape, Operation)> {
        let (input, to) = (self.shape()?, self.new_size()?);
        let mut mode = ResizeMode::Nearest;
        while self.next < self.words.len() {
            let (span, word) = self.word("an option")?;
            match (word, mode) {
                _ if self.common_option(&span, word)? => {}
                ("bilinear", _) => {
                    self.once(&span, "bilinear")?;
                    mode = ResizeMode::Bilinear { align_corners: false };
                }
                ("aligned", ResizeMode::Bilinear { .. }) => {
                    self.once(&span, "aligned")?;
                    mode = ResizeMode::Bilinear { align_corners: true };
                }
                ("aligned", ResizeMode::Nearest) => {
                    return self.error(
                        span,
                        "`aligned` says how corners lie in a resize that is `bilinear`, and follows that",
                    );
                }
                _ => {
                    let options = "bilinear, aligned, f32, f16, nhwc";
                    return self.error(span, format!("`{word}` is no option of resize; there are {options}"));
                }
            }
        }
        Ok((input, Operation::Resize(Resize { mode, ..to })))
    }

    /// `-> HxW`, `xF` or `xF,F`.
    fn new_size(&mut self) -> Parsed<Resize> {
        let (span, word) = self.word("the new size, `-> HxW` or a factor `xF`,")?;
        if word == "->" {
            let (span, word) = self.word("the new size HxW")?;
            self.once(&span, "the new size")?;
            let Some((rows, columns)) = word.split_once('x') else {
                return self.error(span, format!("the new size is HxW, not `{word}`"));
            };
            let number = |text| self.number(&span, text, "an extent of the new size", 1..1 << 32);
            return Ok(Resize::to([number(rows)?, number(columns)?]));
        }
        self.once(&span, "the new size")?;
        let factors = word.strip_prefix('x').map(|text| text.split_once(',').unwrap_or((text, text)));
        let factors = factors.and_then(|(rows, columns)| Some([rows.parse().ok()?, columns.parse().ok()?]));
        match factors {
            Some(factors) => Ok(Resize::by_factors(factors)),
            None => self.error(
                span,
                format!("the new size, `-> HxW` or a factor `xF` or `xF,F`, must come here, not `{word}`"),
            ),
        }
    }

    pub(super) fn shuffle(&mut self, operation: &str, of: fn(u32) -> Operation) -> Parsed<(Shape, Operation)> {
        let (input, mut factor) = (self.shape()?, None);
        while self.next < self.words.len() {
            let (span, word) = self.word("an option")?;
            match word.strip_prefix('r') {
                _ if self.common_option(&span, word)? => {}
                Some(value) if starts_with_digit(value) => {
                    self.once(&span, "the factor")?;
                    factor = Some(self.number(&span, value, "the factor", 1..(1 << 16) + 1)?);
                }
                _ => {
                    return self
                        .error(span, format!("`{word}` is no option of {operation}; there are rR, f32, f16, nhwc"));
                }
            }
        }
        match factor {
            Some(factor) => Ok((input, of(factor))),
            None => self.error(self.line.len()..self.line.len(), "the factor, rR, is missing"),
        }
    }
}
