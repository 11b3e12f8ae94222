// A matrix product in registers alone: the lanes of a workgroup work on neighbouring pixels and the same channels,
// so that all of them load the same weights. Many GPUs have scalar loads for that, and multiply by a scalar as fast
// as by a register; the others load once for all lanes. Each pixel is loaded by one lane for all its channels.
//
// weights  [group][panel][k][TILE_CHANNELS], then the biases
// host     TILE_CHANNELS, PIXELS (of an invocation), THREADS, DEPTH_IS_PADDED, `compute`, and a source, a
//          product_*.wgsl, an input_*, an output_* and a weights_* file

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = workgroup_index(workgroup, grid);
    if index >= params.work {
        return;
    }
    let panel = index % (params.groups * params.panels);
    let first_pixel = (index / (params.groups * params.panels) * THREADS + local) * PIXELS;
    compute(first_pixel, panel / params.panels, panel);
}
