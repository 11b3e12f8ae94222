// The source of a fused inverted residual: the depthwise convolution's results over a block of the image, made of
// expanded channels that are never written to memory; k is the expanded channel.
//
// For TILE_DEPTH expanded channels at a time the workgroup expands the inputs under the block, the halo included, into
// workgroup memory, and convolves what is there.
//
// host     BLOCK_HEIGHT, BLOCK_WIDTH, HALO_HEIGHT, HALO_QUADS (of a row), the depthwise geometry, EXPAND_DEPTH (input
//          channels), EXPAND_STEP, EXPANDED (channels that an invocation makes at a time, 8), EXPAND_AT,
//          EXPAND_BIAS_AT, TAP_QUADS, `depthwise`, `activate_expanded`, `activate_depthwise`, an expand_* and an
//          input_* file
//
// The block is MobileNetV2's (Sandler et al., arXiv 1801.04381).

const HALO_ITEMS: u32 = HALO_HEIGHT * HALO_QUADS;

// Those channels at four neighbouring inputs.
struct Expanded {
    s0: vec4<f32>,
    s1: vec4<f32>,
    s2: vec4<f32>,
    s3: vec4<f32>,
    s4: vec4<f32>,
    s5: vec4<f32>,
    s6: vec4<f32>,
    s7: vec4<f32>,
}

// An image of the batch, and the first input under the block, which may lie in the padding.
struct Place {
    image: u32,
    top: i32,
    left: i32,
}

fn staged_place(first_pixel: u32, group: u32, local: u32) -> Place {
    let block = first_pixel / TILE_PIXELS;
    let row = block / params.tiles_x;
    return Place(
        row / params.tiles_y,
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
    let at = input_at(place.image, select(vec4<u32>(0u), y * params.in_width + x, inside));

    let low = weights[EXPAND_BIAS_AT + (k0 + k) / 4u];
    let high = weights[EXPAND_BIAS_AT + (k0 + k) / 4u + 1u];
    var sums = Expanded(
        vec4<f32>(low.x),
        vec4<f32>(low.y),
        vec4<f32>(low.z),
        vec4<f32>(low.w),
        vec4<f32>(high.x),
        vec4<f32>(high.y),
        vec4<f32>(high.z),
        vec4<f32>(high.w),
    );
    // A panel of weights has TILE_DEPTH expanded channels.
    let weights_at = EXPAND_AT + k0 / 4u * EXPAND_DEPTH + k / 4u;
    for (var channel = 0u; channel < opaque(EXPAND_DEPTH); channel += EXPAND_STEP) {
        sums = add_products(sums, at, channel, weights_at);
    }
    let first = k * HALO_ITEMS + item;
    channel_tile[first] = expanded(sums.s0, inside);
    channel_tile[first + HALO_ITEMS] = expanded(sums.s1, inside);
    channel_tile[first + 2u * HALO_ITEMS] = expanded(sums.s2, inside);
    channel_tile[first + 3u * HALO_ITEMS] = expanded(sums.s3, inside);
    channel_tile[first + 4u * HALO_ITEMS] = expanded(sums.s4, inside);
    channel_tile[first + 5u * HALO_ITEMS] = expanded(sums.s5, inside);
    channel_tile[first + 6u * HALO_ITEMS] = expanded(sums.s6, inside);
    channel_tile[first + 7u * HALO_ITEMS] = expanded(sums.s7, inside);
}

// Adds an input channel.
fn add_product(sums: Expanded, values: vec4<f32>, weight: u32) -> Expanded {
    let low = weights[weight];
    let high = weights[weight + 1u];
    return Expanded(
        fma(vec4<f32>(low.x), values, sums.s0),
        fma(vec4<f32>(low.y), values, sums.s1),
        fma(vec4<f32>(low.z), values, sums.s2),
        fma(vec4<f32>(low.w), values, sums.s3),
        fma(vec4<f32>(high.x), values, sums.s4),
        fma(vec4<f32>(high.y), values, sums.s5),
        fma(vec4<f32>(high.z), values, sums.s6),
        fma(vec4<f32>(high.w), values, sums.s7),
    );
}

fn expanded(sum: vec4<f32>, inside: vec4<bool>) -> vec4<f32> {
    return select(vec4<f32>(0.0), activate_expanded4(sum), inside);
}
