// Where tensors lie in memory, and how their elements are loaded and stored. Sums are f32; only this file knows the
// elements' types.
//#
//# include  params.wgsl
//# host     elements the types of the elements of input, weights and output (and residual), each "f32"; "f16", for
//#                   devices that have it; or "words", halves of 32-bit words, for all devices
//#          layout   "nchw" or "nhwc", the order of the input and the output
//#          input    how the input is loaded: "scalar", one element at a time; "pair", two; "quads", four; "pairs", four
//#                   as 64-bit integers. Elements that are loaded together are aligned
//#          weights  how weights are: "scalar", "pair", "quads" or "pairs" likewise, or "none"
//#          output   how the output is stored and the residual loaded: "scalar", "pair" (of f32, without a residual) or
//#                   "quads"
//#          residual "none", "before" or "after" (the activation)
//#          scales, which may be missing: how the scale of each image's channel is loaded: "scalar" or "quads"; or
//#                   "none"
//#          input_view, output_view, residual_view, each of which may be missing: where its elements lie in another
//#                   tensor;
//#                   see views.wgsl. The kernel counts elements as if it had a tensor of its own
//#          transposed, which may be missing: whether the kernel takes rows for columns and columns for rows, in the
//#                   parameters and the geometry too

//% include "params.wgsl"

// Distances in memory, in elements.
//% set transposed = transposed | default(false)
//% for tensor in ["in", "out"]
    //% if layout == "nchw"
fn ${tensor}_channel_stride() -> u32 { return ${tensor}_pixels(); }
        //% set pixel = "1u"
    //% else
fn ${tensor}_channel_stride() -> u32 { return 1u; }
        //% set pixel = "params." ~ tensor ~ "_channels"
    //% endif
    //% set line = ("params." ~ tensor ~ ("_height" if transposed else "_width")) ~ ("" if layout == "nchw" else " * " ~ pixel)
fn ${tensor}_row_stride() -> u32 { return ${pixel if transposed else line}; }
fn ${tensor}_pixel_stride() -> u32 { return ${line if transposed else pixel}; }
//% endfor

// Where a plane of the input starts; planes are the channels of one image after the other.
fn plane_start(plane: u32) -> u32 {
    let image = plane / params.in_channels * params.in_channels * in_pixels();
    return image + plane % params.in_channels * in_channel_stride();
}

// What an invocation of a two-dimensional tiling computes.
struct Item {
    x: u32,
    y: u32,
    channel: u32,
    batch: u32,
}

// Neighbouring invocations compute neighbours in memory: of a row in NCHW, of a pixel's channels in NHWC.
fn item(index: u32, channels: u32) -> Item {
    //% if layout == "nchw"
        //% if transposed
    let column = index / params.tiles_y;
    let plane = column / params.tiles_x;
    return Item(column % params.tiles_x, index % params.tiles_y, plane % channels, plane / channels);
        //% else
    let row = index / params.tiles_x;
    let plane = row / params.tiles_y;
    return Item(index % params.tiles_x, row % params.tiles_y, plane % channels, plane / channels);
        //% endif
    //% else
    let tile = index / channels;
    let row = tile / params.tiles_x;
    return Item(tile % params.tiles_x, row % params.tiles_y, index % channels, row / params.tiles_y);
    //% endif
}

//% set input_view = input_view | default(false)
//% set output_view = output_view | default(false)
//% set residual_view = residual_view | default(false)
//% if input_view or output_view or residual_view
    //% include "views.wgsl"

//% endif
//% if "f16" in [elements.input, elements.weights, elements.output]
enable f16;

//% endif
//# What an array is of, by the elements' type and how they are loaded. More than one half is loaded as words in any case.
//% set of_f32 = {"scalar": "f32", "pair": "u64", "quads": "vec4<f32>", "pairs": "vec2<u64>"}
//% set of_f16 = {"scalar": "f16", "pair": "u32", "quads": "vec2<u32>", "pairs": "u64"}
//% set of_words = {"scalar": "u32", "pair": "u32", "quads": "vec2<u32>", "pairs": "u64"}
//% set arrays = {"f32": of_f32, "f16": of_f16, "words": of_words}
//# One element.
//% macro load_one(tensor, element, at)
    //% if element == "f32"
${tensor}[${at}]
    //% elif element == "f16"
f32(${tensor}[${at}])
    //% else
half_of(${tensor}[(${at}) / 2u], ${at})
    //% endif
//% endmacro
//# Four neighbours; `at` counts quads.
//% macro load_four(tensor, element, width, at)
    //% if element == "f32" and width == "quads"
${tensor}[${at}]
    //% else
unpack_${"floats" if element == "f32" else ("words" if width == "quads" else "long")}(${tensor}[${at}])
    //% endif
//% endmacro
//% set unpack_input = "unpack_pair" if elements.input == "f32" else "unpack2x16float"
//% set unpack_weights = "unpack_pair" if elements.weights == "f32" else "unpack2x16float"
// Two neighbouring floats as one 64-bit integer, the first in the lower half.
fn unpack_pair(pair: u64) -> vec2<f32> {
    return bitcast<vec2<f32>>(vec2<u32>(u32(pair), u32(pair >> 32u)));
}

// Four neighbouring floats.
fn unpack_floats(pairs: vec2<u64>) -> vec4<f32> {
    return vec4<f32>(unpack_pair(pairs.x), unpack_pair(pairs.y));
}

// Element `at` of a tensor of halves, which is in this word.
fn half_of(word: u32, at: u32) -> f32 {
    return unpack2x16float(word >> (at % 2u * 16u)).x;
}

// Four neighbouring halves.
fn unpack_words(words: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}

fn unpack_long(long: u64) -> vec4<f32> {
    return unpack_words(vec2<u32>(u32(long), u32(long >> 32u)));
}

// Elements of the input. Unless it is loaded one element at a time, they are neighbours, and `at` is aligned.
@group(0) @binding(1) var<storage, read> input: array<${arrays[elements.input][input]}>;

//% if input == "scalar"
fn load_input(at: u32) -> f32 {
    //% if input_view
    let place = input_place(at);
    //% endif
    return ${load_one("input", elements.input, "place" if input_view else "at") | trim};
}

// Zero unless `inside`; `at` is in the input all the same.
fn load_inside(at: u32, inside: bool) -> f32 {
    return select(0.0, load_input(at), inside);
}

fn load_input4(at: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(load_input(at.x), load_input(at.y), load_input(at.z), load_input(at.w));
}
//% elif input == "pair"
// Two neighbours, zero unless `inside`; `at` is even if `inside`, and in the input all the same.
fn load_inside2(at: u32, inside: bool) -> vec2<f32> {
    return ${unpack_input}(select(${"0lu" if elements.input == "f32" else "0u"}, input[${"input_place(at)" if input_view else "at"} / 2u], inside));
}
//% else
// Four neighbours; `at` counts quads.
fn load_input(at: u32) -> vec4<f32> {
    return ${load_four("input", elements.input, input, "input_place(at * 4u) / 4u" if input_view else "at") | trim};
}

fn load_input4(at: vec4<u32>) -> vec4<f32> {
    return load_input(at.x / 4u);
}
//% endif

//% set output_at = 2 if weights == "none" else 3
//% if scales | default("none") != "none"
// What each channel of each image of the input is multiplied by.
@group(0) @binding(${output_at + (1 if residual == "none" else 2)}) var<storage, read> scales: array<${arrays[elements.input][scales]}>;

    //% if scales == "scalar"
fn load_scale(at: u32) -> f32 {
    return ${load_one("scales", elements.input, "at") | trim};
}

fn load_scale4(at: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(load_scale(at.x), load_scale(at.y), load_scale(at.z), load_scale(at.w));
}

        //% if input == "scalar"
// As `load_inside`, times a scale. Padding stays zero, even if the scale is infinite.
fn load_scaled(at: u32, inside: bool, scale: f32) -> f32 {
    return select(0.0, load_input(at) * scale, inside);
}
        //% elif input == "pair"
            //% set place = "input_place(at)" if input_view else "at"
// As `load_inside2`, times a scale for each. Padding stays zero, even if a scale is infinite.
fn load_scaled2(at: u32, inside: bool, scale: vec2<f32>) -> vec2<f32> {
    return select(vec2<f32>(0.0), ${unpack_input}(input[${place} / 2u]) * scale, inside);
}
        //% endif
    //% else
// Four neighbours, aligned.
fn load_scale4(at: vec4<u32>) -> vec4<f32> {
    return ${load_four("scales", elements.input, "quads", "at.x / 4u") | trim};
}
    //% endif
//% endif

//% if weights != "none"
@group(0) @binding(2) var<storage, read> weights: array<${arrays[elements.weights][weights]}>;

//% endif
//% if weights == "scalar"
fn load_weight(at: u32) -> f32 {
    return ${load_one("weights", elements.weights, "at") | trim};
}

// The bias of an output channel, counted in the panels.
fn bias_of(index: u32) -> f32 {
    return load_weight(params.bias_at + index);
}

// The same if the kernel's HAS_BIAS is true, and else zero: the weights are bound whether there are biases or not.
fn bias_if_any(index: u32) -> f32 {
    if HAS_BIAS {
        return bias_of(index);
    }
    return 0.0;
}

fn bias4_of(index: u32) -> vec4<f32> {
    return vec4<f32>(bias_of(index), bias_of(index + 1u), bias_of(index + 2u), bias_of(index + 3u));
}

//% elif weights == "pair"
// Two neighbours; `at` counts pairs.
fn load_weight(at: u32) -> vec2<f32> {
    return ${unpack_weights}(weights[at]);
}

// The bias of an output channel, counted in the panels.
fn bias_of(index: u32) -> f32 {
    let pair = load_weight((params.bias_at + index) / 2u);
    return select(pair.x, pair.y, index % 2u == 1u);
}

fn bias4_of(index: u32) -> vec4<f32> {
    let at = (params.bias_at + index) / 2u;
    return vec4<f32>(load_weight(at), load_weight(at + 1u));
}

//% elif weights != "none"
// Four neighbours; `at` counts quads.
fn load_weight(at: u32) -> vec4<f32> {
    return ${load_four("weights", elements.weights, weights, "at") | trim};
}

    //% if weights == "quads"
// One of four neighbours.
fn load_weight_component(at: u32, component: u32) -> f32 {
        //% if elements.weights == "f32"
    return weights[at][component];
        //% else
    return half_of(weights[at][component / 2u], component);
        //% endif
}

// The bias of an output channel, counted in the panels.
fn bias_of(index: u32) -> f32 {
    let at = params.bias_at + index;
    return load_weight_component(at / 4u, at % 4u);
}

    //% endif
fn bias4_of(index: u32) -> vec4<f32> {
    return load_weight((params.bias_at + index) / 4u);
}

//% endif
//# Each for one number, and for four.
//% for suffix, value, word in [["", "f32", "u32"], ["4", "vec4<f32>", "vec4<u32>"]]
// The half that is nearest to a number, of two the even one. It is made of the number's bits, since WGSL leaves open
// how its own conversions round, and what they make of numbers beyond the largest half.
fn half_bits${suffix}(x: ${value}) -> ${word} {
    let bits = bitcast<${word}>(x);
    let magnitude = bits & ${word}(0x7fffffffu);
    // The exponent's bias is less by 112, and 13 bits are rounded off. What is beyond the largest is infinite.
    let odd = (magnitude >> ${word}(13u)) & ${word}(1u);
    let rounded = magnitude - ${word}(0x38000000u) + ${word}(0xfffu) + odd;
    let large = min(rounded >> ${word}(13u), ${word}(0x7c00u));
    // Below the least number with a full fraction halves are multiples of 2^-24, as floats are from 1/2 to 1.
    let small = bitcast<${word}>(bitcast<${value}>(magnitude) + ${value}(0.5)) - ${word}(0x3f000000u);
    let number = select(large, small, magnitude < ${word}(0x38800000u));
    let half = select(number, ${word}(0x7e00u), magnitude > ${word}(0x7f800000u));
    return half | ((bits >> ${word}(16u)) & ${word}(0x8000u));
}

//% endfor
//# Of a tensor that lies in another, neighbours that are apart there are stored one by one.
//% set is_apart = output_view and output_view.neighbours < {"scalar": 1, "pair": 2, "quads": 4}[output]
//% if output == "scalar" or is_apart
    //% if elements.output == "words"
// Each half is written by one invocation, and the other half of its word maybe by another: that is why it is atomic.
@group(0) @binding(${output_at}) var<storage, read_write> output: array<atomic<u32>>;

fn store_half(at: u32, half: u32) {
    // No other invocation changes this half, so it is still the old one when it is changed.
    let place = at % 2u * 16u;
    let old = (atomicLoad(&output[at / 2u]) >> place) & 0xffffu;
    atomicXor(&output[at / 2u], (old ^ half) << place);
}

// Stores a value as it is, without the epilogue.
fn store_plain(at: u32, value: f32) {
    store_half(${"output_place(at)" if output_view else "at"}, half_bits(value));
}

fn store_values(${"own" if output_view else "at"}: vec4<u32>, valid: vec4<bool>, values: vec4<f32>) {
        //% if output_view
    let at = output_place4(own);
        //% endif
    let halves = half_bits4(values);
    // Two neighbours that are a word are stored at once.
    let even = at.xyz % 2u == vec3<u32>(0u);
    let whole = valid.xyz & valid.yzw & even & (at.yzw == at.xyz + 1u);
    if whole.x { atomicStore(&output[at.x / 2u], halves.x | (halves.y << 16u)); }
    if whole.y { atomicStore(&output[at.y / 2u], halves.y | (halves.z << 16u)); }
    if whole.z { atomicStore(&output[at.z / 2u], halves.z | (halves.w << 16u)); }
    if valid.x & !whole.x { store_half(at.x, halves.x); }
    if valid.y & !(whole.x | whole.y) { store_half(at.y, halves.y); }
    if valid.z & !(whole.y | whole.z) { store_half(at.z, halves.z); }
    if valid.w & !whole.z { store_half(at.w, halves.w); }
}
    //% else
@group(0) @binding(${output_at}) var<storage, read_write> output: array<${elements.output}>;

// Stores a value as it is, without the epilogue.
fn store_plain(at: u32, value: f32) {
        //% set place = "output_place(at)" if output_view else "at"
        //% if elements.output == "f16"
    output[${place}] = f16(unpack2x16float(half_bits(value)).x);
        //% else
    output[${place}] = value;
        //% endif
}

fn store_values(${"own" if output_view else "at"}: vec4<u32>, valid: vec4<bool>, values: vec4<f32>) {
        //% if output_view
    let at = output_place4(own);
        //% endif
        //% if elements.output == "f16"
    let halves = half_bits4(values);
    let first = unpack2x16float(halves.x | (halves.y << 16u));
    let second = unpack2x16float(halves.z | (halves.w << 16u));
    let exact = vec4<f16>(vec4<f32>(first, second));
        //% else
    let exact = values;
        //% endif
    if valid.x { output[at.x] = exact.x; }
    if valid.y { output[at.y] = exact.y; }
    if valid.z { output[at.z] = exact.z; }
    if valid.w { output[at.w] = exact.w; }
}
    //% endif

//% else
@group(0) @binding(3) var<storage, read_write> output: array<${arrays[elements.output][output]}>;

//% endif
//% if output == "scalar"
// Stores a sum through the epilogue.
fn store(at: u32, sum: f32) {
    store_plain(at, epilogue(sum, at));
}

// Stores those of four sums that are valid. All four `at` must be inside the output all the same, for a residual is
// read at each.
fn store4(at: vec4<u32>, valid: vec4<bool>, sum: vec4<f32>) {
    store_values(at, valid, epilogue4(sum, at));
}
//% elif output == "pair"
// Stores two sums through the epilogue: neighbours, `at` even.
fn store_pair(at: u32, first: f32, second: f32) {
    let values = vec2<f32>(epilogue(first, at), epilogue(second, at + 1u));
    //% if is_apart
    store_plain(at, values.x);
    store_plain(at + 1u, values.y);
    //% else
        //% set place = "output_place(at)" if output_view else "at"
        //% if elements.output == "f32"
    let bits = bitcast<vec2<u32>>(values);
    output[${place} / 2u] = u64(bits.x) | (u64(bits.y) << 32u);
        //% else
    output[${place} / 2u] = half_bits(values.x) | (half_bits(values.y) << 16u);
        //% endif
    //% endif
}
//% else
// Stores four sums through the epilogue: neighbours, `at` aligned, valid or not as a whole.
fn store4(at: vec4<u32>, valid: vec4<bool>, sum: vec4<f32>) {
    if valid.x {
        let values = epilogue4(sum, at);
    //% if is_apart
        store_values(at.x + vec4<u32>(0u, 1u, 2u, 3u), vec4<bool>(true), values);
    //% else
        //% set place = "output_place(at.x)" if output_view else "at.x"
        //% if elements.output == "f32"
        output[${place} / 4u] = values;
        //% else
        let halves = half_bits4(values);
        output[${place} / 4u] = halves.xz | (halves.yw << vec2<u32>(16u));
        //% endif
    //% endif
    }
}
//% endif

//% if residual != "none" and (output != "quads" or (residual_view and residual_view.neighbours < 4))
    //# A pair is of halves.
    //% set residual_element = "words" if output == "pair" else elements.output
@group(0) @binding(4) var<storage, read> residual: array<${arrays[residual_element].scalar}>;

fn load_residual(at: u32) -> f32 {
    //% if residual_view
    let place = residual_place(at);
    //% endif
    return ${load_one("residual", residual_element, "place" if residual_view else "at") | trim};
}

    //% if output == "quads"
// Four neighbours, aligned, which are apart in the tensor that has them.
fn load_residual4(first: vec4<u32>) -> vec4<f32> {
    let at = first.x + vec4<u32>(0u, 1u, 2u, 3u);
    //% else
fn load_residual4(at: vec4<u32>) -> vec4<f32> {
    //% endif
    return vec4<f32>(load_residual(at.x), load_residual(at.y), load_residual(at.z), load_residual(at.w));
}
//% elif residual != "none"
    //% set place = "residual_place(at.x)" if residual_view else "at.x"
@group(0) @binding(4) var<storage, read> residual: array<${arrays[elements.output].quads}>;

fn load_residual4(at: vec4<u32>) -> vec4<f32> {
    return ${load_four("residual", elements.output, "quads", place ~ " / 4u") | trim};
}
//% endif
