// From a sum to the output: bias, residual, activation, and where the sums of a product go.
//#
//# host     residual    "none", "before" or "after" (the activation); it is added there
//#          activation  "clamp" (between params.low_bits and params.high_bits), "hard_swish" or "silu"
//#          pixels      how a product counts its pixels: "batch", through the whole batch; or "none", if it is none.
//#                      These products need layout, bias (true or false), and TILE_CHANNELS, the channels of a panel

// For one sum, and for four.
//% for suffix, value, at in [["", "f32", "u32"], ["4", "vec4<f32>", "vec4<u32>"]]
fn activate${suffix}(x: ${value}) -> ${value} {
    //% if activation == "clamp"
    // Comparisons, since WGSL leaves open what `min` and `max` make of a NaN.
    let raised = select(x, ${value}(bitcast<f32>(params.low_bits)), x < ${value}(bitcast<f32>(params.low_bits)));
    return select(
        raised,
        ${value}(bitcast<f32>(params.high_bits)),
        raised > ${value}(bitcast<f32>(params.high_bits)),
    );
    //% elif activation == "hard_swish"
    let raised = max(x + ${value}(3.0), ${value}(0.0));
    return x * (min(raised, ${value}(6.0)) / ${value}(6.0));
    //% else
    return x / (${value}(1.0) + exp(-x));
    //% endif
}

// What is stored of a sum, which has its bias already.
fn epilogue${suffix}(sum: ${value}, at: ${at}) -> ${value} {
    //% if residual == "before"
    return activate${suffix}(sum + load_residual${suffix}(at));
    //% elif residual == "after"
    return activate${suffix}(sum) + load_residual${suffix}(at);
    //% else
    return activate${suffix}(sum);
    //% endif
}

//% endfor

//% if pixels == "batch"
// Pixels are counted through the whole batch, so that small images fill tiles as well as large ones.
fn pixel_count() -> u32 {
    return params.batch * out_pixels();
}

    //% if layout == "nchw"
// Four neighbouring pixels of a group's first channel: where they are, and which are inside the batch.
struct OutputQuad {
    at: vec4<u32>,
    valid: vec4<bool>,
}

fn output_quad(pixel: u32, group: u32) -> OutputQuad {
    let pixels = vec4<u32>(pixel) + vec4<u32>(0u, 1u, 2u, 3u);
    let clamped = min(pixels, vec4<u32>(pixel_count() - 1u));
    let plane = clamped / out_pixels() * params.out_channels + group * params.group_out;
    return OutputQuad(plane * out_pixels() + clamped % out_pixels(), pixels < vec4<u32>(pixel_count()));
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
// A pixel's place in the batch, if it is one.
struct OutputPixel {
    at: u32,
    valid: bool,
}

fn output_pixel(pixel: u32) -> OutputPixel {
    return OutputPixel(pixel, pixel < pixel_count());
}

// Stores four channels, the first of which is `channel` of the group, of a pixel.
fn store_pixel(pixel: u32, group: u32, channel: u32, sum: vec4<f32>) {
    let place = output_pixel(pixel);
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
