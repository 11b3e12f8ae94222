// The weights of a product, four neighbours as two 64-bit integers.

@group(0) @binding(2) var<storage, read> weights: array<vec2<u64>>;

fn load_weight(at: u32) -> vec4<f32> {
    let pairs = weights[at];
    return vec4<f32>(unpack_pair(pairs.x), unpack_pair(pairs.y));
}

fn bias4_of(index: u32) -> vec4<f32> {
    return load_weight((params.bias_at + index) / 4u);
}
