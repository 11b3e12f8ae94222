// The source of an implicit matrix product, NCHW, for PIXELS neighbouring outputs of a row: what all columns of a
// row of the kernel see, so that an input under several of them is loaded once. `k_row` counts input channel and
// kernel row.
//
// host     PIXELS, geometry, params.tiles_x (blocks of PIXELS in a row), `place`, `fetch_row`, lines.wgsl and
//          corner_nchw.wgsl

// Where the corner's column is in a row of the input. One in the padding, or behind the last, is somewhere in the
// image.
fn input_row(k_row: u32, corner: Corner) -> Line {
    let line = row(corner, i32(k_row % KERNEL_HEIGHT * DILATION_Y));
    let inside = line.inside & (!DEPTH_IS_PADDED | (k_row < params.group_in * KERNEL_HEIGHT));
    let channel = select(0u, k_row / KERNEL_HEIGHT, inside);
    return Line(corner.image + channel * in_pixels() + line.at, inside);
}
