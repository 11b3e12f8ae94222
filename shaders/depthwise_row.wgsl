// ${recipe}: ${problem}
//
// Depthwise convolution by kernels of any size, with any channel multiplier.
//
// An invocation computes a strip of the output: ROWS rows and STRIP_WIDTH columns of one channel (`Value` is f32), or
// of two or four neighbouring channels (`Value` is a vector of them, NHWC). It goes through the input row by row, and
// loads what is under a row of the kernel once for all its outputs.
//% if ROW_STEP > 1 or BASES > 1
// The outputs are as far apart as the taps of the dilated kernel, and share inputs as those of an undilated one.
//% endif
//
//% if BROADCAST
// A workgroup computes strips of one channel. Each lane loads a few of the weights of a row, and `subgroupBroadcast`
// hands them round. This is right for subgroups of LANES_OF_WEIGHTS and any multiple of them: a broadcast reads from
// one of the first LANES_OF_WEIGHTS lanes, and every further lane loads what one of those does.
//% elif SHARES_WEIGHTS
// A workgroup computes strips of one channel, so that all its lanes load the same weights.
//% endif
//
// input    NCHW or NHWC, by the strides
//% if WEIGHTS_BY_CHANNEL
// weights  [channel][tap], then the biases
//% else
// weights  [tap][channel], then the biases
//% endif
//#
//# include  strip_columns.wgsl, tensors.wgsl, output.wgsl
//# host     WORKGROUP (invocations), LANES (channels of an invocation: one, two or four), ROWS (of a strip), ROW_STEP
//#          (rows of the output from one of a strip's to the next), SHIFT (input rows, as far apart as the taps are,
//#          from one of a strip's rows to the next; either is 1 if ROWS is), BROADCAST (true or false), SHARES_WEIGHTS
//#          (whether a workgroup has one channel), WEIGHTS_BY_CHANNEL (their order), LANES_OF_WEIGHTS (1 unless
//#          BROADCAST); those of strip_columns.wgsl; params.tiles_x and params.tiles_y (strips), params.work
//#          (workgroups if SHARES_WEIGHTS, else invocations). Channels and params.bias_at count `Value`s.
//#
//#          The columns of the kernel are cut into `parts`, each with first (tap), count (blocks, a loop if more than
//#          one), taps (of a block), columns and load_columns (lists, of a block's input, from the first output's first
//#          tap or, to align pairs, from EARLY columns before it).

const WORKGROUP: u32 = ${WORKGROUP}u;
const TAPS: u32 = KERNEL_HEIGHT * KERNEL_WIDTH;
// Of a strip, and of the input under it, DILATION_Y apart.
const ROWS: u32 = ${ROWS}u;
const INPUT_ROWS: u32 = KERNEL_HEIGHT${plus((ROWS - 1) * SHIFT)};
// Weights from one of the kernel's columns to the next, and from row to row.
//% if transposed
const COLUMN_OF_TAPS: u32 = KERNEL_HEIGHT;
const ROW_OF_TAPS: u32 = 1u;
//% else
const COLUMN_OF_TAPS: u32 = 1u;
const ROW_OF_TAPS: u32 = KERNEL_WIDTH;
//% endif

// One channel, or a few neighbours. Channels and places in memory count these.
alias Value = ${"f32" if LANES == 1 else "vec" ~ LANES ~ "<f32>"};

//# Where weight `kx` of a block is, loaded or handed round.
//% macro weight_of(kx)
    //% if BROADCAST
subgroupBroadcast(weights${kx // LANES_OF_WEIGHTS}, ${kx % LANES_OF_WEIGHTS}u)
    //% elif WEIGHTS_BY_CHANNEL
load_weight(weights_at${plus(kx, "COLUMN_OF_TAPS")})
    //% else
load_weight(weights_at${plus(kx, "(COLUMN_OF_TAPS * params.out_channels)")})
    //% endif
//% endmacro
@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    //% if BROADCAST
    @builtin(subgroup_invocation_id) lane: u32,
    //% endif
) {
    let group = workgroup_index(workgroup, grid);
    //% if SHARES_WEIGHTS
    // The same for the whole workgroup.
    if group >= params.work {
        return;
    }
    let strips = params.tiles_x * params.tiles_y;
    let groups = (strips + WORKGROUP - 1u) / WORKGROUP;
        //% if layout == "nchw"
    let plane = group / groups;
    let first = group % groups * WORKGROUP;
    let channel = plane % params.out_channels;
    let batch = plane / params.out_channels;
        //% else
    let first = group / params.out_channels % groups * WORKGROUP;
    let channel = group % params.out_channels;
    let batch = group / params.out_channels / groups;
        //% endif
    // Invocations beyond the last strip compute it as well and store nothing, so that no lane is missing.
    let strip = min(first + local, strips - 1u);
        //% if transposed
    let item = Item(strip / params.tiles_y, strip % params.tiles_y, channel, batch);
        //% else
    let item = Item(strip % params.tiles_x, strip / params.tiles_x, channel, batch);
        //% endif
    //% else
    let index = group * WORKGROUP + local;
    if index >= params.work {
        return;
    }
    let item = item(index, params.out_channels);
    //% endif
    let x = first_column(item.x);
    //% if ROW_STEP > 1
    let first_y = item.y / ${ROW_STEP}u * ${ROW_STEP * ROWS}u + item.y % ${ROW_STEP}u;
    //% else
    let first_y = item.y * ROWS;
    //% endif
    let top = i32(first_y * STRIDE_Y) - i32(PAD_TOP);
    let left = i32(x * STRIDE_X) - i32(PAD_LEFT${plus(EARLY)});
    let in_channel = item.channel / (params.out_channels / params.in_channels);
    let plane_at = item.batch * params.in_channels * in_pixels() + in_channel * in_channel_stride();
    let last_row = i32(params.in_height) - 1;
    let last_column = params.in_width - 1u;

    let bias = load_weight(params.bias_at + item.channel);
    //% for row in range(ROWS)
        //% for x in range(STRIP_WIDTH)
    var sum${row}_${x} = bias;
        //% endfor
    //% endfor
    //% if BROADCAST and not transposed and ROW_STEP == 1
    // The rows under the workgroup's strips that are in the image at any of them.
    let highest = i32(first / params.tiles_x * (ROWS * STRIDE_Y)) - i32(PAD_TOP);
    let lowest = i32((min(first + WORKGROUP, strips) - 1u) / params.tiles_x * (ROWS * STRIDE_Y)) - i32(PAD_TOP);
    let first_row = (u32(max(-lowest, 0)) + DILATION_Y - 1u) / DILATION_Y;
    let past_row = min((u32(max(i32(params.in_height) - highest, 0)) + DILATION_Y - 1u) / DILATION_Y, INPUT_ROWS);
    for (var input_row = first_row; input_row < past_row; input_row++) {
    //% else
    for (var input_row = 0u; input_row < opaque(INPUT_ROWS); input_row++) {
    //% endif
        let y = top + i32(input_row * DILATION_Y);
        //% if BROADCAST
        let inside_row = inside(y, params.in_height);
        //% else
        if !inside(y, params.in_height) {
            continue;
        }
        //% endif
        let row = plane_at + u32(clamp(y, 0, last_row)) * in_row_stride();
        //% for part in parts
        //% set first_tap = (part.first ~ "u") if part.count == 1 else ("block * " ~ part.taps ~ "u")
        //% if part.count > 1
        for (var block = 0u; block < opaque(${part.count}u); block++) {
        //% else
        {
        //% endif
            //% if part.count == 1
            let start = left${plus_signed(part.first * geometry.dilation_x)};
            //% else
            let start = left + i32(block * ${part.taps * geometry.dilation_x}u);
            //% endif
            //% for column in part.load_columns
            let x${column} = start${plus_signed(column)};
            let at${column} = row + min(u32(x${column}), last_column) * in_pixel_stride();
                //% set inside = ("inside_row & " if BROADCAST else "") ~ "inside(x" ~ column ~ ", params.in_width)"
                //% if LANES == 2
            let in${column} = load_inside2(at${column} * 2u, ${inside});
                //% elif input == "pair"
            let pair${column} = load_inside2(at${column}, ${inside});
                    //% for next, component in [[column, "x"], [column + 1, "y"]] if next in part.columns
            let in${next} = pair${column}.${component};
                    //% endfor
                //% else
            let in${column} = select(Value(0.0), load_input(at${column}), ${inside});
                //% endif
            //% endfor
            //# The row of the kernel that is over these inputs at a row of the strip. One above the first wraps.
            //% for row in range(ROWS)
                //% set ky = "input_row" ~ (" - " ~ row * SHIFT ~ "u" if row else "")
            let row${row} = ${ky};
            ${("if row" ~ row ~ " < KERNEL_HEIGHT ") if ROWS > 1 else ""}{
                //% set tap = ("row" ~ row ~ " * ROW_OF_TAPS") ~ ("" if first_tap == "0u" else " + " ~ first_tap ~ " * COLUMN_OF_TAPS")
                //% if WEIGHTS_BY_CHANNEL
                let weights_at = item.channel * TAPS + ${tap};
                //% else
                let tap = ${tap};
                let weights_at = tap * params.out_channels + item.channel;
                //% endif
                //% if BROADCAST
                    //% for first in range(0, part.taps, LANES_OF_WEIGHTS)
                        //% set number = first // LANES_OF_WEIGHTS
                let column_of${number} = min(lane % ${LANES_OF_WEIGHTS}u${plus(first)}, ${part.taps - 1}u);
                let weights${number} = load_weight(weights_at + column_of${number} * COLUMN_OF_TAPS);
                    //% endfor
                //% endif
                //% for kx in range(part.taps)
                let weight${kx} = ${weight_of(kx) | trim};
                    //% for x in range(STRIP_WIDTH)
                        //% set column = outputs[x] * geometry.stride_x + kx * geometry.dilation_x + EARLY
                sum${row}_${x} = fma(in${column}, weight${kx}, sum${row}_${x});
                    //% endfor
                //% endfor
            }
            //% endfor
        }
        //% endfor
    }

    //% if SHARES_WEIGHTS
    if first + local >= strips {
        return;
    }
    //% endif
    let out = item.batch * params.out_channels * out_pixels()
        + item.channel * out_channel_stride()
        + first_y * out_row_stride()
        + x * out_pixel_stride();
    let columns = params.out_width - x;
    //% for row in range(ROWS)
        //% set at = "out" ~ plus(row * ROW_STEP, "out_row_stride()")
    ${("if first_y + " ~ row * ROW_STEP ~ "u < params.out_height ") if row else ""}{
        store_strip(${at}, columns, Sums(
        //% for x in range(STRIP_WIDTH)
            sum${row}_${x},
        //% endfor
        ));
    }
    //% endfor
}

//% include "strip_columns.wgsl"

//% include "tensors.wgsl"

//% include "output.wgsl"
