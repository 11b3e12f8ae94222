// Where the sums of an NCHW product go: quads of four neighbouring pixels, counted through the whole batch,
// so that small images fill tiles as well as large ones.

struct OutputQuad {
    at: vec4<u32>,
    valid: vec4<bool>,
}

fn pixel_count() -> u32 {
    return params.batch * out_pixels();
}

fn output_quad(pixel: u32, group: u32) -> OutputQuad {
    let pixels = vec4<u32>(pixel) + vec4<u32>(0u, 1u, 2u, 3u);
    let clamped = min(pixels, vec4<u32>(pixel_count() - 1u));
    let plane = clamped / out_pixels() * OUT_CHANNELS + group * GROUP_OUT;
    return OutputQuad(plane * out_pixels() + clamped % out_pixels(), pixels < vec4<u32>(pixel_count()));
}

// Stores four pixels of a channel of the quad's group.
fn store_row(quad: OutputQuad, group: u32, channel: u32, sum: vec4<f32>) {
    if channel < GROUP_OUT {
        let bias = bias_of(group * PANELS * TILE_CHANNELS + channel);
        store4(quad.at + channel * out_pixels(), quad.valid, sum + bias);
    }
}
