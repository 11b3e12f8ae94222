//! npy files of float32 and float16.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use gpuconv::{DType, Shape, f16};
use npyz::{NpyFile, Order};

use super::{Failure, Outcome};

/// A shape as text: extents with `x` between them.
fn extents(shape: &[u64]) -> String {
    match shape {
        [] => "a scalar".into(),
        _ => shape.iter().map(u64::to_string).collect::<Vec<_>>().join("x"),
    }
}

/// The values of a file, in C order. Its shape must be `shape`. `what` names the tensor in messages.
pub fn read(path: &Path, what: &str, shape: &[u64]) -> Outcome<Vec<f32>> {
    let name = path.display().to_string();
    match File::open(path) {
        Ok(file) => values(BufReader::new(file), &name, what, shape),
        Err(error) => Err(Failure::Call(format!("cannot read {name}: {error}"))),
    }
}

/// The shape of a file's array.
pub fn shape(path: &Path) -> Outcome<Vec<u64>> {
    let unreadable = |error: io::Error| Failure::Call(format!("cannot read {}: {error}", path.display()));
    let mut reader = BufReader::new(File::open(path).map_err(unreadable)?);
    let header = header(&mut reader).map_err(unreadable)?;
    Ok(NpyFile::new(header.chain(reader)).map_err(unreadable)?.shape().to_vec())
}

/// The same from a reader. `name` is the file's name in messages.
pub fn values(mut reader: impl Read, name: &str, what: &str, shape: &[u64]) -> Outcome<Vec<f32>> {
    let unreadable = |error: io::Error| Failure::Call(format!("cannot read {name}: {error}"));
    let header = header(&mut reader).map_err(unreadable)?;
    let file = NpyFile::new(header.chain(reader)).map_err(unreadable)?;
    let (dtype, actual, order) = (file.dtype().descr(), file.shape().to_vec(), file.order());
    // npyz would read float16, but only with more of `half`'s features.
    let (bytes, decode): (_, fn([u8; 4]) -> f32) = match dtype.as_str() {
        "'<f4'" => (4, f32::from_le_bytes),
        "'>f4'" => (4, f32::from_be_bytes),
        "'<f2'" => (2, |[a, b, ..]| f16::from_le_bytes([a, b]).to_f32()),
        "'>f2'" => (2, |[a, b, ..]| f16::from_be_bytes([a, b]).to_f32()),
        _ => {
            let expected = "float32 ('<f4') or float16 ('<f2')";
            return Err(Failure::Call(format!("{name}: the {what} must be {expected}, but is {dtype}")));
        }
    };
    // Check this before reading values: a damaged header may announce any number of them.
    if actual != shape {
        let (expected, actual) = (extents(shape), extents(&actual));
        return Err(Failure::Call(format!("{name}: the {what} must be {expected}, but is {actual}")));
    }
    let (len, mut data) = (shape.iter().product::<u64>() * bytes, Vec::new());
    file.into_inner().take(len).read_to_end(&mut data).map_err(unreadable)?;
    if (data.len() as u64) < len {
        let what = format!("the {} values of the {what}", extents(shape));
        return Err(Failure::Call(format!("{name}: the file ends before the last of {what}")));
    }
    let value = |chunk: &[u8]| {
        let mut element = [0; 4];
        element[..chunk.len()].copy_from_slice(chunk);
        decode(element)
    };
    let values: Vec<_> = data.chunks_exact(bytes as usize).map(value).collect();
    Ok(match order {
        Order::C => values,
        Order::Fortran => from_fortran(&values, shape),
    })
}

/// The bytes of a header, if npyz can read it safely and fast. npyz multiplies the sizes without checking for overflow,
/// and its time doubles with each nested bracket. NumPy's headers are short, and nest at most four deep.
fn header(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    const DEEPEST: i32 = 4;
    const LONGEST: u64 = 1 << 16;
    // The magic string, the version, and the length of the rest: two bytes, or four from version 2 on.
    let mut bytes = Vec::new();
    reader.take(10).read_to_end(&mut bytes)?;
    if bytes.get(6).is_some_and(|&version| version > 1) {
        reader.take(2).read_to_end(&mut bytes)?;
    }
    let length = bytes.iter().skip(8).rev().fold(0, |length, &byte| length << 8 | u64::from(byte));
    let read = reader.take(length.min(LONGEST)).read_to_end(&mut bytes)?;
    let numbers = bytes[bytes.len() - read..].split(|byte| !byte.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let product = numbers
        .map(|digits| str::from_utf8(digits).ok()?.parse::<u64>().ok())
        .try_fold(1u64, |product, number| product.checked_mul(number?.max(1)));
    let (mut depth, mut deepest) = (0, 0);
    for byte in &bytes {
        depth += match byte {
            b'{' | b'[' | b'(' => 1,
            b'}' | b']' | b')' => -1,
            _ => 0,
        };
        deepest = depth.max(deepest);
    }
    if length > LONGEST || deepest > DEEPEST || product.is_none() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its header is not one that NumPy writes"));
    }
    Ok(bytes)
}

/// Reorders values from Fortran order, where the first index varies fastest, to C order.
fn from_fortran(values: &[f32], shape: &[u64]) -> Vec<f32> {
    let mut strides = Vec::new();
    let mut stride = 1;
    for &extent in shape {
        strides.push(stride);
        stride *= extent as usize;
    }
    let value = |index: usize| {
        let mut rest = index;
        let mut from = 0;
        for (&extent, &stride) in shape.iter().zip(&strides).rev() {
            from += rest % extent as usize * stride;
            rest /= extent as usize;
        }
        values[from]
    };
    (0..values.len()).map(value).collect()
}

/// The bytes of a file of elements of a type.
pub fn encode(shape: Shape, dtype: DType, values: &[f32]) -> Vec<u8> {
    let descr = if dtype == DType::F16 { "<f2" } else { "<f4" };
    let extents = <[u32; 4]>::from(shape).map(|extent| extent.to_string()).join(", ");
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({extents}), }}");
    // Ten bytes come before it, and a line break ends it. Values begin at a multiple of 64.
    let length = (header.len() + 11).next_multiple_of(64) - 10;
    let mut bytes = [b"\x93NUMPY\x01\x00", &(length as u16).to_le_bytes()[..]].concat();
    bytes.extend(format!("{header:<width$}\n", width = length - 1).into_bytes());
    match dtype {
        DType::F16 => bytes.extend(values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes())),
        _ => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_header_is_refused_at_once() {
        let header = |text: String| {
            let length = (text.len() as u16).to_le_bytes();
            [b"\x93NUMPY\x01\x00", &length[..], text.as_bytes()].concat()
        };
        let nested = header(format!("{{'descr':{}", "{".repeat(60)));
        let Err(Failure::Call(message)) = values(&nested[..], "x.npy", "input", &[1]) else { panic!("it was taken") };
        assert_eq!(message, "cannot read x.npy: its header is not one that NumPy writes");
        // Sizes whose product overflows, also with a zero after them.
        for shape in ["9223372036854775808, 2", "4294967296, 4294967296, 0", "18446744073709551616,"] {
            let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}\n");
            let Err(Failure::Call(message)) = values(&header(text)[..], "x.npy", "input", &[1]) else {
                panic!("{shape}")
            };
            assert_eq!(message, "cannot read x.npy: its header is not one that NumPy writes");
        }
        let plain = header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n".into());
        let file = [plain, 2.5f32.to_le_bytes().to_vec()].concat();
        assert!(values(&file[..], "x.npy", "input", &[1]).is_ok_and(|values| values == [2.5]));
    }

    #[test]
    fn what_is_written_reads_back() {
        let given = [0.1, -2049.0, 65520.0, 6e-8, f32::NEG_INFINITY, 0.0];
        let halves = given.map(|value| f16::from_f32(value).to_f32());
        for (dtype, name, expected) in [(DType::F32, "<f4", given), (DType::F16, "<f2", halves)] {
            let bytes = encode([1, 2, 3, 1].into(), dtype, &given);
            let start = bytes.len() - given.len() * dtype.bytes() as usize;
            assert!(start.is_multiple_of(64) && bytes[start - 1] == b'\n', "{start}");
            let read = |bytes: &[u8]| values(bytes, "y.npy", "output", &[1, 2, 3, 1]);
            assert!(read(&bytes).is_ok_and(|values| values == expected), "{dtype}");
            // As a machine of the other byte order writes it.
            let (header, values) = bytes.split_at(start);
            let header = String::from_utf8_lossy(&header[10..]).replace(name, &name.replace('<', ">"));
            let swapped = values.chunks_exact(dtype.bytes() as usize).flat_map(|value| value.iter().rev());
            let swapped = bytes[..10].iter().chain(header.as_bytes()).chain(swapped).copied().collect::<Vec<_>>();
            assert!(read(&swapped).is_ok_and(|values| values == expected), "{dtype}");
        }
    }

    #[test]
    fn fortran_order_worked_out_by_hand() {
        // numpy.arange(6).reshape(1, 2, 3) is 0 3 1 4 2 5 in Fortran order.
        assert_eq!(from_fortran(&[0.0, 3.0, 1.0, 4.0, 2.0, 5.0], &[1, 2, 3]), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert!(from_fortran(&[], &[0, 2]).is_empty());
    }
}
