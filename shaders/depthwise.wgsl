// ${recipe}: ${problem}
//
// Depthwise convolution, with any channel multiplier.
//
// An invocation computes a strip of the output: STRIP_WIDTH columns and params.strip_rows rows of one channel (`Value`
// is f32), or of four neighbouring channels (`Value` is vec4<f32>, NHWC). It goes down the strip row by row.
//% if KEEPS_ROWS
// The input rows under the kernel stay in registers, so that each input under the strip is loaded once.
//% else
// The strip is a single row, and no input stays for the next one, which suits large and dilated kernels.
//% endif
//
// input    NCHW or NHWC, by the strides
// weights  [channel][tap] for NCHW, [tap][channel] for NHWC; then the biases
//#
//# include  tensors.wgsl, output.wgsl
//# host     WORKGROUP (invocations), LANES (channels of an invocation, one or four), STRIP_WIDTH (columns), KEEPS_ROWS,
//#          LEAD (output rows), WEIGHTS_IN_ARRAY (whether a loop loads the weights, for devices that are slow to
//#          compile loads and keep values in memory in any case); params.strip_rows, params.tiles_x and
//#          params.tiles_y (strips), params.work (invocations). Channels and params.bias_at count `Value`s.
//#
//#          The window is the input under the kernel at the strip's outputs in a row. It has WINDOW_ROWS, those between
//#          the taps of a dilated kernel included; loaded_rows (a list) are loaded for each row of the output, and the
//#          others were loaded before. It has `columns` (a list); loads start at load_columns (a list). They are
//#          counted from the first output's first tap or, to align pairs, from EARLY (0 or 1) columns before it.

const WORKGROUP: u32 = ${WORKGROUP}u;
const STRIP_WIDTH: u32 = ${STRIP_WIDTH}u;
// Output rows by which the walk down the strip starts early, to fill the window of input rows.
const LEAD: u32 = ${LEAD}u;
const TAPS: u32 = KERNEL_HEIGHT * KERNEL_WIDTH;

// One channel, or four neighbours. Channels and places in memory count these.
alias Value = ${"f32" if LANES == 1 else "vec4<f32>"};

// Where a strip is: its input's first row and column, which may lie in the padding, and its output.
struct Strip {
    top: i32,
    left: i32,
    input: u32,
    channel: u32,
    output: u32,
    rows: u32,
    // Columns of the output from the strip's first on; can be more than STRIP_WIDTH.
    columns: u32,
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = workgroup_index(workgroup, grid) * WORKGROUP + local;
    if index >= params.work {
        return;
    }
    let item = item(index, params.out_channels);
    let y = item.y * params.strip_rows;
    let x = item.x * STRIP_WIDTH;
    var strip: Strip;
    strip.top = i32(y * STRIDE_Y) - i32(PAD_TOP);
    strip.left = i32(x * STRIDE_X) - i32(PAD_LEFT${plus(EARLY)});
    let in_channel = item.channel / (params.out_channels / params.in_channels);
    strip.input = item.batch * params.in_channels * in_pixels() + in_channel * in_channel_stride();
    strip.channel = item.channel;
    strip.output = item.batch * params.out_channels * out_pixels()
        + item.channel * out_channel_stride()
        + y * out_row_stride()
        + x * out_pixel_stride();
    strip.rows = min(params.strip_rows, params.out_height - y);
    strip.columns = params.out_width - x;
    compute_strip(strip);
}

//# A weight: from the array, or loaded here.
//% macro weight_of(ky, kx)
    //% set tap = ky * geometry.kernel_width + kx
    //% if WEIGHTS_IN_ARRAY
taps[${tap}]
    //% else
load_tap(strip.channel, ${tap}u)
    //% endif
//% endmacro
fn compute_strip(strip: Strip) {
    let last_row = i32(params.in_height) - 1;
    let last_column = i32(params.in_width) - 1;
    // The columns: where in a row they are, and whether they are inside the image.
    //% for column in load_columns
    let x${column} = strip.left${plus_signed(column)};
    let at_column${column} = u32(clamp(x${column}, 0, last_column)) * in_pixel_stride();
    let inside_column${column} = inside(x${column}, params.in_width);
    //% endfor

    let bias = load_weight(params.bias_at + strip.channel);
    //% if WEIGHTS_IN_ARRAY
    // Longer than 32, or Mesa would unroll the loop.
    var taps: array<Value, ${[geometry.kernel_height * geometry.kernel_width, 33] | max}>;
    for (var tap = 0u; tap < opaque(TAPS); tap++) {
        taps[tap] = load_tap(strip.channel, tap);
    }
    //% endif
    //% if KEEPS_ROWS
        //% for ky in range(geometry.kernel_height)
            //% for kx in range(geometry.kernel_width)
    let weight_${ky}_${kx} = ${weight_of(ky, kx) | trim};
            //% endfor
        //% endfor

    // The window of input rows.
        //% for row in range(WINDOW_ROWS)
            //% for column in columns
    var in_row${row}_column${column} = Value(0.0);
            //% endfor
        //% endfor
    //% endif

    for (var step = 0u; step < strip.rows + LEAD; step++) {
        let top = strip.top + (i32(step) - i32(LEAD)) * i32(STRIDE_Y);
        //% if KEEPS_ROWS
        // The window goes a stride down.
            //% for row in range(WINDOW_ROWS - geometry.stride_y)
                //% for column in columns
        in_row${row}_column${column} = in_row${row + geometry.stride_y}_column${column};
                //% endfor
            //% endfor
        //% endif
        // The rows that come in, with zeros for the padding.
        //% set declare = "" if KEEPS_ROWS else "let "
        //% for row in loaded_rows
        let y${row} = top${plus_signed(row)};
        let at_row${row} = strip.input + u32(clamp(y${row}, 0, last_row)) * in_row_stride();
        let inside_row${row} = inside(y${row}, params.in_height);
            //% for column in load_columns
                //% set at = "at_row" ~ row ~ " + at_column" ~ column
                //% set inside = "inside_row" ~ row ~ " & inside_column" ~ column
                //% if input == "pair"
        let pair_row${row}_column${column} = load_inside2(${at}, ${inside});
                    //% for next, part in [[column, "x"], [column + 1, "y"]] if next in columns
        ${declare}in_row${row}_column${next} = pair_row${row}_column${column}.${part};
                    //% endfor
                //% else
        ${declare}in_row${row}_column${column} = select(Value(0.0), load_input(${at}), ${inside});
                //% endif
            //% endfor
        //% endfor
        //% if LEAD > 0
        if step < LEAD {
            continue;
        }
        //% endif

        //% for x in range(STRIP_WIDTH)
        var sum${x} = bias;
        //% endfor
        //% for ky in range(geometry.kernel_height)
            //% for kx in range(geometry.kernel_width)
                //% if not KEEPS_ROWS
        let weight_${ky}_${kx} = ${weight_of(ky, kx) | trim};
                //% endif
                //% for x in range(STRIP_WIDTH)
                    //% set column = x * geometry.stride_x + kx * geometry.dilation_x + EARLY
        sum${x} = fma(in_row${ky * geometry.dilation_y}_column${column}, weight_${ky}_${kx}, sum${x});
                //% endfor
            //% endfor
        //% endfor

        let out = strip.output + (step - LEAD) * out_row_stride();
        //% if output == "pair"
        store_pair(out, sum0, sum1);
            //% for x in range(2, STRIP_WIDTH, 2)
        if ${x}u < strip.columns { store_pair(out + ${x}u, sum${x}, sum${x + 1}); }
            //% endfor
        //% else
        store_value(out, sum0);
            //% for x in range(1, STRIP_WIDTH)
        if ${x}u < strip.columns { store_value(out${plus(x, "out_pixel_stride()")}, sum${x}); }
            //% endfor
        //% endif
    }
}

// The weight of a channel's tap.
fn load_tap(channel: u32, tap: u32) -> Value {
    //% if layout == "nchw"
    return load_weight(channel * TAPS + tap);
    //% else
    return load_weight(tap * params.out_channels + channel);
    //% endif
}

fn store_value(at: u32, sum: Value) {
    //% if LANES == 1
    store(at, sum);
    //% else
    store4(vec4<u32>(at * 4u), vec4<bool>(true), sum);
    //% endif
}

//% include "tensors.wgsl"

//% include "output.wgsl"
