//! Values that are the same on every machine, for tests and measurements.

use std::hash::Hasher;

use fnv::FnvHasher;

/// `len` values, uniform in [-scale, scale): splitmix64 over a counter, seeded by the FNV-1a hash of `name`.
///
/// Anyone can draw them again in any language: value `i`, from 1, is `scale * (u / 2^23 - 1)` with `u` the upper
/// 24 bits of splitmix64's mix of `seed + i * 0x9E3779B97F4A7C15`.
pub fn uniform(name: &str, len: u64, scale: f32) -> Vec<f32> {
    bits(name, len).map(|bits| scale * ((bits >> 40) as f32 / (1 << 23) as f32 - 1.0)).collect()
}

/// `len` whole numbers from `-largest` to `largest`, as f32.
pub fn integers(name: &str, len: u64, largest: u32) -> Vec<f32> {
    let count = u64::from(largest) * 2 + 1;
    bits(name, len).map(|bits| ((bits >> 32) % count) as f32 - largest as f32).collect()
}

fn bits(name: &str, len: u64) -> impl Iterator<Item = u64> {
    let mut hasher = FnvHasher::default();
    hasher.write(name.as_bytes());
    let seed = hasher.finish();
    (1..=len).map(move |index| {
        let mut z = seed.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_they_are_everywhere() {
        // Worked out in Python from the description above.
        let values = uniform("pointwise 1x8x2x2 -> 8/x", 4, 1.0);
        assert_eq!(values, EXPECTED);
        assert!(integers("n", 1000, 2).iter().all(|value| [-2.0, -1.0, 0.0, 1.0, 2.0].contains(value)));
    }

    const EXPECTED: [f32; 4] = [0.96646774, -0.7639897, 0.84255767, -0.07769573];
}
