// How fast workgroup memory is.

@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var<storage, read_write> output: array<f32>;

var<workgroup> tile: array<f32, ELEMENTS>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) local: u32) {
    for (var at = local; at < ELEMENTS; at += 64u) {
        tile[at] = input[at];
    }
    workgroupBarrier();
    output[local] = sum_of_loads(local);
}

fn load(at: u32) -> f32 {
    return tile[at % ELEMENTS];
}
