//! Networks with weights that were trained with TensorFlow: those of PyTorch with its padding and its number in batch
//! norms.

use super::build::IMAGENET;
use super::{Network, efficientnet_b0, efficientnet_lite0, mobilenet_v3_large, mobilenet_v3_small};
use crate::model::error::Result;

/// TensorFlow's constant of batch norms.
const EPS: f64 = 1e-3;
/// Pixels between -1 and 1.
const INCEPTION: [[f32; 3]; 2] = [[0.5; 3]; 2];

/// MobileNetV3-Large with TensorFlow's padding, timm's `tf_mobilenetv3_large_100`, for images of 224x224;
/// [`Network::sized`] gives that for others.
///
/// # Errors
/// [`Error::Width`](crate::Error::Width) unless `width` is above 0 and at most 16.
pub fn tf_mobilenetv3_large_100(width: f64, classes: u32) -> Result<Network> {
    padded("tf_mobilenetv3_large_100", INCEPTION, mobilenet_v3_large(width, classes)?)
}

/// MobileNetV3-Small with TensorFlow's padding, timm's `tf_mobilenetv3_small_100`, for images of 224x224;
/// [`Network::sized`] gives that for others.
///
/// # Errors
/// As [`tf_mobilenetv3_large_100`].
pub fn tf_mobilenetv3_small_100(width: f64, classes: u32) -> Result<Network> {
    padded("tf_mobilenetv3_small_100", INCEPTION, mobilenet_v3_small(width, classes)?)
}

/// EfficientNet-B0 with TensorFlow's padding, timm's `tf_efficientnet_b0`, for images of 224x224;
/// [`Network::sized`] gives that for others. Its weights with adversarial examples (`ap`) were trained
/// on pixels between -1 and 1, the others on ImageNet's, as [`Network::pixels`] has them.
///
/// # Errors
/// As [`tf_mobilenetv3_large_100`].
pub fn tf_efficientnet_b0(width: f64, classes: u32) -> Result<Network> {
    padded("tf_efficientnet_b0", IMAGENET, efficientnet_b0(width, classes)?)
}

/// EfficientNet-Lite0 with TensorFlow's padding, timm's `tf_efficientnet_lite0`, for images of 224x224;
/// [`Network::sized`] gives that for others.
///
/// # Errors
/// As [`tf_mobilenetv3_large_100`].
pub fn tf_efficientnet_lite0(width: f64, classes: u32) -> Result<Network> {
    padded("tf_efficientnet_lite0", INCEPTION, efficientnet_lite0(width, classes)?)
}

/// The network with this padding, for images of 224x224.
fn padded(name: &'static str, pixels: [[f32; 3]; 2], network: Network) -> Result<Network> {
    let torchvision = Vec::new();
    Network { name, pixels, eps: [EPS; 2], same_padding: true, torchvision, ..network }.sized([1, 3, 224, 224])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::chain::Link;
    use crate::model::conv::Conv2d;

    /// Worked out by hand, for an even number of rows and an odd one of columns.
    #[test]
    fn padding_depends_on_whether_extents_are_even() {
        let padding = |conv: Conv2d, rows: u32, columns: u32| conv.same_padding([1, 1, rows, columns].into());
        assert_eq!(padding(Conv2d::new(1, 1, 3), 8, 9), [1, 1, 1, 1]);
        assert_eq!(padding(Conv2d::new(1, 1, 3).stride(2), 8, 9), [0, 1, 1, 1]);
        assert_eq!(padding(Conv2d::new(1, 1, 5).stride(2), 8, 9), [1, 2, 2, 2]);
        assert_eq!(padding(Conv2d::new(1, 1, 2), 8, 9), [0, 0, 1, 1]);
        assert_eq!(padding(Conv2d::new(1, 1, 3).dilation(2).stride(2), 8, 9), [1, 2, 2, 2]);
        assert_eq!(padding(Conv2d::new(1, 1, 1).stride(2), 8, 9), [0; 4]);
        assert_eq!(padding(Conv2d::new(1, 1, 3).stride(2), 1, 2), [1, 0, 1, 1]);
    }

    #[test]
    fn outputs_are_inputs_by_strides_rounded_up() {
        let network = tf_mobilenetv3_small_100(0.1, 10).unwrap();
        for size in [1, 2, 31, 32, 97, 110, 225] {
            let sized = network.clone().sized([2, 3, size, size + 1]).unwrap();
            let shapes = sized.chain.shapes([2, 3, size, size + 1]).unwrap();
            for (index, link) in sized.chain.links().iter().enumerate() {
                let Link::Conv(conv) = link else { continue };
                let input = shapes[sized.chain.input_of(index)];
                let expected = [input.height.div_ceil(conv.stride[0]), input.width.div_ceil(conv.stride[1])];
                assert_eq!([shapes[index + 1].height, shapes[index + 1].width], expected, "link {index} of {size}");
            }
        }
        // Others are what they are.
        let plain = mobilenet_v3_small(0.1, 10).unwrap();
        assert_eq!(plain.clone().sized([1, 3, 225, 225]).unwrap(), plain);
        assert_eq!((network.timm, network.torchvision.len()), (plain.timm, 0));
    }
}
