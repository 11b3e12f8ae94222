//! A transposed convolution as plain ones: outputs that are a stride apart, a phase, see the same taps of the kernel at
//! neighbouring values of the input (the sub-pixel convolution of Shi et al., arXiv 1609.07009).

use crate::model::conv::Conv2d;

/// Some neighbouring phases along an axis of the output, and the window of the input that they see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// How many phases, and what is in the window.
    pub taps: Taps,
    /// The first of the phases: the output that it begins with.
    pub first: u32,
    /// How far the windows reach out of the image at its start.
    pub before: u32,
    /// Outputs of each.
    pub outputs: u32,
    /// How far the values of the input that an output sees are apart.
    pub dilation: u32,
    /// How far the windows reach out of the image at its end.
    pub behind: u32,
}

/// All that the weights of some phases depend on, beside the kernel: parts of an image, whose padding differs, share
/// packed weights if this is equal. It is small, since a planner holds many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Taps {
    /// How far the first output of the first phase is behind where the kernel of the window's first value begins.
    pub distance: u16,
    /// How many phases there are.
    pub phases: u8,
    /// Values of the input that an output sees.
    pub values: u16,
}

impl Window {
    /// All phases along an axis (0 for rows, 1 for columns) of an input and an output of these extents, in order.
    /// Neighbours are taken together if they are `joined` or see the same, and have as many outputs. Where kernels are
    /// cut off so far that a window would begin behind the first value or end before the last, it is larger than what
    /// is seen. None if it would have more taps than the kernel then, or if numbers are too large.
    pub fn all(conv: &Conv2d, axis: usize, [input, output]: [u32; 2], join: Join) -> Option<Vec<Self>> {
        let step = dilation(conv, axis);
        let mut spans: Vec<Span> = Vec::new();
        for first in 0..conv.stride[axis].min(output) {
            // A phase that sees nothing is taken for one that sees the first value, with weights of zero.
            let seen = seen(conv, axis, first).unwrap_or([0; 2]);
            let span = Span { first, phases: 1, outputs: (output - first).div_ceil(conv.stride[axis]), seen };
            match spans.last_mut() {
                Some(last) if last.takes(&span, join, step) => last.take(&span),
                _ => spans.push(span),
            }
        }
        let window = |span: &Span| {
            let [mut from, mut to] = span.seen;
            let missing = i64::from(input) - i64::from(span.outputs);
            from -= (from.max(0) + step - 1) / step * step;
            to += ((missing - to).max(0) + step - 1) / step * step;
            let values =
                u32::try_from((to - from) / step + 1).ok().filter(|&values| values <= conv.kernel_size[axis])?;
            let distance = i64::from(span.first) + i64::from(conv.padding[axis]) - from * i64::from(conv.stride[axis]);
            let taps = Taps {
                distance: u16::try_from(distance).ok()?,
                phases: u8::try_from(span.phases).ok()?,
                values: u16::try_from(values).ok()?,
            };
            let [before, behind] = [u32::try_from(-from).ok()?, u32::try_from(to - missing).ok()?];
            Some(Self { taps, first: span.first, before, outputs: span.outputs, dilation: step as u32, behind })
        };
        spans.iter().map(window).collect()
    }
}

impl Taps {
    /// The tap of the kernel that a phase multiplies a value of the window by; none if it does not see it.
    pub fn tap(&self, conv: &Conv2d, axis: usize, phase: u8, value: u16) -> Option<u32> {
        let further = i64::from(value) * dilation(conv, axis) * i64::from(conv.stride[axis]);
        let distance = i64::from(self.distance) + i64::from(phase) - further;
        let dilation = i64::from(conv.dilation[axis]);
        let tap = u32::try_from(distance / dilation).ok().filter(|_| distance >= 0 && distance % dilation == 0)?;
        (tap < conv.kernel_size[axis]).then_some(tap)
    }

    /// Whether each phase sees the whole window.
    pub fn is_full(&self, conv: &Conv2d, axis: usize) -> bool {
        (0..self.phases).all(|phase| (0..self.values).all(|value| self.tap(conv, axis, phase, value).is_some()))
    }
}

/// Which phases are taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// None.
    None,
    /// Those that see the same.
    Same,
    /// Also those that do not: what some do not see is multiplied by zero for them.
    All,
}

/// Neighbouring phases, and the first and the last value of the input that the first output of one sees.
struct Span {
    first: u32,
    phases: u32,
    outputs: u32,
    seen: [i64; 2],
}

impl Span {
    fn takes(&self, other: &Self, join: Join, step: i64) -> bool {
        let can_join = match join {
            Join::None => false,
            Join::Same => self.seen == other.seen,
            Join::All => (self.seen[0] - other.seen[0]) % step == 0,
        };
        self.outputs == other.outputs && can_join
    }

    fn take(&mut self, other: &Self) {
        self.phases += other.phases;
        self.seen = [self.seen[0].min(other.seen[0]), self.seen[1].max(other.seen[1])];
    }
}

/// How far the values are apart that an output sees.
fn dilation(conv: &Conv2d, axis: usize) -> i64 {
    i64::from(conv.dilation[axis] / greatest_common_divisor(conv.stride[axis], conv.dilation[axis]))
}

/// The first and the last value of the input that an output sees, were there values on all sides; none if its phase
/// sees none anyway.
fn seen(conv: &Conv2d, axis: usize, output: u32) -> Option<[i64; 2]> {
    let (kernel, stride, dilation) = (conv.kernel_size[axis], conv.stride[axis], conv.dilation[axis]);
    // Taps that are this far apart are of the same phase.
    let step = stride / greatest_common_divisor(stride, dilation);
    let distance = |tap: u32| i64::from(output) + i64::from(conv.padding[axis]) - i64::from(tap) * i64::from(dilation);
    let first = (0..step.min(kernel)).find(|&tap| distance(tap) % i64::from(stride) == 0)?;
    let last = first + (kernel - 1 - first) / step * step;
    Some([last, first].map(|tap| distance(tap) / i64::from(stride)))
}

/// The largest number that divides both, not both of which are zero.
pub fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// The plain convolution that gives the phases of two windows, its channels `[phase][output channel]`.
pub fn product(conv: &Conv2d, [rows, columns]: [Window; 2]) -> Conv2d {
    Conv2d {
        stride: [1; 2],
        padding: [rows.before, columns.before, rows.behind, columns.behind],
        dilation: [rows.dilation, columns.dilation],
        ..of_taps(conv, [rows.taps, columns.taps])
    }
}

/// A convolution with as many channels and taps as that has.
pub fn of_taps(conv: &Conv2d, taps: [Taps; 2]) -> Conv2d {
    let phases = taps.iter().map(|taps| u32::from(taps.phases)).product();
    Conv2d { kernel_size: taps.map(|taps| taps.values.into()), ..copies(conv, phases) }
}

/// The convolution with the output channels of some phases. Several phases have them in one group.
pub fn copies(conv: &Conv2d, phases: u32) -> Conv2d {
    Conv2d { out_channels: conv.out_channels.saturating_mul(phases), ..conv.clone() }
}

/// The weights of that convolution, `[phase][output channel][input channel of the group][row][column]`, of those of the
/// transposed one in the order `[output channel][input channel of the group][tap]`.
pub fn weights(conv: &Conv2d, weight: &[f32], [rows, columns]: [Taps; 2]) -> Vec<f32> {
    let [kernel_height, kernel_width] = conv.kernel_size.map(|extent| extent as usize);
    let taps = |taps: &Taps, axis: usize, phase: u8| -> Vec<Option<usize>> {
        (0..taps.values).map(|value| taps.tap(conv, axis, phase, value).map(|tap| tap as usize)).collect()
    };
    let mut packed = Vec::new();
    for (down, right) in (0..rows.phases).flat_map(|down| (0..columns.phases).map(move |right| (down, right))) {
        let (of_rows, of_columns) = (taps(&rows, 0, down), taps(&columns, 1, right));
        for kernel in weight.chunks_exact((kernel_height * kernel_width).max(1)) {
            for row in &of_rows {
                let value = |column: &Option<usize>| row.zip(*column).map(|(y, x)| kernel[y * kernel_width + x]);
                packed.extend(of_columns.iter().map(|column| value(column).unwrap_or(0.0)));
            }
        }
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::transposed::ConvTranspose2d;

    /// Convolutions and the extents of an image's side: strides, dilations and paddings of all kinds.
    fn sides() -> impl Iterator<Item = (ConvTranspose2d, u32)> {
        let sizes = (1..=6).flat_map(|kernel| (1..=5).map(move |stride| (kernel, stride)));
        let sizes = sizes.flat_map(|(kernel, stride)| (1..=4).map(move |dilation| (kernel, stride, dilation)));
        sizes.flat_map(|(kernel, stride, dilation)| {
            let paddings = [[0, 0], [1, 1], [2, 0], [0, 3], [kernel, 1], [9, 2]];
            paddings.into_iter().flat_map(move |[left, right]| {
                let conv = ConvTranspose2d::new(1, 1, [1, kernel]).stride([1, stride]).dilation([1, dilation]);
                let conv = conv.padding([0, left, 0, right]);
                [1, 4, 7].into_iter().flat_map(move |extent| {
                    [0, stride.max(dilation) - 1].map(|more| (conv.clone().output_padding([0, more]), extent))
                })
            })
        })
    }

    /// Each product of a value and a tap that the definition adds to an output is in the output's phase, and no other.
    #[test]
    fn phases_see_what_the_definition_says() {
        let (mut checked, mut refused) = (0, 0);
        for ((conv, extent), join) in
            sides().flat_map(|side| [Join::None, Join::Same, Join::All].map(|join| (side.clone(), join)))
        {
            let Ok(output) = conv.output_shape([1, 1, 1, extent]) else { continue };
            let conv = &conv.conv;
            let Some(windows) = Window::all(conv, 1, [extent, output.width], join) else {
                refused += 1;
                continue;
            };
            let mut found = Vec::new();
            for window in &windows {
                let plain = product(conv, [*window; 2]);
                let image = [1, 1, extent, extent];
                assert_eq!(plain.output_shape(image).unwrap().width, window.outputs, "{conv:?} on {extent}");
                for (phase, number) in
                    (0..window.taps.phases).flat_map(|phase| (0..window.outputs).map(move |n| (phase, n)))
                {
                    let values = (0..window.taps.values).filter_map(|value| {
                        let tap = window.taps.tap(conv, 1, phase, value)?;
                        Some((i64::from(number + u32::from(value) * window.dilation) - i64::from(window.before), tap))
                    });
                    let inside = values.filter(|(at, _)| (0..i64::from(extent)).contains(at));
                    let place = number * conv.stride[1] + window.first + u32::from(phase);
                    found.extend(inside.map(|(at, tap)| (place, at as u32, tap)));
                }
            }
            let reach = |at: u32, tap: u32| {
                i64::from(at * conv.stride[1] + tap * conv.dilation[1]) - i64::from(conv.padding[1])
            };
            let products = (0..extent).flat_map(|at| (0..conv.kernel_size[1]).map(move |tap| (at, tap)));
            let mut expected: Vec<_> = products
                .filter(|&(at, tap)| (0..i64::from(output.width)).contains(&reach(at, tap)))
                .map(|(at, tap)| (reach(at, tap) as u32, at, tap))
                .collect();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{conv:?} on {extent}: {windows:?}");
            checked += 1;
        }
        assert!(checked > 5 * refused && refused > 0, "{checked} checked, {refused} refused");
    }

    /// Of the usual kinds, whose windows begin and end where the image does or outside.
    #[test]
    fn phases_that_see_the_same_are_taken_together() {
        let windows = |conv: ConvTranspose2d, join| {
            let output = conv.output_shape([1, 1, 1, 8]).unwrap().width;
            let windows = Window::all(&conv.conv, 1, [8, output], join).unwrap();
            let full = windows.iter().all(|window| window.taps.is_full(&conv.conv, 1));
            assert!(full || join == Join::All, "{conv:?}");
            windows
                .iter()
                .map(|Window { taps, before, behind, .. }| (taps.phases, taps.values, [*before, *behind]))
                .collect::<Vec<_>>()
        };
        let conv = |kernel, stride, padding, more| {
            let [kernel, stride, more] = [kernel, stride, more].map(|along| [1, along]);
            let stride = if stride[1] > 1 { stride } else { [1, 1] };
            ConvTranspose2d::new(1, 1, kernel).stride(stride).padding([0, padding]).output_padding([0, more[1]])
        };
        assert_eq!(windows(conv(2, 2, 0, 0), Join::Same), [(2, 1, [0, 0])]);
        assert_eq!(windows(conv(2, 2, 0, 0), Join::None), [(1, 1, [0, 0]); 2]);
        assert_eq!(windows(conv(4, 2, 1, 0), Join::Same), [(1, 2, [1, 0]), (1, 2, [0, 1])]);
        assert_eq!(windows(conv(4, 2, 1, 0), Join::All), [(2, 3, [1, 1])]);
        assert_eq!(windows(conv(3, 2, 1, 1), Join::Same), [(1, 1, [0, 0]), (1, 2, [0, 1])]);
        // The last phase has an output less than the others.
        assert_eq!(windows(conv(9, 4, 3, 0), Join::All), [(3, 3, [1, 1]), (1, 2, [0, 0])]);
        assert_eq!(windows(conv(3, 1, 1, 0), Join::Same), [(1, 3, [1, 1])]);
    }

    /// The bands of a transposed convolution differ in their padding, and share weights if their taps are equal.
    #[test]
    fn equal_taps_are_equal_weights() {
        let kernel: Vec<f32> = (1..=6).map(|tap| tap as f32).collect();
        let mut known = std::collections::HashMap::new();
        let row = Taps { distance: 0, phases: 1, values: 1 };
        for ((own, extent), join) in sides().flat_map(|side| [Join::Same, Join::All].map(|join| (side.clone(), join))) {
            let Ok(output) = own.output_shape([1, 1, 1, extent]) else { continue };
            let conv = &own.conv;
            for window in Window::all(conv, 1, [extent, output.width], join).unwrap_or_default() {
                let packed = weights(conv, &kernel[..conv.kernel_size[1] as usize], [row, window.taps]);
                let key = (conv.kernel_size, conv.stride, conv.dilation, window.taps);
                assert_eq!(known.entry(key).or_insert_with(|| packed.clone()), &packed, "{conv:?}: {window:?}");
            }
        }
        assert!(known.len() > 100, "{}", known.len());
    }

    #[test]
    fn weights_go_to_the_phases_that_see_them() {
        // Taps 1 to 3 of two output channels; the second phase sees only the second tap.
        let conv = ConvTranspose2d::new(1, 2, [1, 3]).stride([1, 2]);
        let window = |join| Window::all(&conv.conv, 1, [4, 9], join).unwrap();
        let row = Taps { distance: 0, phases: 1, values: 1 };
        let packed = |window: Window| weights(&conv.conv, &[1., 2., 3., 4., 5., 6.], [row, window.taps]);
        let [first, second] = window(Join::Same)[..] else { panic!("two phases") };
        assert_eq!(packed(first), [3., 1., 6., 4.]);
        assert_eq!(packed(second), [2., 5.]);
        // On an image that is as long for both.
        let [both] = Window::all(&conv.conv, 1, [4, 8], Join::All).unwrap()[..] else { panic!("one window") };
        assert_eq!(packed(both), [3., 1., 6., 4., 0., 2., 0., 5.]);
        assert!(!both.taps.is_full(&conv.conv, 1) && first.taps.is_full(&conv.conv, 1));
    }
}
