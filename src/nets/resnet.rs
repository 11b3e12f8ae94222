//! ResNets (arXiv 1512.03385), as torchvision and timm have them: in the blocks of three convolutions the second has
//! the stride.

use super::build::{Both, Builder};
use super::{Names, Network, rounded};
use crate::model::chain::Link;
use crate::model::conv::{Activation, Conv2d, Residual};
use crate::model::error::Result;
use crate::model::pool::Pool2d;

/// Channels of each stage.
const CHANNELS: [u32; 4] = [64, 128, 256, 512];
/// How many times as many channels a block of three convolutions has at its end.
const BOTTLENECK: u32 = 4;

/// ResNet-18 (arXiv 1512.03385), torchvision's and timm's `resnet18`.
///
/// # Errors
/// [`Error::Width`](crate::Error::Width) unless `width` is above 0 and at most 16.
pub fn resnet18(width: f64, classes: u32) -> Result<Network> {
    resnet("resnet18", [2, 2, 2, 2], false, width, classes)
}

/// ResNet-34 (arXiv 1512.03385), torchvision's and timm's `resnet34`.
///
/// # Errors
/// As [`resnet18`].
pub fn resnet34(width: f64, classes: u32) -> Result<Network> {
    resnet("resnet34", [3, 4, 6, 3], false, width, classes)
}

/// ResNet-50 (arXiv 1512.03385), torchvision's and timm's `resnet50`.
///
/// # Errors
/// As [`resnet18`].
pub fn resnet50(width: f64, classes: u32) -> Result<Network> {
    resnet("resnet50", [3, 4, 6, 3], true, width, classes)
}

fn resnet(name: &'static str, blocks: [usize; 4], has_bottlenecks: bool, width: f64, classes: u32) -> Result<Network> {
    let mut builder = Builder::new();
    let relu = |conv: Conv2d| conv.activation(Activation::Relu);
    builder.conv(relu(Conv2d::new(3, rounded(64, width)?, 7).stride(2).padding(3)), names("", "conv1", "bn1"));
    builder.plain(Link::Pool(Pool2d::max(3).stride(2).padding(1)));
    for (stage, (base, count)) in CHANNELS.into_iter().zip(blocks).enumerate() {
        let channels = rounded(base, width)?;
        for index in 0..count {
            let (first, inputs) = (builder.tensor(), builder.channels);
            let at = format!("layer{}.{index}.", stage + 1);
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            let window = |inputs: u32, stride: u32| Conv2d::new(inputs, channels, 3).stride(stride).padding(1);
            let outputs = if has_bottlenecks { channels * BOTTLENECK } else { channels };
            let last = if has_bottlenecks {
                builder.conv(relu(Conv2d::pointwise(inputs, channels)), names(&at, "conv1", "bn1"));
                builder.conv(relu(window(channels, stride)), names(&at, "conv2", "bn2"));
                (Conv2d::pointwise(channels, outputs), names(&at, "conv3", "bn3"))
            } else {
                builder.conv(relu(window(inputs, stride)), names(&at, "conv1", "bn1"));
                (window(channels, 1), names(&at, "conv2", "bn2"))
            };
            if stride == 1 && inputs == outputs {
                builder.conv(relu(last.0), last.1);
                builder.add(first, Residual::BeforeActivation);
            } else {
                // The skip's convolution comes last, and adds what the others made.
                builder.conv(last.0, last.1);
                let others = builder.tensor();
                let project = relu(Conv2d::pointwise(inputs, outputs).stride(stride));
                builder.conv_of(first, project, names(&at, "downsample.0", "downsample.1"));
                builder.add(others, Residual::BeforeActivation);
            }
        }
    }
    builder.classifier(classes, ["fc", "fc"]);
    builder.network(name, width, classes, true)
}

/// What both publishers call a convolution and its norm.
fn names(at: &str, conv: &str, norm: &str) -> Both {
    [Names::new(at, conv, norm), Names::new(at, conv, norm)]
}
