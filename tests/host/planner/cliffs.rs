//! Shapes beside others that are computed in no time: neighbours must not take many times as long for a multiply-add.

use gpuconv::planner;
use gpuconv::{Caps, Choice};

use super::{cpu, devices, makes, named, parse, plan};

const LAYOUTS: [&str; 2] = ["", " nhwc"];

/// Seconds for a multiply-add, by the model.
fn rate(line: &str, caps: &Caps) -> f64 {
    let problem = parse(line);
    let cost = gpuconv::cost::chain(&problem.chain(), problem.input).unwrap();
    plan(line, caps, Choice::Auto).unwrap().seconds() / cost.mult_adds as f64
}

#[test]
fn software_devices_have_no_slow_kernel_size_or_dilation() {
    for layout in LAYOUTS {
        let seven = rate(&format!("depthwise 1x64x56x56 k7 p3{layout}"), &cpu());
        for half in [4, 5, 6, 7, 10, 15] {
            let line = format!("depthwise 1x64x56x56 k{} p{half}{layout}", 2 * half + 1);
            assert!(rate(&line, &cpu()) < 2.0 * seven, "{line}");
        }
        let two = rate(&format!("depthwise 1x64x56x56 k3 p2 d2{layout}"), &cpu());
        for dilation in 3..=31 {
            let line = format!("depthwise 1x64x56x56 k3 p{dilation} d{dilation}{layout}");
            assert!(rate(&line, &cpu()) < 2.0 * two, "{line}");
        }
    }
}

/// A strip of a whole row knows what of it sees the image.
#[test]
fn software_devices_have_no_slow_width_of_a_dilated_image() {
    for (width, dilation) in [(7, 2), (7, 4), (8, 4), (14, 4), (28, 8), (33, 12), (65, 24), (65, 36), (80, 18)] {
        for (kernel, layout) in [(2, ""), (3, ""), (3, " nhwc")] {
            let of = |dilation: u32| {
                let reach = dilation * (kernel - 1);
                let (before, behind) = (reach / 2, reach - reach / 2);
                format!(
                    "depthwise 8x64x{width}x{width} k{kernel} p{before},{before},{behind},{behind} d{dilation}{layout}"
                )
            };
            let times = rate(&of(dilation), &cpu()) / rate(&of(1), &cpu());
            assert!(times < 1.6, "{} takes {times:.2} times as long as undilated", of(dilation));
        }
    }
}

#[test]
fn few_channels_of_a_group_cost_at_most_twice_as_many() {
    for layout in LAYOUTS {
        let [sixteen, thirty_two] =
            ["g16", "g32"].map(|groups| rate(&format!("conv 1x64x56x56 -> 64 k3 p1 {groups}{layout}"), &cpu()));
        assert!(thirty_two < 2.0 * sixteen, "{layout}");
    }
}

/// Beside `direct`, which loads every value for every output.
#[test]
fn groups_of_three_channels_have_a_kernel() {
    for layout in LAYOUTS {
        let problem = parse(&format!("conv 1x12x128x128 -> 12 k3 p1 g4{layout}"));
        for (device, caps) in devices().into_iter().filter(|(device, _)| *device != "webgpu") {
            let all = planner::alternatives(&problem.chain(), problem.input, problem.layout, &caps).unwrap();
            let others = all.iter().filter(|schedule| !schedule.name().starts_with("direct")).count();
            assert!(others > 0, "{problem} on {device}");
        }
    }
}

/// Neighbouring invocations of a GPU store neighbours, or nearly: wide strips took twice the time on the first that was
/// measured.
#[test]
fn gpus_have_narrow_strips_where_memory_is_the_bound() {
    for line in ["depthwise 32x128x56x56 k3 p1 relu6", "depthwise 32x32x112x112 k3 p1"] {
        for (device, caps) in makes() {
            let name = plan(line, &caps, Choice::Auto).unwrap().name();
            let is_narrow = name.starts_with("direct/") || name.ends_with("x1") || name.ends_with("x2");
            assert!(is_narrow, "{line}: {name} on {device}");
        }
    }
}

/// Rows of a strip share their inputs. Where a GPU has enough outputs to fill it, strips have several.
#[test]
fn gpus_compute_large_and_dilated_kernels_by_several_rows() {
    for line in ["k9 p4", "k31 p15", "k3 p16 d16"] {
        for layout in LAYOUTS {
            let line = format!("depthwise 8x64x56x56 {line}{layout}");
            for (device, caps) in makes() {
                let name = plan(&line, &caps, Choice::Auto).unwrap().name();
                assert!(
                    name.starts_with("depthwise/") && !name.starts_with("depthwise/1x"),
                    "{line}: {name} on {device}"
                );
            }
        }
    }
}

/// Where a device cannot run the usual recipes, others take their place, and not `direct` alone.
#[test]
fn what_a_device_cannot_run_has_a_substitute() {
    let of = |name: &str| makes().into_iter().find(|(make, _)| *make == name).map(|(_, caps)| caps).unwrap();
    for (device, line, kernel) in [
        // Neighbours share no column, or rows take too many registers.
        ("adreno-740", "conv 1x3x64x64 -> 32 k3 s4", "implicit_gemm"),
        ("adreno-740", "conv 1x10x64x64 -> 32 k3 p30 d30", "implicit_gemm"),
        ("apple-m1", "conv 1x24x64x64 -> 64 k5 p8 d4", "implicit_gemm"),
        // Blocks of eight channels have no registers, or the kernel is too wide for them.
        ("mali-g710", "pointwise 1x100x56x56 -> 16", "pointwise_uniform"),
        ("mali-g710", "conv 1x12x32x32 -> 16 k3 p1", "implicit_gemm_uniform"),
        ("rtx-4090", "conv 1x16x64x64 -> 8 k9 p4", "implicit_gemm_uniform"),
        ("rtx-4090", "conv 1x16x64x64 -> 6 k3 p1 nhwc", "implicit_gemm_uniform"),
        // Slices of channels that do not divide evenly, and few outputs.
        ("rx-7900-xtx", "conv 1x513x20x20 -> 100 k3 p1", "split"),
        ("rtx-4090", "conv 1x576x9x9 -> 3 k5 p2", "split"),
        ("rtx-4090", "conv 1x64x56x56 -> 2 k3 p1", "winograd"),
        ("rtx-4090", "conv 1x64x28x28 -> 2 k3 p2 d2", "split"),
    ] {
        let found = plan(line, &of(device), named(kernel));
        assert!(found.is_ok(), "{device}: {line}: {:?}", found.err());
    }
}

/// One channel more or less must not take away the kernel that fits.
#[test]
fn a_channel_more_or_less_is_no_cliff() {
    assert_no_cliffs(&[
        ("conv 1x1024x32x32 -> 96 k11x1 p5,0,5,0 s2", "conv 1x1025x32x32 -> 96 k11x1 p5,0,5,0 s2", 1.5),
        ("pointwise 1x960x20x20 -> 16", "pointwise 1x961x20x20 -> 16", 1.5),
        ("conv 4x576x8x56 -> 4 k5 p16 d8", "conv 4x576x8x56 -> 3 k5 p16 d8", 1.5),
        ("conv 1x64x56x56 -> 4 k3 p1", "conv 1x64x56x56 -> 3 k3 p1", 1.5),
        ("conv 2x960x20x20 -> 320 k3x1 p1,0,1,0", "conv 2x960x20x21 -> 320 k3x1 p1,0,1,0", 1.5),
        ("conv 1x128x28x28 -> 2 k3 p2 d2", "conv 1x64x28x28 -> 2 k3 p2 d2", 1.2),
        ("conv 1x128x56x56 -> 1 k5 p2", "conv 1x64x56x56 -> 1 k5 p2", 1.2),
        // Blocks have four channels.
        ("conv 1x384x56x56 -> 4 k11 p5", "conv 1x384x56x56 -> 5 k11 p5", 2.2),
    ]);
}

/// Rows that are too long for a block come in pieces.
#[test]
fn wide_kernels_cost_about_as_much_as_narrow_ones() {
    for (width, output, tail) in
        [(9, 8, ""), (11, 8, ""), (13, 4, ""), (13, 4, " nhwc"), (13, 4, " d4"), (21, 16, ""), (31, 8, "")]
    {
        let dilation = if tail == " d4" { 4 } else { 1 };
        let of = |width: u32| format!("conv 1x64x56x56 -> {output} k{width} p{}{tail}", dilation * (width / 2));
        let [narrow, wide] = [7, width].map(of);
        for (device, caps) in makes() {
            let times = rate(&wide, &caps) / rate(&narrow, &caps);
            assert!(times < 1.4, "{device}: {wide} takes {times:.2} times k7 for a multiply-add");
        }
    }
}

/// Generators and the narrow end of a U-Net: small images of many channels, beside the plain convolution the other way,
/// which has the same multiply-adds.
#[test]
fn small_images_are_enlarged_as_fast_as_they_are_made_smaller() {
    assert_no_cliffs(&[
        ("conv 1x256x8x8 -> 512 k4 s2 p1", "transposed 1x512x4x4 -> 256 k4 s2 p1", 2.0),
        ("conv 1x128x16x16 -> 256 k4 s2 p1 nhwc", "transposed 1x256x8x8 -> 128 k4 s2 p1 nhwc", 2.0),
        ("conv 1x512x16x16 -> 1024 k2 s2", "transposed 1x1024x8x8 -> 512 k2 s2", 2.0),
        ("conv 8x512x2x1 -> 3 k5 p2", "transposed 8x512x2x1 -> 3 k5 p2", 1.5),
    ]);
}

/// Beside the same convolutions without the taps that see only padding.
#[test]
fn taps_that_see_only_padding_cost_nothing() {
    assert_no_cliffs(&[
        ("pointwise 1x512x1x1 -> 512", "conv 1x512x1x1 -> 512 k3 p1", 1.01),
        ("pointwise 4x512x1x1 -> 512 nhwc", "conv 4x512x1x1 -> 512 k5 s2 p2 nhwc", 1.01),
        ("conv 1x256x2x2 -> 512 k2", "conv 1x256x2x2 -> 512 k3 s2 p1", 1.01),
        ("pointwise 1x2048x32x32 -> 256", "conv 1x2048x32x32 -> 256 k3 p36 d36", 1.01),
        ("conv 1x512x3200x1 -> 512 k3x1 p1,0,1,0", "conv 1x512x3200x1 -> 512 k3 p1", 1.01),
        ("depthwise 8x64x3200x1 k3x1 p1,0,1,0", "depthwise 8x64x3200x1 k3 p1", 1.01),
        ("separable 1x64x1x800 -> 64 k1x3 p0,1,0,1", "separable 1x64x1x800 -> 64 k3 p1", 1.01),
    ]);
}

/// Their phases together are windows of 3x3, beside a plain convolution with as many products.
#[test]
fn winograds_transforms_compute_phases() {
    assert_no_cliffs(&[
        ("conv 1x128x64x64 -> 256 k3 p1", "transposed 1x128x64x64 -> 64 k4 s2 p1", 1.2),
        ("conv 8x128x16x16 -> 256 k3 p1 nhwc", "transposed 8x128x16x16 -> 64 k4 s2 p1 nhwc", 1.2),
        ("conv 1x64x56x56 -> 256 k3 p1", "transposed 1x64x56x56 -> 64 k5 s2 p2 o1", 1.2),
    ]);
}

#[test]
fn transposed_convolutions_of_stride_1_are_plain_ones() {
    assert_no_cliffs(&[
        ("conv 1x64x56x56 -> 64 k3 p1", "transposed 1x64x56x56 -> 64 k3 p1", 1.01),
        ("conv 1x64x56x56 -> 64 k5 p2 nhwc", "transposed 1x64x56x56 -> 64 k5 p2 nhwc", 1.01),
        ("depthwise 1x256x28x28 k3 p1", "transposed 1x256x28x28 -> 256 k3 p1 g256", 1.01),
    ]);
}

/// Compares pairs of problems on every make of GPU. The number is the most that the second may take, in times of the first.
fn assert_no_cliffs(cases: &[(&str, &str, f64)]) {
    for (line, neighbour, times) in cases {
        for (device, caps) in makes() {
            let [known, other] = [line, neighbour].map(|line| plan(line, &caps, Choice::Auto).unwrap().seconds());
            assert!(other < times * known, "{device}: {neighbour} takes {:.2} times {line}", other / known);
        }
    }
}
