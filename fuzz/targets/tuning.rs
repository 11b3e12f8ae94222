//! Tuning files: a valid file is the same after writing and reading it again.
#![no_main]

use gpuconv::Tuning;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut tuning) = Tuning::from_json(bytes) else { return };
    let json = tuning.to_json();
    let again = Tuning::from_json(json.as_bytes()).expect("what was written reads back");
    assert_eq!(again.to_json(), json);
    tuning.merge(again);
    assert!(Tuning::from_json(tuning.to_json().as_bytes()).is_ok());
});
