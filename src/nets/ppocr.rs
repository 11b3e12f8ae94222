//! What finds text in PP-OCR: the detector of its version 4, and what tells whether a line of text is upside down. The
//! names are those of PaddleOCR's modules, after training's branches have become one convolution.

use super::build::{Both, Builder, alone};
use super::mobile::V3_SMALL;
use super::{Fold, Names, Network, Task, checked, rounded};
use crate::model::chain::Link;
use crate::model::conv::{Activation, Conv2d, Residual};
use crate::model::error::Result;
use crate::model::gate::SqueezeExcite;
use crate::model::pool::Pool2d;
use crate::model::resize::Resize;
use crate::model::transposed::ConvTranspose2d;

/// Whose names the weights have.
const PUBLISHERS: [&str; 2] = ["PaddleOCR", ""];

/// A block of the detector's body: kernel, channels, stride, whether there is a gate.
type Block = (u32, u32, u32, bool);

/// The blocks of PP-LCNetV3 behind its stem, which is `blocks1`. Published detectors have three quarters of the paper's
/// channels.
const STAGES: [&[Block]; 5] = [
    &[(3, 32, 1, false)],
    &[(3, 48, 2, false), (3, 48, 1, false)],
    &[(3, 96, 2, false), (3, 96, 1, false)],
    &[(3, 192, 2, false), (5, 192, 1, false), (5, 192, 1, false), (5, 192, 1, false), (5, 192, 1, false)],
    &[(5, 384, 2, true), (5, 384, 1, true), (5, 384, 1, false), (5, 384, 1, false)],
];
const STEM: u32 = 16;
/// Channels of what the neck reads of each stage but the first: a quarter, an eighth, a sixteenth and a thirty-second
/// of the image.
const SIDES: [u32; 4] = [12, 18, 42, 360];
/// Channels of the neck.
const NECK: u32 = 96;

/// Paddle's hard sigmoid in gates: `min(max(0.2 x + 0.5, 0), 1)`. The slope and the offset are folded into the
/// convolution.
const GATE: (Fold, Activation) = (Fold::Line(0.2, 0.5), Activation::Clamp(0.0, 1.0));
/// One more than that, where what is gated is added to the product.
const GATE_AND_ONE: (Fold, Activation) = (Fold::Line(0.2, 1.5), Activation::Clamp(1.0, 2.0));

/// PP-OCRv4's text detector for phones (arXiv 2009.09941, and the models of 2023), as PaddleOCR has it after its
/// branches are folded: PP-LCNetV3, a neck that adds features of four sizes, and the head of differentiable
/// binarization (arXiv 1911.08947). It gives the probability that a pixel lies in the middle of a line of text.
/// `classes` is the number of such maps, 1 as published.
///
/// Rows and columns must be multiples of 32. It reads blue, green, red.
///
/// Between an activation and a depthwise convolution the published network multiplies and adds a number. Where the
/// image ends, what is added cannot be folded into that convolution, for it pads with zeros. So these are links of
/// their own.
///
/// ```
/// let network = gpuconv::nets::ppocr_v4_det(1.0, 1)?;
/// let shapes = network.chain.shapes([1, 3, 320, 480])?;
/// assert_eq!(shapes.last(), Some(&[1, 1, 320, 480].into()));
/// # Ok::<(), gpuconv::Error>(())
/// ```
///
/// # Errors
/// [`Error::Width`](crate::Error::Width) unless `width` is above 0 and at most 16.
pub fn ppocr_v4_det(width: f64, classes: u32) -> Result<Network> {
    let width = checked(width)?;
    let scaled = |channels: u32| ((f64::from(channels) * width).round() as u32).max(1);
    let (mut body, mut sides) = (Body { builder: Builder::new(), tensor: 0, channels: 3, after: None }, Vec::new());
    body.conv(Conv2d::new(3, scaled(STEM), 3).stride(2).padding(1), normed("backbone.conv1"));
    for (stage, blocks) in STAGES.into_iter().enumerate() {
        for (index, &(kernel, channels, stride, has_gate)) in blocks.iter().enumerate() {
            let at = format!("backbone.blocks{}.{index}.", stage + 2);
            body.block(&at, (kernel, scaled(channels), stride, has_gate));
        }
        if let Some(side) = stage.checked_sub(1) {
            // The last stage has no other reader.
            if stage + 1 < STAGES.len() {
                body.settle();
            }
            let folds = body.after.take().map(Fold::Input).into_iter().collect();
            let names = Names { folds, ..Names::biased(&format!("backbone.layer_list.{side}")) };
            let conv = Conv2d::pointwise(body.channels, scaled(SIDES[side]));
            body.builder.conv_of(body.tensor, conv, twice(names));
            sides.push((body.builder.tensor(), body.builder.channels));
        }
    }
    let mut builder = body.builder;
    let (neck, quarter) = (scaled(NECK), scaled(NECK / 4));
    let (mut parts, mut above) = (Vec::new(), None);
    for (side, (tensor, channels)) in sides.into_iter().enumerate().rev() {
        // Features of the size above, twice as large.
        let enlarged = above.map(|tensor| {
            builder.plain_of(tensor, Resize::by(2.0).into());
            builder.tensor()
        });
        let conv = Conv2d::pointwise(channels, neck).bias(false);
        excited(&mut builder, tensor, conv, (neck, scaled(NECK / 4)), &format!("neck.ins_conv.{side}."));
        if let Some(tensor) = enlarged {
            builder.add(tensor, Residual::AfterActivation);
        }
        let sum = builder.tensor();
        above = Some(sum);
        let conv = Conv2d::new(neck, quarter, 3).padding(1).bias(false);
        excited(&mut builder, sum, conv, (quarter, scaled(NECK / 16)), &format!("neck.inp_conv.{side}."));
        if side > 0 {
            builder.plain(Resize::by(f64::from(1u32 << side)).into());
        }
        parts.push((builder.tensor(), quarter));
    }
    builder.concat(&parts);
    let head = |conv: &str, norm: &str| Names::new("head.binarize.", conv, norm);
    let conv = Conv2d::new(builder.channels, quarter, 3).padding(1).activation(Activation::Relu);
    builder.conv(conv, twice(head("conv1", "conv_bn1")));
    let twofold = |outputs: u32| ConvTranspose2d::new(quarter, outputs, 2).stride(2);
    let names = Names { has_bias: true, ..head("conv2", "conv_bn2") };
    builder.transposed(twofold(quarter).activation(Activation::Relu), twice(names));
    builder.transposed(twofold(classes).activation(Activation::Sigmoid), alone("head.binarize.conv3"));
    let network = builder.network("ppocr_v4_det", width, classes, false)?;
    Ok(Network { task: Task::TextDetection, publishers: PUBLISHERS, ..network })
}

/// A body that is put together.
struct Body {
    builder: Builder,
    /// The tensor that the next convolution reads, and its channels.
    tensor: usize,
    channels: u32,
    /// The name of the number by which that tensor is still to be multiplied, and of the one to be added.
    after: Option<String>,
}

impl Body {
    /// A depthwise and a pointwise convolution.
    fn block(&mut self, at: &str, (kernel, channels, stride, has_gate): Block) {
        self.settle();
        let inputs = self.channels;
        let depthwise = Conv2d::depthwise(inputs, kernel).stride(stride).padding(kernel / 2);
        let (conv, names) = self.learnt(&format!("{at}dw_conv."), depthwise);
        self.conv(conv, names);
        if has_gate {
            // The gate is multiplied by what is added too.
            self.settle();
        }
        let (conv, names) = self.learnt(&format!("{at}pw_conv."), Conv2d::pointwise(inputs, channels));
        if !has_gate {
            self.conv(conv, names);
            return;
        }
        let gate = SqueezeExcite::new(inputs, (inputs / 4).max(1));
        let gate = gate.activations(Activation::Relu, Activation::HardSigmoid);
        let of_gate = ["conv1", "conv2"].map(|conv| alone(&format!("{at}se.{conv}")));
        self.builder.gated(gate, of_gate, conv, names);
        (self.tensor, self.channels) = (self.builder.tensor(), channels);
    }

    fn conv(&mut self, conv: Conv2d, names: Both) {
        self.builder.conv_of(self.tensor, conv, names);
        (self.tensor, self.channels) = (self.builder.tensor(), self.builder.channels);
    }

    /// A convolution with the numbers that are multiplied and added before and after its activation. Those before it
    /// are folded into it, as are those of the tensor that it reads.
    fn learnt(&mut self, at: &str, conv: Conv2d) -> (Conv2d, Both) {
        let before = self.after.take().map(Fold::Input);
        let folds = before.into_iter().chain([Fold::Output(format!("{at}lab"))]).collect();
        let names = twice(Names { folds, ..Names::biased(&format!("{at}reparam_conv")) });
        // With a stride there is no activation.
        if conv.stride != [1, 1] {
            return (conv, names);
        }
        self.after = Some(format!("{at}act.lab"));
        (conv.activation(Activation::HardSwish), names)
    }

    /// Multiplies and adds what is still to be, for a reader into which it cannot be folded.
    fn settle(&mut self) {
        if let Some(lab) = self.after.take() {
            let names = twice(Names { folds: vec![Fold::Output(lab)], ..Names::ones() });
            self.conv(Conv2d::depthwise(self.channels, 1), names);
        }
    }
}

/// A convolution of a tensor, and its output times one more than its gate.
fn excited(builder: &mut Builder, tensor: usize, conv: Conv2d, (channels, squeezed): (u32, u32), at: &str) {
    builder.conv_of(tensor, conv, alone(&format!("{at}in_conv")));
    let (gate, of_gate) = gate(channels, squeezed, GATE_AND_ONE, &format!("{at}se_block."));
    let product = Conv2d::depthwise(channels, 1).bias(false);
    builder.gated(gate, of_gate, product, twice(Names::ones()));
}

/// A gate whose hard sigmoid is a clamp.
fn gate(channels: u32, squeezed: u32, (fold, clamp): (Fold, Activation), at: &str) -> (SqueezeExcite, [Both; 2]) {
    let gate = SqueezeExcite::new(channels, squeezed).activations(Activation::Relu, clamp);
    let names = |conv: &str, folds: Vec<Fold>| twice(Names { folds, ..Names::biased(&format!("{at}{conv}")) });
    (gate, [names("conv1", Vec::new()), names("conv2", vec![fold])])
}

/// The narrowest MobileNetV3-Small that PaddleOCR publishes.
const CLS_WIDTH: f64 = 0.35;
/// Channels of its last convolution, before the width.
const CLS_LAST: u32 = 576;

/// What tells whether a line of text is upside down, PaddleOCR's `ch_ppocr_mobile_v2.0_cls` (arXiv 2009.09941): the
/// logits of 0 and of 180 degrees, of images of 48x192. It is a MobileNetV3-Small of 0.35 times the channels, whose
/// strides, after the first, are only down.
///
/// ```
/// let network = gpuconv::nets::ppocr_cls(1.0, 2)?;
/// let shapes = network.chain.shapes([1, 3, 48, 192])?;
/// assert_eq!(shapes.last(), Some(&[1, 2, 1, 1].into()));
/// # Ok::<(), gpuconv::Error>(())
/// ```
///
/// # Errors
/// As [`ppocr_v4_det`].
pub fn ppocr_cls(width: f64, classes: u32) -> Result<Network> {
    let width = checked(width)?;
    let scaled = |channels: u32| rounded(channels, CLS_WIDTH * width);
    let mut builder = Builder::new();
    let stem = Conv2d::new(3, scaled(STEM)?, 3).stride(2).padding(1).activation(Activation::HardSwish);
    builder.conv(stem, normed("backbone.conv1"));
    for (index, &(kernel, expanded, outputs, has_gate, swishes, stride, _)) in V3_SMALL.iter().enumerate() {
        let (first, inputs) = (builder.tensor(), builder.channels);
        let (expanded, outputs) = (scaled(expanded)?, scaled(outputs)?);
        let activation = if swishes { Activation::HardSwish } else { Activation::Relu };
        let at = format!("backbone.blocks.{index}.");
        let names = |conv: &str| normed(&format!("{at}{conv}"));
        builder.conv(Conv2d::pointwise(inputs, expanded).activation(activation), names("expand_conv"));
        let depthwise = Conv2d::depthwise(expanded, kernel).stride([stride, 1]).padding(kernel / 2);
        builder.conv(depthwise.activation(activation), names("bottleneck_conv"));
        let project = Conv2d::pointwise(expanded, outputs);
        if has_gate {
            let (gate, of_gate) = gate(expanded, expanded / 4, GATE, &format!("{at}mid_se."));
            builder.gated(gate, of_gate, project, names("linear_conv"));
        } else {
            builder.conv(project, names("linear_conv"));
        }
        if stride == 1 && inputs == outputs {
            builder.add(first, Residual::AfterActivation);
        }
    }
    let last = Conv2d::pointwise(builder.channels, scaled(CLS_LAST)?).activation(Activation::HardSwish);
    builder.conv(last, normed("backbone.conv2"));
    builder.plain(Link::Pool(Pool2d::max(2).stride(2)));
    builder.classifier(classes, ["head.fc", "head.fc"]);
    let network = builder.network("ppocr_cls", width, classes, false)?;
    Ok(Network { task: Task::TextDirection, publishers: PUBLISHERS, pixels: [[0.5; 3]; 2], ..network })
}

/// A convolution and its batch norm, as PaddleOCR's modules of both have them.
fn normed(at: &str) -> Both {
    twice(Names::new(at, ".conv", ".bn"))
}

fn twice(names: Names) -> Both {
    [names.clone(), names]
}
