// How fast loads from storage are that a cache has.

@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var<storage, read_write> output: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) local: u32) {
    output[local] = sum_of_loads(local);
}

fn load(at: u32) -> f32 {
    return input[at % ELEMENTS];
}
