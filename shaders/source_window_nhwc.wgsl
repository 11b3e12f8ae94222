// The source of an implicit matrix product, NHWC: four neighbouring k of one output, k counting kernel row,
// kernel column and input channel.

fn fetch(k: u32, place: Place) -> vec4<f32> {
    let all = vec4<u32>(k) + vec4<u32>(0u, 1u, 2u, 3u);
    let tap = all / GROUP_IN;
    let y = vec4<u32>(place.top + vec4<i32>(tap / KERNEL_WIDTH * DILATION_Y));
    let x = vec4<u32>(place.left + vec4<i32>(tap % KERNEL_WIDTH * DILATION_X));
    let inside = (y < vec4<u32>(params.in_height)) & (x < vec4<u32>(params.in_width)) & (all < vec4<u32>(DEPTH));
    let at = place.image + (y * params.in_width + x) * params.in_channels + all % GROUP_IN;
    return select(vec4<f32>(0.0), load_input4(select(vec4<u32>(0u), at, inside)), inside);
}
