// ${recipe}: a global average pool, ${layout}
//
// Global average pooling: the mean of every plane, which is a channel of an image.
//
// A workgroup computes PLANES planes with LANES invocations each: every invocation sums each LANES-th pixel, STEP of
// them at a time, so that the error grows slower than their number. Then a tree in workgroup memory adds their sums.
//
// input    NCHW or NHWC, by the strides and the order of the lanes
// output   a value a plane, one image after the other: in both layouts, for there is one pixel
//#
//# include  tensors.wgsl
//# host     PLANES, LANES (a power of two); params.work (planes), COUNT (what sums are divided by; none if by
//#          the number of their pixels)

const PLANES: u32 = ${PLANES}u;
const LANES: u32 = ${LANES}u;
const WORKGROUP: u32 = PLANES * LANES;
const STEPS: u32 = firstTrailingBit(LANES);
const STEP: u32 = 64u;
// Between invocations of two planes, and of two lanes: neighbours read neighbours in memory.
//% if layout == "nchw"
const PLANE_DISTANCE: u32 = LANES;
const LANE_DISTANCE: u32 = 1u;
//% else
const PLANE_DISTANCE: u32 = 1u;
const LANE_DISTANCE: u32 = PLANES;
//% endif

var<workgroup> sums: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let plane = workgroup_index(workgroup, grid) * PLANES + local / PLANE_DISTANCE % PLANES;
    let lane = local / LANE_DISTANCE % LANES;
    let start = plane_start(min(plane, max(params.work, 1u) - 1u));

    var sum = 0.0;
    for (var first = 0u; first < in_pixels(); first += LANES * STEP) {
        let end = min(first + LANES * STEP, in_pixels());
        var part = 0.0;
        for (var next = first; next < end; next += LANES) {
            let pixel = next + lane;
            let value = load_input(start + min(pixel, end - 1u) * in_pixel_stride());
            part += select(0.0, value, pixel < end);
        }
        sum += part;
    }

    // Each step halves the lanes that hold a part of the sum.
    sums[local] = sum;
    for (var step = 0u; step < STEPS; step++) {
        workgroupBarrier();
        let half = LANES >> (step + 1u);
        if lane < half {
            sums[local] += sums[local + half * LANE_DISTANCE];
        }
    }
    // The first lane wrote its own.
    if lane == 0u && plane < params.work {
        store_plain(plane, sums[local] / f32(${COUNT ~ "u" if COUNT else "in_pixels()"}));
    }
}

//% include "tensors.wgsl"
