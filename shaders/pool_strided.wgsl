// ${recipe}: a global average pool, ${layout}
//
// The first of two passes of global average pooling, for planes so large that a workgroup each would leave most of a
// device idle: SHARES invocations a plane, each of which sums every SHARES-th pixel. The second pass adds these sums.
//
// input    NCHW or NHWC, by the strides; neighbouring invocations read neighbours
// output   the sums, [plane][share]
//#
//# include  tensors.wgsl
//# host     WORKGROUP (invocations), SHARES (of a plane); params.work (invocations)

const WORKGROUP: u32 = ${WORKGROUP}u;
const SHARES: u32 = ${SHARES}u;
// Pixels that are added before they are added to the sum, so that the error grows slower than their number.
const STEP: u32 = 32u;

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
    //% if layout == "nchw"
    let plane = index / SHARES;
    let share = index % SHARES;
    //% else
    let share = index / params.in_channels % SHARES;
    let plane = index / params.in_channels / SHARES * params.in_channels + index % params.in_channels;
    //% endif
    let start = plane_start(plane);
    var sum = 0.0;
    for (var first = share; first < in_pixels(); first += SHARES * STEP) {
        let end = min(first + SHARES * STEP, in_pixels());
        var part = 0.0;
        for (var pixel = first; pixel < end; pixel += SHARES) {
            part += load_input(start + pixel * in_pixel_stride());
        }
        sum += part;
    }
    store_plain(plane * SHARES + share, sum);
}

//% include "tensors.wgsl"
