// Rows of the input, two neighbours a load, zero in the padding: for rows of even length, read from even columns.

@group(0) @binding(1) var<storage, read> input: array<u64>;

fn load_padded2(row: InputRow, x: i32) -> vec2<f32> {
    let inside = row.inside & inside(x, params.in_width);
    return unpack_pair(select(0lu, input[(row.at + select(0u, u32(x), inside)) / 2u], inside));
}
