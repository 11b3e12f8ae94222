// The last of Winograd's three passes: A^T m A for each tile m of the products, then the epilogue.
//
// An invocation makes the OUTPUTS x OUTPUTS outputs of one tile of one channel.
//
// products the second pass's output, laid out as the first pass's
// host     OUTPUTS, LINE, WORKGROUP, biases.wgsl, `transform_tile`, a winograd_* file with the layout and one
//          with the matrices, and an output_* file

@group(0) @binding(1) var<storage, read> products: array<f32>;

// Where a tile is: its first output, the row and column of that, and its number.
struct Tile {
    y: u32,
    x: u32,
    output: u32,
    channel: u32,
    number: u32,
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
    let y = item.y * OUTPUTS;
    let x = item.x * OUTPUTS;
    transform_tile(Tile(
        y,
        x,
        item.batch * params.out_channels * out_pixels() + item.channel * out_channel_stride()
            + y * out_row_stride() + x * out_pixel_stride(),
        item.channel,
        (item.batch * params.tiles_y + item.y) * params.tiles_x + item.x,
    ));
}
