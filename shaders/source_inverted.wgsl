// The source of a fused inverted residual: the depthwise convolution's results over a block of the image, made of
// expanded channels that are never written to memory; k is the expanded channel.
//
// For TILE_DEPTH expanded channels at a time the workgroup expands the inputs under the block, the halo included, into
// workgroup memory, and convolves what is there. An invocation expands some inputs, and all expand to the same
// channels, so that all load the same weights, which many GPUs do once for all lanes.
//
// host     BLOCK_HEIGHT, BLOCK_WIDTH, HALO_HEIGHT, HALO_WIDTH, HALO_PITCH, the depthwise geometry, EXPANDED (channels
//          made at a time), EXPAND_DEPTH (input channels), EXPAND_DEPTH_PADDED, HIDDEN_QUADS (quads of expanded
//          channels), EXPAND_AT, EXPAND_BIAS_AT, DEPTHWISE_AT, DEPTHWISE_BIAS_AT, `Place`, `staged_place`, `expand`,
//          `depthwise`, `activate_expanded_pixel`, `activate_depthwise_pixel`, an expand_* and an input_* file
//
// The block is MobileNetV2's (Sandler et al., arXiv 1801.04381).

// Quads of a quad of channels in workgroup memory.
const HALO_ITEMS: u32 = HALO_HEIGHT * HALO_PITCH;
// An invocation makes four channels of four outputs, or nothing.
const_assert TILE_DEPTH / 4u * PIXEL_QUADS <= THREADS;

// An image of the batch, and the first input under the block, which may lie in the padding.
struct Corner {
    image: u32,
    top: i32,
    left: i32,
}

fn halo_corner(first_pixel: u32) -> Corner {
    let block = first_pixel / TILE_PIXELS;
    let row = block / params.tiles_x;
    return Corner(
        row / params.tiles_y,
        i32(row % params.tiles_y * BLOCK_HEIGHT * STRIDE_Y) - i32(PAD_TOP),
        i32(block % params.tiles_x * BLOCK_WIDTH * STRIDE_X) - i32(PAD_LEFT),
    );
}

// An input under the block: where its channels are, and where the expanded ones come. It is inside the image, or in the
// padding (which is around the expanded image, so that these are zero), or there is none.
struct HaloInput {
    at: u32,
    item: u32,
    inside: bool,
    padding: bool,
}

fn halo_input(input: u32, corner: Corner) -> HaloInput {
    let row = input / HALO_WIDTH;
    let column = input % HALO_WIDTH;
    let y = u32(corner.top + i32(row));
    let x = u32(corner.left + i32(column));
    let is_input = row < HALO_HEIGHT;
    let is_pixel = (y < params.in_height) & (x < params.in_width);
    let at = input_at(corner.image, select(0u, y * params.in_width + x, is_pixel));
    return HaloInput(at, row * HALO_PITCH + column, is_input & is_pixel, is_input & !is_pixel);
}

// Four channels of four neighbouring outputs: the first of the channels staged, the first of the pixels, and where the
// expanded channels are.
struct HaloResults {
    k: u32,
    pixel: u32,
    first: u32,
}

struct Results {
    s0: vec4<f32>,
    s1: vec4<f32>,
    s2: vec4<f32>,
    s3: vec4<f32>,
}

fn halo_results(local: u32) -> HaloResults {
    let quad = local / PIXEL_QUADS;
    // Neighbouring lanes have neighbouring rows.
    let row = local % BLOCK_HEIGHT;
    let column = local % PIXEL_QUADS / BLOCK_HEIGHT * 4u;
    let first = quad * HALO_ITEMS + row * STRIDE_Y * HALO_PITCH + column * STRIDE_X;
    return HaloResults(quad * 4u, row * BLOCK_WIDTH + column, first);
}

// Stages the depthwise results of TILE_DEPTH channels. The expanded ones, [four k][input], are where the product's
// weights come afterwards: in `channel_tile`.
fn stage_pixels(k0: u32, place: Place, local: u32) {
    // Drivers would write out a loop of few steps whole, and go round one of a single step.
    if EXPANDED == TILE_DEPTH {
        expand(k0, 0u, place);
    } else {
        for (var k = 0u; k < opaque(TILE_DEPTH); k += EXPANDED) {
            expand(k0, k, place);
        }
    }
    workgroupBarrier();
    if place.results.k < TILE_DEPTH {
        let k = k0 + place.results.k;
        var results = depthwise(min(k / 4u, HIDDEN_QUADS - 1u), place.results.first);
        if DEPTH_IS_PADDED {
            // Weights of zero do not hide the NaNs that infinities make of the channels that fill up a step.
            let there = k + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.group_in);
            results.s0 = select(vec4<f32>(0.0), results.s0, there);
            results.s1 = select(vec4<f32>(0.0), results.s1, there);
            results.s2 = select(vec4<f32>(0.0), results.s2, there);
            results.s3 = select(vec4<f32>(0.0), results.s3, there);
        }
        stage_results(place.results.k, place.results.pixel, results);
    }
    workgroupBarrier();
}
