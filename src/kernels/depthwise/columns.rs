//! How the outputs of a strip lie in a row, and the input under them.

use std::collections::BTreeSet;
use std::ops::Range;

use minijinja::{Value, context};

use crate::kernels::{Params, Run};
use crate::model::caps::Caps;
use crate::model::conv::Conv2d;
use crate::model::dtype::DType;
use crate::model::shape::Layout;

/// A depthwise link and the sizes of its images as a strip sees them: as they are, or with rows for columns and columns for
/// rows.
#[derive(Clone)]
pub struct View {
    pub link: Conv2d,
    pub transposed: bool,
    /// Rows and columns of the input.
    pub input: [u32; 2],
    /// Rows and columns of the output.
    pub output: [u32; 2],
}

impl View {
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

    /// The parameters of a run that is seen so.
    pub fn params(&self, run: &Run<'_>) -> Params {
        let ([in_height, in_width], [out_height, out_width]) = (self.input, self.output);
        Params { in_height, in_width, out_height, out_width, ..Params::of(run) }
    }

    /// Outputs from one to the next that shares inputs with it as neighbours do in an undilated convolution, along the
    /// columns (0) or the rows (1). One, unless the link is dilated.
    pub fn step(&self, axis: usize) -> u32 {
        let (stride, dilation) = (self.link.stride[axis], self.link.dilation[axis]);
        dilation / gcd(stride, dilation)
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
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
}

impl Columns {
    /// None if the strip reaches farther than 32-bit numbers do.
    pub fn new(run: &Run<'_>, view: &View, caps: &Caps, width: u32) -> Option<Self> {
        let link = &view.link;
        // The first output's column is even, and so is the first input's if the padding is; otherwise the strip starts
        // one column earlier.
        let even = |length: u32| width.is_multiple_of(2) && length.is_multiple_of(2);
        let is_row = run.layout == Layout::Nchw && !view.transposed;
        let pairs = is_row && run.elements.input.prefers_pairs(caps) && even(view.input[1]);
        // A residual is not loaded by two floats.
        let takes_residual = run.elements.output.dtype() != DType::F32 || !run.has_residual();
        let output_pairs = is_row && run.elements.output.prefers_pairs(caps) && even(view.output[1]) && takes_residual;
        let step = view.step(1);
        let [group, step] = match pairs || output_pairs {
            _ if step == 1 => [1, 1],
            false => [1, step],
            true if step.is_multiple_of(2) => [2, step],
            // Groups of two that are an odd number apart are not aligned. Neighbours share fewer inputs, but they are.
            true => [1, 1],
        };
        let early = if pairs { link.padding[1] % 2 } else { 0 };
        let columns =
            Self { width, group, step, stride: link.stride[1], dilation: link.dilation[1], early, pairs, output_pairs };
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
        let column = |output, tap| output * self.stride + tap * self.dilation + self.early;
        self.outputs().into_iter().flat_map(|output| taps.clone().map(move |tap| column(output, tap))).collect()
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

    /// Stores of a strip in a row.
    pub fn stores(&self) -> u32 {
        if self.output_pairs { self.width / 2 } else { self.width }
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
                for strip_width in [1, 2, 4, 7, 8] {
                    let columns = Columns::new(&run, &View::new(&run, &link, false), &caps, strip_width).unwrap();
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
