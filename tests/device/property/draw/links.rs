//! Strategies for links other than convolutions.

use gpuconv::{ConvTranspose2d, Operation, Pool2d, Resize, Shape};
use proptest::prelude::*;
use proptest::sample::select;

use super::{Sizes, Subject, Window, epilogues, forms, input_of, sizes, subject, windows};

/// A pool over windows.
pub fn window_pool() -> impl Strategy<Value = Pool2d> {
    (windows(), 0..3, any::<bool>()).prop_map(|(window, mode, ceil_mode)| {
        let Window { kernel_size, stride, dilation, padding } = window;
        let pool = match mode {
            0 => Pool2d::max(kernel_size).dilation(dilation),
            _ => Pool2d::average(kernel_size).count_include_pad(mode == 1),
        };
        let padding: [u32; 4] = std::array::from_fn(|side| padding[side].min(kernel_size[side % 2] / 2));
        pool.stride(stride).padding(padding).ceil_mode(ceil_mode)
    })
}

pub fn window_pools() -> impl Strategy<Value = Vec<Subject>> {
    (window_pool(), sizes(), forms()).prop_map(|(pool, sizes, form)| {
        let make = |sizes: &Sizes| {
            let values = u64::from(pool.kernel_size[0]) * u64::from(pool.kernel_size[1]);
            let work = |input| pool.output_shape(input).map_or(0, |output| output.len() * values);
            let input = input_of(pool.dilated_kernel(), pool.padding, sizes, work);
            subject(Operation::Pool2d(pool.clone()), input, form)
        };
        sizes.iter().map(make).collect()
    })
}

/// A resize.
pub fn resize() -> impl Strategy<Value = Resize> {
    let factor = || prop_oneof![select(vec![0.5, 1.0, 1.5, 2.0, 3.0]), 0.3..2.5];
    let to = prop_oneof![
        [1u32..=24, 1u32..=24].prop_map(Resize::to),
        factor().prop_map(Resize::by),
        [factor(), factor()].prop_map(Resize::by_factors),
    ];
    (to, 0..3).prop_map(|(resize, mode)| match mode {
        0 => resize,
        _ => resize.bilinear(mode == 1),
    })
}

pub fn resizes() -> impl Strategy<Value = Vec<Subject>> {
    (resize(), sizes(), forms()).prop_map(|(resize, sizes, form)| {
        let make = |&Sizes { inputs, batch, extents, .. }: &Sizes| {
            // A factor of 0.3 leaves something of four rows.
            let [height, width] = extents.map(|extent| extent.max(4));
            subject(Operation::Resize(resize), Shape { batch, channels: inputs, height, width }, form)
        };
        sizes.iter().map(make).collect()
    })
}

pub fn transposed() -> impl Strategy<Value = Vec<Subject>> {
    let groups = prop_oneof![3 => Just(1u32), 1 => 2u32..=4];
    let numbers = (windows(), epilogues(), groups, [0u32..4, 0u32..4]);
    (numbers, sizes(), forms()).prop_map(|((window, epilogue, groups, more), sizes, form)| {
        let Window { kernel_size, stride, dilation, padding } = window;
        let make = |sizes: &Sizes| {
            let [inputs, outputs] = [sizes.inputs, sizes.outputs].map(|count| count.next_multiple_of(groups));
            let mut conv = ConvTranspose2d::new(inputs, outputs, kernel_size).stride(stride).dilation(dilation);
            // Half of the kernel on each side leaves something of a single pixel.
            let half = conv.conv.dilated_kernel().map(|extent| (extent as u32 - 1) / 2);
            let padding: [u32; 4] = std::array::from_fn(|side| padding[side].min(half[side % 2]));
            let output_padding = [0, 1].map(|axis| more[axis] % stride[axis].max(dilation[axis]));
            conv = conv.padding(padding).output_padding(output_padding).groups(groups);
            conv = conv.bias(epilogue.bias).activation(epilogue.activation);
            let weights = u64::from(outputs / groups) * u64::from(kernel_size[0] * kernel_size[1]);
            let work =
                |input: Shape| conv.output_shape(input).map_or(0, |output| output.len().max(input.len() * weights));
            let input = input_of([1, 1], [0; 4], &Sizes { inputs, ..*sizes }, work);
            subject(Operation::ConvTranspose(conv), input, form)
        };
        sizes.iter().map(make).collect()
    })
}

/// Pixel shuffles, and what undoes them.
pub fn shuffles() -> impl Strategy<Value = Vec<Subject>> {
    (1u32..=4, any::<bool>(), sizes(), forms()).prop_map(|(factor, shuffles, sizes, form)| {
        let make = |&Sizes { inputs, batch, extents: [height, width], .. }: &Sizes| {
            let many = Shape { batch, channels: inputs.min(16) * factor * factor, height, width };
            let large =
                Shape { batch, channels: inputs, height: height.min(20) * factor, width: width.min(20) * factor };
            match shuffles {
                true => subject(Operation::PixelShuffle(factor), many, form),
                false => subject(Operation::PixelUnshuffle(factor), large, form),
            }
        };
        sizes.iter().map(make).collect()
    })
}
