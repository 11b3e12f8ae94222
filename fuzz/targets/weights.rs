//! Networks' weights from safetensors files. The bytes are first a whole file, then the values of one tensor in an
//! otherwise valid file, with any element type and any prefixes of names.
#![no_main]

use std::sync::LazyLock;

use gpuconv::Error;
use gpuconv::nets::{self, Network};
use libfuzzer_sys::fuzz_target;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

static NETWORKS: LazyLock<[Network; 2]> = LazyLock::new(|| {
    [nets::mobilenet_v1(0.03, 20), nets::mobilenet_v2(0.05, 2)].map(|network| network.expect("a network"))
});
/// A file of the first network.
static FILE: &[u8] = include_bytes!("../../tests/fixtures/mobilenet_v1.timm.safetensors");

const TYPES: [(Dtype, usize); 5] =
    [(Dtype::F32, 4), (Dtype::F16, 2), (Dtype::BF16, 2), (Dtype::F64, 8), (Dtype::I32, 4)];
const PREFIXES: [&str; 5] = ["module.", "model.", "backbone.", "_orig_mod.", "state_dict."];

fuzz_target!(|bytes: &[u8]| {
    for network in NETWORKS.iter() {
        if let Ok(weights) = network.weights(bytes) {
            assert_eq!(weights.len(), network.chain.convolutions().count());
        }
    }
    let [place, dtype, prefixes, values @ ..] = bytes else { return };
    let (dtype, size) = TYPES[usize::from(*dtype) % TYPES.len()];
    let prefix: String = (0..PREFIXES.len()).filter(|bit| prefixes >> bit & 1 == 1).map(|bit| PREFIXES[bit]).collect();
    match NETWORKS[0].weights(&file(usize::from(*place), (dtype, size), values, &prefix)) {
        Ok(_) | Err(Error::Variance { .. }) => {}
        Err(Error::TensorType { .. }) => assert_eq!(dtype, Dtype::I32),
        Err(other) => panic!("{other}"),
    }
});

/// The file with other values in one of its tensors, padded with zeros.
fn file(place: usize, (dtype, size): (Dtype, usize), values: &[u8], prefix: &str) -> Vec<u8> {
    let file = SafeTensors::deserialize(FILE).expect("a fixture");
    let mut tensors = file.tensors();
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    let place = place % tensors.len();
    let shape = tensors[place].1.shape().to_vec();
    let mut data = values.to_vec();
    data.resize(shape.iter().product::<usize>() * size, 0);
    tensors[place].1 = TensorView::new(dtype, shape, &data).expect("as many bytes as it takes");
    let tensors = tensors.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor));
    safetensors::serialize(tensors, None).expect("a file")
}
