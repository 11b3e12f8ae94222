// ${recipe}: the slices' sums of a product, ${layout}
//
// The second of the two passes of a product cut along its input channels: the slices' sums added up, then the epilogue.
//
// input    the slices' sums: NCHW [image][slice][channel][pixel] or NHWC [image][pixel][slice][channel]
// weights  the biases
//#
//# include  tensors.wgsl, output.wgsl
//# host     SLICES, WORKGROUP (invocations), bias (true or false), phases (those of output.wgsl); params.bias_at
//#          (elements), params.work (outputs)

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
    //% if phases | default(false)
    store(whole_element(place.image, place.channel, place.pixel), sum);
    //% else
    store(at, sum);
    //% endif
}

// Where the slices' sums for an output are, and which output that is.
struct PartialPlace {
    first: u32,
    step: u32,
    image: u32,
    channel: u32,
    pixel: u32,
}

fn partial_place(at: u32) -> PartialPlace {
    //% if layout == "nchw"
    let step = params.out_channels * out_pixels();
    let image = at / step;
    let rest = at - image * step;
    let channel = rest / out_pixels();
    return PartialPlace(image * SLICES * step + rest, step, image, channel, rest - channel * out_pixels());
    //% else
    let step = params.out_channels;
    let pixel = at / step;
    let channel = at - pixel * step;
    let image = pixel / out_pixels();
    return PartialPlace(pixel * SLICES * step + channel, step, image, channel, pixel - image * out_pixels());
    //% endif
}

//% include "tensors.wgsl"

//% include "output.wgsl"
