//! Links that move values or make new ones between pixels: shuffles, slices, concatenations and resizes.

use std::ops::Range;

use super::{Answer, Tensor};
use crate::model::concat::{self, Concat};
use crate::model::error::{Error, Result};
use crate::model::resize::{Resize, ResizeMode};
use crate::model::shape::Shape;
use crate::model::shuffle;
use crate::model::weights::length;

/// Channels to pixels, on NCHW data: `torch.nn.PixelShuffle`.
///
/// # Errors
/// What [`Link::output_shape`](crate::Link::output_shape) says; [`Error::Length`](crate::Error::Length).
pub fn pixel_shuffle(factor: u32, input: &[f64], input_shape: impl Into<Shape>) -> Result<Answer> {
    let input_shape = input_shape.into();
    let shape = shuffle::shuffled(input_shape, factor)?;
    // Of an output's place the remainders say which of the channels it comes from.
    moved(input, input_shape, shape, |[image, channel, y, x]| {
        [image, (channel * factor + y % factor) * factor + x % factor, y / factor, x / factor]
    })
}

/// Pixels to channels, on NCHW data: `torch.nn.PixelUnshuffle`.
///
/// # Errors
/// What [`Link::output_shape`](crate::Link::output_shape) says; [`Error::Length`](crate::Error::Length).
pub fn pixel_unshuffle(factor: u32, input: &[f64], input_shape: impl Into<Shape>) -> Result<Answer> {
    let input_shape = input_shape.into();
    let shape = shuffle::unshuffled(input_shape, factor)?;
    moved(input, input_shape, shape, |[image, channel, y, x]| {
        let (row, column) = (channel / factor % factor, channel % factor);
        [image, channel / factor / factor, y * factor + row, x * factor + column]
    })
}

/// Some of the channels, on NCHW data.
///
/// # Errors
/// What [`Link::output_shape`](crate::Link::output_shape) says; [`Error::Length`].
pub fn slice(channels: &Range<u32>, input: &[f64], input_shape: impl Into<Shape>) -> Result<Answer> {
    let input_shape = input_shape.into();
    let shape = concat::sliced(input_shape, channels)?;
    moved(input, input_shape, shape, |[image, channel, y, x]| [image, channels.start + channel, y, x])
}

/// Tensors with their shapes as one, NCHW: `torch.cat(tensors, 1)`.
///
/// # Errors
/// What [`Concat::output_shape`] says; [`Error::ShapeMismatch`] if they differ in more than channels;
/// [`Error::Length`].
pub fn concat(tensors: &[(&[f64], Shape)]) -> Result<Answer> {
    let first = tensors.first().map_or([0; 4].into(), |(_, shape)| *shape);
    let shape = Concat::new(tensors.iter().map(|(_, shape)| shape.channels)).output_shape(first)?;
    for &(values, actual) in tensors {
        let expected = Shape { channels: actual.channels, ..first };
        if actual != expected {
            return Err(Error::ShapeMismatch { tensor: "concatenated tensor", expected, actual });
        }
        length("input".into(), actual.len(), values.len())?;
    }
    let mut values = Vec::new();
    for image in 0..first.batch as usize {
        for (own, shape) in tensors {
            let len = Shape { batch: 1, ..*shape }.len() as usize;
            values.extend_from_slice(&own[image * len..][..len]);
        }
    }
    let terms: Vec<_> = values.iter().map(|value| value.abs()).collect();
    Ok(Answer { values, magnitudes: terms.clone(), terms, shape, is_stored_exactly: true })
}

/// Tensors of a chain as one, with the scales of their errors.
pub(super) fn joined(parts: &[(&Tensor, Shape)]) -> Result<Tensor> {
    let of_all = |values: &[&[f64]]| {
        let shaped: Vec<_> = values.iter().zip(parts).map(|(values, (_, shape))| (*values, *shape)).collect();
        concat(&shaped).map(|answer| answer.values)
    };
    let values: Vec<_> = parts.iter().map(|(part, _)| part.values.as_slice()).collect();
    let zeros: Vec<_> = parts.iter().map(|(part, _)| vec![0.0; part.values.len()]).collect();
    let magnitudes = parts.iter().zip(&zeros).map(|((part, _), zeros)| part.magnitudes.as_ref().unwrap_or(zeros));
    let magnitudes: Vec<_> = magnitudes.map(Vec::as_slice).collect();
    Ok(Tensor { values: of_all(&values)?, magnitudes: Some(of_all(&magnitudes)?) })
}

/// Values from other places.
fn moved(input: &[f64], input_shape: Shape, shape: Shape, from: impl Fn([u32; 4]) -> [u32; 4]) -> Result<Answer> {
    length("input".into(), input_shape.len(), input.len())?;
    let values: Vec<_> = places(shape).map(|place| input[index(input_shape, from(place))]).collect();
    let terms: Vec<_> = values.iter().map(|value| value.abs()).collect();
    Ok(Answer { values, magnitudes: terms.clone(), terms, shape, is_stored_exactly: true })
}

/// Images of another size, on NCHW data: `torch.nn.functional.interpolate`.
///
/// # Errors
/// What [`Resize::output_shape`] says; [`Error::Length`](crate::Error::Length).
pub fn resize(resize: &Resize, input: &[f64], input_shape: impl Into<Shape>) -> Result<Answer> {
    let input_shape = input_shape.into();
    let shape = resize.output_shape(input_shape)?;
    let [down, right] = resize.distances(input_shape, shape);
    // Of a part of larger images, where it begins.
    let [[first_row, first_column], [above, left]] =
        resize.part.map_or([[0; 2]; 2], |part| [part.first_input, part.first_output]);
    let (in_rows, in_columns) =
        (first_row..first_row + input_shape.height, first_column..first_column + input_shape.width);
    let align_corners = match resize.mode {
        ResizeMode::Nearest => {
            return moved(input, input_shape, shape, |[image, channel, y, x]| {
                // The product is an f32, as PyTorch's is: a pixel may lie on the border between two.
                let nearest = |at: u32, distance: f32, inside: &Range<u32>| {
                    ((at as f32 * distance) as u32).clamp(inside.start, inside.end - 1) - inside.start
                };
                [image, channel, nearest(above + y, down, &in_rows), nearest(left + x, right, &in_columns)]
            });
        }
        ResizeMode::Bilinear { align_corners } => align_corners,
    };
    length("input".into(), input_shape.len(), input.len())?;
    let (mut values, mut terms, mut magnitudes) = (Vec::new(), Vec::new(), Vec::new());
    for [image, channel, y, x] in places(shape) {
        let rows = Between::new(above + y, down, &in_rows, align_corners);
        let columns = Between::new(left + x, right, &in_columns, align_corners);
        let (mut value, mut magnitude, mut all) = (0.0, 0.0, 0.0);
        for (row, of_row) in rows.pixels {
            for (column, of_column) in columns.pixels {
                let pixel = input[index(input_shape, [image, channel, row, column])];
                value += of_row * of_column * pixel;
                magnitude += of_row * of_column * pixel.abs();
                all += pixel.abs();
            }
        }
        values.push(value);
        terms.push(magnitude);
        // A place is rounded, so that the weights of all four are off by a little.
        magnitudes.push(magnitude + (rows.place + columns.place + 1.0) * all);
    }
    Ok(Answer { values, magnitudes, terms, shape, is_stored_exactly: true })
}

/// A place between two rows or columns of the input.
struct Between {
    place: f64,
    /// Both, with their weights.
    pixels: [(u32, f64); 2],
}

impl Between {
    fn new(at: u32, distance: f32, inside: &Range<u32>, align_corners: bool) -> Self {
        let (at, distance) = (f64::from(at), f64::from(distance));
        let place = if align_corners { at * distance } else { ((at + 0.5) * distance - 0.5).max(0.0) };
        let first = (place as u32).clamp(inside.start, inside.end - 1);
        let second = (first + 1).min(inside.end - 1);
        let share = (place - f64::from(first)).clamp(0.0, 1.0);
        Self { place, pixels: [(first - inside.start, 1.0 - share), (second - inside.start, share)] }
    }
}

/// All places of a tensor, in NCHW's order.
fn places(shape: Shape) -> impl Iterator<Item = [u32; 4]> {
    let Shape { batch, channels, height, width } = shape;
    let planes = (0..batch).flat_map(move |image| (0..channels).map(move |channel| [image, channel]));
    let rows = planes.flat_map(move |[image, channel]| (0..height).map(move |y| [image, channel, y]));
    rows.flat_map(move |[image, channel, y]| (0..width).map(move |x| [image, channel, y, x]))
}

fn index(shape: Shape, [image, channel, y, x]: [u32; 4]) -> usize {
    let plane = image as usize * shape.channels as usize + channel as usize;
    (plane * shape.height as usize + y as usize) * shape.width as usize + x as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffles_worked_out_by_hand() {
        // Four channels of two pixels become a channel of two rows and four columns.
        let input: Vec<f64> = (0..8).map(f64::from).collect();
        let answer = pixel_shuffle(2, &input, [1, 4, 1, 2]).unwrap();
        assert_eq!(answer.shape, [1, 1, 2, 4].into());
        assert_eq!(answer.values, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        let back = pixel_unshuffle(2, &answer.values, answer.shape).unwrap();
        assert_eq!((back.values, back.shape), (input, [1, 4, 1, 2].into()));
        // The channels of an output lie side by side.
        let several = pixel_shuffle(2, &(0..8).map(f64::from).collect::<Vec<_>>(), [1, 8, 1, 1]).unwrap();
        assert_eq!(several.values, (0..8).map(f64::from).collect::<Vec<_>>());
    }

    #[test]
    fn slices_and_concatenations_worked_out_by_hand() {
        // Two images of two channels with two pixels.
        let input: Vec<f64> = (0..8).map(f64::from).collect();
        let last = slice(&(1..2), &input, [2, 2, 1, 2]).unwrap();
        assert_eq!((last.values.as_slice(), last.shape), (&[2.0, 3.0, 6.0, 7.0][..], [2, 1, 1, 2].into()));
        let both = concat(&[(&last.values[..], last.shape), (&input[..], [2, 2, 1, 2].into())]).unwrap();
        assert_eq!(both.values, [2.0, 3.0, 0.0, 1.0, 2.0, 3.0, 6.0, 7.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(both.shape, [2, 3, 1, 2].into());
        let wrong = concat(&[(&last.values[..], last.shape), (&input[..], [2, 2, 2, 1].into())]).unwrap_err();
        let [expected, actual] = [[2, 2, 1, 2], [2, 2, 2, 1]].map(Shape::from);
        assert_eq!(wrong, Error::ShapeMismatch { tensor: "concatenated tensor", expected, actual });
        assert!(matches!(concat(&[]), Err(Error::Parameter { value: 0, .. })));
        assert!(matches!(concat(&[(&input[..], last.shape)]), Err(Error::Length { expected: 4, actual: 8, .. })));
    }

    #[test]
    fn the_nearest_pixel_is_the_one_before() {
        let row = |resize: Resize, values: &[f64]| {
            self::resize(&resize, values, [1, 1, 1, values.len() as u32]).unwrap().values
        };
        assert_eq!(row(Resize::to([1, 5]), &[1.0, 2.0, 3.0]), [1.0, 1.0, 2.0, 2.0, 3.0]);
        assert_eq!(row(Resize::to([1, 2]), &[1.0, 2.0, 3.0, 4.0, 5.0]), [1.0, 3.0]);
        assert_eq!(row(Resize::by_factors([1.0, 2.0]), &[1.0, 2.0]), [1.0, 1.0, 2.0, 2.0]);
        // By the factor, not by the ratio of the sizes: the fourth lies at 3 / 0.65, not at 3 * 7 / 4.
        assert_eq!(row(Resize::by_factors([1.0, 0.65]), &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])[3], 4.0);
        assert_eq!(row(Resize::to([1, 4]), &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])[3], 5.0);
    }

    #[test]
    fn weighted_means_worked_out_by_hand() {
        let row = |resize: Resize| resize_row(&resize, &[0.0, 4.0]);
        assert_eq!(row(Resize::to([1, 4]).bilinear(false)), [0.0, 1.0, 3.0, 4.0]);
        assert_eq!(row(Resize::to([1, 5]).bilinear(true)), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(row(Resize::to([1, 1]).bilinear(true)), [0.0]);
        assert_eq!(row(Resize::to([1, 1]).bilinear(false)), [2.0]);
        let answer = resize(&Resize::by(2.0).bilinear(false), &[0.0, 4.0, 8.0, 16.0], [1, 1, 2, 2]).unwrap();
        assert_eq!(answer.values[5], 0.75 * 1.0 + 0.25 * 10.0);
    }

    /// Of columns in the middle, from the columns that they need.
    #[test]
    fn a_part_of_a_resize_has_the_values_of_the_whole() {
        let values = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, 6.0];
        let to = Resize::to([1, 19]);
        for own in [to, to.bilinear(false), to.bilinear(true), Resize::by_factors([1.0, 0.6])] {
            let input = Shape::from([1, 1, 1, 8]);
            let output = own.output_shape(input).unwrap();
            let whole = resize_row(&own, &values);
            for start in 0..output.width - 1 {
                let sources = own.sources(1, start..start + 2, input, output);
                let part = own.part([input, output], [[0, sources.start], [0, start]], [1, 2]);
                let seen = &values[sources.start as usize..sources.end as usize];
                assert_eq!(resize_row(&part, seen), whole[start as usize..][..2], "{own:?} from {start} on");
            }
        }
    }

    fn resize_row(own: &Resize, values: &[f64]) -> Vec<f64> {
        resize(own, values, [1, 1, 1, values.len() as u32]).unwrap().values
    }
}
