// The weights of a product, four neighbours a load.

@group(0) @binding(2) var<storage, read> weights: array<vec4<f32>>;

fn load_weight(at: u32) -> vec4<f32> {
    return weights[at];
}

fn bias_of(index: u32) -> f32 {
    let at = params.bias_at + index;
    return weights[at / 4u][at % 4u];
}

fn bias4_of(index: u32) -> vec4<f32> {
    return weights[(params.bias_at + index) / 4u];
}
