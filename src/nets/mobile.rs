//! Networks of inverted residuals, with and without gates: MobileNetV3, EfficientNet and MNASNet.

use super::build::{Both, Builder, behind, both};
use super::{Names, Network, rounded};
use crate::model::conv::{Activation, Conv2d, Residual};
use crate::model::error::Result;
use crate::model::gate::SqueezeExcite;

/// An inverted residual: expand, depthwise, gate, project.
struct Block {
    kernel: u32,
    /// Of a dilated block without effect, but that it adds nothing.
    stride: u32,
    dilation: u32,
    expanded: u32,
    out_channels: u32,
    /// Channels between the gate's products; 0 without a gate.
    squeezed: u32,
    activation: Activation,
    /// The activations of the gate.
    gate: [Activation; 2],
}

/// What the publishers call the tensors of a block, without their numbers.
struct Scheme {
    timm: String,
    torchvision: String,
    /// torchvision's names of the convolutions and norms, of a block that expands: `0.0`, `0.1`.
    torchvision_layers: fn(usize) -> [String; 2],
}

/// As MobileNetV3 and EfficientNet count them in torchvision: each link a module, the gate too.
fn by_modules(index: usize) -> [String; 2] {
    [format!("{index}.0"), format!("{index}.1")]
}

/// As MNASNet counts them: convolution, norm and activation, three to a link.
fn by_layers(index: usize) -> [String; 2] {
    [(3 * index).to_string(), (3 * index + 1).to_string()]
}

impl Builder {
    /// Adds a block.
    fn block(&mut self, block: &Block, scheme: &Scheme) {
        let (first, in_channels) = (self.tensor(), self.channels);
        let expands = block.expanded != in_channels;
        let mut module = 0;
        let mut names = |timm: [&str; 2]| -> Both {
            let [conv, norm] = (scheme.torchvision_layers)(module);
            module += 1;
            behind([&scheme.timm, &scheme.torchvision], timm, [&conv, &norm])
        };
        if expands {
            let conv = Conv2d::pointwise(in_channels, block.expanded).activation(block.activation);
            self.conv(conv, names(["conv_pw", "bn1"]));
        }
        let stride = if block.dilation > 1 { 1 } else { block.stride };
        let depthwise = Conv2d::depthwise(block.expanded, block.kernel).stride(stride).dilation(block.dilation);
        let depthwise = depthwise.padding(block.kernel / 2 * block.dilation);
        let norms = if expands { ["bn2", "bn3"] } else { ["bn1", "bn2"] };
        self.conv(depthwise.activation(block.activation), names(["conv_dw", norms[0]]));
        let project = Conv2d::pointwise(block.expanded, block.out_channels);
        let last = [if expands { "conv_pwl" } else { "conv_pw" }, norms[1]];
        if block.squeezed > 0 {
            let torchvision = format!("{}{}.", scheme.torchvision, 1 + usize::from(expands));
            let of_gate = [("conv_reduce", "fc1"), ("conv_expand", "fc2")].map(|(timm, other)| {
                [Names::biased(&format!("{}se.{timm}", scheme.timm)), Names::biased(&format!("{torchvision}{other}"))]
            });
            names(["", ""]);
            let gate = SqueezeExcite::new(block.expanded, block.squeezed).activations(block.gate[0], block.gate[1]);
            self.gated(gate, of_gate, project, names(last));
        } else {
            self.conv(project, names(last));
        }
        if block.stride == 1 && in_channels == block.out_channels {
            self.add(first, Residual::AfterActivation);
        }
    }
}

/// Kernel, expanded channels, channels, whether there is a gate, whether the activation is a hard swish, stride; and
/// timm's stage. (arXiv 1905.02244, tables 1 and 2.)
pub(super) type V3 = (u32, u32, u32, bool, bool, u32, usize);

pub(super) const V3_LARGE: [V3; 15] = [
    (3, 16, 16, false, false, 1, 0),
    (3, 64, 24, false, false, 2, 1),
    (3, 72, 24, false, false, 1, 1),
    (5, 72, 40, true, false, 2, 2),
    (5, 120, 40, true, false, 1, 2),
    (5, 120, 40, true, false, 1, 2),
    (3, 240, 80, false, true, 2, 3),
    (3, 200, 80, false, true, 1, 3),
    (3, 184, 80, false, true, 1, 3),
    (3, 184, 80, false, true, 1, 3),
    (3, 480, 112, true, true, 1, 4),
    (3, 672, 112, true, true, 1, 4),
    (5, 672, 160, true, true, 2, 5),
    (5, 960, 160, true, true, 1, 5),
    (5, 960, 160, true, true, 1, 5),
];

pub(super) const V3_SMALL: [V3; 11] = [
    (3, 16, 16, true, false, 2, 0),
    (3, 72, 24, false, false, 2, 1),
    (3, 88, 24, false, false, 1, 1),
    (5, 96, 40, true, true, 2, 2),
    (5, 240, 40, true, true, 1, 2),
    (5, 240, 40, true, true, 1, 2),
    (5, 120, 48, true, true, 1, 3),
    (5, 144, 48, true, true, 1, 3),
    (5, 288, 96, true, true, 2, 4),
    (5, 576, 96, true, true, 1, 4),
    (5, 576, 96, true, true, 1, 4),
];

/// MobileNetV3-Large (arXiv 1905.02244), as torchvision's `mobilenet_v3_large` and timm's `mobilenetv3_large_100`.
///
/// # Errors
/// [`Error::Width`](crate::Error::Width) unless `width` is above 0 and at most 16.
pub fn mobilenet_v3_large(width: f64, classes: u32) -> Result<Network> {
    mobilenet_v3("mobilenet_v3_large", &V3_LARGE, 1280, width, classes)
}

/// MobileNetV3-Small (arXiv 1905.02244), as torchvision's `mobilenet_v3_small` and timm's `mobilenetv3_small_100`.
///
/// # Errors
/// As [`mobilenet_v3_large`].
pub fn mobilenet_v3_small(width: f64, classes: u32) -> Result<Network> {
    mobilenet_v3("mobilenet_v3_small", &V3_SMALL, 1024, width, classes)
}

fn mobilenet_v3(name: &'static str, blocks: &[V3], features: u32, width: f64, classes: u32) -> Result<Network> {
    let mut builder = Builder::new();
    v3_features(&mut builder, blocks, width, "features.", blocks.len())?;
    let last = builder.channels;
    builder.plain(crate::model::chain::Link::GlobalAveragePool);
    let head = Conv2d::pointwise(last, rounded(features, width)?).activation(Activation::HardSwish);
    builder.conv(head, [Names::biased("conv_head"), Names::linear("classifier.0")]);
    builder.linear(classes, Activation::None, ["classifier", "classifier.3"]);
    let network = builder.network(name, width, classes, true)?;
    // torchvision's batch norms keep TensorFlow's number.
    Ok(Network { eps: [super::EPS, 1e-3], ..network })
}

/// Adds MobileNetV3 up to its last convolution, and gives the tensor of each block and its channels. torchvision's
/// names begin with `torchvision`. From block `dilated` on the depthwise links are dilated instead of having strides.
pub(super) fn v3_features(
    builder: &mut Builder,
    blocks: &[V3],
    width: f64,
    torchvision: &str,
    dilated: usize,
) -> Result<Vec<(usize, u32)>> {
    let stem = Conv2d::new(3, rounded(16, width)?, 3).stride(2).padding(1).activation(Activation::HardSwish);
    builder.conv(stem, behind(["", torchvision], ["conv_stem", "bn1"], ["0.0", "0.1"]));
    let (mut stage, mut place, mut ends) = (0, 0, Vec::new());
    for (index, &(kernel, expanded, channels, has_gate, swishes, stride, in_stage)) in blocks.iter().enumerate() {
        (stage, place) = if in_stage == stage && index > 0 { (stage, place + 1) } else { (in_stage, 0) };
        let expanded = rounded(expanded, width)?;
        let block = Block {
            kernel,
            stride,
            dilation: if index < dilated { 1 } else { 2 },
            expanded,
            out_channels: rounded(channels, width)?,
            squeezed: if has_gate { rounded(expanded / 4, 1.0)? } else { 0 },
            activation: if swishes { Activation::HardSwish } else { Activation::Relu },
            gate: [Activation::Relu, Activation::HardSigmoid],
        };
        let scheme = Scheme {
            timm: format!("blocks.{stage}.{place}."),
            torchvision: format!("{torchvision}{}.block.", index + 1),
            torchvision_layers: by_modules,
        };
        builder.block(&block, &scheme);
        ends.push((builder.tensor(), builder.channels));
    }
    let (last, next) = (builder.channels.saturating_mul(6), blocks.len() + 1);
    let conv = Conv2d::pointwise(builder.channels, last).activation(Activation::HardSwish);
    let timm = format!("blocks.{}.0.", stage + 1);
    builder.conv(conv, behind([&timm, &format!("{torchvision}{next}.")], ["conv", "bn1"], ["0", "1"]));
    Ok(ends)
}

/// Expansion, kernel, channels, blocks and the first block's stride of each stage (arXiv 1905.11946, table 1).
const EFFICIENTNET: [(u32, u32, u32, usize, u32); 7] = [
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
];

/// EfficientNet-B0 (arXiv 1905.11946), as torchvision's and timm's `efficientnet_b0`.
///
/// # Errors
/// As [`mobilenet_v3_large`].
pub fn efficientnet_b0(width: f64, classes: u32) -> Result<Network> {
    efficientnet("efficientnet_b0", Activation::Silu, true, width, classes)
}

/// EfficientNet-Lite0, timm's `efficientnet_lite0`: B0 without gates, with ReLU6.
///
/// # Errors
/// As [`mobilenet_v3_large`].
pub fn efficientnet_lite0(width: f64, classes: u32) -> Result<Network> {
    efficientnet("efficientnet_lite0", Activation::Relu6, false, width, classes)
}

fn efficientnet(
    name: &'static str,
    activation: Activation,
    has_gates: bool,
    width: f64,
    classes: u32,
) -> Result<Network> {
    let mut builder = Builder::new();
    let stem = Conv2d::new(3, rounded(32, width)?, 3).stride(2).padding(1).activation(activation);
    builder.conv(stem, both(["conv_stem", "bn1"], ["features.0.0", "features.0.1"]));
    for (stage, &(expansion, kernel, channels, blocks, first_stride)) in EFFICIENTNET.iter().enumerate() {
        for index in 0..blocks {
            let block = Block {
                kernel,
                stride: if index == 0 { first_stride } else { 1 },
                dilation: 1,
                expanded: builder.channels * expansion,
                out_channels: rounded(channels, width)?,
                squeezed: if has_gates { (builder.channels / 4).max(1) } else { 0 },
                activation,
                gate: [activation, Activation::Sigmoid],
            };
            let scheme = Scheme {
                timm: format!("blocks.{stage}.{index}."),
                torchvision: format!("features.{}.{index}.block.", stage + 1),
                torchvision_layers: by_modules,
            };
            builder.block(&block, &scheme);
        }
    }
    let head = Conv2d::pointwise(builder.channels, rounded(1280, width)?).activation(activation);
    builder.conv(head, both(["conv_head", "bn2"], ["features.8.0", "features.8.1"]));
    builder.classifier(classes, ["classifier", "classifier.1"]);
    builder.network(name, width, classes, has_gates)
}

/// Expansion, kernel, channels, blocks and the first block's stride of each stage after the first (arXiv 1807.11626).
const MNASNET: [(u32, u32, u32, usize, u32); 6] =
    [(3, 3, 24, 3, 2), (3, 5, 40, 3, 2), (6, 5, 80, 3, 2), (6, 3, 96, 2, 1), (6, 5, 192, 4, 2), (6, 3, 320, 1, 1)];

/// MNASNet-B1 (arXiv 1807.11626), as torchvision's `mnasnet1_0` and timm's `mnasnet_100`.
///
/// # Errors
/// As [`mobilenet_v3_large`].
pub fn mnasnet1_0(width: f64, classes: u32) -> Result<Network> {
    let (mut builder, stem) = (Builder::new(), rounded(32, width)?);
    let activation = Activation::Relu;
    let conv = Conv2d::new(3, stem, 3).stride(2).padding(1).activation(activation);
    builder.conv(conv, both(["conv_stem", "bn1"], ["layers.0", "layers.1"]));
    let depthwise = Conv2d::depthwise(stem, 3).padding(1).activation(activation);
    builder.conv(depthwise, both(["blocks.0.0.conv_dw", "blocks.0.0.bn1"], ["layers.3", "layers.4"]));
    let project = Conv2d::pointwise(stem, rounded(16, width)?);
    builder.conv(project, both(["blocks.0.0.conv_pw", "blocks.0.0.bn2"], ["layers.6", "layers.7"]));
    for (stage, &(expansion, kernel, channels, blocks, first_stride)) in MNASNET.iter().enumerate() {
        for index in 0..blocks {
            let block = Block {
                kernel,
                stride: if index == 0 { first_stride } else { 1 },
                dilation: 1,
                expanded: builder.channels * expansion,
                out_channels: rounded(channels, width)?,
                squeezed: 0,
                activation,
                gate: [Activation::None; 2],
            };
            let scheme = Scheme {
                timm: format!("blocks.{}.{index}.", stage + 1),
                torchvision: format!("layers.{}.{index}.layers.", stage + 8),
                torchvision_layers: by_layers,
            };
            builder.block(&block, &scheme);
        }
    }
    let head = Conv2d::pointwise(builder.channels, 1280).activation(activation);
    builder.conv(head, both(["conv_head", "bn2"], ["layers.14", "layers.15"]));
    builder.classifier(classes, ["classifier", "classifier.1"]);
    builder.network("mnasnet1_0", width, classes, true)
}
