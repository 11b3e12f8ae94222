//! The command line's reader of npy files: it returns all values, or a message with the file's name.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../cli/src/npy.rs"]
mod npy;

/// The items of the command line that its module imports.
pub enum Failure {
    Call(String),
}
pub type Outcome<T = ()> = Result<T, Failure>;

fuzz_target!(|bytes: &[u8]| {
    for shape in [&[1, 2, 3, 4][..], &[24], &[], &[0, 8, 1, 1]] {
        match npy::values(bytes, "a file", "input", shape) {
            Ok(values) => assert_eq!(values.len() as u64, shape.iter().product::<u64>()),
            Err(Failure::Call(message)) => assert!(message.contains("a file")),
        }
    }
});
