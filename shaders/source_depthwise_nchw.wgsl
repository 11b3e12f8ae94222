// The source of a fused separable convolution, NCHW: the depthwise convolution's results at four outputs, made
// where they are needed and never written to memory; k is the channel.

fn fetch(k: u32, place: Place) -> vec4<f32> {
    if DEPTH_IS_PADDED && k >= params.group_in {
        return vec4<f32>(0.0);
    }
    let plane = place.image + k * in_pixels();
    var sum = vec4<f32>(weights[DEPTHWISE_BIAS_AT + k / 4u][k % 4u]);
    for (var ky = 0u; ky < KERNEL_HEIGHT; ky++) {
        let y = vec4<u32>(place.top + i32(ky * DILATION_Y));
        for (var kx = 0u; kx < KERNEL_WIDTH; kx++) {
            let x = vec4<u32>(place.left + i32(kx * DILATION_X));
            let inside = (y < vec4<u32>(params.in_height)) & (x < vec4<u32>(params.in_width));
            let at = select(vec4<u32>(0u), plane + y * params.in_width + x, inside);
            let values = select(vec4<f32>(0.0), load_input4(at), inside);
            let tap = ky * KERNEL_WIDTH + kx;
            sum = fma(values, vec4<f32>(weights[DEPTHWISE_AT + k * TAP_QUADS + tap / 4u][tap % 4u]), sum);
        }
    }
    return activate_depthwise4(sum);
}
