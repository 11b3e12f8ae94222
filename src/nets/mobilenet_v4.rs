//! MobileNetV4's convolutional networks (arXiv 2404.10518), as timm has them.

use super::build::{Both, Builder};
use super::{Names, Network, rounded};
use crate::model::conv::{Activation, Conv2d, Residual};
use crate::model::error::Result;

/// A block, with its channels.
#[derive(Clone, Copy)]
enum Block {
    /// A convolution: kernel, stride, channels.
    Conv(u32, u32, u32),
    /// A fused inverted residual, whose expansion is a convolution with windows: kernel, stride, expansion, channels.
    Fused(u32, u32, u32, u32),
    /// A universal inverted bottleneck: the kernels of its depthwise convolutions before and after the expansion (0 for
    /// none), stride, expansion, channels.
    Universal(u32, u32, u32, u32, u32),
}

use Block::{Conv, Fused, Universal};

const SMALL: [&[Block]; 5] = [
    &[Conv(3, 2, 32), Conv(1, 1, 32)],
    &[Conv(3, 2, 96), Conv(1, 1, 64)],
    &[
        Universal(5, 5, 2, 3, 96),
        Universal(0, 3, 1, 2, 96),
        Universal(0, 3, 1, 2, 96),
        Universal(0, 3, 1, 2, 96),
        Universal(0, 3, 1, 2, 96),
        Universal(3, 0, 1, 4, 96),
    ],
    &[
        Universal(3, 3, 2, 6, 128),
        Universal(5, 5, 1, 4, 128),
        Universal(0, 5, 1, 4, 128),
        Universal(0, 5, 1, 3, 128),
        Universal(0, 3, 1, 4, 128),
        Universal(0, 3, 1, 4, 128),
    ],
    &[Conv(1, 1, 960)],
];

const MEDIUM: [&[Block]; 5] = [
    &[Fused(3, 2, 4, 48)],
    &[Universal(3, 5, 2, 4, 80), Universal(3, 3, 1, 2, 80)],
    &[
        Universal(3, 5, 2, 6, 160),
        Universal(3, 3, 1, 4, 160),
        Universal(3, 3, 1, 4, 160),
        Universal(3, 5, 1, 4, 160),
        Universal(3, 3, 1, 4, 160),
        Universal(3, 0, 1, 4, 160),
        Universal(0, 0, 1, 2, 160),
        Universal(3, 0, 1, 4, 160),
    ],
    &[
        Universal(5, 5, 2, 6, 256),
        Universal(5, 5, 1, 4, 256),
        Universal(3, 5, 1, 4, 256),
        Universal(3, 5, 1, 4, 256),
        Universal(0, 0, 1, 4, 256),
        Universal(3, 0, 1, 4, 256),
        Universal(3, 5, 1, 2, 256),
        Universal(5, 5, 1, 4, 256),
        Universal(0, 0, 1, 4, 256),
        Universal(0, 0, 1, 4, 256),
        Universal(5, 0, 1, 2, 256),
    ],
    &[Conv(1, 1, 960)],
];

/// MobileNetV4-Conv-Small (arXiv 2404.10518), timm's `mobilenetv4_conv_small`.
///
/// # Errors
/// [`Error::Width`](crate::Error::Width) unless `width` is above 0 and at most 16.
pub fn mobilenetv4_conv_small(width: f64, classes: u32) -> Result<Network> {
    mobilenet_v4("mobilenetv4_conv_small", &SMALL, width, classes)
}

/// MobileNetV4-Conv-Medium (arXiv 2404.10518), timm's `mobilenetv4_conv_medium`.
///
/// # Errors
/// As [`mobilenetv4_conv_small`].
pub fn mobilenetv4_conv_medium(width: f64, classes: u32) -> Result<Network> {
    mobilenet_v4("mobilenetv4_conv_medium", &MEDIUM, width, classes)
}

fn mobilenet_v4(name: &'static str, stages: &[&[Block]], width: f64, classes: u32) -> Result<Network> {
    let mut builder = Builder::new();
    // Narrower networks of timm's keep the stem.
    let stem = rounded(32, width.max(1.0))?;
    rounded(32, width)?;
    builder.conv(relu(Conv2d::new(3, stem, 3).stride(2).padding(1)), timm("conv_stem", "bn1"));
    for (stage, blocks) in stages.iter().enumerate() {
        for (index, &block) in blocks.iter().enumerate() {
            let at = format!("blocks.{stage}.{index}.");
            match block {
                Conv(kernel, stride, channels) => {
                    let conv = window(builder.channels, rounded(channels, width)?, kernel, stride);
                    builder.conv(relu(conv), timm(&format!("{at}conv"), &format!("{at}bn1")));
                }
                Fused(kernel, stride, expansion, channels) => {
                    let (first, inputs, out) = (builder.tensor(), builder.channels, rounded(channels, width)?);
                    let hidden = rounded(inputs * expansion, 1.0)?;
                    let expand = relu(window(inputs, hidden, kernel, stride));
                    builder.conv(expand, timm(&format!("{at}conv_exp"), &format!("{at}bn1")));
                    builder.conv(Conv2d::pointwise(hidden, out), timm(&format!("{at}conv_pwl"), &format!("{at}bn2")));
                    skip(&mut builder, first, stride, inputs);
                }
                Universal(before, after, stride, expansion, channels) => {
                    let (first, inputs, out) = (builder.tensor(), builder.channels, rounded(channels, width)?);
                    let hidden = rounded(inputs * expansion, 1.0)?;
                    let names = |part: &str| timm(&format!("{at}{part}.conv"), &format!("{at}{part}.bn"));
                    if before > 0 {
                        let conv = depthwise(inputs, before, if after > 0 { 1 } else { stride });
                        builder.conv(conv, names("dw_start"));
                    }
                    builder.conv(relu(Conv2d::pointwise(inputs, hidden)), names("pw_exp"));
                    if after > 0 {
                        builder.conv(relu(depthwise(hidden, after, stride)), names("dw_mid"));
                    }
                    builder.conv(Conv2d::pointwise(hidden, out), names("pw_proj"));
                    skip(&mut builder, first, stride, inputs);
                }
            }
        }
    }
    builder.plain(crate::model::chain::Link::GlobalAveragePool);
    builder.conv(relu(Conv2d::pointwise(builder.channels, 1280)), timm("conv_head", "norm_head"));
    builder.linear(classes, Activation::None, ["classifier", ""]);
    builder.network(name, width, classes, false)
}

/// Has a block's last link add the block's input, where the shapes allow it.
fn skip(builder: &mut Builder, first: usize, stride: u32, inputs: u32) {
    if stride == 1 && inputs == builder.channels {
        builder.add(first, Residual::AfterActivation);
    }
}

fn window(inputs: u32, outputs: u32, kernel: u32, stride: u32) -> Conv2d {
    Conv2d::new(inputs, outputs, kernel).stride(stride).padding(kernel / 2)
}

fn depthwise(channels: u32, kernel: u32, stride: u32) -> Conv2d {
    Conv2d::depthwise(channels, kernel).stride(stride).padding(kernel / 2)
}

fn relu(conv: Conv2d) -> Conv2d {
    conv.activation(Activation::Relu)
}

fn timm(conv: &str, norm: &str) -> Both {
    [Names::new("", conv, norm), Names::linear("")]
}
