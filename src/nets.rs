//! Whole networks: MobileNets as chains, from an image to its logits.
//!
//! A batch norm is folded into the convolution before it, so that a network is convolutions, a pool and a classifier,
//! which is a pointwise convolution of a single pixel. Any input of three channels fits, of any size.
//!
//! ```
//! use gpuconv::nets;
//! let network = nets::mobilenet_v2(1.0, 1000)?;
//! let shapes = network.chain.shapes([1, 3, 224, 224])?;
//! assert_eq!(shapes.last(), Some(&[1, 1000, 1, 1].into()));
//! # Ok::<(), gpuconv::Error>(())
//! ```

mod logits;
mod pixels;
#[cfg(feature = "safetensors")]
mod weights;

use crate::model::chain::{Chain, Link};
use crate::model::conv::{Activation, Conv2d};
use crate::model::error::{Error, Result};

pub use logits::{softmax, top};

/// The largest multiplier. No published network is wider, and a channel count must not overflow.
const WIDEST: f64 = 16.0;

/// A network, and what published weights call its tensors.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// `mobilenet_v1` or `mobilenet_v2`.
    pub name: &'static str,
    /// The multiplier of all channels.
    pub width: f64,
    /// The number of logits.
    pub classes: u32,
    /// Mean and standard deviation of the training pixels: red, green, blue.
    pub pixels: [[f32; 3]; 2],
    /// What it computes.
    pub chain: Chain,
    /// The names that timm gives, a pair for each convolution.
    pub timm: Vec<Names>,
    /// The names that torchvision gives; none if it does not have the network.
    pub torchvision: Vec<Names>,
}

/// What a file calls the tensors of a convolution, without their last part (`.weight`, `.running_mean`, …).
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The convolution.
    pub conv: String,
    /// The batch norm behind it; the classifier has a bias instead.
    pub norm: Option<String>,
}

impl Names {
    fn new(block: &str, conv: &str, norm: &str) -> Self {
        Self { conv: format!("{block}{conv}"), norm: Some(format!("{block}{norm}")) }
    }

    fn classifier(conv: &str) -> Self {
        Self { conv: conv.into(), norm: None }
    }
}

/// Channels, blocks and the first block's stride of each stage (arXiv 1704.04861, table 1).
const V1: [(u32, usize, u32); 5] = [(64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2)];

/// Expansion, channels, blocks and the first block's stride of each stage (arXiv 1801.04381, table 2).
const V2: [(u32, u32, usize, u32); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

/// MobileNetV1 (arXiv 1704.04861), with ReLU6 as timm's `mobilenetv1_100` has it.
///
/// # Errors
/// [`Error::Width`] unless `width` is above 0 and at most 16.
pub fn mobilenet_v1(width: f64, classes: u32) -> Result<Network> {
    let mut channels = rounded(32, width)?;
    let mut chain = stem(channels);
    let mut timm = vec![Names::new("", "conv_stem", "bn1")];
    for (stage, &(base, blocks, first_stride)) in V1.iter().enumerate() {
        let out_channels = rounded(base, width)?;
        for block in 0..blocks {
            let stride = if block == 0 { first_stride } else { 1 };
            let depthwise = Conv2d::depthwise(channels, 3).stride(stride).padding(1);
            let pointwise = Conv2d::pointwise(channels, out_channels);
            let links = [depthwise, pointwise].map(|conv| conv.activation(Activation::Relu6));
            chain = chain.then(Chain::new(links));
            let prefix = format!("blocks.{stage}.{block}.");
            timm.extend([Names::new(&prefix, "conv_dw", "bn1"), Names::new(&prefix, "conv_pw", "bn2")]);
            channels = out_channels;
        }
    }
    chain = chain.then(classifier(channels, classes));
    timm.push(Names::classifier("classifier"));
    // Inception's.
    let pixels = [[0.5; 3]; 2];
    Ok(Network { name: "mobilenet_v1", width, classes, pixels, chain, timm, torchvision: Vec::new() })
}

/// MobileNetV2 (arXiv 1801.04381), as torchvision's `mobilenet_v2` and timm's `mobilenetv2_100`.
///
/// # Errors
/// [`Error::Width`] unless `width` is above 0 and at most 16.
pub fn mobilenet_v2(width: f64, classes: u32) -> Result<Network> {
    let mut channels = rounded(32, width)?;
    let mut chain = stem(channels);
    let mut timm = vec![Names::new("", "conv_stem", "bn1")];
    let mut torchvision = vec![Names::new("features.0.", "0", "1")];
    // torchvision counts blocks through, after the stem.
    let mut feature = 1;
    for (stage, &(expansion, base, blocks, first_stride)) in V2.iter().enumerate() {
        let out_channels = rounded(base, width)?;
        for block in 0..blocks {
            let stride = if block == 0 { first_stride } else { 1 };
            chain = chain.then(Chain::inverted_residual(channels, out_channels, expansion, stride));
            timm.extend(timm_block(&format!("blocks.{stage}.{block}."), expansion));
            torchvision.extend(torchvision_block(&format!("features.{feature}.conv."), expansion));
            (channels, feature) = (out_channels, feature + 1);
        }
    }
    // A narrower network keeps the width of its last layer, which the classifier reads.
    let features = rounded(1280, width.max(1.0))?;
    chain = chain.then(Conv2d::pointwise(channels, features).activation(Activation::Relu6));
    timm.push(Names::new("", "conv_head", "bn2"));
    torchvision.push(Names::new(&format!("features.{feature}."), "0", "1"));

    chain = chain.then(classifier(features, classes));
    timm.push(Names::classifier("classifier"));
    torchvision.push(Names::classifier("classifier.1"));
    // ImageNet's.
    let pixels = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];
    Ok(Network { name: "mobilenet_v2", width, classes, pixels, chain, timm, torchvision })
}

fn stem(channels: u32) -> Chain {
    Conv2d::new(3, channels, 3).stride(2).padding(1).activation(Activation::Relu6).into()
}

fn classifier(channels: u32, classes: u32) -> Chain {
    Chain::new([Link::GlobalAveragePool, Conv2d::pointwise(channels, classes).into()])
}

fn timm_block(block: &str, expansion: u32) -> Vec<Names> {
    let name = |conv, norm| Names::new(block, conv, norm);
    match expansion {
        1 => vec![name("conv_dw", "bn1"), name("conv_pw", "bn2")],
        _ => vec![name("conv_pw", "bn1"), name("conv_dw", "bn2"), name("conv_pwl", "bn3")],
    }
}

fn torchvision_block(block: &str, expansion: u32) -> Vec<Names> {
    let name = |conv, norm| Names::new(block, conv, norm);
    match expansion {
        1 => vec![name("0.0", "0.1"), name("1", "2")],
        _ => vec![name("0.0", "0.1"), name("1.0", "1.1"), name("2", "3")],
    }
}

/// Channels times the width, rounded to the nearest multiple of eight, but not below nine tenths of the product. The
/// authors' code, timm and torchvision round the same way.
fn rounded(channels: u32, width: f64) -> Result<u32> {
    if !(width > 0.0 && width <= WIDEST) {
        return Err(Error::Width { width, limit: WIDEST });
    }
    let exact = f64::from(channels) * width;
    let nearest = ((exact + 4.0) as u32 / 8 * 8).max(8);
    Ok(if f64::from(nearest) < 0.9 * exact { nearest + 8 } else { nearest })
}
