// From a sum to the output: bias, residual, activation, and where the sums of a product go.
//#
//# host     residual    "none", "before" or "after" (the activation); it is added there
//#          activation  "clamp" (between params.low_bits and params.high_bits); "leaky_relu" (the slope is
//#                      params.low_bits); "prelu" (a slope for each channel, params.slopes of them behind the weights,
//#                      from element params.slopes_at on); "hard_swish", "silu", "sigmoid", "hard_sigmoid",
//#                      "hyperbolic_tangent" or "gelu"
//#          pixels      how a product counts its pixels: "batch", through the whole batch; "rows", by rows filled
//#                      up to whole blocks of PIXELS, params.tiles_x of them, and params.tiles_y rows; "blocks", by
//#                      blocks of BLOCK_HEIGHT rows and BLOCK_WIDTH columns, params.tiles_y times params.tiles_x of an
//#                      image; or "none", if it is no product. Products need layout, bias (true or false), and
//#                      TILE_CHANNELS, the channels of a panel

//# Each for one sum, and for four.
//% for suffix, value, at in [["", "f32", "u32"], ["4", "vec4<f32>", "vec4<u32>"]]
fn hard_swish${suffix}(x: ${value}) -> ${value} {
    let raised = max(x + ${value}(3.0), ${value}(0.0));
    return x * (min(raised, ${value}(6.0)) / ${value}(6.0));
}

fn silu${suffix}(x: ${value}) -> ${value} {
    return x / (${value}(1.0) + exp(-x));
}

// The comparison keeps a NaN, of which SwiftShader's `exp` makes a number.
fn sigmoid${suffix}(x: ${value}) -> ${value} {
    return select(x, ${value}(1.0) / (${value}(1.0) + exp(-x)), abs(x) >= ${value}(0.0));
}

// Comparisons, for a NaN: see `activate`.
fn hard_sigmoid${suffix}(x: ${value}) -> ${value} {
    let raised = select(x + ${value}(3.0), ${value}(0.0), x < ${value}(-3.0));
    return select(raised, ${value}(6.0), raised > ${value}(6.0)) / ${value}(6.0);
}

fn leaky_relu${suffix}(x: ${value}, slope: ${value}) -> ${value} {
    return select(x * slope, x, x > ${value}(0.0));
}

// WGSL's own `tanh` may be wrong by 1e-5. Near zero, where the quotient of exponentials cancels, this is the polynomial
// of Cephes (Moshier, `tanhf`).
fn hyperbolic_tangent${suffix}(x: ${value}) -> ${value} {
    let size = abs(x);
    let far = ${value}(1.0) - ${value}(2.0) / (exp(size * 2.0) + ${value}(1.0));
    let square = x * x;
    var near = square * -5.70498872745e-3 + ${value}(2.06390887954e-2);
    near = near * square + ${value}(-5.37397155531e-2);
    near = near * square + ${value}(1.33314422036e-1);
    near = near * square + ${value}(-3.33332819422e-1);
    near = near * square * x + x;
    // A NaN is near.
    return select(near, select(far, -far, x < ${value}(0.0)), size >= ${value}(0.625));
}

// By the error function, to 1.5e-7 (Abramowitz and Stegun, 7.1.26).
fn gelu${suffix}(x: ${value}) -> ${value} {
    let size = abs(x) * 0.70710678;
    let t = ${value}(1.0) / (size * 0.3275911 + ${value}(1.0));
    var sum = t * 1.061405429 + ${value}(-1.453152027);
    sum = sum * t + ${value}(1.421413741);
    sum = sum * t + ${value}(-0.284496736);
    sum = sum * t + ${value}(0.254829592);
    // One minus the error function of `size`.
    let rest = sum * t * exp(-size * size);
    return x * 0.5 * select(${value}(2.0) - rest, rest, x < ${value}(0.0));
}

//% if activation != "prelu"
fn activate${suffix}(x: ${value}) -> ${value} {
    //% if activation == "clamp"
    // Comparisons, since WGSL leaves open what `min` and `max` make of a NaN.
    let raised = select(x, ${value}(bitcast<f32>(params.low_bits)), x < ${value}(bitcast<f32>(params.low_bits)));
    return select(
        raised,
        ${value}(bitcast<f32>(params.high_bits)),
        raised > ${value}(bitcast<f32>(params.high_bits)),
    );
    //% elif activation == "leaky_relu"
    return leaky_relu${suffix}(x, ${value}(bitcast<f32>(params.low_bits)));
    //% else
    return ${activation}${suffix}(x);
    //% endif
}
//% endif

// What is stored of a sum, which has its bias already.
fn epilogue${suffix}(sum: ${value}, at: ${at}) -> ${value} {
    //% if activation == "prelu"
    let x = sum${" + load_residual" ~ suffix ~ "(at)" if residual != "none" else ""};
    return leaky_relu${suffix}(x, slope${suffix}_of(at));
    //% elif residual == "before"
    return activate${suffix}(sum + load_residual${suffix}(at));
    //% elif residual == "after"
    return activate${suffix}(sum) + load_residual${suffix}(at);
    //% else
    return activate${suffix}(sum);
    //% endif
}

//% endfor

//% if activation == "prelu"
// The slope of the channel that an element of the output is of.
fn slope_of(at: u32) -> f32 {
    let slope = params.slopes_at + at / out_channel_stride() % params.slopes;
    //% if weights == "scalar"
    return load_weight(slope);
    //% elif weights == "pair"
    let pair = load_weight(slope / 2u);
    return select(pair.x, pair.y, slope % 2u == 1u);
    //% elif weights == "quads"
    return load_weight_component(slope / 4u, slope % 4u);
    //% else
    return load_weight(slope / 4u)[slope % 4u];
    //% endif
}

    //% if layout == "nchw"
// Of four elements that are of one channel.
fn slope4_of(at: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(slope_of(at.x));
}
    //% elif output == "quads" and weights in ["quads", "pairs"]
// Of four channels of a pixel, the first of which is a multiple of four.
fn slope4_of(at: vec4<u32>) -> vec4<f32> {
    return load_weight((params.slopes_at + at.x % params.slopes) / 4u);
}
    //% elif output == "quads"
// Of four channels of a pixel.
fn slope4_of(at: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(slope_of(at.x), slope_of(at.x + 1u), slope_of(at.x + 2u), slope_of(at.x + 3u));
}
    //% else
fn slope4_of(at: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(slope_of(at.x), slope_of(at.y), slope_of(at.z), slope_of(at.w));
}
    //% endif
//% endif

//% if pixels == "batch"
// Pixels are counted through the whole batch, so that small images fill tiles as well as large ones.
fn pixel_count() -> u32 {
    return params.batch * out_pixels();
}
//% elif pixels == "rows"
// Pixels are counted as if each row were whole blocks of PIXELS, so that a block lies in one row.
fn pixel_count() -> u32 {
    return params.batch * params.out_height * params.tiles_x * PIXELS;
}
//% elif pixels == "blocks"
// Pixels are counted block by block: each is BLOCK_HEIGHT rows and BLOCK_WIDTH columns.
const BLOCK_PIXELS: u32 = BLOCK_HEIGHT * BLOCK_WIDTH;

fn pixel_count() -> u32 {
    return params.batch * params.tiles_y * params.tiles_x * BLOCK_PIXELS;
}
//% endif

//% if pixels in ["rows", "blocks"]
    //% set of_block = "PIXELS" if pixels == "rows" else "BLOCK_PIXELS"
    //% set height, width = ("", "PIXELS") if pixels == "rows" else (" * BLOCK_HEIGHT", "BLOCK_WIDTH")
// Where a whole block of pixels is, and whether it is one of the output. All that asks for it divides only once.
struct OutputBlock {
    image: u32,
    y: u32,
    x: u32,
    valid: bool,
}

// Of the block that begins with a pixel, or the last one.
fn output_block(pixel: u32) -> OutputBlock {
    let block = min(pixel, pixel_count() - ${of_block}) / ${of_block};
    let row = block / params.tiles_x;
    let image = row / params.tiles_y;
    let y = (row - image * params.tiles_y)${height};
    return OutputBlock(image, y, (block - row * params.tiles_x) * ${width}, pixel < pixel_count());
}

    //% if layout == "nchw"
// Four neighbours of a block, some rows and columns behind its first pixel.
fn block_quad(block: OutputBlock, below: u32, right: u32, group: u32) -> OutputQuad {
    let x = block.x + right + vec4<u32>(0u, 1u, 2u, 3u);
    let y = block.y + below;
    let plane = (block.image * params.out_channels + group * params.group_out) * out_pixels();
    let first = plane + min(y, params.out_height - 1u) * params.out_width;
    let valid = (x < vec4<u32>(params.out_width)) & vec4<bool>((y < params.out_height) & block.valid);
    return OutputQuad(first + min(x, vec4<u32>(params.out_width - 1u)), valid);
}
    //% else
// A pixel of a block, some rows and columns behind its first.
fn block_pixel(block: OutputBlock, below: u32, right: u32) -> OutputPixel {
    let y = block.y + below;
    let x = block.x + right;
    let at = block.image * out_pixels() + y * params.out_width + x;
    return OutputPixel(at, (y < params.out_height) & (x < params.out_width) & block.valid);
}
    //% endif
//% endif

//% if pixels != "none"
    //% if layout == "nchw"
// Four neighbouring pixels of a group's first channel: where they are, and which of them are pixels of the output.
struct OutputQuad {
    at: vec4<u32>,
    valid: vec4<bool>,
}

fn output_quad(pixel: u32, group: u32) -> OutputQuad {
        //% if pixels == "batch"
    let pixels = vec4<u32>(pixel) + vec4<u32>(0u, 1u, 2u, 3u);
    let clamped = min(pixels, vec4<u32>(pixel_count() - 1u));
    let plane = clamped / out_pixels() * params.out_channels + group * params.group_out;
    return OutputQuad(plane * out_pixels() + clamped % out_pixels(), pixels < vec4<u32>(pixel_count()));
        //% elif pixels == "rows"
    let block = min(pixel, pixel_count() - 1u) / PIXELS;
    let row = block / params.tiles_x;
    let columns = block % params.tiles_x * PIXELS + pixel % PIXELS + vec4<u32>(0u, 1u, 2u, 3u);
    let plane = row / params.out_height * params.out_channels + group * params.group_out;
    let first = plane * out_pixels() + row % params.out_height * params.out_width;
    let valid = (columns < vec4<u32>(params.out_width)) & vec4<bool>(pixel < pixel_count());
    return OutputQuad(first + min(columns, vec4<u32>(params.out_width - 1u)), valid);
        //% else
    let block = min(pixel, pixel_count() - 1u) / BLOCK_PIXELS;
    let row = block / params.tiles_x;
    let y = row % params.tiles_y * BLOCK_HEIGHT + pixel % BLOCK_PIXELS / BLOCK_WIDTH;
    let x = block % params.tiles_x * BLOCK_WIDTH + pixel % BLOCK_WIDTH + vec4<u32>(0u, 1u, 2u, 3u);
    let plane = (row / params.tiles_y * params.out_channels + group * params.group_out) * out_pixels();
    let first = plane + min(y, params.out_height - 1u) * params.out_width;
    let valid = (x < vec4<u32>(params.out_width)) & vec4<bool>((y < params.out_height) & (pixel < pixel_count()));
    return OutputQuad(first + min(x, vec4<u32>(params.out_width - 1u)), valid);
        //% endif
}

// Stores four pixels of a channel of the quad's group.
fn store_row(quad: OutputQuad, group: u32, channel: u32, sum: vec4<f32>) {
    if channel < params.group_out {
        var biased = sum;
        //% if bias
        biased += bias_of(group * params.panels * TILE_CHANNELS + channel);
        //% endif
        store4(quad.at + channel * out_pixels(), quad.valid, biased);
    }
}
    //% else
// A pixel's place in the batch, and whether it is one of the output.
struct OutputPixel {
    at: u32,
    valid: bool,
}

fn output_pixel(pixel: u32) -> OutputPixel {
        //% if pixels == "batch"
    return OutputPixel(pixel, pixel < pixel_count());
        //% elif pixels == "rows"
    let block = pixel / PIXELS;
    let x = block % params.tiles_x * PIXELS + pixel % PIXELS;
    return OutputPixel(block / params.tiles_x * params.out_width + x, (x < params.out_width) & (pixel < pixel_count()));
        //% else
    let block = pixel / BLOCK_PIXELS;
    let row = block / params.tiles_x;
    let y = row % params.tiles_y * BLOCK_HEIGHT + pixel % BLOCK_PIXELS / BLOCK_WIDTH;
    let x = block % params.tiles_x * BLOCK_WIDTH + pixel % BLOCK_WIDTH;
    let at = row / params.tiles_y * out_pixels() + y * params.out_width + x;
    return OutputPixel(at, (y < params.out_height) & (x < params.out_width) & (pixel < pixel_count()));
        //% endif
}

        //% if TILE_CHANNELS == 2
// Stores two channels, the first of which is `channel` of the group, of a pixel. The sums have their biases.
fn store_pixel2(place: OutputPixel, group: u32, channel: u32, first: f32, second: f32) {
    if place.valid && channel < params.group_out {
        let at = place.at * params.out_channels + group * params.group_out + channel;
            //% if output == "pair"
        store_pair(at, first, second);
            //% else
        store(at, first);
        if channel + 1u < params.group_out { store(at + 1u, second); }
            //% endif
    }
}
        //% else
// Stores four channels, the first of which is `channel` of the group, of a pixel.
fn store_pixel(pixel: u32, group: u32, channel: u32, sum: vec4<f32>) {
    store_channels(output_pixel(pixel), group, channel, sum);
}

// The same where it is known where the pixel is.
fn store_channels(place: OutputPixel, group: u32, channel: u32, sum: vec4<f32>) {
    if place.valid && channel < params.group_out {
        let channels = vec4<u32>(channel) + vec4<u32>(0u, 1u, 2u, 3u);
        let clamped = min(channels, vec4<u32>(params.group_out - 1u));
        var biased = sum;
        //% if bias
        biased += bias4_of(group * params.panels * TILE_CHANNELS + channel);
        //% endif
        let at = vec4<u32>(place.at * params.out_channels + group * params.group_out) + clamped;
        store4(at, channels < vec4<u32>(params.group_out), biased);
    }
}
        //% endif
    //% endif
//% endif
