// ${recipe}: a global average pool, ${layout}
//
// Global average pooling where invocations that cooperate gain nothing: each sums a plane by itself, row by row, so
// that the error grows with a row and a column and not with all pixels.
//
// input    NCHW or NHWC, by the strides
// output   a value a plane, one image after the other: in both layouts, for there is one pixel
//#
//# include  tensors.wgsl
//# host     WORKGROUP (invocations); params.work (planes), COUNT (what sums are divided by; none if by
//#          the number of their pixels)

const WORKGROUP: u32 = ${WORKGROUP}u;

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
    for (var y = 0u; y < params.in_height; y++) {
        let row = start + y * params.in_width * in_pixel_stride();
        var row_sum = 0.0;
        for (var x = 0u; x < params.in_width; x++) {
            row_sum += load_input(row + x * in_pixel_stride());
        }
        sum += row_sum;
    }
    store_plain(plane, sum / f32(${COUNT ~ "u" if COUNT else "in_pixels()"}));
}

//% include "tensors.wgsl"
