// ${recipe}: a gate of ${CHANNELS} channels, ${SQUEEZED} between its products, ${layout}
//
// The gate of a squeeze-and-excite block: the mean of every plane of an image, then two products with their
// activations, squeezed = activate(W1 means + b1), output = activate(W2 squeezed + b2). (Hu et al., arXiv 1709.01507.)
//
// A workgroup computes an image, and everything between input and output stays in its memory.
//% if LANES > 1
// PLANES planes at a time are summed, by LANES invocations each, whose sums one of them adds.
//% else
// Each invocation sums whole planes, row by row, so that the error grows with a row and a column and not with all
// pixels.
//% endif
// In a product each invocation has four outputs side by side. Where these leave invocations idle, slices of them take
// turns at k, and the first slice adds up what the others have.
//
// input    NCHW or NHWC, by the strides
// weights  of both products [k][output], outputs padded to quads, each followed by its biases (zeros where there are
//          none)
// output   a value a plane, one image after the other: in both layouts, for there is one pixel
//#
//# include  inner_activation.wgsl, tensors.wgsl, output.wgsl
//# host     CHANNELS, SQUEEZED, WORKGROUP (invocations), LANES (that share a plane; a power of two),
//#          COUNT (what sums are divided by; none: the number of pixels),
//#          inner_activations with one called "squeeze", products: for both, "squeeze" and "excite",
//#              name, reads  its name, and that of the array that it reads
//#              depth        of k
//#              quads        of outputs
//#              slices       that take turns at k
//#              at, bias_at  where weights and biases start, in quads
//#          params.work (images)

const CHANNELS: u32 = ${CHANNELS}u;
const WORKGROUP: u32 = ${WORKGROUP}u;
//% if LANES > 1
const LANES: u32 = ${LANES}u;
const PLANES: u32 = WORKGROUP / LANES;
// Between invocations of two planes, and of two lanes: neighbours read neighbours in memory.
    //% if layout == "nchw"
const PLANE_DISTANCE: u32 = LANES;
const LANE_DISTANCE: u32 = 1u;
    //% else
const PLANE_DISTANCE: u32 = 1u;
const LANE_DISTANCE: u32 = PLANES;
    //% endif

var<workgroup> lane_sums: array<f32, WORKGROUP>;
//% endif
var<workgroup> means: array<f32, CHANNELS>;
var<workgroup> squeezed: array<f32, ${products[0].quads * 4}>;
//% if products[0].slices > 1 or products[1].slices > 1
var<workgroup> slice_sums: array<vec4<f32>, WORKGROUP>;
//% endif

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    // The same for the whole workgroup, so it leaves as one, before any barrier.
    let image = workgroup_index(workgroup, grid);
    if image >= params.work {
        return;
    }
    //% if LANES > 1
    let lane = local / LANE_DISTANCE % LANES;
    for (var first = 0u; first < CHANNELS; first += PLANES) {
        let channel = first + local / PLANE_DISTANCE % PLANES;
        lane_sums[local] = lane_sum(image * CHANNELS + min(channel, CHANNELS - 1u), lane);
        workgroupBarrier();
        if lane == 0u && channel < CHANNELS {
            var sum = lane_sums[local];
            for (var next = 1u; next < LANES; next++) {
                sum += lane_sums[local + next * LANE_DISTANCE];
            }
            means[channel] = sum / f32(${COUNT ~ "u" if COUNT else "in_pixels()"});
        }
        workgroupBarrier();
    }
    //% else
    for (var channel = local; channel < CHANNELS; channel += WORKGROUP) {
        means[channel] = plane_sum(image * CHANNELS + channel) / f32(${COUNT ~ "u" if COUNT else "in_pixels()"});
    }
    workgroupBarrier();
    //% endif
    //% for product in products
        //% set at_once = WORKGROUP // product.slices
        //% if product.slices > 1
    for (var first = 0u; first < ${product.quads}u; first += ${at_once}u) {
        let quad = first + local % ${at_once}u;
        slice_sums[local] = ${product.name}(min(quad, ${product.quads - 1}u), local / ${at_once}u);
        workgroupBarrier();
        if local < ${at_once}u && quad < ${product.quads}u {
            var sum = slice_sums[local];
            for (var slice = 1u; slice < ${product.slices}u; slice++) {
                sum += slice_sums[local + slice * ${at_once}u];
            }
            finish_${product.name}(image, quad, sum);
        }
        workgroupBarrier();
    }
        //% else
    for (var quad = local; quad < ${product.quads}u; quad += WORKGROUP) {
        finish_${product.name}(image, quad, ${product.name}(quad, 0u));
    }
            //% if product.name == "squeeze"
    workgroupBarrier();
            //% endif
        //% endif
    //% endfor
}

//% if LANES > 1
// What a lane has of the sum of a plane.
fn lane_sum(plane: u32, lane: u32) -> f32 {
    // Pixels that are added before they are added to the sum, so that the error grows slower than their number.
    const STEP = LANES * 32u;
    let start = plane_start(plane);
    var sum = 0.0;
    for (var first = lane; first < in_pixels(); first += STEP) {
        let end = min(first + STEP, in_pixels());
        var part = 0.0;
        for (var pixel = first; pixel < end; pixel += LANES) {
            part += load_input(start + pixel * in_pixel_stride());
        }
        sum += part;
    }
    return sum;
}
//% else
// The sum of a plane.
fn plane_sum(plane: u32) -> f32 {
    let start = plane_start(plane);
    var sum = 0.0;
    for (var y = 0u; y < params.in_height; y++) {
        let row = start + y * params.in_width * in_pixel_stride();
        var row_sum = 0.0;
        for (var x = 0u; x < params.in_width; x++) {
            row_sum += load_input(row + x * in_pixel_stride());
        }
        sum += row_sum;
    }
    return sum;
}
//% endif

//% for product in products
// A slice's part of four outputs.
fn ${product.name}(quad: u32, slice: u32) -> vec4<f32> {
    var sum = vec4<f32>(0.0);
    for (var k = slice; k < ${product.depth}u; k += ${product.slices}u) {
        sum = fma(vec4<f32>(${product.reads}[k]), load_weight(${product.at}u + k * ${product.quads}u + quad), sum);
    }
    return sum;
}

//% endfor
fn finish_squeeze(image: u32, quad: u32, sum: vec4<f32>) {
    let values = activate_squeeze4(sum + load_weight(${products[0].bias_at}u + quad));
    squeezed[quad * 4u] = values.x;
    squeezed[quad * 4u + 1u] = values.y;
    squeezed[quad * 4u + 2u] = values.z;
    squeezed[quad * 4u + 3u] = values.w;
}

fn finish_excite(image: u32, quad: u32, sum: vec4<f32>) {
    let channels = vec4<u32>(quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    let at = vec4<u32>(image * CHANNELS) + min(channels, vec4<u32>(CHANNELS - 1u));
    store4(at, channels < vec4<u32>(CHANNELS), sum + load_weight(${products[1].bias_at}u + quad));
}

//% include "inner_activation.wgsl"

//% include "tensors.wgsl"

//% include "output.wgsl"
