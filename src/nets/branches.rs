//! Networks that have branches for training, which are one convolution each afterwards: RepVGG and MobileOne.

use super::build::{Both, Builder};
use super::{Branch, Names, Network, rounded};
use crate::model::conv::{Activation, Conv2d};
use crate::model::error::Result;

/// Channels, blocks of each stage; the first block of each has stride 2. (arXiv 2101.03697, table 2.)
const REPVGG_A0: [(u32, usize); 4] = [(48, 2), (96, 4), (192, 14), (1280, 1)];

/// RepVGG-A0 (arXiv 2101.03697), timm's `repvgg_a0`: its branches of 3x3, 1x1 and none are added up.
///
/// # Errors
/// [`Error::Width`](crate::Error::Width) unless `width` is above 0 and at most 16.
pub fn repvgg_a0(width: f64, classes: u32) -> Result<Network> {
    let mut builder = Builder::new();
    let block = |builder: &mut Builder, channels: u32, stride: u32, at: String| {
        let conv = Conv2d::new(builder.channels, channels, 3).stride(stride).padding(1).activation(Activation::Relu);
        let mut branches = vec![branch(&format!("{at}conv_1x1"), 1)];
        branches.extend(identity(&conv, &at));
        builder.conv(conv, with_branches(&format!("{at}conv_kxk"), branches));
    };
    block(&mut builder, rounded(48, width)?, 2, "stem.".into());
    for (stage, &(channels, blocks)) in REPVGG_A0.iter().enumerate() {
        for index in 0..blocks {
            let stride = if index == 0 { 2 } else { 1 };
            block(&mut builder, rounded(channels, width)?, stride, format!("stages.{stage}.{index}."));
        }
    }
    builder.classifier(classes, ["head.fc", ""]);
    builder.network("repvgg_a0", width, classes, false)
}

/// Channels, blocks of each stage; the first block of each has stride 2. (arXiv 2206.04040, table 2.)
const MOBILEONE_S0: [(u32, usize); 4] = [(48, 2), (128, 8), (256, 10), (1024, 1)];
/// Branches with the whole kernel.
const MOBILEONE_BRANCHES: usize = 4;

/// MobileOne-S0 (arXiv 2206.04040), timm's `mobileone_s0`: its four branches, the one of 1x1 and the one of none are added up.
///
/// # Errors
/// As [`repvgg_a0`].
pub fn mobileone_s0(width: f64, classes: u32) -> Result<Network> {
    let mut builder = Builder::new();
    let stem = Conv2d::new(3, rounded(48, width)?, 3).stride(2).padding(1);
    mobileone(&mut builder, stem, 1, "stem.");
    for (stage, &(channels, blocks)) in MOBILEONE_S0.iter().enumerate() {
        for index in 0..blocks {
            let at = |half: usize| format!("stages.{stage}.{}.", 2 * index + half);
            let stride = if index == 0 { 2 } else { 1 };
            let depthwise = Conv2d::depthwise(builder.channels, 3).stride(stride).padding(1);
            mobileone(&mut builder, depthwise, MOBILEONE_BRANCHES, &at(0));
            let pointwise = Conv2d::pointwise(builder.channels, rounded(channels, width)?);
            mobileone(&mut builder, pointwise, MOBILEONE_BRANCHES, &at(1));
        }
    }
    builder.classifier(classes, ["head.fc", ""]);
    builder.network("mobileone_s0", width, classes, false)
}

fn mobileone(builder: &mut Builder, conv: Conv2d, count: usize, at: &str) {
    let kernel = conv.kernel_size[0];
    let mut branches: Vec<_> = (1..count).map(|index| branch(&format!("{at}conv_kxk.{index}"), kernel)).collect();
    if kernel > 1 {
        branches.push(branch(&format!("{at}conv_scale"), 1));
    }
    branches.extend(identity(&conv, at));
    builder.conv(conv.activation(Activation::Relu), with_branches(&format!("{at}conv_kxk.0"), branches));
}

/// A branch of a convolution and a norm.
fn branch(at: &str, kernel_size: u32) -> Branch {
    Branch { conv: Some((format!("{at}.conv"), kernel_size)), norm: format!("{at}.bn") }
}

/// The branch of a norm alone, where the shapes allow it.
fn identity(conv: &Conv2d, at: &str) -> Option<Branch> {
    let is_same = conv.in_channels == conv.out_channels && conv.stride == [1, 1];
    is_same.then(|| Branch { conv: None, norm: format!("{at}identity") })
}

fn with_branches(at: &str, branches: Vec<Branch>) -> Both {
    let names = Names::new("", &format!("{at}.conv"), &format!("{at}.bn"));
    [Names { branches, ..names }, Names::linear("")]
}
