// The source of a product whose pixels are the input itself; k is the channel.
//#
//# host     layout, and DEPTH_IS_PADDED (whether k goes on behind the last channel); `pixel_count`, `load_input4`

struct Place {
    // Of the group's first channel: for each of four pixels in NCHW, for one in NHWC.
    at: ${"vec4<u32>" if layout == "nchw" else "u32"},
}

//% if layout == "nchw"
fn place(pixel: u32, group: u32) -> Place {
    let pixels = min(vec4<u32>(pixel) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(pixel_count() - 1u));
    let image = pixels / in_pixels() * params.in_channels + group * params.group_in;
    return Place(image * in_pixels() + pixels % in_pixels());
}

// Four neighbouring pixels of a channel.
fn fetch(k: u32, place: Place) -> vec4<f32> {
    //% if DEPTH_IS_PADDED
    if k >= params.group_in {
        return vec4<f32>(0.0);
    }
    //% endif
    return load_input4(place.at + k * in_pixels());
}
//% else
fn place(pixel: u32, group: u32) -> Place {
    return Place(min(pixel, pixel_count() - 1u) * params.in_channels + group * params.group_in);
}

// Four neighbouring channels of a pixel, k the first.
fn fetch(k: u32, place: Place) -> vec4<f32> {
    let channels = vec4<u32>(k) + vec4<u32>(0u, 1u, 2u, 3u);
    let values = load_input4(place.at + min(channels, vec4<u32>(params.group_in - 1u)));
    //% if DEPTH_IS_PADDED
    return select(vec4<f32>(0.0), values, channels < vec4<u32>(params.group_in));
    //% else
    return values;
    //% endif
}
//% endif
