// ${recipe}: ${problem}
//
// A matrix product in registers alone: sums[channel][pixel] += weight[channel][k] * source[k][pixel].
//
// An invocation computes TILE_CHANNELS x PIXELS outputs of one group of channels. The lanes of a workgroup work on
// neighbouring pixels and the same channels, so that each pixel is loaded by one lane for all its channels.
//
//% if BROADCAST
// Each lane loads a few of the weights of a step of the loop, and `subgroupBroadcast` hands them round, so that a
// weight is loaded once a subgroup. This is right for subgroups of LANES and more: a broadcast reads from one of the
// first LANES lanes, and every further lane loads what one of those does. A workgroup is a whole subgroup, or several.
//% else
// All lanes load the same weights. Many GPUs have scalar loads for that, and multiply by a scalar as fast as by a
// register; the others load once for all lanes.
//% endif
//
// The included ${source} says what the source is: the input itself, or windows of it.
//
// weights  [group][panel][k][TILE_CHANNELS], then the biases
//#
//# include  a source_*.wgsl, tensors.wgsl, output.wgsl
//# host     source (the included file), ROW_DEPTH (k of a row of the kernel, if the source gives whole ones, by
//#          `fetch_row`), TILE_CHANNELS, PIXELS, THREADS (invocations of a workgroup), STEP_DEPTH (k of a step of the
//#          loop: of whole rows if there are any, else four in NHWC), WEIGHTS_PER_LOAD (1, 2 or 4), BROADCAST (true or
//#          false), LANES (that load different weights; 1 unless BROADCAST), SUMS_IN_ARRAY (whether the sums are an
//#          array that a loop stores), BIAS (whether sums start with biases; `bias` of output.wgsl is false, for that
//#          would add them again); params.weights_at, params.bias_at, params.padded_depth (elements), params.panels,
//#          params.work (workgroups)

const TILE_CHANNELS: u32 = ${TILE_CHANNELS}u;
const PIXELS: u32 = ${PIXELS}u;
const THREADS: u32 = ${THREADS}u;
//% if BROADCAST
const LANES: u32 = ${LANES}u;
//% endif
const WEIGHTS_PER_LOAD: u32 = ${WEIGHTS_PER_LOAD}u;
const LOADS_OF_K: u32 = TILE_CHANNELS / WEIGHTS_PER_LOAD;
//% set QUADS = PIXELS // 4
//% set LOADS_OF_K = TILE_CHANNELS // WEIGHTS_PER_LOAD
//% set xyzw = ["x", "y", "z", "w"]

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    //% if BROADCAST
    @builtin(subgroup_invocation_id) lane: u32,
    //% endif
) {
    //% if BROADCAST
    // The same for the whole workgroup, so no lane is missing from a broadcast.
    //% endif
    let index = workgroup_index(workgroup, grid);
    if index >= params.work {
        return;
    }
    let panel = index % (params.groups * params.panels);
    let first_pixel = (index / (params.groups * params.panels) * THREADS + local) * PIXELS;
    let group = panel / params.panels;

    let panel_at = (params.weights_at + panel * params.padded_depth * TILE_CHANNELS) / WEIGHTS_PER_LOAD;
    //# The loads of a step. The last may be of fewer lanes.
    //% set loads = STEP_DEPTH * LOADS_OF_K
    //% set rest = loads % LANES
    //% if BROADCAST
    let of_lane = lane % LANES;
        //% if rest > 0
    let of_lane_at_last = ${loads - rest}u + min(of_lane, ${rest - 1}u);
        //% endif
    //% endif
    //% if ROW_DEPTH
    let place = place(first_pixel, group);
    //% else
        //# A place is four pixels in NCHW, and one in NHWC.
        //% for pixel in range(0, PIXELS, 4 if layout == "nchw" else 1)
    let place${pixel} = place(first_pixel${plus(pixel)}, group);
        //% endfor
    //% endif
    //% if BIAS
    let bias_at = params.bias_at / WEIGHTS_PER_LOAD + panel * LOADS_OF_K;
        //% for first in range(0, LOADS_OF_K, LANES)
            //% if BROADCAST and first + LANES > LOADS_OF_K
    let biases${first // LANES} = load_weight(bias_at${plus(first)} + min(of_lane, ${LOADS_OF_K - first - 1}u));
            //% elif BROADCAST
    let biases${first // LANES} = load_weight(bias_at${plus(first)} + of_lane);
            //% else
    let biases${first} = load_weight(bias_at${plus(first)});
            //% endif
        //% endfor
    //% endif
    //% if SUMS_IN_ARRAY
    // [channel][quad of pixels]; more than 32, for Mesa unrolls a loop over an array of fewer.
    var sums: array<vec4<f32>, ${[TILE_CHANNELS * QUADS, 33] | max}>;
    //% else
    // Each sum has a name, for an array that a loop stores would not stay in registers.
    //% endif
    //% for channel in range(TILE_CHANNELS)
        //% set load = channel // WEIGHTS_PER_LOAD
        //% set value = "biases" ~ load // LANES ~ ("." ~ xyzw[channel % WEIGHTS_PER_LOAD] if WEIGHTS_PER_LOAD > 1 else "")
        //% set value = "subgroupBroadcast(" ~ value ~ ", " ~ load % LANES ~ "u)" if BROADCAST else value
        //% for quad in range(QUADS)
            //% if not SUMS_IN_ARRAY
    var sum_channel${channel}_quad${quad} = vec4<f32>(${value if BIAS else "0.0"});
            //% elif BIAS
    sums[${channel * QUADS + quad}] = vec4<f32>(${value});
            //% endif
        //% endfor
    //% endfor
    for (var k = 0u; k < params.padded_depth; k += ${STEP_DEPTH}u) {
        // Quads of four pixels, of each k.
        //% if ROW_DEPTH
            //% for row in range(STEP_DEPTH // ROW_DEPTH)
        let row${row} = fetch_row(k / ${ROW_DEPTH}u${plus(row)}, place);
                //% for k in range(ROW_DEPTH)
                    //% for quad in range(QUADS)
        let pixels_k${row * ROW_DEPTH + k}_quad${quad} = row${row}.k${k}_quad${quad};
                    //% endfor
                //% endfor
            //% endfor
        //% elif layout == "nchw"
            //% for quad in range(QUADS)
                //% for k in range(STEP_DEPTH)
        let pixels_k${k}_quad${quad} = fetch(k${plus(k)}, place${quad * 4});
                //% endfor
            //% endfor
        //% else
            //% for pixel in range(PIXELS)
        let pixel${pixel} = fetch(k, place${pixel});
            //% endfor
            //% for k in range(4)
                //% for quad in range(QUADS)
                    //% set first, x = quad * 4, xyzw[k]
        let pixels_k${k}_quad${quad} =
            vec4<f32>(pixel${first}.${x}, pixel${first + 1}.${x}, pixel${first + 2}.${x}, pixel${first + 3}.${x});
                //% endfor
            //% endfor
        //% endif

        let weights_at = panel_at + k * LOADS_OF_K;
        //% for first in range(0, loads, LANES)
            //% if BROADCAST
                //% set at = "of_lane_at_last" if first + LANES > loads else ("of_lane" ~ plus(first))
        let weights${first // LANES} = load_weight(weights_at + ${at});
            //% else
        let weights${first} = load_weight(weights_at${plus(first)});
            //% endif
        //% endfor
        //% for channel in range(TILE_CHANNELS)
            //% set load = channel // WEIGHTS_PER_LOAD
            //% set component = "." ~ xyzw[channel % WEIGHTS_PER_LOAD] if WEIGHTS_PER_LOAD > 1 else ""

            //% for k in range(STEP_DEPTH)
                //% set number = k * LOADS_OF_K + load
                //% set weight = "weights" ~ number // LANES ~ component
                //% if BROADCAST
        let weight_k${k}_channel${channel} = vec4<f32>(subgroupBroadcast(${weight}, ${number % LANES}u));
                //% else
        let weight_k${k}_channel${channel} = vec4<f32>(${weight});
                //% endif
            //% endfor
            //% for quad in range(QUADS)
                //% set name = "sum_channel" ~ channel ~ "_quad" ~ quad
                //% set sum = "sums[" ~ (channel * QUADS + quad) ~ "]" if SUMS_IN_ARRAY else name
        ${sum} =
                //# Later k stand further out.
                //% for k in range(STEP_DEPTH) | reverse
            fma(weight_k${k}_channel${channel}, pixels_k${k}_quad${quad},
                //% endfor
            ${sum}${")" * STEP_DEPTH};
            //% endfor
        //% endfor
    }

    let first_channel = panel % params.panels * TILE_CHANNELS;
    //# Where a quad or a pixel of the output is, by its number among those of an invocation.
    //% set what = "quad" if layout == "nchw" else "pixel"
    //% set group = ", group" if layout == "nchw" else ""
    //% macro place_of(at, is_number)
        //% if not ROW_DEPTH
output_${what}(first_pixel${plus(at) if is_number else " + " ~ at}${group})
        //% elif pixels == "rows"
block_${what}(block, 0u, ${at}${"u" if is_number else ""}${group})
        //% elif is_number
block_${what}(block, ${at // WIDTH}u, ${at % WIDTH}u${group})
        //% else
block_${what}(block, ${at} / BLOCK_WIDTH, ${at} % BLOCK_WIDTH${group})
        //% endif
    //% endmacro
    //% if ROW_DEPTH
    let block = output_block(first_pixel);
    //% endif
    //% if SUMS_IN_ARRAY
    let channels = opaque(min(TILE_CHANNELS, params.group_out - first_channel));
    let pixels = opaque(min(PIXELS, max(pixel_count(), first_pixel) - first_pixel));
        //% if layout == "nchw"
    for (var quad = 0u; quad * 4u < pixels; quad++) {
        let at = ${place_of("quad * 4u", false) | trim};
        for (var channel = 0u; channel < channels; channel++) {
            store_row(at, group, first_channel + channel, sums[channel * ${QUADS}u + quad]);
        }
    }
        //% else
    for (var channel = 0u; channel < channels; channel += 4u) {
        for (var pixel = 0u; pixel < pixels; pixel++) {
            let values = vec4<f32>(
            //% for next in range(4)
                sums[(channel${plus(next)}) * ${QUADS}u + pixel / 4u][pixel % 4u],
            //% endfor
            );
            store_channels(${place_of("pixel", false) | trim}, group, first_channel + channel, values);
        }
    }
        //% endif
    //% elif layout == "nchw"
        //% for quad in range(QUADS)
    let quad${quad} = ${place_of(quad * 4, true) | trim};
            //% for channel in range(TILE_CHANNELS)
    store_row(quad${quad}, group, first_channel${plus(channel)}, sum_channel${channel}_quad${quad});
            //% endfor
        //% endfor
    //% else
        //% for pixel in range(PIXELS)
    let at${pixel} = ${place_of(pixel, true) | trim};
            //% if TILE_CHANNELS == 2
                //% set of_pixel = "_quad" ~ pixel // 4 ~ "." ~ xyzw[pixel % 4]
    store_pixel2(at${pixel}, group, first_channel, sum_channel0${of_pixel}, sum_channel1${of_pixel});
            //% endif
            //% for first in range(0, TILE_CHANNELS // 4 * 4, 4)
    store_channels(at${pixel}, group, first_channel${plus(first)}, vec4<f32>(
                //% for channel in range(first, first + 4)
        sum_channel${channel}_quad${pixel // 4}.${xyzw[pixel % 4]},
                //% endfor
    ));
            //% endfor
        //% endfor
    //% endif
}

//% include source

//% include "tensors.wgsl"

//% include "output.wgsl"
