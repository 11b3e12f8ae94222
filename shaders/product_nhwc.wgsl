// Where the sums of an NHWC product go: quads of four neighbouring channels of one pixel. A pixels_*.wgsl file says how
// pixels are counted.

// A pixel's place in the batch, if it is one.
struct OutputPixel {
    at: u32,
    valid: bool,
}

// Stores four channels, the first of which is `channel` of the group, of a pixel.
fn store_pixel(pixel: u32, group: u32, channel: u32, sum: vec4<f32>) {
    let place = output_pixel(pixel);
    if place.valid && channel < params.group_out {
        let channels = vec4<u32>(channel) + vec4<u32>(0u, 1u, 2u, 3u);
        let clamped = min(channels, vec4<u32>(params.group_out - 1u));
        var biased = sum;
        if HAS_BIAS {
            biased += bias4_of(group * params.panels * TILE_CHANNELS + channel);
        }
        let at = vec4<u32>(place.at * params.out_channels + group * params.group_out) + clamped;
        store4(at, channels < vec4<u32>(params.group_out), biased);
    }
}
