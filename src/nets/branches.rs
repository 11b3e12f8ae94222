//! Networks that have branches for training, which are one convolution each afterwards: RepVGG and MobileOne.

use super::build::Builder;
use super::{Branch, Names, Network, rounded};
use crate::model::conv::{Activation, Conv2d};
use crate::model::error::Result;

/// Channels, blocks of each stage; the first block of each has stride 2. (arXiv 2101.03697, table 2.)
const REPVGG_A0: [(u32, usize); 4] = [(48, 2), (96, 4), (192, 14), (1280, 1)];
/// timm's words, and the authors' (github.com/DingXiaoH/RepVGG).
const REPVGG_WORDS: [Words; 2] = [
    Words { whole: "conv_kxk", of_1x1: "conv_1x1", identity: "identity", folded: "reparam_conv" },
    Words { whole: "rbr_dense", of_1x1: "rbr_1x1", identity: "rbr_identity", folded: "rbr_reparam" },
];

/// RepVGG-A0 (arXiv 2101.03697), timm's `repvgg_a0`: its branches of 3x3, 1x1 and none are added up. The names of
/// weights are timm's or the authors', of the branches or of what they were folded into.
///
/// # Errors
/// [`Error::Width`](crate::Error::Width) unless `width` is above 0 and at most 16.
pub fn repvgg_a0(width: f64, classes: u32) -> Result<Network> {
    let mut builder = Builder::new();
    let block = |builder: &mut Builder, channels: u32, stride: u32, at: [String; 2]| {
        let conv = Conv2d::new(builder.channels, channels, 3).stride(stride).padding(1);
        add(builder, conv, None, &REPVGG_WORDS, at);
    };
    block(&mut builder, rounded(48, width)?, 2, stem());
    for (stage, &(channels, blocks)) in REPVGG_A0.iter().enumerate() {
        for index in 0..blocks {
            let stride = if index == 0 { 2 } else { 1 };
            block(&mut builder, rounded(channels, width)?, stride, in_stage(stage, index));
        }
    }
    builder.classifier(classes, ["head.fc", "linear"]);
    let network = builder.network("repvgg_a0", width, classes, true)?;
    Ok(Network { publishers: ["timm", "DingXiaoH/RepVGG"], ..network })
}

/// Channels, blocks of each stage; the first block of each has stride 2. (arXiv 2206.04040, table 2.)
const MOBILEONE_S0: [(u32, usize); 4] = [(48, 2), (128, 8), (256, 10), (1024, 1)];
/// Branches with the whole kernel.
const MOBILEONE_BRANCHES: usize = 4;
/// timm's words, and the authors' (github.com/apple/ml-mobileone).
const MOBILEONE_WORDS: [Words; 2] = [
    Words { whole: "conv_kxk", of_1x1: "conv_scale", identity: "identity", folded: "reparam_conv" },
    Words { whole: "rbr_conv", of_1x1: "rbr_scale", identity: "rbr_skip", folded: "reparam_conv" },
];

/// MobileOne-S0 (arXiv 2206.04040), timm's `mobileone_s0`: its four branches, the one of 1x1 and the one of none are
/// added up. The names of weights are timm's or the authors', of the branches or of what they were folded into.
///
/// # Errors
/// As [`repvgg_a0`].
pub fn mobileone_s0(width: f64, classes: u32) -> Result<Network> {
    let mut builder = Builder::new();
    let conv = Conv2d::new(3, rounded(48, width)?, 3).stride(2).padding(1);
    add(&mut builder, conv, Some(1), &MOBILEONE_WORDS, stem());
    for (stage, &(channels, blocks)) in MOBILEONE_S0.iter().enumerate() {
        for index in 0..blocks {
            let (stride, at) = (if index == 0 { 2 } else { 1 }, |half: usize| in_stage(stage, 2 * index + half));
            let depthwise = Conv2d::depthwise(builder.channels, 3).stride(stride).padding(1);
            add(&mut builder, depthwise, Some(MOBILEONE_BRANCHES), &MOBILEONE_WORDS, at(0));
            let pointwise = Conv2d::pointwise(builder.channels, rounded(channels, width)?);
            add(&mut builder, pointwise, Some(MOBILEONE_BRANCHES), &MOBILEONE_WORDS, at(1));
        }
    }
    builder.classifier(classes, ["head.fc", "linear"]);
    let network = builder.network("mobileone_s0", width, classes, true)?;
    Ok(Network { publishers: ["timm", "apple/ml-mobileone"], ..network })
}

/// The first block, by timm and by the authors.
fn stem() -> [String; 2] {
    ["stem.", "stage0."].map(String::from)
}

fn in_stage(stage: usize, index: usize) -> [String; 2] {
    [format!("stages.{stage}.{index}."), format!("stage{}.{index}.", stage + 1)]
}

/// What a publisher calls the branches of a block: of the whole kernel, of a single tap, and of none; and what becomes
/// of them.
struct Words {
    whole: &'static str,
    of_1x1: &'static str,
    identity: &'static str,
    folded: &'static str,
}

/// Adds a block. Where several branches may have the whole kernel, `count` do, and have numbers.
fn add(builder: &mut Builder, conv: Conv2d, count: Option<usize>, words: &[Words; 2], at: [String; 2]) {
    let [timm, authors] = words;
    let names = [timm.names(&conv, count, &at[0]), authors.names(&conv, count, &at[1])];
    builder.conv(conv.activation(Activation::Relu), names);
}

impl Words {
    fn names(&self, conv: &Conv2d, count: Option<usize>, at: &str) -> Names {
        let kernel = conv.kernel_size[0];
        let whole = |index: usize| match count {
            Some(_) => format!("{at}{}.{index}", self.whole),
            None => format!("{at}{}", self.whole),
        };
        let mut branches: Vec<_> = (1..count.unwrap_or(1)).map(|index| branch(&whole(index), kernel)).collect();
        if kernel > 1 {
            branches.push(branch(&format!("{at}{}", self.of_1x1), 1));
        }
        // A norm alone, where the shapes allow it.
        if conv.in_channels == conv.out_channels && conv.stride == [1, 1] {
            branches.push(Branch { conv: None, norm: format!("{at}{}", self.identity) });
        }
        let first = whole(0);
        let names = Names::new("", &format!("{first}.conv"), &format!("{first}.bn"));
        Names { branches, folded: Some(format!("{at}{}", self.folded)), ..names }
    }
}

/// A branch of a convolution and a norm.
fn branch(at: &str, kernel_size: u32) -> Branch {
    Branch { conv: Some((format!("{at}.conv"), kernel_size)), norm: format!("{at}.bn") }
}
