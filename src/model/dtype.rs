//! Element types: how numbers lie in memory.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use crate::model::error::{Error, Result};
use crate::model::rounding::{rounded, widened};

/// The type of a tensor's or a weight's elements in memory. Arithmetic is in f32 for all of them.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DType {
    /// Single precision: `torch.float32`.
    #[default]
    F32,
    /// Half precision: `torch.float16`. Values are rounded to the nearest, ties to even, when they are stored. Those of
    /// 65520 and more become infinite.
    F16,
}

impl DType {
    /// All of them.
    pub const ALL: &[Self] = &[Self::F32, Self::F16];

    /// Bytes of an element.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }

    /// Its name in problem lines and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }

    /// Encodes values as bytes.
    pub(crate) fn encode(self, values: &[f32]) -> Cow<'_, [u8]> {
        match self {
            Self::F32 => Cow::Borrowed(bytemuck::cast_slice(values)),
            Self::F16 => {
                let mut bytes = vec![0; 2 * values.len()];
                let halves = bytes.chunks_exact_mut(2).zip(values);
                halves.for_each(|(half, &value)| half.copy_from_slice(&rounded(value).to_ne_bytes()));
                Cow::Owned(bytes)
            }
        }
    }

    /// Decodes bytes, whole elements of them, into values.
    pub(crate) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            // Where bytes are aligned, as mapped ones are, nothing writes zeros first.
            Self::F32 => match bytemuck::try_cast_slice(bytes) {
                Ok(values) => values.to_vec(),
                Err(_) => bytemuck::pod_collect_to_vec(bytes),
            },
            Self::F16 => bytes.as_chunks().0.iter().map(|&half| widened(u16::from_ne_bytes(half))).collect(),
        }
    }
}

/// The bytes of halves.
pub(crate) fn bytes_of_halves(halves: &[f16]) -> &[u8] {
    bytemuck::cast_slice(halves.reinterpret_cast())
}

/// Halves of bytes, whole elements of them.
pub(crate) fn halves(bytes: &[u8]) -> Vec<f16> {
    bytemuck::pod_collect_to_vec::<u8, u16>(bytes).reinterpret_cast::<f16>().to_vec()
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DType {
    type Err = Error;

    /// Its name.
    fn from_str(word: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|dtype| dtype.name() == word).ok_or_else(|| Error::DType { word: word.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bytes_are_read_back() {
        let values = [0.0, -1.5, f32::MIN_POSITIVE, f32::INFINITY];
        for &dtype in DType::ALL {
            assert_eq!(dtype.to_string().parse(), Ok(dtype));
            let bytes = dtype.encode(&values);
            assert_eq!(bytes.len() as u64, values.len() as u64 * dtype.bytes());
            assert_eq!(dtype.decode(&bytes).len(), values.len());
        }
        assert_eq!(DType::F32.decode(&DType::F32.encode(&values)), values);
        // Of two neighbours one at least is not aligned.
        let shifted: Vec<u8> = [0].into_iter().chain(DType::F32.encode(&values).iter().copied()).collect();
        assert_eq!(DType::F32.decode(&shifted[1..]), values);
        // The largest, a tie to even below it and one above, the least normal, the least, and what is nothing.
        let halves = [65504.0, 65519.0, 65520.0, 2049.0, 2051.0, 6.1035156e-5, 5.9604645e-8, 2.9802322e-8, f32::NAN];
        let read = DType::F16.decode(&DType::F16.encode(&halves));
        let infinity = f32::INFINITY;
        assert_eq!(read[..8], [65504.0, 65504.0, infinity, 2048.0, 2052.0, 6.1035156e-5, 5.9604645e-8, 0.0]);
        assert!(read[8].is_nan());
        assert_eq!("f8".parse::<DType>(), Err(Error::DType { word: "f8".into() }));
        assert_eq!(Error::DType { word: "f8".into() }.to_string(), "an element type is f32, f16, not `f8`");
    }
}
