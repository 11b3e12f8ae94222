// The output and the residual as aligned quads, which are valid or not as a whole.

@group(0) @binding(3) var<storage, read_write> output: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> residual: array<vec4<f32>>;

fn load_residual(at: u32) -> f32 {
    return residual[at / 4u][at % 4u];
}

fn load_residual4(at: vec4<u32>) -> vec4<f32> {
    return residual[at.x / 4u];
}

fn store4(at: vec4<u32>, valid: vec4<bool>, sum: vec4<f32>) {
    if valid.x {
        output[at.x / 4u] = epilogue4(sum, at);
    }
}
