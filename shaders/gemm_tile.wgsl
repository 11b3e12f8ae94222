// ${recipe}: ${problem}
//
// A matrix product through workgroup memory: sums[channel][pixel] += weight[channel][k] * source[k][pixel].
//
// A workgroup computes TILE_CHANNELS x TILE_PIXELS outputs of one group of channels. It brings both matrices into
// workgroup memory, TILE_DEPTH of k at a time; then each invocation multiplies its micro-tile, in registers.
//% if SLICES > 1
// SLICES parts of the workgroup have the same outputs. Each multiplies its share of the TILE_DEPTH, so that micro-tiles
// can be larger, and a multiply-add takes fewer loads from workgroup memory. In the end their sums are added.
//% endif
//% if MEANS
// It goes through all pixels of an image, TILE_PIXELS at a time, and stores the mean of each channel.
//% endif
//
// The included ${source} says what the source is: the input itself, windows of it, or what
// the links before make of it.
//% if SOURCE_STAGES
// `staged_place` finds an invocation's inputs once, and `stage_pixels` computes the source's values from them.
//% else
// `place` finds a pixel's inputs once, `locate` those of a segment of k, and `fetch` reads or computes their values.
//% endif
//
// weights  [group][panel][k][TILE_CHANNELS], then the biases
//#
//# include  a source_*.wgsl, inner_activation.wgsl if that activates, means.wgsl, tensors.wgsl, output.wgsl
//# host     source (the included file), inner_activations (as inner_activation.wgsl has them; none if the source does
//#          not activate), TILE_CHANNELS, TILE_PIXELS, TILE_DEPTH (of k), MICRO_CHANNELS, MICRO_PIXELS, SLICES (of the
//#          workgroup), STEP_DEPTH (k that are written out; if these are all that an invocation has of a tile, what is
//#          staged is as well, unless STAGED_IN_LOOP), MEANS (whether means are stored), SEGMENTED (whether k has
//#          segments), SOURCE_STAGES (whether the source has its own `staged_place` and `stage_pixels`),
//#          SOURCE_PREPARES (whether it stages something of its own before, by `prepare`), ROW_DEPTH (k of a row of the
//#          kernel, if the source gives whole ones, by `fetch_row`, for PIXELS pixels), LOADS_AHEAD (as the compiler
//#          does); params.weights_at,
//#          params.padded_depth, params.segment_depth (elements), params.panels, params.work (workgroups)
//
// The micro-tile over workgroup memory follows Volkov and Demmel, "Benchmarking GPUs to Tune Dense Linear Algebra"
// (SC 2008).

const TILE_CHANNELS: u32 = ${TILE_CHANNELS}u;
const TILE_PIXELS: u32 = ${TILE_PIXELS}u;
const TILE_DEPTH: u32 = ${TILE_DEPTH}u;
const STEP_DEPTH: u32 = ${STEP_DEPTH}u;
const CHANNEL_QUADS: u32 = TILE_CHANNELS / 4u;
const PIXEL_QUADS: u32 = TILE_PIXELS / 4u;
//% set SLICE_THREADS = (TILE_CHANNELS // MICRO_CHANNELS) * (TILE_PIXELS // MICRO_PIXELS)
//% set THREADS = SLICE_THREADS * SLICES
const THREADS: u32 = ${THREADS}u;
//% if SLICES > 1
const SLICE_THREADS: u32 = ${SLICE_THREADS}u;
const SLICE_DEPTH: u32 = ${TILE_DEPTH // SLICES}u;
//% endif

//# The side of the output whose neighbours are neighbours in memory is the columns (quads), the other one the rows.
//% if layout == "nchw"
    //% set ROWS, QUADS, COLUMNS = MICRO_CHANNELS, MICRO_PIXELS // 4, TILE_PIXELS // MICRO_PIXELS
// A row of invocations has the same channels, a column the same pixels.
//% else
    //% set ROWS, QUADS, COLUMNS = MICRO_PIXELS, MICRO_CHANNELS // 4, TILE_CHANNELS // MICRO_CHANNELS
// A row of invocations has the same pixels, a column the same channels.
//% endif
const MICRO_COLUMNS: u32 = ${COLUMNS}u;
//# Some compilers write loops out, and load all values ahead of their use.
//% set DEPTH_BOUND = "opaque(TILE_DEPTH)" if LOADS_AHEAD else "TILE_DEPTH"
//# Where all k of a tile are written out, what is staged is as well.
//% set WRITTEN_OUT = STEP_DEPTH * SLICES == TILE_DEPTH
//% set xyzw = ["x", "y", "z", "w"]

// Quads, as a micro-tile's operands are: [k][four pixels] in NCHW, [four k][pixel] in NHWC; and [k][four channels].
//% if SLICES > 1
// In the end, SLICES quads of sums of each invocation.
var<workgroup> pixel_tile: array<vec4<f32>, max(TILE_DEPTH * PIXEL_QUADS, ${SLICES}u * THREADS)>;
//% else
var<workgroup> pixel_tile: array<vec4<f32>, TILE_DEPTH * PIXEL_QUADS>;
//% endif
//% if SOURCE_STAGES
// Before the weights come there, the source has SOURCE_QUADS of its own in `channel_tile`.
var<workgroup> channel_tile: array<vec4<f32>, max(TILE_DEPTH * CHANNEL_QUADS, SOURCE_QUADS)>;
//% else
var<workgroup> channel_tile: array<vec4<f32>, TILE_DEPTH * CHANNEL_QUADS>;
//% endif

// An invocation's sums. Each has a name, for an array that is indexed at run time would not stay in registers.
//% if layout == "nhwc"
// The channels of a quad are in reverse order: see `accumulate`.
//% endif
struct MicroTile {
    //% for row in range(ROWS)
        //% for quad in range(QUADS)
    sum_row${row}_quad${quad}: vec4<f32>,
        //% endfor
    //% endfor
}

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
    let group = panel / params.panels;
    let first_channel = panel % params.panels * TILE_CHANNELS;
    //% if SLICES > 1
    let row = local % SLICE_THREADS / MICRO_COLUMNS;
    let column = local % SLICE_THREADS % MICRO_COLUMNS;
    //% else
    let row = local / MICRO_COLUMNS;
    let column = local % MICRO_COLUMNS;
    //% endif
    //% if MEANS
    // All pixels of an image.
    let image = index / params.panels;
    var channel_sums: ChannelSums;
    for (var pixel = 0u; pixel < out_pixels(); pixel += TILE_PIXELS) {
        // Zeros, written out: by Dawn on llvmpipe a variable without a value kept the sums of the tile before.
        var sums = MicroTile();
        multiply(&sums, image * out_pixels() + pixel, panel, row, column, local);
        //% if SLICES > 1
        let slice = local / SLICE_THREADS;
        add_slices(&sums, slice, local % SLICE_THREADS);
        // What the first slice has read is overwritten from here on.
        workgroupBarrier();
        if slice == 0u {
            add_pixels(&channel_sums, &sums, pixel, first_channel, row, column);
        }
        //% else
        add_pixels(&channel_sums, &sums, pixel, first_channel, row, column);
        //% endif
    }
    finish(&channel_sums, image, first_channel, row, column, local);
    //% else
    let first_pixel = index / (params.groups * params.panels) * TILE_PIXELS;
    var sums: MicroTile;
    multiply(&sums, first_pixel, panel, row, column, local);
    finish(&sums, first_pixel, group, first_channel, row, column${", local" if SLICES > 1 else ""});
    //% endif
}

// Adds the products of all k, or of a slice's share of them, for a panel of channels and the pixels from one on.
fn multiply(
    sums: ptr<function, MicroTile>,
    first_pixel: u32,
    panel: u32,
    row: u32,
    column: u32,
    local: u32,
) {
    let staged = staged_place(first_pixel, panel / params.panels, local);
    let panel_at = params.weights_at / 4u + panel * params.padded_depth * CHANNEL_QUADS;
    //% if SLICES > 1
    let first_k = local / SLICE_THREADS * SLICE_DEPTH;
    //% endif
    for (var segment = 0u; segment < segments(); segment++) {
        let located = locate(staged, segment);
        let end = (segment + 1u) * params.segment_depth;
        for (var k0 = segment * params.segment_depth; k0 < end; k0 += TILE_DEPTH) {
            //% if SOURCE_PREPARES
            // What the invocations read from here on is not what some may still multiply.
            prepare(k0, local);
            workgroupBarrier();
            //% endif
            stage_pixels(k0, located, local);
            stage_channels(panel_at + k0 * CHANNEL_QUADS, local);
            workgroupBarrier();
            // WGSL has no way to ask for unrolling, so `accumulate` takes STEP_DEPTH values of k.
            for (var step = 0u; step < tile_steps(); step++) {
                accumulate(sums, ${"first_k + " if SLICES > 1 else ""}step * STEP_DEPTH, row, column);
            }
            //% if not SOURCE_PREPARES
            workgroupBarrier();
            //% endif
        }
    }
}

// Stages the weights of TILE_DEPTH values of k, from a quad on. What is loaded last is stored first, so that a compiler
// waits once.
fn stage_channels(at: u32, local: u32) {
    //% if WRITTEN_OUT
        //% set total = TILE_DEPTH * TILE_CHANNELS // 4
        //% for first in range(0, total - THREADS + 1, THREADS)
    let quad${first} = load_weight(at + local${plus(first)});
        //% endfor
        //% for first in range(0, total - THREADS + 1, THREADS) | reverse
    channel_tile[local${plus(first)}] = quad${first};
        //% endfor
        //% set rest = total % THREADS
        //% if rest
    if local < ${rest}u {
        channel_tile[local${plus(total - rest)}] = load_weight(at + local${plus(total - rest)});
    }
        //% endif
    //% else
    for (var quad = local; quad < TILE_DEPTH * CHANNEL_QUADS; quad += THREADS) {
        channel_tile[quad] = load_weight(at + quad);
    }
    //% endif
}

// Adds the products of STEP_DEPTH values of k. What comes last from workgroup memory is used first, so that a compiler
// waits once for all of it.
//% if layout == "nhwc"
// So the channels of a quad are in reverse order, for some compilers load a quad in halves.
//% endif
fn accumulate(sums: ptr<function, MicroTile>, k: u32, row: u32, column: u32) {
    //% if layout == "nchw"
    let row_at = k * CHANNEL_QUADS + row * ${ROWS // 4}u;
    let column_at = k * PIXEL_QUADS + column;
        //% for step in range(STEP_DEPTH)
            //% for quad in range(QUADS)
    let pixels_k${step}_quad${quad} = pixel_tile[column_at${plus(step, "PIXEL_QUADS")}${plus(quad * COLUMNS)}];
            //% endfor
            //% for quad in range(ROWS // 4)
    let channels_k${step}_quad${quad} = channel_tile[row_at${plus(step, "CHANNEL_QUADS")}${plus(quad)}];
            //% endfor
            //% for row in range(ROWS) | reverse
                //% for quad in range(QUADS) | reverse
                    //% set sum = "(*sums).sum_row" ~ row ~ "_quad" ~ quad
                    //% set weight = "channels_k" ~ step ~ "_quad" ~ row // 4 ~ "." ~ xyzw[row % 4]
    ${sum} = fma(vec4<f32>(${weight}), pixels_k${step}_quad${quad}, ${sum});
                //% endfor
            //% endfor
        //% endfor
    //% else
    let row_at = k / 4u * TILE_PIXELS + row;
    let column_at = k * CHANNEL_QUADS + column;
        //% for step in range(STEP_DEPTH)
            //% for quad in range(QUADS)
    let channels_k${step}_quad${quad} = channel_tile[column_at${plus(step, "CHANNEL_QUADS")}${plus(quad * COLUMNS)}].wzyx;
            //% endfor
            //% if step % 4 == 0
    // Four k of each pixel.
                //% for row in range(ROWS)
                    //% set at = plus(step // 4, "TILE_PIXELS") ~ plus(row * TILE_PIXELS // ROWS)
    let pixel${row}_k${step} = pixel_tile[row_at${at}];
                //% endfor
            //% endif
            //% for row in range(ROWS) | reverse
                //% for quad in range(QUADS) | reverse
                    //% set sum = "(*sums).sum_row" ~ row ~ "_quad" ~ quad
                    //% set pixel = "pixel" ~ row ~ "_k" ~ step // 4 * 4 ~ "." ~ xyzw[step % 4]
    ${sum} = fma(vec4<f32>(${pixel}), channels_k${step}_quad${quad}, ${sum});
                //% endfor
            //% endfor
        //% endfor
    //% endif
}

//% if SLICES > 1 and not MEANS
// Adds up the sums of the slices, SLICES quads of each invocation at a time, and stores them. Each slice has one of
// these quads.
fn finish(
    sums: ptr<function, MicroTile>,
    first_pixel: u32,
    group: u32,
    first_channel: u32,
    row: u32,
    column: u32,
    local: u32,
) {
    let slice = local / SLICE_THREADS;
    let at = slice * THREADS + local % SLICE_THREADS;
    //% for first in range(0, ROWS * QUADS, SLICES)
        //% if first > 0
    workgroupBarrier();
        //% endif
        //% for next in range(SLICES)
            //% set row, quad = (first + next) // QUADS, (first + next) % QUADS
    pixel_tile[local${plus(next, "THREADS")}] = (*sums).sum_row${row}_quad${quad};
        //% endfor
    workgroupBarrier();
    var sum${first} = pixel_tile[at];
        //% for other in range(1, SLICES)
    sum${first} += pixel_tile[at${plus(other, "SLICE_THREADS")}];
        //% endfor
        //% set number = "(slice" ~ plus(first) ~ ")"
        //% if layout == "nchw"
    let quad${first} = output_quad(first_pixel + (column + ${number} % ${QUADS}u * MICRO_COLUMNS) * 4u, group);
    store_row(quad${first}, group, first_channel + row * ${ROWS}u + ${number} / ${QUADS}u, sum${first});
        //% else
    let pixel${first} = first_pixel + row + ${number} / ${QUADS}u * ${TILE_PIXELS // ROWS}u;
    let channel${first} = first_channel + (column + ${number} % ${QUADS}u * MICRO_COLUMNS) * 4u;
    store_pixel(pixel${first}, group, channel${first}, sum${first}.wzyx);
        //% endif
    //% endfor
}
//% elif not MEANS
fn finish(
    sums: ptr<function, MicroTile>,
    first_pixel: u32,
    group: u32,
    first_channel: u32,
    row: u32,
    column: u32,
) {
    //% for quad in range(QUADS)
        //% if layout == "nchw"
    let quad${quad} = output_quad(first_pixel + (column${plus(quad * COLUMNS)}) * 4u, group);
            //% for row in range(ROWS)
                //% set channel = "first_channel + row * " ~ ROWS ~ "u" ~ plus(row)
    store_row(quad${quad}, group, ${channel}, (*sums).sum_row${row}_quad${quad});
            //% endfor
        //% else
            //% for row in range(ROWS)
                //% set pixel = "first_pixel + row" ~ plus(row * TILE_PIXELS // ROWS)
                //% set channel = "first_channel + (column" ~ plus(quad * COLUMNS) ~ ") * 4u"
    store_pixel(${pixel}, group, ${channel}, (*sums).sum_row${row}_quad${quad}.wzyx);
            //% endfor
        //% endif
    //% endfor
}
//% endif

// How many steps of STEP_DEPTH an invocation has of a tile.
fn tile_steps() -> u32 {
    //% if WRITTEN_OUT
    return 1u;
    //% else
    return opaque(${TILE_DEPTH // SLICES // STEP_DEPTH}u);
    //% endif
}

//% if SEGMENTED
fn segments() -> u32 {
    return params.padded_depth / params.segment_depth;
}
//% else
// All of k is one segment.
fn segments() -> u32 {
    return 1u;
}

alias Located = Place;

fn locate(place: Place, segment: u32) -> Located {
    return place;
}
//% endif

//% if not SOURCE_STAGES
    //% if ROW_DEPTH
// Four neighbouring pixels of one k are a quad, and the columns of a row of the kernel are neighbours in k.
fn staged_place(first_pixel: u32, group: u32, local: u32) -> Place {
    return place(first_pixel + local % PIXEL_QUADS * 4u, group);
}

fn stage_pixels(k0: u32, located: Located, local: u32) {
        //% set total, at_once = TILE_DEPTH // ROW_DEPTH, THREADS // (TILE_PIXELS // 4)
        //% for first in range(0, total, at_once)
            //% if first + at_once > total
    if local / PIXEL_QUADS < ${total - first}u {
        stage_row(local / PIXEL_QUADS${plus(first)}, k0, located, local);
    }
            //% else
    stage_row(local / PIXEL_QUADS${plus(first)}, k0, located, local);
            //% endif
        //% endfor
}

const PIXELS: u32 = ${PIXELS}u;

// Stages what a row of the kernel sees at a quad of pixels.
fn stage_row(row: u32, k0: u32, located: Located, local: u32) {
    let values = fetch_row(k0 / ${ROW_DEPTH}u + row, located);
    let at = row * ${ROW_DEPTH}u * PIXEL_QUADS + local % PIXEL_QUADS;
        //% for k in range(ROW_DEPTH)
    pixel_tile[at${plus(k, "PIXEL_QUADS")}] = values.k${k}_quad0;
        //% endfor
}
    //% elif layout == "nchw"
// Four neighbouring pixels of one k are a quad.
fn staged_place(first_pixel: u32, group: u32, local: u32) -> Place {
    return place(first_pixel + local % PIXEL_QUADS * 4u, group);
}

fn stage_pixels(k0: u32, located: Located, local: u32) {
    let quad = local % PIXEL_QUADS;
        //% if WRITTEN_OUT and not STAGED_IN_LOOP
    let k = local / PIXEL_QUADS;
            //% for first in range(0, TILE_DEPTH, THREADS // (TILE_PIXELS // 4))
    let values${first} = fetch(k0 + k${plus(first)}, located);
            //% endfor
            //% for first in range(0, TILE_DEPTH, THREADS // (TILE_PIXELS // 4)) | reverse
    pixel_tile[(k${plus(first)}) * PIXEL_QUADS + quad] = values${first};
            //% endfor
        //% else
    for (var k = local / PIXEL_QUADS; k < ${DEPTH_BOUND}; k += THREADS / PIXEL_QUADS) {
        pixel_tile[k * PIXEL_QUADS + quad] = fetch(k0 + k, located);
    }
        //% endif
}
    //% else
const_assert THREADS % TILE_PIXELS == 0u;

// Four neighbouring k of one pixel are a quad.
//
// Nothing turns them over into quads of pixels here: these would be written by four invocations, a component each, and
// writing a component may write the whole vector (as it does on Metal and Direct3D).
fn staged_place(first_pixel: u32, group: u32, local: u32) -> Place {
    return place(first_pixel + local % TILE_PIXELS, group);
}

fn stage_pixels(k0: u32, located: Located, local: u32) {
    let pixel = local % TILE_PIXELS;
        //% if WRITTEN_OUT and not STAGED_IN_LOOP
    let quad = local / TILE_PIXELS;
            //% for first in range(0, TILE_DEPTH // 4, THREADS // TILE_PIXELS)
    let values${first} = fetch(k0 + quad * 4u${plus(first * 4)}, located);
            //% endfor
            //% for first in range(0, TILE_DEPTH // 4, THREADS // TILE_PIXELS) | reverse
    pixel_tile[(quad${plus(first)}) * TILE_PIXELS + pixel] = values${first};
            //% endfor
        //% else
    for (var quad = local / TILE_PIXELS; quad < ${DEPTH_BOUND} / 4u; quad += THREADS / TILE_PIXELS) {
        pixel_tile[quad * TILE_PIXELS + pixel] = fetch(k0 + quad * 4u, located);
    }
        //% endif
}
    //% endif
//% endif

//% include source

//% if MEANS
    //% include "means.wgsl"

//% endif
//% if inner_activations
    //% include "inner_activation.wgsl"

//% endif
//% include "tensors.wgsl"

//% include "output.wgsl"
