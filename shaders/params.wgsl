// What the host tells a kernel: the parameter block, and the convolution's geometry.
//#
//# host     geometry  of the convolution, in rows and columns: kernel_height, kernel_width, stride_y and so on; or none
//#          UNEVEN    whether the last group of input channels has fewer than the others (or left out)

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
    // A PReLU's slopes behind the weights: where they start, and how many there are.
    slopes_at: u32,
    slopes: u32,
    // Of tensors that lie in others: pixels of an image of the input and of the output, and columns of the output.
    view_in_pixels: u32,
    view_out_pixels: u32,
    view_out_width: u32,
    // Of the tensor of which a pass stores some phases: pixels of an image, and columns.
    whole_pixels: u32,
    whole_width: u32,
    // Of a part of a resize: row and column of the input and of the output where it begins.
    first_in_y: u32,
    first_in_x: u32,
    first_out_y: u32,
    first_out_x: u32,
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

//% if UNEVEN | default(false)
// Channels of a group of the input, of which the last has fewer.
fn group_channels(group: u32) -> u32 {
    return min(params.group_in, params.in_channels - group * params.group_in);
}

//% endif
// Whether a signed coordinate lies in 0..extent: a negative one wraps to a large number.
fn inside(coordinate: i32, extent: u32) -> bool {
    return u32(coordinate) < extent;
}

// A loop's constant bound as drivers must not see it: Mesa unrolls loops of up to 32 steps whole, at many times the
// compile time and for nothing where a step is long. (No grid is run for an empty batch.)
fn opaque(bound: u32) -> u32 {
    return select(bound, 0u, params.batch == 0u);
}
