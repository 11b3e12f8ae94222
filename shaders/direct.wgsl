// ${recipe}: ${problem}
//
// Direct convolution: every link there is, by its definition.
//
// An invocation computes a block of output channels of one group (BLOCK, one or four) at PIXELS neighbouring outputs of
// a row, so that a loaded weight serves all pixels and a loaded pixel all channels of the block.
//
// input    NCHW or NHWC, by the strides
// weights  [group][panel][input channel, row, column][block], then the biases [group][panel][block]
//#
//# include  channel_block.wgsl, tensors.wgsl, output.wgsl
//# host     WRITTEN_OUT (whether compilers may write out a row of the kernel), scales ("none" or "scalar"), BLOCK
//#          (channels), PIXELS (outputs), WORKGROUP (invocations); params.tiles_x (blocks of PIXELS in a row),
//#          params.tiles_y (rows of the output), params.bias_at (in blocks), params.work (invocations)

const BLOCK: u32 = ${BLOCK}u;
const PIXELS: u32 = ${PIXELS}u;
const WORKGROUP: u32 = ${WORKGROUP}u;
//% set block = "f32" if BLOCK == 1 else "vec4<f32>"

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

    var sum0 = load_weight(params.bias_at + item.channel);
    //% for pixel in range(1, PIXELS)
    var sum${pixel} = sum0;
    //% endfor
    for (var channel = 0u; channel < opaque(params.group_in); channel++) {
        //% if scales == "scalar"
        let scale = load_scale(item.batch * params.in_channels + group * params.group_in + channel);
        //% endif
        let plane = image + (group * params.group_in + channel) * in_channel_stride();
        for (var ky = 0u; ky < KERNEL_HEIGHT; ky++) {
            let y = top + i32(ky * DILATION_Y);
            if !inside(y, params.in_height) {
                continue;
            }
            let row = plane + u32(y) * in_row_stride();
            let weight_row = ((item.channel * params.group_in + channel) * KERNEL_HEIGHT + ky) * KERNEL_WIDTH;
            for (var kx = 0u; kx < ${"KERNEL_WIDTH" if WRITTEN_OUT else "opaque(KERNEL_WIDTH)"}; kx++) {
                let weight = load_weight(weight_row + kx);
                let at = left + i32(kx * DILATION_X);
                //% set scale = ", scale" if scales == "scalar" else ""
                sum0 = fma(${block}(load_padded(row, at${scale})), weight, sum0);
                //% for pixel in range(1, PIXELS)
                    //% set right = "at + i32(" ~ pixel ~ "u * STRIDE_X)"
                sum${pixel} = fma(${block}(load_padded(row, ${right}${scale})), weight, sum${pixel});
                //% endfor
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
    //% for pixel in range(1, PIXELS)
    if x + ${pixel}u < params.out_width { store_block(at + ${pixel}u * out_pixel_stride(), channels, sum${pixel}); }
    //% endfor
}

//% include "channel_block.wgsl"

//% include "tensors.wgsl"

//% include "output.wgsl"
