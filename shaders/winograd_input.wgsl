// The first of Winograd's three passes: B^T d B for each tile d of the input.
//
// An invocation transforms one tile of one channel. What it writes is a tensor of its own, in which the tiles are the
// pixels and the POINTS = LINE x LINE values of a tile are groups of channels, so that the second pass is a grouped
// pointwise convolution.
//
// input    NCHW or NHWC, by the strides
// host     OUTPUTS (a side of the tile's outputs), LINE, PAD_TOP, PAD_LEFT, WORKGROUP, `transform_tile`,
//          a winograd_* file with the layout and one with the matrices, and a row_* file
//
// Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016).

@group(0) @binding(2) var<storage, read_write> transformed: array<f32>;

// Where a tile is: its first row and column, which may lie in the padding; its plane; and its number.
struct Tile {
    top: i32,
    left: i32,
    plane: u32,
    channel: u32,
    number: u32,
}

fn input_row(tile: Tile, row: i32) -> InputRow {
    let inside = inside(tile.top + row, params.in_height);
    return InputRow(select(0u, tile.plane + u32(tile.top + row) * in_row_stride(), inside), inside);
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
    let item = item(index, params.in_channels);
    transform_tile(Tile(
        i32(item.y * OUTPUTS) - i32(PAD_TOP),
        i32(item.x * OUTPUTS) - i32(PAD_LEFT),
        item.batch * params.in_channels * in_pixels() + item.channel * in_channel_stride(),
        item.channel,
        (item.batch * params.tiles_y + item.y) * params.tiles_x + item.x,
    ));
}
