// As source_depthwise_nchw.wgsl, for outputs whose rows are whole quads: the four outputs are neighbours in a
// row and share the inputs between them.

fn column_stride() -> u32 { return 1u; }

fn corner(pixel: u32) -> Corner {
    let first = min(pixel, pixel_count() - 4u);
    let rest = first % out_pixels();
    let left = rest % params.out_width * STRIDE_X;
    return Corner(
        first / out_pixels() * params.in_channels * in_pixels(),
        i32(rest / params.out_width * STRIDE_Y) - i32(PAD_TOP),
        i32(left) - i32(PAD_LEFT),
        min(left, params.in_width - 1u),
    );
}
