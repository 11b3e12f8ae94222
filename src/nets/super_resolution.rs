//! Super-resolution: convolutions of a small image, whose last channels become the pixels of a larger one.

use super::build::{Both, Builder, alone};
use super::{Names, Network, Task, rounded};
use crate::model::chain::Link;
use crate::model::conv::{Activation, Conv2d, Residual};
use crate::model::error::{Error, Result};

/// ESPCN (arXiv 1609.05158): an image with `scale` times as many rows and columns, 2, 3 or 4. It was published for
/// images of one channel, the brightness, and its values lie between 0 and 1; those of the output may lie beyond, and
/// are to be clamped.
///
/// The names of weights are those of two implementations, which are alike: Lornatang/ESPCN-PyTorch (`feature_maps.0`,
/// `sub_pixel.0`) and yjn870/ESPCN-pytorch (`first_part.0`, `last_part.0`).
///
/// ```
/// let network = gpuconv::nets::espcn(3, 1.0, 1)?;
/// assert_eq!(network.parameters(), 22_729);
/// let shapes = network.chain.shapes([1, 1, 50, 70])?;
/// assert_eq!(shapes.last(), Some(&[1, 1, 150, 210].into()));
/// # Ok::<(), gpuconv::Error>(())
/// ```
///
/// # Errors
/// [`Error::Parameter`] for another scale; [`Error::Width`] unless `width` is above 0 and at most 16.
pub fn espcn(scale: u32, width: f64, channels: u32) -> Result<Network> {
    let name = named(scale, ["espcn_x2", "espcn_x3", "espcn_x4"])?;
    let mut builder = Builder::of_images(channels);
    let names = |own: &str, others: &str| -> Both { [own, others].map(Names::biased) };
    let first = Conv2d::new(channels, rounded(64, width)?, 5).padding(2).activation(Activation::Tanh);
    builder.conv(first, names("feature_maps.0", "first_part.0"));
    let second = Conv2d::new(builder.channels, rounded(32, width)?, 3).padding(1).activation(Activation::Tanh);
    builder.conv(second, names("feature_maps.2", "first_part.2"));
    builder.conv(before_shuffle(builder.channels, channels, scale)?, names("sub_pixel.0", "last_part.0"));
    builder.plain(Link::PixelShuffle { factor: scale });
    let publishers = ["Lornatang/ESPCN-PyTorch", "yjn870/ESPCN-pytorch"];
    Ok(Network { publishers, ..enlarging(builder.network(name, width, channels, true)?) })
}

/// The compact SRVGG that Real-ESRGAN has (`SRVGGNetCompact`, arXiv 2107.10833's code), with 64 features and 16
/// convolutions between the first and the last: `realesr-animevideov3` is the one with scale 4. Scales are 2, 3 and 4.
/// Values lie between 0 and 1; those of the output may lie beyond, and are to be clamped.
///
/// What the convolutions give is added to the image enlarged by its nearest pixels.
///
/// ```
/// let network = gpuconv::nets::srvgg(4, 1.0, 3)?;
/// assert_eq!(network.parameters(), 621_424);
/// let shapes = network.chain.shapes([1, 3, 50, 70])?;
/// assert_eq!(shapes.last(), Some(&[1, 3, 200, 280].into()));
/// # Ok::<(), gpuconv::Error>(())
/// ```
///
/// # Errors
/// [`Error::Parameter`] for another scale; [`Error::Width`] unless `width` is above 0 and at most 16.
pub fn srvgg(scale: u32, width: f64, channels: u32) -> Result<Network> {
    let name = named(scale, ["srvgg_x2", "srvgg_x3", "srvgg_x4"])?;
    compact(name, scale, 16, width, channels)
}

/// The SRVGG with 32 convolutions between the first and the last, as [`srvgg`] otherwise: Real-ESRGAN's
/// `realesr-general-x4v3`, for photographs.
///
/// # Errors
/// [`Error::Width`] unless `width` is above 0 and at most 16.
pub fn realesr_general_x4v3(width: f64, channels: u32) -> Result<Network> {
    compact("realesr_general_x4v3", 4, 32, width, channels)
}

fn compact(name: &'static str, scale: u32, count: usize, width: f64, channels: u32) -> Result<Network> {
    let (mut builder, features) = (Builder::of_images(channels), rounded(64, width)?);
    // An enlarged image is one whose channels are all repeated, after the shuffle.
    let repeated = before_shuffle(channels, channels, scale)?.out_channels;
    let repeat = Conv2d::pointwise(channels, repeated).groups(channels).bias(false);
    builder.conv(repeat, [Names::ones(), Names::ones()]);
    let enlarged = builder.tensor();
    builder.conv_of(0, Conv2d::new(channels, features, 3).padding(1), alone("body.0"));
    for index in 0..count {
        builder.prelu(&format!("body.{}", 2 * index + 1));
        builder.conv(Conv2d::new(features, features, 3).padding(1), alone(&format!("body.{}", 2 * index + 2)));
    }
    builder.prelu(&format!("body.{}", 2 * count + 1));
    builder.conv(before_shuffle(features, channels, scale)?, alone(&format!("body.{}", 2 * count + 2)));
    builder.add(enlarged, Residual::BeforeActivation);
    builder.plain(Link::PixelShuffle { factor: scale });
    let network = builder.network(name, width, channels, false)?;
    Ok(Network { publishers: ["Real-ESRGAN"; 2], ..enlarging(network) })
}

/// The network with values between 0 and 1.
fn enlarging(network: Network) -> Network {
    Network { task: Task::SuperResolution, pixels: [[0.0; 3], [1.0; 3]], ..network }
}

/// The convolution whose outputs a shuffle makes pixels of.
fn before_shuffle(features: u32, channels: u32, scale: u32) -> Result<Conv2d> {
    let (squared, value) = (scale * scale, channels.into());
    match channels.checked_mul(squared) {
        Some(outputs) if outputs > 0 => Ok(Conv2d::new(features, outputs, 3).padding(1)),
        _ => {
            let expected = format!("1 to {}", u32::MAX / squared);
            Err(Error::Parameter { name: "the number of an image's channels", value, expected })
        }
    }
}

/// The name for a scale.
fn named(scale: u32, names: [&'static str; 3]) -> Result<&'static str> {
    let found = scale.checked_sub(2).and_then(|index| names.get(index as usize).copied());
    let expected = || "2, 3 or 4".into();
    found.ok_or_else(|| Error::Parameter { name: "the scale", value: scale.into(), expected: expected() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::chain::{Edge, Join};

    #[test]
    fn parameters_are_the_published_ones() {
        let counts = |make: fn(u32, f64, u32) -> Result<Network>, channels| {
            [2, 3, 4].map(|scale| make(scale, 1.0, channels).unwrap().parameters())
        };
        assert_eq!(counts(espcn, 1), [21_284, 22_729, 24_752]);
        assert_eq!(counts(srvgg, 3), [600_652, 609_307, 621_424]);
        assert_eq!(realesr_general_x4v3(1.0, 3).unwrap().parameters(), 1_213_296);
    }

    #[test]
    fn names_are_those_of_the_layers_in_pytorch() {
        let network = srvgg(2, 0.125, 3).unwrap();
        let names: Vec<_> = network.timm.iter().map(|names| names.conv.as_str()).collect();
        let expected: Vec<_> = (0..=34).map(|layer| format!("body.{layer}")).collect();
        assert_eq!((names[0], &names[1..]), ("", &expected.iter().map(String::as_str).collect::<Vec<_>>()[..]));
        // The first convolution reads the image, and the last adds it, repeated.
        let edge = |tensor, link, join| Edge { tensor, link, join };
        assert_eq!(network.chain.edges(), [edge(0, 1, Join::Input), edge(1, 35, Join::Add)]);
        let espcn = espcn(2, 0.125, 1).unwrap();
        let names = |names: &[Names]| names.iter().map(|names| names.conv.clone()).collect::<Vec<_>>();
        assert_eq!(names(&espcn.timm), ["feature_maps.0", "feature_maps.2", "sub_pixel.0"]);
        assert_eq!(names(&espcn.torchvision), ["first_part.0", "first_part.2", "last_part.0"]);
    }

    #[test]
    fn other_scales_and_numbers_of_channels_are_refused() {
        for scale in [0, 1, 5, u32::MAX] {
            let value = u64::from(scale);
            assert!(matches!(espcn(scale, 1.0, 3), Err(Error::Parameter { value: found, .. }) if found == value));
            assert!(matches!(srvgg(scale, 1.0, 3), Err(Error::Parameter { value: found, .. }) if found == value));
        }
        for channels in [0, u32::MAX] {
            assert!(matches!(espcn(2, 1.0, channels), Err(Error::Parameter { .. })), "{channels}");
            assert!(matches!(srvgg(2, 1.0, channels), Err(Error::Parameter { .. })), "{channels}");
        }
        assert!(matches!(srvgg(2, 0.0, 3), Err(Error::Width { .. })));
    }
}
