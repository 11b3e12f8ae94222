//! What storing does to a number.

use std::borrow::Cow;

use half::f16;

use crate::model::dtype::DType;

impl DType {
    /// The number that an element of this type has for `x`: the nearest, of two as near the even one. Beyond the
    /// largest it is infinite. NaN stays NaN.
    ///
    /// ```
    /// use gpuconv::DType;
    /// assert_eq!([0.1, 2049.0, 65520.0].map(|x| DType::F16.nearest(x)), [0.0999755859375, 2048.0, f64::INFINITY]);
    /// ```
    pub fn nearest(self, x: f64) -> f64 {
        match self {
            Self::F32 => f64::from(x as f32),
            Self::F16 if x.is_finite() => {
                // Both are exact: the unit is a power of two. (`half` cuts off the last bits of an f64 first, so a
                // little above half way would be half way.)
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
            Self::F16 => values.iter().map(|&value| widened(rounded(value))).collect(),
        }
    }
}

/// The bits of the f16 nearest to an f32. `half` does the same, but one value at a time where it may not ask for the
/// processor's instructions; this has no branches, and compilers make vectors of it.
pub(crate) fn rounded(x: f32) -> u16 {
    let bits = x.to_bits();
    let (sign, magnitude) = (bits >> 16 & 0x8000, bits & 0x7FFF_FFFF);
    // Half a unit, or a little less for an even number; then the exponent's bias is 15, not 127.
    let half_up = magnitude.wrapping_add(0xFFF + (magnitude >> 13 & 1));
    let normal = half_up.wrapping_sub(112 << 23) >> 13;
    // The last place of 0.5 is that of the subnormal numbers.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let finite = if magnitude < 113 << 23 { subnormal } else { normal };
    let finite = if magnitude < 65520f32.to_bits() { finite } else { 0x7C00 };
    let nan = 0x7E00 | magnitude >> 13 & 0x3FF;
    (sign | if magnitude > f32::INFINITY.to_bits() { nan } else { finite }) as u16
}

/// The number of an f16's bits.
pub(crate) fn widened(half: u16) -> f32 {
    let magnitude = u32::from(half & 0x7FFF) << 13;
    // 2^112 is between the biases of the exponents; subnormal numbers become normal.
    let finite = (f32::from_bits(magnitude) * f32::from_bits((112 + 127) << 23)).to_bits();
    let special = if magnitude >= 0x7C00 << 13 { f32::INFINITY.to_bits() } else { 0 };
    f32::from_bits(finite | special | u32::from(half & 0x8000) << 16)
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
        // All bits, and numbers of all magnitudes.
        let same = |x: f32, y: f32| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
        assert!((0..=u16::MAX).all(|bits| same(widened(bits), f16::from_bits(bits).to_f32())));
        let numbers = (0..=u32::MAX).step_by(9973).map(f32::from_bits).filter(|x| !x.is_nan());
        numbers.for_each(|x| assert_eq!(rounded(x), f16::from_f32(x).to_bits(), "{x:e}"));
        assert!(DType::F16.nearest(f64::NAN).is_nan() && DType::F16.stored(&[f32::NAN])[0].is_nan());
        assert_eq!([1e300, f64::NEG_INFINITY].map(|x| DType::F16.nearest(x)), [f64::INFINITY, f64::NEG_INFINITY]);
        assert_eq!(DType::F32.nearest(0.1), f64::from(0.1f32));
    }
}
