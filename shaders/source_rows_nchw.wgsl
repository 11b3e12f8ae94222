// The source of an implicit matrix product, NCHW, for PIXELS neighbouring outputs of a row: what all columns of a
// row of the kernel see, so that an input under several of them is loaded once. `row` counts input channel and
// kernel row.
//
// host     PIXELS, geometry, params.tiles_x (blocks of PIXELS in a row), `fetch_row`, and a row_* file

struct Place {
    // Of the group's first channel.
    image: u32,
    top: i32,
    left: i32,
}

fn place(pixel: u32, group: u32) -> Place {
    let block = min(pixel, pixel_count() - 1u) / PIXELS;
    let row = block / params.tiles_x;
    return Place(
        (row / params.out_height * params.in_channels + group * params.group_in) * in_pixels(),
        i32(row % params.out_height * STRIDE_Y) - i32(PAD_TOP),
        i32(block % params.tiles_x * PIXELS * STRIDE_X) - i32(PAD_LEFT),
    );
}

fn input_row(row: u32, place: Place) -> InputRow {
    let y = place.top + i32(row % KERNEL_HEIGHT * DILATION_Y);
    let inside = inside(y, params.in_height) & (row < params.group_in * KERNEL_HEIGHT);
    let at = place.image + row / KERNEL_HEIGHT * in_pixels() + u32(y) * params.in_width;
    return InputRow(select(0u, at, inside), inside);
}
