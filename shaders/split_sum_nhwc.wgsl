// Where the slices' sums for an output are, NHWC.

struct PartialPlace {
    first: u32,
    step: u32,
    channel: u32,
}

fn partial_place(at: u32) -> PartialPlace {
    let step = params.out_channels;
    let channel = at % step;
    return PartialPlace(at / step * SLICES * step + channel, step, channel);
}
