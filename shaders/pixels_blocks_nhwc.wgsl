// Pixels of an NHWC product counted block by block, as pixels_blocks_nchw.wgsl has it.

fn output_pixel(pixel: u32) -> OutputPixel {
    let block = pixel / TILE_PIXELS;
    let row = block / params.tiles_x;
    let y = row % params.tiles_y * BLOCK_HEIGHT + pixel % TILE_PIXELS / BLOCK_WIDTH;
    let x = block % params.tiles_x * BLOCK_WIDTH + pixel % BLOCK_WIDTH;
    let at = row / params.tiles_y * out_pixels() + y * params.out_width + x;
    return OutputPixel(at, (y < params.out_height) & (x < params.out_width));
}
