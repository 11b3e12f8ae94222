// As source_depthwise_nchw.wgsl, for outputs whose rows are whole quads: the four outputs are neighbours in a
// row and share the inputs between them. The host writes the taps out in `fetch`.

struct Place {
    // Of channel 0.
    image: u32,
    top: i32,
    left: i32,
}

fn place(pixel: u32, group: u32) -> Place {
    let first = min(pixel, pixel_count() - 4u);
    let rest = first % out_pixels();
    return Place(
        first / out_pixels() * IN_CHANNELS * in_pixels(),
        i32(rest / params.out_width * STRIDE_Y) - i32(PAD_TOP),
        i32(rest % params.out_width * STRIDE_X) - i32(PAD_LEFT),
    );
}

// `&` and not `&&`: the latter is a branch, of which there would be one for each of dozens of loads.
//
// The input at a column of a row that starts at `row`; zero in the padding.
fn load_padded(row: u32, row_inside: bool, x: i32) -> f32 {
    let inside = row_inside & inside(x, params.in_width);
    return select(0.0, input[select(0u, row + u32(x), inside)], inside);
}
