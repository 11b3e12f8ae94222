//! Element types: how numbers lie in memory.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::model::error::{Error, Result};

/// The type of a tensor's or a weight's elements in memory. Arithmetic is in f32 for all of them.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DType {
    /// Single precision: `torch.float32`.
    #[default]
    F32,
}

impl DType {
    /// All of them.
    pub const ALL: &[Self] = &[Self::F32];

    /// Bytes of an element.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
        }
    }

    /// Its name in problem lines and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
        }
    }

    /// Encodes values as bytes.
    pub(crate) fn encode(self, values: &[f32]) -> Cow<'_, [u8]> {
        match self {
            Self::F32 => Cow::Borrowed(bytemuck::cast_slice(values)),
        }
    }

    /// Decodes bytes, whole elements of them, into values.
    pub(crate) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => bytemuck::pod_collect_to_vec(bytes),
        }
    }
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
        assert_eq!("f8".parse::<DType>(), Err(Error::DType { word: "f8".into() }));
        assert_eq!(Error::DType { word: "f8".into() }.to_string(), "an element type is f32, not `f8`");
    }
}
