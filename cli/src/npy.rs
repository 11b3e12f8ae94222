//! float32 npy files.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use gpuconv::Shape;
use npyz::{NpyFile, Order, WriterBuilder};

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

/// The same from a reader. `name` is the file's name in messages.
pub fn values(mut reader: impl Read, name: &str, what: &str, shape: &[u64]) -> Outcome<Vec<f32>> {
    let unreadable = |error: io::Error| Failure::Call(format!("cannot read {name}: {error}"));
    let header = header(&mut reader).map_err(unreadable)?;
    let file = NpyFile::new(header.chain(reader)).map_err(unreadable)?;
    let (dtype, actual, order) = (file.dtype().descr(), file.shape().to_vec(), file.order());
    let Ok(values) = file.data::<f32>() else {
        return Err(Failure::Call(format!("{name}: the {what} must be float32 ('<f4'), but is {dtype}")));
    };
    // Check this before reading values: a damaged header may announce any number of them.
    if actual != shape {
        let (expected, actual) = (extents(shape), extents(&actual));
        return Err(Failure::Call(format!("{name}: the {what} must be {expected}, but is {actual}")));
    }
    let values = values.collect::<io::Result<Vec<f32>>>().map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Failure::Call(format!(
            "{name}: the file ends before the last of the {} values of the {what}",
            extents(shape)
        )),
        _ => unreadable(error),
    })?;
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

/// The bytes of a file.
pub fn encode(shape: Shape, values: &[f32]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(values.len() * 4 + 128);
    let shape = <[u32; 4]>::from(shape).map(u64::from);
    let options = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut bytes);
    let mut writer = options.begin_nd()?;
    writer.extend(values.iter().copied())?;
    writer.finish()?;
    Ok(bytes)
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
    fn fortran_order_worked_out_by_hand() {
        // numpy.arange(6).reshape(1, 2, 3) is 0 3 1 4 2 5 in Fortran order.
        assert_eq!(from_fortran(&[0.0, 3.0, 1.0, 4.0, 2.0, 5.0], &[1, 2, 3]), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert!(from_fortran(&[], &[0, 2]).is_empty());
    }
}
