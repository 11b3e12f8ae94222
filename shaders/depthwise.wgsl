// ${recipe}: ${problem}
//
// Depthwise convolution, with any channel multiplier.
//
// An invocation computes a strip of the output: STRIP_WIDTH columns and params.strip_rows rows of one channel (`Value`
// is f32), or of two or four neighbouring channels (`Value` is a vector of them, NHWC). It goes down the strip row by
// row. The input rows under the kernel stay in registers, so that each input under the strip is loaded once.
//
//% if ROW_STEP > 1 or BASES > 1
// The outputs of a strip are as far apart as the taps of the dilated kernel, and share inputs as those of an undilated
// one do.
//
//% endif
// input    NCHW or NHWC, by the strides
// weights  [channel][tap] for NCHW, [tap][channel] for NHWC; then the biases
//#
//# include  strip_columns.wgsl, tensors.wgsl, output.wgsl
//# host     WORKGROUP (invocations), LANES (channels of an invocation: one, two or four), LEAD (output rows), SHIFT
//#          (rows of the window by which it goes down for each output row), WEIGHTS_IN_ARRAY (whether a loop loads the
//#          weights, for devices that are slow to compile loads and keep values in memory in any case), SKIPS_ROWS
//#          (whether rows in the padding are not loaded, instead of loaded and set to zero); those of
//#          strip_columns.wgsl; params.strip_rows, params.tiles_x and params.tiles_y (strips), params.work
//#          (invocations). Channels and params.bias_at count `Value`s.
//#
//#          Rows of a strip are ROW_STEP rows of the output apart. The window is the input under the kernel at the
//#          strip's outputs in a row. It has WINDOW_ROWS, which are DILATION_Y apart; loaded_rows (a list) are loaded
//#          for each row of the output, and the others were loaded before. It has `columns` (a list); loads start at
//#          load_columns (a list). Columns that can only be padding may be missing. They are counted from the first
//#          output's first tap or, to align pairs, from EARLY (0 or 1) columns before it.

const WORKGROUP: u32 = ${WORKGROUP}u;
// Rows of the output from one of a strip's to the next.
const ROW_STEP: u32 = ${ROW_STEP}u;
// Output rows by which the walk down the strip starts early, to fill the window of input rows.
const LEAD: u32 = ${LEAD}u;
const TAPS: u32 = KERNEL_HEIGHT * KERNEL_WIDTH;

// One channel, or a few neighbours. Channels and places in memory count these.
alias Value = ${"f32" if LANES == 1 else "vec" ~ LANES ~ "<f32>"};

// Where a strip is: its input's first row and column, which may lie in the padding, and its output.
struct Strip {
    top: i32,
    left: i32,
    input: u32,
    channel: u32,
    output: u32,
    rows: u32,
    // Columns of the output from the strip's first on; the strip may have fewer, or more.
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
    //% if ROW_STEP > 1
    let y = item.y / ROW_STEP * ROW_STEP * params.strip_rows + item.y % ROW_STEP;
    //% else
    let y = item.y * params.strip_rows;
    //% endif
    let x = first_column(item.x);
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
    //% if ROW_STEP > 1
    strip.rows = min(params.strip_rows, (params.out_height - y + ROW_STEP - 1u) / ROW_STEP);
    //% else
    strip.rows = min(params.strip_rows, params.out_height - y);
    //% endif
    strip.columns = params.out_width - x;
    compute_strip(strip);
}

//# A weight: from the array, or loaded here.
//% macro weight_of(ky, kx)
    //% set tap = kx * geometry.kernel_height + ky if transposed else ky * geometry.kernel_width + kx
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

    //% if ROW_STEP > 1 and LEAD > 0
    // Steps that load nothing but padding above the image are left out.
    let highest = max(strip.top + i32((KERNEL_HEIGHT - 1u) * DILATION_Y), 0) / i32(ROW_STEP * STRIDE_Y);
    for (var step = u32(max(i32(LEAD) - highest, 0)); step < strip.rows + LEAD; step++) {
    //% else
    for (var step = 0u; step < strip.rows + LEAD; step++) {
    //% endif
        let top = strip.top + (i32(step) - i32(LEAD)) * i32(ROW_STEP * STRIDE_Y);
        // The window goes down.
        //% for row in range(WINDOW_ROWS - SHIFT)
            //% for column in columns
        in_row${row}_column${column} = in_row${row + SHIFT}_column${column};
            //% endfor
        //% endfor
        // The rows that come in, with zeros for the padding.
        //% for row in loaded_rows
        let y${row} = top${plus_signed(row * geometry.dilation_y)};
        let at_row${row} = strip.input + u32(clamp(y${row}, 0, last_row)) * in_row_stride();
        let inside_row${row} = inside(y${row}, params.in_height);
            //% if SKIPS_ROWS
                //% for column in columns
        in_row${row}_column${column} = Value(0.0);
                //% endfor
        if inside_row${row} {
            //% endif
            //% for column in load_columns
                //% set at = "at_row" ~ row ~ " + at_column" ~ column
                //% set inside = "inside_row" ~ row ~ " & inside_column" ~ column
                //% if LANES == 2
        in_row${row}_column${column} = load_inside2((${at}) * 2u, ${inside});
                //% elif input == "pair"
        let pair_row${row}_column${column} = load_inside2(${at}, ${inside});
                    //% for next, part in [[column, "x"], [column + 1, "y"]] if next in columns
        in_row${row}_column${next} = pair_row${row}_column${column}.${part};
                    //% endfor
                //% else
        in_row${row}_column${column} = select(Value(0.0), load_input(${at}), ${inside});
                //% endif
            //% endfor
            //% if SKIPS_ROWS
        }
            //% endif
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
                //% for x in range(STRIP_WIDTH)
                    //% set column = outputs[x] * geometry.stride_x + kx * geometry.dilation_x + EARLY
                    //% if column in columns
        sum${x} = fma(in_row${ky}_column${column}, weight_${ky}_${kx}, sum${x});
                    //% endif
                //% endfor
            //% endfor
        //% endfor

        let out = strip.output + (step - LEAD) * (ROW_STEP * out_row_stride());
        var sums: Sums;
        //% for x in range(STRIP_WIDTH)
        sums.of${x} = sum${x};
        //% endfor
        store_strip(out, strip.columns, sums);
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

//% include "strip_columns.wgsl"

//% include "tensors.wgsl"

//% include "output.wgsl"
