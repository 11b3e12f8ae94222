// How fast multiply-adds are: `step_of` is many that do not wait for each other, in registers.

@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var<storage, read_write> output: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) local: u32) {
    // From memory, so that no compiler knows them; below 1, so that the sums stay small.
    let a = vec4<f32>(input[local] * 0.5 + 0.25);
    var sums = start(a);
    for (var step = 0u; step < params.work; step++) {
        sums = step_of(sums, a);
    }
    output[local] = total(sums);
}
