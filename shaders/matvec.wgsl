// ${recipe}: ${problem}
//
// A matrix times a vector: layers of a single output pixel, such as classifiers. A few rows at a time (vectors, the
// images of a batch) share the loads of the weights, which are all there is to do: each is used once a row.
//
//% if SLICES > 1
// A workgroup computes TILE_CHANNELS outputs. LANES = TILE_CHANNELS / 4 invocations side by side have four each, and
// SLICES of them one behind the other take turns at `k`, so that a sweep over the workgroup is one stretch of memory.
// Then the slices' sums are added up in a tree.
//% else
// Invocations that cooperate would gain nothing here: each has eight outputs, two quads, by itself, and a workgroup
// reads its weights from the first to the last. TILE_CHANNELS is 8 x LANES.
//% endif
//
// input    [row][k], NHWC of one pixel
// weights  [panel][k][TILE_CHANNELS], then the biases
//#
//# include  source_pointwise.wgsl, tensors.wgsl, output.wgsl
//# host     source (the included file), TILE_CHANNELS, LANES (invocations side by side), SLICES (a power of two; 1
//#          without slices), ROWS (1 or 4); params.weights_at, params.padded_depth (elements), params.panels,
//#          params.work (workgroups)

const TILE_CHANNELS: u32 = ${TILE_CHANNELS}u;
const LANES: u32 = ${LANES}u;
const ROWS: u32 = ${ROWS}u;

//% if ROWS == 1
// Four sums, one a channel.
alias Sums = vec4<f32>;
//% else
// A column of four sums for each row. Rows past the last are the last one again, and are not stored.
alias Sums = mat4x4<f32>;
//% endif

// Where a panel's weights start, in quads of four output channels.
fn panel_quads(panel: u32) -> u32 {
    return (params.weights_at + panel * params.padded_depth * TILE_CHANNELS) / 4u;
}

// The weights of four channels, a column for each of four k.
fn load_weights(at: u32) -> mat4x4<f32> {
    const NEXT = TILE_CHANNELS / 4u;
    return mat4x4<f32>(
        //% for k in range(4)
        load_weight(at${plus(k, "NEXT")}),
        //% endfor
    );
}

// Four k of each row.
fn load_rows(row: u32, k: u32) -> Sums {
    //% if ROWS == 1
    return fetch(k, place(row, 0u));
    //% else
    return mat4x4<f32>(
        //% for next in range(ROWS)
        fetch(k, place(row${plus(next)}, 0u)),
        //% endfor
    );
    //% endif
}

fn store_rows(row: u32, channel: u32, sums: Sums) {
    //% if ROWS == 1
    store_pixel(row, 0u, channel, sums);
    //% else
        //% for next in range(ROWS)
    store_pixel(row${plus(next)}, 0u, channel, sums[${next}]);
        //% endfor
    //% endif
}

const SLICES: u32 = ${SLICES}u;
const WORKGROUP: u32 = LANES * SLICES;
//% if SLICES > 1
const STEPS: u32 = firstTrailingBit(SLICES);

var<workgroup> slices: array<Sums, WORKGROUP>;
//% endif

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    //% if SLICES > 1
    // The same for the whole workgroup, so it leaves as one, before any barrier.
    //% endif
    let index = workgroup_index(workgroup, grid);
    if index >= params.work {
        return;
    }
    let panel = index % params.panels;
    let row = index / params.panels * ROWS;
    //% if SLICES > 1
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
    //% else
    var quads = panel_quads(panel) + 2u * local;

    var first = Sums();
    var second = Sums();
    for (var k = 0u; k < params.padded_depth; k += 4u) {
        let values = load_rows(row, k);
        first += load_weights(quads) * values;
        second += load_weights(quads + 1u) * values;
        quads += TILE_CHANNELS;
    }
    let channel = panel * TILE_CHANNELS + 8u * local;
    store_rows(row, channel, first);
    store_rows(row, channel + 4u, second);
    //% endif
}

//% include source

//% include "tensors.wgsl"

//% include "output.wgsl"
