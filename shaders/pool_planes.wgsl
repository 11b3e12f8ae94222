// Where the planes of a pool start, in either layout.

fn plane_start(plane: u32) -> u32 {
    let image = plane / params.in_channels * params.in_channels * in_pixels();
    return image + plane % params.in_channels * in_channel_stride();
}
