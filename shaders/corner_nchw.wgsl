// The corner of the kernel for PIXELS neighbouring outputs of a row, NCHW. Rows are filled up to whole blocks; what is
// behind a row's end is computed of whatever and not stored.
//
// host     PIXELS, geometry, `pixel_count`, params.tiles_x (blocks of PIXELS in a row)

fn column_stride() -> u32 { return 1u; }

fn corner(pixel: u32, group: u32) -> Corner {
    let block = min(pixel, pixel_count() - PIXELS) / PIXELS;
    let row = block / params.tiles_x;
    let left = block % params.tiles_x * PIXELS * STRIDE_X;
    return Corner(
        (row / params.out_height * params.in_channels + group * params.group_in) * in_pixels(),
        i32(row % params.out_height * STRIDE_Y) - i32(PAD_TOP),
        i32(left) - i32(PAD_LEFT),
        min(left, params.in_width - 1u),
    );
}
