// Pixels of an NCHW product counted through the whole batch, so that small images fill tiles as well as large ones.

fn pixel_count() -> u32 {
    return params.batch * out_pixels();
}

fn output_quad(pixel: u32, group: u32) -> OutputQuad {
    let pixels = vec4<u32>(pixel) + vec4<u32>(0u, 1u, 2u, 3u);
    let clamped = min(pixels, vec4<u32>(pixel_count() - 1u));
    let plane = clamped / out_pixels() * params.out_channels + group * params.group_out;
    return OutputQuad(plane * out_pixels() + clamped % out_pixels(), pixels < vec4<u32>(pixel_count()));
}
