//! float32 npy files.

use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use gpuconv::Shape;
use npyz::{NpyFile, Order, WriterBuilder};

use super::{Failure, Outcome};

/// Extents with `x` between them.
fn extents(shape: &[u64]) -> String {
    match shape {
        [] => "a scalar".into(),
        _ => shape.iter().map(u64::to_string).collect::<Vec<_>>().join("x"),
    }
}

/// The values of a file in C order. `what` says what the file is for; its shape must be `shape`.
pub fn read(path: &Path, what: &str, shape: &[u64]) -> Outcome<Vec<f32>> {
    let name = path.display();
    let unreadable = |error: io::Error| Failure::Call(format!("cannot read {name}: {error}"));
    let reader = BufReader::new(File::open(path).map_err(unreadable)?);
    let file = NpyFile::new(reader).map_err(unreadable)?;
    let (dtype, actual, order) = (file.dtype().descr(), file.shape().to_vec(), file.order());
    let Ok(values) = file.data::<f32>() else {
        return Err(Failure::Call(format!("{name}: the {what} must be float32 ('<f4'), but is {dtype}")));
    };
    // Before the values are read: a damaged header may promise any number of them.
    if actual != shape {
        let (expected, actual) = (extents(shape), extents(&actual));
        return Err(Failure::Call(format!("{name}: the {what} must be {expected}, but is {actual}")));
    }
    let values = values.collect::<io::Result<Vec<f32>>>().map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            Failure::Call(format!("{name}: the file ends before the {} values of the {what} do", extents(shape)))
        }
        _ => unreadable(error),
    })?;
    Ok(match order {
        Order::C => values,
        Order::Fortran => from_fortran(&values, shape),
    })
}

/// Reorders values whose first index is the fastest.
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

/// Writes a file that is either whole or not there: it takes its name when its last byte is written.
pub fn write(path: &Path, shape: Shape, values: &[f32]) -> Outcome {
    let written = encode(shape, values).and_then(|bytes| replace(path, &bytes));
    written.map_err(|error| Failure::Call(format!("cannot write {}: {error}", path.display())))
}

fn encode(shape: Shape, values: &[f32]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(values.len() * 4 + 128);
    let shape = <[u32; 4]>::from(shape).map(u64::from);
    let options = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut bytes);
    let mut writer = options.begin_nd()?;
    writer.extend(values.iter().copied())?;
    writer.finish()?;
    Ok(bytes)
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A pipe or a device is written to, not replaced; a link stays one.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.into());
    if fs::metadata(&target).is_ok_and(|metadata| !metadata.is_file()) {
        return fs::OpenOptions::new().write(true).open(&target)?.write_all(bytes);
    }
    let partial = partial(&target);
    let written = fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, &target));
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written
}

/// A name beside the target, on the same file system, that no other process writes to.
fn partial(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.partial", std::process::id()));
    target.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fortran_order_worked_out_by_hand() {
        // numpy.arange(6).reshape(1, 2, 3) lies in Fortran order as 0 3 1 4 2 5.
        assert_eq!(from_fortran(&[0.0, 3.0, 1.0, 4.0, 2.0, 5.0], &[1, 2, 3]), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert!(from_fortran(&[], &[0, 2]).is_empty());
    }
}
