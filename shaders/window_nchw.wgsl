// Where the windows of four outputs are, NCHW: their first rows and columns, which may lie in the padding.

struct Place {
    // Of the group's first channel, for each of four outputs.
    image: vec4<u32>,
    top: vec4<i32>,
    left: vec4<i32>,
}

fn place(pixel: u32, group: u32) -> Place {
    let pixels = min(vec4<u32>(pixel) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(pixel_count() - 1u));
    let image = (pixels / out_pixels() * params.in_channels + group * params.group_in) * in_pixels();
    let rest = pixels % out_pixels();
    let top = vec4<i32>(rest / params.out_width * STRIDE_Y) - i32(PAD_TOP);
    let left = vec4<i32>(rest % params.out_width * STRIDE_X) - i32(PAD_LEFT);
    return Place(image, top, left);
}
