// Rows of the input, one element at a time, zero in the padding.

@group(0) @binding(1) var<storage, read> input: array<f32>;

// `&` and not `&&`: the latter is a branch, of which there would be one for each of dozens of loads.
fn load_padded(row: InputRow, x: i32) -> f32 {
    let inside = row.inside & inside(x, params.in_width);
    return select(0.0, input[row.at + select(0u, u32(x) * in_pixel_stride(), inside)], inside);
}
