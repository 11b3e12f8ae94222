// The source of an implicit matrix product, NHWC, tap by tap: k counts kernel row, kernel column and input channel, and
// all channels of a tap are a segment. Where the kernel's tap meets the input is worked out once for a segment.

// What a tap sees at the output, and the k at which its channels begin.
struct Located {
    at: u32,
    inside: bool,
    first: u32,
}

fn locate(place: Place, tap: u32) -> Located {
    let y = u32(place.top + i32(tap / KERNEL_WIDTH * DILATION_Y));
    let x = u32(place.left + i32(tap % KERNEL_WIDTH * DILATION_X));
    // A negative coordinate wraps to a large one.
    let inside = (y < params.in_height) & (x < params.in_width);
    let at = place.image + select(0u, (y * params.in_width + x) * params.in_channels, inside);
    return Located(at, inside, tap * params.segment_depth);
}

fn fetch(k: u32, located: Located) -> vec4<f32> {
    let channels = vec4<u32>(k - located.first) + vec4<u32>(0u, 1u, 2u, 3u);
    let values = load_input4(located.at + min(channels, vec4<u32>(params.group_in - 1u)));
    if DEPTH_IS_PADDED {
        return select(vec4<f32>(0.0), values, (channels < vec4<u32>(params.group_in)) & vec4<bool>(located.inside));
    }
    return select(vec4<f32>(0.0), values, located.inside);
}
