// The source of a pointwise product, NCHW: the input itself, k being the channel.

struct Place {
    // Of the group's first channel, for each of four pixels.
    at: vec4<u32>,
}

fn place(pixel: u32, group: u32) -> Place {
    let pixels = min(vec4<u32>(pixel) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(pixel_count() - 1u));
    let image = pixels / in_pixels() * params.in_channels + group * params.group_in;
    return Place(image * in_pixels() + pixels % in_pixels());
}

fn fetch(k: u32, place: Place) -> vec4<f32> {
    if DEPTH_IS_PADDED && k >= params.group_in {
        return vec4<f32>(0.0);
    }
    return load_input4(place.at + k * in_pixels());
}
