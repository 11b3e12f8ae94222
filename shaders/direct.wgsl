// Direct convolution: every link there is, by its definition.
//
// An invocation computes a block of output channels of one group (one or four: `Block`) at PIXELS = 4
// neighbouring outputs of a row, so that a loaded weight serves four pixels and a loaded pixel all channels
// of the block.
//
// input    NCHW or NHWC, by the strides
// weights  [group][panel][input channel, row, column][block], then the biases [group][panel][block]
// host     geometry, WORKGROUP, BLOCK, `Block` (f32 or vec4<f32>), `store_block`

@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<Block>;

const PIXELS: u32 = 4u;

// The input at a column of a row that starts at `row`; zero in the padding.
fn load_padded(row: u32, x: i32) -> f32 {
    let column = u32(clamp(x, 0, i32(params.in_width) - 1));
    return select(0.0, input[row + column * in_pixel_stride()], inside(x, params.in_width));
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
    let item = item(index, params.groups * params.panels);
    let group = item.channel / params.panels;
    let x = item.x * PIXELS;
    let left = i32(x * STRIDE_X) - i32(PAD_LEFT);
    let top = i32(item.y * STRIDE_Y) - i32(PAD_TOP);
    let image = item.batch * params.in_channels * in_pixels();

    var sum0 = weights[params.bias_at + item.channel];
    var sum1 = sum0;
    var sum2 = sum0;
    var sum3 = sum0;
    for (var channel = 0u; channel < opaque(params.group_in); channel++) {
        let plane = image + (group * params.group_in + channel) * in_channel_stride();
        for (var ky = 0u; ky < KERNEL_HEIGHT; ky++) {
            let y = top + i32(ky * DILATION_Y);
            if !inside(y, params.in_height) {
                continue;
            }
            let row = plane + u32(y) * in_row_stride();
            let weight_row = ((item.channel * params.group_in + channel) * KERNEL_HEIGHT + ky) * KERNEL_WIDTH;
            for (var kx = 0u; kx < KERNEL_WIDTH; kx++) {
                let weight = weights[weight_row + kx];
                let at = left + i32(kx * DILATION_X);
                sum0 = fma(Block(load_padded(row, at)), weight, sum0);
                sum1 = fma(Block(load_padded(row, at + i32(STRIDE_X))), weight, sum1);
                sum2 = fma(Block(load_padded(row, at + i32(2u * STRIDE_X))), weight, sum2);
                sum3 = fma(Block(load_padded(row, at + i32(3u * STRIDE_X))), weight, sum3);
            }
        }
    }

    let first = item.channel % params.panels * BLOCK;
    let channels = min(BLOCK, params.group_out - first);
    let at = item.batch * params.out_channels * out_pixels()
        + (group * params.group_out + first) * out_channel_stride()
        + item.y * out_row_stride()
        + x * out_pixel_stride();
    store_block(at, channels, sum0);
    if x + 1u < params.out_width { store_block(at + out_pixel_stride(), channels, sum1); }
    if x + 2u < params.out_width { store_block(at + 2u * out_pixel_stride(), channels, sum2); }
    if x + 3u < params.out_width { store_block(at + 3u * out_pixel_stride(), channels, sum3); }
}
