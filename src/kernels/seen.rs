//! Runs as kernels see them: the same outputs of the same tensors, by convolutions that are less work or have more
//! kernels.

use super::{Recipe, Run, flat, phases};
use crate::kernels::pack::part::KernelPart;
use crate::model::chain::Link;
use crate::model::conv::Conv2d;
use crate::model::shape::Shape;
use crate::model::transposed::ConvTranspose2d;

/// What kernels see of a run. What one of them refuses it is offered as it stands, too.
///
/// - A transposed convolution of stride 1 is a plain one, whose kernel is upside down.
/// - Rows and columns of a kernel that see only padding are left out: those of a dilated kernel on a small image, or
///   all but the middle of a kernel on a single pixel.
/// - A stride is 1 if there is one output, which sees the image to its end.
/// - Narrow images whose kernels are columns have one row ([`flat`]).
pub struct Seen {
    links: Vec<Link>,
    shapes: Vec<Shape>,
    /// What is packed of the kernel of each of the run's convolutions, if that is not all of it as it is.
    parts: Vec<Option<KernelPart>>,
}

impl Seen {
    /// A run as kernels see it; none if that is as it stands.
    pub fn of(run: &Run<'_>) -> Option<Self> {
        let seen = |(link, shapes): (&Link, &[Shape])| seen_link(link, shapes[0], shapes[1]);
        let seen: Vec<_> = run.links.iter().zip(run.shapes.windows(2)).map(seen).collect();
        let parts = run.links.iter().zip(&seen).flat_map(|(link, (_, part))| link.convolutions().map(|_| *part));
        let parts = parts.collect();
        let links: Vec<_> = seen.into_iter().map(|(link, _)| link).collect();
        match flat::of(&Run { links: &links, ..*run }) {
            Some((links, shapes)) => Some(Self { links, shapes, parts }),
            None if links == run.links => None,
            None => Some(Self { links, shapes: run.shapes.to_vec(), parts }),
        }
    }

    /// The run that kernels see.
    pub fn run<'a>(&'a self, run: &Run<'_>) -> Run<'a> {
        Run { links: &self.links, shapes: &self.shapes, layout: run.layout, elements: run.elements }
    }

    /// Recipes for what kernels see, which pack the weights of the run.
    pub fn packed(&self, mut recipes: Vec<Recipe>) -> Vec<Recipe> {
        for section in recipes.iter_mut().flat_map(|recipe| &mut recipe.weights) {
            section.part = self.parts.get(section.link).copied().flatten();
        }
        recipes
    }
}

fn seen_link(link: &Link, input: Shape, output: Shape) -> (Link, Option<KernelPart>) {
    let (conv, is_transposed) = match link {
        Link::Conv(conv) => (conv.clone(), false),
        Link::ConvTranspose(transposed) => match plain(transposed, input, output) {
            Some(conv) => (conv, true),
            None => return (link.clone(), None),
        },
        _ => return (link.clone(), None),
    };
    let rows = trimmed(&conv, 0, input.height, output.height);
    let columns = trimmed(&conv, 1, input.width, output.width);
    let part = KernelPart {
        before: [rows.left_out[0], columns.left_out[0]],
        behind: [rows.left_out[1], columns.left_out[1]],
        is_transposed,
    };
    let less = Conv2d {
        kernel_size: [rows.taps, columns.taps],
        stride: [rows.stride, columns.stride],
        dilation: [rows.dilation, columns.dilation],
        padding: [rows.padding[0], columns.padding[0], rows.padding[1], columns.padding[1]],
        ..conv.clone()
    };
    // Padding that no output sees is no work.
    let is_less = less.kernel_size != conv.kernel_size || less.stride != conv.stride;
    let seen = if is_less { less } else { conv };
    (seen.into(), (part != KernelPart::default()).then_some(part))
}

/// The plain convolution that gives what a transposed one of stride 1 gives. None where it would have to leave out some
/// of the image, or where `phases` has less to do.
fn plain(transposed: &ConvTranspose2d, input: Shape, output: Shape) -> Option<Conv2d> {
    let conv = &transposed.conv;
    // What all outputs along an axis see is one value.
    let [down, right] = phases::spread(conv, input, output).stride;
    let is_spread = (down > 1 && output.height > 1) || (right > 1 && output.width > 1);
    if conv.stride != [1, 1] || is_spread {
        return None;
    }
    let reach = conv.dilated_kernel().map(|extent| extent - 1);
    let side = |side: usize| {
        let more = if side < 2 { 0 } else { transposed.output_padding[side % 2] };
        let padding = (reach[side % 2] + u64::from(more)).checked_sub(conv.padding[side].into())?;
        u32::try_from(padding).ok()
    };
    let padding = [side(0)?, side(1)?, side(2)?, side(3)?];
    let plain = Conv2d { padding, ..conv.clone() };
    // Padding has a limit.
    (plain.output_shape(input) == Ok(output)).then_some(plain)
}

/// A convolution along an axis, and how many of its first and last taps are left out.
struct Trimmed {
    taps: u32,
    stride: u32,
    dilation: u32,
    padding: [u32; 2],
    left_out: [u16; 2],
}

/// A convolution along an axis without the outer taps that see only padding.
fn trimmed(conv: &Conv2d, axis: usize, extent: u32, outputs: u32) -> Trimmed {
    let [taps, stride, dilation] = [conv.kernel_size[axis], conv.stride[axis], conv.dilation[axis]];
    let padding = [conv.padding[axis], conv.padding[axis + 2]];
    let whole = Trimmed { taps, stride, dilation, padding, left_out: [0; 2] };

    let [extent, before, distance] = [extent, padding[0], dilation].map(i64::from);
    // From the first output to the last. The n-th tap sees what is `n * distance - before` behind an output's place.
    let reach = i64::from(outputs.saturating_sub(1)) * i64::from(stride);
    // If the image began behind the first tap's place there would be less than no padding.
    let first = (((before - reach).max(0) + distance - 1) / distance).min(before / distance);
    let last = ((extent - 1 + before) / distance).min(i64::from(taps) - 1);
    if first > last {
        return whole;
    }
    let (left, before) = (last - first + 1, before - first * distance);
    let behind = reach + (left - 1) * distance + 1 - extent - before;
    let trimmed = Trimmed {
        taps: left as u32,
        // One output has no stride.
        stride: if outputs == 1 && behind >= 0 { 1 } else { stride },
        dilation: if left == 1 { 1 } else { dilation },
        padding: [before, behind.max(0)].map(|count| count as u32),
        left_out: [first, i64::from(taps) - 1 - last].map(|count| count as u16),
    };
    // Rows that no output sees must not become outputs.
    if -behind < i64::from(stride) { trimmed } else { whole }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::elements::Elements;
    use crate::model::shape::Layout;

    /// What kernels see of a link, and what of its kernel is packed.
    fn seen(link: impl Into<Link>, input: [u32; 4]) -> (Link, Option<KernelPart>) {
        let links = [link.into()];
        let shapes = [input.into(), links[0].output_shape(input).unwrap()];
        let run = Run { links: &links, shapes: &shapes, layout: Layout::Nchw, elements: Elements::F32 };
        match Seen::of(&run) {
            Some(seen) => (seen.links[0].clone(), seen.parts[0]),
            None => (links[0].clone(), None),
        }
    }

    fn seen_conv(conv: Conv2d, input: [u32; 4]) -> Conv2d {
        seen(conv, input).0.conv().unwrap().clone()
    }

    /// The place of the input's row that each output sees by each tap of a kernel, or none.
    fn sights(conv: &Conv2d, extent: u32, outputs: u32) -> Vec<Vec<Option<u32>>> {
        let at = |output: u32, tap: u32| {
            let place = (output * conv.stride[1] + tap * conv.dilation[1]).checked_sub(conv.padding[1])?;
            (place < extent).then_some(place)
        };
        (0..outputs).map(|output| (0..conv.kernel_size[1]).map(|tap| at(output, tap)).collect()).collect()
    }

    #[test]
    fn what_is_left_out_sees_nothing() {
        let (mut trimmed, mut strides) = (0, 0);
        for [taps, stride, dilation] in [[1, 2, 1], [2, 1, 3], [3, 1, 1], [3, 2, 1], [3, 1, 4], [4, 3, 2], [7, 2, 3]] {
            for [before, behind, extent] in (0..9 * 9 * 6).map(|n| [n % 9, n / 9 % 9, n / 81 + 1]) {
                let conv = Conv2d::new(2, 3, [1, taps]).stride([1, stride]).dilation([1, dilation]);
                let conv = conv.padding([0, before, 0, behind]);
                let input = [1, 2, 2, extent];
                let Ok(output) = conv.output_shape(input) else { continue };
                let (link, part) = seen(conv.clone(), input);
                let own = link.conv().unwrap();
                assert_eq!(own.output_shape(input), Ok(output), "{conv:?} on {extent}: {own:?}");
                let part = part.unwrap_or_default();
                let [all, left] = [&conv, own].map(|conv| sights(conv, extent, output.width));
                let kept = usize::from(part.before[1])..taps as usize - usize::from(part.behind[1]);
                for (all, left) in all.iter().zip(&left) {
                    assert_eq!(all[kept.clone()], left[..], "{conv:?} on {extent}: {own:?}");
                    let is_left_out = |tap: &usize| !kept.contains(tap);
                    assert!((0..all.len()).filter(is_left_out).all(|tap| all[tap].is_none()), "{conv:?} on {extent}");
                }
                trimmed += usize::from(own.kernel_size != conv.kernel_size);
                strides += usize::from(own.stride != conv.stride);
            }
        }
        assert!(trimmed > 500 && strides > 50, "{trimmed} {strides}");
    }

    #[test]
    fn a_kernel_on_a_pixel_is_a_matrix_product() {
        for conv in
            [Conv2d::new(8, 4, 3).padding(1), Conv2d::new(8, 4, 5).padding(2).stride(2), Conv2d::new(8, 4, 1).stride(2)]
        {
            assert!(seen_conv(conv.clone(), [2, 8, 1, 1]).is_pointwise(), "{conv:?}");
        }
        let dilated = Conv2d::new(8, 4, 3).padding(9).dilation(9);
        assert!(seen_conv(dilated.clone(), [1, 8, 9, 9]).is_pointwise());
        assert_eq!(seen_conv(dilated.clone(), [1, 8, 10, 10]), dilated);
        // Two of three rows, and of three columns.
        let halved = seen_conv(Conv2d::new(8, 4, 3).padding(1).stride(2), [1, 8, 2, 2]);
        assert_eq!(halved, Conv2d::new(8, 4, 2));
    }

    #[test]
    fn columns_beside_padding_are_rows() {
        let conv = seen_conv(Conv2d::new(8, 4, 3).padding(1), [1, 8, 64, 1]);
        assert_eq!(conv, Conv2d::new(8, 4, [1, 3]).padding([0, 1]));
    }

    #[test]
    fn transposed_convolutions_of_stride_1_are_plain() {
        let whole = KernelPart { is_transposed: true, ..KernelPart::default() };
        let transposed =
            ConvTranspose2d::new(8, 4, [3, 5]).padding([0, 1, 2, 3]).dilation([1, 2]).output_padding([0, 1]);
        let plain = Conv2d::new(8, 4, [3, 5]).padding([2, 7, 0, 6]).dilation([1, 2]);
        assert_eq!(seen(transposed, [1, 8, 6, 9]), (plain.into(), Some(whole)));
        // More is cut off than the kernel adds; another stride; all outputs see one value.
        for (transposed, height) in [
            (ConvTranspose2d::new(8, 4, 3).padding([3, 0, 0, 0]), 2),
            (ConvTranspose2d::new(8, 4, 3).stride([1, 2]), 2),
            (ConvTranspose2d::new(8, 4, [3, 1]), 1),
        ] {
            assert_eq!(seen(transposed.clone(), [1, 8, height, 9]), (transposed.into(), None));
        }
        // Of one value one output.
        let (link, part) = seen(ConvTranspose2d::new(8, 4, 3).padding(1), [1, 8, 1, 1]);
        assert!(link.conv().unwrap().is_pointwise());
        assert_eq!(part, Some(KernelPart { before: [1, 1], behind: [1, 1], is_transposed: true }));
    }
}
