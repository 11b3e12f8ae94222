// The source of a fused inverted residual, NCHW: the depthwise convolution's results over a block of the image, made of
// expanded channels that are never written to memory; k is the expanded channel.
//
// For TILE_DEPTH expanded channels at a time the workgroup expands the inputs under the block, the halo included, into
// workgroup memory, and convolves what is there.
//
// host     BLOCK_HEIGHT, BLOCK_WIDTH, HALO_HEIGHT, HALO_QUADS (of a row), the depthwise geometry, EXPAND_DEPTH (input
//          channels), EXPAND_AT, EXPAND_BIAS_AT, DEPTHWISE_AT, DEPTHWISE_BIAS_AT, TAP_QUADS, `activate_expanded`,
//          `activate_depthwise`, an input_* file
//
// The block is MobileNetV2's (Sandler et al., arXiv 1801.04381).

const HALO_ITEMS: u32 = HALO_HEIGHT * HALO_QUADS;
const HALO_PIXELS: u32 = HALO_ITEMS * 4u;
const DEPTH_QUADS: u32 = TILE_DEPTH / 4u;

var<workgroup> expanded: array<f32, TILE_DEPTH * HALO_PIXELS>;

// The first input under the block, which may lie in the padding.
struct Place {
    // Of channel 0.
    image: u32,
    top: i32,
    left: i32,
}

fn staged_place(first_pixel: u32, group: u32, local: u32) -> Place {
    let block = first_pixel / TILE_PIXELS;
    let row = block / params.tiles_x;
    return Place(
        row / params.tiles_y * EXPAND_DEPTH * in_pixels(),
        i32(row % params.tiles_y * BLOCK_HEIGHT * STRIDE_Y) - i32(PAD_TOP),
        i32(block % params.tiles_x * BLOCK_WIDTH * STRIDE_X) - i32(PAD_LEFT),
    );
}

// Stages the depthwise results of TILE_DEPTH channels.
fn stage_pixels(k0: u32, place: Place, local: u32) {
    for (var item = local; item < DEPTH_QUADS * HALO_ITEMS; item += THREADS) {
        expand(k0, item / HALO_ITEMS, item % HALO_ITEMS, place);
    }
    workgroupBarrier();
    for (var item = local; item < TILE_DEPTH * PIXEL_QUADS; item += THREADS) {
        let k = item / PIXEL_QUADS;
        let values = depthwise(min(k0 + k, params.group_in - 1u), k * HALO_PIXELS, item % PIXEL_QUADS);
        // Channels that fill up a step: weights of zero do not hide the NaNs that infinities make of them.
        pixel_tile[item] = select(values, vec4<f32>(0.0), DEPTH_IS_PADDED & (k0 + k >= params.group_in));
    }
}

// Expands four channels at four neighbouring inputs. Padding is around the expanded image, so it is zero there.
fn expand(k0: u32, quad: u32, item: u32, place: Place) {
    let y = vec4<u32>(u32(place.top + i32(item / HALO_QUADS)));
    let x = vec4<u32>(place.left + i32(item % HALO_QUADS * 4u) + vec4<i32>(0, 1, 2, 3));
    let inside = (y < vec4<u32>(params.in_height)) & (x < vec4<u32>(params.in_width));
    let at = place.image + select(vec4<u32>(0u), y * params.in_width + x, inside);

    let weights_at = EXPAND_AT + k0 / TILE_DEPTH * EXPAND_DEPTH * DEPTH_QUADS + quad;
    let bias = weights[EXPAND_BIAS_AT + k0 / 4u + quad];
    var sum0 = vec4<f32>(bias.x);
    var sum1 = vec4<f32>(bias.y);
    var sum2 = vec4<f32>(bias.z);
    var sum3 = vec4<f32>(bias.w);
    for (var channel = 0u; channel < opaque(EXPAND_DEPTH); channel++) {
        let values = load_input4(at + channel * in_pixels());
        let weight = weights[weights_at + channel * DEPTH_QUADS];
        sum0 = fma(vec4<f32>(weight.x), values, sum0);
        sum1 = fma(vec4<f32>(weight.y), values, sum1);
        sum2 = fma(vec4<f32>(weight.z), values, sum2);
        sum3 = fma(vec4<f32>(weight.w), values, sum3);
    }
    let first = quad * 4u * HALO_PIXELS + item * 4u;
    store_expanded(first, inside, sum0);
    store_expanded(first + HALO_PIXELS, inside, sum1);
    store_expanded(first + 2u * HALO_PIXELS, inside, sum2);
    store_expanded(first + 3u * HALO_PIXELS, inside, sum3);
}

fn store_expanded(at: u32, inside: vec4<bool>, sum: vec4<f32>) {
    let values = select(vec4<f32>(0.0), activate_expanded4(sum), inside);
    expanded[at] = values.x;
    expanded[at + 1u] = values.y;
    expanded[at + 2u] = values.z;
    expanded[at + 3u] = values.w;
}

// Convolves at four neighbouring outputs of the block.
fn depthwise(channel: u32, plane: u32, quad: u32) -> vec4<f32> {
    let row = quad / (BLOCK_WIDTH / 4u) * STRIDE_Y;
    let column = quad % (BLOCK_WIDTH / 4u) * 4u * STRIDE_X;
    var sum = vec4<f32>(weights[DEPTHWISE_BIAS_AT + channel / 4u][channel % 4u]);
    for (var ky = 0u; ky < KERNEL_HEIGHT; ky++) {
        let line = plane + (row + ky * DILATION_Y) * HALO_QUADS * 4u + column;
        for (var kx = 0u; kx < KERNEL_WIDTH; kx++) {
            let at = line + kx * DILATION_X;
            let values = vec4<f32>(
                expanded[at],
                expanded[at + STRIDE_X],
                expanded[at + 2u * STRIDE_X],
                expanded[at + 3u * STRIDE_X],
            );
            let tap = ky * KERNEL_WIDTH + kx;
            sum = fma(values, vec4<f32>(weights[DEPTHWISE_AT + channel * TAP_QUADS + tap / 4u][tap % 4u]), sum);
        }
    }
    return activate_depthwise4(sum);
}
