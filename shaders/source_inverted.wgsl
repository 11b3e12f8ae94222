// The source of a fused inverted residual: the depthwise convolution's results over a block of the image, made of
// expanded channels that are never written to memory; k is the expanded channel.
//
// For TILE_DEPTH expanded channels at a time the workgroup expands the inputs under the block, the halo included, into
// workgroup memory, and convolves what is there. An invocation expands some inputs, and all expand to the same
// channels, so that all load the same weights, which many GPUs do once for all lanes.
//
// weights  before the product's: of the expansion [panel][input channel][TILE_DEPTH], then its biases; of the depthwise
//          convolution [quad of channels][tap][4], then its biases
//#
//# host     layout, geometry of the depthwise convolution, DEPTH_IS_PADDED (whether k goes on behind the last channel);
//#          params.tiles_y and params.tiles_x (blocks of an image); the inner activations "expanded", of EXPANDED / 4
//#          quads, and "depthwise", of one; of gemm_tile.wgsl TILE_DEPTH, TILE_PIXELS, PIXEL_QUADS, THREADS,
//#          `channel_tile` and `pixel_tile`; and
//#          BLOCK_HEIGHT, BLOCK_WIDTH        outputs of a block
//#          HALO_HEIGHT, HALO_WIDTH          inputs under it
//#          HALO_PITCH                       inputs from a row of them to the next in workgroup memory
//#          CLIPPED                          whether only inputs in the image are expanded, and the others are zero already
//#          INPUT_COLUMNS                    columns of those that are expanded: of the halo, unless CLIPPED
//#          INPUTS                           inputs that an invocation expands
//#          EXPANDED                         channels that it expands them to at a time
//#          EXPAND_DEPTH, HIDDEN_CHANNELS    channels of the input; expanded ones
//#          WINDOW_COLUMNS                   columns of the halo under the kernels of four neighbouring outputs,
//#                                           counted from the first
//#          EXPAND_AT, EXPAND_BIAS_AT, DEPTHWISE_AT, DEPTHWISE_BIAS_AT  where weights are, in quads
//
// The block is MobileNetV2's (Sandler et al., arXiv 1801.04381).

const BLOCK_HEIGHT: u32 = ${BLOCK_HEIGHT}u;
const BLOCK_WIDTH: u32 = ${BLOCK_WIDTH}u;
const HALO_HEIGHT: u32 = ${HALO_HEIGHT}u;
const HALO_WIDTH: u32 = ${HALO_WIDTH}u;
const HALO_PITCH: u32 = ${HALO_PITCH}u;
const EXPANDED: u32 = ${EXPANDED}u;
const EXPAND_DEPTH: u32 = ${EXPAND_DEPTH}u;
const EXPAND_AT: u32 = ${EXPAND_AT}u;
const EXPAND_BIAS_AT: u32 = ${EXPAND_BIAS_AT}u;
const DEPTHWISE_AT: u32 = ${DEPTHWISE_AT}u;
const DEPTHWISE_BIAS_AT: u32 = ${DEPTHWISE_BIAS_AT}u;
// A panel of the expansion's weights has whole quads of input channels.
const EXPAND_DEPTH_PADDED: u32 = (EXPAND_DEPTH + 3u) / 4u * 4u;
const HIDDEN_QUADS: u32 = (${HIDDEN_CHANNELS}u + 3u) / 4u;
const DEPTH_QUADS: u32 = TILE_DEPTH / 4u;
// Quads of workgroup memory for four expanded channels, and for all TILE_DEPTH of them.
const HALO_ITEMS: u32 = HALO_HEIGHT * HALO_PITCH;
const SOURCE_QUADS: u32 = HALO_ITEMS * DEPTH_QUADS;
// An invocation makes four channels of four outputs, or nothing.
const_assert DEPTH_QUADS * PIXEL_QUADS <= THREADS;

// What an invocation's inputs and results have in common for all k.
struct Place {
    //% for input in range(INPUTS)
    input${input}: HaloInput,
    //% endfor
    results: HaloResults,
}

fn staged_place(first_pixel: u32, group: u32, local: u32) -> Place {
    let corner = halo_corner(first_pixel);
    // Neighbouring lanes have neighbouring inputs.
    return Place(
        //% for input in range(INPUTS)
        halo_input(local${plus(input, "THREADS")}, corner),
        //% endfor
        halo_results(local),
    );
}

// Stages the depthwise results of TILE_DEPTH channels. The expanded ones, [four k][input], are where the product's
// weights come afterwards: in `channel_tile`.
fn stage_pixels(k0: u32, place: Place, local: u32) {
    //% if EXPANDED == TILE_DEPTH
    expand(k0, 0u, place);
    //% else
    // Drivers would write out a loop of few steps whole.
    for (var k = 0u; k < opaque(TILE_DEPTH); k += EXPANDED) {
        expand(k0, k, place);
    }
    //% endif
    workgroupBarrier();
    if place.results.k < TILE_DEPTH {
        let k = k0 + place.results.k;
        var results = depthwise(min(k / 4u, HIDDEN_QUADS - 1u), place.results.first);
        //% if DEPTH_IS_PADDED
        // Weights of zero do not hide the NaNs that infinities make of the channels that fill up a step.
        let is_channel = k + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.group_in);
            //% for output in range(4)
        results.output${output} = select(vec4<f32>(0.0), results.output${output}, is_channel);
            //% endfor
        //% endif
        stage_results(place.results.k, place.results.pixel, results);
    }
    workgroupBarrier();
}

// An image of the batch, and the first input under the block, which may lie in the padding.
struct Corner {
    image: u32,
    top: i32,
    left: i32,
}

fn halo_corner(first_pixel: u32) -> Corner {
    let block = first_pixel / TILE_PIXELS;
    let row = block / params.tiles_x;
    return Corner(
        row / params.tiles_y,
        i32(row % params.tiles_y * BLOCK_HEIGHT * STRIDE_Y) - i32(PAD_TOP),
        i32(block % params.tiles_x * BLOCK_WIDTH * STRIDE_X) - i32(PAD_LEFT),
    );
}

// An input under the block: where its channels are, and where the expanded ones come. It is inside the image, or in the
// padding (which is around the expanded image, so that these are zero), or there is none.
struct HaloInput {
    at: u32,
    item: u32,
    inside: bool,
    padding: bool,
}

fn halo_input(input: u32, corner: Corner) -> HaloInput {
    //% if CLIPPED
    // Counted from the first that is in the image.
    let row = input / ${INPUT_COLUMNS}u + u32(max(-corner.top, 0));
    let column = input % ${INPUT_COLUMNS}u + u32(max(-corner.left, 0));
    let is_input = (row < HALO_HEIGHT) & (column < HALO_WIDTH);
    //% else
    let row = input / HALO_WIDTH;
    let column = input % HALO_WIDTH;
    let is_input = row < HALO_HEIGHT;
    //% endif
    let y = u32(corner.top + i32(row));
    let x = u32(corner.left + i32(column));
    let is_pixel = (y < params.in_height) & (x < params.in_width);
    let at = input_at(corner.image, select(0u, y * params.in_width + x, is_pixel));
    return HaloInput(at, row * HALO_PITCH + column, is_input & is_pixel, is_input & !is_pixel);
}

//% if layout == "nchw"
fn input_at(image: u32, pixel: u32) -> u32 {
    return image * EXPAND_DEPTH * in_pixels() + pixel;
}

// Four channels of a pixel, zeros behind the last one.
fn load_channels(at: u32, channel: u32) -> vec4<f32> {
    let channels = channel + vec4<u32>(0u, 1u, 2u, 3u);
    //% if EXPAND_DEPTH % 4 == 0
    return load_input4(at + channels * in_pixels());
    //% else
    let is_channel = channels < vec4<u32>(EXPAND_DEPTH);
    let values = load_input4(at + select(vec4<u32>(0u), channels, is_channel) * in_pixels());
    return select(vec4<f32>(0.0), values, is_channel);
    //% endif
}
//% else
fn input_at(image: u32, pixel: u32) -> u32 {
    return (image * in_pixels() + pixel) * EXPAND_DEPTH;
}

// Four channels of a pixel, which has whole quads.
fn load_channels(at: u32, channel: u32) -> vec4<f32> {
    return load_input4(vec4<u32>(at + channel));
}
//% endif

//% set QUADS, xyzw = EXPANDED // 4, ["x", "y", "z", "w"]
// Expands all inputs of the invocation to EXPANDED channels: those from k0 + k on, which are staged at k.
fn expand(k0: u32, k: u32, place: Place) {
    let bias_at = EXPAND_BIAS_AT + (k0 + k) / 4u;
    //% for input in range(INPUTS)
        //% for quad in range(QUADS)
    var sum_input${input}_quad${quad} = load_weight(bias_at${plus(quad)});
        //% endfor
    //% endfor
    let weights_at = EXPAND_AT + (k0 * EXPAND_DEPTH_PADDED + k) / 4u;
    for (var channel = 0u; channel < opaque(EXPAND_DEPTH); channel += 4u) {
        //% for input in range(INPUTS)
        let channels_input${input} = load_channels(place.input${input}.at, channel);
        //% endfor
        // A panel of weights has TILE_DEPTH expanded channels.
        let at = weights_at + channel * DEPTH_QUADS;
        //% for channel in range(4)
            //% for quad in range(QUADS)
                //% set weight = "weights_channel" ~ channel ~ "_quad" ~ quad
        let ${weight} = load_weight(at${plus(channel, "DEPTH_QUADS")}${plus(quad)});
                //% for input in range(INPUTS)
                    //% set sum = "sum_input" ~ input ~ "_quad" ~ quad
        ${sum} = fma(vec4<f32>(channels_input${input}.${xyzw[channel]}), ${weight}, ${sum});
                //% endfor
            //% endfor
        //% endfor
    }
    //% for input in range(INPUTS)
    let at${input} = k / 4u * HALO_ITEMS + place.input${input}.item;
    if place.input${input}.inside {
        activate_expanded_pixel(
        //% for quad in range(QUADS)
            &sum_input${input}_quad${quad},
        //% endfor
        );
        //% for quad in range(QUADS)
        channel_tile[at${input}${plus(quad, "HALO_ITEMS")}] = sum_input${input}_quad${quad};
        //% endfor
        //% if CLIPPED
    }
        //% else
    } else if place.input${input}.padding {
            //% for quad in range(QUADS)
        channel_tile[at${input}${plus(quad, "HALO_ITEMS")}] = vec4<f32>(0.0);
            //% endfor
    }
        //% endif
    //% endfor
}

// Four channels of four neighbouring outputs: the first of the channels staged, the first of the pixels, and where the
// expanded channels are.
struct HaloResults {
    k: u32,
    pixel: u32,
    first: u32,
}

fn halo_results(local: u32) -> HaloResults {
    let quad = local / PIXEL_QUADS;
    // Neighbouring lanes have neighbouring rows.
    let row = local % BLOCK_HEIGHT;
    let column = local % PIXEL_QUADS / BLOCK_HEIGHT * 4u;
    let first = quad * HALO_ITEMS + row * STRIDE_Y * HALO_PITCH + column * STRIDE_X;
    return HaloResults(quad * 4u, row * BLOCK_WIDTH + column, first);
}

struct Results {
    //% for output in range(4)
    output${output}: vec4<f32>,
    //% endfor
}

// The depthwise convolution of a quad of channels at four neighbouring outputs. The taps of a row are written out, each
// input loaded once; the rows are a loop, for drivers would keep the values of all of them in registers, beside the
// sums of the product.
fn depthwise(quad: u32, first: u32) -> Results {
    let bias = load_weight(DEPTHWISE_BIAS_AT + quad);
    //% for output in range(4)
    var sum${output} = bias;
    //% endfor
    for (var ky = 0u; ky < opaque(KERNEL_HEIGHT); ky++) {
        let row = first + ky * DILATION_Y * HALO_PITCH;
        let weights_at = DEPTHWISE_AT + (quad * KERNEL_HEIGHT + ky) * KERNEL_WIDTH;
        //% for column in WINDOW_COLUMNS
        let input${column} = channel_tile[row${plus(column)}];
            //% for output in range(4)
                //% for kx in range(geometry.kernel_width)
                    //% if output * geometry.stride_x + kx * geometry.dilation_x == column
                        //# The first output is the first to see a tap.
                        //% if output == 0
        let weight${kx} = load_weight(weights_at${plus(kx)});
                        //% endif
        sum${output} = fma(input${column}, weight${kx}, sum${output});
                    //% endif
                //% endfor
            //% endfor
        //% endfor
    }
    //% for output in range(4)
    activate_depthwise_pixel(&sum${output});
    //% endfor
    return Results(sum0, sum1, sum2, sum3);
}

fn stage_results(k: u32, pixel: u32, results: Results) {
    //% if layout == "nchw"
    let at = k * PIXEL_QUADS + pixel / 4u;
        //% for channel in range(4)
    pixel_tile[at${plus(channel, "PIXEL_QUADS")}] = vec4<f32>(
            //% for output in range(4)
        results.output${output}.${xyzw[channel]},
            //% endfor
    );
        //% endfor
    //% else
    let at = k / 4u * TILE_PIXELS + pixel;
        //% for output in range(4)
    pixel_tile[at${plus(output)}] = results.output${output};
        //% endfor
    //% endif
}
