// ${recipe}: ${problem}
//
// PReLU: what is positive stays, and what is not is multiplied by the slope of its channel. An invocation computes one
// output, which lies where its input lies.
//
// input    NCHW or NHWC
// weights  a slope for each channel
// output   the same as the input
//#
//# include  tensors.wgsl
//# host     WORKGROUP (invocations); params.work (outputs)

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
    let channel = index / in_channel_stride() % params.in_channels;
    let value = load_input(index);
    store_plain(index, select(load_weight(channel) * value, value, value > 0.0));
}

//% include "tensors.wgsl"
