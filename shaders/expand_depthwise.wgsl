// ${recipe}: ${problem}
//
// A pointwise convolution, the expansion, and the depthwise convolution of what it gives, which is never written to
// memory.
//
// A workgroup computes TILE_DEPTH channels of a block of outputs, as the source of a fused inverted residual does: it
// expands the inputs under the block, the halo included, into workgroup memory, and convolves what is there. Then each
// invocation stores four channels of four outputs side by side.
//% if means
// The workgroup also adds up its block of each channel. Divided by the mean size of a block, the sums of a plane have
// the mean of the plane.
//% endif
//
// weights  of the expansion [panel][input channel][TILE_DEPTH], then its biases; of the depthwise convolution
//          [quad of channels][tap][4], then its biases
//% if means
// means    [image][block][channel]
//% endif
//#
//# include  source_inverted.wgsl, inner_activation.wgsl, tensors.wgsl, output.wgsl
//# host     TILE_DEPTH (channels), TILE_PIXELS, what source_inverted.wgsl asks for; params.panels (of TILE_DEPTH
//#          channels), params.work (workgroups), means (whether what makes up the mean of each plane is stored too; the
//#          activation is then an inner one, and output.wgsl has none)

const TILE_DEPTH: u32 = ${TILE_DEPTH}u;
const TILE_PIXELS: u32 = ${TILE_PIXELS}u;
const PIXEL_QUADS: u32 = TILE_PIXELS / 4u;
const THREADS: u32 = TILE_DEPTH / 4u * PIXEL_QUADS;
//% set xyzw = ["x", "y", "z", "w"]

// Expanded channels, [quad of channels][input].
var<workgroup> channel_tile: array<vec4<f32>, SOURCE_QUADS>;
//% if means

@group(0) @binding(4) var<storage, read_write> means: array<f32>;
// Sums of blocks come where the expanded channels were.
const_assert THREADS <= SOURCE_QUADS;
//% endif

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
    // Neighbours share their inputs, which are then still in cache.
    let k0 = index % params.panels * TILE_DEPTH;
    let block = index / params.panels;
    let place = staged_place(block * TILE_PIXELS, 0u, local);
    //% if CLIPPED
    // No block has a whole halo in the image.
    for (var quad = local; quad < SOURCE_QUADS; quad += THREADS) {
        channel_tile[quad] = vec4<f32>(0.0);
    }
    workgroupBarrier();
    //% endif
    //% if EXPANDED == TILE_DEPTH
    expand(k0, 0u, place);
    //% else
    // Drivers would write out a loop of few steps whole.
    for (var k = 0u; k < opaque(TILE_DEPTH); k += EXPANDED) {
        expand(k0, k, place);
    }
    //% endif
    workgroupBarrier();
    let k = k0 + place.results.k;
    //% if means
    var sum = vec4<f32>(0.0);
    //% endif
    if k < params.out_channels {
        let results = depthwise(k / 4u, place.results.first);
        let outputs = outputs_of(block, place.results.pixel);
        if outputs.y < params.out_height && outputs.x < params.out_width {
            store_results(outputs, k, results);
    //% if means
            sum = sum_of(outputs.x, results);
    //% endif
        }
    }
    //% if means
    workgroupBarrier();
    channel_tile[local] = sum;
    workgroupBarrier();
    if local % PIXEL_QUADS == 0u && k < params.out_channels {
        for (var next = 1u; next < PIXEL_QUADS; next++) {
            sum += channel_tile[local + next];
        }
        store_means(block, k, sum * (f32(params.tiles_x * params.tiles_y) / f32(out_pixels())));
    }
    //% endif
}
//% if means

// What the outputs of an invocation that are in the image add to the sums of its channels.
fn sum_of(x: u32, results: Results) -> vec4<f32> {
    var sum = results.output0;
    //% for output in range(1, 4)
    if x + ${output}u < params.out_width {
        sum += results.output${output};
    }
    //% endfor
    return sum;
}

fn store_means(block: u32, k: u32, values: vec4<f32>) {
    let first = block * params.out_channels + k;
    means[first] = values.x;
    //% for channel in range(1, 4)
    if k + ${channel}u < params.out_channels {
        means[first + ${channel}u] = values.${xyzw[channel]};
    }
    //% endfor
}
//% endif

// Four neighbouring outputs, by the first.
struct Outputs {
    image: u32,
    y: u32,
    x: u32,
}

fn outputs_of(block: u32, pixel: u32) -> Outputs {
    let row = block / params.tiles_x;
    return Outputs(
        row / params.tiles_y,
        row % params.tiles_y * BLOCK_HEIGHT + pixel / BLOCK_WIDTH,
        block % params.tiles_x * BLOCK_WIDTH + pixel % BLOCK_WIDTH,
    );
}

fn store_results(outputs: Outputs, k: u32, results: Results) {
    let steps = vec4<u32>(0u, 1u, 2u, 3u);
    //% if layout == "nchw"
    let columns = min(outputs.x + steps, vec4<u32>(params.out_width - 1u));
    let first = (outputs.image * params.out_channels + k) * out_pixels() + outputs.y * params.out_width;
    let valid = outputs.x + steps < vec4<u32>(params.out_width);
        //% for channel in range(4)
    let channel${channel} = vec4<f32>(
            //% for output in range(4)
        results.output${output}.${xyzw[channel]},
            //% endfor
    );
            //% if channel == 0
    store4(first + columns, valid, channel0);
            //% else
    if k + ${channel}u < params.out_channels {
        store4(first + columns${plus(channel, "out_pixels()")}, valid, channel${channel});
    }
            //% endif
        //% endfor
    //% else
    let channels = min(k + steps, vec4<u32>(params.out_channels - 1u));
    let valid = k + steps < vec4<u32>(params.out_channels);
    let first = ((outputs.image * params.out_height + outputs.y) * params.out_width + outputs.x) * params.out_channels;
        //% for output in range(4)
            //% if output == 0
    store4(first + channels, valid, results.output0);
            //% else
    if outputs.x + ${output}u < params.out_width {
        store4(first${plus(output, "params.out_channels")} + channels, valid, results.output${output});
    }
            //% endif
        //% endfor
    //% endif
}

//% include "source_inverted.wgsl"

//% include "inner_activation.wgsl"

//% include "tensors.wgsl"

//% include "output.wgsl"
