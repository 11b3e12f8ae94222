//! One link: images of another size.

use std::fmt;
use std::ops::Range;

use crate::model::conv::Extent;
use crate::model::error::{Error, Result};
use crate::model::shape::Shape;

/// To what size images are resized.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ResizeTo {
    /// These rows and columns.
    Size([u32; 2]),
    /// Rows and columns times these numbers, rounded down.
    Factor([f64; 2]),
}

/// How values between pixels are made.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeMode {
    /// The value of the pixel before: PyTorch's `nearest`, not its `nearest-exact`.
    Nearest,
    /// Weighted means of four pixels.
    Bilinear {
        /// Whether the centres of the corner pixels stay where they are; otherwise the image's edges do.
        align_corners: bool,
    },
}

/// Images of another size: `torch.nn.functional.interpolate`.
///
/// With a size, distances are those of the input over those of the output. With a factor, distances are one over the
/// factor, even if the output is rounded: that is PyTorch's way unless `recompute_scale_factor` is set. (Where the rounded size
/// is the input's own, PyTorch copies on the CPU, and this still goes by the factor.) Distances and
/// places of pixels are f32, as PyTorch's are.
///
/// ```
/// use gpuconv::Resize;
/// let twice = Resize::by(2.0).bilinear(false);
/// assert_eq!(twice.output_shape([1, 16, 20, 30])?, [1, 16, 40, 60].into());
/// assert_eq!(Resize::to([25, 31]).output_shape([1, 16, 20, 30])?, [1, 16, 25, 31].into());
/// # Ok::<(), gpuconv::Error>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resize {
    /// The new size.
    pub to: ResizeTo,
    /// How values between pixels are made.
    pub mode: ResizeMode,
    /// If this is a part of another resize: of which one.
    pub(crate) part: Option<ResizePart>,
}

/// Some rows and columns of a resize: its input and its output are parts of larger images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ResizePart {
    /// The distances of all of it.
    pub distances: [f32; 2],
    /// Row and column of the input where the part begins.
    pub first_input: [u32; 2],
    /// Row and column of the output where it begins.
    pub first_output: [u32; 2],
}

impl Resize {
    /// To these rows and columns, by the nearest pixel.
    pub fn to(size: impl Into<Extent>) -> Self {
        Self { to: ResizeTo::Size(size.into().0), mode: ResizeMode::Nearest, part: None }
    }

    /// By a factor, by the nearest pixel.
    pub fn by(factor: f64) -> Self {
        Self::by_factors([factor; 2])
    }

    /// By a factor for rows and one for columns, by the nearest pixel.
    pub fn by_factors(factors: [f64; 2]) -> Self {
        Self { to: ResizeTo::Factor(factors), mode: ResizeMode::Nearest, part: None }
    }

    /// By weighted means of four pixels, with the corners' centres in their places or not.
    pub fn bilinear(mut self, align_corners: bool) -> Self {
        self.mode = ResizeMode::Bilinear { align_corners };
        self
    }

    /// The output's shape for an input's.
    ///
    /// # Errors
    /// [`Error::Resize`] if nothing would be there, or if a factor is no positive number; [`Error::EmptyInput`];
    /// [`Error::TooLarge`].
    pub fn output_shape(&self, input: impl Into<Shape>) -> Result<Shape> {
        let input = input.into();
        if input.channels == 0 || input.pixels() == 0 {
            return Err(Error::EmptyInput { shape: input });
        }
        let image = [input.height, input.width];
        let size = match self.to {
            ResizeTo::Size(size) => size,
            // A number too large for 32 bits becomes the largest, and a NaN zero.
            ResizeTo::Factor(factors) => [0, 1].map(|axis| (f64::from(image[axis]) * factors[axis]).floor() as u32),
        };
        let is_number = |factor: f64| factor.is_finite() && factor > 0.0 && (1.0 / factor) < f64::from(f32::MAX);
        let is_sound = match self.to {
            ResizeTo::Size(_) => true,
            ResizeTo::Factor(factors) => factors.into_iter().all(is_number),
        };
        if !is_sound || size.contains(&0) {
            return Err(Error::Resize { image, to: self.to.to_string() });
        }
        let output = Shape { height: size[0], width: size[1], ..input };
        input.check_indexable("input")?;
        output.check_indexable("output")?;
        Ok(output)
    }

    /// How many rows and columns each pixel of the input becomes, if it is only repeated, and all as often.
    pub(crate) fn repeats(&self, input: Shape, output: Shape) -> Option<[u32; 2]> {
        let (from, to) = ([input.height, input.width], [output.height, output.width]);
        let distances = self.distances(input, output);
        let is_repeated = |axis: usize| {
            let factor = to[axis].checked_div(from[axis])?;
            // As the kernel and PyTorch have it, in f32: a distance that is rounded down may lead to the pixel before.
            let source = |at: u32| ((at as f32 * distances[axis]) as u32).min(from[axis] - 1);
            // From 2^24 on not every place has an f32, and to look at each would take long.
            let is_short = to[axis] <= 1 << 24;
            let is_whole =
                is_short && to[axis] == factor * from[axis] && (0..to[axis]).all(|at| source(at) == at / factor);
            is_whole.then_some(factor)
        };
        match self.mode {
            _ if self.part.is_some() => None,
            ResizeMode::Nearest => Some([is_repeated(0)?, is_repeated(1)?]),
            ResizeMode::Bilinear { .. } => None,
        }
    }

    /// The distances between two pixels of the output, down and right, in pixels of the input.
    pub(crate) fn distances(&self, input: Shape, output: Shape) -> [f32; 2] {
        if let Some(part) = self.part {
            return part.distances;
        }
        let (image, size) = ([input.height, input.width], [output.height, output.width]);
        [0, 1].map(|axis| match (self.mode, self.to) {
            (ResizeMode::Bilinear { align_corners: true }, _) if size[axis] == 1 => 0.0,
            (ResizeMode::Bilinear { align_corners: true }, _) => (image[axis] - 1) as f32 / (size[axis] - 1) as f32,
            (_, ResizeTo::Factor(factors)) => (1.0 / factors[axis]) as f32,
            (_, ResizeTo::Size(_)) => image[axis] as f32 / size[axis] as f32,
        })
    }

    /// The rows (axis 0) or columns (axis 1) of an input that those of an output depend on.
    pub(crate) fn sources(&self, axis: usize, outputs: Range<u32>, input: Shape, output: Shape) -> Range<u32> {
        let distance = self.distances(input, output)[axis];
        let last = [input.height, input.width][axis] - 1;
        let source = |at: u32| match self.mode {
            ResizeMode::Nearest | ResizeMode::Bilinear { align_corners: true } => at as f32 * distance,
            ResizeMode::Bilinear { align_corners: false } => (at as f32 + 0.5) * distance - 0.5,
        };
        // A negative number becomes zero.
        let [first, end] = [outputs.start, outputs.end.max(1) - 1].map(|at| (source(at) as u32).min(last));
        let beside = u32::from(self.mode != ResizeMode::Nearest);
        first..(end + beside).min(last) + 1
    }

    /// A part of this resize. `first` is the pixel where the part begins, of the input and of the output; `size` are the
    /// rows and columns of its output. The shapes are those of the whole.
    pub(crate) fn part(&self, [input, output]: [Shape; 2], first: [[u32; 2]; 2], size: [u32; 2]) -> Self {
        let [first_input, first_output] = first;
        let part = ResizePart { distances: self.distances(input, output), first_input, first_output };
        Self { to: ResizeTo::Size(size), mode: self.mode, part: Some(part) }
    }
}

impl fmt::Display for ResizeTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size([rows, columns]) => write!(f, "{rows}x{columns}"),
            Self::Factor([rows, columns]) if rows == columns => write!(f, "x{rows}"),
            Self::Factor([rows, columns]) => write!(f, "x{rows},{columns}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_down() {
        let size = |resize: Resize| {
            let output = resize.output_shape([1, 2, 5, 7]).unwrap();
            [output.height, output.width]
        };
        assert_eq!(size(Resize::by(2.0)), [10, 14]);
        assert_eq!(size(Resize::by_factors([0.5, 1.4])), [2, 9]);
        assert_eq!(size(Resize::to(3).bilinear(true)), [3, 3]);
    }

    #[test]
    fn distances_are_pytorchs() {
        let distances = |resize: Resize| {
            let input = Shape::from([1, 1, 5, 7]);
            resize.distances(input, resize.output_shape(input).unwrap())
        };
        assert_eq!(distances(Resize::to([10, 3])), [0.5, 7.0 / 3.0]);
        assert_eq!(distances(Resize::to([9, 1]).bilinear(true)), [0.5, 0.0]);
        // Seven columns become nine, but lie as far apart as the factor says.
        assert_eq!(distances(Resize::by_factors([0.5, 1.4])), [2.0, (1.0 / 1.4f64) as f32]);
        assert_eq!(distances(Resize::by_factors([2.0, 1.4]).bilinear(true)), [4.0 / 9.0, 6.0 / 8.0]);
    }

    #[test]
    fn pixels_are_repeated_by_whole_factors() {
        let repeats = |resize: Resize, input: [u32; 4]| {
            let input = Shape::from(input);
            resize.repeats(input, resize.output_shape(input).unwrap())
        };
        assert_eq!(repeats(Resize::by_factors([2.0, 3.0]), [1, 2, 5, 7]), Some([2, 3]));
        assert_eq!(repeats(Resize::to([20, 7]), [1, 2, 5, 7]), Some([4, 1]));
        for other in [Resize::by(1.5), Resize::by(0.5), Resize::to([10, 15]), Resize::by(2.0).bilinear(false)] {
            assert_eq!(repeats(other, [1, 2, 5, 7]), None, "{other:?}");
        }
        // Rounded down, so that pixel 41 of 41 times as many is the first one's: so PyTorch has it.
        let least = (2..200).find(|&factor| repeats(Resize::by(f64::from(factor)), [1, 1, 2, 2]).is_none());
        assert!(least.is_some_and(|factor| (factor as f32 * (1.0 / f64::from(factor)) as f32) < 1.0), "{least:?}");
    }

    #[test]
    fn rows_come_from_rows_beside_them() {
        let input = Shape::from([1, 1, 10, 10]);
        let sources = |resize: Resize, outputs: Range<u32>| {
            resize.sources(0, outputs, input, resize.output_shape(input).unwrap())
        };
        assert_eq!(sources(Resize::by(2.0), 3..6), 1..3);
        assert_eq!(sources(Resize::by(0.5), 1..3), 2..5);
        // Places 0.75 to 2.25; before the first, and behind the last.
        assert_eq!(sources(Resize::by(2.0).bilinear(false), 2..6), 0..4);
        assert_eq!(sources(Resize::by(2.0).bilinear(false), 0..1), 0..2);
        assert_eq!(sources(Resize::by(2.0).bilinear(false), 19..20), 9..10);
        assert_eq!(sources(Resize::to(19).bilinear(true), 3..5), 1..4);
    }

    #[test]
    fn a_part_has_the_distances_of_the_whole() {
        let shapes = [[1, 1, 10, 10], [1, 1, 15, 15]].map(Shape::from);
        let part = Resize::to(15).part(shapes, [[2, 0], [3, 0]], [4, 15]);
        let own = [[1, 1, 4, 10], [1, 1, 4, 15]].map(Shape::from);
        assert_eq!(part.output_shape(own[0]), Ok(own[1]));
        assert_eq!(part.distances(own[0], own[1]), Resize::to(15).distances(shapes[0], shapes[1]));
        assert_eq!(part.repeats(own[0], own[1]), None);
    }

    #[test]
    fn a_resize_to_nothing_is_an_error() {
        let on = |resize: Resize| resize.output_shape([1, 2, 5, 7]);
        for (resize, text) in [
            (Resize::to([0, 3]), "0x3"),
            (Resize::by(0.15), "x0.15"),
            (Resize::by(-1.0), "x-1"),
            (Resize::by(f64::NAN), "xNaN,NaN"),
            (Resize::by_factors([1.0, f64::INFINITY]), "x1,inf"),
        ] {
            assert_eq!(on(resize), Err(Error::Resize { image: [5, 7], to: text.into() }));
        }
        assert!(matches!(on(Resize::by(1e9)), Err(Error::TooLarge { .. })));
        assert!(matches!(Resize::by(2.0).output_shape([1, 2, 0, 7]), Err(Error::EmptyInput { .. })));
    }
}
