// ${recipe}: a global average pool, ${layout}
//
// Global average pooling where invocations that cooperate gain nothing: each sums a plane by itself, STEP pixels at a
// time and STEP of these sums at a time, so that the error grows slower than the number of pixels.
//
// input    NCHW or NHWC, by the strides
// output   a value a plane, one image after the other: in both layouts, for there is one pixel
//#
//# include  tensors.wgsl
//# host     WORKGROUP (invocations); params.work (planes), COUNT (what sums are divided by; none if by
//#          the number of their pixels)

const WORKGROUP: u32 = ${WORKGROUP}u;
const STEP: u32 = 64u;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let plane = workgroup_index(workgroup, grid) * WORKGROUP + local;
    if plane >= params.work {
        return;
    }
    let start = plane_start(plane);
    var sum = 0.0;
    for (var block = 0u; block < in_pixels(); block += STEP * STEP) {
        let block_end = min(block + STEP * STEP, in_pixels());
        var block_sum = 0.0;
        for (var first = block; first < block_end; first += STEP) {
            let end = min(first + STEP, block_end);
            var part = 0.0;
            for (var pixel = first; pixel < end; pixel++) {
                part += load_input(start + pixel * in_pixel_stride());
            }
            block_sum += part;
        }
        sum += block_sum;
    }
    store_plain(plane, sum / f32(${COUNT ~ "u" if COUNT else "in_pixels()"}));
}

//% include "tensors.wgsl"
