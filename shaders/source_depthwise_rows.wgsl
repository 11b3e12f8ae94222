// As source_depthwise_nchw.wgsl, where the four outputs are neighbours in a row and share the inputs between them. Rows
// are filled up to whole quads; what is behind a row's end is computed of whatever and not stored.

// Pixels of a block, as pixels_rows_nchw.wgsl counts them.
const PIXELS: u32 = 4u;

fn column_stride() -> u32 { return 1u; }

fn corner(pixel: u32) -> Corner {
    let quad = min(pixel, pixel_count() - 4u) / 4u;
    let row = quad / params.tiles_x;
    let left = quad % params.tiles_x * 4u * STRIDE_X;
    return Corner(
        row / params.out_height * params.in_channels * in_pixels(),
        i32(row % params.out_height * STRIDE_Y) - i32(PAD_TOP),
        i32(left) - i32(PAD_LEFT),
        min(left, params.in_width - 1u),
    );
}
