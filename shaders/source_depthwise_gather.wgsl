// The source of a fused separable convolution, NCHW: the depthwise convolution's results, made where they are needed
// and never written to memory; k is the channel.
//
// Any four outputs at a time, each input gathered by itself: for rows so short that filling them up to whole quads
// would add too much.
//
// weights  before the product's: [channel][tap], each channel's taps filled up to whole quads; then the biases
//#
//# host     geometry, DEPTH_IS_PADDED (whether k goes on behind the last channel); the weights' places DEPTHWISE_AT and
//#          DEPTHWISE_BIAS_AT (quads); the inner activation "depthwise"; `pixel_count`, `load_input4`

const DEPTHWISE_AT: u32 = ${DEPTHWISE_AT}u;
const DEPTHWISE_BIAS_AT: u32 = ${DEPTHWISE_BIAS_AT}u;
const TAP_QUADS: u32 = (KERNEL_HEIGHT * KERNEL_WIDTH + 3u) / 4u;

// Where the windows of four outputs are: their first rows and columns, which may lie in the padding.
struct Place {
    // Of the group's first channel.
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

fn fetch(k: u32, place: Place) -> vec4<f32> {
    //% if DEPTH_IS_PADDED
    if k >= params.group_in {
        return vec4<f32>(0.0);
    }
    //% endif
    let plane = place.image + k * in_pixels();
    var sum = vec4<f32>(load_weight_component(DEPTHWISE_BIAS_AT + k / 4u, k % 4u));
    for (var ky = 0u; ky < KERNEL_HEIGHT; ky++) {
        let y = vec4<u32>(place.top + i32(ky * DILATION_Y));
        for (var kx = 0u; kx < KERNEL_WIDTH; kx++) {
            let x = vec4<u32>(place.left + i32(kx * DILATION_X));
            // A negative coordinate wraps to a large one.
            let inside = (y < vec4<u32>(params.in_height)) & (x < vec4<u32>(params.in_width));
            let at = select(vec4<u32>(0u), plane + y * params.in_width + x, inside);
            let values = select(vec4<f32>(0.0), load_input4(at), inside);
            let tap = ky * KERNEL_WIDTH + kx;
            sum = fma(values, vec4<f32>(load_weight_component(DEPTHWISE_AT + k * TAP_QUADS + tap / 4u, tap % 4u)), sum);
        }
    }
    return activate_depthwise4(sum);
}
