//! From pictures to what networks were trained on.

use super::Network;

impl Network {
    /// The pixels of images as the network wants them: three planes an image, each channel less its mean and over its
    /// deviation, so that values lie around 0. `rgb` has three bytes a pixel, and as many images one after the other as
    /// have `pixels` pixels each; what is left over at its end is no image.
    ///
    /// MobileNetV1 was trained with Inception's numbers (0.5 and 0.5), V2 with those of ImageNet.
    ///
    /// ```
    /// let network = gpuconv::nets::mobilenet_v1(1.0, 1000)?;
    /// // A red and a black pixel.
    /// assert_eq!(network.normalize(&[255, 0, 0, 0, 0, 0], 2), [1., -1., -1., -1., -1., -1.]);
    /// # Ok::<(), gpuconv::Error>(())
    /// ```
    pub fn normalize(&self, rgb: &[u8], pixels: usize) -> Vec<f32> {
        let [mean, deviation] = self.pixels;
        let planes = |image: &[u8]| -> Vec<f32> {
            let normal = |channel: usize, byte: &u8| (f32::from(*byte) / 255.0 - mean[channel]) / deviation[channel];
            (0..3)
                .flat_map(|channel| image.iter().skip(channel).step_by(3).map(move |byte| normal(channel, byte)))
                .collect()
        };
        rgb.chunks_exact(pixels.saturating_mul(3).max(3)).flat_map(planes).collect()
    }
}
