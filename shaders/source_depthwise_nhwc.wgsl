// The source of a fused separable convolution, NHWC: the depthwise convolution's results for four neighbouring
// channels of an output, made where they are needed and never written to memory; k is the first channel.

struct Place {
    // Of channel 0.
    image: u32,
    top: i32,
    left: i32,
}

fn place(pixel: u32, group: u32) -> Place {
    let clamped = min(pixel, pixel_count() - 1u);
    let rest = clamped % out_pixels();
    return Place(
        clamped / out_pixels() * in_pixels() * IN_CHANNELS,
        i32(rest / params.out_width * STRIDE_Y) - i32(PAD_TOP),
        i32(rest % params.out_width * STRIDE_X) - i32(PAD_LEFT),
    );
}

fn fetch(k: u32, place: Place) -> vec4<f32> {
    if PADDED_DEPTH != DEPTH && k >= DEPTH {
        return vec4<f32>(0.0);
    }
    var sum = weights[DEPTHWISE_BIAS_AT + k / 4u];
    for (var ky = 0u; ky < KERNEL_HEIGHT; ky++) {
        let y = u32(place.top + i32(ky * DILATION_Y));
        for (var kx = 0u; kx < KERNEL_WIDTH; kx++) {
            let x = u32(place.left + i32(kx * DILATION_X));
            let inside = (y < params.in_height) & (x < params.in_width);
            let at = place.image + (y * params.in_width + x) * IN_CHANNELS + k;
            let values = load_input4(vec4<u32>(select(0u, at, inside)));
            let weight = weights[DEPTHWISE_AT + ((ky * KERNEL_WIDTH + kx) * IN_CHANNELS + k) / 4u];
            sum = fma(select(vec4<f32>(0.0), values, inside), weight, sum);
        }
    }
    return activate_depthwise4(sum);
}
