//! Weights laid out once, in the order in which a kernel reads them.

pub mod part;
pub mod phases;
pub mod slices;
pub mod winograd;

use crate::kernels::pack::part::KernelPart;
use crate::kernels::pack::phases::Taps;
use crate::model::conv::Conv2d;
use crate::model::dtype::DType;
use crate::model::error::{Error, Result};
use crate::model::weights::Weights;

/// A part of the weight buffer of a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Section {
    /// Which of the run's convolutions it belongs to.
    pub link: usize,
    /// How it is laid out.
    pub packing: Packing,
    /// Its length in elements, a multiple of four so that the next section is aligned for `vec4`.
    pub len: u64,
    /// The type of its elements.
    pub dtype: DType,
    /// What is packed of the convolution's kernel, if that is not all of it as it is.
    pub part: Option<KernelPart>,
}

/// An order of weights or biases in memory.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the variants say what their fields are")]
pub enum Packing {
    /// `[group][panel][k][block]`: the output channels of a group cut into panels of `block`, and for each
    /// `k` (an input channel's tap) the panel's weights side by side. `k` is padded with zeros to a
    /// multiple of `k_align`, the last panel to `block`.
    Panels { block: u32, k_align: u32, order: Order },
    /// [`Packing::Panels`] of the transformed weights of Winograd's F(m x m, 3x3), with m outputs a side.
    Winograd { outputs: u32, block: u32, k_align: u32 },
    /// [`Packing::Panels`] of the weights cut along their input channels.
    Slices { slices: u32, block: u32, k_align: u32, order: Order },
    /// [`Packing::Panels`] of the weights of a transposed convolution, with `k` in PyTorch's order.
    TransposedPanels { block: u32 },
    /// The weights of some phases of a transposed convolution, along its rows and its columns, for a kind of product.
    Phases { taps: [Taps; 2], product: PhasePanels, block: u16, k_align: u16, order: Order },
    /// [`Packing::Bias`] of as many phases, each with all biases.
    PhaseBiases { phases: u32, block: u32 },
    /// The bias of each output channel in the order of [`Packing::Panels`]; zeros where there is none.
    Bias { block: u32 },
    /// `[tap][channel]`: for each kernel position the weights of all channels of a depthwise link.
    Taps,
    /// `[channels][tap][block]`: for each `block` neighbouring channels of a depthwise link the weights of all kernel
    /// positions. The last block is padded with zeros.
    BlockTaps { block: u32 },
}

/// How the weights of phases are laid out, in small numbers.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the variants say what their fields are")]
pub enum PhasePanels {
    /// [`Packing::Panels`].
    Panels,
    /// [`Packing::Slices`].
    Slices(u16),
    /// [`Packing::Winograd`].
    Winograd { outputs: u16 },
}

/// What `k` counts.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the variants say what their fields are")]
pub enum Order {
    /// Input channel, kernel row, kernel column: PyTorch's.
    ChannelFirst,
    /// Kernel row, kernel column, input channel: neighbours in k are neighbours in an NHWC input.
    ChannelLast,
    /// The same with each `together` kernel positions, all their channels, padded by themselves.
    ByTaps { together: u32 },
    /// PyTorch's, with the kernel's rows (of `columns`) in pieces of `piece` columns. The last piece is filled up with
    /// zeros.
    InPieces { columns: u32, piece: u32 },
    /// Kernel row (of `columns`, in pieces of `piece` as above), input channels by `channels`, piece, kernel column,
    /// and which of these channels. A kernel that is a column may be read as a row, so this does not take its width
    /// from the link.
    ByRow { columns: u32, piece: u32, channels: u32 },
    /// Input channels by `together`, kernel row, kernel column, and which of these channels.
    ByChannels { together: u32 },
}

impl Section {
    /// Weights of the run's convolution number `link`, laid out.
    pub fn new(link: usize, conv: &Conv2d, packing: Packing, dtype: DType) -> Self {
        Self { link, packing, len: packing.len(conv).next_multiple_of(4), dtype, part: None }
    }

    /// Its size in the buffer, bytes.
    pub fn bytes(&self) -> u64 {
        self.len * self.dtype.bytes()
    }
}

impl Section {
    /// The weights of a convolution, laid out.
    fn pack(&self, conv: &Conv2d, weights: Weights<'_>) -> Vec<f32> {
        match self.part {
            None => self.packing.pack(conv, weights),
            Some(part) => {
                let weight = part.weights(conv, weights.weight);
                self.packing.pack(&part.conv(conv), Weights { weight: &weight, ..weights })
            }
        }
    }
}

impl Packing {
    /// Elements that the packed weights of a link take.
    pub fn len(self, conv: &Conv2d) -> u64 {
        let groups = u64::from(conv.groups);
        let padded = |block: u32| u64::from(conv.group_out_channels().div_ceil(block)) * u64::from(block);
        match self {
            Self::Panels { block, k_align, order } => groups * padded(block) * padded_k(conv, order, k_align),
            Self::Winograd { outputs, block, k_align } => {
                let panels = Self::Panels { block, k_align, order: Order::ChannelFirst };
                panels.len(&winograd::product(conv, outputs))
            }
            Self::Slices { slices, block, k_align, order } => {
                Self::Panels { block, k_align, order }.len(&slices::product(conv, slices))
            }
            Self::TransposedPanels { block } => groups * padded(block) * conv.fan_in(),
            Self::Phases { taps, product, block, k_align, order } => {
                of_phases(product, block, k_align, order).len(&phases::of_taps(conv, taps))
            }
            Self::PhaseBiases { phases, block } => Self::Bias { block }.len(&phases::copies(conv, phases)),
            Self::Bias { block } => groups * padded(block),
            Self::Taps => u64::from(conv.out_channels) * conv.fan_in(),
            Self::BlockTaps { block } => u64::from(conv.out_channels.next_multiple_of(block)) * conv.fan_in(),
        }
    }

    /// The weights, laid out.
    pub fn pack(self, conv: &Conv2d, weights: Weights<'_>) -> Vec<f32> {
        match self {
            Self::Panels { block, k_align, order } => panels(conv, weights.weight, block, k_align, order),
            Self::Winograd { outputs, block, k_align } => {
                let weight = winograd::transform(conv, weights.weight, outputs);
                panels(&winograd::product(conv, outputs), &weight, block, k_align, Order::ChannelFirst)
            }
            Self::Slices { slices, block, k_align, order } => {
                let weight = slices::weights(conv, weights.weight, slices);
                panels(&slices::product(conv, slices), &weight, block, k_align, order)
            }
            Self::TransposedPanels { block } => {
                panels(conv, &by_output_channels(conv, weights.weight), block, 1, Order::ChannelFirst)
            }
            Self::Phases { taps, product, block, k_align, order } => {
                let weight = phases::weights(conv, &by_output_channels(conv, weights.weight), taps);
                let product = of_phases(product, block, k_align, order);
                product.pack(&phases::of_taps(conv, taps), Weights::without_bias(&weight))
            }
            Self::Bias { block } => biases(conv, weights.bias, block),
            Self::PhaseBiases { phases, block } => {
                let bias = weights.bias.map(|bias| bias.repeat(phases as usize));
                biases(&phases::copies(conv, phases), bias.as_deref(), block)
            }
            Self::Taps => {
                let taps = conv.fan_in() as usize;
                let per_tap = |tap| weights.weight.iter().skip(tap).step_by(taps);
                (0..taps).flat_map(per_tap).copied().collect()
            }
            Self::BlockTaps { block } => {
                let (taps, block) = (conv.fan_in() as usize, block as usize);
                let blocks = (0..conv.out_channels as usize).step_by(block);
                let places = blocks.flat_map(|first| {
                    (0..taps).flat_map(move |tap| (first..first + block).map(move |channel| (channel, tap)))
                });
                places
                    .map(|(channel, tap)| weights.weight.get(channel * taps + tap).copied().unwrap_or_default())
                    .collect()
            }
        }
    }
}

/// How the plain convolution is laid out that gives some phases.
fn of_phases(product: PhasePanels, block: u16, k_align: u16, order: Order) -> Packing {
    let [block, k_align] = [block, k_align].map(u32::from);
    match product {
        PhasePanels::Panels => Packing::Panels { block, k_align, order },
        PhasePanels::Slices(slices) => Packing::Slices { slices: slices.into(), block, k_align, order },
        PhasePanels::Winograd { outputs } => Packing::Winograd { outputs: outputs.into(), block, k_align },
    }
}

/// The weights of a transposed convolution (input channels, output channels of a group, taps) in the order of a
/// convolution with the same numbers: output channels, input channels of a group, taps.
fn by_output_channels(conv: &Conv2d, weight: &[f32]) -> Vec<f32> {
    let [group_in, group_out] = [conv.group_in_channels(), conv.group_out_channels()].map(|count| count as usize);
    let taps = conv.kernel_size.map(|extent| extent as usize).iter().product::<usize>();
    let outputs = 0..conv.out_channels as usize;
    let rows = outputs
        .flat_map(|output| (0..group_in).map(move |of_group| (output, output / group_out * group_in + of_group)));
    let starts = rows.map(|(output, input)| (input * group_out + output % group_out) * taps);
    starts.flat_map(|start| weight[start..start + taps].iter().copied()).collect()
}

/// Sections one after the other, and where each starts, in elements.
pub fn sections(sections: impl IntoIterator<Item = Section>) -> (Vec<Section>, Vec<u64>) {
    let sections: Vec<_> = sections.into_iter().collect();
    let mut end = 0;
    let offsets = sections.iter().map(|section| {
        end += section.len;
        end - section.len
    });
    let offsets = offsets.collect();
    (sections, offsets)
}

/// Weight sections of a GEMM that replaces a link: its panels, and the link's biases if it has any. Gives the offset of
/// each as well, in elements.
pub fn replacement_sections(
    product: &[Section],
    biases: Option<Section>,
    packing: impl Fn(u32, u32, Order) -> Packing,
) -> (Vec<Section>, u64) {
    let panels = product.iter().map(|section| match section.packing {
        Packing::Panels { block, k_align, order } => Section { packing: packing(block, k_align, order), ..*section },
        _ => *section,
    });
    let mut sections: Vec<_> = panels.collect();
    let bias_at = sections.iter().map(|section| section.len).sum();
    sections.extend(biases);
    (sections, bias_at)
}

/// The bytes of the weight buffer of a recipe, from the run's convolutions and the weights of each, for a layer of a
/// type: its weights are rounded to that first, then laid out.
///
/// # Errors
/// [`Error::Internal`] for a section of a convolution that the run does not have.
pub fn buffer(convs: &[&Conv2d], weights: &[Weights<'_>], sections: &[Section], dtype: DType) -> Result<Vec<u8>> {
    let mut buffer = Vec::new();
    for section in sections {
        let end = buffer.len() + section.bytes() as usize;
        match (convs.get(section.link), weights.get(section.link)) {
            (Some(conv), Some(weights)) => {
                let packed = match section.dtype == dtype {
                    true => section.pack(conv, *weights),
                    false => {
                        let rounded = |values: &[f32]| dtype.decode(&dtype.encode(values));
                        let (weight, bias) = (rounded(weights.weight), weights.bias.map(rounded));
                        section.pack(conv, Weights { weight: &weight, bias: bias.as_deref() })
                    }
                };
                buffer.extend_from_slice(&section.dtype.encode(&packed));
            }
            _ => {
                let message = format!("a run packs weights of its convolution {}, which it has not", section.link);
                return Err(Error::Internal(message));
            }
        }
        // Zeros, in every element type.
        buffer.resize(end, 0);
    }
    Ok(buffer)
}

/// `k` of a link, padded.
pub fn padded_k(conv: &Conv2d, order: Order, k_align: u32) -> u64 {
    let segments = segments(conv, order);
    segments * (depth(conv, order) / segments).next_multiple_of(k_align.into())
}

/// `k` of a link with its rows filled up to whole pieces.
pub fn depth(conv: &Conv2d, order: Order) -> u64 {
    match order {
        Order::InPieces { columns, piece } | Order::ByRow { columns, piece, .. } => {
            conv.fan_in() / u64::from(columns) * u64::from(columns.next_multiple_of(piece))
        }
        _ => conv.fan_in(),
    }
}

/// The number of segments of `k`, each padded by itself.
pub fn segments(conv: &Conv2d, order: Order) -> u64 {
    match order {
        Order::ByTaps { together } => {
            u64::from(conv.kernel_size[0]) * u64::from(conv.kernel_size[1]) / u64::from(together.max(1))
        }
        _ => 1,
    }
}

fn panels(conv: &Conv2d, weight: &[f32], block: u32, k_align: u32, order: Order) -> Vec<f32> {
    let (depth, padded_depth) = (conv.fan_in() as usize, padded_k(conv, order, k_align) as usize);
    let (out_channels, block) = (conv.group_out_channels() as usize, block as usize);
    let taps = (conv.kernel_size[0] * conv.kernel_size[1]) as usize;
    let channels = conv.group_in_channels() as usize;
    // Where PyTorch's `k` goes.
    let place_of = |k: usize| {
        let (channel, tap) = (k / taps, k % taps);
        match order {
            Order::ChannelFirst => k,
            Order::ChannelLast => tap * channels + channel,
            Order::ByTaps { together } => {
                let together = together as usize;
                tap / together * (padded_depth / (taps / together)) + tap % together * channels + channel
            }
            Order::InPieces { columns, piece } => {
                let [columns, filled] = [columns, columns.next_multiple_of(piece)].map(|count| count as usize);
                k / columns * filled + k % columns
            }
            Order::ByRow { columns, piece, channels: together } => {
                let filled = columns.next_multiple_of(piece) as usize;
                let [columns, together] = [columns, together].map(|count| count as usize);
                let row = tap / columns * (channels / together) + channel / together;
                (row * filled + tap % columns) * together + channel % together
            }
            Order::ByChannels { together } => {
                let together = together as usize;
                (channel / together * taps + tap) * together + channel % together
            }
        }
    };
    let panels = out_channels.div_ceil(block);
    let mut packed = vec![0.0; conv.groups as usize * panels * padded_depth * block];
    for (row, values) in weight.chunks_exact(depth.max(1)).enumerate() {
        let (group, channel) = (row / out_channels, row % out_channels);
        let panel = group * panels + channel / block;
        for (k, &value) in values.iter().enumerate() {
            packed[(panel * padded_depth + place_of(k)) * block + channel % block] = value;
        }
    }
    packed
}

fn biases(conv: &Conv2d, bias: Option<&[f32]>, block: u32) -> Vec<f32> {
    let out_channels = conv.group_out_channels() as usize;
    let padded = out_channels.next_multiple_of(block as usize);
    let mut packed = vec![0.0; conv.groups as usize * padded];
    for (channel, &value) in bias.unwrap_or_default().iter().enumerate() {
        packed[channel / out_channels * padded + channel % out_channels] = value;
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_hold_every_weight_once_and_zeros_elsewhere() {
        let conv = Conv2d::new(4, 6, [1, 2]).groups(2);
        let weight: Vec<f32> = (1..=24).map(|value| value as f32).collect();
        let packing = Packing::Panels { block: 2, k_align: 3, order: Order::ChannelFirst };
        let packed = packing.pack(&conv, Weights::without_bias(&weight));
        assert_eq!(packed.len() as u64, packing.len(&conv));
        // Two groups of two panels; k = 4 padded to 6; channels 0 and 1 are the first panel.
        assert_eq!(packed[..12], [1., 5., 2., 6., 3., 7., 4., 8., 0., 0., 0., 0.]);
        assert_eq!(packed[12..24], [9., 0., 10., 0., 11., 0., 12., 0., 0., 0., 0., 0.]);
        let last = Packing::Panels { block: 2, k_align: 1, order: Order::ChannelLast };
        assert_eq!(last.pack(&conv, Weights::without_bias(&weight))[..8], [1., 5., 3., 7., 2., 6., 4., 8.]);
        for (columns, channels, expected) in [
            (2, 1, [1., 5., 2., 6., 3., 7., 4., 8.]),
            (2, 2, [1., 5., 3., 7., 2., 6., 4., 8.]),
            (1, 1, [1., 5., 3., 7., 2., 6., 4., 8.]),
        ] {
            let order = Order::ByRow { columns, piece: columns, channels };
            let by_row = Packing::Panels { block: 2, k_align: 1, order };
            assert_eq!(by_row.pack(&conv, Weights::without_bias(&weight))[..8], expected);
        }
        for (together, expected) in [(1, [1., 5., 2., 6., 3., 7., 4., 8.]), (2, [1., 5., 3., 7., 2., 6., 4., 8.])] {
            let by_channels = Packing::Panels { block: 2, k_align: 1, order: Order::ByChannels { together } };
            assert_eq!(by_channels.pack(&conv, Weights::without_bias(&weight))[..8], expected);
        }
        // Two channels, a kernel of 1x3 in pieces of two columns: by channels, and with channels in pairs.
        let wide = Conv2d::new(2, 1, [1, 3]);
        for (order, expected) in [
            (Order::InPieces { columns: 3, piece: 2 }, [1., 2., 3., 0., 4., 5., 6., 0.]),
            (Order::ByRow { columns: 3, piece: 2, channels: 1 }, [1., 2., 3., 0., 4., 5., 6., 0.]),
            (Order::ByRow { columns: 3, piece: 2, channels: 2 }, [1., 4., 2., 5., 3., 6., 0., 0.]),
        ] {
            let in_pieces = Packing::Panels { block: 1, k_align: 4, order };
            assert_eq!(in_pieces.len(&wide), 8);
            assert_eq!(in_pieces.pack(&wide, Weights::without_bias(&[1., 2., 3., 4., 5., 6.])), expected);
        }
        // Four channels of two taps in pairs.
        let conv4 = Conv2d::new(4, 1, [1, 2]);
        let by_channels = Packing::Panels { block: 1, k_align: 1, order: Order::ByChannels { together: 2 } };
        let packed = by_channels.pack(&conv4, Weights::without_bias(&[1., 2., 3., 4., 5., 6., 7., 8.]));
        assert_eq!(packed, [1., 3., 2., 4., 5., 7., 6., 8.]);
        // Two channels a tap, padded to three.
        let by_tap = Packing::Panels { block: 2, k_align: 3, order: Order::ByTaps { together: 1 } };
        let packed = by_tap.pack(&conv, Weights::without_bias(&weight));
        assert_eq!(packed.len() as u64, by_tap.len(&conv));
        assert_eq!(packed[..12], [1., 5., 3., 7., 0., 0., 2., 6., 4., 8., 0., 0.]);
        // Both taps together, four k padded to six.
        let by_taps = Packing::Panels { block: 2, k_align: 3, order: Order::ByTaps { together: 2 } };
        let packed = by_taps.pack(&conv, Weights::without_bias(&weight));
        assert_eq!(packed.len() as u64, by_taps.len(&conv));
        assert_eq!(packed[..12], [1., 5., 3., 7., 2., 6., 4., 8., 0., 0., 0., 0.]);
    }

    #[test]
    fn biases_follow_the_panels() {
        let conv = Conv2d::pointwise(2, 6).groups(2);
        let weights = Weights::new(&[], &[1., 2., 3., 4., 5., 6.]);
        assert_eq!(Packing::Bias { block: 4 }.pack(&conv, weights), [1., 2., 3., 0., 4., 5., 6., 0.]);
    }

    #[test]
    fn taps_stand_together() {
        let conv = Conv2d::depthwise(2, [1, 3]);
        let weights = Weights::without_bias(&[1., 2., 3., 4., 5., 6.]);
        assert_eq!(Packing::Taps.pack(&conv, weights), [1., 4., 2., 5., 3., 6.]);
        let in_quads = Packing::BlockTaps { block: 4 };
        let quads = in_quads.pack(&conv, weights);
        assert_eq!(quads, [1., 4., 0., 0., 2., 5., 0., 0., 3., 6., 0., 0.]);
        assert_eq!(quads.len() as u64, in_quads.len(&conv));
    }
}
