// The source of an implicit matrix product, NCHW, tap by tap: k counts kernel row, kernel column and input channel, and
// all channels of a tap are a segment. Where the kernel's tap meets the input is worked out once for a segment; inside
// it an address only moves on by whole planes.

// What a tap sees at the four outputs, and the k at which its channels begin.
struct Located {
    at: vec4<u32>,
    inside: vec4<bool>,
    first: u32,
}

fn locate(place: Place, tap: u32) -> Located {
    let y = vec4<u32>(place.top + i32(tap / KERNEL_WIDTH * DILATION_Y));
    let x = vec4<u32>(place.left + i32(tap % KERNEL_WIDTH * DILATION_X));
    // A negative coordinate wraps to a large one.
    let inside = (y < vec4<u32>(params.in_height)) & (x < vec4<u32>(params.in_width));
    let at = place.image + select(vec4<u32>(0u), y * params.in_width + x, inside);
    return Located(at, inside, tap * params.segment_depth);
}

fn fetch(k: u32, located: Located) -> vec4<f32> {
    let channel = k - located.first;
    if DEPTH_IS_PADDED && channel >= params.group_in {
        return vec4<f32>(0.0);
    }
    return select(vec4<f32>(0.0), load_input4(located.at + channel * in_pixels()), located.inside);
}
