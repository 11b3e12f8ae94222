// Depthwise convolution, with any channel multiplier.
//
// An invocation computes a tile of TILE_HEIGHT x TILE_WIDTH outputs of one channel (`Value` = f32) or of four
// neighbouring channels (`Value` = vec4<f32>, NHWC), all in registers, and loads every input under the tile
// once. The tile's loads and multiply-adds are written out by the host in `compute_tile`.
//
// input    NCHW or NHWC, by the strides
// weights  [channel][tap] for NCHW, [tap][channel] for NHWC, as `Value`s; then the biases
// host     geometry and channels, CHANNELS (in `Value`s), MULTIPLIER, BIAS_AT, WORKGROUP,
//          `Value`, `store_value`, `compute_tile`

@group(0) @binding(1) var<storage, read> input: array<Value>;
@group(0) @binding(2) var<storage, read> weights: array<Value>;

// Where a tile is: its input's first row and column, which may lie in the padding, and its output.
struct Tile {
    top: i32,
    left: i32,
    input: u32,
    channel: u32,
    output: u32,
    // Outputs that remain below and to the right, this tile's included.
    rows: u32,
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
    let item = item(index, CHANNELS);
    let y = item.y * TILE_HEIGHT;
    let x = item.x * TILE_WIDTH;
    var tile: Tile;
    tile.top = i32(y * STRIDE_Y) - i32(PAD_TOP);
    tile.left = i32(x * STRIDE_X) - i32(PAD_LEFT);
    tile.input = item.batch * IN_CHANNELS * in_pixels() + item.channel / MULTIPLIER * in_channel_stride();
    tile.channel = item.channel;
    tile.output = item.batch * OUT_CHANNELS * out_pixels()
        + item.channel * out_channel_stride()
        + y * out_row_stride()
        + x * OUT_PIXEL_STRIDE;
    tile.rows = params.out_height - y;
    tile.columns = params.out_width - x;
    compute_tile(tile);
}
