// ${recipe}: ${problem}
//
// Images of another size, by the nearest pixel or by weighted means of four. An invocation computes one output. Both
// images may be parts of larger ones: rows and columns are then counted in these, so that all numbers are as in these.
//
// input    NCHW or NHWC, by the strides
// output   the same
//#
//# include  tensors.wgsl
//# host     MODE ("nearest", "bilinear", or "aligned": bilinear with the corners' centres in their places), WORKGROUP
//#          (invocations); params.tiles_x, params.tiles_y (columns and rows of the output), params.work (outputs),
//#          params.low_bits, params.high_bits (those of the distances of two pixels of the output, down and right, in
//#          pixels of the input)

const WORKGROUP: u32 = ${WORKGROUP}u;

// The row of the input, and the column, at a place or before it. Rounding may lead beyond the first and the last.
fn row_of(place: f32) -> u32 {
    return clamp(u32(place), params.first_in_y, params.first_in_y + params.in_height - 1u) - params.first_in_y;
}

fn column_of(place: f32) -> u32 {
    return clamp(u32(place), params.first_in_x, params.first_in_x + params.in_width - 1u) - params.first_in_x;
}

//% if MODE != "nearest"
// Where a row or column of the output lies in the input.
fn place_of(at: u32, distance: f32) -> f32 {
    //% if MODE == "aligned"
    return f32(at) * distance;
    //% else
    // Pixels have their centres in the middle; what lies before the first is its value.
    return max((f32(at) + 0.5) * distance - 0.5, 0.0);
    //% endif
}

//% endif
@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = workgroup_index(workgroup, grid) * WORKGROUP + local;
    if index >= params.work {
        return;
    }
    let item = item(index, params.in_channels);
    let plane = item.batch * params.in_channels * in_pixels() + item.channel * in_channel_stride();
    let down = bitcast<f32>(params.low_bits);
    let right = bitcast<f32>(params.high_bits);
    //% if MODE == "nearest"
    let y = row_of(f32(item.y + params.first_out_y) * down);
    let x = column_of(f32(item.x + params.first_out_x) * right);
    let value = load_input(plane + y * in_row_stride() + x * in_pixel_stride());
    //% else
    let y = place_of(item.y + params.first_out_y, down);
    let x = place_of(item.x + params.first_out_x, right);
    let top = row_of(y);
    let left = column_of(x);
    let bottom = min(top + 1u, params.in_height - 1u);
    let next = min(left + 1u, params.in_width - 1u);
    let below = clamp(y - f32(params.first_in_y + top), 0.0, 1.0);
    let behind = clamp(x - f32(params.first_in_x + left), 0.0, 1.0);
    let upper = plane + top * in_row_stride();
    let lower = plane + bottom * in_row_stride();
    let upper_value = (1.0 - behind) * load_input(upper + left * in_pixel_stride())
        + behind * load_input(upper + next * in_pixel_stride());
    let lower_value = (1.0 - behind) * load_input(lower + left * in_pixel_stride())
        + behind * load_input(lower + next * in_pixel_stride());
    let value = (1.0 - below) * upper_value + below * lower_value;
    //% endif
    let at = item.batch * params.out_channels * out_pixels()
        + item.channel * out_channel_stride()
        + item.y * out_row_stride()
        + item.x * out_pixel_stride();
    store_plain(at, value);
}

//% include "tensors.wgsl"
