//! What rows or columns of a link's output depend on, and how the link computes these alone.

use std::ops::Range;

use crate::model::chain::Link;
use crate::model::pool::Pool2d;
use crate::model::resize::Resize;
use crate::model::shape::Shape;

/// How rows (axis 0) or columns (axis 1) of an output depend on those of the input.
#[derive(Clone, Copy, Debug)]
pub enum Reach {
    /// Each on a window; the windows are a stride apart.
    Windows { extent: i64, stride: i64, padding: [u32; 2], is_padded_by_zeros: bool },
    /// Each on what lies at most a kernel before it. What the kernel is laid on is a stride apart in the output, which
    /// lacks the first few.
    Kernels { extent: i64, stride: i64, cut: i64 },
    /// As many as the factor on one.
    Shuffled { factor: i64 },
    /// Each on the nearest, or on two beside it.
    Resized { resize: Resize, axis: usize, shapes: [Shape; 2] },
}

/// What some rows or columns of an output depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Of the input; they may lie outside of it, in the padding.
    pub inputs: Range<i64>,
    /// The padding of the link that computes these alone, before and behind.
    pub padding: [u32; 2],
    /// Its output padding.
    pub output_padding: u32,
}

impl Reach {
    /// That of a link between tensors of these shapes; none if an output depends on all of the image.
    pub fn of(link: &Link, axis: usize, shapes: [Shape; 2]) -> Option<Self> {
        let windows = |extent: u64, stride: u32, padding: [u32; 4]| Self::Windows {
            extent: extent as i64,
            stride: stride.into(),
            padding: [padding[axis], padding[axis + 2]],
            is_padded_by_zeros: !matches!(link, Link::Pool(_)),
        };
        match link {
            Link::Conv(conv) => Some(windows(conv.dilated_kernel()[axis], conv.stride[axis], conv.padding)),
            Link::Pool(pool) => {
                let Pool2d { stride, padding, .. } = *pool;
                Some(windows(pool.dilated_kernel()[axis], stride[axis], padding))
            }
            Link::PRelu(_) | Link::Slice { .. } => Some(windows(1, 1, [0; 4])),
            Link::PixelUnshuffle { factor } => Some(windows((*factor).into(), *factor, [0; 4])),
            Link::ConvTranspose(transposed) => {
                let conv = &transposed.conv;
                let extent = conv.dilated_kernel()[axis] as i64;
                Some(Self::Kernels { extent, stride: conv.stride[axis].into(), cut: conv.padding[axis].into() })
            }
            Link::PixelShuffle { factor } => Some(Self::Shuffled { factor: (*factor).into() }),
            Link::Resize(resize) => Some(Self::Resized { resize: *resize, axis, shapes }),
            Link::Concat(_) | Link::GlobalAveragePool | Link::SqueezeExcite(_) | Link::PlaneSum { .. } => None,
        }
    }

    /// The most rows or columns of the input that some neighbours in the output need.
    pub fn most(self, outputs: i64) -> i64 {
        match self {
            Self::Windows { extent, stride, .. } => (outputs - 1) * stride + extent,
            Self::Kernels { extent, stride, .. } => (outputs + extent.max(stride) - 2) / stride + 1,
            Self::Shuffled { factor } => (outputs - 1) / factor + 1,
            // The last may be on two, and places are rounded.
            Self::Resized { resize, axis, shapes: [input, output] } => {
                ((outputs - 1) as f64 * f64::from(resize.distances(input, output)[axis])).ceil() as i64 + 3
            }
        }
    }

    /// How many inputs further on the next output begins, if more than one.
    pub fn stride(self) -> u64 {
        if let Self::Windows { stride, .. } = self { stride.unsigned_abs() } else { 1 }
    }

    /// A number of outputs that bands should be multiples of, so that they begin where an input does.
    pub fn multiple(self) -> u32 {
        match self {
            Self::Kernels { stride: count, .. } | Self::Shuffled { factor: count } => count as u32,
            Self::Windows { .. } | Self::Resized { .. } => 1,
        }
    }

    /// What a range of outputs depends on, where the image has this many rows or columns; none if that is nothing, or
    /// if the link cannot compute these alone. `keeps_zeros` says whether zeros around the image may be part of it, as
    /// a copy makes them.
    pub fn needed(self, outputs: &Range<i64>, image: i64, keeps_zeros: bool) -> Option<Needed> {
        let count = outputs.end - outputs.start;
        match self {
            Self::Windows { extent, stride, padding, is_padded_by_zeros } => {
                let start = outputs.start * stride - i64::from(padding[0]);
                let inputs = start..start + (count - 1) * stride + extent;
                if keeps_zeros && is_padded_by_zeros {
                    return Some(Needed { inputs, padding: [0; 2], output_padding: 0 });
                }
                let inside = inputs.start.max(0)..inputs.end.min(image);
                let outside = [inside.start - inputs.start, inputs.end - inside.end].map(|count| count as u32);
                // The last window of a pool may reach beyond its padding.
                let padding = [outside[0], outside[1].min(padding[1])];
                (!inside.is_empty()).then_some(Needed { inputs: inside, padding, output_padding: 0 })
            }
            Self::Kernels { extent, stride, cut } => {
                // From where the first kernel begins.
                let [start, last] = [outputs.start, outputs.end - 1].map(|output| output + cut);
                // It begins no later than the first output, even if none reaches that.
                let first = (start - extent).div_euclid(stride) + 1;
                let first = first.min(start / stride).clamp(0, image - 1);
                let inputs = first..(last / stride).clamp(first, image - 1) + 1;
                let before = start - first * stride;
                let reached = (inputs.end - 1 - first) * stride + extent - before;
                let padding = [before as u32, (reached - count).max(0) as u32];
                Some(Needed { inputs, padding, output_padding: (count - reached).max(0) as u32 })
            }
            Self::Shuffled { factor } => {
                let is_whole = outputs.start % factor == 0 && outputs.end % factor == 0;
                let inputs = outputs.start / factor..outputs.end / factor;
                is_whole.then_some(Needed { inputs, padding: [0; 2], output_padding: 0 })
            }
            Self::Resized { resize, axis, shapes: [input, output] } => {
                let outputs = u32::try_from(outputs.start).ok()?..u32::try_from(outputs.end).ok()?;
                let inputs = resize.sources(axis, outputs, input, output);
                let inputs = inputs.start.into()..inputs.end.into();
                Some(Needed { inputs, padding: [0; 2], output_padding: 0 })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::resize::ResizeTo;
    use crate::model::transposed::ConvTranspose2d;

    /// All of the image, or nothing, that an output of a transposed convolution depends on, by its definition.
    fn sources(output: i64, image: i64, conv: &ConvTranspose2d) -> Vec<i64> {
        let conv = &conv.conv;
        let [kernel, stride, dilation] = [conv.kernel_size, conv.stride, conv.dilation].map(|own| i64::from(own[0]));
        let is_tap = |source: &i64| {
            let distance = output + i64::from(conv.padding[0]) - source * stride;
            distance >= 0 && distance % dilation == 0 && distance / dilation < kernel
        };
        (0..image).filter(is_tap).collect()
    }

    #[test]
    fn parts_of_transposed_convolutions_see_what_the_whole_sees() {
        let numbers = (1..5u32).flat_map(|kernel| (1..5u32).map(move |stride| (kernel, stride)));
        let numbers = numbers.flat_map(|(kernel, stride)| (1..4u32).map(move |dilation| (kernel, stride, dilation)));
        let numbers =
            numbers.flat_map(|(kernel, stride, dilation)| (0..6u32).map(move |cut| (kernel, stride, dilation, cut)));
        let mut checked = 0;
        for (kernel, stride, dilation, cut) in numbers {
            for output_padding in 0..stride.max(dilation) {
                let conv = ConvTranspose2d::new(1, 1, [kernel, 1]).stride([stride, 1]).dilation([dilation, 1]);
                let conv = conv.padding([cut, 0]).output_padding([output_padding, 0]);
                let input = Shape::from([1, 1, 7, 1]);
                let Ok(output) = conv.output_shape(input) else { continue };
                let reach = Reach::of(&conv.clone().into(), 0, [input, output]).unwrap();
                for (start, end) in (0..output.height).flat_map(|start| [1, 2, 5].map(|count| (start, start + count))) {
                    if end > output.height {
                        continue;
                    }
                    let what = format!("{conv:?}: {start}..{end}");
                    let outputs = i64::from(start)..i64::from(end);
                    let needed = reach.needed(&outputs, 7, true).unwrap();
                    let inputs = needed.inputs.clone();
                    assert!(inputs.start >= 0 && inputs.end <= 7 && !inputs.is_empty(), "{what}: {inputs:?}");
                    assert!(inputs.end - inputs.start <= reach.most(i64::from(end - start)), "{what}: {inputs:?}");
                    let part = part_of(&conv, &needed);
                    let count = (inputs.end - inputs.start) as u32;
                    let shape = part.output_shape([1, 1, count, 1]);
                    assert_eq!(shape.as_ref().map(|shape| shape.height), Ok(end - start), "{what}: {needed:?}");
                    for output in outputs.clone() {
                        let own = sources(output - outputs.start, count.into(), &part);
                        let own: Vec<_> = own.into_iter().map(|source| source + inputs.start).collect();
                        assert_eq!(own, sources(output, 7, &conv), "{what}: {output}, {needed:?}");
                    }
                    checked += 1;
                }
            }
        }
        assert!(checked > 1000, "{checked}");
    }

    fn part_of(conv: &ConvTranspose2d, needed: &Needed) -> ConvTranspose2d {
        let mut part = conv.clone().output_padding([needed.output_padding, 0]);
        part.conv.padding = [needed.padding[0], 0, needed.padding[1], 0];
        part
    }

    #[test]
    fn parts_of_resizes_need_no_more_than_the_most() {
        let input = Shape::from([1, 1, 97, 1]);
        for factor in [0.03, 0.5, 0.7, 1.0, 1.3, 2.0, 5.0] {
            for resize in [Resize::by(factor), Resize::by(factor).bilinear(false), Resize::by(factor).bilinear(true)] {
                let resize = Resize { to: ResizeTo::Factor([factor, 1.0]), ..resize };
                let output = resize.output_shape(input).unwrap();
                let reach = Reach::of(&Link::Resize(resize), 0, [input, output]).unwrap();
                for (start, count) in (0..output.height).flat_map(|start| [1, 2, 7].map(|count| (start, count))) {
                    let end = (start + count).min(output.height);
                    let inputs = reach.needed(&(start.into()..end.into()), 97, true).unwrap().inputs;
                    let needed = inputs.end - inputs.start;
                    assert!(0 < needed && needed <= reach.most((end - start).into()), "{resize:?}: {start}..{end}");
                    assert!(inputs.start >= 0 && inputs.end <= 97, "{resize:?}: {inputs:?}");
                }
            }
        }
    }

    #[test]
    fn parts_of_shuffles_begin_and_end_where_an_input_does() {
        let shapes = [[1, 4, 6, 6], [1, 1, 12, 12]].map(Shape::from);
        let reach = Reach::of(&Link::PixelShuffle { factor: 2 }, 1, shapes).unwrap();
        let inputs = |outputs: Range<i64>| reach.needed(&outputs, 6, true).map(|needed| needed.inputs);
        assert_eq!([inputs(4..10), inputs(0..12), inputs(3..6), inputs(2..5)], [Some(2..5), Some(0..6), None, None]);
        assert_eq!([reach.most(6), reach.most(5), i64::from(reach.multiple())], [3, 3, 2]);
        let back = Reach::of(&Link::PixelUnshuffle { factor: 3 }, 0, [shapes[1], [1, 9, 4, 4].into()]).unwrap();
        assert_eq!(back.needed(&(1..3), 12, true).unwrap().inputs, 3..9);
        assert_eq!(back.most(2), 6);
    }
}
