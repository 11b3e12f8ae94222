//% if HEIGHT == 1
// The source of an implicit matrix product for PIXELS neighbouring outputs of a row: what all columns of a row of the
// kernel see of the input, so that an input under several of them is loaded once.
    //% if PIECES > 1
// A row of the kernel comes in ${PIECES} pieces, one after the other; the last has ${LAST} columns.
    //% endif
    //% if layout == "nchw"
// Rows of the kernel are counted through the input channels.
    //% else
// Channels are loaded by CHANNELS, and counted through the rows of the kernel.
    //% endif
//% else
// The source of an implicit matrix product for BLOCK_HEIGHT rows of BLOCK_WIDTH neighbouring outputs: what all of the
// kernel sees of the input, so that an input under several of its rows and columns is loaded once.
    //% if layout == "nhwc"
// Channels are loaded and counted by CHANNELS.
    //% endif
//% endif
// Rows of the output are filled up to whole blocks; what is behind a row's end is computed of some input and not
// stored.
//% if scales != "none"
// Each channel of an image is multiplied by its scale; padding stays zero.
//% endif
//#
//# host     layout; geometry; PIXELS; input ("scalar", or "pair" if a load is two columns, or in NHWC two channels);
//#          CHANNELS (of a load); DEPTH_IS_PADDED (whether k goes on behind the last value); scales ("scalar" or
//#          "none"); params.tiles_x (blocks in a row) and params.tiles_y (in a column); `output_block`
//#          HEIGHT, WIDTH   rows and columns of a block
//#          PIECES          in how many pieces a row of the kernel comes, of several only where HEIGHT is 1
//#          PIECE, LAST     columns of a piece, and of the last of them
//#          WINDOW_ROWS     with several rows: those of the input under the kernels of a block, counted from the first
//#          ZEROED_ROWS     those of them that can lie in the padding for an output that is stored
//#          Columns of the input are counted from the first that is loaded:
//#          EARLY           by how many columns that is before the kernel's corner: pairs start at even ones
//#          load_columns    at which loads start
//#          padded_columns  those of them that can lie in the padding, or behind the last
//#          columns_seen    [kernel column][output] what it sees

// The first input under the kernel, which may lie in the padding, and the nearest column that does not.
struct Corner {
    // Of the group's first channel.
    image: u32,
    top: i32,
    left: i32,
    column: u32,
    //% if scales != "none"
    // The scale of the group's first channel.
    scale_at: u32,
    //% endif
}

// A row or a column that may lie in the padding: where it is, and whether it is one at all.
struct Line {
    at: u32,
    inside: bool,
}

//% set window_rows = WINDOW_ROWS if HEIGHT > 1 else []
//# Columns of a piece are found for each.
//% set kept_columns = padded_columns if PIECES == 1 else []
//% if HEIGHT > 1
const BLOCK_HEIGHT: u32 = ${HEIGHT}u;
const BLOCK_WIDTH: u32 = ${WIDTH}u;

//% endif
// What all k have in common.
struct Place {
    corner: Corner,
    //% for row in window_rows
    row${row}: Line,
    //% endfor
    //% for column in kept_columns
    column${column}: Line,
    //% endfor
}

fn place(pixel: u32, group: u32) -> Place {
    let corner = corner(pixel, group);
    return Place(
        corner,
        //% for row in window_rows
        find_row(corner, ${row}),
        //% endfor
        //% for column in kept_columns
        find_column(corner, ${column - EARLY}),
        //% endfor
    );
}

fn corner(pixel: u32, group: u32) -> Corner {
    let block = output_block(pixel);
    let left = block.x * STRIDE_X;
    return Corner(
        //% if layout == "nchw"
        (block.image * params.in_channels + group * params.group_in) * in_pixels(),
        //% else
        block.image * params.in_channels * in_pixels() + group * params.group_in,
        //% endif
        i32(block.y * STRIDE_Y) - i32(PAD_TOP),
        i32(left) - i32(PAD_LEFT),
        min(left, params.in_width - 1u),
        //% if scales != "none"
        block.image * params.in_channels + group * params.group_in,
        //% endif
    );
}

//% set of_pixel = "" if layout == "nchw" else " * params.in_channels"
// How far a column is from the corner's.
fn find_column(corner: Corner, right: i32) -> Line {
    let x = corner.left + right;
    let inside = inside(x, params.in_width);
    return Line(select(0u, u32(x) - corner.column, inside)${of_pixel}, inside);
}

// Where the corner's column is in a row. A row in the padding, or behind the last, is somewhere in the image.
//% if HEIGHT > 1
fn find_row(corner: Corner, below: i32) -> Line {
    let y = corner.top + below;
    let inside = inside(y, params.in_height);
    return Line((select(0u, u32(y), inside) * params.in_width + corner.column)${of_pixel}, inside);
}
//% elif layout == "nchw"
fn find_row(corner: Corner, row: u32) -> Line {
    let y = corner.top + i32(row % KERNEL_HEIGHT * DILATION_Y);
    let is_row = inside(y, params.in_height);
    //% if DEPTH_IS_PADDED
    let inside = is_row & (row < params.group_in * KERNEL_HEIGHT);
    //% else
    let inside = is_row;
    //% endif
    let channel = select(0u, row / KERNEL_HEIGHT, inside);
    let at = select(0u, u32(y), is_row) * params.in_width + corner.column;
    return Line(corner.image + channel * in_pixels() + at, inside);
}
//% else
fn find_row(corner: Corner, row: u32) -> Line {
    let loads = params.group_in${" / 2u" if CHANNELS == 2 else ""};
    let y = corner.top + i32(row / loads * DILATION_Y);
    let is_row = inside(y, params.in_height);
    //% if DEPTH_IS_PADDED
    let inside = is_row & (row < loads * KERNEL_HEIGHT);
    //% else
    let inside = is_row;
    //% endif
    let at = select(0u, u32(y), is_row) * params.in_width + corner.column;
    return Line(corner.image + row % loads${" * 2u" if CHANNELS == 2 else ""} + at * params.in_channels, inside);
}
//% endif

//% if HEIGHT == 1
// What each k of a row ${"" if PIECES == 1 else "or a piece "}sees at the outputs, in quads.
//% else
// What each k of a fetch sees at the outputs, in quads, row by row.
//% endif
struct Row {
    //% for k in range((1 if HEIGHT == 1 else geometry.kernel_height) * PIECE * CHANNELS)
        //% for quad in range(PIXELS // 4)
    k${k}_quad${quad}: vec4<f32>,
        //% endfor
    //% endfor
}

// `&` and not `&&`: the latter is a branch, of which there would be one for each of dozens of loads.
fn fetch_row(number: u32, place: Place) -> Row {
    //% set number = "number" if PIECES == 1 else "row_number"
    //% if PIECES > 1
    let row_number = number / ${PIECES}u;
    let piece = number % ${PIECES}u;
    let before = i32(piece * ${PIECE * geometry.dilation_x}u);
        //% for column in load_columns
    let column${column} = find_column(place.corner, before + ${column - EARLY});
        //% endfor
        //% if LAST < PIECE
    let is_whole = piece < ${PIECES - 1}u;
        //% endif
    //% endif
    //% if HEIGHT == 1
    let row = find_row(place.corner, ${number});
    //% else
    let channel = place.corner.image + number${" * in_pixels()" if layout == "nchw" else (" * 2u" if CHANNELS == 2 else "")};
    //% endif
    //% set load, times = "load_inside2" if input == "pair" else "load_inside", ""
    //% if scales != "none"
        //% set load, times = "load_scaled2" if input == "pair" else "load_scaled", ", scale"
        //% if layout == "nchw"
            //% set channel = "number" if HEIGHT > 1 else number ~ " / KERNEL_HEIGHT"
            //% set channel = "min(" ~ channel ~ ", params.group_in - 1u)" if DEPTH_IS_PADDED else channel
            //% set of_channel = "load_scale(place.corner.scale_at + " ~ channel ~ ")"
    let scale = ${"vec2<f32>(" ~ of_channel ~ ")" if input == "pair" else of_channel};
        //% elif CHANNELS == 2
    let scale_at = place.corner.scale_at + ${number}${"" if HEIGHT > 1 else " % (params.group_in / 2u)"} * 2u;
    let scale = vec2<f32>(load_scale(scale_at), load_scale(scale_at + 1u));
        //% else
    let scale = load_scale(place.corner.scale_at + ${number}${"" if HEIGHT > 1 else " % params.group_in"});
        //% endif
    //% endif
    //% for row in window_rows or [""]
        //% set at = "row.at" if HEIGHT == 1 else "at" ~ row
        //% if HEIGHT > 1
    let at${row} = channel + place.row${row}.at;
        //% endif
        //% set of_row = "row.inside" if HEIGHT == 1 else ("place.row" ~ row ~ ".inside" if row in ZEROED_ROWS else "")
        //% for column in load_columns
            //% set value = "input" ~ (row ~ "_" if HEIGHT > 1 else "") ~ column
            //% if column in padded_columns
                //% set found = ("place." if PIECES == 1 else "") ~ "column" ~ column
                //% set inside = (of_row ~ " & " if of_row else "") ~ found ~ ".inside"
    let ${value} = ${load}(${at} + ${found}.at, ${inside}${times});
            //% else
                //% set right = column - EARLY - geometry.pad_left
                //% set right = plus(right) if layout == "nchw" else plus(right, "params.in_channels")
    let ${value} = ${load}(${at}${right}, ${of_row or "true"}${times});
            //% endif
        //% endfor
    //% endfor
    return Row(
    //% for ky in range(geometry.kernel_height if HEIGHT > 1 else 1)
        //% for outputs in columns_seen
            //# Behind the last column of the kernel there may be anything in the input.
            //% set is_behind = PIECES > 1 and loop.index0 >= LAST
            //% for channel in ["x", "y"] if channel == "x" or CHANNELS == 2
                //% for y in range(HEIGHT)
                    //% set row = (y * geometry.stride_y + ky * geometry.dilation_y) ~ "_" if HEIGHT > 1 else ""
                    //% for a, b, c, d in outputs | batch(4)
                        //% if CHANNELS == 2
                            //% set a, b, c, d = a ~ "." ~ channel, b ~ "." ~ channel, c ~ "." ~ channel, d ~ "." ~ channel
                        //% elif input == "pair"
                            //# The pair of an odd column starts one before it.
                            //% set xy = ["x", "y"]
                            //% set a, b = (a - a % 2) ~ "." ~ xy[a % 2], (b - b % 2) ~ "." ~ xy[b % 2]
                            //% set c, d = (c - c % 2) ~ "." ~ xy[c % 2], (d - d % 2) ~ "." ~ xy[d % 2]
                        //% endif
                        //% set start, end = ("select(vec4<f32>(), ", ", is_whole)") if is_behind else ("", "")
        ${start}vec4<f32>(input${row}${a}, input${row}${b}, input${row}${c}, input${row}${d})${end},
                    //% endfor
                //% endfor
            //% endfor
        //% endfor
    //% endfor
    );
}
