// ${recipe}: ${problem}
//
// Transposed convolution. Outputs that are a stride apart see the same taps of the kernel: those whose distance from
// them is a multiple of the stride. So each such phase is a plain convolution with a part of the kernel, and no zero is
// multiplied.
//
// An invocation computes a block of output channels of one group (BLOCK, one or four) at PIXELS outputs of a row, a
// stride apart, so that a loaded weight serves all pixels and a loaded pixel all channels of the block.
//
// input    NCHW or NHWC, by the strides
// weights  [group][panel][input channel, row, column][block], then the biases [group][panel][block]
//#
//# include  channel_block.wgsl, tensors.wgsl, output.wgsl
//# host     BLOCK (channels), PIXELS (outputs), WORKGROUP (invocations); taps: divisor, step and inverse for y and x
//#          (see below); params.tiles_x (blocks of PIXELS in a row, times STRIDE_X), params.tiles_y (rows of the
//#          output), params.bias_at (in blocks), params.work (invocations)

const BLOCK: u32 = ${BLOCK}u;
const PIXELS: u32 = ${PIXELS}u;
const WORKGROUP: u32 = ${WORKGROUP}u;
//% set block = "f32" if BLOCK == 1 else "vec4<f32>"

// The greatest common divisor of stride and dilation; the distance of a phase's taps, which is the stride over that;
// and the number whose product with the dilation over the divisor is 1 modulo this distance.
const DIVISOR_Y: u32 = ${taps.divisor[0]}u;
const DIVISOR_X: u32 = ${taps.divisor[1]}u;
const STEP_Y: u32 = ${taps.step[0]}u;
const STEP_X: u32 = ${taps.step[1]}u;
const INVERSE_Y: u32 = ${taps.inverse[0]}u;
const INVERSE_X: u32 = ${taps.inverse[1]}u;

// The first tap that an output of a phase sees. A phase that the divisor does not divide sees none.
fn first_tap(phase: u32, divisor: u32, step: u32, inverse: u32, kernel: u32) -> u32 {
    return select(kernel, phase / divisor * inverse % step, phase % divisor == 0u);
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
    // Neighbouring invocations have neighbouring phases.
    let x = item.x / STRIDE_X * (STRIDE_X * PIXELS) + item.x % STRIDE_X;
    // Counted from where the first kernel begins.
    let row_of_kernels = item.y + PAD_TOP;
    let column_of_kernels = x + PAD_LEFT;
    let first_y = first_tap(row_of_kernels % STRIDE_Y, DIVISOR_Y, STEP_Y, INVERSE_Y, KERNEL_HEIGHT);
    let first_x = first_tap(column_of_kernels % STRIDE_X, DIVISOR_X, STEP_X, INVERSE_X, KERNEL_WIDTH);
    let image = item.batch * params.in_channels * in_pixels();

    var sum0 = load_weight(params.bias_at + item.channel);
    //% for pixel in range(1, PIXELS)
    var sum${pixel} = sum0;
    //% endfor
    for (var channel = 0u; channel < opaque(params.group_in); channel++) {
        let plane = image + (group * params.group_in + channel) * in_channel_stride();
        for (var ky = first_y; ky < KERNEL_HEIGHT; ky += STEP_Y) {
            let y = (i32(row_of_kernels) - i32(ky * DILATION_Y)) / i32(STRIDE_Y);
            if !inside(y, params.in_height) {
                continue;
            }
            let row = plane + u32(y) * in_row_stride();
            let weight_row = ((item.channel * params.group_in + channel) * KERNEL_HEIGHT + ky) * KERNEL_WIDTH;
            for (var kx = first_x; kx < KERNEL_WIDTH; kx += STEP_X) {
                let weight = load_weight(weight_row + kx);
                let at = (i32(column_of_kernels) - i32(kx * DILATION_X)) / i32(STRIDE_X);
                sum0 = fma(${block}(load_padded(row, at)), weight, sum0);
                //% for pixel in range(1, PIXELS)
                sum${pixel} = fma(${block}(load_padded(row, at + ${pixel})), weight, sum${pixel});
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
    if x < params.out_width { store_block(at, channels, sum0); }
    //% for pixel in range(1, PIXELS)
    if x + ${pixel}u * STRIDE_X < params.out_width {
        store_block(at + ${pixel}u * STRIDE_X * out_pixel_stride(), channels, sum${pixel});
    }
    //% endfor
}

//% include "channel_block.wgsl"

//% include "tensors.wgsl"

//% include "output.wgsl"
