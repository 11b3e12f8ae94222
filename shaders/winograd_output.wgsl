// ${recipe}: the transform of the products, ${layout}
//
// The last of Winograd's three passes: A^T m A for each tile m of the products, then the epilogue. An invocation makes
// the OUTPUTS x OUTPUTS outputs of one tile of one channel from LINE x LINE points.
//
// input    the second pass's output, as winograd_points.wgsl has it
// weights  the biases
//#
//# include  winograd_points.wgsl, tensors.wgsl, output.wgsl
//# host     OUTPUTS (2 or 4), WORKGROUP (invocations), bias (true or false), phases (those of output.wgsl);
//#          params.tiles_x, params.tiles_y (tiles of an image), params.bias_at (elements), params.work (invocations)
//
// Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016).

const OUTPUTS: u32 = ${OUTPUTS}u;
const LINE: u32 = OUTPUTS + 2u;
const WORKGROUP: u32 = ${WORKGROUP}u;
const HAS_BIAS: bool = ${"true" if bias else "false"};
//% set LINE = OUTPUTS + 2
//# How far neighbouring rows and neighbouring pixels of the outputs are apart.
//% set phases = phases | default(false)
//% set whole_pixel = "1u" if layout == "nchw" or not phases else phases.channels ~ "u"
//% set row_step = phases.stride[0] ~ "u * params.whole_width * " ~ whole_pixel if phases else "out_row_stride()"
//% set pixel_step = phases.stride[1] ~ "u * " ~ whole_pixel if phases else "out_pixel_stride()"

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
    let y = item.y * OUTPUTS;
    let x = item.x * OUTPUTS;
    //% if phases
    let output = whole_element(item.batch, item.channel, y * params.out_width + x);
    //% else
    let output = item.batch * params.out_channels * out_pixels() + item.channel * out_channel_stride()
        + y * out_row_stride() + x * out_pixel_stride();
    //% endif
    transform_tile(Tile(
        y,
        x,
        output,
        item.channel,
        (item.batch * params.tiles_y + item.y) * params.tiles_x + item.x,
    ));
}

// Where a tile is: its first output, the row and column of that, and its number.
struct Tile {
    y: u32,
    x: u32,
    output: u32,
    channel: u32,
    number: u32,
}

fn transform_tile(tile: Tile) {
    let bias = bias_if_any(tile.channel);
    //% for x in range(LINE)
    let column${x} = output_line(array<f32, LINE>(
        //% for y in range(LINE)
        load_input(point_at(${y * LINE + x}u, tile.channel, params.out_channels, tile.number)),
        //% endfor
    ));
    //% endfor
    store_tile(tile, array<array<f32, OUTPUTS>, OUTPUTS>(
        //% for y in range(OUTPUTS)
        output_line(array<f32, LINE>(
            //% for x in range(LINE)
            column${x}[${y}],
            //% endfor
        )),
        //% endfor
    ), bias);
}

// A line times A.
//% if OUTPUTS == 2
// F(2x2, 3x3), with the points 0, 1, -1 and infinity.
fn output_line(m: array<f32, 4>) -> array<f32, 2> {
    return array<f32, 2>(m[0] + m[1] + m[2], m[1] - m[2] - m[3]);
}

// All four outputs at once.
fn store_tile(tile: Tile, sums: array<array<f32, 2>, 2>, bias: f32) {
    let y = tile.y + vec4<u32>(0u, 0u, 1u, 1u);
    let x = tile.x + vec4<u32>(0u, 1u, 0u, 1u);
    let rows = min(y, vec4<u32>(params.out_height - 1u)) - tile.y;
    let columns = min(x, vec4<u32>(params.out_width - 1u)) - tile.x;
    let valid = (y < vec4<u32>(params.out_height)) & (x < vec4<u32>(params.out_width));
    let values = vec4<f32>(sums[0][0], sums[0][1], sums[1][0], sums[1][1]);
    store4(tile.output + rows * ${row_step} + columns * ${pixel_step}, valid, values + bias);
}
//% else
// F(4x4, 3x3), with the points 0, 1, -1, 2, -2 and infinity.
fn output_line(m: array<f32, 6>) -> array<f32, 4> {
    let sum = m[1] + m[2];
    let difference = m[1] - m[2];
    let sum2 = m[3] + m[4];
    let difference2 = m[3] - m[4];
    return array<f32, 4>(
        m[0] + sum + sum2,
        difference + 2.0 * difference2,
        sum + 4.0 * sum2,
        difference + 8.0 * difference2 + m[5],
    );
}

// Row by row.
fn store_tile(tile: Tile, sums: array<array<f32, 4>, 4>, bias: f32) {
    //% for row in range(4)
    store_row(tile, ${row}u, sums[${row}], bias);
    //% endfor
}

fn store_row(tile: Tile, row: u32, sums: array<f32, 4>, bias: f32) {
    if tile.y + row < params.out_height {
        let x = tile.x + vec4<u32>(0u, 1u, 2u, 3u);
        let columns = min(x, vec4<u32>(params.out_width - 1u)) - tile.x;
        let values = vec4<f32>(sums[0], sums[1], sums[2], sums[3]);
        let at = tile.output + row * ${row_step} + columns * ${pixel_step};
        store4(at, x < vec4<u32>(params.out_width), values + bias);
    }
}
//% endif

//% include "winograd_points.wgsl"

//% include "tensors.wgsl"

//% include "output.wgsl"
