//! Whole networks as chains, from an image to its logits, to those of each of its pixels, or to a larger image.
//!
//! A batch norm is folded into the convolution before it, and branches that only training needs into one convolution.
//! So a classifier is convolutions, gates, pools and last a pointwise convolution of a single pixel. It takes images of
//! three channels, of any size; for timm's `tf_` networks and for segmentation see [`Network::sized`]. Rows and columns
//! for [`ppocr_v4_det`] are multiples of 32; [`ppocr_cls`] takes 33 rows or more. Networks that enlarge images take as many
//! channels as they were made with. A width multiplies all channels, also of networks that were published in one width.
//!
//! ```
//! use gpuconv::nets;
//! let network = nets::mobilenet_v2(1.0, 1000)?;
//! let shapes = network.chain.shapes([1, 3, 224, 224])?;
//! assert_eq!(shapes.last(), Some(&[1, 1000, 1, 1].into()));
//! # Ok::<(), gpuconv::Error>(())
//! ```

mod branches;
mod build;
mod logits;
mod lraspp;
mod mobile;
mod mobilenet_v4;
mod pixels;
mod ppocr;
mod resnet;
mod super_resolution;
mod tensorflow;
#[cfg(feature = "safetensors")]
mod weights;

use std::fmt;

use crate::model::chain::{Chain, Link};
use crate::model::conv::{Activation, Conv2d};
use crate::model::error::{Error, Result};
use crate::model::shape::Shape;

pub use branches::{mobileone_s0, repvgg_a0};
pub use logits::{softmax, top};
pub use lraspp::lraspp_mobilenet_v3_large;
pub use mobile::{efficientnet_b0, efficientnet_lite0, mnasnet1_0, mobilenet_v3_large, mobilenet_v3_small};
pub use mobilenet_v4::{mobilenetv4_conv_medium, mobilenetv4_conv_small};
pub use ppocr::{ppocr_cls, ppocr_v4_det};
pub use resnet::{resnet18, resnet34, resnet50};
pub use super_resolution::{espcn, realesr_general_x4v3, srvgg};
pub use tensorflow::{tf_efficientnet_b0, tf_efficientnet_lite0, tf_mobilenetv3_large_100, tf_mobilenetv3_small_100};

/// The largest multiplier. No published network is wider, and a channel count must not overflow.
const WIDEST: f64 = 16.0;

/// PyTorch's constant of batch norms.
const EPS: f64 = 1e-5;

/// What a network makes of an image.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// A logit for each class.
    Classification,
    /// A logit for each class and pixel.
    Segmentation,
    /// An image with more rows and columns.
    SuperResolution,
    /// For each pixel the probability that it lies in a line of text.
    TextDetection,
    /// A logit for each direction that a line of text may have.
    TextDirection,
}

impl Task {
    /// The classes that published weights have; none if images come out.
    pub fn classes(self) -> Option<u32> {
        match self {
            Self::Classification => Some(1000),
            Self::Segmentation => Some(21),
            Self::SuperResolution => None,
            Self::TextDetection => Some(1),
            Self::TextDirection => Some(2),
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Classification => "classification",
            Self::Segmentation => "segmentation",
            Self::SuperResolution => "super-resolution",
            Self::TextDetection => "text detection",
            Self::TextDirection => "text direction",
        })
    }
}

/// Makes a network of a width, with a number of classes; or, if images come out, of channels.
pub type Make = fn(f64, u32) -> Result<Network>;

/// The networks by name: torchvision's, timm's where torchvision has none, the authors' where neither has.
pub const NETWORKS: &[(&str, Task, Make)] = &[
    ("mobilenet_v1", Task::Classification, mobilenet_v1),
    ("mobilenet_v2", Task::Classification, mobilenet_v2),
    ("mobilenet_v3_large", Task::Classification, mobilenet_v3_large),
    ("mobilenet_v3_small", Task::Classification, mobilenet_v3_small),
    ("mobilenetv4_conv_small", Task::Classification, mobilenetv4_conv_small),
    ("mobilenetv4_conv_medium", Task::Classification, mobilenetv4_conv_medium),
    ("mnasnet1_0", Task::Classification, mnasnet1_0),
    ("efficientnet_b0", Task::Classification, efficientnet_b0),
    ("efficientnet_lite0", Task::Classification, efficientnet_lite0),
    ("mobileone_s0", Task::Classification, mobileone_s0),
    ("repvgg_a0", Task::Classification, repvgg_a0),
    ("resnet18", Task::Classification, resnet18),
    ("resnet34", Task::Classification, resnet34),
    ("resnet50", Task::Classification, resnet50),
    ("tf_mobilenetv3_large_100", Task::Classification, tf_mobilenetv3_large_100),
    ("tf_mobilenetv3_small_100", Task::Classification, tf_mobilenetv3_small_100),
    ("tf_efficientnet_b0", Task::Classification, tf_efficientnet_b0),
    ("tf_efficientnet_lite0", Task::Classification, tf_efficientnet_lite0),
    ("lraspp_mobilenet_v3_large", Task::Segmentation, lraspp_mobilenet_v3_large),
    ("espcn_x2", Task::SuperResolution, |width, channels| espcn(2, width, channels)),
    ("espcn_x3", Task::SuperResolution, |width, channels| espcn(3, width, channels)),
    ("espcn_x4", Task::SuperResolution, |width, channels| espcn(4, width, channels)),
    ("srvgg_x2", Task::SuperResolution, |width, channels| srvgg(2, width, channels)),
    ("srvgg_x3", Task::SuperResolution, |width, channels| srvgg(3, width, channels)),
    ("srvgg_x4", Task::SuperResolution, |width, channels| srvgg(4, width, channels)),
    ("realesr_general_x4v3", Task::SuperResolution, realesr_general_x4v3),
    ("ppocr_v4_det", Task::TextDetection, ppocr_v4_det),
    ("ppocr_cls", Task::TextDirection, ppocr_cls),
];

/// Whose names most networks have.
const PUBLISHERS: [&str; 2] = ["timm", "torchvision"];

/// A network, and what published weights call its tensors.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Its name, as in [`NETWORKS`].
    pub name: &'static str,
    /// What it makes of an image.
    pub task: Task,
    /// The multiplier of all channels.
    pub width: f64,
    /// The number of logits, or of channels if images come out.
    pub classes: u32,
    /// Mean and standard deviation of the training pixels: red, green, blue.
    pub pixels: [[f32; 3]; 2],
    /// The constants in the batch norms of timm's and torchvision's weights.
    pub eps: [f64; 2],
    /// Whether convolutions are padded as TensorFlow pads them, which depends on the size of images:
    /// [`Network::sized`].
    pub same_padding: bool,
    /// Resizes whose outputs are as large as an earlier tensor, each with that tensor: [`Network::sized`].
    pub fitted: Vec<(usize, usize)>,
    /// What it computes.
    pub chain: Chain,
    /// Whose names the next two are: timm's and torchvision's, but of networks that neither has those of other
    /// programs.
    pub publishers: [&'static str; 2],
    /// The names that timm gives, for each convolution; none if it does not have the network.
    pub timm: Vec<Names>,
    /// The names that torchvision gives; none if it does not have the network.
    pub torchvision: Vec<Names>,
}

/// What a file calls the tensors of a convolution, without their last part (`.weight`, `.running_mean`, …).
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct Names {
    /// The convolution.
    pub conv: String,
    /// The batch norm behind it; others have a bias, if the convolution has.
    pub norm: Option<String>,
    /// Whether there is a bias before the batch norm.
    pub has_bias: bool,
    /// Whether the weight is a matrix, as that of the classifier is.
    pub is_matrix: bool,
    /// Whether the batch norm has PyTorch's constant, 1e-5, and not the network's.
    pub own_eps: bool,
    /// Whether all weights are 1, so that no file has them.
    pub is_ones: bool,
    /// What is added to it, of networks that have branches for training.
    pub branches: Vec<Branch>,
    /// What the convolution is called, which then has a bias, in files that have batch norms and branches folded into
    /// it.
    pub folded: Option<String>,
    /// What is folded into it after its batch norm, in this order.
    pub folds: Vec<Fold>,
}

/// A number by which something is multiplied, and one that is added to it, both the same for all channels.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Fold {
    /// The convolution's input, which must have no padding: the values `.scale` and `.bias` behind this name.
    Input(String),
    /// Its output before the activation: the values `.scale` and `.bias` behind this name.
    Output(String),
    /// Its output before the activation, by numbers that are in no file: the slope and the offset.
    Line(f32, f32),
}

/// A branch beside a convolution and its batch norm.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Its convolution, and the rows and columns of that one's kernel; none if it is a batch norm alone.
    pub conv: Option<(String, u32)>,
    /// Its batch norm.
    pub norm: String,
}

impl Names {
    fn new(block: &str, conv: &str, norm: &str) -> Self {
        Self { norm: Some(format!("{block}{norm}")), ..Self::biased(&format!("{block}{conv}")) }
    }

    /// A convolution without a batch norm.
    fn biased(conv: &str) -> Self {
        let (conv, norm, branches, folded, folds) = (conv.into(), None, Vec::new(), None, Vec::new());
        Self { conv, norm, has_bias: false, is_matrix: false, own_eps: false, is_ones: false, branches, folded, folds }
    }

    /// A convolution that repeats channels or keeps them.
    fn ones() -> Self {
        Self { is_ones: true, ..Self::biased("") }
    }

    /// A linear layer, which has a bias.
    fn linear(conv: &str) -> Self {
        Self { is_matrix: true, ..Self::biased(conv) }
    }
}

impl Network {
    /// A classifier that was trained on ImageNet.
    fn classifier(
        name: &'static str,
        width: f64,
        classes: u32,
        chain: Chain,
        [timm, torchvision]: [Vec<Names>; 2],
    ) -> Self {
        let (task, pixels, eps, publishers) = (Task::Classification, build::IMAGENET, [EPS; 2], PUBLISHERS);
        let (same_padding, fitted) = (false, Vec::new());
        Self { name, task, width, classes, pixels, eps, same_padding, fitted, chain, publishers, timm, torchvision }
    }

    /// The network for images of this size. It is another one only for two kinds of networks. Those of TensorFlow,
    /// whose names begin with `tf_`, are made for 224x224: where they have strides, the padding in front depends on the
    /// size. LR-ASPP is made for multiples of 16: for others, what it enlarges gets the size of what that is added to.
    ///
    /// ```
    /// use gpuconv::nets::{Network, tf_efficientnet_lite0};
    /// let padding = |network: &Network| network.chain.links()[0].conv().map(|conv| conv.padding);
    /// let network = tf_efficientnet_lite0(1.0, 1000)?;
    /// assert_eq!(padding(&network), Some([0, 0, 1, 1]));
    /// assert_eq!(padding(&network.sized([1, 3, 225, 225])?), Some([1, 1, 1, 1]));
    /// # Ok::<(), gpuconv::Error>(())
    /// ```
    ///
    /// # Errors
    /// What [`Chain::shapes`] says of the size.
    pub fn sized(self, images: impl Into<Shape>) -> Result<Self> {
        let chain = self.chain.sized(images.into(), self.same_padding, &self.fitted)?;
        Ok(Self { chain, ..self })
    }

    /// The parameters that the published network has: weights, biases, and two for each channel of a batch norm. The
    /// chain has fewer, for batch norms and branches are folded: [`cost::chain`](crate::cost::chain) counts them.
    pub fn parameters(&self) -> u64 {
        let names = if self.timm.is_empty() { &self.torchvision } else { &self.timm };
        let of_conv = |((_, conv), names): ((usize, &Conv2d), &Names)| {
            let (outputs, each) = (u64::from(conv.out_channels), u64::from(conv.group_in_channels()));
            let of_branch = |branch: &Branch| {
                let taps = branch.conv.as_ref().map_or(0, |(_, size)| u64::from(*size).pow(2) * each);
                outputs * (taps + 2)
            };
            let of_fold = |fold: &Fold| if matches!(fold, Fold::Line(..)) { 0 } else { 2 };
            let offsets = match names.norm {
                Some(_) => 2 + u64::from(names.has_bias),
                None => u64::from(conv.bias),
            };
            let own = if names.is_ones { 0 } else { conv.weight_shape().len() + outputs * offsets };
            let others = names.branches.iter().map(of_branch).chain(names.folds.iter().map(of_fold));
            own + others.sum::<u64>()
        };
        self.chain.convolutions().zip(names).map(of_conv).sum()
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
    timm.push(Names::linear("classifier"));
    // Inception's.
    let pixels = [[0.5; 3]; 2];
    Ok(Network { pixels, ..Network::classifier("mobilenet_v1", width, classes, chain, [timm, Vec::new()]) })
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
    timm.push(Names::linear("classifier"));
    torchvision.push(Names::linear("classifier.1"));
    Ok(Network::classifier("mobilenet_v2", width, classes, chain, [timm, torchvision]))
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

/// The width, if it is one.
fn checked(width: f64) -> Result<f64> {
    if width > 0.0 && width <= WIDEST { Ok(width) } else { Err(Error::Width { width, limit: WIDEST }) }
}

/// Channels times the width, rounded to the nearest multiple of eight, but not below nine tenths of the product. The
/// authors' code, timm and torchvision round the same way.
fn rounded(channels: u32, width: f64) -> Result<u32> {
    let exact = f64::from(channels) * checked(width)?;
    let nearest = ((exact + 4.0) as u32 / 8 * 8).max(8);
    Ok(if f64::from(nearest) < 0.9 * exact { nearest + 8 } else { nearest })
}
