// The source of an implicit matrix product, NCHW: what the kernel sees at each output, k counting input
// channel, kernel row and kernel column. No im2col buffer is made (Chetlur et al., arXiv 1410.0759).

const TAPS: u32 = KERNEL_HEIGHT * KERNEL_WIDTH;

fn fetch(k: u32, place: Place) -> vec4<f32> {
    let tap = k % TAPS;
    let y = vec4<u32>(place.top + i32(tap / KERNEL_WIDTH * DILATION_Y));
    let x = vec4<u32>(place.left + i32(tap % KERNEL_WIDTH * DILATION_X));
    // A negative coordinate wraps to a large one.
    let inside = (y < vec4<u32>(params.in_height)) & (x < vec4<u32>(params.in_width))
        & vec4<bool>(!DEPTH_IS_PADDED || k < DEPTH);
    let at = place.image + k / TAPS * in_pixels() + y * params.in_width + x;
    return select(vec4<f32>(0.0), load_input4(select(vec4<u32>(0u), at, inside)), inside);
}
