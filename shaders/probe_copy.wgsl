// probe: copies
//
// How fast memory is: an invocation copies four floats in a step, and neighbours copy neighbours.
//#
//# include  params.wgsl
//# host     WORKGROUP (invocations); params.work (steps)

//% include "params.wgsl"

const WORKGROUP: u32 = ${WORKGROUP}u;

@group(0) @binding(1) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = workgroup_index(workgroup, grid) * params.work * WORKGROUP + local;
    for (var step = 0u; step < params.work; step++) {
        output[first + step * WORKGROUP] = input[first + step * WORKGROUP];
    }
}
