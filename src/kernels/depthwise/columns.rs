//! How the outputs of a strip lie in a row, and the input under them.

use std::collections::BTreeSet;
use std::ops::Range;

use minijinja::{Value, context};

use super::DEPTHWISE;
use crate::kernels::pack::phases::greatest_common_divisor;
use crate::kernels::{Params, Run};
use crate::model::caps::Caps;
use crate::model::conv::Conv2d;
use crate::model::dtype::DType;
use crate::model::shape::Layout;

/// A depthwise link and the sizes of its images as a strip sees them: as they are, or with rows for columns and columns
/// for rows.
#[derive(Clone)]
pub struct Oriented {
    pub link: Conv2d,
    pub transposed: bool,
    /// Rows and columns of the input.
    pub input: [u32; 2],
    /// Rows and columns of the output.
    pub output: [u32; 2],
}

impl Oriented {
    pub fn new(run: &Run<'_>, link: &Conv2d, transposed: bool) -> Self {
        let seen = |[rows, columns]: [u32; 2]| if transposed { [columns, rows] } else { [rows, columns] };
        let [top, left, bottom, right] = link.padding;
        let [[top, left], [bottom, right]] = [[top, left], [bottom, right]].map(seen);
        let link = Conv2d {
            kernel_size: seen(link.kernel_size),
            stride: seen(link.stride),
            dilation: seen(link.dilation),
            padding: [top, left, bottom, right],
            ..link.clone()
        };
        let [input, output] = [run.input(), run.output()].map(|shape| seen([shape.height, shape.width]));
        Self { link, transposed, input, output }
    }

    /// The name of a recipe for strips of these rows and columns, and as many channels.
    pub fn name(&self, rows: &str, columns: u32, lanes: u32) -> String {
        let lanes = if lanes > 1 { format!("x{lanes}") } else { String::new() };
        match self.transposed {
            true => format!("{}/{columns}x{rows}{lanes}", DEPTHWISE.name),
            false => format!("{}/{rows}x{columns}{lanes}", DEPTHWISE.name),
        }
    }

    /// The parameters of a run that is seen so.
    pub fn params(&self, run: &Run<'_>) -> Params {
        let ([in_height, in_width], [out_height, out_width]) = (self.input, self.output);
        Params { in_height, in_width, out_height, out_width, ..Params::of(run) }
    }

    /// Input rows, as far apart as the taps are, from an output to the one that is [`Oriented::step`] rows below.
    pub fn shift(&self) -> u32 {
        let (stride, dilation) = (self.link.stride[0], self.link.dilation[0]);
        (u64::from(self.step(0)) * u64::from(stride) / u64::from(dilation)) as u32
    }

    /// Strips of `rows` along a column of the output. The first output of each is in the column.
    pub fn strips_y(&self, rows: u32) -> u32 {
        let (height, step) = (self.output[0], self.step(0));
        let span = u64::from(rows) * u64::from(step);
        let (whole, rest) = (u64::from(height) / span, u64::from(height) % span);
        (whole * u64::from(step) + rest.min(step.into())) as u32
    }

    /// Rows of a strip of `rows` that the output has.
    pub fn used_rows(&self, rows: u32) -> u32 {
        rows.min(self.output[0].div_ceil(self.step(0)))
    }

    /// Outputs from one to the next that shares inputs with it as neighbours do in an undilated convolution, along the
    /// columns (0) or the rows (1). One, unless the link is dilated.
    pub fn step(&self, axis: usize) -> u32 {
        let (stride, dilation) = (self.link.stride[axis], self.link.dilation[axis]);
        dilation / greatest_common_divisor(stride, dilation)
    }
}

/// Which outputs of a row are a strip.
#[derive(Clone, Copy, PartialEq)]
pub enum Outputs {
    /// As far apart as the taps of the kernel, where that is possible.
    Apart,
    /// Neighbours.
    Neighbours,
    /// All. What of the padding is under them is known, and left out.
    Row,
}

/// The columns of a strip of outputs, which are of one row.
pub struct Columns {
    /// Outputs.
    pub width: u32,
    /// Neighbouring outputs: two where they are loaded and stored in pairs, else one.
    group: u32,
    /// Columns of the output from one group to the next.
    step: u32,
    stride: u32,
    dilation: u32,
    /// Columns by which the strip starts before its first output's first tap, so that pairs are aligned.
    pub early: u32,
    /// Whether two neighbouring columns are one load.
    pub pairs: bool,
    /// Whether two neighbouring outputs are one store.
    pub output_pairs: bool,
    /// The columns of the input that can be in the image, if that is known.
    image: Option<Range<u32>>,
}

impl Columns {
    /// A strip of `width` outputs. None if it reaches farther than 32-bit numbers do.
    pub fn new(run: &Run<'_>, oriented: &Oriented, caps: &Caps, width: u32, outputs: Outputs) -> Option<Self> {
        let link = &oriented.link;
        // The first output's column is even, and so is the first input's if the padding is; otherwise the strip starts
        // one column earlier.
        let even = |length: u32| width.is_multiple_of(2) && length.is_multiple_of(2);
        let is_row = run.layout == Layout::Nchw && !oriented.transposed;
        let pairs = is_row && run.elements.input.prefers_pairs(caps) && even(oriented.input[1]);
        // A residual is not loaded by two floats.
        let takes_residual = run.elements.output.dtype() != DType::F32 || !run.has_residual();
        let output_pairs =
            is_row && run.elements.output.prefers_pairs(caps) && even(oriented.output[1]) && takes_residual;
        let step = oriented.step(1);
        let [group, step] = match pairs || output_pairs {
            _ if step == 1 || outputs != Outputs::Apart => [1, 1],
            false => [1, step],
            true if step.is_multiple_of(2) => [2, step],
            // Groups of two that are an odd number apart are not aligned. Neighbours share fewer inputs, but they are.
            true => [1, 1],
        };
        let early = if pairs { link.padding[1] % 2 } else { 0 };
        let before = link.padding[1].checked_add(early)?;
        let image = before..before.checked_add(oriented.input[1])?;
        let image = (outputs == Outputs::Row).then_some(image);
        let [stride, dilation] = [link.stride[1], link.dilation[1]];
        let columns = Self { width, group, step, stride, dilation, early, pairs, output_pairs, image };
        let reach = u64::from(width) * u64::from(step) * u64::from(link.stride[1])
            + u64::from(link.kernel_size[1]) * u64::from(link.dilation[1]);
        (reach < 1 << 30).then_some(columns)
    }

    /// Columns of the outputs, counted from the first.
    pub fn outputs(&self) -> Vec<u32> {
        (0..self.width).map(|output| output / self.group * self.step + output % self.group).collect()
    }

    /// The input under some columns of the kernel, counted from the first output's first of them.
    pub fn inputs(&self, taps: Range<u32>) -> BTreeSet<u32> {
        self.seen(taps).collect()
    }

    /// How many of the kernel's columns the outputs see in the image, all together.
    pub fn taps(&self, columns: u32) -> u64 {
        self.seen(0..columns).count() as u64
    }

    /// What each output sees through each of some columns of the kernel, where that can be in the image.
    fn seen(&self, taps: Range<u32>) -> impl Iterator<Item = u32> {
        let column = |output, tap| output * self.stride + tap * self.dilation + self.early;
        let columns =
            self.outputs().into_iter().flat_map(move |output| taps.clone().map(move |tap| column(output, tap)));
        columns.filter(|column| self.image.as_ref().is_none_or(|image| image.contains(column)))
    }

    /// The columns at which the loads of these start.
    pub fn loads(&self, columns: &BTreeSet<u32>) -> BTreeSet<u32> {
        columns.iter().map(|column| if self.pairs { column / 2 * 2 } else { *column }).collect()
    }

    /// Strips that start within `span` columns, one after the other.
    fn bases(&self) -> u32 {
        if self.step == 1 { 1 } else { self.step / self.group }
    }

    fn span(&self) -> u32 {
        self.width / self.group * self.step
    }

    /// Strips of a row of the output. The first output of each is in the row.
    pub fn strips(&self, out_width: u32) -> u32 {
        let (bases, span) = (self.bases(), if self.bases() == 1 { self.width } else { self.span() });
        out_width / span * bases + (out_width % span).div_ceil(self.group_or_strip()).min(bases)
    }

    /// Columns from the start of a strip to the next one's.
    fn group_or_strip(&self) -> u32 {
        if self.bases() == 1 { self.width } else { self.group }
    }

    /// Outputs in a row of memory from a strip of these rows to the next one's, which the next invocation computes.
    pub fn apart(&self, oriented: &Oriented, rows: u32) -> u32 {
        match oriented.transposed {
            false => self.group_or_strip(),
            true if oriented.step(0) > 1 => 1,
            true => rows,
        }
    }

    /// Stores of a strip in a row.
    pub fn stores(&self) -> u32 {
        if self.output_pairs { self.width / 2 } else { self.width }
    }

    /// How the input and the weights are loaded and the output is stored, as `tensors.wgsl` calls it. With two lanes a
    /// pair is two channels.
    pub fn accesses(&self, link: &Conv2d, lanes: u32) -> Value {
        let [input, weights, output] = match lanes {
            4 => ["quads"; 3],
            2 if link.residual.is_some() => ["pair", "pair", "scalar"],
            2 => ["pair"; 3],
            _ => {
                let [input, output] =
                    [self.pairs, self.output_pairs].map(|pairs| if pairs { "pair" } else { "scalar" });
                [input, "scalar", output]
            }
        };
        context! { input, weights, output }
    }

    /// What `strip_columns.wgsl` asks for.
    pub fn values(&self, lanes: u32) -> Value {
        context! {
            STRIP_WIDTH => self.width,
            LANES => lanes,
            outputs => self.outputs(),
            BASES => self.bases(),
            SPAN => self.span(),
            GROUP => self.group,
            EARLY => self.early,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::elements::Elements;
    use crate::model::chain::Link;
    use crate::model::shape::Shape;

    /// As `first_column` of `strip_columns.wgsl`.
    fn first_column(columns: &Columns, strip: u32) -> u32 {
        match columns.bases() {
            1 => strip * columns.width,
            bases => strip / bases * columns.span() + strip % bases * columns.group,
        }
    }

    #[test]
    fn every_output_of_a_row_is_in_one_strip() {
        let caps = Caps { is_cpu: true, int64: true, ..Caps::webgpu() };
        for (stride, dilation) in [(1, 1), (1, 2), (1, 3), (1, 4), (1, 16), (2, 2), (2, 3), (2, 4), (3, 6), (6, 4)] {
            for out_width in (1..40).chain([64, 65, 130]) {
                let width = (out_width - 1) * stride + 2 * dilation + 1;
                let link = Conv2d::depthwise(1, 3).stride(stride).dilation(dilation);
                let shapes = [Shape::from([1, 1, width, width]), Shape::from([1, 1, out_width, out_width])];
                let links = [Link::from(link.clone())];
                let run = Run { links: &links, shapes: &shapes, layout: Layout::Nchw, elements: Elements::F32 };
                let widths = [1, 2, 4, 7, 8].map(|width| [(width, Outputs::Apart), (width, Outputs::Neighbours)]);
                for (strip_width, outputs) in widths.concat() {
                    let columns =
                        Columns::new(&run, &Oriented::new(&run, &link, false), &caps, strip_width, outputs).unwrap();
                    let mut times = vec![0; out_width as usize];
                    for first in (0..columns.strips(out_width)).map(|strip| first_column(&columns, strip)) {
                        assert!(first < out_width, "{stride}, {dilation}: {first} of {out_width}");
                        for output in columns.outputs() {
                            if let Some(times) = times.get_mut((first + output) as usize) {
                                *times += 1;
                            }
                        }
                    }
                    assert!(times.iter().all(|times| *times == 1), "{stride}, {dilation}, {strip_width}: {times:?}");
                }
            }
        }
    }
}
