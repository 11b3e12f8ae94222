// How a fused inverted residual reads its input and stages its results, NCHW.

fn input_at(image: u32, pixel: u32) -> u32 {
    return image * EXPAND_DEPTH * in_pixels() + pixel;
}

// Four channels of a pixel, zeros behind the last one.
fn load_channels(at: u32, channel: u32) -> vec4<f32> {
    let channels = channel + vec4<u32>(0u, 1u, 2u, 3u);
    if EXPAND_DEPTH == EXPAND_DEPTH_PADDED {
        return load_input4(at + channels * in_pixels());
    }
    let there = channels < vec4<u32>(EXPAND_DEPTH);
    return select(vec4<f32>(0.0), load_input4(at + select(vec4<u32>(0u), channels, there) * in_pixels()), there);
}

fn stage_results(k: u32, pixel: u32, results: Results) {
    let at = k * PIXEL_QUADS + pixel / 4u;
    pixel_tile[at] = vec4<f32>(results.s0.x, results.s1.x, results.s2.x, results.s3.x);
    pixel_tile[at + PIXEL_QUADS] = vec4<f32>(results.s0.y, results.s1.y, results.s2.y, results.s3.y);
    pixel_tile[at + 2u * PIXEL_QUADS] = vec4<f32>(results.s0.z, results.s1.z, results.s2.z, results.s3.z);
    pixel_tile[at + 3u * PIXEL_QUADS] = vec4<f32>(results.s0.w, results.s1.w, results.s2.w, results.s3.w);
}
