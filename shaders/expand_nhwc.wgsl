// How a fused inverted residual reads its input and stages its results, NHWC.

fn input_at(image: u32, pixel: u32) -> u32 {
    return (image * in_pixels() + pixel) * EXPAND_DEPTH;
}

// Four channels of a pixel, of which there are whole quads.
fn load_channels(at: u32, channel: u32) -> vec4<f32> {
    return load_input4(vec4<u32>(at + channel));
}

fn stage_results(k: u32, pixel: u32, results: Results) {
    let at = k / 4u * TILE_PIXELS + pixel;
    pixel_tile[at] = results.s0;
    pixel_tile[at + 1u] = results.s1;
    pixel_tile[at + 2u] = results.s2;
    pixel_tile[at + 3u] = results.s3;
}
