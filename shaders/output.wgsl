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
//#          phases      which may be missing: of a product, or of what comes after it. The outputs are then some
//#                      phases of a tensor, in which they are `stride` (rows and columns) apart, from `first` (the same)
//#                      on. Its channels are those of `count` (the same) neighbouring phases, `channels` of each. The
//#                      tensor's sizes are params.whole_pixels and params.whole_width

//% set phases = phases | default(false)
//% set is_joined = phases and phases.count[0] * phases.count[1] > 1
//# Where a row or a column of a product's outputs is in the tensor, a row and an image of that.
//% macro whole_row(y)
${"(" ~ y ~ " * " ~ phases.stride[0] ~ "u" ~ plus(phases.first[0]) ~ ")" if phases else y}
//% endmacro
//% macro whole_column(x)
${x ~ " * " ~ phases.stride[1] ~ "u" ~ plus(phases.first[1]) if phases else x}
//% endmacro
//% set whole_pixels = "params.whole_pixels" if phases else "out_pixels()"
//% set whole_width = "params.whole_width" if phases else "params.out_width"
//# In a tensor of whose channels a product has several phases there is one group.
//% set whole_channels = phases.channels ~ "u" if is_joined else "params.out_channels"
//# Each for one sum, and for four.
//% for suffix, value, at in [["", "f32", "u32"], ["4", "vec4<f32>", "vec4<u32>"]]
// What was made of `x`; or `x`, if that is a NaN. It looks at the bits: WGSL leaves open what `min` and `max` make of
// a NaN. A compiler may assume that there are none, and turn comparisons into `min` and `max`.
fn or_nan${suffix}(made: ${value}, x: ${value}) -> ${value} {
    let bits = bitcast<${at}>(x);
    let is_nan = (bits & ${at}(0x7fffffffu)) > ${at}(0x7f800000u);
    return bitcast<${value}>(select(bitcast<${at}>(made), bits, is_nan));
}

fn hard_swish${suffix}(x: ${value}) -> ${value} {
    let raised = max(x + ${value}(3.0), ${value}(0.0));
    return x * (min(raised, ${value}(6.0)) / ${value}(6.0));
}

fn silu${suffix}(x: ${value}) -> ${value} {
    return x / (${value}(1.0) + exp(-x));
}

// SwiftShader's `exp` makes a number of a NaN.
fn sigmoid${suffix}(x: ${value}) -> ${value} {
    return or_nan${suffix}(${value}(1.0) / (${value}(1.0) + exp(-x)), x);
}

fn hard_sigmoid${suffix}(x: ${value}) -> ${value} {
    return or_nan${suffix}(clamp(x + ${value}(3.0), ${value}(0.0), ${value}(6.0)) / ${value}(6.0), x);
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
    return or_nan${suffix}(select(near, select(far, -far, x < ${value}(0.0)), size >= ${value}(0.625)), x);
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
    let low = ${value}(bitcast<f32>(params.low_bits));
    let high = ${value}(bitcast<f32>(params.high_bits));
    // Not `clamp`, which leaves open what it does if `low` is larger.
    return or_nan${suffix}(min(max(x, low), high), x);
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
    //% set plane = whole_pixels if phases and layout == "nchw" else "out_channel_stride()"
    let slope = params.slopes_at + at / ${plane} % params.slopes;
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

//% if phases
    //% set firsts, counts, strides = phases.first, phases.count, phases.stride
// The outputs are a part of a tensor: of every ${strides[0]} rows ${counts[0]} from row ${firsts[0]} on, and of every
// ${strides[1]} columns ${counts[1]} from column ${firsts[1]} on.
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
    let plane = (block.image * ${whole_channels} + group * params.group_out) * ${whole_pixels};
    let first = plane + ${whole_row("min(y, params.out_height - 1u)") | trim} * ${whole_width};
    let valid = (x < vec4<u32>(params.out_width)) & vec4<bool>((y < params.out_height) & block.valid);
    return OutputQuad(first + ${whole_column("min(x, vec4<u32>(params.out_width - 1u))") | trim}, valid);
}
    //% else
// A pixel of a block, some rows and columns behind its first.
fn block_pixel(block: OutputBlock, below: u32, right: u32) -> OutputPixel {
    let y = block.y + below;
    let x = block.x + right;
    let at = block.image * ${whole_pixels} + ${whole_row("y") | trim} * ${whole_width} + ${whole_column("x") | trim};
    return OutputPixel(at, (y < params.out_height) & (x < params.out_width) & block.valid);
}
    //% endif
//% endif

//% if is_joined
    //% for suffix, uint in [["", "u32"], ["4", "vec4<u32>"]]
// How many pixels a phase is behind the first of those that the channels are of.
fn phase_place${suffix}(phase: ${uint}) -> ${uint} {
    return phase / ${phases.count[1]}u * ${whole_width} + phase % ${phases.count[1]}u;
}

    //% endfor
//% endif
//% if phases and pixels == "none"
// Where an output of the product is stored, by its image, channel and pixel.
fn whole_element(image: u32, channel: u32, pixel: u32) -> u32 {
    let y = pixel / params.out_width;
    let row = ${whole_row("y") | trim} * ${whole_width};
    let place = row + ${whole_column("(pixel - y * params.out_width)") | trim};
    //% if is_joined
    let phase = channel / ${phases.channels}u;
    let at = place + phase_place(phase);
    let of_phase = channel - phase * ${phases.channels}u;
    //% else
    let at = place;
    let of_phase = channel;
    //% endif
    //% if layout == "nchw"
    return (image * ${whole_channels} + of_phase) * ${whole_pixels} + at;
    //% else
    return (image * ${whole_pixels} + at) * ${whole_channels} + of_phase;
    //% endif
}

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
    let plane = clamped / out_pixels() * ${whole_channels} + group * params.group_out;
            //% if phases
    let rest = clamped % out_pixels();
    let first = plane * ${whole_pixels} + ${whole_row("rest / params.out_width") | trim} * ${whole_width};
    return OutputQuad(first + ${whole_column("rest % params.out_width") | trim}, pixels < vec4<u32>(pixel_count()));
            //% else
    return OutputQuad(plane * out_pixels() + clamped % out_pixels(), pixels < vec4<u32>(pixel_count()));
            //% endif
        //% elif pixels == "rows"
    let block = min(pixel, pixel_count() - 1u) / PIXELS;
    let row = block / params.tiles_x;
    let columns = block % params.tiles_x * PIXELS + pixel % PIXELS + vec4<u32>(0u, 1u, 2u, 3u);
    let plane = row / params.out_height * ${whole_channels} + group * params.group_out;
    let first = plane * ${whole_pixels} + ${whole_row("row % params.out_height") | trim} * ${whole_width};
    let valid = (columns < vec4<u32>(params.out_width)) & vec4<bool>(pixel < pixel_count());
    return OutputQuad(first + ${whole_column("min(columns, vec4<u32>(params.out_width - 1u))") | trim}, valid);
        //% else
    let block = min(pixel, pixel_count() - 1u) / BLOCK_PIXELS;
    let row = block / params.tiles_x;
    let y = row % params.tiles_y * BLOCK_HEIGHT + pixel % BLOCK_PIXELS / BLOCK_WIDTH;
    let x = block % params.tiles_x * BLOCK_WIDTH + pixel % BLOCK_WIDTH + vec4<u32>(0u, 1u, 2u, 3u);
    let plane = (row / params.tiles_y * ${whole_channels} + group * params.group_out) * ${whole_pixels};
    let first = plane + ${whole_row("min(y, params.out_height - 1u)") | trim} * ${whole_width};
    let valid = (x < vec4<u32>(params.out_width)) & vec4<bool>((y < params.out_height) & (pixel < pixel_count()));
    return OutputQuad(first + ${whole_column("min(x, vec4<u32>(params.out_width - 1u))") | trim}, valid);
        //% endif
}

// Stores four pixels of a channel of the quad's group.
fn store_row(quad: OutputQuad, group: u32, channel: u32, sum: vec4<f32>) {
    if channel < params.group_out {
        var biased = sum;
        //% if bias
        biased += bias_of(group * params.panels * TILE_CHANNELS + channel);
        //% endif
        //% if is_joined
        let phase = channel / ${phases.channels}u;
        let plane = (channel - phase * ${phases.channels}u) * ${whole_pixels};
        store4(quad.at + plane + phase_place(phase), quad.valid, biased);
        //% else
        store4(quad.at + channel * ${whole_pixels}, quad.valid, biased);
        //% endif
    }
}
    //% else
// A pixel's place in the batch, and whether it is one of the output.
struct OutputPixel {
    at: u32,
    valid: bool,
}

fn output_pixel(pixel: u32) -> OutputPixel {
        //% if pixels == "batch" and phases
    let row = pixel / params.out_width;
    let image = row / params.out_height;
    let first = image * ${whole_pixels} + ${whole_row("(row - image * params.out_height)") | trim} * ${whole_width};
    let at = first + ${whole_column("(pixel - row * params.out_width)") | trim};
    return OutputPixel(at, pixel < pixel_count());
        //% elif pixels == "batch"
    return OutputPixel(pixel, pixel < pixel_count());
        //% elif pixels == "rows" and phases
    let block = pixel / PIXELS;
    let x = block % params.tiles_x * PIXELS + pixel % PIXELS;
    let row = block / params.tiles_x;
    let image = row / params.out_height;
    let first = image * ${whole_pixels} + ${whole_row("(row - image * params.out_height)") | trim} * ${whole_width};
    return OutputPixel(first + ${whole_column("x") | trim}, (x < params.out_width) & (pixel < pixel_count()));
        //% elif pixels == "rows"
    let block = pixel / PIXELS;
    let x = block % params.tiles_x * PIXELS + pixel % PIXELS;
    return OutputPixel(block / params.tiles_x * params.out_width + x, (x < params.out_width) & (pixel < pixel_count()));
        //% else
    let block = pixel / BLOCK_PIXELS;
    let row = block / params.tiles_x;
    let y = row % params.tiles_y * BLOCK_HEIGHT + pixel % BLOCK_PIXELS / BLOCK_WIDTH;
    let x = block % params.tiles_x * BLOCK_WIDTH + pixel % BLOCK_WIDTH;
    let image = row / params.tiles_y * ${whole_pixels};
    let at = image + ${whole_row("y") | trim} * ${whole_width} + ${whole_column("x") | trim};
    return OutputPixel(at, (y < params.out_height) & (x < params.out_width) & (pixel < pixel_count()));
        //% endif
}

        //% if is_joined
            //% for suffix, uint in [["", "u32"], ["4", "vec4<u32>"]]
// Where a channel of some phase of a pixel is stored.
fn element${suffix}_of(place: OutputPixel, channel: ${uint}) -> ${uint} {
    let phase = channel / ${phases.channels}u;
    return (place.at + phase_place${suffix}(phase)) * ${phases.channels}u + channel - phase * ${phases.channels}u;
}

            //% endfor
        //% endif
        //% if TILE_CHANNELS == 2
// Stores two channels, the first of which is `channel` of the group, of a pixel. The sums have their biases.
fn store_pixel2(place: OutputPixel, group: u32, channel: u32, first: f32, second: f32) {
    if place.valid && channel < params.group_out {
            //% if is_joined
        let at = element_of(place, channel);
            //% else
        let at = place.at * params.out_channels + group * params.group_out + channel;
            //% endif
            //% if output == "pair"
        store_pair(at, first, second);
            //% else
        store(at, first);
                //% set next = "element_of(place, channel + 1u)" if is_joined else "at + 1u"
        if channel + 1u < params.group_out { store(${next}, second); }
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
            //% if is_joined
        let at = element4_of(place, clamped);
            //% else
        let at = vec4<u32>(place.at * params.out_channels + group * params.group_out) + clamped;
            //% endif
        store4(at, channels < vec4<u32>(params.group_out), biased);
    }
}
        //% endif
    //% endif
//% endif
