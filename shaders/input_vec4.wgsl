// The input as aligned quads: one load of 16 bytes for four elements side by side.

@group(0) @binding(1) var<storage, read> input: array<vec4<f32>>;

fn load_input4(at: vec4<u32>) -> vec4<f32> {
    return input[at.x / 4u];
}
