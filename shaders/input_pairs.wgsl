// The input as aligned quads, each loaded as two pairs of floats.

@group(0) @binding(1) var<storage, read> input: array<vec2<u64>>;

fn load_input4(at: vec4<u32>) -> vec4<f32> {
    let pairs = input[at.x / 4u];
    return vec4<f32>(unpack_pair(pairs.x), unpack_pair(pairs.y));
}
