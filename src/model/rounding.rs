//! What storing does to a number.

use std::borrow::Cow;

use half::f16;

use crate::model::dtype::DType;

impl DType {
    /// The number that an element of this type has for `x`: the nearest, of two as near the even one. Beyond the largest it
    /// is infinite. NaN stays NaN.
    ///
    /// ```
    /// use gpuconv::DType;
    /// assert_eq!([0.1, 2049.0, 65520.0].map(|x| DType::F16.nearest(x)), [0.0999755859375, 2048.0, f64::INFINITY]);
    /// ```
    pub fn nearest(self, x: f64) -> f64 {
        match self {
            Self::F32 => f64::from(x as f32),
            Self::F16 if x.is_finite() => {
                // Both are exact: the unit is a power of two. (`half` cuts off the last bits of an f64 first, so a little
                // above half way would be half way.)
                let unit = 2.0 * half_unit(x);
                let nearest = (x / unit).round_ties_even() * unit;
                if nearest.abs() > f16::MAX.to_f64() { f64::INFINITY.copysign(x) } else { nearest }
            }
            Self::F16 => x,
        }
    }

    /// The numbers that elements of this type have for these.
    pub(crate) fn stored(self, values: &[f32]) -> Cow<'_, [f32]> {
        match self {
            Self::F32 => Cow::Borrowed(values),
            Self::F16 => values.iter().map(|&value| f16::from_f32(value).to_f32()).collect(),
        }
    }
}

/// Half a unit in the last place of an f16: by how much at most storing changes numbers up to `x`. That of subnormal
/// numbers is the same for all.
pub fn half_unit(x: f64) -> f64 {
    let exponent = (x.abs().to_bits() >> 52) as i32 - 1023;
    2f64.powi(exponent.clamp(-14, 15) - 11)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All f16, the points half way between neighbours, and the next numbers on either side.
    #[test]
    fn the_nearest_half_is_that_of_the_definition() {
        let half = |bits: u16| f16::from_bits(bits).to_f64();
        for bits in 0..0x7C00u16 {
            let low = half(bits);
            // Behind the largest comes what would be the next number, which is infinite.
            let (high, given) =
                if bits == 0x7BFF { (65536.0, f64::INFINITY) } else { (half(bits + 1), half(bits + 1)) };
            let middle = (low + high) / 2.0;
            let even = if bits.is_multiple_of(2) { low } else { given };
            for (x, expected) in [(low, low), (middle.next_down(), low), (middle, even), (middle.next_up(), given)] {
                assert_eq!((DType::F16.nearest(x), DType::F16.nearest(-x)), (expected, -expected), "{x:e}");
            }
            assert_eq!(half_unit(low.next_up()), (high - low) / 2.0, "{low:e}");
            assert_eq!(*DType::F16.stored(&[low as f32, middle as f32]), [low as f32, even as f32]);
        }
        assert!(DType::F16.nearest(f64::NAN).is_nan() && DType::F16.stored(&[f32::NAN])[0].is_nan());
        assert_eq!([1e300, f64::NEG_INFINITY].map(|x| DType::F16.nearest(x)), [f64::INFINITY, f64::NEG_INFINITY]);
        assert_eq!(DType::F32.nearest(0.1), f64::from(0.1f32));
    }
}
