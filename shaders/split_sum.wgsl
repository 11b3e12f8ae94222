// ${recipe}: the slices' sums of a product, ${layout}
//
// The second of the two passes of a product cut along its input channels: the slices' sums added up, then the epilogue.
//
// input    the slices' sums: NCHW [image][slice][channel][pixel] or NHWC [image][pixel][slice][channel]
// weights  the biases
//#
//# include  tensors.wgsl, output.wgsl
//# host     SLICES, WORKGROUP (invocations), bias (true or false); params.bias_at (elements), params.work (outputs)

const SLICES: u32 = ${SLICES}u;
const WORKGROUP: u32 = ${WORKGROUP}u;
const HAS_BIAS: bool = ${"true" if bias else "false"};

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
    var sum = bias_if_any(place.channel);
    for (var slice = 0u; slice < SLICES; slice++) {
        sum += load_input(place.first + slice * place.step);
    }
    store(at, sum);
}

// Where the slices' sums for an output are.
struct PartialPlace {
    first: u32,
    step: u32,
    channel: u32,
}

fn partial_place(at: u32) -> PartialPlace {
    //% if layout == "nchw"
    let step = params.out_channels * out_pixels();
    let image = at / step;
    return PartialPlace(image * SLICES * step + at % step, step, at % step / out_pixels());
    //% else
    let step = params.out_channels;
    let channel = at % step;
    return PartialPlace(at / step * SLICES * step + channel, step, channel);
    //% endif
}

//% include "tensors.wgsl"

//% include "output.wgsl"
