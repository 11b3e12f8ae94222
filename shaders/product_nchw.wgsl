// Where the sums of an NCHW product go: quads of four neighbouring pixels. A pixels_*.wgsl file says how pixels are
// counted.

struct OutputQuad {
    at: vec4<u32>,
    valid: vec4<bool>,
}

// Stores four pixels of a channel of the quad's group.
fn store_row(quad: OutputQuad, group: u32, channel: u32, sum: vec4<f32>) {
    if channel < params.group_out {
        var biased = sum;
        if HAS_BIAS {
            biased += bias_of(group * params.panels * TILE_CHANNELS + channel);
        }
        store4(quad.at + channel * out_pixels(), quad.valid, biased);
    }
}
