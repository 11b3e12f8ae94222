// The weights of a product through subgroups, two neighbouring floats a load.

@group(0) @binding(2) var<storage, read> weights: array<u64>;

fn load_weight(at: u32) -> vec2<f32> {
    return unpack_pair(weights[at]);
}

fn bias_of(index: u32) -> f32 {
    let pair = unpack_pair(weights[(params.bias_at + index) / 2u]);
    return select(pair.x, pair.y, index % 2u == 1u);
}

fn bias4_of(index: u32) -> vec4<f32> {
    let at = (params.bias_at + index) / 2u;
    return vec4<f32>(unpack_pair(weights[at]), unpack_pair(weights[at + 1u]));
}
