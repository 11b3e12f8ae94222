// A matrix product without workgroup memory: the lanes of a subgroup work on neighbouring pixels and the same
// channels. Each lane loads a few of the weights of a k, and `subgroupBroadcast` hands them round, so that a
// weight is loaded once a subgroup; the pixels stay in the lane that loaded them.
//
// Right for the subgroups that the host wrote `compute` for and any multiple of them: a broadcast reads from one of
// the first lanes, and every further lane loads what one of those does. A workgroup is a whole subgroup, or several.
//
// weights  [group][panel][k][TILE_CHANNELS], then the biases
// host     TILE_CHANNELS, PIXELS (of an invocation), THREADS, DEPTH_IS_PADDED, `compute`, and a source, a
//          product_*.wgsl, an input_*, an output_* and a weights_* file

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    // The same for the whole workgroup, so no lane is missing from a broadcast.
    let index = workgroup_index(workgroup, grid);
    if index >= params.work {
        return;
    }
    let panel = index % (params.groups * params.panels);
    let first_pixel = (index / (params.groups * params.panels) * THREADS + local) * PIXELS;
    compute(first_pixel, panel / params.panels, panel, lane);
}
