// ${recipe}: ${problem}
//
// Pixel shuffle, or what undoes it: each value goes to another place. An invocation moves one.
//
// Of a shuffle, the FACTOR * FACTOR channels that follow each other become a square of pixels of one channel.
//
// input    NCHW or NHWC, by the strides
// output   the same
//#
//# include  tensors.wgsl
//# host     FACTOR, SHUFFLES (or undoes it), WORKGROUP (invocations); params.tiles_x, params.tiles_y (columns and rows
//#          of the output), params.work (outputs)

const FACTOR: u32 = ${FACTOR}u;
const WORKGROUP: u32 = ${WORKGROUP}u;

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
    let item = item(index, params.out_channels);
    //% if SHUFFLES
    let channel = (item.channel * FACTOR + item.y % FACTOR) * FACTOR + item.x % FACTOR;
    let y = item.y / FACTOR;
    let x = item.x / FACTOR;
    //% else
    let channel = item.channel / FACTOR / FACTOR;
    let y = item.y * FACTOR + item.channel / FACTOR % FACTOR;
    let x = item.x * FACTOR + item.channel % FACTOR;
    //% endif
    let value = load_input(
        item.batch * params.in_channels * in_pixels()
            + channel * in_channel_stride()
            + y * in_row_stride()
            + x * in_pixel_stride(),
    );
    let at = item.batch * params.out_channels * out_pixels()
        + item.channel * out_channel_stride()
        + item.y * out_row_stride()
        + item.x * out_pixel_stride();
    store_plain(at, value);
}

//% include "tensors.wgsl"
