//! Pools over windows.

use super::Answer;
use crate::model::error::Result;
use crate::model::pool::{Pool2d, PoolMode};
use crate::model::shape::Shape;
use crate::model::weights::length;

/// A pool over windows, on NCHW data.
///
/// # Errors
/// What [`Pool2d::output_shape`] says; [`Error::Length`](crate::Error::Length).
pub fn pool(pool: &Pool2d, input: &[f64], input_shape: impl Into<Shape>) -> Result<Answer> {
    let input_shape = input_shape.into();
    let shape = pool.output_shape(input_shape)?;
    length("input".into(), input_shape.len(), input.len())?;
    let (mut values, mut terms) = (Vec::new(), Vec::new());
    for plane in input.chunks_exact(input_shape.pixels() as usize) {
        for y in 0..shape.height {
            for x in 0..shape.width {
                let window = Window::new(pool, input_shape, [y, x]);
                let inside = || window.values(plane, input_shape);
                match pool.mode {
                    PoolMode::Max => {
                        let larger = |best: f64, value: f64| if value > best || value.is_nan() { value } else { best };
                        let value = inside().fold(f64::NEG_INFINITY, larger);
                        values.push(value);
                        terms.push(value.abs());
                    }
                    PoolMode::Average { count_include_pad } => {
                        let [rows, columns] = [0, 1].map(|axis| window.counted(axis, count_include_pad) as f64);
                        values.push(inside().sum::<f64>() / (rows * columns));
                        terms.push(inside().map(f64::abs).sum::<f64>() / (rows * columns));
                    }
                }
            }
        }
    }
    Ok(Answer { values, magnitudes: terms.clone(), terms, shape, is_stored_exactly: true })
}

/// The window of an output.
struct Window<'a> {
    pool: &'a Pool2d,
    /// Where it starts in the image.
    start: [i64; 2],
    /// Rows and columns of the image.
    extents: [i64; 2],
}

impl<'a> Window<'a> {
    fn new(pool: &'a Pool2d, input: Shape, output: [u32; 2]) -> Self {
        let start = |axis: usize| i64::from(output[axis] * pool.stride[axis]) - i64::from(pool.padding[axis]);
        Self { pool, start: [start(0), start(1)], extents: [input.height, input.width].map(i64::from) }
    }

    /// Its rows or columns in the image.
    fn inside(&self, axis: usize) -> impl Iterator<Item = usize> + use<> {
        let (start, step, extent) = (self.start[axis], i64::from(self.pool.dilation[axis]), self.extents[axis]);
        let taps = (0..i64::from(self.pool.kernel_size[axis])).map(move |tap| start + tap * step);
        taps.filter(move |place| (0..extent).contains(place)).map(|place| place as usize)
    }

    /// Its values in the image, row by row.
    fn values<'b>(&self, plane: &'b [f64], input: Shape) -> impl Iterator<Item = f64> + use<'b> {
        let columns: Vec<_> = self.inside(1).collect();
        let width = input.width as usize;
        self.inside(0).flat_map(move |row| {
            let row = &plane[row * width..][..width];
            columns.iter().map(|&column| row[column]).collect::<Vec<_>>()
        })
    }

    /// Its rows or columns that count in a mean.
    fn counted(&self, axis: usize, count_include_pad: bool) -> i64 {
        let (start, kernel) = (self.start[axis], i64::from(self.pool.kernel_size[axis]));
        match count_include_pad {
            true => (start + kernel).min(self.extents[axis] + i64::from(self.pool.padding[axis + 2])) - start,
            false => (start + kernel).min(self.extents[axis]) - start.max(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(own: Pool2d, input: &[f64], width: u32) -> Vec<f64> {
        pool(&own, input, [1, 1, input.len() as u32 / width, width]).unwrap().values
    }

    #[test]
    fn the_largest_value_worked_out_by_hand() {
        let input: Vec<f64> = [4, -3, 2, 7, 0, 1, -5, -6, -9].map(f64::from).into();
        assert_eq!(values(Pool2d::max(2).stride(1), &input, 3), [7.0, 2.0, 7.0, 1.0]);
        // Padding is less than any number.
        assert_eq!(values(Pool2d::max(2).padding(1), &[-1.0, -2.0, -3.0, -4.0], 2), [-1.0, -2.0, -3.0, -4.0]);
        assert_eq!(values(Pool2d::max([1, 2]).dilation([1, 2]).stride(1), &input, 3), [4.0, 7.0, -5.0]);
        // The last window reaches beyond the image.
        assert_eq!(values(Pool2d::max(2).ceil_mode(true), &input, 3), [7.0, 2.0, -5.0, -9.0]);
        let nan = values(Pool2d::max([1, 2]), &[f64::NAN, 1.0, 2.0, f64::NAN, 3.0, 4.0], 6);
        assert!(nan[0].is_nan() && nan[1].is_nan() && nan[2] == 4.0, "{nan:?}");
    }

    /// What `torch.nn.AvgPool2d` gives for the same.
    #[test]
    fn means_worked_out_by_hand() {
        let input: Vec<f64> = (1..=5).map(f64::from).collect();
        let row = Pool2d::average([1, 3]).stride(2).padding([0, 1]);
        assert_eq!(values(row.clone(), &input, 5), [1.0, 3.0, 3.0]);
        assert_eq!(values(row.clone().count_include_pad(false), &input, 5), [1.5, 3.0, 4.5]);
        // The last window has a pixel, and one of padding: what is beyond that does not count.
        let wide = Pool2d::average([1, 3]).stride(3).padding([0, 1]).ceil_mode(true);
        assert_eq!(values(wide.clone(), &[3.0, 6.0, 9.0, 12.0, 15.0, 18.0], 6), [3.0, 12.0, 9.0]);
        assert_eq!(values(wide.count_include_pad(false), &[3.0, 6.0, 9.0, 12.0, 15.0, 18.0], 6), [4.5, 12.0, 18.0]);
    }
}
