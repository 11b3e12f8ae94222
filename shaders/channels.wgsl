// ${recipe}: ${problem}
//
// Some channels of a tensor become some channels of another, whose images are as large: a slice, or a part of a
// concatenation. An invocation moves one value.
//
// input    NCHW or NHWC, by the strides
// output   the same
//#
//# include  tensors.wgsl
//# host     WORKGROUP (invocations); params.groups (channels that are moved), params.group_in and params.group_out (the
//#          first of them in the input and in the output), params.tiles_x, params.tiles_y (columns and rows of an
//#          image), params.work (values)

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
    let item = item(index, params.groups);
    let value = load_input(
        item.batch * params.in_channels * in_pixels()
            + (params.group_in + item.channel) * in_channel_stride()
            + item.y * in_row_stride()
            + item.x * in_pixel_stride(),
    );
    let at = item.batch * params.out_channels * out_pixels()
        + (params.group_out + item.channel) * out_channel_stride()
        + item.y * out_row_stride()
        + item.x * out_pixel_stride();
    store_plain(at, value);
}

//% include "tensors.wgsl"
