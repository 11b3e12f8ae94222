//! Files of networks' weights: names, element types, and the errors for files that do not fit.

use std::collections::HashMap;
use std::path::Path;

use gpuconv::nets::{NETWORKS, Names, Network, Task, mobilenet_v1, mobilenet_v2, mobileone_s0, repvgg_a0};
use gpuconv::{Conv2d, Error, OwnedWeights};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// Each network in the size of its fixtures, with a publisher of its weights.
fn published() -> [(Network, &'static str); 3] {
    let v2 = mobilenet_v2(0.05, 20).unwrap();
    [(mobilenet_v1(0.03, 20).unwrap(), "timm"), (v2.clone(), "timm"), (v2, "torchvision")]
}

fn read(network: &Network, publisher: &str) -> Vec<u8> {
    let name = format!("tests/fixtures/{}.{publisher}.safetensors", network.name);
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// A tensor that owns its bytes.
#[derive(Clone)]
struct Owned {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

type Tensors = HashMap<String, Owned>;

fn tensors(file: &[u8]) -> Tensors {
    let owned = |view: &TensorView<'_>| Owned {
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    };
    SafeTensors::deserialize(file).unwrap().tensors().iter().map(|(name, view)| (name.clone(), owned(view))).collect()
}

fn file(tensors: &Tensors) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, tensor)| (name, TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

/// A file with other names.
fn renamed(tensors: &Tensors, name: impl Fn(&str) -> String) -> Vec<u8> {
    file(&tensors.iter().map(|(old, tensor)| (name(old), tensor.clone())).collect())
}

#[test]
fn both_publishers_names_mean_the_same_weights() {
    let [_, (network, timm), (_, torchvision)] = published();
    let weights = |publisher| network.weights(&read(&network, publisher)).unwrap();
    assert_eq!(weights(timm), weights(torchvision));
}

/// The networks with branches, in the size of their fixtures.
fn with_branches() -> [Network; 2] {
    [repvgg_a0(0.05, 20).unwrap(), mobileone_s0(0.06, 20).unwrap()]
}

/// The tensors of a file in which branches are folded, by a publisher's names.
fn folded(network: &Network, names: &[Names], weights: &[OwnedWeights]) -> Tensors {
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let of_conv = |((names, (_, conv)), own): ((&Names, (usize, &Conv2d)), &OwnedWeights)| {
        let name = names.folded.as_ref().unwrap_or(&names.conv);
        let shape = <[u32; 4]>::from(conv.weight_shape()).map(|extent| extent as usize);
        let shape = if names.is_matrix { shape[..2].to_vec() } else { shape.to_vec() };
        let bias = own.bias.as_ref().unwrap();
        [
            (format!("{name}.weight"), Owned { dtype: Dtype::F32, shape, bytes: bytes(&own.weight) }),
            (format!("{name}.bias"), Owned { dtype: Dtype::F32, shape: vec![bias.len()], bytes: bytes(bias) }),
        ]
    };
    names.iter().zip(network.chain.convolutions()).zip(weights).flat_map(of_conv).collect()
}

#[test]
fn folded_branches_mean_what_the_branches_mean() {
    for network in with_branches() {
        let weights = network.weights(&read(&network, "timm")).unwrap();
        for (names, publisher) in [&network.timm, &network.torchvision].into_iter().zip(network.publishers) {
            let mut tensors = folded(&network, names, &weights);
            assert_eq!(network.weights(&file(&tensors)).unwrap(), weights, "{} by {publisher}", network.name);
            let wrapped = renamed(&tensors, |name| format!("module.{name}"));
            assert_eq!(network.weights(&wrapped).unwrap(), weights, "{} by {publisher}", network.name);
            // What is missing is said by its folded name.
            let first = format!("{}.weight", names[0].folded.as_ref().unwrap());
            tensors.remove(&first).unwrap();
            let missing = network.weights(&file(&tensors)).unwrap_err();
            let Error::MissingTensor { name, publisher: found, .. } = missing else { panic!("{missing}") };
            assert_eq!((name, found), (first, publisher));
        }
    }
}

#[test]
fn branches_have_their_authors_names_as_well() {
    for network in with_branches() {
        let file_of_timm = read(&network, "timm");
        let pairs = network.timm.iter().zip(&network.torchvision).flat_map(|(timm, authors)| {
            let own = [(&timm.conv, &authors.conv)].into_iter().chain(timm.norm.iter().zip(&authors.norm));
            let branches = timm.branches.iter().zip(&authors.branches).flat_map(|(timm, authors)| {
                let convs = timm.conv.iter().zip(&authors.conv).map(|(timm, authors)| (&timm.0, &authors.0));
                convs.chain([(&timm.norm, &authors.norm)])
            });
            own.chain(branches)
        });
        let pairs: HashMap<&String, &String> = pairs.collect();
        let by_authors = renamed(&tensors(&file_of_timm), |name| {
            let (layer, part) = name.rsplit_once('.').unwrap();
            format!("{}.{part}", pairs[&layer.to_string()])
        });
        assert!(tensors(&by_authors).keys().all(|name| name.starts_with("stage") || name.starts_with("linear")));
        assert_eq!(network.weights(&by_authors).unwrap(), network.weights(&file_of_timm).unwrap(), "{}", network.name);
    }
}

/// Checks that a file in another type gives the same weights as the same values in f32. `encode` returns the bytes of a
/// value in that type, and the value that they stand for.
fn in_another_type(network: &Network, dtype: Dtype, encode: impl Fn(usize, f32) -> (Vec<u8>, f32)) {
    let plain = tensors(&read(network, "timm"));
    let [mut other, mut expected] = [plain.clone(), plain.clone()];
    for (name, tensor) in plain.iter().filter(|(_, tensor)| tensor.dtype == Dtype::F32) {
        let values = tensor.bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
        let (bytes, meant): (Vec<_>, Vec<_>) = values.enumerate().map(|(at, value)| encode(at, value)).unzip();
        *other.get_mut(name).unwrap() = Owned { dtype, bytes: bytes.concat(), ..tensor.clone() };
        expected.get_mut(name).unwrap().bytes = meant.into_iter().flat_map(f32::to_le_bytes).collect();
    }
    assert!(plain.values().any(|tensor| tensor.dtype == Dtype::I64 && tensor.shape.is_empty()), "num_batches_tracked");
    let expected = network.weights(&file(&expected)).unwrap();
    let weights = network.weights(&file(&other)).unwrap_or_else(|error| panic!("{dtype:?}: {error}"));
    assert!(weights.iter().flat_map(|layer| &layer.weight).all(|weight| !weight.is_nan()), "{dtype:?}");
    assert_eq!(weights, expected, "{dtype:?}");
}

#[test]
fn weights_come_in_halves_and_doubles() {
    let [(network, _), ..] = published();
    in_another_type(&network, Dtype::F16, |at, value| {
        // Magnitudes below 1, including subnormal ones.
        let bits = (at as u16).wrapping_mul(2459) % 0x3C00;
        let (exponent, fraction) = (i32::from(bits >> 10), f32::from(bits & 0x3FF));
        let magnitude = match exponent {
            0 => fraction / 1024.0 * 2f32.powi(-14),
            _ => (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
        };
        let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
        ((bits | sign).to_le_bytes().to_vec(), magnitude.copysign(value))
    });
    in_another_type(&network, Dtype::BF16, |_, value| {
        let bits = value.to_bits() & 0xFFFF_0000;
        (((bits >> 16) as u16).to_le_bytes().to_vec(), f32::from_bits(bits))
    });
    in_another_type(&network, Dtype::F64, |at, value| {
        // A little less than half way to the next float, half way, and a little more. Half way rounds to the even one.
        let next = f32::from_bits(value.to_bits() + 1);
        let (low, high) = (f64::from(value), f64::from(next));
        let share = [0.0, 0.49, 0.5, 0.51][at % 4];
        let even = if value.to_bits().is_multiple_of(2) { value } else { next };
        ((low + share * (high - low)).to_le_bytes().to_vec(), [value, value, even, next][at % 4])
    });
}

#[test]
fn prefixes_of_names_are_ignored() {
    for (network, publisher) in published() {
        let (expected, tensors) =
            (network.weights(&read(&network, publisher)).unwrap(), tensors(&read(&network, publisher)));
        for prefix in [
            "module.",
            "model.",
            "backbone.",
            "_orig_mod.",
            "state_dict.",
            "state_dict.module.",
            "params_ema.",
            "module._orig_mod.module.",
        ] {
            let weights = network.weights(&renamed(&tensors, |name| format!("{prefix}{name}")));
            assert!(weights.as_ref() == Ok(&expected), "{} {publisher} {prefix}: {:?}", network.name, weights.err());
        }
        // Unknown prefixes, prefixes without a dot, and a prefix that one tensor lacks are not ignored.
        let stem = if publisher == "timm" { "conv_stem" } else { "features.0.0" };
        for prefix in ["features.", "encoder.", "module", "module_", "Module.", "encoder.module.", "."] {
            let error = network.weights(&renamed(&tensors, |name| format!("{prefix}{name}"))).unwrap_err();
            let expected = format!("the file has no tensor `{stem}.weight` ({publisher}'s name)");
            assert!(error.to_string().starts_with(&expected), "{prefix}: {error}");
        }
        let last = if publisher == "timm" { "classifier.bias" } else { "classifier.1.bias" };
        let all_but_one = renamed(&tensors, |name| format!("{}{name}", if name == last { "" } else { "module." }));
        assert!(matches!(network.weights(&all_but_one), Err(Error::MissingTensor { .. })), "{publisher}");
    }
}

#[test]
fn a_prefix_in_the_networks_own_names_is_kept() {
    let [(mut network, publisher), ..] = published();
    let tensors = tensors(&read(&network, publisher));
    let expected = network.weights(&file(&tensors)).unwrap();
    for names in &mut network.timm {
        names.conv.insert_str(0, "model.");
        names.norm = names.norm.take().map(|norm| format!("model.{norm}"));
    }
    for prefix in ["model.", "module.model.", "model.model."] {
        let weights = network.weights(&renamed(&tensors, |name| format!("{prefix}{name}")));
        assert!(weights.as_ref() == Ok(&expected), "{prefix}: {:?}", weights.err());
    }
}

#[test]
fn a_missing_tensor_is_named_as_the_file_would_name_it() {
    for (network, publisher) in published() {
        let whole = tensors(&read(&network, publisher));
        let names = || whole.keys().filter(|name| !name.ends_with("num_batches_tracked"));
        // A tenth of them, with the classifier and the stem.
        let chosen =
            |name: &str| name.starts_with("classifier") || name.contains("0.0") || name.starts_with("conv_stem");
        for (prefix, lost) in ["", "state_dict.module."].iter().flat_map(|&p| names().map(move |name| (p, name))) {
            if !chosen(lost) {
                continue;
            }
            let mut tensors = whole.clone();
            let expected = tensors.remove(lost).unwrap().shape;
            let error = network.weights(&renamed(&tensors, |name| format!("{prefix}{name}"))).unwrap_err();
            let said =
                format!("the file has no tensor `{prefix}{lost}` ({publisher}'s name), which must be {expected:?}");
            assert_eq!(error.to_string(), said);
        }
        // Without any convolution's weights, the names of batch norms tell the publisher.
        let is_norm = |name: &str| ["conv", "classifier", ".0.weight"].iter().all(|part| !name.contains(part));
        let norms = whole.iter().filter(|(name, _)| is_norm(name));
        let norms: Tensors = norms.map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
        let error = network.weights(&file(&norms)).unwrap_err().to_string();
        assert!(error.contains(&format!("({publisher}'s name)")), "{error}");
    }
}

/// The error for a file of MobileNetV1 after a change to it.
fn changed(change: impl FnOnce(&mut Tensors)) -> Error {
    let [(network, publisher), ..] = published();
    let mut tensors = tensors(&read(&network, publisher));
    change(&mut tensors);
    network.weights(&file(&tensors)).unwrap_err()
}

#[test]
fn a_tensor_that_does_not_fit_is_named() {
    let name = || String::from("blocks.0.0.bn1.running_var");
    let tensor = |dtype, shape: &[usize], bytes: &[u8]| Owned { dtype, shape: shape.into(), bytes: bytes.into() };
    let surplus = changed(|tensors| drop(tensors.insert("ema".into(), tensor(Dtype::F32, &[1], &[0; 4]))));
    assert_eq!(surplus, Error::SurplusTensor { name: "ema".into(), actual: vec![1] });
    let misshapen = changed(|tensors| drop(tensors.insert(name(), tensor(Dtype::F32, &[2, 4], &[0; 32]))));
    assert_eq!(misshapen, Error::TensorShape { name: name(), expected: vec![8], actual: vec![2, 4] });
    for (dtype, size) in [(Dtype::I32, 4), (Dtype::U8, 1), (Dtype::I64, 8), (Dtype::F8_E4M3, 1)] {
        let other = changed(|tensors| drop(tensors.insert(name(), tensor(dtype, &[8], &vec![0; 8 * size]))));
        let said = format!("the tensor `{}` must be F32, F16, BF16 or F64, but is {dtype:?}", name());
        assert_eq!(other.to_string(), said);
    }
    let negative = changed(|tensors| drop(tensors.insert(name(), tensor(Dtype::F32, &[8], &[0xBF; 32]))));
    assert!(matches!(negative, Error::Variance { channel: 0, .. }), "{negative}");

    let [(network, _), (v2, publisher), _] = published();
    let error = network.weights(b"PK\x03\x04 no").unwrap_err();
    assert!(matches!(error, Error::NotSafetensors(_)));
    assert!(std::error::Error::source(&error).is_some());
    let empty = network.weights(&file(&Tensors::new()));
    assert!(matches!(&empty, Err(Error::MissingTensor { name, .. }) if name == "conv_stem.weight"), "{empty:?}");
    let wider = mobilenet_v1(0.25, 20).unwrap().weights(&read(&network, "timm"));
    assert!(matches!(wider, Err(Error::TensorShape { .. })), "{wider:?}");
    let other = network.weights(&read(&v2, publisher));
    assert!(matches!(other, Err(Error::MissingTensor { .. } | Error::TensorShape { .. })), "{other:?}");
}

/// Each fixture is taken by its own network, and by no other; the error names a tensor.
#[test]
fn weights_of_another_network_are_refused_by_name() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    // Those that read text have a test of their own, without such files. TensorFlow's have the tensors of others.
    let others = NETWORKS.iter().filter(|(name, task, _)| {
        ![Task::TextDetection, Task::TextDirection].contains(task) && !name.starts_with("tf_")
    });
    let published = others.flat_map(|(name, task, make)| {
        let answer = std::fs::read(fixtures.join(format!("{name}.answer.safetensors"))).unwrap();
        let width = SafeTensors::deserialize(&answer).unwrap().tensor("width").unwrap().data().try_into().unwrap();
        let network = make(f64::from_le_bytes(width), if task.classes().is_some() { 20 } else { 3 }).unwrap();
        let publishers = ["timm", "torchvision", "yjn870", "real-esrgan"];
        let files = publishers.map(|publisher| fixtures.join(format!("{name}.{publisher}.safetensors")));
        let files: Vec<_> = files.into_iter().filter_map(|path| std::fs::read(path).ok()).collect();
        assert!(!files.is_empty(), "{name}");
        files.into_iter().map(move |file| (network.clone(), file))
    });
    let published: Vec<_> = published.collect();
    for (network, _) in &published {
        for (owner, file) in &published {
            let what = format!("{} with {}'s weights", network.name, owner.name);
            match network.weights(file) {
                Ok(weights) => {
                    assert_eq!(network.name, owner.name, "{what}");
                    assert_eq!(weights.len(), network.chain.convolutions().count(), "{what}");
                }
                Err(Error::MissingTensor { .. } | Error::SurplusTensor { .. } | Error::TensorShape { .. }) => {
                    assert_ne!(network.name, owner.name, "{what}");
                }
                Err(other) => panic!("{what}: {other}"),
            }
        }
    }
}
