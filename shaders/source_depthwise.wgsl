// The source of a fused separable convolution: the depthwise convolution's results, made where they are needed and
// never written to memory; k is the channel.
//
//% if layout == "nchw"
// An invocation makes a strip at a time: BLOCK_HEIGHT rows of four neighbouring outputs, of one channel. Each input is
// loaded once for all of them.
//% else
// An invocation makes a strip at a time: BLOCK_WIDTH neighbouring outputs of four neighbouring channels. Each input is
// loaded once for all of them. Places are counted in quads.
//% endif
// Rows and columns are filled up to whole strips; what is behind their ends is made of any inputs and not stored.
// Where the kernel's rows and columns meet the input is found once for all k. Those that can never lie in the padding
// are not checked, and their addresses differ by constants. The weights of TILE_DEPTH channels are brought into
// workgroup memory first, since many invocations read each.
//
//% if layout == "nchw"
// weights  before the product's: [channel][tap], each channel's taps filled up to whole quads; then the biases
//% else
// weights  before the product's: [tap][channel], then the biases
//% endif
//#
//# host     layout, geometry, DEPTH_IS_PADDED (whether k goes on behind the last channel); input ("scalar" in NCHW,
//#          "quads" in NHWC); the inner activation "depthwise", of one quad; params.tiles_y and params.tiles_x (strips
//#          in a column and a row of the output); of gemm_tile.wgsl TILE_DEPTH, TILE_PIXELS, PIXEL_QUADS, THREADS,
//#          WRITTEN_OUT and `pixel_tile`; and
//#          LENGTH                           rows of a strip in NCHW, columns in NHWC
//#          DEPTHWISE_AT, DEPTHWISE_BIAS_AT  where the weights are, in quads
//#          WINDOW_ROWS, WINDOW_COLUMNS      those of the input under the kernels of a strip, counted from the first
//#          PADDED_COLUMNS                   those of them that can lie in the padding, or behind the end of the image
//#          ZEROED_ROWS, ZEROED_COLUMNS      of those, and of such rows, the ones that an output which is stored can see
//#          STAGED_IN_LOOP                   whether strips are a loop, and not written out
//#          LOOP_ROWS                        whether the rows of the kernel are a loop, and not written out

//% set HEIGHT, WIDTH = (LENGTH, 4) if layout == "nchw" else (1, LENGTH)
const BLOCK_HEIGHT: u32 = ${HEIGHT}u;
const BLOCK_WIDTH: u32 = ${WIDTH}u;
const STRIPS: u32 = TILE_PIXELS / BLOCK_PIXELS;
// It needs no workgroup memory of its own.
const SOURCE_QUADS: u32 = 0u;
const DEPTHWISE_AT: u32 = ${DEPTHWISE_AT}u;
const DEPTHWISE_BIAS_AT: u32 = ${DEPTHWISE_BIAS_AT}u;
//% if layout == "nchw"
const TAP_QUADS: u32 = (KERNEL_HEIGHT * KERNEL_WIDTH + 3u) / 4u;
const WEIGHT_QUADS: u32 = TILE_DEPTH * TAP_QUADS;
//% else
const WEIGHT_QUADS: u32 = TILE_DEPTH / 4u * KERNEL_HEIGHT * KERNEL_WIDTH;
//% endif

// The weights as they lie in memory, then the biases.
var<workgroup> depthwise_tile: array<vec4<f32>, WEIGHT_QUADS + TILE_DEPTH / 4u>;

//% set taps = geometry.kernel_height * geometry.kernel_width
//% set total = TILE_DEPTH * ((taps + 3) // 4) if layout == "nchw" else TILE_DEPTH // 4 * taps
// Brings the weights of the channels from k0 on into workgroup memory. Behind the last channel it is any weights.
fn prepare(k0: u32, local: u32) {
    //% if WRITTEN_OUT
        //% for first in range(0, total, THREADS)
            //% if first + THREADS > total
    if local < ${total - first}u {
        prepare_weight(k0, local${plus(first)});
    }
            //% else
    prepare_weight(k0, local${plus(first)});
            //% endif
        //% endfor
    //% else
    for (var quad = local; quad < WEIGHT_QUADS; quad += THREADS) {
        prepare_weight(k0, quad);
    }
    //% endif
    if local < TILE_DEPTH / 4u {
        depthwise_tile[WEIGHT_QUADS + local] = load_weight(DEPTHWISE_BIAS_AT + k0 / 4u + local);
    }
}

fn prepare_weight(k0: u32, quad: u32) {
    //% if layout == "nchw"
    depthwise_tile[quad] = load_weight(DEPTHWISE_AT + k0 * TAP_QUADS + quad);
    //% else
    let at = quad / (TILE_DEPTH / 4u) * column_stride() + quad % (TILE_DEPTH / 4u);
    depthwise_tile[quad] = load_weight(DEPTHWISE_AT + k0 / 4u + at);
    //% endif
}

// The first input under the kernel, which may lie in the padding, and the nearest column that does not.
struct Corner {
    image: u32,
    top: i32,
    left: i32,
    column: u32,
}

// A row or a column that may lie in the padding: where it is, and whether it is one at all.
struct Line {
    at: u32,
    inside: bool,
}

// What all k have in common.
struct Place {
    corner: Corner,
    //% for row in WINDOW_ROWS if not LOOP_ROWS
    row${row}: Line,
    //% endfor
    //% for column in PADDED_COLUMNS
    column${column}: Line,
    //% endfor
}

// Neighbouring lanes have neighbouring strips.
fn staged_place(first_pixel: u32, group: u32, local: u32) -> Place {
    let corner = corner(first_pixel + local % STRIPS * BLOCK_PIXELS, group);
    return Place(
        corner,
        //% for row in WINDOW_ROWS if not LOOP_ROWS
        find_row(corner, ${row}),
        //% endfor
        //% for column in PADDED_COLUMNS
        find_column(corner, ${column}),
        //% endfor
    );
}

fn corner(pixel: u32, group: u32) -> Corner {
    let strip = min(pixel, pixel_count() - 1u) / BLOCK_PIXELS;
    let row = strip / params.tiles_x;
    let left = strip % params.tiles_x * BLOCK_WIDTH * STRIDE_X;
    return Corner(
        //% if layout == "nchw"
        (row / params.tiles_y * params.in_channels + group * params.group_in) * in_pixels(),
        //% else
        row / params.tiles_y * in_pixels() * column_stride(),
        //% endif
        i32(row % params.tiles_y * BLOCK_HEIGHT * STRIDE_Y) - i32(PAD_TOP),
        i32(left) - i32(PAD_LEFT),
        min(left, params.in_width - 1u),
    );
}

//% if layout == "nchw"
// How far apart columns are.
fn column_stride() -> u32 {
    return 1u;
}
//% else
// How far apart columns are, and the taps of a quad of channels.
fn column_stride() -> u32 {
    return params.in_channels / 4u;
}
//% endif

// Where the corner's column is in a row.
fn find_row(corner: Corner, below: i32) -> Line {
    let y = corner.top + below;
    let inside = inside(y, params.in_height);
    return Line((select(0u, u32(y), inside) * params.in_width + corner.column) * column_stride(), inside);
}

// How far a column is from the corner's.
fn find_column(corner: Corner, right: i32) -> Line {
    let x = corner.left + right;
    let inside = inside(x, params.in_width);
    return Line(select(0u, u32(x) - corner.column, inside) * column_stride(), inside);
}

//% set xyzw = ["x", "y", "z", "w"]
//% set STRIPS, DEPTHS = TILE_PIXELS // (HEIGHT * WIDTH), TILE_DEPTH // (1 if layout == "nchw" else 4)
// Stages the results of TILE_DEPTH channels.
fn stage_pixels(k0: u32, place: Place, local: u32) {
    //% if WRITTEN_OUT and not STAGED_IN_LOOP
        //% for first in range(0, DEPTHS, THREADS // STRIPS)
    stage_strip(k0, local / STRIPS${plus(first)}, local % STRIPS, place);
        //% endfor
    //% else
    for (var depth = local / STRIPS; depth < opaque(${DEPTHS}u); depth += THREADS / STRIPS) {
        stage_strip(k0, depth, local % STRIPS, place);
    }
    //% endif
}

//% if layout == "nchw"
// Stages a strip of a channel, counted from k0.
fn stage_strip(k0: u32, depth: u32, strip: u32, place: Place) {
    let outputs = convolve(k0, depth, place);
    let at = depth * PIXEL_QUADS + strip * BLOCK_HEIGHT;
//% else
// Stages a strip of a quad of channels, counted from k0.
fn stage_strip(k0: u32, depth: u32, strip: u32, place: Place) {
    let outputs = convolve(k0, depth, place);
    let at = depth * TILE_PIXELS + strip * BLOCK_WIDTH;
//% endif
    //% for output in range(LENGTH)
    pixel_tile[at${plus(output)}] = outputs.quad${output};
    //% endfor
}

//% if layout == "nchw"
// The rows of a strip, four outputs each.
//% else
// The outputs of a strip, four channels each.
//% endif
struct Strip {
    //% for output in range(LENGTH)
    quad${output}: vec4<f32>,
    //% endfor
}

//% if layout == "nchw"
// A strip of a channel, counted from k0.
//% else
// A strip of a quad of channels, counted from k0.
//% endif
fn convolve(k0: u32, depth: u32, place: Place) -> Strip {
    let k = k0 + depth${"" if layout == "nchw" else " * 4u"};
    //% if DEPTH_IS_PADDED
    if k >= params.group_in {
        return Strip();
    }
    //% endif
    //% if layout == "nchw"
        //% set zero, distance = "0.0", none
    let plane = place.corner.image + k * in_pixels();
    let bias = vec4<f32>(depthwise_tile[WEIGHT_QUADS + depth / 4u][depth % 4u]);
        //% for quad in range((geometry.kernel_height * geometry.kernel_width + 3) // 4) if not LOOP_ROWS
    let taps_quad${quad} = depthwise_tile[depth * TAP_QUADS${plus(quad)}];
        //% endfor
    //% else
        //% set zero, distance = "vec4<f32>(0.0)", "column_stride()"
    let plane = place.corner.image + k / 4u;
    let bias = depthwise_tile[WEIGHT_QUADS + depth];
    //% endif
    //% for output in range(LENGTH)
    var sum${output} = bias;
    //% endfor
    //% if LOOP_ROWS
    for (var ky = 0u; ky < opaque(KERNEL_HEIGHT); ky++) {
        //% for kx in range(geometry.kernel_width)
        let tap${kx} = ky * KERNEL_WIDTH${plus(kx)};
            //% if layout == "nchw"
        let weight${kx} = vec4<f32>(depthwise_tile[depth * TAP_QUADS + tap${kx} / 4u][tap${kx} % 4u]);
            //% else
        let weight${kx} = depthwise_tile[tap${kx} * (TILE_DEPTH / 4u) + depth];
            //% endif
        //% endfor
        //% set rows = range(HEIGHT)
    //% else
    {
        //% set rows = WINDOW_ROWS
    //% endif
    //# In a loop the rows are those of one row of the kernel, by the rows of the output.
    //% for row in rows
        //% if LOOP_ROWS
            //% set row_is_zeroed = ZEROED_ROWS
        let row${row} = find_row(place.corner, i32(ky * DILATION_Y)${plus_signed(row * geometry.stride_y)});
        let at${row} = plane + row${row}.at;
            //% set inside = "row" ~ row ~ ".inside"
        //% else
            //% set row_is_zeroed = row in ZEROED_ROWS
        let at${row} = plane + place.row${row}.at;
            //% set inside = "place.row" ~ row ~ ".inside"
        //% endif
        //% for column in WINDOW_COLUMNS
            //% if column in PADDED_COLUMNS
                //% set offset = " + place.column" ~ column ~ ".at"
            //% else
                //% set offset = plus(column - geometry.pad_left, distance)
            //% endif
        let value${row}_${column} = load_input(at${row}${offset});
        //% endfor
        //# The last first: then a compiler waits once for all of them. `&` and not `&&`, which is a branch.
        //% for column in WINDOW_COLUMNS | reverse
            //% set input, value = "input" ~ row ~ "_" ~ column, "value" ~ row ~ "_" ~ column
            //% if row_is_zeroed and column in ZEROED_COLUMNS
        let ${input} = select(${zero}, ${value}, ${inside} & place.column${column}.inside);
            //% elif row_is_zeroed
        let ${input} = select(${zero}, ${value}, ${inside});
            //% elif column in ZEROED_COLUMNS
        let ${input} = select(${zero}, ${value}, place.column${column}.inside);
            //% else
        let ${input} = ${value};
            //% endif
        //% endfor
        //% for kx in range(geometry.kernel_width)
            //% set column, step = kx * geometry.dilation_x, geometry.stride_x
            //% if layout == "nchw"
                //% set a, b = "input" ~ row ~ "_" ~ column, "input" ~ row ~ "_" ~ (column + step)
                //% set c, d = "input" ~ row ~ "_" ~ (column + 2 * step), "input" ~ row ~ "_" ~ (column + 3 * step)
        let inputs${row}_${kx} = vec4<f32>(${a}, ${b}, ${c}, ${d});
            //% endif
            //% for ky in range(1 if LOOP_ROWS else geometry.kernel_height)
                //% set tap = ky * geometry.kernel_width + kx
                //% if layout == "nhwc" and not LOOP_ROWS and ky * geometry.dilation_y == row
        let tap${tap} = depthwise_tile[${tap}u * (TILE_DEPTH / 4u) + depth];
                //% endif
                //% if LOOP_ROWS
                    //% set weight = "weight" ~ kx
                //% elif layout == "nchw"
                    //% set weight = "vec4<f32>(taps_quad" ~ tap // 4 ~ "." ~ xyzw[tap % 4] ~ ")"
                //% else
                    //% set weight = "tap" ~ tap
                //% endif
                //% for output in range(LENGTH)
                    //% if layout == "nchw"
                        //% set meets = (output if LOOP_ROWS else output * geometry.stride_y + ky * geometry.dilation_y) == row
                        //% set values = "inputs" ~ row ~ "_" ~ kx
                    //% else
                        //% set meets = LOOP_ROWS or ky * geometry.dilation_y == row
                        //% set values = "input" ~ row ~ "_" ~ (output * step + column)
                    //% endif
                    //% if meets
        sum${output} = fma(${values}, ${weight}, sum${output});
                    //% endif
                //% endfor
            //% endfor
        //% endfor
    //% endfor
    }
    //% if layout == "nchw"
    return Strip(
        //% for output in range(LENGTH)
        activate_depthwise4(sum${output}),
        //% endfor
    );
    //% else
        //% for output in range(LENGTH)
    activate_depthwise_pixel(&sum${output});
        //% endfor
    return Strip(
        //% for output in range(LENGTH)
        sum${output},
        //% endfor
    );
    //% endif
}
