// A matrix times a vector, where invocations that cooperate gain nothing: each has eight outputs, two quads, by itself,
// and a workgroup reads its weights from the first to the last.
//
// weights  [panel][k][TILE_CHANNELS], then the biases
// host     as for matvec.wgsl, without SLICES, STEPS and WORKGROUP; TILE_CHANNELS is 8 x LANES

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = workgroup_index(workgroup, grid);
    if index >= params.work {
        return;
    }
    let panel = index % params.panels;
    let row = index / params.panels * ROWS;
    var quads = panel_quads(panel) + 2u * lane;

    var first = Sums();
    var second = Sums();
    for (var k = 0u; k < params.padded_depth; k += 4u) {
        let values = load_rows(row, k);
        first += load_weights(quads) * values;
        second += load_weights(quads + 1u) * values;
        quads += TILE_CHANNELS;
    }
    let channel = panel * TILE_CHANNELS + 8u * lane;
    store_rows(row, channel, first);
    store_rows(row, channel + 4u, second);
}
