// The source of a fused separable convolution: the depthwise convolution's results, made where they are needed and
// never written to memory; k is the channel.
//
//% if layout == "nchw"
// Four neighbouring outputs of a row and one channel at a time. Rows are filled up to whole quads; what is behind a
// row's end is made of any inputs and not stored.
//% else
// Four neighbouring channels of an output at a time. Places are counted in quads.
//% endif
// Where the kernel's rows and columns meet the input is found once for all k. Those that can never lie in the padding
// are not checked, and their addresses differ by constants.
//
//% if layout == "nchw"
// weights  before the product's: [channel][tap], each channel's taps filled up to whole quads; then the biases
//% else
// weights  before the product's: [tap][channel], then the biases
//% endif
//#
//# host     layout, geometry, DEPTH_IS_PADDED (whether k goes on behind the last channel); input ("scalar" in NCHW,
//#          "quads" in NHWC); the inner activation "depthwise", of one quad; `pixel_count`; in NCHW params.tiles_x (quads
//#          in a row of the output); and
//#          DEPTHWISE_AT, DEPTHWISE_BIAS_AT  where the weights are, in quads
//#          WINDOW_ROWS, WINDOW_COLUMNS      those of the input under the kernel, or in NCHW under the kernels of four
//#                                           outputs, counted from the first
//#          PADDED_ROWS, PADDED_COLUMNS      those of them that can lie in the padding, or behind the end of a row
//#          LOOP_ROWS                        whether the rows are a loop, and not written out

const DEPTHWISE_AT: u32 = ${DEPTHWISE_AT}u;
const DEPTHWISE_BIAS_AT: u32 = ${DEPTHWISE_BIAS_AT}u;
//% if layout == "nchw"
const PIXELS: u32 = 4u;
const TAP_QUADS: u32 = (KERNEL_HEIGHT * KERNEL_WIDTH + 3u) / 4u;
//% endif

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

fn place(pixel: u32, group: u32) -> Place {
    let corner = corner(pixel, group);
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

//% if layout == "nchw"
fn corner(pixel: u32, group: u32) -> Corner {
    let quad = min(pixel, pixel_count() - PIXELS) / PIXELS;
    let row = quad / params.tiles_x;
    let left = quad % params.tiles_x * PIXELS * STRIDE_X;
    return Corner(
        (row / params.out_height * params.in_channels + group * params.group_in) * in_pixels(),
        i32(row % params.out_height * STRIDE_Y) - i32(PAD_TOP),
        i32(left) - i32(PAD_LEFT),
        min(left, params.in_width - 1u),
    );
}

// How far apart columns are.
fn column_stride() -> u32 {
    return 1u;
}
//% else
fn corner(pixel: u32, group: u32) -> Corner {
    let clamped = min(pixel, pixel_count() - 1u);
    let rest = clamped % out_pixels();
    let left = rest % params.out_width * STRIDE_X;
    return Corner(
        clamped / out_pixels() * in_pixels() * column_stride(),
        i32(rest / params.out_width * STRIDE_Y) - i32(PAD_TOP),
        i32(left) - i32(PAD_LEFT),
        min(left, params.in_width - 1u),
    );
}

// How far apart columns are, and the taps of four channels.
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
//% if layout == "nchw"
// Four neighbouring outputs of a channel.
//% else
// Four neighbouring channels of an output, k the first.
//% endif
fn fetch(k: u32, place: Place) -> vec4<f32> {
    //% if DEPTH_IS_PADDED
    if k >= params.group_in {
        return vec4<f32>(0.0);
    }
    //% endif
    //% if layout == "nchw"
        //% set zero, distance = "0.0", none
    let plane = place.corner.image + k * in_pixels();
    var sum = vec4<f32>(load_weight_component(DEPTHWISE_BIAS_AT + k / 4u, k % 4u));
        //% for quad in range((geometry.kernel_height * geometry.kernel_width + 3) // 4) if not LOOP_ROWS
    let taps_quad${quad} = load_weight(DEPTHWISE_AT + k * TAP_QUADS${plus(quad)});
        //% endfor
    //% else
        //% set zero, distance = "vec4<f32>(0.0)", "column_stride()"
    let plane = place.corner.image + k / 4u;
    var sum = load_weight(DEPTHWISE_BIAS_AT + k / 4u);
    //% endif
    //% for ky in range(1 if LOOP_ROWS else geometry.kernel_height)
        //% if LOOP_ROWS
            //% set row_is_padded = PADDED_ROWS
    for (var ky = 0u; ky < opaque(KERNEL_HEIGHT); ky++) {
        let row = find_row(place.corner, i32(ky * DILATION_Y));
        //% else
            //% set row_is_padded = WINDOW_ROWS[ky] in PADDED_ROWS
    {
        let row = place.row${WINDOW_ROWS[ky]};
        //% endif
        let at = plane + row.at;
        //% for column in WINDOW_COLUMNS
            //% if column in PADDED_COLUMNS
                //% set offset = " + place.column" ~ column ~ ".at"
            //% else
                //% set offset = plus(column - geometry.pad_left, distance)
            //% endif
            //# `&` and not `&&`, which is a branch.
            //% if row_is_padded and column in PADDED_COLUMNS
        let input${column} = select(${zero}, load_input(at${offset}), row.inside & place.column${column}.inside);
            //% elif row_is_padded
        let input${column} = select(${zero}, load_input(at${offset}), row.inside);
            //% elif column in PADDED_COLUMNS
        let input${column} = select(${zero}, load_input(at${offset}), place.column${column}.inside);
            //% else
        let input${column} = load_input(at${offset});
            //% endif
        //% endfor
        //% for kx in range(geometry.kernel_width)
            //% set column, step = kx * geometry.dilation_x, geometry.stride_x
            //% set tap = ky * geometry.kernel_width + kx
            //% if layout == "nchw"
                //% set under = [column, column + step, column + 2 * step, column + 3 * step]
        let inputs${kx} = vec4<f32>(input${under[0]}, input${under[1]}, input${under[2]}, input${under[3]});
                //% if LOOP_ROWS
        let tap${kx} = ky * KERNEL_WIDTH${plus(kx)};
        let weight${kx} = load_weight_component(DEPTHWISE_AT + k * TAP_QUADS + tap${kx} / 4u, tap${kx} % 4u);
        sum = fma(inputs${kx}, vec4<f32>(weight${kx}), sum);
                //% else
        sum = fma(inputs${kx}, vec4<f32>(taps_quad${tap // 4}.${xyzw[tap % 4]}), sum);
                //% endif
            //% elif LOOP_ROWS
        let tap${kx} = ky * KERNEL_WIDTH${plus(kx)};
        sum = fma(input${column}, load_weight(DEPTHWISE_AT + tap${kx} * column_stride() + k / 4u), sum);
            //% else
        sum = fma(input${column}, load_weight(DEPTHWISE_AT${plus(tap, "column_stride()")} + k / 4u), sum);
            //% endif
        //% endfor
    }
    //% endfor
    //% if layout == "nchw"
    return activate_depthwise4(sum);
    //% else
    activate_depthwise_pixel(&sum);
    return sum;
    //% endif
}
