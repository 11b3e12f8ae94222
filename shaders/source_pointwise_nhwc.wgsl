// The source of a pointwise product, NHWC: four neighbouring channels of a pixel, k being the first.

struct Place {
    // Of the group's first channel.
    at: u32,
}

fn place(pixel: u32, group: u32) -> Place {
    return Place(min(pixel, pixel_count() - 1u) * params.in_channels + group * params.group_in);
}

fn fetch(k: u32, place: Place) -> vec4<f32> {
    let channels = vec4<u32>(k) + vec4<u32>(0u, 1u, 2u, 3u);
    let values = load_input4(place.at + min(channels, vec4<u32>(params.group_in - 1u)));
    if DEPTH_IS_PADDED {
        return select(vec4<f32>(0.0), values, channels < vec4<u32>(params.group_in));
    }
    return values;
}
