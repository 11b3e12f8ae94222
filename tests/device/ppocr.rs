//! PP-OCR's networks against ONNX Runtime, which `scripts/ppocr fixtures` ran on the published graphs with the weights
//! that are made here. `scripts/ppocr check` compares them with the published weights.

use std::collections::BTreeMap;

use gpuconv::internals::random;
use gpuconv::nets::{Fold, Names, Network, ppocr_cls, ppocr_v4_det, softmax};
use gpuconv::{Choice, DType, Error, Fusion, GpuConv, Layout, Link, OwnedWeights, shape};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// Equals the function of this name in `scripts/ppocr`.
fn random_weight(name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product::<usize>() as u64;
    if let [first, rest @ ..] = shape
        && !rest.is_empty()
    {
        let is_transposed = ["head.binarize.conv2", "head.binarize.conv3"].iter().any(|start| name.starts_with(start));
        let fan_in = if is_transposed { *first } else { rest.iter().product() };
        let is_last = ["head.binarize.conv3.weight", "head.fc.weight"].contains(&name);
        let scale = (6.0 / fan_in as f64).sqrt() * if is_last { 0.1 } else { 1.0 };
        return random::uniform(name, count, scale as f32);
    }
    let is_scale = [".weight", ".scale", ".running_var"].iter().any(|end| name.ends_with(end));
    let one = if is_scale { 1.0 } else { 0.0 };
    random::uniform(name, count, 0.5).into_iter().map(|value| value + one).collect()
}

/// The tensors of a network's file with their shapes.
fn tensors(network: &Network) -> BTreeMap<String, Vec<usize>> {
    let mut tensors = BTreeMap::new();
    for ((link, conv), names) in network.chain.convolutions().zip(&network.timm) {
        let Names { conv: name, norm, has_bias, is_matrix, is_ones, folds, .. } = names;
        let shape = match &network.chain.links()[link] {
            Link::ConvTranspose(transposed) => transposed.weight_shape(),
            _ => conv.weight_shape(),
        };
        let shape = <[u32; 4]>::from(shape).map(|extent| extent as usize);
        let mut add =
            |name: String, shape: &[usize]| assert!(tensors.insert(name.clone(), shape.into()).is_none(), "{name}");
        if !is_ones {
            add(format!("{name}.weight"), if *is_matrix { &shape[..2] } else { &shape });
        }
        let channels = [conv.out_channels as usize];
        if !is_ones && if norm.is_some() { *has_bias } else { conv.bias } {
            add(format!("{name}.bias"), &channels);
        }
        if let Some(norm) = norm {
            for part in ["weight", "bias", "running_mean", "running_var"] {
                add(format!("{norm}.{part}"), &channels);
            }
        }
        for fold in folds {
            if let Fold::Input(name) | Fold::Output(name) = fold {
                for part in ["scale", "bias"] {
                    add(format!("{name}.{part}"), &[1]);
                }
            }
        }
    }
    tensors
}

fn random_file(network: &Network) -> Vec<u8> {
    let bytes = tensors(network).into_iter().map(|(name, shape)| {
        let bytes: Vec<_> = random_weight(&name, &shape).into_iter().flat_map(f32::to_le_bytes).collect();
        (name, shape, bytes)
    });
    let bytes: Vec<_> = bytes.collect();
    let view = |(name, shape, bytes)| (name, TensorView::new(Dtype::F32, Vec::clone(shape), bytes).unwrap());
    safetensors::serialize(bytes.iter().map(|(name, shape, bytes)| view((name, shape, bytes))), None).unwrap()
}

/// What `scripts/ppocr` says of the published files; and of their parameters, means and variances are none.
#[test]
fn text_networks_have_the_published_tensors() {
    for (network, count, values, norms) in
        [(ppocr_v4_det(1.0, 1), 234, 1_171_721, 16 + 2 * 24), (ppocr_cls(1.0, 2), 213, 133_628, 2136)]
    {
        let network = network.unwrap();
        let tensors = tensors(&network);
        let sum: usize = tensors.values().map(|shape| shape.iter().product::<usize>()).sum();
        assert_eq!((tensors.len(), sum), (count, values), "{}", network.name);
        assert_eq!(network.parameters(), (values - 2 * norms) as u64, "{}", network.name);
    }
}

#[test]
fn weights_of_another_text_network_are_refused_by_name() {
    let [detector, narrow, classifier] =
        [ppocr_v4_det(0.1, 1), ppocr_v4_det(0.05, 1), ppocr_cls(1.0, 2)].map(Result::unwrap);
    let file = random_file(&detector);
    assert_eq!(detector.weights(&file).unwrap().len(), detector.chain.convolutions().count());
    let Err(Error::TensorShape { name, .. }) = narrow.weights(&file) else { panic!() };
    assert_eq!(name, "backbone.conv1.conv.weight");
    let other = classifier.weights(&file);
    assert!(
        matches!(&other, Err(Error::TensorShape { name, .. }) if name == "backbone.conv1.conv.weight"),
        "{other:?}"
    );
    let missing = detector.weights(&random_file(&classifier));
    let Err(Error::TensorShape { .. } | Error::MissingTensor { .. }) = missing else { panic!("{missing:?}") };
    let refused = detector.chain.shapes([1, 3, 48, 64]);
    assert!(matches!(refused, Err(Error::ShapeMismatch { tensor: "residual", .. })), "{refused:?}");
}

/// Asserts that a network with random weights gives what ONNX Runtime does in f32.
fn agrees_with_onnx_runtime(network: &Network, images: [u32; 4], dtype: DType, answer: impl Fn(&[f32]) -> Vec<f32>) {
    let path = format!("{}/tests/fixtures/{}.answer.safetensors", env!("CARGO_MANIFEST_DIR"), network.name);
    let file = std::fs::read(path).unwrap();
    let expected = SafeTensors::deserialize(&file).unwrap();
    let expected = expected.tensor("answer").unwrap();
    let expected = expected.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
    let expected: Vec<_> = expected.collect();

    let gpu = GpuConv::new().unwrap_or_else(|error| panic!("{error}"));
    let weights = network.weights(&random_file(network)).unwrap();
    let weights: Vec<_> = weights.iter().map(OwnedWeights::borrow).collect();
    let values =
        random::uniform(&format!("{}/x", network.name), images.iter().map(|&extent| u64::from(extent)).product(), 2.0);
    for fusion in [Fusion::Auto, Fusion::Never, Fusion::Always] {
        let layer = gpu.chain_with(&network.chain.clone().with_dtype(dtype), &weights, Choice::Fusion(fusion)).unwrap();
        for layout in [Layout::Nchw, Layout::Nhwc] {
            let x = gpu.upload_of(&shape::from_nchw(&values, images, layout), images, layout, dtype).unwrap();
            let y = layer.forward(&x).unwrap();
            let values = answer(&shape::to_nchw(&gpu.download(&y).unwrap(), y.shape(), layout));
            assert_eq!(values.len(), expected.len());
            let errors = values.iter().zip(&expected).map(|(value, expected)| (value - expected).abs());
            // `f32::max` would ignore a NaN.
            let error = errors.fold(0f32, |most, error| if error.is_nan() { f32::INFINITY } else { most.max(error) });
            println!("{} {dtype} {fusion:?} {layout}: {error:.1e}", network.name);
            let most = if dtype == DType::F16 { 5e-3 } else { 1e-4 };
            assert!(error < most, "{} {dtype} {fusion:?} {layout}: {error:e}", network.name);
        }
    }
}

#[test]
#[ignore = "takes a minute"]
fn other_networks_that_find_text_agree_with_onnx_runtime_in_full() {
    finds_text(DType::F32);
}

#[test]
#[ignore = "takes a minute"]
fn other_networks_that_find_text_in_f16_agree_with_onnx_runtime_in_full() {
    finds_text(DType::F16);
}

fn finds_text(dtype: DType) {
    agrees_with_onnx_runtime(&ppocr_v4_det(1.0, 1).unwrap(), [1, 3, 64, 64], dtype, |map| {
        map.chunks_exact(64).step_by(3).flat_map(|row| row.iter().copied().step_by(3)).collect()
    });
}

#[test]
#[ignore = "takes a minute"]
fn other_networks_that_turn_text_agree_with_onnx_runtime_in_full() {
    turns_text(DType::F32);
}

#[test]
#[ignore = "takes a minute"]
fn other_networks_that_turn_text_in_f16_agree_with_onnx_runtime_in_full() {
    turns_text(DType::F16);
}

fn turns_text(dtype: DType) {
    agrees_with_onnx_runtime(&ppocr_cls(1.0, 2).unwrap(), [3, 3, 48, 192], dtype, |logits| {
        logits.chunks_exact(2).flat_map(softmax).collect()
    });
}
