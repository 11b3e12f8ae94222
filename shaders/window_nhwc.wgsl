// Where the window of an output is, NHWC: its first row and column, which may lie in the padding.

struct Place {
    // Of the group's first channel.
    image: u32,
    top: i32,
    left: i32,
}

fn place(pixel: u32, group: u32) -> Place {
    let clamped = min(pixel, pixel_count() - 1u);
    let rest = clamped % out_pixels();
    return Place(
        clamped / out_pixels() * in_pixels() * params.in_channels + group * params.group_in,
        i32(rest / params.out_width * STRIDE_Y) - i32(PAD_TOP),
        i32(rest % params.out_width * STRIDE_X) - i32(PAD_LEFT),
    );
}
