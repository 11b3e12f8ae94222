// ${recipe}: the transform of the input, ${layout}
//
// The first of Winograd's three passes: B^T d B for each tile d of the input, LINE x LINE inputs for OUTPUTS x OUTPUTS
// outputs.
//% if scales != "none"
// Each channel of an image is multiplied by its scale; padding stays zero.
//% endif
//
// An invocation transforms one tile of one channel. What it writes is a tensor of its own, in which the tiles are the
// pixels and the LINE x LINE points of a tile are groups of channels, so that the second pass is a grouped pointwise
// convolution.
//
// input    NCHW or NHWC, by the strides
// output   as winograd_points.wgsl has it
//#
//# include  winograd_points.wgsl, tensors.wgsl
//# host     OUTPUTS (2 or 4), WORKGROUP (invocations), STORES_IN_LOOP (which software devices compile faster), input
//#          ("scalar", or "pair" if a load is two columns), scales ("scalar" or "none"), EARLY (columns by which loads
//#          start before the tile, as pairs start at even ones: 0 or 1); params.tiles_x, params.tiles_y (tiles of an
//#          image), params.work (invocations)
//
// Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016).

const OUTPUTS: u32 = ${OUTPUTS}u;
const LINE: u32 = OUTPUTS + 2u;
const WORKGROUP: u32 = ${WORKGROUP}u;
//% set LINE = OUTPUTS + 2
//% set xy = ["x", "y"]

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
    let item = item(index, params.in_channels);
    transform_tile(Tile(
        i32(item.y * OUTPUTS) - i32(PAD_TOP),
        i32(item.x * OUTPUTS) - i32(PAD_LEFT),
        item.batch * params.in_channels * in_pixels() + item.channel * in_channel_stride(),
        item.channel,
        (item.batch * params.tiles_y + item.y) * params.tiles_x + item.x,
        //% if scales != "none"
        load_scale(item.batch * params.in_channels + item.channel),
        //% endif
    ));
}

// Where a tile is: its first row and column, which may lie in the padding; its plane; and its number.
struct Tile {
    top: i32,
    left: i32,
    plane: u32,
    channel: u32,
    number: u32,
    //% if scales != "none"
    scale: f32,
    //% endif
}

fn transform_tile(tile: Tile) {
    //% if EARLY
    // Pairs start at even columns.
    let left = tile.left - 1;
    //% else
    let left = tile.left;
    //% endif
    //% for y in range(LINE)
    let row${y} = input_row(tile, ${y});
        //% for x in range(0, LINE + EARLY, 2 if input == "pair" else 1)
    let input_row${y}_x${x} = load_padded(row${y}, left${plus_signed(x)}${", tile.scale" if scales != "none" else ""});
        //% endfor
    let across_row${y} = input_line(array<f32, LINE>(
        //% for x in range(EARLY, LINE + EARLY)
            //% if input == "pair"
        input_row${y}_x${x - x % 2}.${xy[x % 2]},
            //% else
        input_row${y}_x${x},
            //% endif
        //% endfor
    ));
    //% endfor
    //% for x in range(LINE)
    let column${x} = input_line(array<f32, LINE>(
        //% for y in range(LINE)
        across_row${y}[${x}],
        //% endfor
    ));
    //% endfor
    //% if STORES_IN_LOOP
    var points = array<f32, LINE * LINE>(
        //% for y in range(LINE)
            //% for x in range(LINE)
        column${x}[${y}],
            //% endfor
        //% endfor
    );
    for (var point = 0u; point < opaque(LINE * LINE); point++) {
        store_plain(point_at(point, tile.channel, params.in_channels, tile.number), points[point]);
    }
    //% else
        //% for y in range(LINE)
            //% for x in range(LINE)
    store_plain(point_at(${y * LINE + x}u, tile.channel, params.in_channels, tile.number), column${x}[${y}]);
            //% endfor
        //% endfor
    //% endif
}

// A line times B.
//% if OUTPUTS == 2
// F(2x2, 3x3), with the points 0, 1, -1 and infinity.
fn input_line(d: array<f32, 4>) -> array<f32, 4> {
    return array<f32, 4>(d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]);
}
//% else
// F(4x4, 3x3), with the points 0, 1, -1, 2, -2 and infinity.
fn input_line(d: array<f32, 6>) -> array<f32, 6> {
    let even = d[4] - 4.0 * d[2];
    let odd = d[3] - 4.0 * d[1];
    let even2 = d[4] - d[2];
    let odd2 = 2.0 * (d[3] - d[1]);
    return array<f32, 6>(
        4.0 * d[0] - 5.0 * d[2] + d[4],
        even + odd,
        even - odd,
        even2 + odd2,
        even2 - odd2,
        4.0 * d[1] - 5.0 * d[3] + d[5],
    );
}
//% endif

// A row of the input: where its first element is, and whether it is a row at all or padding.
struct InputRow {
    at: u32,
    inside: bool,
}

fn input_row(tile: Tile, row: i32) -> InputRow {
    let inside = inside(tile.top + row, params.in_height);
    return InputRow(select(0u, tile.plane + u32(tile.top + row) * in_row_stride(), inside), inside);
}

// `&` and not `&&`: the latter is a branch, of which there would be one for each of dozens of loads.
//% set load = "load_inside" if scales == "none" else "load_scaled"
//% set times = "" if scales == "none" else (", vec2<f32>(scale)" if input == "pair" else ", scale")
//% if input == "pair"
// A column and the next one, zero in the padding.
fn load_padded(row: InputRow, x: i32${", scale: f32" if scales != "none" else ""}) -> vec2<f32> {
    let inside = row.inside & inside(x, params.in_width);
    return ${load}2(row.at + select(0u, u32(x), inside), inside${times});
}
//% else
// A column, zero in the padding.
fn load_padded(row: InputRow, x: i32${", scale: f32" if scales != "none" else ""}) -> f32 {
    let inside = row.inside & inside(x, params.in_width);
    return ${load}(row.at + select(0u, u32(x) * in_pixel_stride(), inside), inside${times});
}
//% endif

//% include "winograd_points.wgsl"

//% include "tensors.wgsl"
