// The source of a product whose pixels are the input itself; k is the channel.
//% if scales != "none"
// Each channel of an image is multiplied by its scale.
//% endif
//#
//# host     layout, DEPTH_IS_PADDED (whether k goes on behind the last channel), UNEVEN (as params.wgsl has it; then
//#          DEPTH_IS_PADDED), scales (as tensors.wgsl has it) and SCALE_IS_SHARED (in NCHW, whether four neighbouring
//#          pixels are of one image); `pixel_count`, `load_input4`

//% set scaled = scales != "none"
//% set own_channels = "place.channels" if UNEVEN else "params.group_in"
struct Place {
    // Of the group's first channel: for each of four pixels in NCHW, for one in NHWC.
    at: ${"vec4<u32>" if layout == "nchw" else "u32"},
    //% if scaled
    // Its scale.
    scale_at: ${"u32" if layout == "nhwc" or SCALE_IS_SHARED else "vec4<u32>"},
    //% endif
    //% if UNEVEN
    // The channels of its group.
    channels: u32,
    //% endif
}

//% if layout == "nchw"
fn place(pixel: u32, group: u32) -> Place {
    let pixels = min(vec4<u32>(pixel) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(pixel_count() - 1u));
    let image = pixels / in_pixels() * params.in_channels + group * params.group_in;
    return Place(
        image * in_pixels() + pixels % in_pixels(),
    //% if scaled
        image${".x" if SCALE_IS_SHARED else ""},
    //% endif
    //% if UNEVEN
        group_channels(group),
    //% endif
    );
}

// Four neighbouring pixels of a channel.
fn fetch(k: u32, place: Place) -> vec4<f32> {
    //% if DEPTH_IS_PADDED
    if k >= ${own_channels} {
        return vec4<f32>(0.0);
    }
    //% endif
    //% if scaled
    return load_input4(place.at + k * in_pixels()) * load_scale${"" if SCALE_IS_SHARED else "4"}(place.scale_at + k);
    //% else
    return load_input4(place.at + k * in_pixels());
    //% endif
}
//% else
fn place(pixel: u32, group: u32) -> Place {
    let clamped = min(pixel, pixel_count() - 1u);
    let first = group * params.group_in;
    return Place(
        clamped * params.in_channels + first,
    //% if scaled
        clamped / in_pixels() * params.in_channels + first,
    //% endif
    //% if UNEVEN
        group_channels(group),
    //% endif
    );
}

// Four neighbouring channels of a pixel, k the first.
fn fetch(k: u32, place: Place) -> vec4<f32> {
    let channels = vec4<u32>(k) + vec4<u32>(0u, 1u, 2u, 3u);
    //% if scaled
    let clamped = min(channels, vec4<u32>(${own_channels} - 1u));
    let values = load_input4(place.at + clamped) * load_scale4(place.scale_at + clamped);
    //% else
    let values = load_input4(place.at + min(channels, vec4<u32>(${own_channels} - 1u)));
    //% endif
    //% if DEPTH_IS_PADDED
    return select(vec4<f32>(0.0), values, channels < vec4<u32>(${own_channels}));
    //% else
    return values;
    //% endif
}
//% endif
