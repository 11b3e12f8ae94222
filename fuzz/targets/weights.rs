//! Networks' weights from safetensors files.
#![no_main]

use std::sync::LazyLock;

use gpuconv::nets::{self, Network};
use libfuzzer_sys::fuzz_target;

static NETWORKS: LazyLock<[Network; 2]> = LazyLock::new(|| {
    [nets::mobilenet_v1(0.05, 2), nets::mobilenet_v2(0.05, 2)].map(|network| network.expect("a network"))
});

fuzz_target!(|bytes: &[u8]| {
    for network in NETWORKS.iter() {
        if let Ok(weights) = network.weights(bytes) {
            assert_eq!(weights.len(), network.chain.convolutions().count());
        }
    }
});
