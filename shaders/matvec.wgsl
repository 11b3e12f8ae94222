// A matrix times a vector: layers of a single output pixel, such as classifiers. A few rows at a time (vectors, the
// images of a batch) share the loads of the weights, which are all there is to do: each is used once a row.
//
// A workgroup computes TILE_CHANNELS outputs. LANES = TILE_CHANNELS / 4 invocations side by side have four each, and
// SLICES of them one behind the other take turns at `k`, so that a sweep over the workgroup is one stretch of memory.
// Then the slices' sums are added up in a tree.
//
// weights  [panel][k][TILE_CHANNELS], then the biases
// host     TILE_CHANNELS, LANES, SLICES, STEPS (log2 of SLICES), WORKGROUP, DEPTH_IS_PADDED, matvec_quads.wgsl, a
//          matvec_rows_*.wgsl, source_pointwise_nhwc.wgsl, product_nhwc.wgsl, an input_*, an output_* and a weights file

var<workgroup> slices: array<Sums, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    // The same for the whole workgroup, so it leaves as one, before any barrier.
    let index = workgroup_index(workgroup, grid);
    if index >= params.work {
        return;
    }
    let panel = index % params.panels;
    let row = index / params.panels * ROWS;
    let lane = local % LANES;
    let quads = panel_quads(panel) + lane;

    var sums = Sums();
    for (var k = local / LANES * 4u; k < params.padded_depth; k += SLICES * 4u) {
        sums += load_weights(quads + k * LANES) * load_rows(row, k);
    }

    // Each step halves the slices that hold a part of the sums.
    slices[local] = sums;
    for (var step = 0u; step < STEPS; step++) {
        workgroupBarrier();
        let half = WORKGROUP >> (step + 1u);
        if local < half {
            slices[local] += slices[local + half];
        }
    }
    // The first slice wrote its own.
    if local < LANES {
        store_rows(row, panel * TILE_CHANNELS + lane * 4u, slices[local]);
    }
}
