// The output and the residual, one element at a time.

@group(0) @binding(3) var<storage, read_write> output: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<f32>;

fn load_residual(at: u32) -> f32 {
    return residual[at];
}

fn load_residual4(at: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(residual[at.x], residual[at.y], residual[at.z], residual[at.w]);
}

fn store(at: u32, sum: f32) {
    output[at] = epilogue(sum, at);
}

// Stores those of four sums that are valid. All four `at` must be inside the output all the same, for the
// residual is read at each.
fn store4(at: vec4<u32>, valid: vec4<bool>, sum: vec4<f32>) {
    let value = epilogue4(sum, at);
    if valid.x { output[at.x] = value.x; }
    if valid.y { output[at.y] = value.y; }
    if valid.z { output[at.z] = value.z; }
    if valid.w { output[at.w] = value.w; }
}
