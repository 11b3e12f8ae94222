// The second of the two passes of a product cut along its input channels: the slices' sums added up, then the epilogue.
//
// partial  NCHW [image][slice][channel][pixel] or NHWC [image][pixel][slice][channel]
// host     SLICES, WORKGROUP, biases.wgsl, a split_sum_* file for the layout, and an output_* file

@group(0) @binding(1) var<storage, read> partial: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let at = workgroup_index(workgroup, grid) * WORKGROUP + local;
    if at >= params.work {
        return;
    }
    let place = partial_place(at);
    var sum = bias_of(place.channel);
    for (var slice = 0u; slice < SLICES; slice++) {
        sum += partial[place.first + slice * place.step];
    }
    store(at, sum);
}
