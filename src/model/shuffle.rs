//! Links that only move values: channels to pixels, and back.

use crate::model::error::{Error, Result};
use crate::model::shape::Shape;

/// The output of a pixel shuffle: of each `factor * factor` channels one, `factor` times as high and wide.
///
/// # Errors
/// [`Error::Parameter`], [`Error::EmptyInput`], [`Error::PixelShuffle`] and [`Error::TooLarge`].
pub fn shuffled(input: Shape, factor: u32) -> Result<Shape> {
    let squared = check(input, factor)?;
    if u64::from(input.channels) % squared != 0 {
        return Err(Error::PixelShuffle { factor, channels: input.channels });
    }
    let [height, width] = [input.height, input.width].map(|extent| extent.saturating_mul(factor));
    let output = Shape { channels: (u64::from(input.channels) / squared) as u32, height, width, ..input };
    output.check_indexable("output")?;
    Ok(output)
}

/// The output of what undoes a pixel shuffle.
///
/// # Errors
/// [`Error::Parameter`], [`Error::EmptyInput`], [`Error::PixelUnshuffle`] and [`Error::TooLarge`].
pub fn unshuffled(input: Shape, factor: u32) -> Result<Shape> {
    let squared = check(input, factor)?;
    if [input.height, input.width].iter().any(|extent| !extent.is_multiple_of(factor)) {
        return Err(Error::PixelUnshuffle { factor, image: [input.height, input.width] });
    }
    let channels = u32::try_from(u64::from(input.channels) * squared).unwrap_or(u32::MAX);
    let output = Shape { channels, height: input.height / factor, width: input.width / factor, ..input };
    output.check_indexable("output")?;
    Ok(output)
}

/// Checks what both need, and gives the square of the factor.
fn check(input: Shape, factor: u32) -> Result<u64> {
    const LARGEST: u32 = 1 << 16;
    if !(1..=LARGEST).contains(&factor) {
        let expected = format!("1 to {LARGEST}");
        return Err(Error::Parameter { name: "the factor of a pixel shuffle", value: factor.into(), expected });
    }
    if input.channels == 0 || input.pixels() == 0 {
        return Err(Error::EmptyInput { shape: input });
    }
    input.check_indexable("input")?;
    Ok(u64::from(factor).pow(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_worked_out_by_hand() {
        let [small, large] = [[2, 18, 4, 5], [2, 2, 12, 15]].map(Shape::from);
        assert_eq!((shuffled(small, 3), unshuffled(large, 3)), (Ok(large), Ok(small)));
        assert_eq!(shuffled([1, 6, 2, 2].into(), 2), Err(Error::PixelShuffle { factor: 2, channels: 6 }));
        assert_eq!(unshuffled([1, 6, 4, 5].into(), 2), Err(Error::PixelUnshuffle { factor: 2, image: [4, 5] }));
        assert!(matches!(shuffled(small, 0), Err(Error::Parameter { value: 0, .. })));
        assert!(matches!(shuffled([1, 4, 0, 5].into(), 2), Err(Error::EmptyInput { .. })));
        assert_eq!(shuffled([1, 1 << 16, 1 << 14, 1].into(), 1 << 8), Ok([1, 1, 1 << 22, 1 << 8].into()));
        assert!(matches!(unshuffled([1, 1 << 24, 1 << 5, 1 << 3].into(), 1 << 3), Err(Error::TooLarge { .. })));
    }
}
