// Pixels of an NCHW product counted block by block: a workgroup's TILE_PIXELS are a block of BLOCK_HEIGHT rows and
// BLOCK_WIDTH columns of an image.

fn output_quad(pixel: u32, group: u32) -> OutputQuad {
    let block = pixel / TILE_PIXELS;
    let row = block / params.tiles_x;
    let y = row % params.tiles_y * BLOCK_HEIGHT + pixel % TILE_PIXELS / BLOCK_WIDTH;
    let x = block % params.tiles_x * BLOCK_WIDTH + pixel % BLOCK_WIDTH + vec4<u32>(0u, 1u, 2u, 3u);
    let plane = (row / params.tiles_y * params.out_channels + group * params.group_out) * out_pixels();
    let first = plane + min(y, params.out_height - 1u) * params.out_width;
    let valid = (x < vec4<u32>(params.out_width)) & vec4<bool>(y < params.out_height);
    return OutputQuad(first + min(x, vec4<u32>(params.out_width - 1u)), valid);
}
