//! Segmentation: the head of LR-ASPP on MobileNetV3.

use super::build::{Builder, alone, both};
use super::mobile::{V3_LARGE, v3_features};
use super::{Names, Network, Task, rounded};
use crate::model::chain::Link;
use crate::model::conv::{Activation, Conv2d, Residual};
use crate::model::error::Result;
use crate::model::resize::Resize;

/// The block from which on strides are dilations, so that the features are a sixteenth of the image.
const FIRST_DILATED: usize = 12;
/// The block whose features, an eighth of the image, go straight to the end.
const LOW: usize = 3;

/// LR-ASPP on MobileNetV3-Large (arXiv 1905.02244, section 6.4), as torchvision's `lraspp_mobilenet_v3_large`: a logit
/// for each class and pixel. Published weights have 21 classes.
///
/// Rows and columns must be multiples of 16; [`Network::sized`] gives the network for others.
///
/// ```
/// let network = gpuconv::nets::lraspp_mobilenet_v3_large(1.0, 21)?;
/// assert_eq!(network.parameters(), 3_221_538);
/// let shapes = network.chain.shapes([1, 3, 256, 320])?;
/// assert_eq!(shapes.last(), Some(&[1, 21, 256, 320].into()));
/// # Ok::<(), gpuconv::Error>(())
/// ```
///
/// # Errors
/// [`Error::Width`](crate::Error::Width) unless `width` is above 0 and at most 16.
pub fn lraspp_mobilenet_v3_large(width: f64, classes: u32) -> Result<Network> {
    let mut builder = Builder::new();
    let blocks = v3_features(&mut builder, &V3_LARGE, width, "backbone.", FIRST_DILATED)?;
    let (low, low_channels) = blocks[LOW];
    let (high, high_channels, inner) = (builder.tensor(), builder.channels, rounded(128, width)?);
    let head = |conv: &str, norm: &str| both([conv, norm], [conv, norm]).map(|names| Names { own_eps: true, ..names });

    let features = Conv2d::pointwise(high_channels, inner).activation(Activation::Relu);
    builder.conv(features, head("classifier.cbr.0", "classifier.cbr.1"));
    let features = builder.tensor();
    builder.plain_of(high, Link::GlobalAveragePool);
    let gate = Conv2d::pointwise(high_channels, inner).bias(false).activation(Activation::Sigmoid);
    builder.conv(gate, alone("classifier.scale.1"));
    let gate = builder.tensor();
    let mut fitted = vec![(builder.tensor(), low)];
    builder.plain_of(features, Resize::by(2.0).bilinear(false).into());
    let enlarged = builder.tensor();
    builder.conv_of(low, Conv2d::pointwise(low_channels, classes), alone("classifier.low_classifier"));
    let sum = builder.tensor();
    // The gate is multiplied in here: it has a value for each channel, which the means of pixels keep apart.
    builder.conv_of(enlarged, Conv2d::pointwise(inner, classes), alone("classifier.high_classifier"));
    builder.scale(gate);
    builder.add(sum, Residual::BeforeActivation);
    fitted.push((builder.tensor(), 0));
    builder.plain(Resize::by(8.0).bilinear(false).into());
    let network = builder.network("lraspp_mobilenet_v3_large", width, classes, true)?;
    // timm has it not. The norms of the body keep TensorFlow's number.
    Ok(Network { task: Task::Segmentation, eps: [super::EPS, 1e-3], fitted, timm: Vec::new(), ..network })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::error::Error;
    use crate::model::shape::Shape;

    #[test]
    fn features_are_an_eighth_and_a_sixteenth_of_the_image() {
        let network = lraspp_mobilenet_v3_large(1.0, 21).unwrap();
        let shapes = network.chain.shapes([2, 3, 256, 320]).unwrap();
        let last = network.chain.links().len();
        let expected: [Shape; 8] = [
            [2, 960, 16, 20].into(),
            [2, 128, 16, 20].into(),
            [2, 960, 1, 1].into(),
            [2, 128, 1, 1].into(),
            [2, 128, 32, 40].into(),
            [2, 21, 32, 40].into(),
            [2, 21, 32, 40].into(),
            [2, 21, 256, 320].into(),
        ];
        assert_eq!(shapes[last - 7..], expected);
        assert_eq!(shapes[network.chain.input_of(last - 3)], [2, 40, 32, 40].into());
        // Of the last three blocks the depthwise links alone are dilated.
        let dilated: Vec<_> = network.chain.convolutions().filter(|(_, conv)| conv.dilation == [2, 2]).collect();
        assert!(dilated.iter().all(|(_, conv)| conv.kernel_size == [5, 5] && conv.stride == [1, 1]));
        assert_eq!(dilated.len(), 3);
        // torchvision interpolates to the size of what is added, and to that of the images.
        for (size, low, high) in
            [([97, 131], [13, 17], [7, 9]), ([1, 8], [1, 1], [1, 1]), ([256, 320], [32, 40], [16, 20])]
        {
            let images = [1, 3, size[0], size[1]];
            let sized = network.clone().sized(images).unwrap();
            let shapes = sized.chain.shapes(images).unwrap();
            let image = |tensor: usize| [shapes[tensor].height, shapes[tensor].width];
            assert_eq!([last - 7, last - 3, last - 1, last].map(image), [high, low, low, size], "{size:?}");
        }
        let refused = network.chain.shapes([1, 3, 40, 40]);
        let [expected, actual] = [[1, 21, 6, 6], [1, 21, 5, 5]].map(Shape::from);
        assert_eq!(refused, Err(Error::ShapeMismatch { tensor: "residual", expected, actual }));
    }

    #[test]
    fn names_are_torchvisions() {
        let network = lraspp_mobilenet_v3_large(0.25, 21).unwrap();
        let (names, count) = (&network.torchvision, network.chain.convolutions().count());
        assert_eq!((network.timm.len(), names.len()), (0, count));
        let ends = [&names[0].conv, &names[1].conv, &names[count - 5].conv].map(String::as_str);
        assert_eq!(ends, ["backbone.0.0", "backbone.1.block.0.0", "backbone.16.0"]);
        let head: Vec<_> = names[count - 4..].iter().map(|names| (names.conv.as_str(), names.own_eps)).collect();
        let [cbr, scale] = [("classifier.cbr.0", true), ("classifier.scale.1", false)];
        assert_eq!(head, [cbr, scale, ("classifier.low_classifier", false), ("classifier.high_classifier", false)]);
    }
}
