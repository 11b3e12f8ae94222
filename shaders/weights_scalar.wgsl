// The weights of a product through subgroups, a float a load.

@group(0) @binding(2) var<storage, read> weights: array<f32>;

fn load_weight(at: u32) -> f32 {
    return weights[at];
}

fn bias_of(index: u32) -> f32 {
    return weights[params.bias_at + index];
}

fn bias4_of(index: u32) -> vec4<f32> {
    let at = params.bias_at + index;
    return vec4<f32>(weights[at], weights[at + 1u], weights[at + 2u], weights[at + 3u]);
}
