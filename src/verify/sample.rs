//! A sample of a large problem's outputs, since the oracle is slow: some channels of the last convolution, and of a
//! PReLU behind it, in all their pixels.

use crate::model::chain::{Chain, Join, Link};
use crate::model::error::Result;
use crate::model::prelu::PRelu;
use crate::model::shape::Shape;
use crate::model::weights::Weights;
use crate::oracle::{self, Answer};

use super::Data;

/// The channels of an output that are checked.
pub struct Sample {
    channels: Vec<usize>,
    /// The whole output's.
    shape: Shape,
}

impl Sample {
    /// Channels that take about `most` multiply-adds, spread over all, with the first and the last. None if all
    /// channels take no more than that, if they are in groups, or if other links than the last read a second tensor.
    pub fn new(chain: &Chain, shapes: &[Shape], most: u64) -> Option<Self> {
        let (last, &shape) = (last_convolution(chain), shapes.last()?);
        let conv = chain.links().get(last)?.conv()?;
        let one = shape.len() / u64::from(shape.channels.max(1)) * conv.fan_in();
        let count = (most / one.max(1)).max(2);
        let is_run = chain.edges().iter().all(|edge| (edge.tensor, edge.link, edge.join) == (0, last, Join::Add));
        if conv.groups != 1 || count >= u64::from(shape.channels) || !is_run {
            return None;
        }
        let (count, last) = (count as usize, shape.channels as usize - 1);
        let channel = |index: usize| index * last / (count - 1);
        Some(Self { channels: (0..count).map(channel).collect(), shape })
    }

    /// The oracle's answer for these channels.
    pub fn answer(&self, chain: &Chain, input: Shape, data: &Data) -> Result<Answer> {
        let mut links = chain.links().to_vec();
        let (last, count) = (last_convolution(chain), self.channels.len() as u32);
        let selected = |values: &[f32], len: usize| -> Vec<f32> {
            self.channels.iter().flat_map(|&channel| values[channel * len..][..len].iter().copied()).collect()
        };
        let mut weights = data.weights();
        let whole = weights.split_off(weights.len().saturating_sub(links.len() - last));
        let part = |(link, whole): (&mut Link, Weights<'_>)| {
            let len = match link {
                Link::Conv(conv) => {
                    conv.out_channels = count;
                    conv.fan_in() as usize
                }
                prelu => {
                    *prelu = PRelu::new(count).into();
                    1
                }
            };
            (selected(whole.weight, len), whole.bias.map(|bias| selected(bias, 1)))
        };
        let parts: Vec<_> = links[last..].iter_mut().zip(whole).map(part).collect();
        weights.extend(parts.iter().map(|(weight, bias)| Weights { weight, bias: bias.as_deref() }));
        // The only edge is one from the input to the convolution.
        let added = chain.source(last).map(|_| &data.input).or(data.residual.as_ref());
        let added = added.filter(|_| chain.links()[last].residual().is_some()).map(|values| self.select(values));
        let (chain, scale) = (Chain::new(links).with_dtype(chain.dtype()), data.scale.as_deref());
        oracle::run_scaled(&chain, &data.input, input, &weights, added.as_deref(), scale)
    }

    /// These channels of a tensor of the output's shape, NCHW.
    pub fn select(&self, values: &[f32]) -> Vec<f32> {
        let (pixels, channels) = (self.shape.pixels() as usize, self.shape.channels as usize);
        let plane = |image: usize, channel: usize| (image * channels + channel) * pixels;
        let images = 0..self.shape.batch as usize;
        let starts = images.flat_map(|image| self.channels.iter().map(move |&channel| plane(image, channel)));
        starts.flat_map(|start| values[start..start + pixels].iter().copied()).collect()
    }
}

/// The last link, or the convolution before a PReLU.
fn last_convolution(chain: &Chain) -> usize {
    match chain.links() {
        [before @ .., Link::Conv(_), Link::PRelu(_)] => before.len(),
        links => links.len().saturating_sub(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::conv::{Activation, Conv2d, Residual};

    /// The channels of a sample have the answers that they have in the whole.
    #[test]
    fn a_sample_is_a_part_of_the_whole() {
        let convs = [Conv2d::new(3, 16, 3).padding(1), Conv2d::pointwise(16, 24)];
        let outside = Chain::new([convs[0].clone(), convs[1].clone().residual(Residual::AfterActivation)]);
        let square = Conv2d::new(16, 16, 3).padding(1).activation(Activation::Relu);
        let edge = Chain::from(square).edge(0, 0, Residual::BeforeActivation).unwrap();
        let linear = Conv2d { activation: Activation::None, ..convs[0].clone() };
        let sloped = Chain::from(linear.residual(Residual::BeforeActivation)).then(PRelu::new(16));
        for (chain, input) in [(outside, [2, 3, 5, 4]), (edge, [2, 16, 5, 4]), (sloped, [2, 3, 5, 4])] {
            let input = Shape::from(input);
            let shapes = chain.shapes(input).unwrap();
            let fan_in = chain.links()[last_convolution(&chain)].conv().unwrap().fan_in();
            let sample = Sample::new(&chain, &shapes, 5 * 40 * fan_in).unwrap();
            assert_eq!((sample.channels.len(), sample.channels[0]), (5, 0));
            assert_eq!(sample.channels[4], shapes.last().unwrap().channels as usize - 1);
            assert!(sample.channels.is_sorted_by(|a, b| a < b), "{:?}", sample.channels);
            let data = Data::random("sample", &chain, input).unwrap();
            let (part, whole) = (sample.answer(&chain, input, &data).unwrap(), data.answer(&chain, input).unwrap());
            let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect::<Vec<_>>();
            assert_eq!(narrow(&part.values), sample.select(&narrow(&whole.values)));
            assert_eq!(narrow(&part.magnitudes), sample.select(&narrow(&whole.magnitudes)));
            assert!(Sample::new(&chain, &shapes, u64::MAX).is_none());
        }
    }

    #[test]
    fn a_chain_with_other_edges_is_checked_whole() {
        let pointwise = |channels| Conv2d::pointwise(channels, 64);
        let chain = Chain::new([pointwise(4), pointwise(64), pointwise(64)]);
        let chain = chain.edge(1, 2, Residual::BeforeActivation).unwrap();
        let oracle = super::super::Oracle::of_chain("edges", chain, [1, 4, 2, 3], crate::Layout::Nchw, 1);
        assert!(oracle.is_ok(), "{:?}", oracle.err());
    }
}
