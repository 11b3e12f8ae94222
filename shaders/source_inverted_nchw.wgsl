// The source of a fused inverted residual, NCHW: the depthwise convolution's results over a block of the image, made of
// expanded channels that are never written to memory; k is the expanded channel.
//
// For TILE_DEPTH expanded channels at a time the workgroup expands the inputs under the block, the halo included, into
// workgroup memory, and convolves what is there.
//
// host     BLOCK_HEIGHT, BLOCK_WIDTH, HALO_HEIGHT, HALO_QUADS (of a row), the depthwise geometry, EXPAND_DEPTH (input
//          channels), EXPAND_STEP, EXPAND_AT, EXPAND_BIAS_AT, TAP_QUADS, `depthwise`, `activate_expanded`,
//          `activate_depthwise`, an input_* file
//
// The block is MobileNetV2's (Sandler et al., arXiv 1801.04381).

const HALO_ITEMS: u32 = HALO_HEIGHT * HALO_QUADS;
// Expanded channels that an invocation makes at a time.
const EXPANDED: u32 = 8u;

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

// Stages the depthwise results of TILE_DEPTH channels. The expanded ones, [k][item], are where the product's weights
// come afterwards: in `channel_tile`.
fn stage_pixels(k0: u32, place: Place, local: u32) {
    for (var item = local; item < TILE_DEPTH / EXPANDED * HALO_ITEMS; item += THREADS) {
        expand(k0, item / HALO_ITEMS * EXPANDED, item % HALO_ITEMS, place);
    }
    workgroupBarrier();
    for (var item = local; item < TILE_DEPTH * PIXEL_QUADS; item += THREADS) {
        let k = item / PIXEL_QUADS;
        let row = item % PIXEL_QUADS / (BLOCK_WIDTH / 4u) * STRIDE_Y;
        let quad = item % (BLOCK_WIDTH / 4u) * STRIDE_X;
        let values = depthwise(min(k0 + k, params.group_in - 1u), (k * HALO_HEIGHT + row) * HALO_QUADS + quad);
        // Channels that fill up a step: weights of zero do not hide the NaNs that infinities make of them.
        pixel_tile[item] = select(values, vec4<f32>(0.0), DEPTH_IS_PADDED & (k0 + k >= params.group_in));
    }
    workgroupBarrier();
}

// Expands channels at four neighbouring inputs. Padding is around the expanded image, so it is zero there.
fn expand(k0: u32, k: u32, item: u32, place: Place) {
    let y = vec4<u32>(u32(place.top + i32(item / HALO_QUADS)));
    let x = vec4<u32>(place.left + i32(item % HALO_QUADS * 4u) + vec4<i32>(0, 1, 2, 3));
    let inside = (y < vec4<u32>(params.in_height)) & (x < vec4<u32>(params.in_width));
    let at = place.image + select(vec4<u32>(0u), y * params.in_width + x, inside);

    let bias_low = weights[EXPAND_BIAS_AT + (k0 + k) / 4u];
    let bias_high = weights[EXPAND_BIAS_AT + (k0 + k) / 4u + 1u];
    var sum0 = vec4<f32>(bias_low.x);
    var sum1 = vec4<f32>(bias_low.y);
    var sum2 = vec4<f32>(bias_low.z);
    var sum3 = vec4<f32>(bias_low.w);
    var sum4 = vec4<f32>(bias_high.x);
    var sum5 = vec4<f32>(bias_high.y);
    var sum6 = vec4<f32>(bias_high.z);
    var sum7 = vec4<f32>(bias_high.w);
    // A panel has TILE_DEPTH expanded channels, and a few input channels are written out, or unrolled.
    let weights_at = EXPAND_AT + k0 / 4u * EXPAND_DEPTH + k / 4u;
    for (var channel = 0u; channel < opaque(EXPAND_DEPTH); channel += EXPAND_STEP) {
        for (var step = 0u; step < EXPAND_STEP; step++) {
            let values = load_input4(at + (channel + step) * in_pixels());
            let weight = weights_at + (channel + step) * (TILE_DEPTH / 4u);
            let low = weights[weight];
            let high = weights[weight + 1u];
            sum0 = fma(vec4<f32>(low.x), values, sum0);
            sum1 = fma(vec4<f32>(low.y), values, sum1);
            sum2 = fma(vec4<f32>(low.z), values, sum2);
            sum3 = fma(vec4<f32>(low.w), values, sum3);
            sum4 = fma(vec4<f32>(high.x), values, sum4);
            sum5 = fma(vec4<f32>(high.y), values, sum5);
            sum6 = fma(vec4<f32>(high.z), values, sum6);
            sum7 = fma(vec4<f32>(high.w), values, sum7);
        }
    }
    let first = k * HALO_ITEMS + item;
    channel_tile[first] = expanded(sum0, inside);
    channel_tile[first + HALO_ITEMS] = expanded(sum1, inside);
    channel_tile[first + 2u * HALO_ITEMS] = expanded(sum2, inside);
    channel_tile[first + 3u * HALO_ITEMS] = expanded(sum3, inside);
    channel_tile[first + 4u * HALO_ITEMS] = expanded(sum4, inside);
    channel_tile[first + 5u * HALO_ITEMS] = expanded(sum5, inside);
    channel_tile[first + 6u * HALO_ITEMS] = expanded(sum6, inside);
    channel_tile[first + 7u * HALO_ITEMS] = expanded(sum7, inside);
}

fn expanded(sum: vec4<f32>, inside: vec4<bool>) -> vec4<f32> {
    return select(vec4<f32>(0.0), activate_expanded4(sum), inside);
}
