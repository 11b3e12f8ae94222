//! What the planner refuses, and in which words.

use gpuconv::{Caps, Chain, Choice, Conv2d, Error, Layout, Problem, planner};

use super::{gpu, named, plan};

/// A wrong reason would mislead the reader.
#[test]
fn the_message_gives_the_true_reason() {
    for (line, kernel, expected) in [
        ("pointwise 1x8x1x2 -> 8", "matvec", "the window of 1x1 is not the whole image of 1x2"),
        ("conv 1x8x7x7 -> 8 k7x5", "matvec", "the window of 7x5 is not the whole image of 7x7"),
        ("conv 1x8x8x8 -> 2 k3", "implicit_gemm", "not for 2 output channels"),
        ("conv 1x8x8x8 -> 8 k3 g4", "implicit_gemm", "not for 2 output channels a group"),
        ("pointwise 1x8x8x8 -> 8 g4", "pointwise", "not for 2 output channels a group"),
        ("conv 1x60x8x8 -> 2 k3", "split", "not for 60 input channels"),
        ("conv 1x64x8x8 -> 64 k3 g2", "winograd", "not for groups: 2"),
        ("separable 1x6x8x8 -> 8 k3 nhwc", "separable", "not for 6 input channels"),
    ] {
        let error = plan(line, &gpu(), named(kernel)).unwrap_err().to_string();
        assert!(error.ends_with(&format!(": {kernel} ({expected})")), "{line}: {error}");
    }
    // The caller's own limit.
    let error = plan("conv 1x64x56x56 -> 64 k3 p1", &gpu(), named("winograd").within(0)).unwrap_err().to_string();
    assert!(error.contains(": winograd (needs ") && error.ends_with("memory, at most 0 are allowed)"), "{error}");
    // The kernel's own limit, not the device's.
    let block = Chain::inverted_residual(64, 64, 6, 2);
    let dilated = Chain::new(block.convolutions().map(|(_, conv)| match conv.is_depthwise() {
        true => Conv2d::depthwise(conv.in_channels, 7).stride(2).padding(9).dilation(3).activation(conv.activation),
        false => conv.clone(),
    }));
    let refused = planner::schedule(&dilated, [1, 64, 56, 56], Layout::Nchw, &gpu(), &named("inverted_residual"));
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("bytes of workgroup memory, the limit is 16384"), "{error}");
}

#[test]
fn a_buffer_that_cannot_be_bound_is_refused() {
    let limit = Caps::webgpu().max_storage_binding;
    for (line, bytes) in [
        // Too large are the input, the output and the weights.
        ("conv 1x64x1024x1024 -> 8 k3 p1 s4", 64 << 22),
        ("conv 1x8x1024x1024 -> 64 k3 p1", 64 << 22),
        ("conv 1x4096x4x4 -> 4096 k3 p1", (4096 * 4096 * 9 + 4096) * 4),
    ] {
        let refused = plan(line, &Caps::webgpu(), Choice::Auto);
        let too_large =
            |error: &Error| matches!(error, Error::TooLarge { needed: n, limit: l, .. } if (*n, *l) == (bytes, limit));
        assert!(refused.as_ref().is_err_and(too_large), "{line}: {:?}", refused.err());
        plan(line, &gpu(), Choice::Auto).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

/// Each output has a block of its own here, of 128 outputs, and the shader counts those.
#[test]
fn expand_depthwise_takes_no_more_outputs_than_it_counts() {
    let chain = Chain::from(Conv2d::pointwise(1, 1)).then(Conv2d::depthwise(1, 1));
    let on = |images| {
        planner::schedule(&chain, [images, 1, 1, 1], Layout::Nchw, &gpu(), &named("expand_depthwise"))
            .err()
            .map(|error| error.to_string())
    };
    assert_eq!(on(1 << 24), None);
    let refused = on((1 << 25) + 1).unwrap_or_default();
    assert!(refused.contains("for at most 4294967295 outputs, not 4294967424"), "{refused}");
}

/// Nothing is multiplied beyond 64 bits for a batch of no images.
#[test]
fn an_empty_batch_of_huge_images_is_refused() {
    for problem in ["conv 0x3xSIDE -> 4 k3", "concat 0x4xSIDE 2,2", "resize 0x1xSIDE x1", "mobilenet_v2 0x3xSIDE"] {
        let problem = problem.replace("SIDE", "4294967295x4294967295");
        let refused = problem.parse().and_then(|problem: Problem| {
            planner::schedule(&problem.chain(), problem.input, problem.layout, &gpu(), &Choice::Auto)
        });
        let words = refused.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(words.contains("the limit is 2147483648"), "{problem}: {words}");
    }
}

#[test]
fn a_shape_that_does_not_fit_has_its_own_error() {
    let chain = Chain::from(Conv2d::new(8, 8, 5));
    let of = |shape: [u32; 4]| planner::schedule(&chain, shape, Layout::Nchw, &gpu(), &Choice::Auto).err();
    assert!(matches!(of([1, 7, 8, 8]), Some(Error::Channels { link: 0, expected: 8, actual: 7 })));
    assert!(matches!(of([1, 8, 4, 8]), Some(Error::KernelTooLarge { kernel: [5, 5], image: [4, 8] })));
    assert!(matches!(of([1, 8, 0, 8]), Some(Error::EmptyInput { .. })));
    assert_eq!(of([0, 8, 8, 8]), None);
}
