// What a kernel sees of the host: the parameter block, where tensors lie in memory, and how their elements are loaded
// and stored. Sums are f32; only this file, and tensors_TYPE.wgsl for further types, knows the elements' type.
//#
//# host     geometry  of the convolution, in rows and columns: kernel_height, kernel_width, stride_y and so on; or none
//#          element  the type of the tensors' elements and the weights: "f32"
//#          layout   "nchw" or "nhwc", the order of the input and the output
//#          input    how the input is loaded: "scalar", one element at a time; "pair", two as a 64-bit integer; "quads",
//#                   16 aligned bytes; "pairs", 16 aligned bytes as two 64-bit integers
//#          weights  how weights are: "scalar", "pair", "quads" or "pairs" likewise, or "none"
//#          output   how the output is stored and the residual loaded: "scalar", "pair" (without a residual) or "quads"
//#          residual "none", "before" or "after" (the activation)
//#          transposed, which may be missing: whether the kernel takes rows for columns and columns for rows, in the
//#                   parameters and the geometry too

// As the host has it: `Params` of src/kernels.rs. Sizes are in elements.
struct Params {
    batch: u32,
    in_height: u32,
    in_width: u32,
    out_height: u32,
    out_width: u32,
    in_channels: u32,
    out_channels: u32,
    groups: u32,
    // Channels of a group.
    group_in: u32,
    group_out: u32,
    // How products are laid out: panels of output channels in a group; k with its padding, and a segment of it; where
    // weights and biases start.
    panels: u32,
    padded_depth: u32,
    segment_depth: u32,
    weights_at: u32,
    bias_at: u32,
    // Tiles along a row and a column of the output, for kernels that count them.
    tiles_x: u32,
    tiles_y: u32,
    // Rows of such a tile, where they are not fixed.
    strip_rows: u32,
    // How many workgroups (or invocations, where they do not cooperate) have work.
    work: u32,
    // What the activation clamps to, as bits of f32; the first is its slope, if it has one.
    low_bits: u32,
    high_bits: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

//% if geometry
// The convolution's geometry, in rows and columns.
const KERNEL_HEIGHT: u32 = ${geometry.kernel_height}u;
const KERNEL_WIDTH: u32 = ${geometry.kernel_width}u;
const STRIDE_Y: u32 = ${geometry.stride_y}u;
const STRIDE_X: u32 = ${geometry.stride_x}u;
const DILATION_Y: u32 = ${geometry.dilation_y}u;
const DILATION_X: u32 = ${geometry.dilation_x}u;
const PAD_TOP: u32 = ${geometry.pad_top}u;
const PAD_LEFT: u32 = ${geometry.pad_left}u;

//% endif

// A long row of workgroups is folded into a grid, since no dimension may exceed 65535.
fn workgroup_index(workgroup: vec3<u32>, grid: vec3<u32>) -> u32 {
    return workgroup.x + workgroup.y * grid.x;
}

fn in_pixels() -> u32 {
    return params.in_height * params.in_width;
}

fn out_pixels() -> u32 {
    return params.out_height * params.out_width;
}

// Whether a signed coordinate lies in 0..extent: a negative one wraps to a large number.
fn inside(coordinate: i32, extent: u32) -> bool {
    return u32(coordinate) < extent;
}

// A loop's constant bound as drivers must not see it: Mesa unrolls loops of up to 32 steps whole, at many times the
// compile time and for nothing where a step is long. (No grid is run for an empty batch.)
fn opaque(bound: u32) -> u32 {
    return select(bound, 0u, params.batch == 0u);
}

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

//# All that depends on the element type. Further types have a file each.
//% if element != "f32"
//% include "tensors_" ~ element ~ ".wgsl"
//% else
//% if input in ["pair", "pairs"] or weights in ["pair", "pairs"]
// Two neighbouring floats as one 64-bit integer, the first in the lower half.
fn unpack_pair(pair: u64) -> vec2<f32> {
    return bitcast<vec2<f32>>(vec2<u32>(u32(pair), u32(pair >> 32u)));
}

//% endif
// Elements of the input. Unless it is loaded one element at a time, they are neighbours, and `at` is aligned.
//% if input == "scalar"
@group(0) @binding(1) var<storage, read> input: array<f32>;

fn load_input(at: u32) -> f32 {
    return input[at];
}

// Zero unless `inside`; `at` is in the input all the same.
fn load_inside(at: u32, inside: bool) -> f32 {
    return select(0.0, input[at], inside);
}

fn load_input4(at: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(input[at.x], input[at.y], input[at.z], input[at.w]);
}
//% elif input == "pair"
@group(0) @binding(1) var<storage, read> input: array<u64>;

// Two neighbours, zero unless `inside`; `at` is even if `inside`, and in the input all the same.
fn load_inside2(at: u32, inside: bool) -> vec2<f32> {
    return unpack_pair(select(0lu, input[at / 2u], inside));
}
//% elif input == "quads"
@group(0) @binding(1) var<storage, read> input: array<vec4<f32>>;

// Four neighbours; `at` counts quads.
fn load_input(at: u32) -> vec4<f32> {
    return input[at];
}

fn load_input4(at: vec4<u32>) -> vec4<f32> {
    return input[at.x / 4u];
}
//% else
@group(0) @binding(1) var<storage, read> input: array<vec2<u64>>;

fn load_input4(at: vec4<u32>) -> vec4<f32> {
    let pairs = input[at.x / 4u];
    return vec4<f32>(unpack_pair(pairs.x), unpack_pair(pairs.y));
}
//% endif

//% if weights == "scalar"
@group(0) @binding(2) var<storage, read> weights: array<f32>;

fn load_weight(at: u32) -> f32 {
    return weights[at];
}

// The bias of an output channel, counted in the panels.
fn bias_of(index: u32) -> f32 {
    return weights[params.bias_at + index];
}

// The same if the kernel's HAS_BIAS is true, and else zero: the weights are bound whether there are biases or not.
fn bias_if_any(index: u32) -> f32 {
    if HAS_BIAS {
        return bias_of(index);
    }
    return 0.0;
}

fn bias4_of(index: u32) -> vec4<f32> {
    let at = params.bias_at + index;
    return vec4<f32>(weights[at], weights[at + 1u], weights[at + 2u], weights[at + 3u]);
}

//% elif weights == "pair"
@group(0) @binding(2) var<storage, read> weights: array<u64>;

// Two neighbours; `at` counts pairs.
fn load_weight(at: u32) -> vec2<f32> {
    return unpack_pair(weights[at]);
}

// The bias of an output channel, counted in the panels.
fn bias_of(index: u32) -> f32 {
    let pair = unpack_pair(weights[(params.bias_at + index) / 2u]);
    return select(pair.x, pair.y, index % 2u == 1u);
}

fn bias4_of(index: u32) -> vec4<f32> {
    let at = (params.bias_at + index) / 2u;
    return vec4<f32>(unpack_pair(weights[at]), unpack_pair(weights[at + 1u]));
}

//% elif weights == "quads"
@group(0) @binding(2) var<storage, read> weights: array<vec4<f32>>;

// Four neighbours; `at` counts quads.
fn load_weight(at: u32) -> vec4<f32> {
    return weights[at];
}

// One of four neighbours.
fn load_weight_component(at: u32, component: u32) -> f32 {
    return weights[at][component];
}

// The bias of an output channel, counted in the panels.
fn bias_of(index: u32) -> f32 {
    let at = params.bias_at + index;
    return load_weight_component(at / 4u, at % 4u);
}

fn bias4_of(index: u32) -> vec4<f32> {
    return weights[(params.bias_at + index) / 4u];
}

//% elif weights == "pairs"
@group(0) @binding(2) var<storage, read> weights: array<vec2<u64>>;

// Four neighbours; `at` counts quads.
fn load_weight(at: u32) -> vec4<f32> {
    let pairs = weights[at];
    return vec4<f32>(unpack_pair(pairs.x), unpack_pair(pairs.y));
}

fn bias4_of(index: u32) -> vec4<f32> {
    return load_weight((params.bias_at + index) / 4u);
}

//% endif
//% if output == "scalar"
@group(0) @binding(${2 if weights == "none" else 3}) var<storage, read_write> output: array<f32>;

// Stores a value as it is, without the epilogue.
fn store_plain(at: u32, value: f32) {
    output[at] = value;
}

// Stores a sum through the epilogue.
fn store(at: u32, sum: f32) {
    output[at] = epilogue(sum, at);
}

// Stores those of four sums that are valid. All four `at` must be inside the output all the same, for a residual is
// read at each.
fn store4(at: vec4<u32>, valid: vec4<bool>, sum: vec4<f32>) {
    let value = epilogue4(sum, at);
    if valid.x { output[at.x] = value.x; }
    if valid.y { output[at.y] = value.y; }
    if valid.z { output[at.z] = value.z; }
    if valid.w { output[at.w] = value.w; }
}
//% elif output == "pair"
@group(0) @binding(3) var<storage, read_write> output: array<u64>;

// Stores two sums through the epilogue: neighbours, `at` even.
fn store_pair(at: u32, first: f32, second: f32) {
    let bits = bitcast<vec2<u32>>(vec2<f32>(epilogue(first, at), epilogue(second, at + 1u)));
    output[at / 2u] = u64(bits.x) | (u64(bits.y) << 32u);
}
//% else
@group(0) @binding(3) var<storage, read_write> output: array<vec4<f32>>;

// Stores four sums through the epilogue: neighbours, `at` aligned, valid or not as a whole.
fn store4(at: vec4<u32>, valid: vec4<bool>, sum: vec4<f32>) {
    if valid.x {
        output[at.x / 4u] = epilogue4(sum, at);
    }
}
//% endif

//% if residual != "none" and output == "scalar"
@group(0) @binding(4) var<storage, read> residual: array<f32>;

fn load_residual(at: u32) -> f32 {
    return residual[at];
}

fn load_residual4(at: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(residual[at.x], residual[at.y], residual[at.z], residual[at.w]);
}
//% elif residual != "none"
@group(0) @binding(4) var<storage, read> residual: array<vec4<f32>>;

fn load_residual4(at: vec4<u32>) -> vec4<f32> {
    return residual[at.x / 4u];
}
//% endif
//% endif
