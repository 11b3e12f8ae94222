// ${recipe}: ${problem}
//
// A pool over windows: the largest value of each, or the mean. An invocation computes one output.
//
// input    NCHW or NHWC, by the strides
// output   the same
//#
//# include  tensors.wgsl
//# host     MODE ("max", "average" or "average_inside": the mean without the padding), PAD_BOTTOM, PAD_RIGHT, WORKGROUP
//#          (invocations); params.tiles_x, params.tiles_y (columns and rows of the output), params.work (outputs),
//#          params.low_bits (those of minus infinity)

const WORKGROUP: u32 = ${WORKGROUP}u;
//% if MODE == "average"
const PAD_BOTTOM: u32 = ${PAD_BOTTOM}u;
const PAD_RIGHT: u32 = ${PAD_RIGHT}u;
//% endif

//% if MODE == "max"
// By its bits, since a compiler may take it that there are no NaNs.
fn is_nan(value: f32) -> bool {
    return (bitcast<u32>(value) & 0x7fffffffu) > 0x7f800000u;
}

//% else
// How many of a window's rows or columns count, from one on; all three are counted from where the padding starts.
fn counted(start: u32, size: u32, first: u32, end: u32) -> u32 {
    return min(start + size, end) - max(start, first);
}

//% endif
@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = workgroup_index(workgroup, grid) * WORKGROUP + local;
    if index >= params.work {
        return;
    }
    let item = item(index, params.in_channels);
    let top = i32(item.y * STRIDE_Y) - i32(PAD_TOP);
    let left = i32(item.x * STRIDE_X) - i32(PAD_LEFT);
    let plane = item.batch * params.in_channels * in_pixels() + item.channel * in_channel_stride();

    //% if MODE == "max"
    // WGSL has no literal for it.
    var result = bitcast<f32>(params.low_bits);
    //% else
    var result = 0.0;
    //% endif
    for (var ky = 0u; ky < KERNEL_HEIGHT; ky++) {
        let y = top + i32(ky * DILATION_Y);
        if !inside(y, params.in_height) {
            continue;
        }
        let row = plane + u32(y) * in_row_stride();
        //% if MODE != "max"
        // By rows, so that the error grows with a row and a column and not with their product.
        var row_sum = 0.0;
        //% endif
        for (var kx = 0u; kx < KERNEL_WIDTH; kx++) {
            let x = left + i32(kx * DILATION_X);
            let column = u32(clamp(x, 0, i32(params.in_width) - 1));
            let value = load_input(row + column * in_pixel_stride());
            //% if MODE == "max"
            let is_larger = (value > result) | is_nan(value);
            result = select(result, value, is_larger & inside(x, params.in_width));
            //% else
            row_sum += select(0.0, value, inside(x, params.in_width));
            //% endif
        }
        //% if MODE != "max"
        result += row_sum;
        //% endif
    }
    //% if MODE == "average"
    let rows = counted(item.y * STRIDE_Y, KERNEL_HEIGHT, 0u, PAD_TOP + params.in_height + PAD_BOTTOM);
    let columns = counted(item.x * STRIDE_X, KERNEL_WIDTH, 0u, PAD_LEFT + params.in_width + PAD_RIGHT);
    result /= f32(rows * columns);
    //% elif MODE == "average_inside"
    let rows = counted(item.y * STRIDE_Y, KERNEL_HEIGHT, PAD_TOP, PAD_TOP + params.in_height);
    let columns = counted(item.x * STRIDE_X, KERNEL_WIDTH, PAD_LEFT, PAD_LEFT + params.in_width);
    result /= f32(rows * columns);
    //% endif

    let at = item.batch * params.out_channels * out_pixels()
        + item.channel * out_channel_stride()
        + item.y * out_row_stride()
        + item.x * out_pixel_stride();
    store_plain(at, result);
}

//% include "tensors.wgsl"
