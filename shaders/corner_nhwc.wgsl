// The corner of the kernel for an output and four neighbouring channels, NHWC, of which there is one group. Places are
// counted in quads.
//
// host     geometry, `pixel_count`

fn column_stride() -> u32 { return params.in_channels / 4u; }

fn corner(pixel: u32, group: u32) -> Corner {
    let clamped = min(pixel, pixel_count() - 1u);
    let rest = clamped % out_pixels();
    let left = rest % params.out_width * STRIDE_X;
    return Corner(
        clamped / out_pixels() * in_pixels() * column_stride(),
        i32(rest / params.out_width * STRIDE_Y) - i32(PAD_TOP),
        i32(left) - i32(PAD_LEFT),
        min(left, params.in_width - 1u),
    );
}
