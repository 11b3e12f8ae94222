// A matrix product through workgroup memory: sums[channel][pixel] += weight[channel][k] * source[k][pixel].
//
// A workgroup computes TILE_CHANNELS x TILE_PIXELS outputs of one group of channels. TILE_DEPTH rows of both
// matrices at a time go into workgroup memory; then each invocation multiplies its micro-tile, in registers.
// What the source is (the input itself, windows of it, or a depthwise convolution's results) a source_*.wgsl
// file says: `place` finds a pixel's inputs once, `locate` those of a segment of k, `fetch` reads or computes its
// values.
//
// weights  [group][panel][k][TILE_CHANNELS], then the biases
// host     TILE_*, STEP_DEPTH, CHANNEL_TILE, THREADS, DEPTH_IS_PADDED, `segments`, `tile_steps`, `MicroTile`,
//          `accumulate`, `finish`, and a source, a tile_*.wgsl (unless the source stages by itself), an input_*, an
//          output_* and a weights_* file
//
// The micro-tile over workgroup memory follows Volkov and Demmel, "Benchmarking GPUs to Tune Dense Linear
// Algebra" (SC 2008).

const PIXEL_QUADS: u32 = TILE_PIXELS / 4u;
const CHANNEL_QUADS: u32 = TILE_CHANNELS / 4u;

// Quads, as a micro-tile's operands are: [k][four pixels] in NCHW, [four k][pixel] in NHWC; and [k][four channels]. A
// source may use `channel_tile` while it stages.
var<workgroup> pixel_tile: array<vec4<f32>, TILE_DEPTH * PIXEL_QUADS>;
var<workgroup> channel_tile: array<vec4<f32>, CHANNEL_TILE>;

@compute @workgroup_size(THREADS)
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
    // Neighbours share their pixels, which are then still in cache.
    let panel = index % (params.groups * params.panels);
    let first_pixel = index / (params.groups * params.panels) * TILE_PIXELS;
    let group = panel / params.panels;

    let staged = staged_place(first_pixel, group, local);
    let panel_at = params.weights_at / 4u + panel * params.padded_depth * CHANNEL_QUADS;
    let row = local / MICRO_COLUMNS;
    let column = local % MICRO_COLUMNS;
    var sums: MicroTile;
    for (var segment = 0u; segment < segments(); segment++) {
        let located = locate(staged, segment);
        let end = (segment + 1u) * params.segment_depth;
        for (var k0 = segment * params.segment_depth; k0 < end; k0 += TILE_DEPTH) {
            stage_pixels(k0, located, local);
            for (var quad = local; quad < TILE_DEPTH * CHANNEL_QUADS; quad += THREADS) {
                channel_tile[quad] = weights[panel_at + k0 * CHANNEL_QUADS + quad];
            }
            workgroupBarrier();
            // WGSL has no way to ask for unrolling, so `accumulate` takes STEP_DEPTH values of k.
            for (var step = 0u; step < tile_steps(); step++) {
                accumulate(&sums, step * STEP_DEPTH, row, column);
            }
            workgroupBarrier();
        }
    }
    finish(&sums, first_pixel, group, panel % params.panels * TILE_CHANNELS, row, column);
}
