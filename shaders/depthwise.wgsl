// Depthwise convolution, with any channel multiplier.
//
// An invocation computes a strip: TILE_WIDTH columns and a number of rows of one channel (`Value` = f32) or of
// four neighbouring channels (`Value` = vec4<f32>, NHWC). It goes down the strip row by row and keeps the input
// rows under the kernel in registers, so that each input under the strip is loaded once. The host writes the
// loads and multiply-adds of a row out in `compute_strip`.
//
// input    NCHW or NHWC, by the strides
// weights  [channel][tap] for NCHW, [tap][channel] for NHWC, as `Value`s; then the biases
// host     geometry, TILE_WIDTH, WORKGROUP, channels and offsets in `Value`s,
//          `Value`, `input`, `store_value`, `compute_strip`, and an output_* file

@group(0) @binding(2) var<storage, read> weights: array<Value>;

// Where a strip is: its input's first row and column, which may lie in the padding, and its output.
struct Strip {
    top: i32,
    left: i32,
    input: u32,
    channel: u32,
    output: u32,
    rows: u32,
    // Columns from the strip's first to the image's last, at most TILE_WIDTH of them the strip's.
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
    let x = item.x * TILE_WIDTH;
    var strip: Strip;
    strip.top = i32(y * STRIDE_Y) - i32(PAD_TOP);
    strip.left = i32(x * STRIDE_X) - i32(PAD_LEFT);
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
