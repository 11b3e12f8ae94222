// The input, one element at a time: for quads that are not aligned, or not side by side.

@group(0) @binding(1) var<storage, read> input: array<f32>;

fn load_input4(at: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(input[at.x], input[at.y], input[at.z], input[at.w]);
}
