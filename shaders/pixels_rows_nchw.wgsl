// Pixels of an NCHW product counted as if each row were whole blocks of PIXELS, so that a block lies in one row.

fn pixel_count() -> u32 {
    return params.batch * params.out_height * params.tiles_x * PIXELS;
}

fn output_quad(pixel: u32, group: u32) -> OutputQuad {
    let block = min(pixel, pixel_count() - 1u) / PIXELS;
    let row = block / params.tiles_x;
    let columns = block % params.tiles_x * PIXELS + pixel % PIXELS + vec4<u32>(0u, 1u, 2u, 3u);
    let plane = row / params.out_height * params.out_channels + group * params.group_out;
    let first = plane * out_pixels() + row % params.out_height * params.out_width;
    let valid = (columns < vec4<u32>(params.out_width)) & vec4<bool>(pixel < pixel_count());
    return OutputQuad(first + min(columns, vec4<u32>(params.out_width - 1u)), valid);
}
