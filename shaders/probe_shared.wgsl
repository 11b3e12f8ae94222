// How fast workgroup memory is: eight loads a step, neighbours for neighbouring invocations.

@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var<storage, read_write> output: array<f32>;

var<workgroup> tile: array<f32, ELEMENTS>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) local: u32) {
    for (var at = local; at < ELEMENTS; at += 64u) {
        tile[at] = input[at];
    }
    workgroupBarrier();
    var sum = vec4<f32>(0.0);
    var at = local;
    for (var step = 0u; step < params.work; step++) {
        let first = vec4<f32>(load(at), load(at + 64u), load(at + 128u), load(at + 192u));
        let second = vec4<f32>(load(at + 256u), load(at + 320u), load(at + 384u), load(at + 448u));
        sum = fma(first, second, sum);
        at += 512u;
    }
    output[local] = sum.x + sum.y + sum.z + sum.w;
}

fn load(at: u32) -> f32 {
    return tile[at % ELEMENTS];
}
